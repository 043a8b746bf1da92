"""Test whether an export still is the detector it was made from.

The float32 graph is compared with its checkpoint output by output (:func:`check`). A graph in half
precision or 8 bits differs in every output, so it is compared with the float32 one by its
detections on real photos, and by the one evaluator if there are labels (:func:`judge`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fashionrec.common.text import plural
from fashionrec.detector.decode import decoder_for
from fashionrec.detector.detect import Detector
from fashionrec.detector.training.agreement import CONF
from fashionrec.detector.training.pairing import Pairs
from fashionrec.detector.training.precision import HALF_MAX, HALF_ROOM
from fashionrec.errors import Refused
from fashionrec.models.bundle import Bundle

#: Measures a detector on labelled photos: at least ``map50_95`` and ``map50``, 0 to 1, and
#: ``images``.
Measure = Callable[[Any], Mapping[str, Any]]

#: Maximum differences of an export from its source: raw scores (0..1), and boxes in pixels of the
#: input, above a minimum score.
MAX_SCORE = 1e-3
MAX_PIXELS = 0.5
#: Maximum grey levels by which inputs may differ (two resizers round differently), and the share of
#: boxes without a counterpart.
MAX_GREY = 3.0
MAX_ALONE = 0.01
_MATTERS = 0.05  # boxes of anchors below this score are noise
_GRIDS = frozenset({"yolo", "efficientdet"})  # heads with a place for each anchor
_LEAST = 10  # fewer detections are inconclusive


@dataclass(frozen=True)
class Bounds:
    """Limits for detections: minimum share found by both, their minimum mean IoU, and their maximum
    mean difference of scores.
    """

    min_found: float
    iou: float
    score: float


#: For int8, measured on detectors trained here (docs/detectors.md): those that lose less than a
#: point of mAP50-95 keep .99, .95 and .022; full 8-bit weights on a CPU without VNNI, which lose
#: more, .98, .91 and .042; ranges of a wrong calibration .3 to .8, .8 and .16.
BOUNDS = {"fp16": Bounds(0.99, 0.99, 0.005), "int8": Bounds(0.95, 0.93, 0.035)}
_REMEDY = {
    "fp16": "export it as fp32",
    "int8": "calibrate on more photos like those of your queries (--images, --data), or export it as fp32",
}
_MORE = "give more photos with garments that it finds (--images, --data)"


class SourceDetector(Detector):
    """A checkpoint behind the serving plane's preprocessing, decoding and NMS."""

    def __init__(self, bundle: Bundle, reference: Callable[[Image.Image], np.ndarray]) -> None:
        super().__init__(bundle, conf=CONF, iou=0.6, max_garments=100, device="cpu")
        self._reference = reference

    def _answers(self, squares: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._reference(Image.fromarray(square)) for square in squares]


def open_for_test(bundle: Bundle) -> Detector:
    """Open a bundle's detector for the test."""
    return Detector(bundle, conf=CONF, iou=0.6, max_garments=100, device="cpu")


def check(
    reference: Callable[[Image.Image], np.ndarray],
    bundle: Bundle,
    photos: Sequence[Image.Image],
    pixels: Callable[[Image.Image], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Compare an export with its source through the serving code; return the figures. Raises
    :class:`Refused`.

    The source gets its own library's letterboxed input, one photo at a time, so that a wrong scale,
    swapped channels, a wrong letterbox and a batch that loses detections all show. ``pixels`` is
    that input: see :class:`Graph`.
    """
    detector = open_for_test(bundle)
    figures: dict[str, Any] = {"photos": len(photos)}
    if pixels is not None:
        figures["input_difference_max"] = same_input(detector, photos, pixels)
    together, alone = detector.raw(photos), [detector.raw([photo])[0] for photo in photos]
    sources = [reference(photo) for photo in photos]
    if detector.spec.head in _GRIDS:
        figures |= _anchor_by_anchor(bundle, sources, together, alone)
    else:
        figures |= _box_by_box(bundle, sources, together)
    figures["detections"] = sum(map(len, detector.predict(photos)))
    figures["detections_alone"] = sum(len(detector.predict([photo])[0]) for photo in photos)
    _within_limits(figures)
    return figures


def _anchor_by_anchor(
    bundle: Bundle, sources: Sequence[np.ndarray], answers: Sequence[np.ndarray], lonely: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Compare heads with a place for each anchor: [4 + classes, anchors] per photo."""
    source, together, alone = np.stack(sources), np.stack(answers), np.stack(lonely)
    rows = 4 + len(bundle.spec["labels"])
    if source.shape != together.shape or together.shape[1] != rows:
        raise Refused(
            f"the export returns {list(together.shape[1:])}, its source {list(source.shape[1:])}; expected {plural(rows, 'row')}"
        )
    best = source[:, 4:].max(axis=1)
    matters = best > _least(best)
    boxes = np.abs(source[:, :4] - together[:, :4]).max(axis=1)
    return {
        "score_difference_max": float(np.abs(source[:, 4:] - together[:, 4:]).max()),
        "box_difference_px_max": float(boxes[matters].max(initial=0.0)),
        "anchors_compared": int(matters.sum()),
        "batch_difference_max": float(np.abs(together - alone).max()),
    }


def _box_by_box(bundle: Bundle, sources: Sequence[np.ndarray], answers: Sequence[np.ndarray]) -> dict[str, Any]:
    """Compare heads that return any number of box rows, in an order that rounding may change."""
    decode, pairs = decoder_for(str(bundle.spec["head"])), Pairs()
    for source, answer in zip(sources, answers, strict=True):
        one, other = decode(source, -1.0, True), decode(answer, -1.0, True)
        pairs.add(one, other, _least(one.scores), MAX_PIXELS, MAX_SCORE)
    return {
        "score_difference_max": pairs.score,
        "box_difference_px_max": pairs.pixels,
        "boxes_compared": pairs.boxes,
        "boxes_alone": pairs.alone,
    }


def _least(scores: np.ndarray) -> float:
    """Return the score from which boxes are compared: confident ones count, however little was
    learned.
    """
    return min(_MATTERS, float(scores.max(initial=0.0)) / 2)


def _within_limits(figures: Mapping[str, Any]) -> None:
    told = [
        ("scores differ by {:.2g}", figures["score_difference_max"], MAX_SCORE),
        ("boxes differ by {:.2g} pixels", figures["box_difference_px_max"], MAX_PIXELS),
        ("inputs differ by {:.2g} grey levels", figures.get("input_difference_max", 0.0), MAX_GREY),
        (
            "{:.0f} boxes have no counterpart",
            figures.get("boxes_alone", 0),
            MAX_ALONE * figures.get("boxes_compared", 0),
        ),
    ]
    wrong = [words.format(value) for words, value, most in told if not value <= most]
    batch, alone = figures["detections"], figures["detections_alone"]
    if batch != alone:
        wrong.append(f"a batch finds {plural(batch, 'garment')}, the same photos alone {alone}")
    if wrong:
        raise Refused(f"the export does not match its source: {'; '.join(wrong)}", hint="please report this model")


def same_input(detector: Detector, photos: Sequence[Image.Image], pixels: Callable[[Image.Image], np.ndarray]) -> float:
    """Return the maximum difference in grey levels between the serving code's input and the
    source's own.
    """
    std = np.array(detector.spec.std or (1.0, 1.0, 1.0))[:, None, None]
    theirs = np.stack([pixels(photo) for photo in photos])
    return float((np.abs(detector.inputs(photos) - theirs) * std * 255).max())


def judge(
    precision: str,
    agreement: Mapping[str, Any] | None,
    loss: Mapping[str, Any] | None,
    tolerance: float,
    largest: float = 0.0,
) -> None:
    """Refuse an export by its figures: the ``agreement`` of detections (:func:`agreement.compare`),
    and the ``loss`` of mAP (:func:`map_loss`) if measured; both must pass.

    ``tolerance`` is in points of mAP50-95; ``largest`` is the largest activation of a graph for
    half precision. Raises :class:`Refused` with the figures that fail.
    """
    wrong = []
    if largest > HALF_MAX / HALF_ROOM:
        wrong.append(f"activations reach {largest:.3g}, but half precision ends at {HALF_MAX:.0f}")
    if agreement and agreement["detections_exported"] != agreement["detections_exported_alone"]:
        wrong.append(
            f"batches find {plural(agreement['detections_exported'], 'garment')}, their photos alone"
            f" {agreement['detections_exported_alone']}"
        )
    if loss is not None and not loss["points_lost"] <= tolerance:
        wrong.append(
            f"it loses {loss['points_lost']:.2f} points of mAP50-95 ({loss['map50_95_source'] * 100:.2f} to"
            f" {loss['map50_95'] * 100:.2f}; tolerance {tolerance:g})"
        )
    few = agreement is not None and agreement["detections_source"] < _LEAST
    if agreement and few:
        found = (
            f"{plural(agreement['detections_source'], 'garment')} in {plural(agreement['photos_compared'], 'photo')}"
        )
        wrong.append(f"its source finds {found}: too few to decide")
    elif agreement:
        wrong += _disagreements(BOUNDS[precision], agreement)
    if wrong:
        raise Refused(
            f"the {precision} export does not match its source: {'; '.join(wrong)}",
            hint=_MORE if few else _REMEDY.get(precision, "please report this model"),
        )


def map_loss(source: Detector, exported: Detector, measure: Measure) -> dict[str, Any]:
    """Measure the mAP of both on the same labelled photos by the same evaluator, and the points of
    mAP50-95 lost (gains are negative).
    """
    before, after = measure(source), measure(exported)
    return {
        "photos_labelled": int(after["images"]),
        "map50_95_source": float(before["map50_95"]),
        "map50_95": float(after["map50_95"]),
        "map50_source": float(before["map50"]),
        "map50": float(after["map50"]),
        "points_lost": (float(before["map50_95"]) - float(after["map50_95"])) * 100,
    }


def _disagreements(bounds: Bounds, figures: Mapping[str, Any]) -> list[str]:
    both, iou, score = figures["found_by_both"], figures["iou_mean"], figures["score_difference_mean"]
    told = [
        (f"{both:.1%} of the garments are found by both (minimum {bounds.min_found:.0%})", both >= bounds.min_found),
        (f"their mean IoU is {iou:.3f} (minimum {bounds.iou:g})", iou >= bounds.iou),
        (f"their scores differ by {score:.3f} (maximum {bounds.score:g})", score <= bounds.score),
    ]
    return [words for words, good in told if not good]
