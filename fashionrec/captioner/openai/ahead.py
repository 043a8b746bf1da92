"""Work made ready ahead of those who wait for it: a bounded number of things, by a few threads, from one iterator."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

S = TypeVar("S")
R = TypeVar("R")

_LOOK = 0.5  # seconds between two looks at whether everything stopped


class Ahead(Generic[S, R]):
    """``prepare`` of each thing of ``source``, at most ``most`` of them waiting to be taken. The order is that of finishing.

    An error of the source or of ``prepare`` is raised to whoever takes next.
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
        self._reading = threading.Lock()  # an iterator is read by one at a time
        self._changed = threading.Condition()
        self._ready: deque[R] = deque()
        self._preparing = threads
        self._error: BaseException | None = None
        # daemons: an interrupted program ends without waiting
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def close(self, wait: float = 0.0) -> None:
        """Everything has stopped: let go of all who wait, and give the threads ``wait`` seconds to end."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads if wait else ():
            thread.join(wait)

    def take(self) -> R | None:
        """The next thing; None where there is none any more, or everything stopped."""
        with self._changed:
            while not self._stop.is_set():
                if self._error is not None:
                    raise self._error
                if self._ready:
                    made = self._ready.popleft()
                    self._changed.notify_all()
                    return made
                if not self._preparing:
                    return None
                self._changed.wait(_LOOK)
        return None

    def _work(self) -> None:
        try:
            while self._room():
                with self._reading:
                    found = next(self._source, self)
                if found is self:
                    return
                made = self._prepare(found)  # type: ignore[arg-type]
                with self._changed:
                    self._ready.append(made)
                    self._changed.notify_all()
        except BaseException as error:  # whatever it is, those who wait must hear of it
            self._error = error
        finally:
            with self._changed:
                self._preparing -= 1
                self._changed.notify_all()

    def _room(self) -> bool:
        """Wait until one more may be made ready; False where everything stopped meanwhile."""
        with self._changed:
            while not self._stop.is_set():
                if self._error is not None:
                    return False
                if len(self._ready) < self._most:
                    return True
                self._changed.wait(_LOOK)
        return False
