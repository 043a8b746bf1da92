"""Decide whether a fine-tuned detector may replace the original one, from measurements on two test
sets.

The old test set may lose at most a tolerance, the new one must gain. A paired bootstrap over the
test photos gives the certainty: better, worse, or too few photos to know, and then how many are
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.common.text import markdown_cell, plural
from fashionrec.evaluation.detection.bootstrap import Spread, paired_spreads
from fashionrec.evaluation.detection.confusion import confusion_matrix
from fashionrec.evaluation.detection.matches import Matches
from fashionrec.evaluation.detection.report import detection_report
from fashionrec.labels.data_yaml import read_data_yaml

#: Confidence from which a detection counts as seen; fewer garments than LEAST_BOXES are
#: inconclusive.
SURE, LEAST_BOXES = 0.3, 20
METRICS = ("map50", "map50_95", "precision", "recall")
#: Measures a checkpoint on a split of a dataset.
Match = Callable[[Path, Path, str], Matches]


def compare(
    before: Path,
    after: Path,
    sets: Mapping[str, Path],
    match: Match,
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, dict[str, Spread]]]:
    """Measure both weights on every test set (its valid split if it has no test), with intervals;
    return a document and the spreads.
    """
    document: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "splits": {}, "photos": {}}
    document |= {"before": {}, "after": {}, "rows": []}
    spreads: dict[str, dict[str, Spread]] = {}
    for name, data in sets.items():
        split = "test" if "test" in read_data_yaml(data).splits else "valid"
        first, second = match(before, data, split), match(after, data, split)
        document["splits"][name], document["photos"][name] = split, len(first.truths)
        if name == "new":
            document["disagreement"] = disagreement(first)
        was, now = detection_report(first).to_dict(), detection_report(second).to_dict()
        document["before"][name], document["after"][name] = _figures(was), _figures(now)
        spreads[name] = paired_spreads(first, second, resamples=resamples, seed=seed)
        for metric, spread in spreads[name].items():
            old, new = _value(was, metric), _value(now, metric)
            low, high = spread.interval(confidence)
            row = {"test_set": name, "metric": metric, "before": old, "after": new, "difference": new - old}
            document["rows"].append({**row, "low": low, "high": high})
    return document, spreads


def decide(
    spreads: Mapping[str, Spread], tolerance: float, confidence: float, *, certain: bool = False
) -> dict[str, Any]:
    """Decide from spreads of mAP50-95 per test set. ``tolerance`` is in points (hundredths) that
    ``old`` may lose.

    ``outcome`` is better (certainly, the new set gains and the old one keeps), worse (certainly,
    one of the two does not) or unknown. ``promoted`` requires measured figures within both rules,
    and an outcome that is not worse; with ``certain``, an outcome of better. Without an old test
    set the loss is unknown, and nothing is promoted.
    """
    limits = {"new": 0.0, "old": -tolerance / 100}
    verdicts, reasons, needed = {}, [], {}
    for name, spread in spreads.items():
        low, high = spread.interval(confidence)
        limit = limits[name]
        verdicts[name] = "kept" if low > limit else "broken" if high <= limit else "unknown"
        if verdicts[name] == "unknown":
            needed[name] = spread.photos_to_tell(limit, confidence)
        reasons.append(_reason(name, spread, low, high, tolerance, verdicts[name], needed.get(name)))
    measured = {
        name: spread.measured > 0 if name == "new" else spread.measured >= limits[name]
        for name, spread in spreads.items()
    }
    known = "old" in spreads
    if not known:
        reasons.append("without an old test set, the loss is unknown")
    if "broken" in verdicts.values():
        outcome = "worse"
    elif known and set(verdicts.values()) == {"kept"}:
        outcome = "better"
    else:
        outcome = "unknown"
    promoted = known and all(measured.values()) and outcome != "worse" and (outcome == "better" or not certain)
    if not promoted and known and all(measured.values()) and certain and outcome == "unknown":
        reasons.append("finetune.certain requires enough test photos")
    return {
        "outcome": outcome,
        "promoted": promoted,
        "reasons": reasons,
        "change_points": {name: spread.measured * 100 for name, spread in spreads.items()},
        "photos_needed": needed,
        "tolerance_points": tolerance,
    }


def disagreement(matches: Matches) -> dict[str, Any]:
    """Return how often labels contradict a detector.

    Among garments in both (IoU above one half, confidence above :data:`SURE`): the share with
    another class, and the most frequent pair.
    """
    confusion = confusion_matrix(matches, SURE, 0.5)
    seen = confusion.counts[:-1, :-1]
    boxes = int(seen.sum())
    share = float(1 - np.trace(seen) / boxes) if boxes else 0.0
    pairs = confusion.confused(1)
    return {"boxes": boxes, "share": share, "mostly": list(pairs[0][:3]) if pairs else None}


def contradiction(decision: dict[str, Any], found: Mapping[str, Any], limit: float) -> None:
    """Prevent promotion if labels of the new set contradict the confident detections of the old
    detector.

    Metrics mean nothing then, especially good ones: wrong classes look like this, and so do
    permuted class names.
    """
    if found["boxes"] < LEAST_BOXES or found["share"] <= limit:
        return
    true, seen, count = found["mostly"]
    decision["promoted"], decision["contradicted"] = False, True
    decision["reasons"].append(
        f"the new set's labels contradict the old detector: of {plural(found['boxes'], 'common garment')},"
        f" {found['share']:.0%} have another class, mostly {seen} labelled {true} ({plural(count, 'time')});"
        " is the order of the class names right?"
    )


def losses(document: Mapping[str, Any]) -> list[str]:
    """List what fell and where, largest first: ``old: map50_95, skirt -3.10 points``. Falls within
    their interval are skipped.
    """
    fell = [row for row in document["rows"] if row["difference"] < 0 and row["high"] < 0]
    fell.sort(key=lambda row: float(row["difference"]))
    return [f"{row['test_set']}: {row['metric']} {row['difference'] * 100:+.2f} points" for row in fell]


def to_markdown(document: Mapping[str, Any]) -> str:
    """Return the before/after table, the decision, and its reasons."""
    share = f"{document['confidence']:.0%} interval"
    lines = [
        f"| test set | metric | before | after | difference | {share} |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in document["rows"]:
        figures = f"{row['before']:.3f} | {row['after']:.3f} | {row['difference']:+.3f}"
        lines.append(
            f"| {row['test_set']} | {markdown_cell(row['metric'])} | {figures} | {row['low']:+.3f} to {row['high']:+.3f} |"
        )
    lines.append("")
    lines += [
        f"- {name}: {plural(count, 'photo')} ({document['splits'][name]})" for name, count in document["photos"].items()
    ]
    return "\n".join(
        [
            *lines,
            "",
            headline(document["decision"]),
            *(f"- {markdown_cell(r)}" for r in document["decision"]["reasons"]),
            "",
        ]
    )


def headline(decision: Mapping[str, Any]) -> str:
    """Return the decision in one line."""
    words = {
        "better": "better",
        "worse": "worse",
        "unknown": "there are too few test photos to know",
    }[decision["outcome"]]
    if decision.get("contradicted"):
        words = "its labels contradict the old detector"
    return f"{'promoted' if decision['promoted'] else 'not promoted'}: {words}"


def _reason(
    name: str, spread: Spread, low: float, high: float, tolerance: float, verdict: str, needed: int | None
) -> str:
    points = spread.measured * 100
    text = f"the {name} test set {'gained' if points > 0 else 'lost'} {abs(points):.2f} points of mAP50-95"
    text += f" ({low * 100:+.2f} to {high * 100:+.2f}"
    text += ")" if name == "new" else f"; tolerance {tolerance:g})"
    if verdict == "unknown" and needed is not None:
        of = plural(spread.photos, "photo is", "photos are")
        text += f"; {of} too few to be certain, about {needed:,} would do"
    return text


def _figures(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("images", "boxes", *METRICS, "f1", "per_class")}


def _value(report: Mapping[str, Any], metric: str) -> float:
    if metric in METRICS:
        return float(report[metric])
    values = report["per_class"][metric.partition(", ")[2]]
    return float(values["map50_95"])
