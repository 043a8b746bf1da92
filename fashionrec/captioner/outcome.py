"""The result of one caption request. A failure is a recorded state, never a caption."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from fashionrec.captioner.schema import Description

#: done: described; refused: by the model; filtered: by a content filter; truncated: cut off at the
#: length limit; invalid: does not match the schema; failed: no answer (``retryable`` if a retry may
#: help).
State = Literal["done", "refused", "filtered", "truncated", "invalid", "failed"]
STATES: tuple[str, ...] = get_args(State)


@dataclass(frozen=True)
class Outcome:
    """The result of one request; ``description`` is set exactly if ``state`` is ``done``.

    ``raw`` is the text of the answer, if there was one; ``captioner`` the name in the settings;
    ``model`` the requested model; ``usage`` has input_tokens and output_tokens; ``error`` is one
    short line without secrets.
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
            raise ValueError(f"the state {self.state!r} does not fit the description {self.description!r}")
