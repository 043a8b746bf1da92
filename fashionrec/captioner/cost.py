"""Cost of captions: estimated before the first request, metered during a run, and limited.

Prices are those of the model's entry (``captioner.models``), in US$ per million tokens. The tokens
of one caption are the mean of measured ones; before there are any, the captioner estimates them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fashionrec.errors import CaptionError

if TYPE_CHECKING:
    from fashionrec.config import CaptionModelConfig


@dataclass(frozen=True)
class Tokens:
    """The tokens of one caption. ``measured`` is the sample size; 0 for an estimate."""

    input: float
    output: float
    measured: int = 0


@dataclass(frozen=True)
class Price:
    """A price in US$ per token."""

    input: float
    output: float

    @classmethod
    def of(cls, entry: CaptionModelConfig, *, batch: bool = False) -> Price | None:
        """Return the price of a model's entry; None if it has none."""
        if entry.input_price is None or entry.output_price is None:
            return None
        share = entry.batch_price if batch else 1.0
        return cls(entry.input_price * share / 1e6, entry.output_price * share / 1e6)

    def __call__(self, tokens: Tokens) -> float:
        return tokens.input * self.input + tokens.output * self.output

    def usage(self, usage: Mapping[str, int]) -> float:
        return usage.get("input_tokens", 0) * self.input + usage.get("output_tokens", 0) * self.output


class CostMeter:
    """Meters the cost of requests, and stops them at a limit. Shared by threads.

    The cost exceeds ``cap`` at most by what the requests in flight cost above their estimate.
    """

    def __init__(self, price: Price | None, expected: Tokens, cap: float | None = None) -> None:
        """Raise :class:`CaptionError` for a cap without a known price."""
        if cap is not None and price is None:
            raise CaptionError(
                "the price of this model is unknown, so a cost limit cannot be enforced",
                hint="set input_price and output_price in captioner.models, or omit --max-cost",
            )
        self.price, self.expected, self.cap = price, expected, cap
        self.usage = {"input_tokens": 0, "output_tokens": 0}
        self.answers = 0
        self.stopped = False
        self._in_flight = 0
        self._lock = threading.Lock()

    @property
    def each(self) -> Tokens:
        """The tokens per caption: measured in this run once it has 10 answers, else as expected."""
        if self.answers < 10:
            return self.expected
        return Tokens(
            self.usage["input_tokens"] / self.answers, self.usage["output_tokens"] / self.answers, self.answers
        )

    @property
    def spent(self) -> float | None:
        """The cost so far in US$; None if the price is unknown."""
        return None if self.price is None else self.price.usage(self.usage)

    def cost_of(self, garments: int) -> float | None:
        """Return the expected cost of so many more captions, in US$."""
        return None if self.price is None else garments * self.price(self.each)

    def reserve(self) -> bool:
        """Return whether one more request fits the limit; if so, count it as in flight."""
        with self._lock:
            if self.cap is not None and self.price is not None:
                max_cost = max(self.price(self.each), self.price(self.expected))
                if self.price.usage(self.usage) + (self._in_flight + 1) * max_cost > self.cap:
                    self.stopped = True
                    return False
            self._in_flight += 1
            return True

    def came(self, usage: Mapping[str, int]) -> None:
        """Count the usage of a finished request."""
        with self._lock:
            self._in_flight -= 1
            if usage.get("input_tokens", 0) > 0:
                self.answers += 1
            for key in self.usage:
                self.usage[key] += usage.get(key, 0)


def dollars(amount: float | None) -> str:
    """Format an amount: ``US$ 0.0031``, ``US$ 12.40``, or "cost unknown"."""
    if amount is None:
        return "cost unknown"
    return f"US$ {amount:.4f}" if amount < 1 else f"US$ {amount:,.2f}"
