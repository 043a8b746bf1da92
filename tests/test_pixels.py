"""Test what is done to pixels before a detector sees them: the same in a dataset, in training and
when a photo is asked about.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fashionrec.detector.detect import Detector
from fashionrec.models.bundle import Bundle, write_bundle
from fashionrec.photos.pixels import PixelSpec, clahe, equalize, placement, prepare_pixels

TINY = Path(__file__).parent / "data" / "tiny"


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(64, 80), (331, 517), (832, 550), (9, 11), (8, 8)])
@pytest.mark.parametrize("limit", [1.0, 2.0, 40.0])
def test_equalization_is_that_of_opencv(size: tuple[int, int], limit: float) -> None:
    cv2 = pytest.importorskip("cv2")
    grey = np.asarray(noise(*size).convert("L"))
    theirs = cv2.createCLAHE(limit, (8, 8)).apply(grey)
    assert np.abs(clahe(grey, limit, 8).astype(int) - theirs).max() <= 1


def test_a_wrong_limit_is_told_from_the_right_one() -> None:
    """The comparison above can fail."""
    cv2 = pytest.importorskip("cv2")
    grey = np.asarray(noise(331, 517).convert("L"))
    assert np.abs(clahe(grey, 3.0, 8).astype(int) - cv2.createCLAHE(2.0, (8, 8)).apply(grey)).max() > 10


def test_equalization_spreads_the_lightness_of_a_dull_photo_and_keeps_its_colour() -> None:
    dull = Image.fromarray((np.asarray(noise(200, 160)) // 8 + 100).astype(np.uint8))
    bright = equalize(dull, 4.0)
    assert np.asarray(bright.convert("L")).std() > 2 * np.asarray(dull.convert("L")).std()
    for channel in (1, 2):
        before, after = (np.asarray(p.convert("YCbCr"))[..., channel].astype(int) for p in (dull, bright))
        assert np.abs(before - after).mean() < 2


@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    resize=st.sampled_from(["none", "fit", "letterbox", "stretch"]),
    box=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_boxes_go_there_and_back(width: int, height: int, resize: str, box: tuple[float, ...]) -> None:
    place, _, whole = placement(width, height, PixelSpec(resize, 640))
    pixels = np.array([box]) * [width, height, width, height]
    there = place.forward(pixels)
    assert np.abs(place.restore(there) - pixels).max() <= 1e-3 * max(width, height)
    assert (there >= -1e-6).all()
    assert (there <= np.array([*whole, *whole]) + 1e-6).all()


def test_what_each_resize_makes() -> None:
    photo = noise(800, 400)
    sizes = {
        mode: prepare_pixels(photo, PixelSpec(mode, 200))[0].size for mode in ("none", "fit", "letterbox", "stretch")
    }
    assert sizes == {"none": (800, 400), "fit": (200, 100), "letterbox": (200, 200), "stretch": (200, 200)}
    assert prepare_pixels(noise(100, 50), PixelSpec("fit", 200))[0].size == (100, 50)
    assert prepare_pixels(photo, PixelSpec("letterbox", 200))[0].getpixel((100, 10)) == (114, 114, 114)


def test_where_a_photo_lies_in_a_letterbox() -> None:
    """By hand: of a photo twice as wide as high the picture lies in the middle half; between its
    colours it is blended.
    """
    photo = Image.new("RGB", (400, 200), "black")
    photo.paste((255, 255, 255), (201, 0, 400, 200))
    wide, place = prepare_pixels(photo, PixelSpec("letterbox", 100))
    column = np.asarray(wide)[:, 90, 0]
    assert [n for n in range(100) if column[n] == 255] == list(range(25, 75))
    assert set(column[:25].tolist()) | set(column[75:].tolist()) == {114}
    assert (place.left, place.top, place.scale_x) == (0, 25, 0.25)
    assert np.asarray(wide)[50, 50, 0] not in (0, 255)
    tall, place = prepare_pixels(photo.transpose(Image.Transpose.ROTATE_90), PixelSpec("letterbox", 100))
    assert (place.left, place.top) == (25, 0)
    assert np.asarray(tall)[5, :, 0].tolist() == [114] * 25 + [255] * 50 + [114] * 25


@pytest.mark.parametrize(
    "spec",
    [PixelSpec(), PixelSpec("none", equalize=3.0, tiles=4), PixelSpec("fit", 320), PixelSpec("stretch", 64, 2.0, 4)],
)
def test_a_spec_survives_its_document(spec: PixelSpec) -> None:
    assert PixelSpec.from_dict(spec.to_dict()) == spec
    assert bool(spec.to_dict()) is not spec.changes_nothing


def test_a_spec_of_another_version_is_refused() -> None:
    for document in ({"resize": "tile"}, {"sharpen": 1}):
        with pytest.raises(ValueError, match="unknown pixel operations"):
            PixelSpec.from_dict(document)


def test_a_detector_treats_photos_as_its_training_data_was(tmp_path: Path) -> None:
    """Its answer to a photo is its answer to the prepared photo, in pixels of the photo; and the
    treatment matters.
    """
    plain = Bundle.open(TINY / "detector", "detector")
    spec = PixelSpec("stretch", 96, 40.0, 4)
    bundle = write_bundle(
        tmp_path / "treated",
        kind="detector",
        name="treated",
        graphs=plain.graphs,
        spec={**plain.spec, "pixels": spec.to_dict()},
        source={},
        agreement={},
        files={name: plain.path / name for name in plain.files},
    )
    assert bundle.fingerprint != plain.fingerprint
    treated = Detector(bundle, conf=0.05, iou=0.6, max_garments=20)
    untreated = Detector(plain, conf=0.05, iou=0.6, max_garments=20)
    photo = Image.new("RGB", (240, 100), "white")
    photo.paste((200, 30, 40), (30, 20, 110, 80))
    photo.paste((30, 60, 190), (150, 10, 220, 90))
    picture, place = prepare_pixels(photo, spec)
    (asked,), (direct,) = treated.predict([photo]), treated.predict([picture], prepared_already=True)
    assert len(asked.boxes) > 0
    assert np.allclose(asked.boxes, place.restore(direct.boxes), atol=1e-3)
    assert np.allclose(asked.scores, direct.scores)
    (raw,) = untreated.predict([photo])
    assert len(raw.boxes) != len(asked.boxes) or not np.allclose(raw.scores, asked.scores, atol=1e-3)
