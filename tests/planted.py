"""Datasets with known faults: each plant is one fault in files of its own, and can be written
mended instead.

What an audit must find of a dataset is what its plants expect, and nothing else.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fashionrec.types import CLASS_NAMES

Files = dict[str, bytes]
Expected = tuple[str, tuple[str, ...]]  # kind of finding, its photos

#: What the planted dataset is audited with: limits that 160 x 120 pixels and a handful of photos
#: are above and below.
SETTINGS = (
    "audit.min_images=6",
    "audit.max_imbalance=50",
    "images.max_pixels=200000",
    "dataset.workers=1",
)
GOOD = b"4 0.5 0.5 0.4 0.5\n"
YAML = "train: [train/images, train-more.txt]\nval: [valid/images, valid-more.txt]\ntest: test/images\nnc: {nc}\nnames: {names}\n"


@dataclass(frozen=True)
class Plant:
    """One fault. ``files(True)`` has it, ``files(False)`` is the same without it, of which an audit
    still expects ``still``.
    """

    name: str
    files: Callable[[bool], Files]
    expected: tuple[Expected, ...]
    still: tuple[Expected, ...] = ()


@lru_cache(maxsize=512)
def pixels(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture unlike that of any other seed: soft random colours, and two shapes."""
    chance = np.random.default_rng(seed)
    ground = Image.fromarray(chance.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    picture = ground.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for shape in (draw.rectangle, draw.ellipse):
        (x, y), (w, h) = chance.uniform(0.1, 0.6, 2) * size, chance.uniform(0.2, 0.35, 2) * size
        shape((x, y, x + w, y + h), fill=tuple(int(v) for v in chance.integers(0, 256, 3)))
    return picture


def encoded(picture: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **({"quality": 92} if form == "JPEG" else {}), **options)
    return out.getvalue()


@lru_cache(maxsize=512)
def photo(seed: int) -> bytes:
    return encoded(pixels(seed))


def base() -> Files:
    """A clean dataset: 30 photos over three splits, each class in each split, but skirts in four
    photos only.
    """
    files: Files = {}
    seed = 1000
    for split, numbers in (("train", range(12)), ("valid", range(9)), ("test", range(9))):
        for n in numbers:
            seed += 1
            ids = [n % 5] if n % 5 != 3 or n == 3 else [4]
            ids += [3] if split == "train" and n == 0 else []
            lines = [f"{number} {0.3 + 0.4 * k:.2f} 0.5 0.3 0.6\n" for k, number in enumerate(ids)]
            files[f"{split}/images/clean{seed}.jpg"] = photo(seed)
            files[f"{split}/labels/clean{seed}.txt"] = "".join(lines).encode()
    return files


def write(folder: Path, plants: Iterable[Plant] = (), mended: Sequence[str] = (), **yaml: object) -> list[Expected]:
    """Write the dataset with these plants, those named in ``mended`` without their fault; returns
    what must be found.
    """
    files = base() | {"train-more.txt": b"", "valid-more.txt": b""}
    names = {"nc": 5, "names": list(CLASS_NAMES)} | yaml
    files["data.yaml"] = YAML.format(**names).encode()
    expected: list[Expected] = []
    for plant in plants:
        faulty = plant.name not in mended
        for path, data in plant.files(faulty).items():
            files[path] = files[path] + data if path.endswith("-more.txt") else data
        expected += plant.expected if faulty else plant.still
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return expected


def _image(name: str, split: str = "train") -> str:
    return f"{split}/images/{name}"


def _label(name: str, split: str = "train") -> str:
    return f"{split}/labels/{Path(name).stem}.txt"


def of_label(kind: str, bad: bytes, seed: int, good: bytes = GOOD) -> Plant:
    """A fault of a label file, whose photo is good."""
    name = f"{kind}.jpg"
    return Plant(
        kind,
        lambda faulty: {_image(name): photo(seed), _label(name): bad if faulty else good},
        ((kind, (_image(name),)),),
    )


def of_photo(kind: str, make: Callable[[], bytes], seed: int, suffix: str = ".jpg") -> Plant:
    """A fault of a photo's file, whose label is good."""
    name = f"{kind}{suffix}"
    healthy = photo if suffix == ".jpg" else lambda n: encoded(pixels(n), "PNG")
    return Plant(
        kind,
        lambda faulty: {_image(name): make() if faulty else healthy(seed), _label(name): GOOD},
        ((kind, (_image(name),)),),
    )


def of_pair(
    kind: str,
    seed: int,
    second: Callable[[], bytes],
    *,
    split: str = "train",
    names: tuple[str, str] | None = None,
    mended: tuple[str, str] | None = None,
) -> Plant:
    """A fault of two photos; mended, the second is another picture, or the two have other names."""
    one, other = names or (f"{kind}-a.jpg", f"{kind}-b.jpg")

    def files(faulty: bool) -> Files:
        first_name, second_name = (one, other) if faulty or not mended else mended
        return {
            _image(first_name): photo(seed),
            _label(first_name): GOOD,
            _image(second_name, split): second() if faulty or mended else photo(seed + 500),
            _label(second_name, split): GOOD,
        }

    return Plant(kind, files, ((kind, (_image(one), _image(other, split))),))


def in_list(kind: str, split: str, line: str, images: tuple[str, ...], extra: Files) -> Plant:
    """A fault of a line in a list of photos."""
    return Plant(
        kind,
        lambda faulty: {**extra, **({f"{split}-more.txt": f"{line}\n".encode()} if faulty else {})},
        ((kind, images),),
    )


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(pixels(1), exif=exif.tobytes())


def _orphan(faulty: bool) -> Files:
    return {_label("orphan.jpg"): GOOD, **({} if faulty else {_image("orphan.jpg"): photo(50)})}


def _no_label(faulty: bool) -> Files:
    return {_image("unlabelled.jpg"): photo(51), **({} if faulty else {_label("unlabelled.jpg"): GOOD})}


def _misplaced(faulty: bool) -> Files:
    return {_image("misplaced.jpg"): photo(52), (_image("misplaced.txt") if faulty else _label("misplaced.jpg")): GOOD}


def _collision(faulty: bool) -> Files:
    second = "collision.png" if faulty else "no-collision.png"
    return {
        _image("collision.jpg"): photo(53),
        _image(second): encoded(pixels(54), "PNG"),
        _label("collision.jpg"): GOOD,
        _label(second): GOOD,
    }


def _few(faulty: bool) -> Files:
    more = () if faulty else (56, 57)
    return {
        path: data
        for n in more
        for path, data in ((_image(f"skirt{n}.jpg"), photo(n)), (_label(f"skirt{n}.jpg"), b"3 .5 .5 .4 .5\n"))
    }


def _different(faulty: bool) -> Files:
    files = {_image(f"different-{which}.jpg"): photo(58) for which in "ab"}
    return {
        **files,
        _label("different-a.jpg"): GOOD,
        _label("different-b.jpg"): b"0 0.5 0.5 0.4 0.5\n" if faulty else GOOD,
    }


def _unread(faulty: bool) -> Files:
    return {_image("phone.heic" if faulty else "phone.md"): b"\0\0\0\x18ftypheic"}


_DIFFERENT = (_image("different-a.jpg"), _image("different-b.jpg"))
_TWO = b"4 0.5 0.5 0.4 0.5\n"

#: Faults that one dataset can have all together.
PLANTS: tuple[Plant, ...] = (
    of_photo("empty-file", lambda: b"", 1),
    of_photo("not-an-image", lambda: b"<!doctype html><title>404</title>", 2),
    of_photo("truncated", lambda: photo(3)[: len(photo(3)) // 2], 3),
    of_photo("too-large-image", lambda: encoded(pixels(4, (600, 400))), 4),
    of_photo("wrong-suffix", lambda: encoded(pixels(5), "PNG"), 5),
    of_photo("not-rgb", lambda: encoded(pixels(6).convert("CMYK")), 6),
    of_photo("exif-turned", _turned, 1),
    of_photo("tiny-picture", lambda: encoded(pixels(7, (80, 60)), "PNG"), 7, ".png"),
    of_photo("flat-picture", lambda: encoded(Image.new("RGB", (160, 120), (250, 250, 250))), 8),
    in_list("missing-image", "train", "train/images/gone.jpg", (_image("gone.jpg"),), {}),
    in_list(
        "unreadable-image",
        "train",
        "train/images/folder.jpg",
        (_image("folder.jpg"),),
        {_image("folder.jpg/readme.md"): b"a folder", _label("folder.jpg"): GOOD},
    ),
    in_list(
        "listed-twice",
        "train",
        "train/images/listed.jpg",
        (_image("listed.jpg"),),
        {_image("listed.jpg"): photo(10), _label("listed.jpg"): GOOD},
    ),
    in_list(
        "same-file-across-splits",
        "valid",
        "train/images/shared.jpg",
        (_image("shared.jpg"),),
        {_image("shared.jpg"): photo(11), _label("shared.jpg"): GOOD},
    ),
    Plant("unread-format", _unread, (("unread-format", (_image("phone.heic"),)),)),
    Plant("name-collision", _collision, (("name-collision", (_image("collision.jpg"), _image("collision.png"))),)),
    Plant("no-label-file", _no_label, (("no-label-file", (_image("unlabelled.jpg"),)),)),
    Plant("misplaced-label", _misplaced, (("misplaced-label", (_image("misplaced.jpg"),)),)),
    Plant("orphan-label", _orphan, (("orphan-label", (_label("orphan.jpg"),)),)),
    of_label("empty-label", b"\n \n", 20),
    of_label("label-encoding", "4 0.5 0.5 0.4 0.5\n".encode("utf-16"), 21),
    of_label("broken-label-line", GOOD + b"<object>top</object>\n", 22),
    of_label("wrong-field-count", GOOD + b"4 0.5 0.5 0.4\n", 23),
    of_label("not-a-number", GOOD + b"top 0.2 0.2 0.1 0.1\n", 24),
    of_label("not-finite", GOOD + b"4 0.2 nan 0.1 0.1\n", 25),
    of_label("negative-class", GOOD + b"-1 0.2 0.2 0.1 0.1\n", 26),
    of_label("fractional-class", GOOD + b"1.5 0.2 0.2 0.1 0.1\n", 27),
    of_label("unknown-class", GOOD + b"7 0.2 0.2 0.1 0.1\n", 28),
    of_label("too-many-boxes", GOOD * 10_001, 90),
    of_label("polygon", b"4 0.3 0.3 0.7 0.3 0.7 0.7 0.5 0.8\n", 29),
    of_label("pixel-coordinates", b"4 80 60 64 60\n", 30),
    of_label("box-of-no-area", GOOD + b"4 0.2 0.2 0 0.1\n", 31),
    of_label("box-off-picture", GOOD + b"4 1.4 0.5 0.2 0.2\n", 32),
    of_label("box-outside", b"4 0.9 0.5 0.4 0.5\n", 33),
    of_label("repeated-box", _TWO + b"4 0.5 0.5 0.4 0.5\n", 34),
    of_label("double-box", _TWO + b"4 0.505 0.5 0.41 0.5\n", 35),
    of_label("two-classes-one-box", _TWO + b"0 0.505 0.5 0.41 0.5\n", 36),
    of_label("tiny-box", GOOD + b"4 0.2 0.2 0.015 0.02\n", 37),
    of_label("whole-picture-box", b"4 0.5 0.5 1 1\n", 38),
    of_label("extreme-aspect", b"4 0.5 0.5 0.9 0.04\n", 39),
    of_pair("exact-duplicate", 40, lambda: photo(40)),
    of_pair("exact-duplicate-across-splits", 41, lambda: photo(41), split="valid"),
    of_pair("near-duplicate", 42, lambda: encoded(pixels(42).resize((120, 90)))),
    of_pair(
        "near-duplicate-across-splits", 43, lambda: encoded(pixels(43), optimize=True, comment="again"), split="test"
    ),
    of_pair(
        "copies-across-splits",
        44,
        lambda: encoded(pixels(44).transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        split="valid",
        names=("copy_jpg.rf.0a1b.jpg", "copy_jpg.rf.2c3d.jpg"),
        mended=("copy_jpg.rf.0a1b.jpg", "another_jpg.rf.2c3d.jpg"),
    ),
    of_pair(
        "same-name-across-splits",
        45,
        lambda: photo(545),
        split="test",
        names=("0001.jpg", "0001.jpg"),
        mended=("0001.jpg", "0002.jpg"),
    ),
    Plant(
        "different-labels",
        _different,
        (("exact-duplicate", _DIFFERENT), ("different-labels", _DIFFERENT)),
        still=(("exact-duplicate", _DIFFERENT),),
    ),
    Plant("few-images", _few, (("few-images", ()),)),
)
