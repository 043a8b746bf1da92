"""Decoding photos in other processes: both cores work, and a file that crashes or stalls a decoder costs one row.

A worker that dies or does not answer in time is replaced; the photos it held are tried once more, each alone, and the one
that does it again is reported with the reason ``crashed`` or ``timeout``.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from fashionrec.config import ImagesConfig
from fashionrec.errors import ImageError
from fashionrec.images import Photo, read_photo

Key = TypeVar("Key")


@dataclass(frozen=True)
class _Raw:
    size: tuple[int, int]
    pixels: bytes
    sha256: str


def decode_all(
    photos: Iterable[tuple[Key, Path]], limits: ImagesConfig, *, timeout: float, workers: int = 0
) -> Iterator[tuple[Key, Photo | ImageError]]:
    """Decode photos, in order, at most a few ahead of the caller. An error is a value here, never raised."""
    pool = _Pool(workers or os.cpu_count() or 1)
    ahead = 2 * pool.workers
    waiting: deque[tuple[Key, Path, Future[_Raw | ImageError]]] = deque()
    source = iter(photos)
    try:
        while True:
            while len(waiting) < ahead and (following := next(source, None)) is not None:
                key, path = following
                waiting.append((key, path, pool.submit(path, limits)))
            if not waiting:
                return
            key, path, future = waiting.popleft()
            outcome = _outcome(future, timeout)
            if outcome is None:
                pool.restart()
                outcome = _alone(pool, path, limits, timeout)
                pool.restart()
                waiting = deque((k, p, pool.submit(p, limits)) for k, p, _ in waiting)
            yield key, outcome
    finally:
        pool.stop()


class _Pool:
    """A process pool that can be killed and started again."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, path: Path, limits: ImagesConfig) -> Future[_Raw | ImageError]:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                self.workers, mp_context=multiprocessing.get_context("spawn"), initializer=_quiet
            )
        try:
            return self._executor.submit(_decode, path, limits)
        except BrokenProcessPool:
            failed: Future[_Raw | ImageError] = Future()
            failed.set_exception(BrokenProcessPool())
            return failed

    def restart(self) -> None:
        self.stop()

    def stop(self) -> None:
        if self._executor is None:
            return
        for process in list((getattr(self._executor, "_processes", None) or {}).values()):
            process.kill()  # a stalled decoder does not hear a polite request
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = None


def _outcome(future: Future[_Raw | ImageError], timeout: float) -> Photo | ImageError | None:
    """The result of a worker; None where it crashed or stalled."""
    try:
        raw = future.result(timeout)
    except (BrokenProcessPool, FutureTimeout):
        return None
    return raw if isinstance(raw, ImageError) else Photo(Image.frombytes("RGB", raw.size, raw.pixels), raw.sha256)


def _alone(pool: _Pool, path: Path, limits: ImagesConfig, timeout: float) -> Photo | ImageError:
    future = pool.submit(path, limits)
    try:
        raw = future.result(timeout)
    except BrokenProcessPool:
        return ImageError(f"{path} crashes the image decoder", reason="crashed")
    except FutureTimeout:
        return ImageError(f"{path} takes more than {timeout:g} s to decode", reason="timeout")
    return raw if isinstance(raw, ImageError) else Photo(Image.frombytes("RGB", raw.size, raw.pixels), raw.sha256)


def _quiet() -> None:
    """Decoders written in C speak on standard error; the build report says what is wrong instead."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _decode(path: Path, limits: ImagesConfig) -> _Raw | ImageError:
    try:
        photo = read_photo(path, limits)
    except ImageError as error:
        return error
    return _Raw(photo.pixels.size, photo.pixels.tobytes(), photo.sha256)
