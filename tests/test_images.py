"""Opening pictures: any mode, upright, within limits; crops and thumbnails."""

import contextlib
import io
import os
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fashionrec.config import load_config
from fashionrec.errors import ImageError
from fashionrec.photos.decoding import decode_all, in_processes
from fashionrec.photos.images import Photo, encode_jpeg, find_photos, read_photo
from fashionrec.types import Box

CONFIG = load_config(env={}).config
LIMITS, CROP = CONFIG.images, CONFIG.crop


def png(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def test_exif_orientation_is_applied_and_metadata_is_gone() -> None:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))  # left half blue
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    exif[0x010F] = "secret camera"
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif, quality=95, comment=b"secret comment")
    photo = read_photo(out.getvalue(), LIMITS)
    assert (photo.width, photo.height) == (20, 40)
    assert photo.pixels.getpixel((10, 5))[2] > 200  # what was left is now on top
    assert not photo.pixels.info
    assert not dict(photo.pixels.getexif())
    assert b"secret" not in encode_jpeg(photo.pixels, 64)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I", "F", "I;16", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("L", (8, 8), 200)
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 200 * 257, np.uint16))
    elif mode == "I":
        image = Image.fromarray(np.full((8, 8), 200 * 257, np.int32))
    else:
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, "TIFF" if mode in ("F", "I", "CMYK", "YCbCr", "I;16") else "PNG")
    pixels = read_photo(out.getvalue(), LIMITS).pixels
    assert pixels.mode == "RGB"
    expected = 255 if mode == "1" else 200
    assert abs(pixels.getpixel((4, 4))[0] - expected) <= 12


def test_transparency_is_put_onto_white() -> None:
    assert read_photo(png(Image.new("RGBA", (4, 4), (255, 0, 0, 0))), LIMITS).pixels.getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not-an-image"),
        (b"hello, this is text", "not-an-image"),
        (b"<html>not a photo</html>", "not-an-image"),
        (png(Image.new("RGB", (64, 64), "red"))[:60], "damaged"),
    ],
)
def test_what_cannot_be_read_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_photo(data, LIMITS)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError) as caught:
        read_photo(bomb, LIMITS)
    assert caught.value.reason == "too-many-pixels"


def test_files_that_are_no_photos_have_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    for name, reason in {"none.jpg": "missing", "empty.jpg": "empty", ".": "not-a-file"}.items():
        with pytest.raises(ImageError) as caught:
            read_photo(tmp_path / name, LIMITS)
        assert caught.value.reason == reason
    small = LIMITS.model_copy(update={"max_bytes": 10})
    (tmp_path / "large.png").write_bytes(png(Image.new("RGB", (9, 9))))
    with pytest.raises(ImageError) as caught:
        read_photo(tmp_path / "large.png", small)
    assert caught.value.reason == "too-large"


def test_bytes_have_the_limits_of_files() -> None:
    small = LIMITS.model_copy(update={"max_bytes": 10})
    for data, reason in ((b"x" * 11, "too-large"), (b"x" * 10, "not-an-image")):
        with pytest.raises(ImageError) as caught:
            read_photo(data, small)
        assert caught.value.reason == reason


def test_find_photos_is_sorted_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "sub/c.webp", ".hidden.jpg", ".thumbs/d.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in find_photos(tmp_path)] == ["a.png", "b.JPG", "sub/c.webp"]


@given(
    st.integers(1, 60), st.integers(1, 60), st.floats(-80, 80), st.floats(-80, 80), st.floats(0, 90), st.floats(0, 90)
)
def test_a_crop_is_never_empty_and_square_where_asked(
    width: int, height: int, x: float, y: float, w: float, h: float
) -> None:
    crop = Photo(Image.new("RGB", (width, height)), "").crop(Box(x, y, x + w, y + h), CROP)
    assert crop.width == crop.height >= 1


def test_a_crop_is_the_box_with_its_margin() -> None:
    image = Image.new("RGB", (100, 100), "white")
    image.paste("red", (20, 20, 60, 60))
    exact = Photo(image, "").crop(Box(20, 20, 60, 60), CROP.model_copy(update={"margin": 0.0}))
    assert exact.size == (40, 40)
    assert exact.getcolors() == [(1600, (255, 0, 0))]
    assert Photo(image, "").crop(Box(20, 20, 60, 60), CROP).size == (44, 44)
    tall = Photo(image, "").crop(Box(20, 20, 30, 60), CROP.model_copy(update={"margin": 0.0}))
    assert tall.size == (40, 40)
    assert tall.getpixel((2, 20)) == (255, 255, 255)
    assert tall.getpixel((20, 20)) == (255, 0, 0)


def test_decoding_in_processes_keeps_order_and_reports_errors(tmp_path: Path) -> None:
    for n in range(6):
        Image.new("RGB", (10 + n, 10), (n, 0, 0)).save(tmp_path / f"{n}.png")
    (tmp_path / "3.png").write_bytes(b"broken")
    found = list(decode_all([(n, tmp_path / f"{n}.png") for n in range(6)], LIMITS, timeout=30, workers=2))
    assert [key for key, _ in found] == list(range(6))
    assert isinstance(found[3][1], ImageError)
    assert [outcome.width for _, outcome in found if not isinstance(outcome, ImageError)] == [10, 11, 12, 14, 15]
    again = read_photo(tmp_path / "5.png", LIMITS)
    assert not isinstance(found[5][1], ImageError)
    assert found[5][1].pixels.tobytes() == again.pixels.tobytes()
    assert found[5][1].sha256 == again.sha256


def test_a_photo_that_stalls_or_crashes_the_decoder_costs_one_row(tmp_path: Path) -> None:
    for name in ("a", "c"):
        Image.new("RGB", (5, 5)).save(tmp_path / f"{name}.png")
    photos = [("a", tmp_path / "a.png"), ("stall", Stalling()), ("crash", Crashing()), ("c", tmp_path / "c.png")]
    found = dict(decode_all(photos, LIMITS, timeout=5, workers=2))
    assert {key: getattr(outcome, "reason", "fine") for key, outcome in found.items()} == {
        "a": "fine",
        "stall": "timeout",
        "crash": "crashed",
        "c": "fine",
    }


class Stalling:
    """Stands in for a path whose decoder never ends: it is asked for its size in the worker."""

    def __fspath__(self) -> str:
        import time

        time.sleep(60)
        return "never"


class Crashing:
    def __fspath__(self) -> str:
        import os

        os._exit(11)


def test_pillows_own_open_is_used_though_ultralytics_replaces_it() -> None:
    """Its replacement tries to install a package for every file that is not an image."""
    pytest.importorskip("ultralytics.utils.patches")
    with pytest.raises(ImageError) as caught:
        read_photo(b"no image", LIMITS)
    assert caught.value.reason == "not-an-image"


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    """Fresh processes run the script again: without the guard they would start others, and none
    would decode.
    """
    import subprocess
    import sys

    Image.new("RGB", (5, 5)).save(tmp_path / "a.png")
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from fashionrec.config import load_config\n"
        "from fashionrec.photos.decoding import decode_all, in_processes\n"
        f"photos = [(0, Path({str(tmp_path / 'a.png')!r}))]\n"
        "print(list(decode_all(photos, load_config(env={}).config.images, timeout=20, workers=2)))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "worker processes cannot be started" in done.stderr  # a worker that ends later may have the last word


def test_a_broken_tiff_is_one_error_and_not_what_libtiff_thinks_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("1").save(out, "TIFF", compression="group4")
    data = out.getvalue()
    middle = len(data) // 2
    with pytest.raises(ImageError):
        read_photo(data[:middle], LIMITS)
    torn = data[:40] + bytes(byte ^ 0x5A for byte in data[40:middle]) + data[middle:]
    with contextlib.suppress(ImageError):
        read_photo(torn, LIMITS)
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def _large(size: int) -> bytes:
    return bytes(size)


def test_workers_killed_within_a_result_are_not_waited_for() -> None:
    """The rest of the result would be waited for, for ever: the pipe's other end is open in this
    process too.
    """
    for n in range(4):
        stop = threading.Event()
        found = in_processes(_large, ((n, 64 << 20) for n in range(8)), timeout=60, workers=2, stop=stop)
        next(found)
        time.sleep(0.012 * n)
        ended = threading.Thread(target=found.close, daemon=True)
        ended.start()
        ended.join(30)
        assert not ended.is_alive()
