"""Photos by hand: at which part of their size they are decoded, what is cut out, and the line about
what cannot be read.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashionrec.config import load_config
from fashionrec.errors import ImageError
from fashionrec.photos.decoding import Lost, decode_all, in_processes
from fashionrec.photos.images import (
    Photo,
    Stored,
    crop_rectangle,
    encode_jpeg,
    encode_photo,
    find_photos,
    least_side,
    photo_digest,
    read_photo,
    read_thumbnail,
)
from fashionrec.photos.pixels import PixelSpec
from fashionrec.types import Box

CONFIG = load_config(env={}).config
LIMITS = CONFIG.images
CROP = CONFIG.crop.model_copy(update={"margin": 0.0, "square": False})


def encoded(image: Image.Image, kind: str = "JPEG", orientation: int = 1, **options: Any) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(out, kind, exif=exif, **options)
    return out.getvalue()


def limits(**changes: Any) -> Any:
    return LIMITS.model_copy(update=changes)


@pytest.mark.parametrize(
    ("size", "orientation", "least", "pixels", "full"),
    [
        ((64, 32), 1, 8, (8, 4), (64, 32)),
        ((64, 32), 1, 9, (16, 8), (64, 32)),
        ((64, 32), 1, 16, (16, 8), (64, 32)),
        ((64, 32), 1, 17, (32, 16), (64, 32)),
        ((64, 32), 1, 32, (32, 16), (64, 32)),
        ((64, 32), 1, 33, (64, 32), None),
        ((32, 64), 1, 8, (4, 8), (32, 64)),
        ((64, 32), 1, None, (64, 32), None),
        ((66, 33), 1, 8, (9, 5), (66, 33)),
        ((64, 32), 6, 8, (4, 8), (32, 64)),
        ((64, 32), 3, 8, (8, 4), (64, 32)),
        ((64, 36), 6, 8, (9, 16), (36, 64)),  # 36 is no multiple of 8
        ((64, 34), 8, 8, (17, 32), (34, 64)),
        ((66, 33), 6, 8, (33, 66), None),  # turned, a row that stands for fewer pixels would be the first
        ((66, 32), 6, 8, (16, 33), (32, 66)),
    ],
)
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(
    size: tuple[int, int], orientation: int, least: int | None, pixels: tuple[int, int], full: tuple[int, int] | None
) -> None:
    data = encoded(Image.new("RGB", size, "red"), orientation=orientation)
    photo = read_photo(data, LIMITS, least)
    whole = size[::-1] if orientation >= 5 else size
    assert (photo.pixels.size, photo.full, (photo.width, photo.height)) == (pixels, full, whole)
    assert photo.reduced == (full is not None)
    assert photo.stored == Stored("JPEG", "RGB", *size, orientation)
    assert photo.sha256 == hashlib.sha256(data).hexdigest()
    assert read_photo(data, limits(scaled_decoding="never"), least).pixels.size == whole
    assert read_photo(encoded(Image.new("RGB", size), "PNG"), LIMITS, least).pixels.size == size


def test_how_large_a_photo_must_be_for_what_is_made_of_it() -> None:
    assert (least_side(640, 224), least_side(3)) == (1280, 6)


@pytest.mark.parametrize(
    ("stored", "plain"),
    [
        (Stored("JPEG", "RGB", 1, 1), True),
        (Stored("PNG", "RGB", 1, 1), True),
        (Stored("WEBP", "RGB", 1, 1), False),
        (Stored("PNG", "RGBA", 1, 1), False),
        (Stored("JPEG", "RGB", 1, 1, 2), False),
    ],
)
def test_what_every_reader_shows_as_we_do(stored: Stored, plain: bool) -> None:
    assert stored.plain is plain


@pytest.mark.parametrize(("value", "found"), [(0, 1), (1, 1), (8, 8), (9, 1)])
def test_odd_orientations_say_nothing(value: int, found: int) -> None:
    photo = read_photo(encoded(Image.new("RGB", (4, 2)), orientation=value), LIMITS)
    assert photo.stored is not None
    assert photo.stored.orientation == found
    assert photo.pixels.size == ((2, 4) if found == 8 else (4, 2))


REDUCED = Photo(Image.new("RGB", (17, 9), "red"), "", full=(66, 35))  # four pixels each way are one


@pytest.mark.parametrize(
    ("box", "margin", "whole", "part"),
    [
        ((10, 5, 30, 25), 0.0, (10, 5, 30, 25), (2, 1, 8, 6)),
        ((10, 5, 30, 25), 0.1, (8, 3, 32, 27), (2, 1, 8, 7)),
        ((10.9, 5.4, 30.4, 25.6), 0.0, (10, 5, 30, 26), (2, 1, 8, 6)),
        ((-9, -9, 999, 999), 0.5, (0, 0, 66, 35), (0, 0, 16, 9)),
        ((66, 35, 70, 40), 0.0, (65, 34, 66, 35), (16, 8, 17, 9)),
        ((20, 20, 20, 20), 0.0, (20, 20, 21, 21), (5, 5, 6, 6)),
        ((0, 0, 1, 1), 0.0, (0, 0, 1, 1), (0, 0, 1, 1)),
        ((0, 0, 10, 30), 0.1, (0, 0, 13, 33), (0, 0, 3, 8)),  # a tenth of the longer side
    ],
)
def test_what_is_cut_out(box: tuple[float, ...], margin: float, whole: tuple[int, ...], part: tuple[int, ...]) -> None:
    settings = CROP.model_copy(update={"margin": margin})
    assert crop_rectangle(66, 35, Box(*box), settings) == whole
    pixels = Image.fromarray(np.arange(66 * 35 * 3, dtype=np.uint8).reshape(35, 66, 3))
    assert Photo(pixels, "").crop(Box(*box), settings).tobytes() == pixels.crop(whole).tobytes()
    few = Image.fromarray(np.arange(17 * 9 * 3, dtype=np.uint8).reshape(9, 17, 3))
    assert Photo(few, "", full=(66, 35)).crop(Box(*box), settings).tobytes() == few.crop(part).tobytes()


def test_a_crop_is_padded_in_its_middle() -> None:
    settings = CROP.model_copy(update={"square": True, "pad": 7})
    for size, place in (((4, 1), (0, 1)), ((1, 4), (1, 0)), ((5, 2), (0, 1)), ((3, 3), (0, 0))):
        cut = Photo(Image.new("RGB", size, "red"), "").crop(Box(0, 0, *size), settings)
        side = max(size)
        expected = Image.new("RGB", (side, side), (7, 7, 7))
        expected.paste("red", (*place, place[0] + size[0], place[1] + size[1]))
        assert cut.tobytes() == expected.tobytes()
    assert Photo(Image.new("RGB", (4, 1)), "").crop(Box(0, 0, 4, 1), CROP).size == (4, 1)


def test_a_reduced_photo_in_pixels_of_the_whole() -> None:
    assert REDUCED.in_full(Box(1, 2, 3, 4)) == Box(4, 8, 12, 16)
    assert REDUCED.in_full(Box(-1, 0, 17, 9)) == Box(0, 0, 66, 35)
    same = Photo(Image.new("RGB", (66, 35)), "", full=(66, 35))
    assert not same.reduced
    assert same.in_full(Box(-1, 0, 99, 9)) == Box(-1, 0, 99, 9)
    box, square = Box(0, 0, 40, 20), CROP.model_copy(update={"square": True})  # 10 x 5 of its pixels
    assert [REDUCED.shows(box, square, side) for side in (10, 11)] == [True, False]
    assert [REDUCED.shows(box, CROP, side) for side in (5, 6)] == [True, False]
    assert same.shows(box, square, 9999)


def test_pixels_of_the_caller() -> None:
    array = np.zeros((2, 3, 3), np.uint8)
    array[0, 0] = (255, 0, 0)
    for source in (array, Image.fromarray(array), np.asfortranarray(array)):
        photo = read_photo(source, LIMITS)
        assert (photo.pixels.tobytes(), photo.sha256, photo.stored) == (array.tobytes(), "", None)
    grey = np.array([[0, 255]], np.uint8)
    for source in (grey, grey[:, :, None]):
        assert read_photo(source, LIMITS).pixels.getpixel((1, 0)) == (255, 255, 255)
    assert read_photo(np.zeros((1, 1, 4), np.uint8), LIMITS).pixels.getpixel((0, 0)) == (255, 255, 255)
    for wrong, found in (
        (np.zeros((2, 2, 3), np.float32), "float32 [2, 2, 3]"),
        (np.zeros((2, 2, 2), np.uint8), "uint8 [2, 2, 2]"),
        (np.zeros((0, 2, 3), np.uint8), "uint8 [0, 2, 3]"),
        (np.zeros(3, np.uint8), "uint8 [3]"),
        (np.zeros((1, 2, 2, 3), np.uint8), "uint8 [1, 2, 2, 3]"),
    ):
        told = f"a photo as an array must be uint8 [height, width, 3] (RGB), not {found}"
        assert refused(lambda: read_photo(wrong, LIMITS)) == (told, "not-an-image")  # noqa: B023
    for size in ((0, 5), (5, 0)):
        assert refused(lambda: read_photo(Image.new("RGB", size), LIMITS)) == ("the photo has no pixels", "empty")  # noqa: B023
    read_photo(array, limits(max_pixels=6))
    told = "the photo has 3 x 2 pixels, more than images.max_pixels allows"
    assert refused(lambda: read_photo(array, limits(max_pixels=5))) == (told, "too-many-pixels")
    noise = encoded(Image.effect_noise((64, 64), 90), "PNG")
    cut = Image.open(io.BytesIO(noise[: len(noise) // 2]))
    assert refused(lambda: read_photo(cut, LIMITS))[1] == "damaged"


def refused(act: Any) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        act()
    return str(caught.value), caught.value.reason


def test_the_line_about_what_cannot_be_read(tmp_path: Path) -> None:
    photo, mib = tmp_path / "a.png", 1 << 20
    photo.write_bytes(encoded(Image.new("RGB", (5, 4)), "PNG"))
    read_photo(str(photo), limits(max_pixels=20, max_bytes=photo.stat().st_size))
    told = f"{photo} has 5 x 4 pixels, more than images.max_pixels allows"
    assert refused(lambda: read_photo(photo, limits(max_pixels=19))) == (told, "too-many-pixels")
    assert refused(lambda: read_photo(tmp_path / "no.png", LIMITS)) == (
        f"no such photo: {tmp_path / 'no.png'}",
        "missing",
    )
    assert refused(lambda: read_photo(tmp_path, LIMITS)) == (f"{tmp_path} is not a file", "not-a-file")
    (tmp_path / "text.png").write_text("text")
    told = f"{tmp_path / 'text.png'} is not a readable image"
    assert refused(lambda: read_photo(tmp_path / "text.png", LIMITS)) == (told, "not-an-image")
    told = "the photo is not a readable image"
    assert refused(lambda: read_photo(b"text", LIMITS)) == (told, "not-an-image")
    (tmp_path / "large.png").write_bytes(b"x" * (3 * mib))
    told = f"{tmp_path / 'large.png'} is 3 MiB, more than images.max_bytes allows"
    for act in (read_photo, lambda path, settings: _raise(photo_digest(path, settings.max_bytes))):
        assert refused(lambda: act(tmp_path / "large.png", limits(max_bytes=3 * mib - 1))) == (told, "too-large")  # noqa: B023
    assert refused(lambda: read_photo(b"x" * 2 * mib, limits(max_bytes=1)))[0].startswith("the photo is 2 MiB")
    assert refused(lambda: read_photo("a\0b", LIMITS))[1] == "unreadable"


def _raise(found: str | ImageError) -> None:
    assert isinstance(found, ImageError)
    raise found


def test_a_digest_without_decoding(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    assert photo_digest(tmp_path / "a", 3_000_000) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
    (tmp_path / "empty").touch()
    for name, reason, told in (
        ("a", "too-large", f"{tmp_path / 'a'} is 2 MiB, more than images.max_bytes allows"),
        ("empty", "empty", f"{tmp_path / 'empty'} is empty"),
        ("none", "missing", f"no such photo: {tmp_path / 'none'}"),
        (".", "not-a-file", f"no such photo: {tmp_path}"),
    ):
        assert refused(lambda: _raise(photo_digest(tmp_path / name, 2_999_999))) == (told, reason)  # noqa: B023


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 255, 256, 65535], np.uint16, [0, 0, 0, 255]),  # one above 255: of 16 bits
        ([0, 1, 255], np.uint16, [0, 1, 255]),
        ([0, 128, 255], np.int32, [0, 128, 255]),
        ([-5, 256, 32896, 70000], np.int32, [0, 0, 128, 255]),
        ([0.0, 0.5, 1.0], np.float32, [0, 127, 255]),
        ([0.0, 1.0, 1.5], np.float32, [0, 1, 1]),
        ([float("nan"), float("inf"), 200.0], np.float32, [0, 0, 200]),
    ],
)
def test_greys_of_many_values(values: list[float], dtype: Any, expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype))
    out = io.BytesIO()
    image.save(out, "TIFF")
    for source in (out.getvalue(), image):
        pixels = read_photo(source, LIMITS).pixels
        assert [pixels.getpixel((n, 0)) for n in range(len(values))] == [(value,) * 3 for value in expected]


def test_the_suffixes_of_photos(tmp_path: Path) -> None:
    suffixes = (
        "apng avif bmp dib gif ico j2k jfif jp2 jpe jpeg jpg jpx mpo pbm pgm png pnm ppm psd tga tif tiff webp".split()
    )
    for name in (*(f"a.{suffix}" for suffix in suffixes), "a.pdf", "a.eps", "a.svg", "a", ".a.png"):
        (tmp_path / name).touch()
    assert [path.name for path in find_photos(tmp_path)] == [f"a.{suffix}" for suffix in suffixes]


def test_thumbnails_are_small_jpegs() -> None:
    picture = Image.effect_noise((300, 200), 90).convert("RGB")
    for side, size in ((150, (150, 100)), (300, (300, 200)), (400, (300, 200))):
        for quick in (False, True):
            small = Image.open(io.BytesIO(encode_jpeg(picture, side, quick=quick)))
            assert (small.format, small.size) == ("JPEG", size)
    assert picture.size == (300, 200)
    assert encode_jpeg(picture, 100) == encode_jpeg(picture, 100, 85, quick=False)
    assert len(encode_jpeg(picture, 300, 85)) < len(encode_jpeg(picture, 300, 85, quick=True))  # not optimised
    assert encode_jpeg(picture, 100) != encode_jpeg(picture, 100, 84)
    assert len(encode_photo(picture, 90)) > len(encode_photo(picture, 50))
    assert read_thumbnail(encoded(Image.new("L", (4096, 1), 9))).getpixel((0, 0)) == (9, 9, 9)
    told = "a thumbnail has 4097 x 1 pixels"
    assert refused(lambda: read_thumbnail(encoded(Image.new("L", (4097, 1))))) == (told, "too-many-pixels")
    assert refused(lambda: read_thumbnail(encoded(Image.new("L", (1, 1)), "PNG")))[1] == "damaged"
    assert refused(lambda: read_thumbnail(encoded(picture)[:200]))[0].startswith("a thumbnail is not a readable JPEG: ")


def test_pixels_of_a_spec() -> None:
    assert PixelSpec() == PixelSpec("none", 640, 0.0, 8)
    assert PixelSpec().changes_nothing
    assert not PixelSpec(equalize=0.5).changes_nothing
    assert not PixelSpec("fit").changes_nothing
    assert PixelSpec("fit", 32).to_dict() == {"resize": "fit", "imgsz": 32}
    assert PixelSpec("none", 32, 2.0, 4).to_dict() == {"equalize": 2.0, "tiles": 4}
    assert PixelSpec.from_dict(None) == PixelSpec.from_dict({}) == PixelSpec()
    for wrong in ({"resize": "x"}, {"sharpen": 1}):
        with pytest.raises(ValueError, match="unknown pixel operations") as caught:
            PixelSpec.from_dict(wrong)
        assert str(caught.value) == f"unknown pixel operations {wrong}"


def test_what_was_lost_and_one_worker(tmp_path: Path) -> None:
    assert str(Lost("crashed").error("a.jpg", 3)) == "a.jpg crashes the image decoder"
    assert Lost("crashed").error("a.jpg", 3).reason == "crashed"
    assert str(Lost("timeout").error("a.jpg", 2.5)) == "a.jpg takes more than 2.5 s to decode"
    assert Lost("timeout").error("a.jpg", 3).reason == "timeout"
    photo = tmp_path / "a.jpg"
    photo.write_bytes(encoded(Image.new("RGB", (64, 32), "red")))
    took: list[float] = []
    jobs = [("a", photo), ("none", tmp_path / "none.jpg"), ("b", photo)]
    found = dict(decode_all(jobs, LIMITS, timeout=9, workers=1, least=8, seconds=took.append))
    assert list(found) == ["a", "none", "b"]
    assert isinstance(found["none"], ImageError)
    for key in ("a", "b"):
        whole = read_photo(photo, LIMITS, 8)
        decoded = found[key]
        assert isinstance(decoded, Photo)
        assert (decoded.pixels.tobytes(), decoded.sha256) == (whole.pixels.tobytes(), whole.sha256)
        assert (decoded.full, decoded.stored, decoded.reduced) == ((64, 32), None, True)
    assert len(took) == 2
    assert all(0 < seconds < 9 for seconds in took)
    assert list(in_processes(os.path.basename, [(1, "a/b"), (2, "c")], timeout=9, workers=1)) == [(1, "b"), (2, "c")]
