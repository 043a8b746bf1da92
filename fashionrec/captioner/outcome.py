"""What became of one request for a caption. A failure is a recorded state, never a caption."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from fashionrec.captioner.schema import Description

#: done: described; refused: the model declines; filtered: a content filter; truncated: the answer was cut by its length
#: limit; invalid: an answer that is not what was asked for; failed: no answer (``retryable`` where asking again can help).
State = Literal["done", "refused", "filtered", "truncated", "invalid", "failed"]
STATES: tuple[str, ...] = get_args(State)


@dataclass(frozen=True)
class Outcome:
    """``description`` is there exactly when ``state`` is ``done``; ``raw`` is the answer's text as it came, if one did.

    ``captioner`` is its name in the settings; ``model`` what was asked; ``usage`` has input_tokens and output_tokens;
    ``error`` is one short line without secrets.
    """

    state: State
    captioner: str
    model: str
    description: Description | None = None
    raw: str | None = None
    usage: dict[str, int] = field(default_factory=lambda: {"input_tokens": 0, "output_tokens": 0})
    error: str | None = None
    retryable: bool = False
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.state not in STATES or (self.state == "done") != (self.description is not None):
            raise ValueError(f"an outcome that is {self.state} with description {self.description!r}")
