"""Test how far two detectors, or two encoders, agree: answers that differ, by hand, and the limits
that judge them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from fashionrec.detector.decode import Detections
from fashionrec.detector.training.agreement import compare, speed
from fashionrec.detector.training.gate import BOUNDS, SourceDetector, check, judge, map_loss, open_for_test
from fashionrec.detector.training.pairing import Pairs
from fashionrec.embedder.training import gate
from fashionrec.errors import Refused
from fashionrec.models.bundle import Bundle

Row = tuple[list[float], float, int]


def detections(rows: Sequence[Row]) -> Detections:
    boxes = np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4)
    return Detections(
        boxes, np.array([score for _, score, _ in rows], np.float32), np.array([n for _, _, n in rows], int)
    )


class Told:
    """A detector that answers what it is told for a photo, which its first pixel names;

    ``asked`` are its calls.
    """

    def __init__(self, answers: Sequence[Sequence[Row]], alone: int = 0) -> None:
        self.answers, self.alone = answers, alone
        self.asked: list[tuple[int, float, bool]] = []

    def predict(
        self, photos: Sequence[Image.Image], *, conf: float = 0.0, prepared_already: bool = False
    ) -> list[Detections]:
        self.asked.append((len(photos), conf, prepared_already))
        found = []
        for photo in photos:
            rows = [row for row in self.answers[photo.getpixel((0, 0))] if row[1] > conf]  # type: ignore[index]
            found.append(detections(rows * (2 if self.alone and len(photos) == 1 else 1)))
        return found


def photos(count: int) -> list[Image.Image]:
    return [Image.new("L", (4, 4), n) for n in range(count)]


A, B, FAR = [0.0, 0, 10, 4], [0.0, 0, 8, 4], [50.0, 50, 60, 54]


def test_what_one_finds_and_the_other_does_not_counts_both_ways() -> None:
    source = Told([[(A, 0.9, 1), (FAR, 0.8, 1)], [(A, 0.6, 2)], [], [(A, 0.3, 0)]])
    exported = Told([[(B, 0.7, 1)], [(A, 0.6, 3)], [(FAR, 0.9, 0)], [(A, 0.2, 0)]])
    figures = compare(source, exported, photos(4))
    # of the source's four: the first (IoU .8, .2 apart), and the last, of which .2 is sure enough;
    # of the exported one's three: the first
    assert figures == {
        "photos_compared": 4,
        "detections_source": 4,
        "detections_exported": 3,
        "detections_exported_alone": 3,
        "found_by_both": pytest.approx(3 / 7),
        "iou_mean": pytest.approx((0.8 + 1.0 + 0.8) / 3),
        "score_difference_mean": pytest.approx((0.2 + 0.1 + 0.2) / 3),
    }
    assert compare(Told([[]] * 2), Told([[]] * 2), photos(2))["found_by_both"] == 0.0


def test_both_are_asked_in_batches_and_one_of_them_alone() -> None:
    rows: list[list[Row]] = [[(A, 0.9, 1)]] * 19
    source, exported = Told(rows), Told(rows, alone=1)
    figures = compare(source, exported, photos(19), prepared=True)
    assert source.asked == [(8, 0.125, True), (8, 0.125, True), (3, 0.125, True)]
    assert exported.asked == [*source.asked, *[(1, 0.25, True)] * 19]
    assert (figures["detections_exported"], figures["detections_exported_alone"]) == (19, 38)
    assert figures["found_by_both"] == 1.0


def test_of_two_that_overlap_the_nearer_one_is_compared() -> None:
    figures = compare(Told([[(A, 0.9, 1)]]), Told([[(B, 0.5, 1), (A, 0.8, 1), (FAR, 0.85, 1)]]), photos(1))
    assert figures["found_by_both"] == pytest.approx(3 / 4)
    # the source's with the second (1, .1); back: the first (.8, .4) and the second (1, .1)
    assert figures["iou_mean"] == pytest.approx((1 + 0.8 + 1) / 3)
    assert figures["score_difference_mean"] == pytest.approx((0.1 + 0.4 + 0.1) / 3)


def test_half_an_overlap_is_the_least() -> None:
    half, less = [0.0, 0, 5, 4], [0.0, 0, 4.9, 4]
    assert compare(Told([[(A, 0.9, 1)]]), Told([[(half, 0.9, 1)]]), photos(1))["found_by_both"] == 1.0
    assert compare(Told([[(A, 0.9, 1)]]), Told([[(less, 0.9, 1)]]), photos(1))["found_by_both"] == 0.0


AGREED: dict[str, Any] = {
    "photos_compared": 20,
    "detections_source": 40,
    "detections_exported": 41,
    "detections_exported_alone": 41,
}


@pytest.mark.parametrize("precision", sorted(BOUNDS))
def test_each_figure_has_its_limit(precision: str) -> None:
    limits = BOUNDS[precision]
    good = {"found_by_both": limits.min_found, "iou_mean": limits.iou, "score_difference_mean": limits.score}
    judge(precision, {**AGREED, **good}, None, 0.0)
    for name, step, words in (
        ("found_by_both", -1e-6, "are found by both"),
        ("iou_mean", -1e-6, "their mean IoU is"),
        ("score_difference_mean", 1e-6, "their scores differ by"),
    ):
        with pytest.raises(Refused, match=words) as caught:
            judge(precision, {**AGREED, **good, name: good[name] + step}, None, 0.0)
        assert str(caught.value).count(";") == 0
    with pytest.raises(Refused, match="batches find 41 garments, their photos alone 40"):
        judge(precision, {**AGREED, **good, "detections_exported_alone": 40}, None, 0.0)


def test_as_much_is_lost_as_is_tolerated_and_no_more() -> None:
    loss = {"points_lost": 0.5, "map50_95_source": 0.75, "map50_95": 0.745}
    judge("fp16", None, loss, 0.5)
    with pytest.raises(Refused) as caught:
        judge("fp16", None, loss, 0.25)
    said = "it loses 0.50 points of mAP50-95 (75.00 to 74.50; tolerance 0.25)"
    assert str(caught.value) == f"the fp16 export does not match its source: {said}"


def test_a_source_that_finds_little_is_no_proof() -> None:
    good = {"found_by_both": 1.0, "iou_mean": 1.0, "score_difference_mean": 0.0}
    judge("fp16", {**AGREED, **good, "detections_source": 10}, None, 0.0)
    with pytest.raises(Refused, match="finds 9 garments in 20 photos: too few to decide"):
        judge("fp16", {**AGREED, **good, "detections_source": 9}, None, 0.0)


def drawn() -> list[Image.Image]:
    """Photos in which the tiny detector sees garments, surely and less so."""
    colours = [("red", "blue"), ("red", "white"), ("#c04040", "#4040c0")]
    found = []
    for left, right in colours:
        photo = Image.new("RGB", (90, 60), right)
        photo.paste(left, (0, 0, 45, 60))
        found.append(photo)
    return found


def test_an_export_is_compared_with_its_source_anchor_by_anchor() -> None:
    bundle = Bundle.open(TINY / "detector")
    own = open_for_test(bundle)

    def reference(boxes: float = 0.0, scores: float = 0.0) -> Any:
        def answer(photo: Image.Image) -> np.ndarray:
            values = own.raw([photo])[0].copy()
            values[:4] += boxes
            values[4:] += scores
            return values

        return answer

    figures = check(reference(0.4, 0.0009), bundle, drawn())
    assert figures == {
        "photos": 3,
        "score_difference_max": pytest.approx(0.0009, abs=1e-6),
        "box_difference_px_max": pytest.approx(0.4, abs=1e-5),
        "anchors_compared": 5,
        "batch_difference_max": pytest.approx(0.0, abs=1e-5),
        "detections": 5,
        "detections_alone": 5,
    }
    with pytest.raises(Refused, match=r"boxes differ by 0\.6 pixels"):
        check(reference(0.6), bundle, drawn())
    with pytest.raises(Refused, match=r"scores differ by 0\.0012"):
        check(reference(0.0, 0.0012), bundle, drawn())
    with pytest.raises(Refused, match=r"returns \[9, 2\], its source \[8, 2\]; expected 9 rows"):
        check(lambda photo: own.raw([photo])[0][:8], bundle, drawn())


class RowsBundle:
    """A bundle of a head that answers rows of boxes: the same ones to every photo."""

    kind, path = "detector", "rows"

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows.astype(np.float32)
        self.spec = Bundle.open(TINY / "detector").spec | {"head": "end2end"}

    def session(self, graph: str, **_: Any) -> RowsBundle:
        return self

    def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        (values,) = inputs.values()
        return [np.stack([self.rows] * len(values))]


def check_rows(scores: Sequence[float], pixels: float = 0.0, score: float = 0.0) -> dict[str, Any]:
    """Two photos' figures, where the export answers the source's rows in another order, and a
    little off.
    """
    theirs = np.array([[10.0 * n, 20, 10 * n + 9, 40, value, n % 3] for n, value in enumerate(scores)], np.float32)
    ours = theirs[::-1] + np.array([0, 0, 0, pixels, score, 0], np.float32)
    return check(lambda photo: theirs, RowsBundle(ours), drawn()[:2])  # type: ignore[arg-type]


def test_an_export_that_answers_rows_is_compared_with_its_source_box_by_box() -> None:
    scores = [0.9, 0.3, 0.0502, 0.048]
    assert check_rows(scores, 0.4, 0.0009) == {
        "photos": 2,
        "score_difference_max": pytest.approx(0.0009, abs=1e-6),
        "box_difference_px_max": pytest.approx(0.4, abs=1e-5),
        "boxes_compared": 12,  # of each photo the three above .05, from either side
        "boxes_alone": 0,
        "detections": 4,
        "detections_alone": 4,
    }
    with pytest.raises(Refused, match="12 boxes have no counterpart"):
        check_rows(scores, pixels=0.6)
    with pytest.raises(Refused, match="12 boxes have no counterpart"):
        check_rows(scores, score=0.0012)


def test_of_a_source_that_learnt_little_boxes_of_half_its_surest_score_are_compared() -> None:
    assert check_rows([0.06, 0.035, 0.025])["boxes_compared"] == 8  # above .03
    assert check_rows([0.03, 0.014, 0.011])["boxes_compared"] == 4  # above .015


def test_the_input_is_compared_in_grey_levels() -> None:
    bundle = Bundle.open(TINY / "detector")
    own = open_for_test(bundle)

    def pixels(levels: float) -> Any:
        return lambda photo: own.inputs([photo])[0] + levels / 255

    def raw(photo: Image.Image) -> np.ndarray:
        return own.raw([photo])[0]

    assert check(raw, bundle, drawn(), pixels(2.5))["input_difference_max"] == pytest.approx(2.5, abs=1e-3)
    with pytest.raises(Refused, match=r"inputs differ by 3\.5 grey levels"):
        check(raw, bundle, drawn(), pixels(3.5))


def test_a_source_is_asked_through_the_serving_plane() -> None:
    bundle = Bundle.open(TINY / "detector")
    asked: list[tuple[int, int]] = []

    def reference(square: Image.Image) -> np.ndarray:
        asked.append(square.size)
        return open_for_test(bundle).raw([square])[0]

    found = SourceDetector(bundle, reference).predict(drawn())
    assert asked == [(64, 64)] * 3
    theirs = open_for_test(bundle).predict(drawn())
    assert [one.boxes.tolist() for one in found] == [one.boxes.tolist() for one in theirs]
    assert [one.class_ids.tolist() for one in found] == [one.class_ids.tolist() for one in theirs]


def test_the_limits_are_those_that_the_documents_tell() -> None:
    assert {name: (one.min_found, one.iou, one.score) for name, one in BOUNDS.items()} == {
        "fp16": (0.99, 0.99, 0.005),
        "int8": (0.95, 0.93, 0.035),
    }


def test_a_loss_of_map_is_what_the_source_has_more() -> None:
    figures = {"a": (0.5, 0.7, 30), "b": (0.48, 0.71, 30)}

    def measure(finder: Any) -> dict[str, Any]:
        return dict(zip(("map50_95", "map50", "images"), figures[finder], strict=True))

    loss = map_loss("a", "b", measure)  # type: ignore[arg-type]
    assert loss == {
        "photos_labelled": 30,
        "map50_95_source": 0.5,
        "map50_95": 0.48,
        "map50_source": 0.7,
        "map50": 0.71,
        "points_lost": pytest.approx(2.0),
    }
    judge("int8", None, loss, 2.01)
    with pytest.raises(Refused, match=r"loses 2\.00 points of mAP50-95 \(50\.00 to 48\.00; tolerance 1\.9\)"):
        judge("int8", None, loss, 1.9)
    judge("int8", None, map_loss("b", "a", measure), 0.0)  # type: ignore[arg-type]


def test_half_precision_needs_room_for_twice_what_was_measured() -> None:
    judge("fp16", None, None, 0.0, largest=32752.0)
    with pytest.raises(Refused, match="half precision ends at 65504"):
        judge("fp16", None, None, 0.0, largest=32753.0)


def test_boxes_without_their_like_are_counted_and_the_differences_are_of_the_nearest() -> None:
    pairs = Pairs()
    source = detections([(A, 0.9, 1), (FAR, 0.8, 1), (A, 0.04, 1)])
    ours = detections([([0.0, 0.25, 10, 4], 0.9005, 1), ([0.0, 0, 10.4, 4], 0.9, 1), (FAR, 0.8, 2)])
    pairs.add(source, ours, 0.05, 0.5, 0.001)
    # the first is .25 pixels and .0005 from one, .4 pixels and 0 from another: .5 + .5 against .8
    # of what may be
    assert (pairs.boxes, pairs.alone) == (5, 2)
    assert pairs.pixels == pytest.approx(0.4, abs=1e-5)
    assert pairs.score == pytest.approx(0.0005, abs=1e-6)
    pairs.add(detections([]), detections([(A, 0.5, 0)]), 0.05, 0.5, 0.001)
    assert (pairs.boxes, pairs.alone) == (6, 3)


def test_each_detector_is_timed_at_least_three_times() -> None:
    source, exported = Told([[]]), Told([[]])
    figures = speed(source, exported, photos(1)[0], seconds=0.0)
    assert (len(source.asked), len(exported.asked)) == (4, 4)
    assert set(figures) == {"fp32_ms", "ms", "ratio"}


def ring(degrees: Sequence[float]) -> np.ndarray:
    angles = np.radians(np.array(degrees, float))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_rank_of_another_picture_of_the_product_in_another_photo() -> None:
    # thirty times, far apart in other dimensions, three pictures: two of one product, one of
    # another between or beyond them
    def world(between: float) -> np.ndarray:
        block = ring([0, 20, between])
        values = np.zeros((90, 60), np.float32)
        for n in range(30):
            values[3 * n : 3 * n + 3, 2 * n : 2 * n + 2] = block
        return values

    names = [name for n in range(30) for name in (f"p{n}", f"p{n}", None)]
    photos = [f"{n}" for n in range(90)]
    figures = gate.compare(world(60), world(5), products=names, photos=photos)
    # beyond: each finds the other first. between: of the first (0, others at 5 and 20) second, of
    # the second (20: 5 and 0) second
    assert (figures.pictures, figures.labelled) == (90, 60)
    assert (figures.mrr_source, figures.mrr) == (1.0, 0.5)
    assert figures.points_lost == pytest.approx(50)
    assert figures.cosine_least == pytest.approx(np.cos(np.radians(55)), abs=1e-5)
    assert figures.cosine_mean == pytest.approx((2 + np.cos(np.radians(55))) / 3, abs=1e-5)
    back = gate.compare(world(5), world(60), products=names, photos=photos)
    assert back.points_lost == pytest.approx(-50)
    same_photo = [f"{n // 3}" for n in range(90)]
    assert gate.compare(world(60), world(5), products=names, photos=same_photo).labelled == 0
    few = gate.compare(world(60)[:72], world(5)[:72], products=names[:72], photos=photos[:72])
    assert (few.labelled, few.mrr) == (48, None)  # fewer than fifty


def test_the_share_of_the_ten_nearest_that_both_have() -> None:
    degrees = np.arange(24) * 2.0
    moved = degrees.copy()
    moved[23] = 1.0  # the last one is among the first now
    figures = gate.compare(ring(degrees), ring(moved))
    shares = []
    for n in range(24):
        near = [
            {m for _, m in sorted((abs(line[m] - line[n]), m) for m in range(24) if m != n)[:10]}
            for line in (degrees, moved)
        ]
        shares.append(len(near[0] & near[1]) / 10)
    assert figures.overlap == pytest.approx(np.mean(shares), abs=0.03)
    assert 0.7 < figures.overlap < 0.97


def test_the_gate_of_an_encoder_by_its_figures() -> None:
    tolerance = gate.Tolerance(points=0.5, overlap=0.9)
    plain: dict[str, Any] = {"cosine_mean": 1.0, "cosine_least": 1.0, "mrr_source": None, "mrr": None, "labelled": 0}
    gate.judge("int8", gate.Figures(pictures=20, overlap=0.9, **plain), tolerance)
    with pytest.raises(Refused, match="19 crops are too few"):
        gate.judge("int8", gate.Figures(pictures=19, overlap=1.0, **plain), tolerance)
    with pytest.raises(Refused, match=r"89\.9% of the 10 nearest are the same \(minimum 90\.0%\)"):
        gate.judge("int8", gate.Figures(pictures=20, overlap=0.899, **plain), tolerance)
    known = {**plain, "labelled": 60, "mrr_source": 0.75}
    gate.judge("int8", gate.Figures(pictures=60, overlap=0.81, **{**known, "mrr": 0.746}), tolerance)
    with pytest.raises(Refused, match=r"minimum 80\.0%"):
        gate.judge("int8", gate.Figures(pictures=60, overlap=0.79, **{**known, "mrr": 0.746}), tolerance)
    with pytest.raises(Refused, match=r"loses 0\.60 points of MRR \(tolerance 0\.5\) on 60 crops"):
        gate.judge("int8", gate.Figures(pictures=60, overlap=1.0, **{**known, "mrr": 0.744}), tolerance)
