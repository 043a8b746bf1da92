"""What a captioner is, whoever describes. Jobs, evaluation and commands know this type alone.

A new captioner is a class of :class:`Captioner` with ``name``, ``title``, ``model`` and :meth:`Captioner.describe_one`, and a
line in :mod:`fashionrec.config.captioners`. The rest is for one that has more: a server that takes many requests at once
(:meth:`Captioner.describe`), prices, answers that are written down as they come, batches, translation.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from fashionrec.captioner.cost import Price, Tokens
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.schema import parse
from fashionrec.captioner.vocabulary import Vocabulary, vocabulary_of
from fashionrec.errors import CaptionError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fashionrec.captioner.cache import Place
    from fashionrec.captioner.cost import Meter
    from fashionrec.captioner.ledger import Ledger
    from fashionrec.config import CaptionerConfig

_GROUP = 64  # outcomes given out together, at most
_GROUP_SECONDS = 1.0  # after which they are given out


@dataclass(frozen=True)
class Job:
    """One garment to describe. ``key`` is whatever the asker knows it by.

    ``picture`` makes its crop (RGB), ``vector`` gives that of the crop by the catalogue's encoder (float32 [d], unit
    length). A captioner calls what it needs when its turn comes, perhaps in another thread.
    """

    key: Hashable
    class_name: str | None
    picture: Callable[[], Image.Image]
    vector: Callable[[], np.ndarray]


class Described(NamedTuple):
    """What became of a job. ``arrived``: its answer was told to :meth:`Captioner.describe`'s ``arrived`` before."""

    job: Job
    outcome: Outcome
    arrived: bool = False


@dataclass(frozen=True)
class Examples:
    """Garments whose attributes are known: vectors float32 [n, d], and of each its class, the words for its attributes by
    field, and its product."""

    vectors: np.ndarray
    class_names: Sequence[str | None]
    attributes: Sequence[Mapping[str, str]]
    products: Sequence[str]


class Encoder(Protocol):
    """The catalogue's own encoder."""

    @property
    def logit_scale(self) -> float: ...

    @property
    def logit_bias(self) -> float | None:
        """Of a sigmoid; None where texts are told apart by a softmax."""

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray: ...


class Source(Protocol):
    """The catalogue that the garments are of, as far as a captioner may need it. Its encoder is opened when it is asked for."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def encoder(self) -> Encoder: ...

    def words(self, fields: Sequence[str]) -> Mapping[str, Collection[str]]:
        """The values that the products' own data have in some fields."""

    def examples(self) -> Examples | None:
        """Garments of which the products' own data tell attributes; None where they tell none."""


@dataclass
class BatchProgress:
    """What a call of :meth:`Batches.advance` did, and what is left.

    ``held`` are requests that the limit of the cost keeps back, ``unplanned`` those that wait and that this user has not
    planned, ``outstanding`` all that have no answer, ``completed`` those of them that the server is done with.
    """

    submitted: int = 0
    collected: int = 0
    resubmitted: int = 0
    duplicates: int = 0
    held: int = 0
    unplanned: int = 0
    outstanding: int = 0
    completed: int = 0
    errors: list[str] = field(default_factory=list)


class Batches(Protocol):
    """The batches of one catalogue, over days and processes."""

    def add(self, places: Iterable[Place]) -> int:
        """Plan garments to be asked; returns how many are new."""

    def planned_requests(self) -> int:
        """How many requests this user has planned that are not sent."""

    def discard_unsent(self) -> int:
        """Give up what may not be sent; returns how many garments that are."""

    def advance(self) -> BatchProgress:
        """Carry everything as far as it goes now, without waiting for a batch."""


@dataclass(frozen=True)
class UnderWay:
    """The garments that are sent, or planned by this user to be; ``unsent`` requests are not sent yet."""

    places: Sequence[Place] = ()
    unsent: int = 0


class Captioner(ABC):
    """Describes garments. An instance serves one run."""

    #: In the settings, and beside each caption that is recorded.
    name: ClassVar[str]
    #: For people.
    title: ClassVar[str]
    #: Crops leave the machine. Nothing of a customer's photo is sent to one that was not asked for by its name.
    sends_photos: ClassVar[bool] = False
    #: Captions are paid for: what they are expected to cost is said before, and counted.
    costs: ClassVar[bool] = False
    #: Describes by the vectors of the catalogue's own encoder, and learns from its products. What it says holds for that
    #: encoder alone, replaces nobody else's caption, and is measured on what it has not learnt from. What any other says
    #: holds in every catalogue, whichever of its models said it, and is recorded in the project's file.
    from_encoder: ClassVar[bool] = False
    #: The file beside a catalogue's captions where answers are written down as they come; None: it tells of none.
    spool_file: ClassVar[str | None] = None
    #: The folder in a catalogue where batches are kept; None: it takes none.
    batch_folder: ClassVar[str | None] = None

    def __init__(self, config: CaptionerConfig, *, vocabulary: Vocabulary | None = None) -> None:
        self.config = config
        self.vocabulary = vocabulary or vocabulary_of(config)

    @classmethod
    def is_ready(cls) -> bool:
        """Whether ``auto`` chooses it: its server is set up."""
        return False

    def bind(self, source: Source) -> Captioner:
        """The captioner of a catalogue's garments: itself, where it needs nothing of the catalogue."""
        return self

    @property
    @abstractmethod
    def model(self) -> str:
        """What describes, as it is recorded. One :attr:`from_encoder` has none before it is bound."""

    @property
    def label(self) -> str:
        """Who describes, and whether something is sent, for the line that is said before."""
        return f"{self.title}, {self.model}" + (" (the crops are sent there)" if self.sends_photos else "")

    @property
    def only_model(self) -> str | None:
        """The model whose recorded captions count; None: those of any of its models do."""
        return self.model if self.from_encoder else None

    def keeps(self, captioner: str | None) -> bool:
        """Whether a caption that a garment has, by ``captioner``, stays unless it is asked anew."""
        return captioner is not None and (captioner == self.name or self.from_encoder)

    def notice(self, *, ask: bool) -> str:
        """What should be known before it is used (its model is shut down soon), or nothing. ``ask``: its server may be asked."""
        return ""

    def price(self, model: str | None = None, *, batch: bool = False) -> Price | None:
        """The price of a model, by default of its own; None where it is not known."""
        return Price(0.0, 0.0)

    def expected_tokens(self) -> Tokens:
        """What one caption takes, before any was measured."""
        return Tokens(0, 0)

    def describe_one(self, job: Job) -> Outcome:
        """Describe one garment; a failure is an outcome. Raises :class:`CaptionError` for what concerns every garment."""
        raise NotImplementedError

    def describe(
        self,
        jobs: Iterable[Job],
        *,
        most: int | None = None,
        meter: Meter | None = None,
        arrived: Callable[[Job, str, float], None] | None = None,
    ) -> Generator[list[Described], None, None]:
        """Outcomes of the jobs, in groups, as they come; the next group is begun when this one is done with.

        ``most`` is how many jobs there are at most. ``meter`` counts what is spent; where no more may be, it ends.
        ``arrived`` is told of answers before they are read: the job, the answer as :meth:`read_answer` takes it, seconds.
        Raises :class:`CaptionError` for what concerns every garment. Closing the iterator stops it.
        """
        return self._one_by_one(jobs, meter)

    def _one_by_one(self, jobs: Iterable[Job], meter: Meter | None) -> Generator[list[Described], None, None]:
        group: list[Described] = []
        began = time.monotonic()
        for job in jobs:
            if meter is not None and not meter.reserve():
                break
            outcome = self.describe_one(job)
            if meter is not None:
                meter.came(outcome.usage)
            group.append(Described(job, outcome))
            if len(group) == _GROUP or time.monotonic() - began > _GROUP_SECONDS:
                yield group
                group, began = [], time.monotonic()
        if group:
            yield group

    def read_answer(
        self, answer: str, class_name: str | None, *, model: str | None = None, seconds: float = 0.0
    ) -> Outcome:
        """The outcome that an answer, as ``arrived`` was told it, amounts to; ``model`` gave it, by default its own."""
        raise NotImplementedError

    def read_text(self, text: str, class_name: str | None, *, model: str, usage: dict[str, int]) -> Outcome:
        """The outcome that the recorded text of an answer (``Outcome.raw``) amounts to, checked as if it had just come."""
        try:
            described = parse(text, class_name, self.vocabulary)
        except CaptionError as error:
            return Outcome("invalid", self.name, model, raw=text, usage=usage, error=str(error))
        return Outcome("done", self.name, model, description=described, raw=text, usage=usage)

    def batches(
        self,
        folder: Path,
        *,
        picture: Callable[[Place], Image.Image | None],
        record: Callable[[Sequence[tuple[Place, Outcome]]], None],
        ledger: Ledger,
        most: int | None = None,
    ) -> AbstractContextManager[Batches]:
        """The batches of a folder, as a context manager.

        ``picture`` makes a garment's crop (None: it is gone); ``record`` keeps what came, for good when it returns.
        ``ledger`` knows what this user has planned: nothing else is sent. ``most`` requests are sent in all.
        """
        raise NotImplementedError

    @classmethod
    def under_way(cls, folder: Path, ledger: Ledger) -> UnderWay:
        """What the batches of a folder are at work on."""
        return UnderWay()

    @classmethod
    def open_batches(cls, folder: Path) -> list[dict[str, Any]]:
        """The batches of a folder that are not done with, for a document."""
        return []

    def translate(self, texts: Sequence[str]) -> list[str]:
        """Texts in English, of one in ``TRANSLATORS``. Raises :class:`CaptionError` where they cannot be had."""
        raise NotImplementedError
