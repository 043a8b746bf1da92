"""Turn photos into garments with vectors and thumbnails: decode, detect in batches, crop, embed in
batches.

Results depend only on a photo's content, the bundles and the settings.

Photos are decoded in separate processes, so that a file which crashes or hangs a decoder costs one
row. Networks run in threads of this process, one per core, each with a whole batch and a
single-threaded session: unlike threads within one call, they never wait for each other after every
layer, and they share the weights. Crops of several photos are embedded together, so that the
encoder's weights are read from memory once for many.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.catalogue.build.tuning import Plan, plan_for
from fashionrec.errors import ImageError
from fashionrec.garments import FinderSettings, GarmentFinder, PhotoGarments
from fashionrec.photos.decoding import decode_all
from fashionrec.photos.images import crop_rectangle, encode_jpeg
from fashionrec.store.journal import FoundGarment, FoundPhoto
from fashionrec.types import Garment

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.config import Config
    from fashionrec.embedder.embed import Embedder
    from fashionrec.models.bundle import Bundle
    from fashionrec.photos.images import Photo

#: Pixels ``(left, top, right, bottom)`` that a crop is cut from.
Rectangle = tuple[int, int, int, int]
#: Returns a crop's vector (float32 bytes) and thumbnail (JPEG bytes) if known, by photo and
#: rectangle.
Known = Callable[[str, Rectangle], "tuple[bytes, bytes] | None"]
Outcome = tuple[str, "FoundPhoto | ImageError"]

#: Maximum pixels of decoded photos in memory, beyond one photo: 4 bytes each.
_HELD = 64_000_000


@dataclass(frozen=True)
class Models:
    """The detector and the encoder, and how to run them."""

    finder: GarmentFinder
    embedder: Embedder
    plan: Plan


def open_models(
    detector: Bundle | None,
    embedder: Bundle,
    config: Config,
    *,
    photos: int = 0,
    log: Callable[[str], None] | None = None,
) -> Models:
    """Open both models with the configured thresholds and device.

    How they run is decided by the settings, or by measurement if ``photos`` (to come) are enough
    for that to pay off.
    """
    from fashionrec.embedder.embed import Embedder

    plan = plan_for(detector, embedder, config, photos=photos, log=log)
    device = config.project.device
    cache = Path(config.project.cache) if config.project.cache else None
    encoder = Embedder(replace(embedder, cache=cache), threads=plan.threads, device=device)
    finder = GarmentFinder.open(
        detector and replace(detector, cache=cache),
        FinderSettings.of_build(config, encoder.side),
        threads=plan.threads,
        device=device,
    )
    return Models(finder, encoder, plan)


def find_garments(
    photos: Iterable[tuple[str, Path]],
    models: Models,
    config: Config,
    *,
    known: Known,
    seconds: MutableMapping[str, float],
) -> Iterator[list[Outcome]]:
    """Yield results of photos (sha256 and path), several at a time, in order. Unusable photos are
    returned as errors.

    Crops that ``known`` returns are not embedded again; it is called in the thread that iterates.
    ``photos`` are read by another thread, a bounded number ahead. The time of each stage is added
    to ``seconds`` (``read``, ``detect``, ``embed``), over all cores. When the iteration ends for
    any reason (done, an error, an interrupt, ``close``), all threads and processes end.
    """
    run = _Run(models, config, known, seconds)
    try:
        yield from run.outcomes(photos)
    finally:
        run.close()


@dataclass(eq=False)
class _Held:
    """A photo in progress. ``left`` counts its garments without a vector; None before they are
    found.
    """

    digest: str
    path: Path
    photo: Photo | None = None
    error: ImageError | None = None
    number: int = 0
    pixels: int = 0
    garments: list[Garment] = field(default_factory=list)
    made: list[tuple[bytes, bytes] | None] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    left: int | None = None

    def outcome(self) -> Outcome:
        if self.error is not None:
            return self.digest, self.error
        rows = [
            FoundGarment(one.class_name, one.confidence, one.box, one.whole_photo, *made)
            for one, made in zip(self.garments, self.made, strict=True)
            if made is not None
        ]
        return self.digest, FoundPhoto(self.digest, *self.size, tuple(rows))


class _Room:
    """Limits the photos in progress by number and pixels, but always admits one."""

    def __init__(self, photos: int, pixels: int, full: Callable[[], None]) -> None:
        self._photos, self._pixels, self._told = photos, pixels, full
        self._count = self._sum = 0
        self._change = threading.Condition()
        self._closed = False
        self.full = False

    def enter(self, pixels: int) -> bool:
        """Wait for room; return False once closed."""
        with self._change:
            while not self._closed and self._count and not self._fits(pixels):
                if not self.full:
                    self.full = True
                    self._told()
                self._change.wait()
            self.full = False
            self._count += 1
            self._sum += pixels
            return not self._closed

    def _fits(self, pixels: int) -> bool:
        return self._count < self._photos and self._sum + pixels <= self._pixels

    def leave(self, photos: int = 0, pixels: int = 0) -> None:
        with self._change:
            self._count -= photos
            self._sum -= pixels
            self._change.notify()

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._change.notify_all()


_WAKE, _END = object(), object()


class _Run:
    """One run: a thread that fetches decoded photos, workers that run the networks, and the
    caller's thread between them.

    Only the caller's thread changes the photos in progress; the others report through ``_events``.
    """

    def __init__(self, models: Models, config: Config, known: Known, seconds: MutableMapping[str, float]) -> None:
        self.models, self.config, self.known, self.seconds = models, config, known, seconds
        self.finder, self.plan = models.finder, models.plan
        self._events: SimpleQueue[Any] = SimpleQueue()
        self._stop = threading.Event()
        ahead = 2 * self.plan.workers * (self.plan.detector_batch + self.plan.embedder_batch)
        self._room = _Room(ahead, _HELD, partial(self._events.put, _WAKE))
        self._pool = ThreadPoolExecutor(self.plan.workers, thread_name_prefix="garments")
        self._fetcher: threading.Thread | None = None
        self._order: deque[_Held] = deque()
        self._undetected: dict[tuple[int, int], deque[_Held]] = {}
        self._crops: deque[tuple[_Held, int]] = deque()
        self._arrivals = self._running = 0
        self._ended = False

    def outcomes(self, photos: Iterable[tuple[str, Path]]) -> Iterator[list[Outcome]]:
        self._fetcher = threading.Thread(target=self._fetch, args=(photos,), name="decoded", daemon=True)
        self._fetcher.start()
        while not (self._ended and not self._order):
            self._take(self._next_event())
            ready = []
            while self._order and self._order[0].left == 0:
                ready.append(self._order.popleft().outcome())
            self._room.leave(photos=len(ready))
            self._hand_out()
            if ready:
                yield ready

    def close(self) -> None:
        self._stop.set()
        self._room.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._fetcher is not None:
            self._fetcher.join()

    # --- the thread that fetches decoded photos

    def _fetch(self, photos: Iterable[tuple[str, Path]]) -> None:
        jobs = (((digest, path), path) for digest, path in photos)
        decoded = decode_all(
            jobs,
            self.finder.settings.images,
            timeout=self.config.build.photo_timeout,
            workers=self.config.build.workers
            or max(2, self.plan.decoders),  # several processes, even if one would be fast enough
            least=self.finder.least,
            stop=self._stop,
            seconds=lambda spent: self._events.put(("read", spent)),
        )
        try:
            with closing(decoded):
                for (digest, path), value in decoded:
                    held = _Held(digest, path)
                    if isinstance(value, ImageError):
                        held.error, held.left = value, 0
                    else:
                        held.photo, held.size = value, (value.width, value.height)
                        held.pixels = value.pixels.width * value.pixels.height
                    if not self._room.enter(held.pixels):
                        return
                    self._events.put(held)
        except BaseException as error:
            self._events.put(error)
        else:
            self._events.put(_END)

    # --- the workers

    def _detect(self, batch: Sequence[_Held]) -> None:
        """Detect garments in photos of one shape; photos decoded too small for their garments are
        read again.
        """
        found = self.finder.detect([held.photo for held in batch if held.photo])
        for held, garments in zip(batch, found, strict=True):
            self._choose(held, garments)

    def _choose(self, held: _Held, garments: Sequence[Garment]) -> None:
        assert held.photo is not None
        held.garments = self.finder.or_whole(held.photo, garments)
        try:  # not in a separate process: this JPEG was decoded completely before
            held.photo = self.finder.complete(PhotoGarments(held.path, held.photo, held.garments))
        except ImageError as error:  # removed or changed meanwhile
            held.error = error

    def _embed(self, batch: Sequence[tuple[_Held, int]]) -> list[tuple[bytes, bytes]]:
        crops = []
        for held, n in batch:
            assert held.photo is not None
            crops.append(self.finder.crop(held.photo, held.garments[n]))
        pictures = self.models.embedder.encoder_view(crops)
        vectors = self.models.embedder.embed_view(pictures)
        return [
            (np.asarray(vector, np.float32).tobytes(), self._thumbnail(crop, picture))
            for vector, crop, picture in zip(vectors, crops, pictures, strict=True)
        ]

    def _thumbnail(self, crop: Image.Image, picture: Image.Image) -> bytes:
        """Return the encoder's input as thumbnail if it shows the whole crop and is large enough,
        so that a crop is scaled down only once.
        """
        side = self.config.build.thumbnail
        square = crop.width == crop.height and picture.width == picture.height
        smaller = side <= picture.width <= crop.width
        return encode_jpeg(picture if square and smaller and not self.models.embedder.cuts_off else crop, side)

    # --- the caller's thread

    def _next_event(self) -> Any:
        while True:
            try:
                return self._events.get(
                    timeout=1.0
                )  # with a time-out, because some systems do not deliver interrupts otherwise
            except Empty:
                continue

    def _take(self, event: Any) -> None:
        if event is _END:
            self._ended = True
        elif isinstance(event, BaseException):
            raise event
        elif isinstance(event, _Held):
            self._arrived(event)
        elif event is not _WAKE:
            if isinstance(event[0], str):
                self.seconds[event[0]] += event[1]
            else:
                finish, future, stage, spent = event
                self._running -= 1
                self.seconds[stage] += spent
                finish(future.result())

    def _arrived(self, held: _Held) -> None:
        self._order.append(held)
        self._arrivals += 1
        held.number = self._arrivals
        if held.photo is None:
            return
        shape = self.finder.shape(held.photo)
        if shape is None:
            self._choose(held, [])
            self._detected([held], None)
        else:
            self._undetected.setdefault(shape, deque()).append(held)

    def _detected(self, batch: Sequence[_Held], _: object) -> None:
        for held in batch:
            held.left = 0
            if held.error is None:
                for n, one in enumerate(held.garments):
                    made = self.known(held.digest, crop_rectangle(*held.size, one.box, self.finder.settings.crop))
                    held.made.append(made)
                    if made is None:
                        held.left += 1
                        self._crops.append((held, n))
            if not held.left:
                self._let_go(held)

    def _embedded(self, batch: Sequence[tuple[_Held, int]], made: Sequence[tuple[bytes, bytes]]) -> None:
        for (held, n), one in zip(batch, made, strict=True):
            assert held.left
            held.made[n] = one
            held.left -= 1
            if not held.left:
                self._let_go(held)

    def _let_go(self, held: _Held) -> None:
        held.photo = None
        self._room.leave(pixels=held.pixels)

    def _hand_out(self) -> None:
        """Give the workers what is ready, one task more than there are workers.

        Full batches of crops come first, because they free memory; then photos. Partial batches run
        only if a worker would otherwise idle and nothing earlier will be ready.
        """
        while self._running <= self.plan.workers:
            idle = self.plan.workers - self._running
            last = idle > 0 and (self._ended or self._room.full)
            if len(self._crops) >= self.plan.embedder_batch:
                self._start_embedding(self.plan.embedder_batch)
            elif photos := self._photos(last):
                self._start(partial(self._detect, photos), partial(self._detected, photos), "detect")
            elif self._crops and last:
                self._start_embedding(-(-len(self._crops) // idle))
            else:
                return

    def _photos(self, last: bool) -> list[_Held]:
        """Return a batch of photos of one shape; if ``last``, a smaller one with the photo that has
        waited longest.
        """
        size = self.plan.detector_batch
        waiting = [photos for photos in self._undetected.values() if photos]
        if not waiting:
            return []
        chosen = max(waiting, key=len)
        if len(chosen) < size:
            if not last:
                return []
            chosen = min(waiting, key=lambda photos: photos[0].number)
        return [chosen.popleft() for _ in range(min(size, len(chosen)))]

    def _start_embedding(self, size: int) -> None:
        batch = [self._crops.popleft() for _ in range(min(size, len(self._crops)))]
        self._start(partial(self._embed, batch), partial(self._embedded, batch), "embed")

    def _start(self, work: Callable[[], Any], finish: Callable[[Any], None], stage: str) -> None:
        self._running += 1
        start = [0.0]

        def run() -> Any:
            start[0] = time.perf_counter()
            return work()

        def report_done(future: Future[Any]) -> None:
            if not future.cancelled():
                self._events.put((finish, future, stage, time.perf_counter() - start[0]))

        self._pool.submit(run).add_done_callback(report_done)
