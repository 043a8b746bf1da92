"""Rules for boxes: each case decided as the setting says, counted, and none silently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fashionrec.config import Config, DatasetConfig
from fashionrec.dataset.prepare.rules import Frame, class_map, clean_boxes, turn_box, yolo_lines
from fashionrec.dataset.source import RawBox, SourceImage
from fashionrec.errors import DataError
from fashionrec.types import Box

SIZE = (100, 50)


def clean(*boxes: RawBox, settings: DatasetConfig, frame: Frame | None = None, **image: object) -> tuple[list, list]:
    photo = SourceImage("a.jpg", Path("a.jpg"), tuple(boxes), **image)  # type: ignore[arg-type]
    labels, problems = clean_boxes(photo, frame or Frame(SIZE, SIZE), settings, class_map(settings.map))
    return labels, [(problem.kind, problem.action) for problem in problems]


@pytest.mark.parametrize(
    ("box", "kept", "problem"),
    [
        (RawBox("top", 10, 10, 30, 30), Box(10, 10, 30, 30), None),
        (RawBox("top", 0.1, 0.2, 0.3, 0.6, True), Box(10, 10, 30, 30), None),
        (RawBox("Top ", 10, 10, 30, 30), Box(10, 10, 30, 30), None),
        (RawBox("culottes", 10, 10, 30, 30), Box(10, 10, 30, 30), None),
        (RawBox("#7", 10, 10, 30, 30), None, ("unknown-class", "dropped")),
        (RawBox("3", 10, 10, 30, 30), None, ("unknown-class", "dropped")),
        (RawBox("hat", 10, 10, 30, 30), None, ("unknown-class", "dropped")),
        (RawBox("top", 30, 30, 10, 10), Box(10, 10, 30, 30), ("reversed-corners", "fixed")),
        (RawBox("top", float("nan"), 10, 30, 30), None, ("not-finite", "dropped")),
        (RawBox("top", 10, 10, float("inf"), 30), None, ("not-finite", "dropped")),
        (RawBox("top", 10, 10, 10, 30), None, ("no-area", "dropped")),
        (RawBox("top", 10, 10, 30, 10.5), None, ("no-area", "dropped")),
        (RawBox("top", 110, 10, 130, 30), None, ("outside-picture", "dropped")),
        (RawBox("top", 90, 10, 130, 30), Box(90, 10, 100, 30), ("beyond-edge", "fixed")),
        (RawBox("top", 90, 10, 100.4, 30), Box(90, 10, 100, 30), None),
        (RawBox("top", 90, 10, 100.5, 30), Box(90, 10, 100, 30), None),
        (RawBox("top", 10, -3, 30, 20), Box(10, 0, 30, 20), ("beyond-edge", "fixed")),
        (RawBox("top", 99, 10, 130, 30), Box(99, 10, 100, 30), ("beyond-edge", "fixed")),
        (RawBox("top", 100, 10, 130, 30), None, ("outside-picture", "dropped")),
        (RawBox("top", 10, 50, 30, 70), None, ("outside-picture", "dropped")),
        (RawBox("top", 10, 10, 11, 30), Box(10, 10, 11, 30), None),
        (RawBox("top", 30, 10, 10, 30), Box(10, 10, 30, 30), ("reversed-corners", "fixed")),
        (RawBox("top", 10, 30, 30, 10), Box(10, 10, 30, 30), ("reversed-corners", "fixed")),
    ],
)
def test_each_rule(config: Config, box: RawBox, kept: Box | None, problem: tuple[str, str] | None) -> None:
    labels, problems = clean(box, settings=config.dataset)
    assert [label.box for label in labels] == ([] if kept is None else [pytest.approx(kept)])
    assert problems == ([] if problem is None else [problem])


def test_a_sliver_that_clipping_leaves_is_dropped(config: Config) -> None:
    labels, problems = clean(RawBox("top", 99.5, 10, 130, 30), settings=config.dataset)
    assert labels == []
    assert problems == [("beyond-edge", "fixed"), ("no-area", "dropped")]


def test_a_box_beyond_the_edge_can_be_dropped(config: Config) -> None:
    settings = config.dataset.model_copy(update={"outside": "drop"})
    assert clean(RawBox("top", 90, 10, 130, 30), settings=settings) == ([], [("beyond-edge", "dropped")])


def test_repeated_boxes_are_one_and_those_of_two_classes_are_two(config: Config) -> None:
    box = RawBox("top", 10, 10, 90, 40)
    labels, problems = clean(
        box, box, box._replace(x1=10.05), box._replace(x1=20), box._replace(label="dress"), settings=config.dataset
    )
    assert [label.class_id for label in labels] == [4, 4, 0]
    assert problems == [("repeated-box", "dropped")] * 2


def test_repeated_means_more_than_the_setting_however_many_there_are(config: Config) -> None:
    settings = config.dataset.model_copy(update={"repeated_iou": 0.5})
    first, half, more = (RawBox("top", 0, 0, 40, bottom) for bottom in (40, 20, 30))
    assert clean(first, half, settings=settings)[1] == []
    assert clean(first, more, settings=settings)[1] == [("repeated-box", "dropped")]
    many = [RawBox("top", n % 20 * 5, n // 20 * 5, n % 20 * 5 + 4, n // 20 * 5 + 4) for n in range(150)]
    labels, problems = clean(*many, many[130], many[5], settings=settings)
    assert (len(labels), problems) == (150, [("repeated-box", "dropped")] * 2)


def test_the_map_renames_drops_and_wins_over_names(config: Config) -> None:
    settings = config.dataset.model_copy(
        update={"map": {"T-Shirt": "top", "shoe": None, "#7": "culottes", "skirt": "dress"}}
    )
    names = ("t-shirt", "shoe", "#7", "skirt")
    labels, problems = clean(*(RawBox(name, 10, 10, 30, 30) for name in names), settings=settings)
    assert [label.class_id for label in labels] == [4, 2, 0]
    assert problems == [("class-left-out", "dropped")]
    with pytest.raises(DataError, match="is not a class"):
        class_map({"t-shirt": "shirt"})


def test_an_unknown_class_can_stop_it(config: Config) -> None:
    with pytest.raises(DataError, match="hat") as caught:
        clean(RawBox("hat", 1, 1, 9, 9), settings=config.dataset.model_copy(update={"unknown_class": "fail"}))
    assert "--map" in caught.value.hint


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_picture(orientation: int) -> None:
    """The box of a bright patch, turned, is the box of the patch in the picture as
    Pillow turns it.
    """
    picture = Image.new("L", (40, 24))
    picture.paste(255, (3, 5, 15, 11))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(picture)
    ys, xs = np.nonzero(np.asarray(upright))
    expected = Box(xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert turn_box(Box(3, 5, 15, 11), (40, 24), orientation) == expected


def test_which_picture_labels_of_a_turned_photo_are_for(config: Config) -> None:
    """The size that the source names decides; without one boxes turn with the picture; a setting
    decides over both.
    """
    frame = Frame((100, 50), (50, 100), 6)
    box = RawBox("top", 0, 0, 20, 10)
    turned, as_it_is = Box(40, 0, 50, 20), Box(0, 0, 20, 10)

    def found(rule: str = "auto", size: tuple[int, int] | None = None) -> Box:
        settings = config.dataset.model_copy(update={"exif_boxes": rule})
        labels, problems = clean(box, settings=settings, frame=frame, size=size)
        assert problems == [("exif-turned", "fixed")]
        return labels[0].box

    assert found() == turned
    assert found(size=(100, 50)) == turned
    assert found(size=(50, 100)) == as_it_is
    assert found("upright", (100, 50)) == as_it_is
    assert found("stored", (50, 100)) == turned


@given(
    width=st.integers(1, 8000),
    height=st.integers(1, 8000),
    corners=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_a_label_file_keeps_a_box_within_a_hundredth_of_a_pixel(width: int, height: int, corners: list[float]) -> None:
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    box = Box(x1 * width, y1 * height, x2 * width, y2 * height)
    from fashionrec.dataset.prepare.rules import Label

    _, x, y, w, h = map(float, yolo_lines([Label(4, box)], (width, height)).split())
    back = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    assert max(abs(a - b) for a, b in zip(back, box, strict=True)) < 0.01
