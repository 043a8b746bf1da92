"""What captions cost: expected before the first one is asked for, counted while they come, and held below a limit.

Prices are those of the model's entry (``captioner.models``), in US$ per million tokens. The tokens of one caption are the mean
of those that were measured; before any was, the captioner estimates them.
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
    """What one caption takes. ``measured`` is how many answers say so; 0: it is an estimate."""

    input: float
    output: float
    measured: int = 0


@dataclass(frozen=True)
class Price:
    """US$ per token."""

    input: float
    output: float

    @classmethod
    def of(cls, entry: CaptionModelConfig, *, batch: bool = False) -> Price | None:
        """The price of a model's entry; None where it has none."""
        if entry.input_price is None or entry.output_price is None:
            return None
        share = entry.batch_price if batch else 1.0
        return cls(entry.input_price * share / 1e6, entry.output_price * share / 1e6)

    def __call__(self, tokens: Tokens) -> float:
        return tokens.input * self.input + tokens.output * self.output

    def usage(self, usage: Mapping[str, int]) -> float:
        return usage.get("input_tokens", 0) * self.input + usage.get("output_tokens", 0) * self.output


class Meter:
    """Counts what was spent, and says whether one more may be asked for. Shared by threads.

    What is spent never passes ``cap`` by more than the requests under way cost above what was expected of them.
    """

    def __init__(self, price: Price | None, expected: Tokens, cap: float | None = None) -> None:
        """Raises :class:`CaptionError` for a cap where no price is known."""
        if cap is not None and price is None:
            raise CaptionError(
                "what this model costs is not known, so a limit of the cost cannot be kept",
                hint="set input_price and output_price in captioner.models, or leave out --max-cost",
            )
        self.price, self.expected, self.cap = price, expected, cap
        self.usage = {"input_tokens": 0, "output_tokens": 0}
        self.answers = 0
        self.stopped = False
        self._under_way = 0
        self._lock = threading.Lock()

    @property
    def each(self) -> Tokens:
        """The tokens of one caption: measured by this run as soon as it has some answers, else as expected."""
        if self.answers < 10:
            return self.expected
        return Tokens(
            self.usage["input_tokens"] / self.answers, self.usage["output_tokens"] / self.answers, self.answers
        )

    @property
    def spent(self) -> float | None:
        """US$ so far; None where the price is not known."""
        return None if self.price is None else self.price.usage(self.usage)

    def cost_of(self, garments: int) -> float | None:
        """US$ that so many more captions are expected to cost."""
        return None if self.price is None else garments * self.price(self.each)

    def reserve(self) -> bool:
        """Whether one more may be asked for; it is under way from now on."""
        with self._lock:
            if self.cap is not None and self.price is not None:
                most = max(self.price(self.each), self.price(self.expected))
                if self.price.usage(self.usage) + (self._under_way + 1) * most > self.cap:
                    self.stopped = True
                    return False
            self._under_way += 1
            return True

    def came(self, usage: Mapping[str, int]) -> None:
        """One that was under way has come, and has used so many tokens."""
        with self._lock:
            self._under_way -= 1
            if usage.get("input_tokens", 0) > 0:
                self.answers += 1
            for key in self.usage:
                self.usage[key] += usage.get(key, 0)


def dollars(amount: float | None) -> str:
    """``US$ 0.0031``, ``US$ 12.40``, or that it is not known."""
    if amount is None:
        return "cost not known"
    return f"US$ {amount:.4f}" if amount < 1 else f"US$ {amount:,.2f}"
