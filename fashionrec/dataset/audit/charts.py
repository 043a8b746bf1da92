"""Charts as numbers for a template to draw, in an area of 320 x 150 with y downwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 320, 150
_NAME, _GAP = 84, 3


def bars(
    title: str, values: Mapping[str, int], colours: Mapping[str, str], other: str, *, goal: int = 0
) -> dict[str, Any]:
    """Return horizontal bars with names and values; ``goal`` is a target line, if it fits."""
    largest = max([*values.values(), 1])
    top = max(largest, goal if goal <= 4 * largest else 0)
    room, step = WIDTH - _NAME - 48, HEIGHT / max(1, len(values))
    rows = [
        {
            "name": name,
            "value": value,
            "y": round(n * step + _GAP, 1),
            "width": round(value / top * room, 1),
            "height": round(max(2.0, step - 2 * _GAP), 1),
            "colour": colours.get(name, other),
        }
        for n, (name, value) in enumerate(values.items())
    ]
    line = round(_NAME + goal / top * room, 1) if 0 < goal <= top else None
    return {"form": "bars", "title": title, "rows": rows, "x": _NAME, "goal": line, "goal_value": goal}


def histogram(title: str, counts: Sequence[int], names: Sequence[str], marks: Sequence[str]) -> dict[str, Any]:
    """Return vertical bars with ``names`` of the bins; ``marks`` label the axis, left to right."""
    largest, step = max([*counts, 1]), WIDTH / max(1, len(counts))
    columns = [
        {
            "x": round(n * step + 0.5, 1),
            "width": round(step - 1, 1),
            "height": round(max(value / largest * (HEIGHT - 4), 1.5 if value else 0), 1),
            "name": f"{name}: {value}",
        }
        for n, (value, name) in enumerate(zip(counts, names, strict=True))
    ]
    return {"form": "histogram", "title": title, "columns": columns, "marks": list(marks)}


def grid(title: str, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return a square of cells that are darker for larger values."""
    largest = max([*(value for row in rows for value in row), 1])
    side = HEIGHT / max(1, len(rows))
    cells = [
        {
            "x": round(x * side, 1),
            "y": round(y * side, 1),
            "side": round(side - 0.5, 1),
            "share": round(0.04 + 0.96 * value / largest, 3) if value else 0.03,
            "name": str(value),
        }
        for y, row in enumerate(rows)
        for x, value in enumerate(row)
    ]
    return {"form": "grid", "title": title, "cells": cells}
