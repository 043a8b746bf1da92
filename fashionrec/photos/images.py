"""The only place that opens image files: upright by EXIF, any mode to RGB, limits before decoding,
crops, thumbnails.

What comes out is always a Pillow image in mode RGB whose metadata (EXIF, GPS, comments) is gone.
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

from fashionrec.common.system import silenced
from fashionrec.errors import ImageError
from fashionrec.types import Box

if TYPE_CHECKING:
    import numpy as np

    from fashionrec.config import CropConfig, ImagesConfig

#: A photo as a caller has it: a path, an image file's bytes, or its pixels (an array is uint8
#: [height, width, 3], RGB).
PhotoSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray"

#: Decoders that may run: what photos come in. Vector and script formats (EPS, WMF, PDF) are never
#: handed to a decoder.
COMMON_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM")  # Pillow loads these first; the others cost an import of all
FORMATS = (*COMMON_FORMATS, "MPO", "WEBP", "AVIF", "DIB", "TIFF", "JPEG2000", "ICO", "PSD", "TGA")

#: What a folder of photos is searched for. A file given by name is opened whatever it is called.
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .avif .gif .bmp .dib .tif .tiff .jp2 .j2k .jpx .ppm .pgm .pbm .pnm"
    " .ico .psd .tga".split()
)

#: Pixels of a thumbnail's long side.
MAX_THUMBNAIL = 4096

_MIB = 1 << 20
_ORIENTATION = 0x0112  # EXIF


class Stored(NamedTuple):
    """What the file of a photo holds: its format, its mode, its size before it is turned, and its
    EXIF orientation.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int = 1

    @property
    def plain(self) -> bool:
        """Whether every reader shows the file as we do:

        RGB, not turned, of a format that all read.
        """
        return self.format in ("JPEG", "PNG") and self.mode == "RGB" and self.orientation == 1


@dataclass(frozen=True)
class Photo:
    """One decoded photo. ``pixels`` is RGB and upright; ``sha256`` is of the file's bytes (empty
    for pixels).

    ``stored`` is what the file itself holds: its format, mode, size in pixels before it was turned,
    and EXIF orientation (1-8); None where it was decoded in another process. ``full`` is the
    upright size of the whole photo where ``pixels`` were decoded at a part of it; ``width``,
    ``height`` and boxes are always those of the whole photo.
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
        """Whether ``pixels`` are fewer than those of the photo."""
        return self.pixels.size != (self.width, self.height)

    def in_full(self, box: Box) -> Box:
        """A box of ``pixels`` in pixels of the whole photo."""
        if not self.reduced:
            return box
        return Box(*(length * self._part for length in box)).clip(self.width, self.height)

    def crop(self, box: Box, settings: CropConfig) -> Image.Image:
        """Cut one garment out: the box with a margin, padded to a square where the settings say so.

        ``box`` is in pixels of the whole photo; parts outside it are clipped. The result is at
        least 1 x 1.
        """
        return _squared(self.pixels.crop(self._cut(box, settings)), settings)

    def shows(self, box: Box, settings: CropConfig, side: int) -> bool:
        """Whether the crop of ``box`` has ``side`` pixels, or as many as the whole photo has of it.
        It is the crop's longer side that counts where it is padded to a square, else the shorter.
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
        """How many pixels of the photo, each way, are one of ``pixels``: a last row or column may
        stand for fewer.
        """
        return round(max(self.width, self.height) / max(self.pixels.size))


def read_photo(source: PhotoSource, limits: ImagesConfig, least: int | None = None) -> Photo:
    """Read and decode one photo from a path or from its bytes, or take its pixels.

    With ``least`` a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, its long side ``least``
    pixels at least, unless ``limits`` (``images.scaled_decoding``) forbid it: see
    ``Photo.reduced``.

    Raises :class:`ImageError` with a reason: ``missing``, ``not-a-file``, ``empty``, ``too-large``,
    ``too-many-pixels``, ``not-an-image``, ``damaged``.
    """
    if not isinstance(source, (str, os.PathLike, bytes)):
        return _photo_of(source, limits)
    name = "the photo" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _read_bytes(Path(source), limits.max_bytes)
    _check_size(name, len(data), limits.max_bytes)  # a file may have grown
    pixels, stored, full = _decode(data, name, limits, least if limits.scaled_decoding == "auto" else None)
    return Photo(pixels, hashlib.sha256(data).hexdigest(), stored, full)


def _photo_of(source: Image.Image | np.ndarray, limits: ImagesConfig) -> Photo:
    """A photo of pixels that somebody else has read, upright and RGB as those that are
    read here.
    """
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
    except Exception as error:  # a lazily opened file's own, of any type
        raise ImageError(f"the photo is damaged: {error or type(error).__name__}", reason="damaged") from None
    return Photo(pixels, "")


def _image_of(pixels: np.ndarray) -> Image.Image:
    import numpy as np

    array = np.asarray(pixels)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        found = f"{array.dtype} {list(array.shape)}"
        raise ImageError(f"a photo as an array is uint8 [height, width, 3] (RGB), not {found}", reason="not-an-image")
    return Image.fromarray(np.ascontiguousarray(array.squeeze(2) if array.ndim == 3 and channels == 1 else array))


def least_side(*sides: int) -> int:
    """The long side that a photo decoded at a part of its size must have, by the sides of what is
    made of it.

    Twice as much: with half as much again boxes overlap by .95 and not by .99 (12 megapixels),
    since a detector is trained on photos that were not smoothed before.
    """
    return max(sides) * 2


def find_photos(folder: Path) -> Iterator[Path]:
    """Image files below a folder by suffix, sorted, hidden files and folders left out, links to
    folders not followed.
    """
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(root, name)


def crop_rectangle(width: int, height: int, box: Box, settings: CropConfig) -> tuple[int, int, int, int]:
    """The whole pixels (left, top, right, bottom) of a ``width`` x ``height`` photo that
    :meth:`Photo.crop` cuts out.
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
    """A JPEG of the picture, no side longer than ``side`` pixels, without any metadata.

    ``quick`` takes half the time: a filter of fewer pixels, and a file that is a few per cent
    larger.
    """
    small = pixels.copy()
    small.thumbnail((side, side), Image.Resampling.HAMMING if quick else Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=quality, optimize=not quick)
    return out.getvalue()


def encode_photo(pixels: Image.Image, quality: int) -> bytes:
    """A JPEG of the whole picture without any metadata; the same bytes for the same pixels."""
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
        raise ImageError(f"no photo at {path}", reason="missing", hint="check the path") from None
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
    """Upright pixels, what the file holds, and the upright size of the whole where the pixels are a
    part of it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what matters here is whether pixels come out
        try:
            with _open(io.BytesIO(data)) as opened:
                if opened.width * opened.height > limits.max_pixels:
                    raise ImageError(
                        f"{name} has {opened.width} x {opened.height} pixels, more than images.max_pixels allows",
                        reason="too-many-pixels",
                    )
                whole = _scale(opened, least) if least else None
                # libtiff tells standard error hundreds of lines; what is wrong is in the exception
                with silenced(2) if opened.format == "TIFF" else nullcontext():
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
            raise ImageError(f"{name} is not an image that can be read", reason="not-an-image") from None
        except Image.DecompressionBombError:
            raise ImageError(f"{name} has too many pixels", reason="too-many-pixels") from None
        except MemoryError:
            raise ImageError(f"{name} needs more memory than there is", reason="too-many-pixels") from None
        except Exception as error:  # a decoder's own, of any type: struct.error, SyntaxError, KeyError, OSError ...
            raise ImageError(f"{name} is damaged: {error or type(error).__name__}", reason="damaged") from None


def _scale(opened: Image.Image, least: int) -> tuple[int, int] | None:
    """Have a JPEG decoded at the smallest of 1/2, 1/4 and 1/8 at which its long side has ``least``
    pixels; returns its own size where that is done.

    Where the size is no multiple, the last row and column stand for fewer pixels of it: once the
    photo is turned they may be the first, and all would be moved by a part of a pixel. Then it is
    left whole.
    """
    size = opened.size
    for part in (8, 4, 2):
        if max(size) >= least * part and (not (size[0] % part or size[1] % part) or _orientation(opened) == 1):
            opened.draft(None, (max(1, size[0] // part), max(1, size[1] // part)))
            return None if opened.size == size else size
    return None


def read_thumbnail(data: bytes) -> Image.Image:
    """A catalogue's thumbnail: a JPEG, and nothing else that Pillow reads.

    Raises :class:`ImageError`.
    """
    try:
        opened = _open(io.BytesIO(data), ("JPEG",))
        if max(opened.size) <= MAX_THUMBNAIL:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"a thumbnail is not a JPEG that can be read: {error}", reason="damaged") from None
    raise ImageError(f"a thumbnail has {opened.width} x {opened.height} pixels", reason="too-many-pixels")


def _open(file: IO[bytes], formats: tuple[str, ...] = COMMON_FORMATS) -> Image.Image:
    # ultralytics, where it is loaded, replaces Pillow's open by one that tries to install packages;
    # take Pillow's own
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
    except Exception:  # broken EXIF says nothing about the pixels, which are there
        return opened


def _to_rgb(image: Image.Image) -> Image.Image:
    """Mode RGB: transparency onto white, 16-bit and float greys scaled to 8 bits; nothing but
    pixels kept.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _grey_to_8bit(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image.alpha_composite(rgba)
    rgb = image.convert("RGB")  # a plain image of its own, also where it was RGB before
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
    """sha256 of a photo's bytes, or why it cannot be read. Nothing is decoded."""
    try:
        if not path.is_file():
            reason = "not-a-file" if path.exists() else "missing"
            return ImageError(f"no photo at {path}", reason=reason)
        size = path.stat().st_size
        if size == 0:
            return ImageError(f"{path} is empty", reason="empty")
        if size > limit:
            return ImageError(f"{path} is {size >> 20} MiB, more than images.max_bytes allows", reason="too-large")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        return ImageError(f"cannot read {path}: {error}", reason="unreadable")
