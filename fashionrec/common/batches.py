"""Group items, as ``itertools.batched`` of Python 3.12 does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` items; the last may be shorter."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
