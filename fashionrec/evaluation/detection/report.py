"""The measurements of a detector on a split, as a document and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fashionrec.common.text import markdown_cell
from fashionrec.evaluation.detection.coco import SIZES, coco_figures
from fashionrec.evaluation.detection.confusion import ConfusionMatrix, confusion_matrix
from fashionrec.evaluation.detection.matches import Matches
from fashionrec.evaluation.detection.mistakes import SAME, count_mistakes, find_mistakes

METRICS = ("map50", "map50_95", "precision", "recall", "f1")
COCO = ("coco_ap", "coco_ap50", "coco_ap75", "coco_ar100")


@dataclass(frozen=True)
class DetectionReport:
    """Metrics over all photos, and for each class that occurs.

    ``map50``, ``map50_95``, ``precision``, ``recall``, ``f1`` follow ultralytics' rules, the last
    three at IoU .50 and ``confidence``, where the mean F1 over classes is highest. ``coco_*`` and
    ``by_size`` are COCO's own (:mod:`coco`), None without true boxes of a size. ``curves`` are a
    class's precision at IoU .50 and recall 0, .01, ... 1. ``confusion`` and ``mistakes`` (counts by
    kind, :mod:`mistakes`) are at the same confidence.
    """

    images: int
    boxes: int
    map50: float
    map50_95: float
    precision: float
    recall: float
    f1: float
    confidence: float
    coco_ap: float | None
    coco_ap50: float | None
    coco_ap75: float | None
    coco_ap_small: float | None
    coco_ap_medium: float | None
    coco_ap_large: float | None
    coco_ar100: float | None
    per_class: dict[str, dict[str, Any]]
    by_size: dict[str, dict[str, float | None]]
    curves: dict[str, list[float]]
    confusion: ConfusionMatrix
    mistakes: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "confusion": self.confusion.to_dict()}

    def to_markdown(self) -> str:
        """Return tables of all classes, COCO's metrics by size, the confusion matrix, and the
        mistakes in one line.
        """
        everything = {"boxes": self.boxes, **{key: getattr(self, key) for key in (*METRICS, "coco_ap")}}
        head = ("class", "boxes", "mAP50", "mAP50-95", "P", "R", "F1", "COCO AP")
        rows = [
            [name, f"{values['boxes']:.0f}", *(figure(values[key]) for key in (*METRICS, "coco_ap"))]
            for name, values in {"all": everything, **self.per_class}.items()
        ]
        sizes = [["all", str(self.boxes), *(figure(getattr(self, key)) for key in COCO)]]
        for name in SIZES:
            values = self.by_size[name]
            sizes.append([name, f"{values['boxes']:.0f}", *(figure(values[key]) for key in COCO)])
        names = self.confusion.names
        counts = [[name, *map(str, row)] for name, row in zip(names, self.confusion.counts.tolist(), strict=True)]
        at = f"at confidence {self.confidence:.3f}, IoU {self.confusion.iou:g}"
        return "\n".join(
            [
                *table_lines(head, rows),
                "",
                *table_lines(("size", "boxes", "COCO AP", "AP50", "AP75", "AR100"), sizes),
                "",
                f"Predicted (rows) against true (columns), {at}:",
                "",
                *table_lines(("found", *names), counts),
                "",
                f"Mistakes, {at}: {self.mistakes_line()}.",
                "",
            ]
        )

    def mistakes_line(self) -> str:
        return ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in self.mistakes.items())


def detection_report(matches: Matches) -> DetectionReport:
    """Compute the metrics over all photos. At least one true box is needed."""
    own, coco = matches.class_figures(), coco_figures(matches)
    counts = {number: sum(int((truths == number).sum()) for truths in matches.truths) for number in own.classes}
    per_class = {
        matches.names[number]: {
            "boxes": counts[number],
            "map50": float(own.ap[n, 0]),
            "map50_95": float(own.ap[n].mean()),
            "precision": float(own.precision[n]),
            "recall": float(own.recall[n]),
            "f1": float(own.f1[n]),
            "coco_ap": coco.class_ap(number),
        }
        for n, number in enumerate(own.classes)
    }
    by_size = {
        name: {
            "boxes": coco.in_area(name),
            "coco_ap": coco.ap(name),
            "coco_ap50": coco.ap(name, 0.5),
            "coco_ap75": coco.ap(name, 0.75),
            "coco_ar100": coco.ar(name),
        }
        for name in SIZES
    }
    return DetectionReport(
        images=len(matches.truths),
        boxes=sum(counts.values()),
        map50=float(own.ap[:, 0].mean()),
        map50_95=float(own.ap.mean()),
        precision=float(own.precision.mean()),
        recall=float(own.recall.mean()),
        f1=float(own.f1.mean()),
        confidence=own.confidence,
        coco_ap=coco.ap(),
        coco_ap50=coco.ap(iou=0.5),
        coco_ap75=coco.ap(iou=0.75),
        coco_ap_small=coco.ap("small"),
        coco_ap_medium=coco.ap("medium"),
        coco_ap_large=coco.ap("large"),
        coco_ar100=coco.ar(),
        per_class=per_class,
        by_size=by_size,
        curves={matches.names[number]: coco.curve(number).tolist() for number in own.classes},
        confusion=confusion_matrix(matches, own.confidence, SAME),
        mistakes=count_mistakes(find_mistakes(matches, own.confidence)),
    )


def figure(value: float | None) -> str:
    """Format a number with three digits, or a dash if there is nothing to measure."""
    return "–" if value is None else f"{value:.3f}"


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(map(markdown_cell, line))} |" for line in lines]
