"""The only place that opens image files: upright by EXIF, any mode to RGB, limits before decoding, crops, thumbnails.

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps, UnidentifiedImageError

from fashionrec.errors import ImageError
from fashionrec.types import Box

if TYPE_CHECKING:
    import numpy as np

    from fashionrec.config import CropConfig, ImagesConfig

#: Decoders that may run: what photos come in. Vector and script formats (EPS, WMF, PDF) are never handed to a decoder.
COMMON_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM")  # Pillow loads these first; the others cost an import of all
FORMATS = (*COMMON_FORMATS, "MPO", "WEBP", "AVIF", "DIB", "TIFF", "JPEG2000", "ICO", "PSD", "TGA")

#: What a folder of photos is searched for. A file given by name is opened whatever it is called.
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .avif .gif .bmp .dib .tif .tiff .jp2 .j2k .jpx .ppm .pgm .pbm .pnm"
    " .ico .psd .tga".split()
)

_MIB = 1 << 20
_ORIENTATION = 0x0112  # EXIF


@dataclass(frozen=True)
class Stored:
    format: str
    mode: str
    width: int
    height: int
    orientation: int = 1

    @property
    def plain(self) -> bool:
        """Whether every reader shows the file as we do: RGB, not turned, of a format that all read."""
        return self.format in ("JPEG", "PNG") and self.mode == "RGB" and self.orientation == 1


@dataclass(frozen=True)
class Photo:
    """One decoded photo. ``pixels`` is RGB and upright; ``sha256`` is of the file's bytes.

    ``stored`` is what the file itself holds: its format, mode, size in pixels before it was turned, and EXIF orientation (1-8);
    None where it was decoded in another process.
    """

    pixels: Image.Image
    sha256: str
    stored: Stored | None = None

    @property
    def width(self) -> int:
        return self.pixels.width

    @property
    def height(self) -> int:
        return self.pixels.height


def read_photo(source: str | Path | bytes, limits: ImagesConfig) -> Photo:
    """Read and decode one photo from a path or from its bytes.

    Raises :class:`ImageError` with a reason: ``missing``, ``not-a-file``, ``empty``, ``too-large``, ``too-many-pixels``,
    ``not-an-image``, ``damaged``.
    """
    name = "the photo" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _read_bytes(Path(source), limits.max_bytes)
    pixels, stored = _decode(data, name, limits)
    return Photo(pixels, hashlib.sha256(data).hexdigest(), stored)


def find_photos(folder: Path) -> Iterator[Path]:
    """Image files below a folder by suffix, sorted, hidden files and folders left out, links to folders not followed."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(root, name)


def crop_garment(pixels: Image.Image, box: Box, settings: CropConfig) -> Image.Image:
    """Cut one garment out of a photo: the box with a margin, padded to a square where the settings say so.

    ``box`` is in pixels of ``pixels``; parts outside the picture are clipped. The result is at least 1 x 1.
    """
    margin = settings.margin * max(box.width, box.height)
    wide = Box(box.x1 - margin, box.y1 - margin, box.x2 + margin, box.y2 + margin).clip(pixels.width, pixels.height)
    x1, y1 = min(int(wide.x1), pixels.width - 1), min(int(wide.y1), pixels.height - 1)
    x2, y2 = max(x1 + 1, round(wide.x2)), max(y1 + 1, round(wide.y2))
    cut = pixels.crop((x1, y1, x2, y2))
    if settings.square and cut.width != cut.height:
        side = max(cut.size)
        square = Image.new("RGB", (side, side), (settings.pad,) * 3)
        square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
        cut = square
    return cut


def encode_jpeg(pixels: Image.Image, side: int, quality: int = 85) -> bytes:
    """A JPEG of the picture, no side longer than ``side`` pixels, without any metadata."""
    small = pixels.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def encode_photo(pixels: Image.Image, quality: int) -> bytes:
    """A JPEG of the whole picture without any metadata; the same bytes for the same pixels."""
    out = io.BytesIO()
    pixels.save(out, "JPEG", quality=quality)
    return out.getvalue()


def to_array(pixels: Image.Image) -> np.ndarray:
    """uint8 [height, width, 3], RGB."""
    import numpy as np

    return np.asarray(pixels, dtype=np.uint8)


def _read_bytes(path: Path, limit: int) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path} is not a file", reason="not-a-file")
        if status.st_size > limit:
            raise ImageError(
                f"{path} is {status.st_size // _MIB} MiB, more than images.max_bytes allows", reason="too-large"
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"no photo at {path}", reason="missing", hint="check the path") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {error}", reason="unreadable") from None
    if not data:
        raise ImageError(f"{path} is empty", reason="empty")
    return data


def _decode(data: bytes, name: str, limits: ImagesConfig) -> tuple[Image.Image, Stored]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what matters here is whether pixels come out
        try:
            with _open(data) as opened:
                if opened.width * opened.height > limits.max_pixels:
                    raise ImageError(
                        f"{name} has {opened.width} x {opened.height} pixels, more than images.max_pixels allows",
                        reason="too-many-pixels",
                    )
                with _unheard(opened.format):
                    opened.load()
                stored = Stored(opened.format or "", opened.mode, opened.width, opened.height, _orientation(opened))
                return _to_rgb(_upright(opened)), stored
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


def _open(data: bytes) -> Image.Image:
    # ultralytics, where it is loaded, replaces Pillow's open by one that tries to install packages; take Pillow's own
    pillow_open = getattr(sys.modules.get("ultralytics.utils.patches"), "_image_open", Image.open)
    try:
        opened: Image.Image = pillow_open(io.BytesIO(data), formats=COMMON_FORMATS)
        return opened
    except UnidentifiedImageError:
        Image.init()
        opened = pillow_open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
        return opened


@contextmanager
def _unheard(kind: str | None) -> Iterator[None]:
    """libtiff tells standard error what it thinks of a file, in hundreds of lines; what is wrong is in the exception."""
    if kind != "TIFF":
        yield
        return
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    silent = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silent, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(silent)


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
    """Mode RGB: transparency onto white, 16-bit and float greys scaled to 8 bits; nothing but pixels kept."""
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
            return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash(file)
    except (OSError, ValueError) as error:
        return ImageError(f"cannot read {path}: {error}", reason="unreadable")


def _hash(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
