"""The captioner type, the only one that jobs, evaluation and commands know.

A new captioner is a subclass of :class:`Captioner` with ``name``, ``title``, ``model`` and
:meth:`Captioner.describe_one`, and a line in :mod:`fashionrec.config.captioners`. The rest is
optional: concurrent requests (:meth:`Captioner.describe`), prices, a spool of answers, batches,
translation.
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
    from fashionrec.captioner.cost import CostMeter
    from fashionrec.captioner.ledger import Ledger
    from fashionrec.config import CaptionerConfig

_GROUP = 64  # outcomes yielded at once, at most
_GROUP_SECONDS = 1.0  # longest time until a group is yielded


@dataclass(frozen=True)
class Job:
    """One garment to describe, under any ``key`` of the caller.

    ``picture`` makes its crop (RGB), ``vector`` returns the crop's vector by the catalogue's
    encoder (float32 [d], unit length). A captioner calls only what it needs, perhaps in another
    thread.
    """

    key: Hashable
    class_name: str | None
    picture: Callable[[], Image.Image]
    vector: Callable[[], np.ndarray]


class Described(NamedTuple):
    """The outcome of a job; ``arrived`` if the answer went through the callback of that name."""

    job: Job
    outcome: Outcome
    arrived: bool = False


@dataclass(frozen=True)
class Examples:
    """Garments with known attributes: vectors float32 [n, d], and one entry per garment each.

    ``attributes`` maps fields to any word for the value.
    """

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
        """The bias of a sigmoid encoder; None if texts are compared by a softmax."""

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray: ...


class Source(Protocol):
    """The parts of a catalogue that a captioner may use."""

    @property
    def fingerprint(self) -> str:
        """The encoder's fingerprint, available without loading the encoder."""

    @property
    def encoder(self) -> Encoder: ...

    def words(self, fields: Sequence[str]) -> Mapping[str, Collection[str]]:
        """Return the values of some fields that occur in the product data."""

    def examples(self) -> Examples | None:
        """Return garments whose attributes the product data give; None if there are none."""


@dataclass
class BatchProgress:
    """The result of :meth:`Batches.advance`, and the requests that remain.

    ``held`` requests exceed the cost limit, ``unplanned`` ones were not planned by this user;
    ``outstanding`` counts all requests without an answer, ``completed`` those of them that the
    server has finished.
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
        """Plan requests for garments; return how many are new."""

    def planned_requests(self) -> int:
        """Return the number of requests that this user planned and that are not sent yet."""

    def discard_unsent(self) -> int:
        """Discard the parts that may not be sent; return the number of their requests."""

    def advance(self) -> BatchProgress:
        """Advance every batch as far as possible without waiting."""


@dataclass(frozen=True)
class UnderWay:
    """Garments with a sent request, or one planned by this user; ``unsent`` counts the latter."""

    places: Sequence[Place] = ()
    unsent: int = 0


class Captioner(ABC):
    """Describes garments. An instance serves one run."""

    #: The name in the settings, also stored with each recorded caption.
    name: ClassVar[str]
    #: The name shown to users.
    title: ClassVar[str]
    #: Crops leave the machine, which is reported before a run. Query photos are never sent unless
    #: the user names such a captioner: the default is the catalogue's own encoder.
    sends_photos: ClassVar[bool] = False
    #: Captions cost money: the expected cost is reported first, and the spending is metered.
    costs: ClassVar[bool] = False
    #: Uses the catalogue's own encoder, calibrated on its products: the captions are valid for that
    #: encoder only, replace no other captioner's, and are evaluated by cross-validation. Captions
    #: of other captioners are valid in every catalogue, whichever of their models made them, and
    #: are recorded in the project's file.
    from_encoder: ClassVar[bool] = False
    #: The file in a catalogue that answers are appended to as they arrive, or None. Its name and
    #: that of the batch folder are defined in :mod:`fashionrec.config.captioners`, the list of all
    #: such files in a catalogue.
    spool_file: ClassVar[str | None] = None
    #: The folder of batches in a catalogue; None if the captioner has no batches.
    batch_folder: ClassVar[str | None] = None

    def __init__(self, config: CaptionerConfig, *, vocabulary: Vocabulary | None = None) -> None:
        self.config = config
        self.vocabulary = vocabulary or vocabulary_of(config)

    @classmethod
    def is_ready(cls) -> bool:
        """Return whether ``auto`` may choose this captioner: its server is set up."""
        return False

    def bind(self, source: Source) -> Captioner:
        """Return the captioner for a catalogue's garments; itself if it uses nothing of it."""
        return self

    @property
    @abstractmethod
    def model(self) -> str:
        """The model's name for the records; with :attr:`from_encoder`, set by :meth:`bind`."""

    @property
    def label(self) -> str:
        """The captioner, and whether crops are sent: shown before a run."""
        note = " (the crops are sent there)" if self.sends_photos else ""
        return f"{self.title}, {self.model}{note}"

    @property
    def only_model(self) -> str | None:
        """The only model whose recorded captions count; None if those of all models do."""
        return self.model if self.from_encoder else None

    def keeps(self, captioner: str | None) -> bool:
        """Return whether an existing caption by ``captioner`` stays unless it is recaptioned."""
        return captioner is not None and (captioner == self.name or self.from_encoder)

    def notice(self, *, ask: bool) -> str:
        """Return a warning to show before a run (the model will be shut down soon), or "".

        ``ask`` allows one request to the server.
        """
        return ""

    def price(self, model: str | None = None, *, batch: bool = False) -> Price | None:
        """Return the price of a model, by default its own; None if it is unknown."""
        return None if self.costs else Price(0.0, 0.0)

    def expected_tokens(self) -> Tokens:
        """Return the estimated tokens of one caption, used until some are measured."""
        return Tokens(0, 0)

    def describe_one(self, job: Job) -> Outcome:
        """Describe one garment; a failure is an outcome.

        Raises :class:`CaptionError` for errors that affect every garment.
        """
        raise NotImplementedError

    def describe(
        self,
        jobs: Iterable[Job],
        *,
        most: int | None = None,
        meter: CostMeter | None = None,
        arrived: Callable[[Job, str, float], None] | None = None,
    ) -> Generator[list[Described], None, None]:
        """Yield outcomes in groups, as they arrive. Closing the iterator stops the requests.

        Args:
            jobs: The garments; read lazily.
            most: Most jobs there can be.
            meter: Meters the cost; the iterator ends when the limit is reached.
            arrived: Called with each answer before it is read: the job, the answer as
                :meth:`read_answer` takes it, and the seconds it took.

        Raises :class:`CaptionError` for errors that affect every garment, after yielding the
        outcomes that arrived before.
        """
        return self._describe_each(jobs, meter)

    def _describe_each(self, jobs: Iterable[Job], meter: CostMeter | None) -> Generator[list[Described], None, None]:
        group: list[Described] = []
        started = time.monotonic()
        for job in jobs:
            if meter is not None and not meter.reserve():
                break
            try:
                outcome = self.describe_one(job)
            except BaseException:
                yield group  # may have been paid for, so it is recorded before the error
                raise
            if meter is not None:
                meter.came(outcome.usage)
            group.append(Described(job, outcome))
            if len(group) == _GROUP or time.monotonic() - started > _GROUP_SECONDS:
                yield group
                group, started = [], time.monotonic()
        if group:
            yield group

    def read_answer(
        self, answer: str, class_name: str | None, *, model: str | None = None, seconds: float = 0.0
    ) -> Outcome:
        """Return the outcome of an answer as ``arrived`` gets it; ``model`` defaults to its own."""
        raise NotImplementedError

    def read_text(self, text: str, class_name: str | None, *, model: str, usage: dict[str, int]) -> Outcome:
        """Return the outcome of a recorded text (``Outcome.raw``), validated like a new answer."""
        try:
            description = parse(text, class_name, self.vocabulary)
        except CaptionError as error:
            return Outcome("invalid", self.name, model, raw=text, usage=usage, error=str(error))
        return Outcome("done", self.name, model, description=description, raw=text, usage=usage)

    def batches(
        self,
        folder: Path,
        *,
        picture: Callable[[Place], Image.Image | None],
        record: Callable[[Sequence[tuple[Place, Outcome]]], None],
        ledger: Ledger,
        most: int | None = None,
    ) -> AbstractContextManager[Batches]:
        """Return the batches of a folder.

        Args:
            folder: The folder of the batches; created if missing.
            picture: Makes a garment's crop; None if the garment no longer exists.
            record: Records outcomes durably before it returns.
            ledger: Records what this user planned: nothing else is sent.
            most: Most requests to send; None for no limit.
        """
        raise NotImplementedError

    @classmethod
    def under_way(cls, folder: Path, ledger: Ledger) -> UnderWay:
        """Return the garments whose requests are pending in the batches of a folder."""
        return UnderWay()

    @classmethod
    def open_batches(cls, folder: Path) -> list[dict[str, Any]]:
        """Return the unfinished batches of a folder, as documents."""
        return []

    def translate(self, texts: Sequence[str]) -> list[str]:
        """Translate texts into English. Only captioners in ``TRANSLATORS`` implement it.

        Raises :class:`CaptionError`.
        """
        raise NotImplementedError
