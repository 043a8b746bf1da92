"""Process photos in other processes: all cores are used, and a file that crashes or hangs a decoder
costs one row.

A worker that dies or times out is replaced; its photos are retried once, each alone, and the one
that fails again is reported as :class:`Lost`.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from PIL import Image

from fashionrec.common.system import discard_output
from fashionrec.config import ImagesConfig
from fashionrec.errors import FashionrecError, ImageError
from fashionrec.photos.images import Photo, read_photo

Key = TypeVar("Key")
Job = TypeVar("Job")
Result = TypeVar("Result")

#: Seconds that new worker processes may take to start, not counted as a photo's time.
_START = 120.0
#: Blocks of 16 MB that a worker's Pillow keeps for the next image: allocating them again takes a
#: fifth of the time.
_BLOCKS = 8
#: Seconds between checks of a waiting caller for cancellation.
_LOOK = 0.1


@dataclass(frozen=True)
class Lost:
    """A job without a result: its worker ``crashed``, or it exceeded the ``timeout``."""

    reason: str

    def error(self, path: object, timeout: float) -> ImageError:
        if self.reason == "crashed":
            return ImageError(f"{path} crashes the image decoder", reason="crashed")
        return ImageError(f"{path} takes more than {timeout:g} s to decode", reason="timeout")


@dataclass(frozen=True)
class _Raw:
    size: tuple[int, int]
    pixels: bytes
    sha256: str
    full: tuple[int, int]
    seconds: float


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Return at most ``count`` of the paths, evenly spread, in order."""
    wanted = min(len(paths), count)
    return [paths[n * len(paths) // wanted] for n in range(wanted)]


def decode_all(
    photos: Iterable[tuple[Key, Path]],
    limits: ImagesConfig,
    *,
    timeout: float,
    workers: int = 0,
    least: int | None = None,
    stop: threading.Event | None = None,
    seconds: Callable[[float], None] | None = None,
) -> Generator[tuple[Key, Photo | ImageError], None, None]:
    """Decode photos in order, a few ahead of the caller. Errors are returned as values, never
    raised.

    ``least`` is that of :func:`images.read_photo`; ``stop`` that of :func:`in_processes`;
    ``seconds`` is called with the decoding time of each photo.
    """
    jobs = (((key, path), (path, limits, least)) for key, path in photos)
    for (key, path), raw in in_processes(_decode, jobs, timeout=timeout, workers=workers, stop=stop):
        if isinstance(raw, Lost):
            yield key, raw.error(path, timeout)
        elif isinstance(raw, ImageError):
            yield key, raw
        else:
            if seconds:
                seconds(raw.seconds)
            yield key, Photo(Image.frombytes("RGB", raw.size, raw.pixels), raw.sha256, full=raw.full)


def in_processes(
    function: Callable[[Job], Result],
    jobs: Iterable[tuple[Key, Job]],
    *,
    timeout: float,
    workers: int = 0,
    stop: threading.Event | None = None,
) -> Iterator[tuple[Key, Result | Lost]]:
    """Yield ``function`` of each job, in order, from ``workers`` processes (0 = one per core), at
    most a few jobs ahead.

    ``function`` must be importable by name; ``timeout`` is in seconds per job. Its exceptions are
    raised here. One worker means this process, without protection against decoders that crash or
    hang. Once ``stop`` is set by another thread, it ends within a moment, whatever its workers do.
    """
    stop = stop or threading.Event()
    if workers == 1:
        for key, job in jobs:
            if stop.is_set():
                return
            yield key, function(job)
        return
    pool: _Pool[Job, Result] = _Pool(function, workers or os.cpu_count() or 1)
    ahead = 4 * pool.workers
    waiting: deque[tuple[Key, Job, Future[Result]]] = deque()
    source = iter(jobs)
    try:
        while True:
            while len(waiting) < ahead and (following := next(source, None)) is not None:
                waiting.append((*following, pool.submit(following[1])))
            if not waiting:
                return
            key, job, future = waiting.popleft()
            outcome = _outcome(future, timeout, stop)
            if isinstance(outcome, Lost) and not stop.is_set():
                pool.stop()
                outcome = _outcome(pool.submit(job), timeout, stop)
                pool.stop()
                waiting = deque((k, j, pool.submit(j)) for k, j, _ in waiting)
            if stop.is_set():
                return
            yield key, outcome
    finally:
        pool.stop()


class _Pool(Generic[Job, Result]):
    """A process pool that can be killed, and restarts when something is submitted."""

    def __init__(self, function: Callable[[Job], Result], workers: int) -> None:
        self.workers = workers
        self._function = function
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, job: Job) -> Future[Result]:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                self.workers, mp_context=multiprocessing.get_context("spawn"), initializer=_quiet
            )
            ready: list[Future[Any]] = [self._executor.submit(os.getpid) for _ in range(self.workers)]
            try:
                for future in ready:
                    future.result(_START)
            except (BrokenProcessPool, FutureTimeout):
                self.stop()
                raise FashionrecError(
                    "worker processes cannot be started",
                    hint="in a script of your own, call this under `if __name__ == '__main__':`",
                ) from None
        try:
            return self._executor.submit(self._function, job)
        except BrokenProcessPool as broken:
            failed: Future[Result] = Future()
            failed.set_exception(broken)
            return failed

    def stop(self) -> None:
        if self._executor is None:
            return
        for process in list((getattr(self._executor, "_processes", None) or {}).values()):
            process.kill()  # a hanging decoder ignores a polite request
        writer = getattr(getattr(self._executor, "_result_queue", None), "_writer", None)
        if writer is not None:  # the rest of a result cut by a kill would be waited for, and anybody could write it
            writer.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = None


def _outcome(future: Future[Result], timeout: float, stop: threading.Event) -> Result | Lost:
    last = time.monotonic() + timeout
    while True:
        try:
            return future.result(max(0.0, min(_LOOK, last - time.monotonic())))
        except BrokenProcessPool:
            return Lost("crashed")
        except FutureTimeout:
            if stop.is_set() or time.monotonic() >= last:
                return Lost("timeout")


def _quiet() -> None:
    """Silence decoders written in C, which print on standard error; the report says what is wrong
    instead.
    """
    discard_output(2)
    Image.core.set_blocks_max(_BLOCKS)  # type: ignore[attr-defined]


def _decode(job: tuple[Path, ImagesConfig, int | None]) -> _Raw | ImageError:
    start = time.perf_counter()
    try:
        photo = read_photo(*job)
    except ImageError as error:
        return error
    pixels = photo.pixels.tobytes()
    return _Raw(photo.pixels.size, pixels, photo.sha256, (photo.width, photo.height), time.perf_counter() - start)
