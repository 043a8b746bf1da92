"""One rate limit for all threads that use a server: how many requests at once, and when.

::

    enter ─▶ waits during a pause, while the server's budget is used up, or for a free slot
    heard ─▶ updates the budget from the answer's headers (``x-ratelimit-remaining-requests``,
             ``-tokens`` and their reset times)
    throttled ─▶ pauses all threads and halves the slots; each later answer adds a fraction of one
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_GROWTH = 0.1  # of the slots per round, after a throttling
_MAX_WAIT = 0.5  # seconds between checks for a stop


@dataclass
class _Budget:
    """A server's budget of requests or tokens: it refills evenly until it is full."""

    remaining: float | None = None
    rate: float = 0.0
    updated_at: float = 0.0

    def heard(self, limit: float | None, remaining: float | None, reset: float | None, now: float) -> None:
        if remaining is None or reset is None:
            return
        current = self._now(now)
        # a slow answer overstates the budget: other requests were sent after it was computed
        self.remaining = remaining if current is None else min(current, remaining)
        missing = max(1.0, (limit or 0.0) - remaining)
        self.rate, self.updated_at = missing / max(reset, 1e-3), now

    def wait(self, need: float, now: float) -> float:
        """Return the seconds until ``need`` is available; 0 if the budget is unknown."""
        remaining = self._now(now)
        return 0.0 if remaining is None or remaining >= need else (need - remaining) / self.rate

    def take(self, need: float, now: float) -> None:
        remaining = self._now(now)
        if remaining is not None:
            self.remaining, self.updated_at = remaining - need, now

    def _now(self, now: float) -> float | None:
        return None if self.remaining is None else self.remaining + self.rate * (now - self.updated_at)


class RateLimiter:
    """Limits the requests of all threads to one server: ``most`` at once, or fewer."""

    def __init__(self, most: int, tokens: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Set the limits; ``tokens`` is the expected use of one request of the token budget."""
        self._max_limit, self._tokens_each, self._clock = most, tokens, clock
        self._limit = float(most)
        self._in_flight = 0
        self._paused_until = 0.0
        self._halved_at = float("-inf")
        self._requests, self._tokens = _Budget(), _Budget()
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """The current limit of concurrent requests."""
        return max(1, int(self._limit))

    def enter(self, stop: threading.Event) -> bool:
        """Wait until a request may be sent; return False if stopped meanwhile."""
        with self._changed:
            while not stop.is_set():
                wait = self.try_enter()
                if not wait:
                    return True
                self._changed.wait(wait)
        return False

    def try_enter(self) -> float:
        """Enter and return 0 if a request may be sent; else return the seconds to wait."""
        with self._changed:
            now = self._clock()
            wait = max(
                self._paused_until - now, self._requests.wait(1.0, now), self._tokens.wait(self._tokens_each, now)
            )
            if wait > 0:
                return min(wait, _MAX_WAIT)
            if self._in_flight >= self.limit:
                return _MAX_WAIT
            self._requests.take(1.0, now)
            self._tokens.take(self._tokens_each, now)
            self._in_flight += 1
            return 0.0

    def leave(self) -> None:
        """Count a request as finished."""
        with self._changed:
            self._in_flight -= 1
            self._changed.notify()

    def heard(self, headers: Mapping[str, str]) -> None:
        """Update the server's budgets from the headers of an answer."""
        with self._changed:
            now = self._clock()
            for name, budget in (("requests", self._requests), ("tokens", self._tokens)):
                limit, remaining = (
                    _number(headers.get(f"x-ratelimit-{kind}-{name}")) for kind in ("limit", "remaining")
                )
                budget.heard(limit, remaining, seconds(headers.get(f"x-ratelimit-reset-{name}")), now)

    def succeeded(self) -> None:
        """Raise the limit a little after an answer."""
        with self._changed:
            if self._limit < self._max_limit:
                self._limit = min(self._max_limit, self._limit + max(1.0, self._limit * _GROWTH) / self._limit)
                self._changed.notify()

    def throttled(self, sent_at: float, pause: float) -> None:
        """Pause all threads for ``pause`` seconds and halve the limit.

        Answers to requests sent (``sent_at``, by the clock) before the last halving do not halve it
        again.
        """
        with self._changed:
            now = self._clock()
            self._paused_until = max(self._paused_until, now + pause)
            if sent_at >= self._halved_at:
                self._limit, self._halved_at = max(1.0, self._limit / 2), now

    def pause(self, seconds: float) -> None:
        """Pause all threads."""
        with self._changed:
            self._paused_until = max(self._paused_until, self._clock() + seconds)


def seconds(text: str | None) -> float | None:
    """Parse a duration of OpenAI's headers: ``6m0s``, ``1.5s``, ``20ms``, or plain seconds.

    Returns None for anything else.
    """
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
