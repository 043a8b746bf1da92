"""The only code that opens image files: upright by EXIF, any mode to RGB, limits before decoding,
crops, thumbnails.

The result is always a Pillow image in mode RGB without metadata (EXIF, GPS, comments).
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, TypeAlias

from PIL import Image, ImageOps, UnidentifiedImageError

from fashionrec.common.system import output_discarded
from fashionrec.errors import ImageError
from fashionrec.types import Box

if TYPE_CHECKING:
    import numpy as np

    from fashionrec.config import CropConfig, ImagesConfig

#: A photo: a path, an image file's bytes, or pixels (an array is uint8 [height, width, 3], RGB).
PhotoSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray"

#: Allowed decoders. Vector and script formats (EPS, WMF, PDF) are never decoded.
COMMON_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM")  # Pillow loads these first; the others import everything
FORMATS = (*COMMON_FORMATS, "MPO", "WEBP", "AVIF", "DIB", "TIFF", "JPEG2000", "ICO", "PSD", "TGA")

#: Suffixes searched in a folder of photos. A file given by name is opened whatever its suffix.
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .avif .gif .bmp .dib .tif .tiff .jp2 .j2k .jpx .ppm .pgm .pbm .pnm"
    " .ico .psd .tga".split()
)

#: Pixels of a thumbnail's long side.
MAX_THUMBNAIL = 4096

_MIB = 1 << 20
_ORIENTATION = 0x0112  # EXIF


class Stored(NamedTuple):
    """Properties of a photo's file: format, mode, size before rotation, and EXIF orientation."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int = 1

    @property
    def plain(self) -> bool:
        """True if every reader shows the file as we do.

        RGB, not rotated, in a common format.
        """
        return self.format in ("JPEG", "PNG") and self.mode == "RGB" and self.orientation == 1


@dataclass(frozen=True)
class Photo:
    """A decoded photo. ``pixels`` is RGB and upright; ``sha256`` is of the file's bytes (empty for
    pixels).

    ``stored`` describes the file: format, mode, size in pixels before rotation, and EXIF
    orientation (1-8); None if it was decoded in another process. ``full`` is the upright size of
    the full photo if ``pixels`` were decoded at reduced size; ``width``, ``height`` and boxes are
    always those of the full photo.
    """

    pixels: Image.Image
    sha256: str
    stored: Stored | None = None
    full: tuple[int, int] | None = None

    @property
    def width(self) -> int:
        return self.full[0] if self.full else self.pixels.width

    @property
    def height(self) -> int:
        return self.full[1] if self.full else self.pixels.height

    @property
    def reduced(self) -> bool:
        """True if ``pixels`` has fewer pixels than the photo."""
        return self.pixels.size != (self.width, self.height)

    def in_full(self, box: Box) -> Box:
        """Convert a box of ``pixels`` to pixels of the full photo."""
        if not self.reduced:
            return box
        return Box(*(length * self._part for length in box)).clip(self.width, self.height)

    def crop(self, box: Box, settings: CropConfig) -> Image.Image:
        """Crop one garment: the box with a margin, padded to a square if the settings say so.

        ``box`` is in pixels of the full photo; parts outside are clipped. The result is at least 1
        x 1.
        """
        return _squared(self.pixels.crop(self._cut(box, settings)), settings)

    def shows(self, box: Box, settings: CropConfig, side: int) -> bool:
        """Return whether the crop of ``box`` has ``side`` pixels, or as many as the full photo has.

        The crop's longer side counts if it is padded to a square, otherwise the shorter.
        """
        if not self.reduced:
            return True
        x1, y1, x2, y2 = self._cut(box, settings)
        lengths = (x2 - x1, y2 - y1)
        return (max(lengths) if settings.square else min(lengths)) >= side

    def _cut(self, box: Box, settings: CropConfig) -> tuple[int, int, int, int]:
        x1, y1, x2, y2 = crop_rectangle(self.width, self.height, box, settings)
        if not self.reduced:
            return x1, y1, x2, y2
        part, (wide, high) = self._part, self.pixels.size
        left, top = min(round(x1 / part), wide - 1), min(round(y1 / part), high - 1)
        return left, top, max(left + 1, min(round(x2 / part), wide)), max(top + 1, min(round(y2 / part), high))

    @property
    def _part(self) -> int:
        """Pixels of the photo per pixel of ``pixels``, in each direction; the last row or column
        may stand for fewer.
        """
        return round(max(self.width, self.height) / max(self.pixels.size))


def read_photo(source: PhotoSource, limits: ImagesConfig, least: int | None = None) -> Photo:
    """Read and decode a photo from a path or bytes, or take its pixels.

    With ``least`` a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, with a long side of at
    least ``least`` pixels, unless ``limits`` (``images.scaled_decoding``) forbid it: see
    ``Photo.reduced``.

    Raises :class:`ImageError` with a reason: ``missing``, ``not-a-file``, ``empty``, ``too-large``,
    ``too-many-pixels``, ``not-an-image``, ``damaged``.
    """
    if not isinstance(source, (str, os.PathLike, bytes)):
        return _photo_of(source, limits)
    name = "the photo" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _read_bytes(Path(source), limits.max_bytes)
    _check_size(name, len(data), limits.max_bytes)  # the file may have grown
    pixels, stored, full = _decode(data, name, limits, least if limits.scaled_decoding == "auto" else None)
    return Photo(pixels, hashlib.sha256(data).hexdigest(), stored, full)


def _photo_of(source: Image.Image | np.ndarray, limits: ImagesConfig) -> Photo:
    """Return a photo from pixels read elsewhere, upright and RGB like those read here."""
    try:
        image = source if isinstance(source, Image.Image) else _image_of(source)
        if not image.width or not image.height:
            raise ImageError("the photo has no pixels", reason="empty")
        if image.width * image.height > limits.max_pixels:
            size = f"{image.width} x {image.height}"
            raise ImageError(
                f"the photo has {size} pixels, more than images.max_pixels allows", reason="too-many-pixels"
            )
        pixels = _to_rgb(_upright(image))
    except ImageError:
        raise
    except Exception as error:  # errors of lazily opened files, of any type
        raise ImageError(f"the photo is damaged: {error or type(error).__name__}", reason="damaged") from None
    return Photo(pixels, "")


def _image_of(pixels: np.ndarray) -> Image.Image:
    import numpy as np

    array = np.asarray(pixels)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        found = f"{array.dtype} {list(array.shape)}"
        raise ImageError(
            f"a photo as an array must be uint8 [height, width, 3] (RGB), not {found}", reason="not-an-image"
        )
    return Image.fromarray(np.ascontiguousarray(array.squeeze(2) if array.ndim == 3 and channels == 1 else array))


def least_side(*sides: int) -> int:
    """Return the minimum long side of a photo decoded at reduced size, from the sides of what is
    made from it.

    Twice as much: with one and a half times, boxes have an IoU of .95 instead of .99 (12
    megapixels), since detectors are trained on photos that were not smoothed before.
    """
    return max(sides) * 2


def find_photos(folder: Path) -> Iterator[Path]:
    """Return image files below a folder by suffix, sorted, without hidden files and folders, not
    following links to folders.
    """
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(root, name)


def crop_rectangle(width: int, height: int, box: Box, settings: CropConfig) -> tuple[int, int, int, int]:
    """Return the integer pixels (left, top, right, bottom) that :meth:`Photo.crop` cuts from a
    ``width`` x ``height`` photo.
    """
    margin = settings.margin * max(box.width, box.height)
    wide = Box(box.x1 - margin, box.y1 - margin, box.x2 + margin, box.y2 + margin).clip(width, height)
    x1, y1 = min(int(wide.x1), width - 1), min(int(wide.y1), height - 1)
    return x1, y1, max(x1 + 1, round(wide.x2)), max(y1 + 1, round(wide.y2))


def _squared(cut: Image.Image, settings: CropConfig) -> Image.Image:
    if settings.square and cut.width != cut.height:
        side = max(cut.size)
        square = Image.new("RGB", (side, side), (settings.pad,) * 3)
        square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
        cut = square
    return cut


def encode_jpeg(pixels: Image.Image, side: int, quality: int = 85, *, quick: bool = False) -> bytes:
    """Encode a JPEG with sides of at most ``side`` pixels, without metadata.

    ``quick`` takes half the time: a smaller filter, and a file that is a few per cent larger.
    """
    small = pixels.copy()
    small.thumbnail((side, side), Image.Resampling.HAMMING if quick else Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=quality, optimize=not quick)
    return out.getvalue()


def encode_photo(pixels: Image.Image, quality: int) -> bytes:
    """Encode the full image as a JPEG without metadata; the same pixels give the same bytes."""
    out = io.BytesIO()
    pixels.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _read_bytes(path: Path, limit: int) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path} is not a file", reason="not-a-file")
        _check_size(str(path), status.st_size, limit)
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"no such photo: {path}", reason="missing", hint="check the path") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {error}", reason="unreadable") from None
    if not data:
        raise ImageError(f"{path} is empty", reason="empty")
    return data


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise ImageError(f"{name} is {size // _MIB} MiB, more than images.max_bytes allows", reason="too-large")


def _decode(
    data: bytes, name: str, limits: ImagesConfig, least: int | None
) -> tuple[Image.Image, Stored, tuple[int, int] | None]:
    """Return upright pixels, properties of the file, and the upright full size if the pixels are
    reduced.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata; only the pixels matter here
        try:
            with _open(io.BytesIO(data)) as opened:
                if opened.width * opened.height > limits.max_pixels:
                    raise ImageError(
                        f"{name} has {opened.width} x {opened.height} pixels, more than images.max_pixels allows",
                        reason="too-many-pixels",
                    )
                whole = _scale(opened, least) if least else None
                # libtiff prints hundreds of lines to standard error; the exception has the reason
                with output_discarded(2) if opened.format == "TIFF" else nullcontext():
                    opened.load()
                width, height = whole or opened.size
                stored = Stored(opened.format or "", opened.mode, width, height, _orientation(opened))
                upright = _upright(opened)
                if whole and upright is not opened and stored.orientation >= 5:
                    whole = whole[::-1]
                return _to_rgb(upright), stored, whole
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError(f"{name} is not a readable image", reason="not-an-image") from None
        except Image.DecompressionBombError:
            raise ImageError(f"{name} has too many pixels", reason="too-many-pixels") from None
        except MemoryError:
            raise ImageError(f"{name} needs more memory than available", reason="too-many-pixels") from None
        except Exception as error:  # a decoder's own, of any type: struct.error, SyntaxError, KeyError, OSError ...
            raise ImageError(f"{name} is damaged: {error or type(error).__name__}", reason="damaged") from None


def _scale(opened: Image.Image, least: int) -> tuple[int, int] | None:
    """Decode a JPEG at the smallest of 1/2, 1/4 and 1/8 at which its long side has ``least``
    pixels; return its full size if reduced.

    If the size is not a multiple, the last row and column stand for fewer pixels: after rotation
    they may be the first, and everything would shift by a fraction of a pixel. Then it is decoded
    at full size.
    """
    size = opened.size
    for part in (8, 4, 2):
        if max(size) >= least * part and (not (size[0] % part or size[1] % part) or _orientation(opened) == 1):
            opened.draft(None, (max(1, size[0] // part), max(1, size[1] // part)))
            return None if opened.size == size else size
    return None


def read_thumbnail(data: bytes) -> Image.Image:
    """Read a catalogue's thumbnail, which must be a JPEG.

    Raises :class:`ImageError`.
    """
    try:
        opened = _open(io.BytesIO(data), ("JPEG",))
        if max(opened.size) <= MAX_THUMBNAIL:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"a thumbnail is not a readable JPEG: {error}", reason="damaged") from None
    raise ImageError(f"a thumbnail has {opened.width} x {opened.height} pixels", reason="too-many-pixels")


def _open(file: IO[bytes], formats: tuple[str, ...] = COMMON_FORMATS) -> Image.Image:
    # ultralytics, if imported, replaces Pillow's open by one that tries to install packages; use
    # Pillow's own
    pillow_open = getattr(sys.modules.get("ultralytics.utils.patches"), "_image_open", Image.open)
    try:
        opened: Image.Image = pillow_open(file, formats=formats)
        return opened
    except UnidentifiedImageError:
        if formats is not COMMON_FORMATS:
            raise
        Image.init()
        opened = pillow_open(file, formats=[name for name in FORMATS if name in Image.OPEN])
        return opened


def _orientation(opened: Image.Image) -> int:
    try:
        found = int(opened.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1
    return found if 1 <= found <= 8 else 1


def _upright(opened: Image.Image) -> Image.Image:
    if _orientation(opened) == 1:
        return opened
    try:
        return ImageOps.exif_transpose(opened)
    except Exception:  # broken EXIF does not affect the pixels
        return opened


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to mode RGB: transparency onto white, 16-bit and float greys scaled to 8 bits; only
    pixels are kept.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _grey_to_8bit(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image.alpha_composite(rgba)
    rgb = image.convert("RGB")  # a separate image, even if it was RGB before
    rgb.info = {}
    return rgb


def _grey_to_8bit(image: Image.Image) -> Image.Image:
    import numpy as np

    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode == "F" and values.max(initial=0.0) <= 1.0:
        top = 1.0
    else:
        top = 65535.0 if values.max(initial=0.0) > 255 else 255.0
    return Image.fromarray(np.clip(values * (255.0 / top), 0, 255).astype(np.uint8))


def photo_digest(path: Path, limit: int) -> str | ImageError:
    """Return the sha256 of a photo's bytes, or the error of reading it. Nothing is decoded."""
    try:
        if not path.is_file():
            reason = "not-a-file" if path.exists() else "missing"
            return ImageError(f"no such photo: {path}", reason=reason)
        size = path.stat().st_size
        if size == 0:
            return ImageError(f"{path} is empty", reason="empty")
        if size > limit:
            return ImageError(f"{path} is {size >> 20} MiB, more than images.max_bytes allows", reason="too-large")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        return ImageError(f"cannot read {path}: {error}", reason="unreadable")
