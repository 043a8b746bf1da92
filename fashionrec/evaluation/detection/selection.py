"""The table for choosing among detectors, all measured on one dataset by one evaluator in one
runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fashionrec.common.pages import render
from fashionrec.common.text import markdown_cell, plural

COLUMNS = (
    *("model", "mAP50-95", "mAP50", "FPS", "FPS, best batch", "network FPS"),
    *("parameters", "GFLOPs", "file", "memory"),
)
#: Explanation of the columns, for readers of the table.
NOTES = (
    "FPS: photos a second from decoded photo to boxes, one photo a call; then at the batch size in brackets that does most;"
    " then of the network alone, one photo a call and at its best batch.",
    "Parameters and GFLOPs are counted in the ONNX graph as it is served, for one picture of the size given: two operations for"
    " each multiplication and addition of a convolution or matrix product. Norms are folded into convolutions, in EfficientDet's"
    " head once for each level that shares it; of a two-stage detector the operations are those of the proposals that the"
    " measured photo has.",
    "File: the ONNX graph. Memory: the peak of a fresh process that opened the bundle and predicted one photo.",
)
_WIDTH, _HEIGHT, _EDGE = 640, 300, 46


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return one row as texts, in the order of :data:`COLUMNS`; a failed model gives its reason
    instead.
    """
    if "failed" in row:
        return [str(row["model"]), f"failed: {row['failed']}", *[""] * (len(COLUMNS) - 2)]
    end, network = row["fps"]["end_to_end"], row["fps"]["network"]
    size = f" @{row['imgsz']}"
    return [
        f"{row['model']}{size}",
        f"{row['map50_95']:.3f}",
        f"{row['map50']:.3f}",
        f"{end['1']:.1f}",
        _at_best(end),
        f"{network['1']:.1f} / {_at_best(network)}",
        f"{row['parameters'] / 1e6:.2f} M",
        f"{row['gflops']:.2f}",
        _mebibytes(row["file_bytes"]),
        _mebibytes(row["memory_bytes"]),
    ]


def ordered(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort by accuracy; failed ones are last, in their original order."""
    return sorted(rows, key=lambda row: -float(row["map50_95"]) if "failed" not in row else 1.0)


def selection_markdown(document: Mapping[str, Any]) -> str:
    """Return a comparison's document as Markdown."""
    lines = [f"# Comparison of {plural(len(document['models']), 'detector')}", "", markdown_cell(about(document)), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    for row in ordered(document["models"]):
        lines.append("| " + " | ".join(map(markdown_cell, cells(row))) + " |")
    lines += ["", *(f"{note}\n" for note in NOTES)]
    lines += [f"- {markdown_cell(how)}" for how in map(origin, document["models"]) if how]
    return "\n".join(lines).rstrip() + "\n"


def selection_page(document: Mapping[str, Any], title: str) -> str:
    """Return a comparison's document as one self-contained page."""
    rows = ordered(document["models"])
    return render(
        "selection.html",
        title=title,
        about=about(document),
        columns=COLUMNS,
        rows=[(cells(row), "failed" in row) for row in rows],
        notes=NOTES,
        origins=[how for how in map(origin, document["models"]) if how],
        plot=_plot([row for row in rows if "failed" not in row]),
    )


def about(document: Mapping[str, Any]) -> str:
    """Return one line: what was measured, and where."""
    machine = document["machine"]
    return (
        f"{plural(document['photos'], 'photo')} of the {document['split']} split of {document['data']}; {machine['provider']},"
        f" ONNX Runtime {machine['onnxruntime']}, {machine['cores']} cores, {machine['system']}"
    )


def origin(row: Mapping[str, Any]) -> str:
    """Return where a row's weights come from."""
    if "failed" in row:
        return ""
    how = {
        "taken": "existing weights",
        "trained": "trained",
        "reused": "trained before with these settings and data",
    }
    run = f" in {row['run']}" if row.get("run") else ""
    count = row.get("epochs")
    epochs = f", {count} epoch{'' if count == 1 else 's'}, {row['train_seconds']:.0f} s" if count else ""
    return f"{row['model']}: {how[row['how']]}{run}{epochs}"


def _at_best(rates: Mapping[str, float]) -> str:
    size = max(rates, key=lambda key: rates[key])
    return f"{rates[size]:.1f} ({size})"


def _mebibytes(count: int | None) -> str:
    return "" if count is None else f"{count / (1 << 20):.1f} MiB"


def _plot(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return accuracy over speed as positions of dots in a plot."""
    if len(rows) < 2:
        return None
    speeds = [row["fps"]["end_to_end"]["1"] for row in rows]
    fastest, best = max(speeds) * 1.1, max(0.01, *(row["map50_95"] for row in rows)) * 1.15
    dots = [
        {
            "name": row["model"],
            "x": round(_EDGE + speed / fastest * (_WIDTH - _EDGE), 1),
            "y": round((1 - row["map50_95"] / best) * _HEIGHT, 1),
            "left": speed > fastest / 2,
        }
        for row, speed in zip(rows, speeds, strict=True)
    ]
    return {"dots": dots, "width": _WIDTH, "height": _HEIGHT, "edge": _EDGE, "fastest": fastest, "best": best}
