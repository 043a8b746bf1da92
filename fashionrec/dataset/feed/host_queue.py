"""What waits for which server: nobody waits for a slow server but its own photos.

Every server has a queue; a worker takes the next job of one that has a free place. A job that is not done yet comes back: to
the same server after a pause, or to the one that a redirect leads to. A server's robots.txt is asked for before its photos.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from protego import Protego

from fashionrec.dataset.feed.addresses import Target, Unfetched
from fashionrec.dataset.feed.photo_cache import Fetched

_LONGEST_CRAWL_DELAY = 30.0
_GIVEN_UP_AFTER = 10  # photos in a row that a server could not be reached for


@dataclass
class Job:
    """A photo on its way or, with ``rules_for``, that server's robots.txt. ``target`` is where to ask next.

    ``attempts`` counts from ``first`` on; ``hops`` are the redirects of this attempt and ``spent`` its seconds.
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
    """One server: what waits for it, and what is known of it.

    ``rules`` is its robots.txt, or why nothing may be asked of it. ``closed`` says why it is not asked any more.
    """

    target: Target
    photos: list[tuple[float, int, Job]] = field(default_factory=list)
    errands: list[tuple[float, int, Job]] = field(default_factory=list)
    asked: bool = False
    rules: Protego | Unfetched | None = None
    closed: Unfetched | None = None
    not_before: float = 0.0
    lost: int = 0

    @property
    def host(self) -> str:
        return self.target.host

    def permit(self, job: Job, robot: str) -> None:
        """Raises :class:`Unfetched` where a photo is not to be asked for: the server is given up, or its rules say so."""
        for reason in (self.closed, self.rules):
            if isinstance(reason, Unfetched):
                raise Unfetched(reason.reason, str(reason))
        if isinstance(self.rules, Protego) and not self.rules.can_fetch(job.target.url, robot):
            raise Unfetched("robots", f"robots.txt of {self.host} forbids it")

    def count_loss(self, lost: bool) -> None:
        """Remember whether the server was out of reach; after so many times in a row its other photos are not tried."""
        self.lost = self.lost + 1 if lost else 0
        if self.lost >= _GIVEN_UP_AFTER:
            self.closed = Unfetched("host-down", f"{self.host} was out of reach {self.lost} times in a row")


class HostQueue:
    """All servers of one download. Every method but :meth:`take` is called with ``turn`` held, as is all state changed.

    A change wakes one worker, and a worker that finds a job wakes the next: waking all of them for each photo would cost more
    than the photo.
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
        """Let a job wait for its target's server, until ``at`` (monotonic seconds) at the earliest."""
        origin = self._origins.setdefault(job.target.origin, Origin(job.target))
        heapq.heappush(origin.photos if job.rules_for is None else origin.errands, (at, next(self._numbers), job))
        self._ready.notify()

    def take(self) -> tuple[Job, Origin] | None:
        """Wait for the next job, and take a place at its server; None once the queue is closed."""
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
        """Give a place at a server back."""
        self._active[origin.host] -= 1
        self._ready.notify()

    def close(self) -> None:
        self.open = False
        self._ready.notify_all()

    def _start(self, job: Job, origin: Origin, now: float) -> tuple[Job, Origin]:
        self._active[origin.host] += 1
        if job.rules_for is None and isinstance(origin.rules, Protego):
            pause = origin.rules.crawl_delay(self._robot) or 0.0
            origin.not_before = max(origin.not_before, now + min(pause, _LONGEST_CRAWL_DELAY))
        return job, origin

    def _waiting(self, origin: Origin) -> list[tuple[float, int, Job]]:
        """What may be taken of a server: photos only once its rules are known."""
        if origin.errands or origin.rules is not None or not self._robots:
            return origin.errands or origin.photos
        if origin.photos and not origin.asked:
            origin.asked = True
            target = origin.target.join("/robots.txt")
            self.push(Job(target, target, rules_for=origin))
        return origin.errands
