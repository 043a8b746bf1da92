"""Render a finetune's decision as one self-contained page: the decision, what changed, and with
which certainty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fashionrec.common.pages import render
from fashionrec.evaluation.detection.decision import headline, losses

_WIDTH, _ROW, _NAME = 640, 26, 190
_ROOM = 60  # pixels at the right, for the value


def decision_page(document: Mapping[str, Any], title: str) -> str:
    """Return the HTML of the document of
    :func:`fashionrec.evaluation.detection.judgement.judge`.
    """
    return render(
        "decision.html",
        title=title,
        document=document,
        decision=document["decision"],
        headline=headline(document["decision"]),
        losses=losses(document),
        plots=[_plot(name, document) for name in document["photos"]],
    )


def _plot(test_set: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the differences of one test set with intervals, in points, as positions in a plot of
    640 pixels' width.
    """
    rows = [row for row in document["rows"] if row["test_set"] == test_set]
    most = max(1.0, *(100 * max(abs(row["low"]), abs(row["high"]), abs(row["difference"])) for row in rows))
    middle, scale = (_NAME + _WIDTH - _ROOM) / 2, (_WIDTH - _ROOM - _NAME) / 2 / most

    def place(share: float) -> float:
        result: float = round(middle + 100 * share * scale, 1)
        return result

    lines = [
        {
            "name": row["metric"].replace("map50_95", "mAP50-95").replace("map50", "mAP50"),
            "y": round((n + 0.5) * _ROW, 1),
            "low": place(row["low"]),
            "high": place(row["high"]),
            "at": place(row["difference"]),
            "text": f"{row['difference'] * 100:+.2f}",
            "kind": "fell" if row["high"] < 0 else "rose" if row["low"] > 0 else "open",
        }
        for n, row in enumerate(rows)
    ]
    limit = place(-document["decision"]["tolerance_points"] / 100) if test_set == "old" else None
    return {
        "name": test_set,
        "photos": document["photos"][test_set],
        "split": document["splits"][test_set],
        "lines": lines,
        "zero": round(middle, 1),
        "limit": limit,
        "width": _WIDTH,
        "height": _ROW * len(lines),
        "end": round(most, 1),
    }
