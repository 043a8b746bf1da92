"""Test how the plain loop varies photos and boxes: each step with its draws named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashionrec.config import load_config
from fashionrec.detector.training.families.photos import (
    LabelledPhotos,
    Variation,
    drawn,
    recolour,
    transform_boxes,
    warp,
)

LIMITS = load_config(env={}).config.images


class Dice:
    """A generator whose draws are named, each from 0 (the least) to 1 (the most)."""

    def __init__(self, *draws: float) -> None:
        self.draws = list(draws)

    def random(self) -> float:
        return self.draws.pop(0)

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        values = [low + (high - low) * self.draws.pop(0) for _ in range(size or 1)]
        return np.array(values) if size else values[0]


def test_a_quarter_turn_with_all_that_can_be_drawn() -> None:
    varied = Variation(fliplr=0.5, flipud=0.5, degrees=90, translate=0.25, scale=0.5)
    # turned by 90 degrees, half as large again, a quarter of the side to the right and up, and
    # flipped left to right
    matrix = drawn(varied, 8, Dice(1, 1, 1, 0, 0.4, 0.5))  # type: ignore[arg-type]
    assert matrix == pytest.approx(np.array([[0, -1.5, 12], [-1.5, 0, 8], [0, 0, 1]]), abs=1e-9)
    assert transform_boxes(np.array([[4.0, 4.0, 5.0, 5.0]]), matrix) == pytest.approx(np.array([[4.5, 0.5, 6.0, 2.0]]))
    upside_down = drawn(varied, 8, Dice(0.5, 0.5, 0.5, 0.5, 0.5, 0.4))  # type: ignore[arg-type]
    assert upside_down == pytest.approx(np.array([[1, 0, 0], [0, -1, 8], [0, 0, 1]]), abs=1e-9)
    back = drawn(varied, 8, Dice(0, 0, 0.5, 0.5, 0.9, 0.9))  # type: ignore[arg-type]
    assert back == pytest.approx(np.array([[0, 0.5, 2], [-0.5, 0, 6], [0, 0, 1]]), abs=1e-9)


def test_pixels_go_where_the_matrix_says_and_grey_comes_in() -> None:
    square = np.zeros((4, 4, 3), np.uint8)
    square[1, 1] = (250, 0, 0)
    there = warp(square, np.array([[1.0, 0, 1], [0, 1, 2], [0, 0, 1]]), 114)
    assert there[3, 2].tolist() == [250, 0, 0]
    assert (there[:2] == 114).all()
    assert (there[2:, 0] == 114).all()
    assert there.sum() == 114 * 3 * 10 + 250


@pytest.mark.parametrize(
    ("draws", "pixel", "expected"),
    [
        ((0.5, 0.5, 0.5), (200, 100, 0), (200, 100, 0)),
        ((0.5, 0.5, 0), (200, 100, 0), (100, 50, 0)),
        ((0.5, 0.5, 1), (100, 50, 0), (150, 75, 0)),
        ((0.5, 0.5, 1), (200, 100, 0), (255, 127, 0)),  # no brighter than white
        ((0.5, 0, 0.5), (200, 100, 0), (200, 150, 100)),
        ((1, 0.5, 0.5), (240, 0, 0), (0, 240, 0)),
        ((0, 0.5, 0.5), (240, 0, 0), (0, 0, 240)),
    ],
)
def test_hue_saturation_and_value(draws: tuple[float, ...], pixel: tuple[int, ...], expected: tuple[int, ...]) -> None:
    varied = Variation(hsv_h=1 / 3, hsv_s=0.5, hsv_v=0.5)
    found = recolour(np.full((2, 2, 3), pixel, np.uint8), varied, Dice(*draws))  # type: ignore[arg-type]
    assert found.reshape(-1, 3).tolist() == [pytest.approx(expected, abs=4)] * 4


def test_of_a_box_enough_must_be_there_and_seen(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (64, 32), "white").save(tmp_path / "images" / "a.png")
    sides = ((2, 20), (3, 20), (20, 2), (20, 3))  # pixels
    lines = [f"{n} .5 .5 {width / 64} {height / 32}\n" for n, (width, height) in enumerate(sides)]
    (tmp_path / "labels" / "a.txt").write_text("".join(lines))
    photos = LabelledPhotos([tmp_path / "images" / "a.png"], 64, 114, Variation(), seed=0, limits=LIMITS)
    assert len(photos) == 1
    square, boxes, classes = photos[0]
    assert (square.shape, boxes.dtype, classes.dtype) == ((64, 64, 3), np.float32, np.int64)
    assert (square[:16] == 114).all()
    assert (square[16:48] == 255).all()
    assert classes.tolist() == [1, 3]
    assert boxes.tolist() == [[30.5, 22, 33.5, 42], [22, 30.5, 42, 33.5]]
