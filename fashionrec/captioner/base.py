"""What a captioner is. Jobs, evaluation and commands know this type alone.

A new captioner is a subclass of :class:`Captioner` with ``name``, ``title``, ``model`` and
:meth:`Captioner.describe_one`, and a line in :mod:`fashionrec.config.captioners`. The rest is for
one that has more: concurrent requests (:meth:`Captioner.describe`), prices, answers that are
written down as they come, batches, translation.
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
    """One garment to describe. ``key`` is whatever the caller knows it by.

    ``picture`` makes its crop (RGB), ``vector`` gives the crop's vector by the catalogue's encoder
    (float32 [d], unit length). A captioner calls what it needs, perhaps in another thread.
    """

    key: Hashable
    class_name: str | None
    picture: Callable[[], Image.Image]
    vector: Callable[[], np.ndarray]


class Described(NamedTuple):
    """The outcome of a job; ``arrived`` says that its answer went through the callback of that name."""

    job: Job
    outcome: Outcome
    arrived: bool = False


@dataclass(frozen=True)
class Examples:
    """Garments whose attributes are known: vectors float32 [n, d], and for each its class, its
    attributes (field to any word for the value), and its product."""

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
    """What a captioner may use of the catalogue that the garments belong to."""

    @property
    def fingerprint(self) -> str:
        """The encoder's fingerprint, told without opening it."""

    @property
    def encoder(self) -> Encoder: ...

    def words(self, fields: Sequence[str]) -> Mapping[str, Collection[str]]:
        """The values that occur in some fields of the products' own data."""

    def examples(self) -> Examples | None:
        """Garments whose attributes the products' own data tell; None where there are none."""


@dataclass
class BatchProgress:
    """What a call of :meth:`Batches.advance` did, and what is left.

    ``held`` requests are kept back by the cost limit, ``unplanned`` ones wait and were not planned
    by this user; ``outstanding`` are all without an answer, ``completed`` those of them that the
    server is done with.
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
    """Garments that are sent, or planned by this user; ``unsent`` requests are not sent yet."""

    places: Sequence[Place] = ()
    unsent: int = 0


class Captioner(ABC):
    """Describes garments. An instance serves one run."""

    #: In the settings, and beside each caption that is recorded.
    name: ClassVar[str]
    #: For people.
    title: ClassVar[str]
    #: Crops leave the machine, which is said before a run. Nobody chooses such a captioner for a customer's photo: a query
    #: describes by the catalogue's own encoder unless its user names another.
    sends_photos: ClassVar[bool] = False
    #: Captions are paid for: their expected cost is told first, and what is spent is counted.
    costs: ClassVar[bool] = False
    #: Describes by the catalogue's own encoder and learns from its products: its captions hold for
    #: that encoder alone, replace nobody else's, and are evaluated by cross-validation. Captions of
    #: any other hold in every catalogue, whichever of its models made them, and are recorded in the
    #: project's file.
    from_encoder: ClassVar[bool] = False
    #: The file in a catalogue where answers are written down as they come; None: there is none. Its name, and that of the
    #: folder, stand in :mod:`fashionrec.config.captioners`, where whoever looks at a catalogue finds them.
    spool_file: ClassVar[str | None] = None
    #: The folder in a catalogue where batches are kept; None: it has no batches.
    batch_folder: ClassVar[str | None] = None

    def __init__(self, config: CaptionerConfig, *, vocabulary: Vocabulary | None = None) -> None:
        self.config = config
        self.vocabulary = vocabulary or vocabulary_of(config)

    @classmethod
    def is_ready(cls) -> bool:
        """Whether ``auto`` may choose it: its server is set up."""
        return False

    def bind(self, source: Source) -> Captioner:
        """The captioner for a catalogue's garments; itself where it needs nothing of the catalogue."""
        return self

    @property
    @abstractmethod
    def model(self) -> str:
        """The model's name, as it is recorded; one :attr:`from_encoder` has none before it is bound."""

    @property
    def label(self) -> str:
        """Who describes, and whether anything is sent: shown before a run."""
        where = " (the crops are sent there)" if self.sends_photos else ""
        return f"{self.title}, {self.model}{where}"

    @property
    def only_model(self) -> str | None:
        """The model whose recorded captions count; None where those of all its models do."""
        return self.model if self.from_encoder else None

    def keeps(self, captioner: str | None) -> bool:
        """Whether a garment's caption by ``captioner`` stays, unless it is asked for anew."""
        return captioner is not None and (captioner == self.name or self.from_encoder)

    def notice(self, *, ask: bool) -> str:
        """A warning before a run (its model is shut down soon), or nothing.

        ``ask`` allows one request to the server.
        """
        return ""

    def price(self, model: str | None = None, *, batch: bool = False) -> Price | None:
        """The price of a model, by default its own; None where it is not known, as of one that costs and does not say more."""
        return None if self.costs else Price(0.0, 0.0)

    def expected_tokens(self) -> Tokens:
        """The tokens of one caption, before any was measured."""
        return Tokens(0, 0)

    def describe_one(self, job: Job) -> Outcome:
        """Describe one garment; a failure is an outcome.

        Raises :class:`CaptionError` for what concerns every garment.
        """
        raise NotImplementedError

    def describe(
        self,
        jobs: Iterable[Job],
        *,
        most: int | None = None,
        meter: Meter | None = None,
        arrived: Callable[[Job, str, float], None] | None = None,
    ) -> Generator[list[Described], None, None]:
        """Yield outcomes in groups, as they come. Closing the iterator stops the requests.

        Args:
            jobs: The garments; read when their turn comes.
            most: How many jobs there are at most.
            meter: Counts what is spent; where no more may be spent, the iterator ends.
            arrived: Called with each answer before it is read: the job, the answer as
                :meth:`read_answer` takes it, seconds.

        Raises :class:`CaptionError` for what concerns every garment; what had come by then is
        yielded first.
        """
        return self._one_by_one(jobs, meter)

    def _one_by_one(self, jobs: Iterable[Job], meter: Meter | None) -> Generator[list[Described], None, None]:
        group: list[Described] = []
        began = time.monotonic()
        for job in jobs:
            if meter is not None and not meter.reserve():
                break
            try:
                outcome = self.describe_one(job)
            except BaseException:
                yield group  # perhaps paid for: it is recorded before the error ends it all
                raise
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
        """The outcome of an answer as ``arrived`` was given it, by ``model`` (default: its own)."""
        raise NotImplementedError

    def read_text(self, text: str, class_name: str | None, *, model: str, usage: dict[str, int]) -> Outcome:
        """The outcome of a recorded text (``Outcome.raw``), checked as if it had just come."""
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
        """The batches of a folder.

        Args:
            folder: Where they are kept; made if it is missing.
            picture: Makes a garment's crop; None where the garment is gone.
            record: Keeps outcomes, for good when it returns.
            ledger: Knows what this user has planned: nothing else is sent.
            most: Requests to send in all; None for any number.
        """
        raise NotImplementedError

    @classmethod
    def under_way(cls, folder: Path, ledger: Ledger) -> UnderWay:
        """The garments that the batches of a folder are about."""
        return UnderWay()

    @classmethod
    def open_batches(cls, folder: Path) -> list[dict[str, Any]]:
        """The unfinished batches of a folder, for a document."""
        return []

    def translate(self, texts: Sequence[str]) -> list[str]:
        """Translate texts into English. Only for those in ``TRANSLATORS``. Raises :class:`CaptionError`."""
        raise NotImplementedError
