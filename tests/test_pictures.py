"""Test what pixels come out of a file, by hand: greys of more than 8 bits, transparency, the eight
orientations, sizes and limits.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from fashionrec.config import load_config
from fashionrec.errors import ImageError
from fashionrec.photos.images import (
    MAX_THUMBNAIL,
    Photo,
    crop_rectangle,
    encode_jpeg,
    encode_photo,
    photo_digest,
    read_photo,
    read_thumbnail,
)
from fashionrec.types import Box

CONFIG = load_config(env={}).config
LIMITS, CROP = CONFIG.images, CONFIG.crop


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def greys(values: list[float], dtype: Any) -> list[int]:
    """The greys that a TIFF of these values is shown in."""
    rows = np.array([values] * 2, dtype)
    pixels = read_photo(saved(Image.fromarray(rows), "TIFF"), LIMITS).pixels
    assert pixels.mode == "RGB"
    found = np.asarray(pixels)
    assert (found[0] == found[1]).all()
    assert (found[..., 0] == found[..., 1]).all()
    assert (found[..., 0] == found[..., 2]).all()
    return [int(value) for value in found[0, :, 0]]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0.0, 0.25, 0.5, 1.0], np.float32, [0, 63, 127, 255]),  # floats up to exactly 1 are shares of white
        ([0.0, 0.1, 0.2, 0.4], np.float32, [0, 25, 51, 102]),
        ([0.0, 1.0, 100.0, 255.0], np.float32, [0, 1, 100, 255]),  # up to exactly 255 they are 8-bit values
        ([0.0, 0.5, 1.0, 1.5], np.float32, [0, 0, 1, 1]),
        ([0.0, 256.0, 25700.0, 65535.0], np.float32, [0, 0, 100, 255]),  # beyond, 16-bit ones
        ([-1.0, 0.5, np.nan, 1.0], np.float32, [0, 127, 0, 255]),
        ([np.inf, 0.5, -np.inf, 1.0], np.float32, [0, 127, 0, 255]),
        ([0, 1, 100, 255], np.uint16, [0, 1, 100, 255]),
        ([0, 257, 25700, 65535], np.uint16, [0, 1, 100, 255]),
        ([0, 0, 1, 1], np.uint16, [0, 0, 1, 1]),  # whole numbers are no shares
        ([0, 25700, 65535, 100000], np.int32, [0, 100, 255, 255]),
        ([-5, 0, 7, 255], np.int32, [0, 0, 7, 255]),
    ],
)
def test_greys_of_more_than_eight_bits(values: list[float], dtype: Any, expected: list[int]) -> None:
    assert greys(values, dtype) == expected


def test_half_of_a_transparent_colour_is_half_white() -> None:
    half = Image.new("RGBA", (2, 2), (200, 0, 0, 128))
    assert read_photo(saved(half, "PNG"), LIMITS).pixels.getpixel((1, 1)) == (227, 127, 127)
    grey = Image.new("LA", (2, 2), (0, 0))
    assert read_photo(saved(grey, "PNG"), LIMITS).pixels.getpixel((1, 1)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    pixels = read_photo(saved(palette, "GIF", transparency=0), LIMITS).pixels
    assert pixels.getpixel((0, 0)) == (255, 255, 255)
    assert pixels.getpixel((1, 0)) == (200, 100, 50)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("least", [None, 40])
def test_a_photo_is_upright_in_all_eight_orientations(orientation: int, least: int | None) -> None:
    """Four colours in the corners; with ``least`` the decoder makes a quarter of it and sizes are
    still those of the whole.
    """
    image = Image.new("RGB", (320, 160), "white")
    for colour, corner in (("red", (0, 0)), ("lime", (160, 0)), ("blue", (0, 80)), ("black", (160, 80))):
        image.paste(colour, (*corner, corner[0] + 160, corner[1] + 80))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, "JPEG", exif=exif, quality=95)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    photo = read_photo(data, LIMITS, least)
    assert (photo.width, photo.height) == expected.size == ((320, 160) if orientation < 5 else (160, 320))
    assert photo.stored is not None
    assert photo.stored.orientation == orientation
    assert photo.stored.plain == (orientation == 1)
    part = 8 if least else 1
    assert photo.reduced == (least is not None)
    assert photo.pixels.size == (expected.width // part, expected.height // part)
    for x, y in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)):
        found = photo.pixels.getpixel((int(photo.pixels.width * x), int(photo.pixels.height * y)))
        wanted = expected.getpixel((int(expected.width * x), int(expected.height * y)))
        assert np.abs(np.subtract(found, wanted)).max() < 12


def test_how_small_a_large_photo_is_decoded() -> None:
    """The smallest of 1/8, 1/4 and 1/2 at which its long side still has as many pixels as are
    needed.
    """
    data = saved(Image.new("RGB", (800, 400), "red"), "JPEG")
    for least, size in ((100, (100, 50)), (101, (200, 100)), (200, (200, 100)), (201, (400, 200)), (400, (400, 200))):
        assert read_photo(data, LIMITS, least).pixels.size == size, least
    for photo in (
        read_photo(data, LIMITS, 401),
        read_photo(data, LIMITS),
        read_photo(data, LIMITS.model_copy(update={"scaled_decoding": "never"}), 100),
        read_photo(saved(Image.new("RGB", (800, 400)), "PNG"), LIMITS, 100),
    ):
        assert (photo.pixels.size, photo.reduced, photo.full) == ((800, 400), False, None)


def test_boxes_and_crops_of_a_reduced_photo_are_those_of_the_whole() -> None:
    image = Image.new("RGB", (800, 400), "white")
    image.paste("red", (200, 80, 400, 320))
    data = saved(image, "JPEG", quality=95)
    whole, part = read_photo(data, LIMITS), read_photo(data, LIMITS, 200)
    exact = CROP.model_copy(update={"margin": 0.0, "square": False})
    box = Box(200, 80, 400, 320)
    assert part.pixels.size == (200, 100)
    assert part.in_full(Box(50, 20, 100, 80)) == box
    assert part.in_full(Box(-5, 0, 300, 100)) == Box(0, 0, 800, 400)
    assert whole.in_full(box) == box
    assert whole.crop(box, exact).size == (200, 240)
    assert part.crop(box, exact).size == (50, 60)
    for crop in (whole.crop(box, exact), part.crop(box, exact)):
        assert np.abs(np.asarray(crop.resize((1, 1))) - np.array([254, 0, 0])).max() < 4
    square = exact.model_copy(update={"square": True})
    for shape, side, enough in ((exact, 50, True), (exact, 51, False), (square, 60, True), (square, 61, False)):
        assert part.shows(box, shape, side) is enough
        assert whole.shows(box, shape, 9999)
    assert part.crop(Box(799, 399, 800, 400), exact).size == (1, 1)


def test_which_whole_pixels_a_crop_takes() -> None:
    """The margin is a share of the box's longer side, on each side; the box ends are cut down at
    the left and rounded right.
    """
    wide = CROP.model_copy(update={"margin": 0.1})
    none = CROP.model_copy(update={"margin": 0.0})
    assert crop_rectangle(100, 80, Box(20, 30, 60, 40), wide) == (16, 26, 64, 44)
    assert crop_rectangle(100, 80, Box(1, 2, 99, 79), wide) == (0, 0, 100, 80)
    assert crop_rectangle(100, 80, Box(10.9, 10.9, 20.4, 20.6), none) == (10, 10, 20, 21)
    assert crop_rectangle(100, 80, Box(10.1, 10.1, 20.6, 20.4), none) == (10, 10, 21, 20)
    assert crop_rectangle(100, 80, Box(50, 50, 50, 50), none) == (50, 50, 51, 51)
    assert crop_rectangle(100, 80, Box(100, 80, 120, 90), none) == (99, 79, 100, 80)
    tall = Photo(Image.new("RGB", (100, 80), "red"), "").crop(Box(40, 10, 50, 50), none.model_copy(update={"pad": 7}))
    assert tall.size == (40, 40)
    found = np.asarray(tall)[20]
    assert [n for n in range(40) if tuple(found[n]) == (255, 0, 0)] == list(range(15, 25))
    assert tuple(found[0]) == (7, 7, 7)


def test_the_limits_are_reached_and_not_passed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(path)
    size = path.stat().st_size
    fits = LIMITS.model_copy(update={"max_pixels": 200, "max_bytes": size})
    assert read_photo(path, fits).pixels.size == (20, 10)
    assert photo_digest(path, size) == read_photo(path, fits).sha256
    for limits, reason in ((fits.model_copy(update={"max_pixels": 199}), "too-many-pixels"),
                           (fits.model_copy(update={"max_bytes": size - 1}), "too-large")):  # fmt: skip
        with pytest.raises(ImageError) as caught:
            read_photo(path, limits)
        assert caught.value.reason == reason
    (tmp_path / "empty.png").touch()
    reasons = {}
    for name in ("a.png", "empty.png", "none.png", "."):
        outcome = photo_digest(tmp_path / name, size - 1)
        assert isinstance(outcome, ImageError)
        reasons[name] = outcome.reason
    assert reasons == {"a.png": "too-large", "empty.png": "empty", "none.png": "missing", ".": "not-a-file"}


def test_pictures_that_we_write() -> None:
    noise = Image.effect_noise((300, 200), 60).convert("RGB")
    for side, size in ((150, (150, 100)), (300, (300, 200)), (900, (300, 200))):
        assert Image.open(io.BytesIO(encode_jpeg(noise, side))).size == size
        assert Image.open(io.BytesIO(encode_jpeg(noise, side, quick=True))).size == size
    assert noise.size == (300, 200), "the picture itself stays as it is"
    assert len(encode_jpeg(noise, 300, 95)) > len(encode_jpeg(noise, 300, 50))
    assert encode_photo(noise, 80) == encode_photo(noise.copy(), 80)
    assert Image.open(io.BytesIO(encode_photo(noise, 80))).size == (300, 200)
    assert len(encode_photo(noise, 95)) > len(encode_photo(noise, 50))


def test_a_thumbnail_is_a_jpeg_of_a_bounded_size() -> None:
    fits = Image.new("L", (MAX_THUMBNAIL, 2), 90)
    found = read_thumbnail(saved(fits, "JPEG"))
    assert (found.mode, found.size) == ("RGB", (MAX_THUMBNAIL, 2))
    for data, reason in (
        (saved(Image.new("L", (MAX_THUMBNAIL + 1, 2)), "JPEG"), "too-many-pixels"),
        (saved(Image.new("L", (4, 4)), "PNG"), "damaged"),
        (b"", "damaged"),
    ):
        with pytest.raises(ImageError) as caught:
            read_thumbnail(data)
        assert caught.value.reason == reason
