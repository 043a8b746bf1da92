"""A queue per server, so that a slow server delays only its own photos.

A worker takes the next job of a server that has a free connection slot. An unfinished job is queued
again: for the same server after a pause, or for the server of a redirect. A server's robots.txt is
requested before its photos.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from protego import Protego

from fashionrec.dataset.feed.addresses import FetchError, Target
from fashionrec.dataset.feed.photo_cache import Fetched

_MAX_CRAWL_DELAY = 30.0
_MAX_LOSSES = 10  # consecutive photos for which a server was unreachable


@dataclass
class Job:
    """A request for a photo or, with ``rules_for``, for that server's robots.txt.

    ``target`` is the next URL. ``attempts`` counts from ``first`` on; ``hops`` and ``spent`` are
    the redirects and seconds of the current attempt.
    """

    first: Target
    target: Target
    known: Fetched | None = None
    rules_for: Origin | None = None
    attempts: int = 0
    hops: int = 0
    spent: float = 0.0


@dataclass
class Origin:
    """One server: its waiting jobs and its state.

    ``rules`` is its robots.txt, or the reason why no photo may be requested. ``closed`` is the
    reason why the server is no longer used.
    """

    target: Target
    photos: list[tuple[float, int, Job]] = field(default_factory=list)
    errands: list[tuple[float, int, Job]] = field(default_factory=list)
    robots_requested: bool = False
    rules: Protego | FetchError | None = None
    closed: FetchError | None = None
    not_before: float = 0.0
    lost: int = 0

    @property
    def host(self) -> str:
        return self.target.host

    def permit(self, job: Job, robot: str) -> None:
        """Raise :class:`FetchError` if the server is closed or its rules forbid the photo."""
        for reason in (self.closed, self.rules):
            if isinstance(reason, FetchError):
                raise FetchError(reason.reason, str(reason))
        if isinstance(self.rules, Protego) and not self.rules.can_fetch(job.target.url, robot):
            raise FetchError("robots", f"robots.txt of {self.host} forbids it")

    def count_loss(self, lost: bool) -> None:
        """Count consecutive losses of an unreachable server; close it after too many."""
        self.lost = self.lost + 1 if lost else 0
        if self.lost >= _MAX_LOSSES:
            self.closed = FetchError("host-down", f"{self.host} was unreachable {self.lost} times in a row")


class HostQueue:
    """All servers of one download.

    Every method except :meth:`take` must be called with the lock ``turn`` held.

    A change wakes one worker, and a worker that finds a job wakes the next: waking all of them for
    each photo would cost more than the photo.
    """

    def __init__(self, *, per_host: int, robots: bool, robot: str) -> None:
        self.turn = threading.RLock()
        self._ready = threading.Condition(self.turn)
        self.open = True
        self._per_host, self._robots, self._robot = per_host, robots, robot
        self._origins: dict[tuple[str, str, int], Origin] = {}
        self._active: Counter[str] = Counter()
        self._numbers = itertools.count()

    def push(self, job: Job, at: float = 0.0) -> None:
        """Queue a job for its target's server, to start at ``at`` (monotonic seconds) or later."""
        origin = self._origins.setdefault(job.target.origin, Origin(job.target))
        heapq.heappush(origin.photos if job.rules_for is None else origin.errands, (at, next(self._numbers), job))
        self._ready.notify()

    def take(self) -> tuple[Job, Origin] | None:
        """Wait for the next job and take a slot of its server; None once the queue is closed."""
        with self.turn:
            while self.open:
                now = time.monotonic()
                soonest = now + 60.0
                for origin in self._origins.values():
                    if self._active[origin.host] >= self._per_host:
                        continue
                    waiting = self._waiting(origin)
                    if not waiting:
                        continue
                    at = max(waiting[0][0], origin.not_before)
                    if at <= now:
                        self._ready.notify()
                        return self._start(heapq.heappop(waiting)[2], origin, now)
                    soonest = min(soonest, at)
                self._ready.wait(max(0.001, soonest - now))
        return None

    def release(self, origin: Origin) -> None:
        """Free a slot of a server."""
        self._active[origin.host] -= 1
        self._ready.notify()

    def close(self) -> None:
        self.open = False
        self._ready.notify_all()

    def _start(self, job: Job, origin: Origin, now: float) -> tuple[Job, Origin]:
        self._active[origin.host] += 1
        if job.rules_for is None and isinstance(origin.rules, Protego):
            pause = origin.rules.crawl_delay(self._robot) or 0.0
            origin.not_before = max(origin.not_before, now + min(pause, _MAX_CRAWL_DELAY))
        return job, origin

    def _waiting(self, origin: Origin) -> list[tuple[float, int, Job]]:
        """Return the jobs of a server that may start: photos only once its rules are known."""
        if origin.errands or origin.rules is not None or not self._robots:
            return origin.errands or origin.photos
        if origin.photos and not origin.robots_requested:
            origin.robots_requested = True
            target = origin.target.join("/robots.txt")
            self.push(Job(target, target, rules_for=origin))
        return origin.errands
