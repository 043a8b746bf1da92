"""The detector's serving plane: letterbox, decoding, NMS, batches."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tampered import Ask, Inputs, tampered

from fashionrec.config import Config
from fashionrec.detector.decode import Detections, decode_end2end, decode_yolo, decoder_for, non_maximum_suppression
from fashionrec.detector.detect import Detector, one_class_each
from fashionrec.detector.efficientdet import MOST, anchors_of, placed_on
from fashionrec.detector.preprocess import batch_input, letterbox
from fashionrec.detector.resize import resize_linear
from fashionrec.detector.training.pairing import Pairs
from fashionrec.errors import ModelError
from fashionrec.models.bundle import Bundle


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([32, 64, 160, 640]), st.data())
def test_boxes_come_back_from_the_letterbox(width: int, height: int, side: int, data: st.DataObject) -> None:
    square, placed = letterbox(Image.new("RGB", (width, height)), side)
    assert square.shape == (side, side, 3)
    x1, x2 = sorted(data.draw(st.lists(st.floats(0, width), min_size=2, max_size=2)))
    y1, y2 = sorted(data.draw(st.lists(st.floats(0, height), min_size=2, max_size=2)))
    inside = np.array([[x1, y1, x2, y2]]) * placed.scale + [placed.left, placed.top] * 2
    assert np.allclose(placed.restore(inside.astype(np.float32)), [[x1, y1, x2, y2]], atol=max(width, height) * 1e-4)


def test_the_letterbox_keeps_the_shape_and_pads_with_grey() -> None:
    square, placed = letterbox(Image.new("RGB", (200, 100), "red"), 100)
    assert (placed.scale, placed.left, placed.top) == (0.5, 0, 25)
    assert (square[:25] == 114).all()
    assert (square[75:] == 114).all()
    assert (square[25:75] == [255, 0, 0]).all()


SIZES = [(640, 480), (333, 777), (100, 100), (47, 61), (1500, 301), (160, 120), (161, 119), (320, 320), (800, 645)]


@pytest.mark.train
@pytest.mark.parametrize("size", SIZES)
def test_the_letterbox_is_ultralytics_own_to_the_bit(size: tuple[int, int], tmp_path: Path) -> None:
    """Like production: its datasets make it in training and `val`: the photo from a file, resized
    by `load_image`, then padded.
    """
    data = pytest.importorskip("ultralytics.data")
    photo = noise(*size)
    ours, _ = letterbox(photo, 160)
    (tmp_path / "images").mkdir()
    photo.save(tmp_path / "images" / "a.png")
    config = {"names": {0: "top"}, "channels": 3, "nc": 1}
    dataset = data.YOLODataset(img_path=str(tmp_path / "images"), data=config, imgsz=160, augment=False, task="detect")
    theirs = dataset[0]["img"].numpy().transpose(1, 2, 0)
    assert np.array_equal(ours, theirs)
    if size == (320, 320):  # the planted fault: a filter that smooths
        assert not np.array_equal(np.asarray(photo.resize((160, 160))), theirs)


@pytest.mark.train
@pytest.mark.parametrize("size", SIZES)
def test_the_rectangular_letterbox_is_that_of_predict_to_the_bit(size: tuple[int, int]) -> None:
    augment = pytest.importorskip("ultralytics.data.augment")
    photo = noise(*size)
    ours, _ = letterbox(photo, 160, multiple=32)
    theirs = augment.LetterBox(160, auto=True, stride=32)(image=np.asarray(photo))
    assert np.array_equal(ours, theirs)


@pytest.mark.train
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300), st.integers(1, 300), st.integers(0, 3))
@settings(deadline=None, max_examples=200)
def test_resizing_is_opencvs_to_the_bit(wide: int, high: int, width: int, height: int, double: int) -> None:
    cv2 = pytest.importorskip("cv2")
    wide, high = (2 * width if double & 1 else wide), (2 * height if double & 2 else high)
    pixels = np.asarray(noise(wide, high, seed=width))
    theirs = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resize_linear(pixels, width, height), theirs)


def test_a_row_is_resized_to_more_rows_and_fewer_columns() -> None:
    """Eight columns to four: places .5, 2.5, 4.5 and 6.5, so the mean of each two."""
    pixels = np.arange(0, 240, 10, dtype=np.uint8).reshape(1, 8, 3)
    found = resize_linear(pixels, 4, 2)
    assert found.shape == (2, 4, 3)
    assert found.tolist() == [[[15, 25, 35], [75, 85, 95], [135, 145, 155], [195, 205, 215]]] * 2


def test_a_yolo_head_by_hand() -> None:
    output = np.zeros((4 + 2, 3), np.float32)
    output[:, 0] = [50, 40, 20, 10, 0.9, 0.3]
    output[:, 1] = [10, 10, 4, 4, 0.1, 0.2]
    output[:, 2] = [30, 30, 10, 10, 0.4, 0.6]
    found = decode_yolo(output, 0.25, False)
    assert found.boxes.tolist() == [[40, 35, 60, 45], [25, 25, 35, 35]]
    assert found.class_ids.tolist() == [0, 1]
    assert np.allclose(found.scores, [0.9, 0.6])
    both = decode_yolo(output, 0.25, True)
    assert sorted(zip(both.class_ids.tolist(), np.round(both.scores, 1).tolist(), strict=True)) == [
        (0, np.float32(0.4).round(1)),
        (0, np.float32(0.9).round(1)),
        (1, np.float32(0.3).round(1)),
        (1, np.float32(0.6).round(1)),
    ]


def test_an_end_to_end_head_by_hand() -> None:
    output = np.array([[1, 2, 3, 4, 0.9, 1], [5, 6, 7, 8, 0.1, 0]], np.float32)
    found = decode_end2end(output, 0.25, False)
    assert found.boxes.tolist() == [[1, 2, 3, 4]]
    assert found.class_ids.tolist() == [1]


def test_a_garment_is_returned_once_as_the_class_that_is_surest() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 5, 10, 20]]
    kept = one_class_each(detections(boxes, [0.9, 0.8, 0.7], [4, 0, 1]))
    assert kept.class_ids.tolist() == [4, 1]


def test_an_unknown_head_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="unknown detector head"):
        decoder_for("anchors")


def detections(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(classes, np.int64)
    )


def test_nms_by_hand() -> None:
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [20, 20, 30, 30]]
    kept = non_maximum_suppression(detections(boxes, [0.8, 0.9, 0.7, 0.6], [0, 0, 1, 0]), 0.5, 10)
    assert np.round(kept.scores, 1).tolist() == np.array([0.9, 0.7, 0.6], np.float32).round(1).tolist()
    assert kept.class_ids.tolist() == [0, 1, 0]
    assert len(non_maximum_suppression(detections(boxes, [0.8, 0.9, 0.7, 0.6], [0, 0, 1, 0]), 0.95, 10)) == 4
    assert len(non_maximum_suppression(detections(boxes, [0.8, 0.9, 0.7, 0.6], [0, 0, 1, 0]), 0.5, 1)) == 1
    assert len(non_maximum_suppression(detections([], [], []), 0.5, 1)) == 0


def test_a_score_that_only_reaches_the_threshold_is_not_enough() -> None:
    head = np.array([[50, 50], [40, 40], [20, 20], [10, 10], [0.5, 0.625], [0.25, 0.5]], np.float32)
    assert decode_yolo(head, 0.5, False).scores.tolist() == [0.625]
    assert decode_yolo(head, 0.5, True).scores.tolist() == [0.625]
    # the columns are told apart: the surer box is of class 0, the other of class 1
    rows = np.array([[1, 2, 3, 4, 0.625, 0], [5, 6, 7, 8, 0.5, 1]], np.float32)
    found = decoder_for("end2end")(rows, 0.5, True)
    assert (found.scores.tolist(), found.class_ids.tolist()) == ([0.625], [0])


def test_efficientdets_answers_are_decoded_as_yolos() -> None:
    assert decoder_for("efficientdet") is decode_yolo


def test_nms_takes_only_overlap_within_a_class_for_overlap() -> None:
    """With a limit of 0 any overlap is too much: not that of two classes, nor boxes in one row or
    one column.
    """
    same = [[-10, -10, 10, 10]] * 2
    assert non_maximum_suppression(detections(same, [0.9, 0.8], [0, 1]), 0.0, 10).boxes.tolist() == same
    boxes = [[-10, -10, 10, 10], [20, -10, 30, 10], [-10, 20, 10, 30]]
    assert non_maximum_suppression(detections(boxes, [0.9, 0.8, 0.7], [0] * 3), 0.0, 10).boxes.tolist() == boxes


def test_nms_keeps_the_order_of_equal_scores_and_looks_at_the_best_only() -> None:
    boxes = [[20.0 * n, 0, 20 * n + 10, 10] for n in range(40)]
    equal = detections(boxes, [0.5, 0.75] * 20, [0] * 40)
    best_first = boxes[1::2] + boxes[::2]
    assert non_maximum_suppression(equal, 0.5, 100).boxes.tolist() == best_first
    assert non_maximum_suppression(equal, 0.5, 100, candidates=3).boxes.tolist() == best_first[:3]


def test_the_input_is_scaled_and_normalized_by_channel() -> None:
    square = np.zeros((1, 2, 3), np.uint8) + np.array([0, 51, 255], np.uint8)
    plain = batch_input([square], 1 / 255)
    assert plain.shape == (1, 3, 1, 2)
    assert plain[0, :, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    # the arithmetic of bundles without mean and std, bit for bit
    assert np.array_equal(plain, square.transpose(2, 0, 1)[None].astype(np.float32) * np.float32(1 / 255))
    values = batch_input([square, square], 1 / 255, (0.5, 0.2, 0.1), (0.5, 0.25, 0.3))
    assert values[1, :, 0, 1].tolist() == pytest.approx([-1, 0, 3], abs=1e-6)


ANCHORS = {
    "min_level": 3,
    "max_level": 4,
    "num_scales": 2,
    "aspect_ratios": [[1.0, 1.0], [1.4, 0.7]],
    "anchor_scale": 4.0,
}


def test_efficientdets_anchors_and_decoding_by_hand() -> None:
    anchors = anchors_of(16, ANCHORS)
    # level 3: cells of 8 pixels, 2 x 2 of them, rows first, each of 2 octaves x 2 aspects; level 4:
    # one cell of 16
    assert anchors.shape == ((4 + 1) * 4, 4)
    assert anchors[0].tolist() == [4, 4, 32, 32]
    assert anchors[1].tolist() == pytest.approx([4, 4, 32 * 1.4, 32 * 0.7])
    assert anchors[2].tolist() == pytest.approx([4, 4, 32 * 2**0.5, 32 * 2**0.5])
    assert anchors[4, :2].tolist() == [12, 4]
    assert anchors[8, :2].tolist() == [4, 12]
    assert anchors[16].tolist() == [8, 8, 64, 64]
    output = np.zeros((20, 4 + 2), np.float32)
    output[0] = [0.5, 0.25, np.log(2), np.log(3), 0.9, 0.1]  # y, x, height, width
    output[1, 2] = 1000
    placed = placed_on(anchors, output)
    assert placed.shape == (6, 20)
    assert placed[:, 0].tolist() == pytest.approx([4 + 8, 4 + 16, 96, 64, 0.9, 0.1], rel=1e-6)
    assert placed[3, 1] == pytest.approx(32 * 0.7 * np.exp(MOST))
    levels = anchors_of(16, ANCHORS | {"anchor_scale": [4.0, 1.0], "aspect_ratios": [4.0]})
    assert levels[0].tolist() == [4, 4, 64, 16]
    assert levels[-2].tolist() == [8, 8, 32, 8]


def test_pairs_are_of_one_class_and_near_in_both_answers() -> None:
    source = detections([[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 9, 9]], [0.9, 0.8, 0.01], [0, 1, 1])
    ours = detections([[20.25, 20, 30, 30], [0, 0, 10, 10], [50, 50, 60, 60]], [0.8, 0.8995, 0.02], [1, 0, 1])
    pairs = Pairs()
    pairs.add(source, ours, least=0.05, pixels=0.5, score=1e-3)
    assert (pairs.boxes, pairs.alone) == (4, 0)
    assert pairs.pixels == pytest.approx(0.25)
    assert pairs.score == pytest.approx(0.0005, rel=1e-3)
    shifted = Detections(ours.boxes, ours.scores, ours.class_ids + 1)
    pairs.add(source, shifted, least=0.05, pixels=0.5, score=1e-3)
    assert (pairs.boxes, pairs.alone) == (8, 4)
    pairs = Pairs()
    pairs.add(source, detections([], [], []), least=0.05, pixels=0.5, score=1e-3)
    assert (pairs.boxes, pairs.alone) == (2, 2)


@pytest.mark.train
@given(st.integers(0, 10_000))
def test_nms_is_torchvisions(seed: int) -> None:
    torch, ops = pytest.importorskip("torch"), pytest.importorskip("torchvision.ops")
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (40, 2))], axis=1).astype(np.float32)
    scores, classes = rng.permutation(40).astype(np.float32) / 40, rng.integers(0, 3, 40)
    kept = non_maximum_suppression(Detections(boxes, scores, classes), 0.5, 100)
    expected = ops.batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(classes), 0.5)
    assert np.allclose(kept.scores, scores[expected.numpy()])


PHOTOS = [noise(*size, seed=n) for n, size in enumerate([(64, 64), (200, 90), (31, 77), (640, 480)])]
PHOTOS += [Image.open(path).convert("RGB") for path in sorted((TINY / "photos").iterdir())]


def test_a_photo_gets_the_same_garments_alone_and_in_any_batch(config: Config) -> None:
    detector = Detector.open(TINY / "detector", config.detector)
    alone = [detector.detect([photo])[0] for photo in PHOTOS]
    assert sum(map(len, alone)) >= 6
    assert detector.detect(PHOTOS) == alone
    assert detector.detect(PHOTOS[::-1]) == alone[::-1]
    assert detector.detect([]) == []


def test_that_test_would_catch_a_batch_that_loses_detections(config: Config) -> None:
    def losing(graph: str, inputs: Inputs, ask: Ask) -> list[np.ndarray]:
        """Return what an export with NMS in the graph does: nothing for photos 2 to n."""
        outputs = ask(inputs)[0]
        outputs[1:] = 0
        return [outputs]

    detector = Detector(tampered(Bundle.open(TINY / "detector"), losing), conf=0.35, iou=0.6, max_garments=12)
    assert detector.detect(PHOTOS) != [detector.detect([photo])[0] for photo in PHOTOS]


def test_boxes_are_in_pixels_of_the_photo_and_best_first(config: Config) -> None:
    detector = Detector.open(TINY / "detector", config.detector)
    photo = Image.open(TINY / "photos" / "orange-navy.jpg").convert("RGB").resize((1200, 900))
    first, second = detector.detect([photo])[0]
    assert (first.index, first.class_name, second.class_name) == (0, "top", "pants")
    assert first.confidence is not None
    assert second.confidence is not None
    assert first.confidence >= second.confidence
    assert first.box == pytest.approx((0, 0, 600, 900), abs=1)


def test_a_spec_that_is_not_understood_is_a_model_error(config: Config) -> None:
    bundle = Bundle.open(TINY / "detector")
    bundle.spec.pop("labels")
    with pytest.raises(ModelError, match="has an invalid spec"):
        Detector(bundle, conf=0.3, iou=0.5, max_garments=5)
    with pytest.raises(ModelError, match="not a detector"):
        Detector(Bundle.open(TINY / "embedder"), conf=0.3, iou=0.5, max_garments=5)


def test_a_graph_of_one_photo_a_call_gives_the_same_garments(config: Config) -> None:
    """A bundle may say how many photos its graph takes."""
    bundle = Bundle.open(TINY / "detector")
    expected = Detector.open(TINY / "detector", config.detector).detect(PHOTOS)
    asked: list[int] = []

    def counted(graph: str, inputs: Inputs, ask: Ask) -> list[np.ndarray]:
        asked.append(len(inputs["images"]))
        return ask(inputs)

    for most, calls in ((1, [1] * len(PHOTOS)), (4, [4, 4, 2])):
        bundle.spec["batch"] = most
        detector = Detector(
            tampered(bundle, counted), conf=config.detector.conf, iou=config.detector.iou, max_garments=12
        )
        assert detector.detect(PHOTOS) == expected
        assert (asked, detector.most) == (calls, most)
        asked.clear()


def test_a_graph_is_opened_again_after_its_memory_was_given_back() -> None:
    class Counted(Bundle):
        opened = 0

        def session(self, *given: Any, **named: Any) -> Any:
            type(self).opened += 1
            return super().session(*given, **named)

    made = Bundle.open(TINY / "detector")
    bundle = Counted(**{each.name: getattr(made, each.name) for each in fields(made) if each.init})
    detector, photo = Detector(bundle, conf=0.2, iou=0.6, max_garments=12), noise(90, 60)
    first, second = detector.predict([photo]), detector.predict([photo])
    assert Counted.opened == 1
    detector.unload()
    detector.unload()
    third = detector.predict([photo])
    assert Counted.opened == 2
    for (other,) in (second, third):
        assert np.array_equal(other.boxes, first[0].boxes)
