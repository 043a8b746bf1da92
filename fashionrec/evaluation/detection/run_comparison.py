"""Compare two runs: their metrics, whether these are comparable, and which settings differ.

Metrics are only compared if both were measured on the same photos and labels by the same evaluator:
the trainer's own validation and the decision of a finetune are two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fashionrec.config import flatten
from fashionrec.models.runs import Run

_NOT_COMPARED = frozenset({"name", "exist_ok", "resume"})


@dataclass(frozen=True)
class Row:
    """One row of a comparison: a metric, or a class's metric. ``difference`` is b - a, None if
    meaningless.
    """

    name: str
    a: float | None
    b: float | None
    difference: float | None


@dataclass(frozen=True)
class RunComparison:
    """The comparison. ``why_not`` is empty if metrics are comparable; ``settings`` and ``versions``
    map a name to both values.
    """

    why_not: str
    metrics: list[Row]
    per_class: list[Row]
    settings: dict[str, tuple[Any, Any]]
    versions: dict[str, tuple[Any, Any]]
    same_data: bool | None

    def to_dict(self) -> dict[str, Any]:
        pairs = {"settings": self.settings, "versions": self.versions}
        return {
            "comparable": not self.why_not,
            "why_not": self.why_not,
            "same_data": self.same_data,
            "metrics": [vars(row) for row in self.metrics],
            "per_class": [vars(row) for row in self.per_class],
        } | {name: {key: {"a": a, "b": b} for key, (a, b) in found.items()} for name, found in pairs.items()}


def compare_runs(a: Run, b: Run) -> RunComparison:
    """Compare two runs. ``same_data`` says whether they were trained on the same dataset; None if
    not recorded.
    """
    why_not = _why_not(a, b)
    trained = [run.dataset.get("fingerprint") or run.dataset.get("new", {}).get("fingerprint") for run in (a, b)]
    return RunComparison(
        why_not,
        _rows(a.metrics, b.metrics, not why_not),
        [
            Row(f"{label}, {row.name}", row.a, row.b, row.difference)
            for label in sorted({*_classes(a), *_classes(b)})
            for row in _rows(_classes(a).get(label, {}), _classes(b).get(label, {}), not why_not)
        ],
        _differing(_settings(a), _settings(b)),
        _differing(a.versions, b.versions),
        trained[0] == trained[1] if all(trained) else None,
    )


def _why_not(a: Run, b: Run) -> str:
    if a.kind != b.kind:
        return f"{a.name} is a {a.kind}, {b.name} is a {b.kind}"
    for run in (a, b):
        if run.state != "done":
            return f"{run.name} is not finished ({run.state})"
    measured = [_measured_on(run) for run in (a, b)]
    if measured[0][0] != measured[1][0]:
        return f"measured on different splits or in different ways: {measured[0][0]}; {measured[1][0]}"
    if None in (measured[0][1], measured[1][1]):
        return "it is not recorded what they were measured on"
    if measured[0][1] != measured[1][1]:
        return "measured on different photos or labels"
    return ""


def _measured_on(run: Run) -> tuple[str, str | None]:
    """Return how and on what a run's metrics were measured: words, and a fingerprint."""
    if run.kind == "detector" and run.verb == "finetune":
        return "the new data's test set, by the decision", run.dataset.get("new", {}).get("fingerprint")
    split = run.metrics.get("split", "held-out photos")
    return f"{split}, by the trainer", run.dataset.get(str(split)) or run.dataset.get("fingerprint")


def _rows(a: Mapping[str, Any], b: Mapping[str, Any], comparable: bool) -> list[Row]:
    rows = []
    for name in [*a, *(key for key in b if key not in a)]:
        first, second = (_number(values.get(name)) for values in (a, b))
        if first is None and second is None:
            continue
        both = comparable and first is not None and second is not None
        rows.append(Row(name, first, second, second - first if both else None))  # type: ignore[operator]
    return rows


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _classes(run: Run) -> dict[str, dict[str, Any]]:
    return dict(run.metrics.get("per_class") or {})


def _settings(run: Run) -> dict[str, Any]:
    """Return a run's settings without the section's name, so that finetunes and trainings are
    comparable.
    """
    found: dict[str, Any] = {}
    for section, values in run.config.items():
        found |= dict(flatten(values)) if isinstance(values, Mapping) else {section: values}
    return {key: value for key, value in found.items() if key not in _NOT_COMPARED}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}
