"""A bounded prefetch: a few threads prepare the items of an iterator for its consumers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

S = TypeVar("S")
R = TypeVar("R")

_POLL_SECONDS = 0.5  # between checks for a stop


class Prefetcher(Generic[S, R]):
    """Calls ``prepare`` for each item of ``source``; at most ``most`` results wait.

    Results come in the order of completion. An error of the source or of ``prepare`` is raised by
    the next :meth:`take`.
    """

    def __init__(
        self,
        source: Iterable[S],
        prepare: Callable[[S], R],
        *,
        threads: int,
        most: int,
        stop: threading.Event,
        name: str = "ahead",
    ) -> None:
        self._source, self._prepare, self._most, self._stop = iter(source), prepare, most, stop
        self._reading = threading.Lock()  # iterators are not thread-safe
        self._changed = threading.Condition()
        self._ready: deque[R] = deque()
        self._preparing = threads
        self._error: BaseException | None = None
        # daemons, so that an interrupted program ends without waiting
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def close(self, wait: float = 0.0) -> None:
        """Stop, release all waiting threads, and wait up to ``wait`` seconds for the workers."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads if wait else ():
            thread.join(wait)

    def take(self) -> R | None:
        """Return the next result; None at the end of the source, or once stopped."""
        with self._changed:
            while not self._stop.is_set():
                if self._error is not None:
                    raise self._error
                if self._ready:
                    result = self._ready.popleft()
                    self._changed.notify_all()
                    return result
                if not self._preparing:
                    return None
                self._changed.wait(_POLL_SECONDS)
        return None

    def _work(self) -> None:
        try:
            while self._wait_for_room():
                with self._reading:
                    item = next(self._source, self)
                if item is self:
                    return
                result = self._prepare(item)  # type: ignore[arg-type]
                with self._changed:
                    self._ready.append(result)
                    self._changed.notify_all()
        except BaseException as error:  # of any kind: the consumers must get it
            self._error = error
        finally:
            with self._changed:
                self._preparing -= 1
                self._changed.notify_all()

    def _wait_for_room(self) -> bool:
        """Wait until another item may be prepared; return False once stopped."""
        with self._changed:
            while not self._stop.is_set():
                if self._error is not None:
                    return False
                if len(self._ready) < self._most:
                    return True
                self._changed.wait(_POLL_SECONDS)
        return False
