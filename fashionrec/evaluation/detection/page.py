"""Render an evaluation of a detector as one self-contained page: metrics, confusion, curves, and
the worst photos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fashionrec.common.pages import jpeg_uri, render
from fashionrec.config import ImagesConfig
from fashionrec.errors import ImageError
from fashionrec.evaluation.detection.coco import AREAS, SIZES
from fashionrec.evaluation.detection.confusion import ConfusionMatrix
from fashionrec.evaluation.detection.mistake_pictures import KIND_COLOURS, RIGHT_COLOUR, draw_mistakes
from fashionrec.evaluation.detection.mistakes import KINDS, PhotoMistakes
from fashionrec.evaluation.detection.report import COCO, METRICS, DetectionReport, figure
from fashionrec.photos.images import encode_jpeg, read_photo

_SIDE = 640  # pixels of a picture
_NAMED = 12  # mistakes listed per photo
_CURVE = 150  # side of a plot


def detection_page(
    report: DetectionReport, worst: Sequence[PhotoMistakes], limits: ImagesConfig, about: Mapping[str, str]
) -> str:
    """Return the HTML. ``about`` describes what was measured: ``title``, ``weights``, ``data``,
    ``split``.
    """
    everything = {"boxes": report.boxes, **{key: getattr(report, key) for key in (*METRICS, "coco_ap")}}
    all_sizes = {"boxes": report.boxes, **{key: getattr(report, key) for key in COCO}}
    return render(
        "detection.html",
        title=about["title"],
        about=about,
        report=report,
        figure=figure,
        metrics=(*METRICS, "coco_ap"),
        coco=COCO,
        classes={"all": everything, **report.per_class},
        sizes=[("all", "", all_sizes), *((name, _range(name), report.by_size[name]) for name in SIZES)],
        confusion=_shaded(report.confusion),
        confused=report.confusion.confused(3),
        curves=[_curve(name, report) for name in report.curves],
        kinds=[(kind, KIND_COLOURS[kind], words, report.mistakes[kind]) for kind, words in KINDS.items()],
        right=RIGHT_COLOUR,
        photos=[_card(photo, limits) for photo in worst],
    )


def _range(size: str) -> str:
    low, high = (round(area**0.5) for area in AREAS[size])
    if size == SIZES[0]:
        return f"up to {high}² pixels"
    return f"{low}² pixels and more" if size == SIZES[-1] else f"{low}² to {high}² pixels"


def _shaded(confusion: ConfusionMatrix) -> dict[str, Any]:
    """Return the counts with their share of the column, and whether they are correct."""
    totals = confusion.counts.sum(axis=0)
    last = len(confusion.names) - 1
    rows = [
        {
            "name": name,
            "cells": [
                {
                    "count": int(count),
                    "share": round(int(count) / max(1, int(totals[column])), 3),
                    "right": row == column,
                    "empty": row == column == last,
                }
                for column, count in enumerate(confusion.counts[row])
            ],
        }
        for row, name in enumerate(confusion.names)
    ]
    return {"names": confusion.names, "rows": rows}


def _curve(name: str, report: DetectionReport) -> dict[str, Any]:
    """Return a class's curve as points of a square, y downwards, and the position of its precision
    and recall.
    """
    curve, values = np.array(report.curves[name]), report.per_class[name]
    places = [f"{n * _CURVE / 100:g},{(1 - float(p)) * _CURVE:.1f}" for n, p in enumerate(curve)]
    return {
        "name": name,
        "ap50": float(curve.mean()),
        "points": " ".join(places),
        "x": round(values["recall"] * _CURVE, 1),
        "y": round((1 - values["precision"]) * _CURVE, 1),
        "side": _CURVE,
    }


def _card(photo: PhotoMistakes, limits: ImagesConfig) -> dict[str, Any]:
    uri = None
    try:
        if photo.path is not None:
            pixels = read_photo(photo.path, limits).pixels
            uri = jpeg_uri(encode_jpeg(draw_mistakes(pixels, photo, _SIDE), _SIDE, 82))
    except ImageError:  # removed since it was measured
        pass
    named = [(mistake.text, KIND_COLOURS[mistake.kind]) for mistake in photo.mistakes[:_NAMED]]
    return {
        "name": photo.path.name if photo.path else "",
        "uri": uri,
        "mistakes": named,
        "more": max(0, len(photo.mistakes) - _NAMED),
        "right": len(photo.right),
    }
