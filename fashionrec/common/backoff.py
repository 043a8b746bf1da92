"""Delays before retries."""

from __future__ import annotations

import random
from collections.abc import Callable


def backoff(
    attempt: int, first: float, longest: float, jitter: Callable[[float, float], float] = random.uniform
) -> float:
    """Return the seconds to wait after a failed ``attempt``, counted from 0.

    They are ``first``, doubled each time, at most ``longest``. Half of it is random (``jitter`` of
    0.5 and 1), so that clients that failed together do not retry together.
    """
    return min(longest, first * 2.0**attempt) * jitter(0.5, 1.0)
