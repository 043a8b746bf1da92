"""How long to wait before a request is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable


def backoff(
    attempt: int, first: float, longest: float, jitter: Callable[[float, float], float] = random.uniform
) -> float:
    """Seconds to wait after a failed ``attempt``, counted from 0: ``first``, doubled each time, ``longest`` at most.

    Half of it is left to chance (``jitter`` of 0.5 and 1), so that clients that failed together do not return together.
    """
    return min(longest, first * 2.0**attempt) * jitter(0.5, 1.0)
