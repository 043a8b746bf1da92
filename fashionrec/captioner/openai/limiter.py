"""One limit for all who ask a server: how many at once, and when. What one of them is told, all of them heed.

::

    enter ─▶ waits while a pause runs, while the server's budget is used up, or while enough requests are under way
    heard ─▶ what the answer's headers say is left (``x-ratelimit-remaining-requests``, ``-tokens`` and when they are full again)
    throttled ─▶ all pause, and half as many may be under way; each answer afterwards lets a little more in again
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_GROWTH = 0.1  # by how much the number of requests under way grows in the time of one round
_LONGEST_WAIT = 0.5  # between two looks at whether everything stopped


@dataclass
class _Budget:
    """What a server lets through of one thing (requests, tokens): it refills evenly until it is full."""

    left: float | None = None
    rate: float = 0.0
    at: float = 0.0

    def heard(self, limit: float | None, remaining: float | None, reset: float | None, now: float) -> None:
        if remaining is None or reset is None:
            return
        known = self._now(now)
        # an answer that was long under way tells of more than there is: others have asked since
        self.left = remaining if known is None else min(known, remaining)
        missing = max(1.0, (limit or 0.0) - remaining)
        self.rate, self.at = missing / max(reset, 1e-3), now

    def wait(self, need: float, now: float) -> float:
        """Seconds until ``need`` is there; 0 where nothing is known."""
        left = self._now(now)
        return 0.0 if left is None or left >= need else (need - left) / self.rate

    def take(self, need: float, now: float) -> None:
        left = self._now(now)
        if left is not None:
            self.left, self.at = left - need, now

    def _now(self, now: float) -> float | None:
        return None if self.left is None else self.left + self.rate * (now - self.at)


class RateLimiter:
    """Shared by the threads that ask one server. ``most`` requests are under way at once, fewer where it wants that."""

    def __init__(self, most: int, tokens: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        """``tokens`` is what one request is expected to use of the server's budget of tokens."""
        self._most, self._tokens_each, self._clock = most, tokens, clock
        self._limit = float(most)
        self._under_way = 0
        self._paused_until = 0.0
        self._lowered_at = float("-inf")
        self._requests, self._tokens = _Budget(), _Budget()
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """How many may be under way at once, by now."""
        return max(1, int(self._limit))

    def enter(self, stop: threading.Event) -> bool:
        """Wait until one more request may be sent; False where everything stopped meanwhile."""
        with self._changed:
            while not stop.is_set():
                wait = self.try_enter()
                if not wait:
                    return True
                self._changed.wait(wait)
        return False

    def try_enter(self) -> float:
        """Enter where one more request may be sent now: 0. Else the seconds after which to look again."""
        with self._changed:
            now = self._clock()
            wait = max(
                self._paused_until - now, self._requests.wait(1.0, now), self._tokens.wait(self._tokens_each, now)
            )
            if wait > 0:
                return min(wait, _LONGEST_WAIT)
            if self._under_way >= self.limit:
                return _LONGEST_WAIT
            self._requests.take(1.0, now)
            self._tokens.take(self._tokens_each, now)
            self._under_way += 1
            return 0.0

    def leave(self) -> None:
        """A request that had entered is over."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify()

    def heard(self, headers: Mapping[str, str]) -> None:
        """Heed what an answer's headers say of the server's budgets."""
        with self._changed:
            now = self._clock()
            for name, budget in (("requests", self._requests), ("tokens", self._tokens)):
                limit, remaining = (
                    _number(headers.get(f"x-ratelimit-{what}-{name}")) for what in ("limit", "remaining")
                )
                budget.heard(limit, remaining, seconds(headers.get(f"x-ratelimit-reset-{name}")), now)

    def succeeded(self) -> None:
        """An answer came: a little more may be under way."""
        with self._changed:
            if self._limit < self._most:
                self._limit = min(self._most, self._limit + max(1.0, self._limit * _GROWTH) / self._limit)
                self._changed.notify()

    def throttled(self, sent_at: float, pause: float) -> None:
        """The server wants fewer requests: all wait for ``pause`` seconds, then half as many may be under way.

        Answers to requests sent before the last halving (``sent_at``, by the clock) halve nothing again.
        """
        with self._changed:
            now = self._clock()
            self._paused_until = max(self._paused_until, now + pause)
            if sent_at >= self._lowered_at:
                self._limit, self._lowered_at = max(1.0, self._limit / 2), now

    def pause(self, seconds: float) -> None:
        """All wait for so long."""
        with self._changed:
            self._paused_until = max(self._paused_until, self._clock() + seconds)


def seconds(text: str | None) -> float | None:
    """A duration as OpenAI's headers write it: ``6m0s``, ``1.5s``, ``20ms``, or plain seconds; None where it is none."""
    if not text:
        return None
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text.strip():
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    return _number(text)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else -1.0
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
