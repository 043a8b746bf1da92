"""A bundle whose graphs answer something else: the fault, or the count, that a test plants between
a model and its session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fashionrec.models.bundle import Bundle

Inputs = dict[str, np.ndarray]
Ask = Callable[[Inputs], list[np.ndarray]]
#: Told the graph's role, its inputs, and how to ask it; returns what the session answers.
Change = Callable[[str, Inputs, Ask], list[np.ndarray]]


class Session:
    """A session of ONNX Runtime behind a change."""

    def __init__(self, session: Any, graph: str, change: Change) -> None:
        self.session, self.graph, self.change = session, graph, change

    def run(self, names: object, inputs: Inputs) -> list[np.ndarray]:
        return self.change(self.graph, inputs, lambda given: list(self.session.run(names, given)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


@dataclass(frozen=True)
class Tampered(Bundle):
    """Opened by a detector or an encoder as any bundle is."""

    change: Change = lambda graph, inputs, ask: ask(inputs)

    def session(self, graph: str, *, threads: int = 0, device: str = "auto") -> Any:
        return Session(super().session(graph, threads=threads, device=device), graph, self.change)


def tampered(bundle: Bundle, change: Change) -> Tampered:
    return Tampered(**{one.name: getattr(bundle, one.name) for one in fields(bundle) if one.init}, change=change)
