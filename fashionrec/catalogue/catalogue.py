"""An open catalogue: everything a query needs, from one folder, without torch or downloads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fashionrec.common.system import trim_memory
from fashionrec.config import Config, CropConfig, QueryConfig, Resolved
from fashionrec.errors import CatalogueError, FashionrecError, ModelError
from fashionrec.models.bundle import Bundle
from fashionrec.store.generations import Generation, hold, read_current
from fashionrec.store.items import ItemReader, StoredItem
from fashionrec.store.measured import Measured, read_measured
from fashionrec.store.rows import AGAIN
from fashionrec.store.thumbnails import Thumbnails

# Modules that need numpy or Pillow are imported late, while a query's models are being opened (see
# begin).
if TYPE_CHECKING:
    from fashionrec.embedder.embed import Embedder
    from fashionrec.garments import GarmentFinder
    from fashionrec.store.manifest import CatalogueSettings
    from fashionrec.store.vectors import VectorStore

T = TypeVar("T")


class Catalogue:
    """One generation of a catalogue, open for reading. Thread-safe.

    The generation stays on disk until it is closed, whatever is built meanwhile. Parts that a query
    does not need are not opened: only the image encoder for a photo, only the text encoder for a
    text.
    """

    def __init__(self, generation: Generation, config: Config | Resolved, at_once: bool = False) -> None:
        self.at_once = at_once
        self.generation = generation
        self._resolved = config if isinstance(config, Resolved) else None
        self.config = config.config if isinstance(config, Resolved) else config
        self._lock = threading.RLock()
        self._stores: dict[str, VectorStore] = {}
        self._memo: dict[Callable[[Catalogue], Any], Any] = {}
        self._memo_lock = threading.RLock()  # separate: making a value may wait for what the other lock protects
        with ExitStack() as resources:  # closed again if a check fails
            resources.enter_context(closing(hold(generation)))
            self.items = resources.enter_context(closing(ItemReader(generation.items_path, generation.changes_path)))
            generation.check()
            self._check_models()
            self._resources = resources.pop_all()
        self.closed = False

    @classmethod
    def open(cls, path: str | Path, config: Config | Resolved, *, at_once: bool = False) -> Self:
        """Open the served generation of a catalogue folder. Checks manifest, sizes, headers and
        model fingerprints.

        Measured values of the catalogue override the defaults of a ``config`` with origins
        (:class:`Resolved`), but not explicit settings; all of a plain :class:`Config` counts as
        explicit. ``at_once`` is for a few queries: the models open in a fraction of the time, and
        take up to a fifth longer each. Raises :class:`CatalogueError` if it is missing, damaged, of
        another version, or was built with other models than those in its folder; nothing stays open
        then.
        """
        root = Path(path)
        for attempt in (1, 2):  # a writer may have removed the generation between reading the pointer and its files
            generation = read_current(root)
            try:
                return cls(generation, config, at_once)
            except CatalogueError:
                if attempt == 2 or read_current(root).name == generation.name:
                    raise
        raise AssertionError("unreachable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close every file, including memory-mapped vectors, so that systems that lock open files
        can remove them.
        """
        self.closed = True
        self._resources.close()
        with self._lock:
            self._stores.clear()
            for name in ("images", "captions"):
                self.__dict__.pop(name, None)

    def check_open(self) -> None:
        """Raise :class:`CatalogueError` if it was closed."""
        if self.closed:
            raise CatalogueError(f"catalogue {self.root} is closed", hint="open it again with Catalogue.open")

    def newer(self) -> bool:
        """Return whether another generation is served now; open the catalogue again to see it."""
        return read_current(self.root).name != self.generation.name

    @property
    def root(self) -> Path:
        return self.generation.root

    @property
    def settings(self) -> CatalogueSettings:
        """Settings it was built with, from the manifest."""
        return self.generation.manifest.settings

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.generation.manifest.counts)

    @property
    def crop(self) -> CropConfig:
        """Crop settings of the build, which queries use too."""
        assert self.settings.crop is not None
        return self.settings.crop

    @cached_property
    def embedder_bundle(self) -> Bundle:
        return self._bundle("embedder")

    @cached_property
    def detector_bundle(self) -> Bundle | None:
        return self._bundle("detector") if self.generation.bundle_path("detector") else None

    @cached_property
    def embedder(self) -> Embedder:
        from fashionrec.embedder.embed import Embedder

        with self._lock:
            return Embedder(
                self.embedder_bundle, threads=self.config.project.threads, device=self.config.project.device
            )

    @cached_property
    def finder(self) -> GarmentFinder:
        """The finder that detects and crops garments as the build did."""
        from fashionrec.garments import FinderSettings, GarmentFinder

        settings = FinderSettings.of_catalogue(self.config, self.settings, self.embedder.side)
        project = self.config.project
        with self._lock:
            return GarmentFinder.open(self.detector_bundle, settings, threads=project.threads, device=project.device)

    def begin(self, tower: str, *, detect: bool = False) -> None:
        """Start opening the models of a query in the background: the encoder's ``tower`` (``image``
        or ``text``), and the detector if ``detect``. Errors are raised when they are used.
        """
        project = self.config.project
        if detect and self.detector_bundle is not None:
            self.detector_bundle.open_ahead("detect", threads=project.threads, device=project.device)
        self.embedder_bundle.open_ahead(tower, threads=project.threads, device=project.device)

    def begin_vectors(self) -> None:
        """Start opening the vectors in the background. Errors are raised when they are used."""
        if "image" not in self._stores:
            threading.Thread(target=self._open_vectors, name="fashionrec-begin").start()

    def _open_vectors(self) -> None:
        with suppress(FashionrecError):
            _ = self.images

    def unload_detector(self) -> None:
        """Free the memory of the detector. It is opened again when it is used."""
        if self.finder.detector is not None:
            self.finder.detector.unload()
        trim_memory()

    @cached_property
    def images(self) -> VectorStore:
        """Image vectors of all garments."""
        return self._vectors("image")

    @cached_property
    def captions(self) -> VectorStore:
        """Vectors of the captions, for garments that have one."""
        return self._vectors("caption")

    @cached_property
    def measured(self) -> Measured:
        """Stored evaluation results of this generation."""
        return read_measured(self.root, self.generation.name, self.embedder_bundle.fingerprint)

    @cached_property
    def query_settings(self) -> QueryConfig:
        """The section ``query`` of its settings, with the measured caption weight unless one is set
        explicitly.
        """
        settings, weight = self.config.query, self.measured.caption_weight
        if weight is None or self._resolved is None or "query.caption_weight" in self._resolved.origins:
            return settings
        return settings.model_copy(update={"caption_weight": weight})

    def memoize(self, make: Callable[[Catalogue], T]) -> T:
        """Return what ``make`` makes of this catalogue, made once and cached."""
        with self._memo_lock:
            if make not in self._memo:
                self._memo[make] = make(self)
            made: T = self._memo[make]
            return made

    def thumbnail(self, stored: StoredItem) -> bytes:
        """Return an item's thumbnail as JPEG bytes."""
        with Thumbnails(self.root) as thumbnails:
            return thumbnails.read(*stored.thumb)

    def _bundle(self, kind: str) -> Bundle:
        path = self.generation.bundle_path(kind)
        if path is None:
            raise CatalogueError(f"catalogue {self.root} has no {kind}")
        cache = self.config.project.cache
        return replace(Bundle.open(path, kind), at_once=self.at_once, cache=Path(cache) if cache else None)

    def _vectors(self, kind: str) -> VectorStore:
        from fashionrec.store.vectors import open_store

        with self._lock:
            if kind not in self._stores:
                threads = self.config.project.threads
                index = self.generation.manifest.index if kind == "image" else None
                self._stores[kind] = open_store(
                    self.root, self.generation.manifest.segments, kind, index, threads=threads
                )
            return self._stores[kind]

    def _check_models(self) -> None:
        """Check that vectors are only searched with their own encoder, and queries cropped as the
        garments were.
        """
        for key in ("crop", "thumbnail"):
            if key in self.settings.missing:
                raise CatalogueError(f"catalogue {self.root} is damaged: its manifest has no setting {key}", hint=AGAIN)
        try:
            fingerprints = {"embedder": self.embedder_bundle.fingerprint}
            if self.detector_bundle is not None:
                fingerprints["detector"] = self.detector_bundle.fingerprint
        except ModelError as error:
            raise CatalogueError(f"catalogue {self.root} is damaged: {error}", hint=error.hint) from None
        for kind, found in fingerprints.items():
            expected = self.generation.manifest.bundles[kind].fingerprint
            if found != expected:
                raise CatalogueError(
                    f"the {kind} in {self.root} ({found[:12]}) is not the one the catalogue was built with ({expected[:12]})",
                    hint="restore the right bundle, or rebuild with `fashionrec build-index`",
                )
        for name, entry in self.generation.manifest.segments.items():
            if entry.embedder != fingerprints["embedder"]:
                raise CatalogueError(
                    f"the vectors in {self.root}/segments/{name} are of another encoder"
                    f" ({entry.embedder[:12]}, not {fingerprints['embedder'][:12]})",
                    hint="rebuild the catalogue with `fashionrec build-index`",
                )


def verify_catalogue(root: str | Path) -> int:
    """Compare the hash of every file of the served generation with its manifest; return the number
    of files.

    Raises :class:`CatalogueError` for the first one that is missing or changed, even by one bit.
    """
    from fashionrec.store.vectors import open_store

    generation = read_current(Path(root))
    with closing(hold(generation)):
        generation.check_pointer()
        generation.check(contents=True)
        ItemReader(generation.items_path, generation.changes_path).close()  # the hashes of a forged file may be right
        for kind in ("image", "caption"):
            index = generation.manifest.index if kind == "image" else None
            open_store(generation.root, generation.manifest.segments, kind, index)
        for kind in generation.manifest.bundles:
            path = generation.bundle_path(kind)
            if path is not None:
                try:
                    Bundle.open(path, kind, verify=True)
                except ModelError as error:
                    raise CatalogueError(f"catalogue {root} is damaged: {error}", hint=error.hint) from None
    return len(generation.manifest.files)
