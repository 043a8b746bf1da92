"""The small world of the golden documents: drawn photos, a product table, a catalogue of them,
datasets with labels.

Photos are BMP files, whose bytes are the same everywhere, so that ids and hashes are too. The
detector is that of `make_golden_models.py`, the encoder the tiny one: a photo at 4 x 4 pixels.
Everything is named from the world's own folder, in which commands run, so that no document holds a
path of the machine.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import command_line
import pytest
from conftest import TINY, Result
from openai_server import OpenAIServer, Recorded, Reply, completion, fitting
from PIL import Image, ImageDraw

DETECTOR = Path(__file__).parent / "data" / "golden" / "models" / "detector"
LENIENT = ("--set", "build.max_failures=0.2")
MODELS = ("--detector", DETECTOR, "--embedder", TINY / "embedder")

LANDSCAPE, PORTRAIT = (160, 120), (120, 160)
#: Where the detector looks, in the pixels of a photo of 160 x 120 (scale 2.5, eight rows of padding
#: above and below).
PLACES = {
    "a": (10, 5, 70, 65),
    "b": (77.5, 12.5, 142.5, 52.5),
    "c": (17.5, 72.5, 62.5, 112.5),
    "d": (85, 62.5, 150, 107.5),
}
COLOURS = {
    "red": (220, 20, 30),
    "brick": (190, 50, 40),
    "rose": (230, 90, 110),
    "blue": (20, 40, 210),
    "navy": (15, 25, 140),
    "sky": (70, 120, 240),
    "green": (30, 200, 40),
    "moss": (60, 140, 50),
    "yellow": (230, 220, 30),
    "mustard": (190, 160, 20),
}


def photo(
    path: Path, garments: Mapping[str, str], size: tuple[int, int] = LANDSCAPE, ground: str = "gainsboro"
) -> Path:
    """A photo with a coloured garment at each of the named places.

    ``"red/blue"`` has a blue lower part.
    """
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    # a portrait is padded left and right instead: the same places lie 20 pixels further left and
    # lower
    across, down = (0, 0) if size[0] > size[1] else (-20, 20)
    for place, colour in garments.items():
        x1, y1, x2, y2 = PLACES[place]
        upper, _, lower = colour.partition("/")
        whole = (x1 + across, y1 + down, x2 + across, y2 + down)
        draw.rectangle(whole, fill=COLOURS[upper])
        if lower:
            draw.rectangle((whole[0], whole[1] + 0.7 * (y2 - y1), whole[2], whole[3]), fill=COLOURS[lower])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


#: photo, product, and its data. Empty cells, a price in cents, a sold-out and an unreleased
#: product, Korean titles, a cell that a spreadsheet would compute, a product of two photos, a photo
#: of two products, a photo that nothing is seen in.
PRODUCTS = """\
image,product_id,category,title,brand,price,currency,availability,release_date,url,size
photos/red-top.bmp,T1,top,빨간 리넨 셔츠,Hanbok,39000,KRW,in_stock,2025-03-01,https://shop.example/T1,M
photos/red-back.bmp,T1,top,빨간 리넨 셔츠,Hanbok,39000,KRW,in_stock,2025-03-01,https://shop.example/T1,M
photos/outfit.bmp,T2,top,"Brick shirt, short",Aster,24.5,USD,in_stock,,https://shop.example/T2,L
photos/outfit.bmp,P1,pants,네이비 슬랙스,Hanbok,59000,KRW,in_stock,2024-11-15,,28
photos/jeans.bmp,P2,pants,Sky jeans,Aster,,,in_stock,,ftp://shop.example/P2,30
photos/green.bmp,D1,dress,초록 원피스,,129900,KRW,in_stock,,https://shop.example/D1,S
photos/moss.bmp,D2,dress,Moss dress,Aster,1234.56,EUR,in_stock,2025-01-31,https://shop.example/D2,
photos/skirt.bmp,S1,skirt,=2+3 skirt,Miro,0,KRW,in_stock,,https://shop.example/S1,M
photos/mustard.bmp,S2,skirt,머스타드 스커트,Miro,45000,KRW,out_of_stock,,https://shop.example/S2,L
photos/rose.bmp,T3,,Rose tee,,15,GBP,in_stock,2099-12-31,https://shop.example/T3,XS
photos/grey.bmp,X1,,Grey bag,Aster,88,USD,,,https://shop.example/X1,
photos/tall.bmp,T4,상의,장미색 셔츠,Miro,21000,KRW,in_stock,,https://shop.example/T4,M
photos/tall.bmp,P3,바지,파란 바지,Miro,33000,KRW,in_stock,,https://shop.example/P3,M
photos/torn.bmp,T5,top,Torn file,Aster,5,USD,in_stock,,,
photos/gone.bmp,T6,top,Gone file,Aster,6,USD,in_stock,,,
photos/green.bmp,D1,dress,초록 원피스,,129900,KRW,in_stock,,https://shop.example/D1,S
"""

PHOTOS: dict[str, tuple[dict[str, str], tuple[int, int]]] = {
    "red-top": ({"a": "red"}, LANDSCAPE),
    "red-back": ({"b": "red/brick"}, LANDSCAPE),
    "outfit": ({"a": "brick", "d": "navy"}, LANDSCAPE),
    "jeans": ({"d": "sky/blue"}, LANDSCAPE),
    "green": ({"a": "green", "b": "green/moss"}, (220, 110)),
    "moss": ({"a": "moss"}, PORTRAIT),
    "skirt": ({"c": "yellow"}, LANDSCAPE),
    "mustard": ({"c": "mustard", "b": "rose"}, LANDSCAPE),
    "rose": ({"b": "rose/red"}, LANDSCAPE),
    "grey": ({}, (90, 70)),
    "tall": ({"b": "rose", "d": "blue"}, PORTRAIT),
}
QUERIES: dict[str, tuple[dict[str, str], tuple[int, int]]] = {
    "look": ({"a": "red/rose", "d": "blue/navy", "c": "mustard/yellow"}, LANDSCAPE),
    "portrait": ({"b": "rose/brick", "c": "green"}, PORTRAIT),
    "plain": ({}, (100, 60)),
    "sky": ({"d": "sky"}, LANDSCAPE),
}


def make_world(root: Path) -> Path:
    """Photos, the table, and photos to ask with, in ``root``."""
    for name, (garments, size) in PHOTOS.items():
        photo(root / "photos" / f"{name}.bmp", garments, size)
    (root / "photos" / "torn.bmp").write_bytes(b"not a photo")
    (root / "products.csv").write_text(PRODUCTS, encoding="utf-8")
    for name, (garments, size) in QUERIES.items():
        photo(root / "asked" / f"{name}.bmp", garments, size, ground="white")
    return root


def run(*arguments: object) -> Result:
    """A command in this process; it must succeed."""
    done = command_line.invoke(arguments)
    assert done.exit_code == 0, done.output
    return Result(done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def built_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with its catalogue in ``catalogue``, for reading only;

    ``build.json`` is what the build said.
    """
    root = make_world(tmp_path_factory.mktemp("world"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        built = run("build-index", "products.csv", "--index", "catalogue", *MODELS, *LENIENT, "--json", "--quiet")
        (root / "build.json").write_text(built.out, encoding="utf-8")
    return root


@pytest.fixture
def world(built_world: Path, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The world as the working directory of commands that change nothing in it."""
    monkeypatch.chdir(built_world)
    return built_world


@pytest.fixture
def own_world(built_world: Path, cli: Callable[..., Result], tmp_path: Path) -> Path:
    """A copy of the world as the working directory, for commands that change it."""
    shutil.copytree(built_world, tmp_path, dirs_exist_ok=True)
    return tmp_path


#: Labelled photos by split: the garments that are drawn, and how far (pixels) and as what each is
#: labelled. A label that is off, one of a wrong class, one of a garment that is not there and one
#: that is missing make every figure of its own value.
LABELLED: dict[str, dict[str, tuple[dict[str, str], tuple[int, int], dict[str, tuple[str, float, float]]]]] = {
    "train": {
        "one": ({"a": "red", "d": "blue"}, LANDSCAPE, {"a": ("top", 0, 0), "d": ("pants", 2, -1)}),
        "two": ({"c": "yellow"}, LANDSCAPE, {"c": ("skirt", 0, 0)}),
        "three": ({"b": "green"}, PORTRAIT, {"b": ("dress", -1, 1)}),
        "four": ({"a": "sky", "b": "rose"}, LANDSCAPE, {"a": ("pants", 0, 0), "b": ("top", 0, 0)}),
    },
    "valid": {
        "five": ({"a": "rose", "c": "blue"}, LANDSCAPE, {"a": ("top", 1, 1), "c": ("pants", 0, 0)}),
        "six": ({}, (100, 80), {}),
    },
    "test": {
        "seven": (
            {"a": "red", "c": "mustard", "d": "navy"},
            LANDSCAPE,
            {"a": ("top", 0, 0), "c": ("skirt", 6, 4), "d": ("pants", 1, 1)},
        ),
        "eight": ({"b": "brick", "d": "green"}, LANDSCAPE, {"b": ("dress", 0, 0), "d": ("dress", 3, 0)}),
        "nine": ({"b": "blue", "c": "red"}, PORTRAIT, {"b": ("pants", 0, 2)}),
        "ten": ({"a": "sky/green"}, LANDSCAPE, {"a": ("pants", 0, 0), "d": ("top", 0, 0)}),
        "eleven": ({"a": "green/blue", "b": "rose/red"}, LANDSCAPE, {"a": ("dress", 12, 9), "b": ("top", 2, 0)}),
    },
}
OURS = ("dress", "pants", "skirt&pants", "skirt", "top")
THEIRS = ("tee", "shoe", "jeans", "dress", "skirt")  # another order, other names, one class too many


def make_dataset(root: Path, names: tuple[str, ...] = OURS, called: Mapping[str, str] | None = None) -> Path:
    """:data:`LABELLED` as a YOLO dataset;

    ``called`` is what it names our classes. Returns its data.yaml.
    """
    for split, photos in LABELLED.items():
        for name, (garments, size, truth) in photos.items():
            photo(root / split / "images" / f"{name}.bmp", garments, size)
            across, down = (0, 0) if size[0] > size[1] else (-20, 20)
            lines = []
            for place, (class_name, dx, dy) in truth.items():
                x1, y1, x2, y2 = PLACES[place]
                centre = ((x1 + x2) / 2 + across + dx) / size[0], ((y1 + y2) / 2 + down + dy) / size[1]
                number = names.index((called or {}).get(class_name, class_name))
                sides = (x2 - x1) / size[0], (y2 - y1) / size[1]
                lines.append(f"{number} " + " ".join(f"{value:.6f}" for value in (*centre, *sides)) + "\n")
            label = root / split / "labels" / f"{name}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("".join(lines), encoding="utf-8")
    splits = "".join(f"{split}: {split}/images\n" for split in LABELLED)
    data = root / "data.yaml"
    data.write_text(f"path: .\n{splits}nc: {len(names)}\nnames: [{', '.join(names)}]\n", encoding="utf-8")
    return data


#: What the captioning server says of each drawn colour: its English and Korean name, and the
#: vocabulary's.
SAID = {
    "red": ("red", "빨강"),
    "brick": ("burgundy", "버건디"),
    "rose": ("pink", "핑크"),
    "blue": ("blue", "파랑"),
    "navy": ("navy", "네이비"),
    "sky": ("sky blue", "하늘색"),
    "green": ("green", "초록"),
    "moss": ("khaki", "카키"),
    "yellow": ("yellow", "노랑"),
    "mustard": ("unknown", "겨자색"),
}


def say(request: Recorded, number: int) -> Reply:
    """An answer that depends on the crop that was sent alone: the colour in its middle, by name.

    Greys are refused.
    """
    encoded = re.search(r"data:image/jpeg;base64,([\w+/=]+)", json.dumps(request.body))
    assert encoded is not None
    with Image.open(io.BytesIO(base64.b64decode(encoded.group(1)))) as crop:
        middle = crop.convert("RGB").getpixel((crop.width // 2, crop.height // 2))
    assert isinstance(middle, tuple)
    if max(middle) - min(middle) < 40:
        return Reply(body=completion(None, refusal="no garment to be seen", tokens=(310, 7)))
    off = {name: sum(abs(a - b) for a, b in zip(colour, middle, strict=True)) for name, colour in COLOURS.items()}
    name = min(off, key=lambda one: off[one])
    answer = fitting(request.body)
    english, korean = SAID[name]
    worn = answer["category"]
    answer |= {
        "color": english,
        "confidence": 0.25 + 0.05 * len(name),
        "pattern": "stripe" if name == "red" else "plain",
    }
    answer |= {"caption_en": f"A {english} {worn} in {name}", "caption_ko": f"{korean} 옷"}
    return Reply(body=completion(json.dumps(answer, ensure_ascii=False), tokens=(400 + len(name), 90)))


@pytest.fixture
def captioning(monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result]) -> Iterator[OpenAIServer]:
    """The server as OpenAI, asked one thing at a time."""
    with OpenAIServer(say) as server:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
        monkeypatch.setenv("FASHIONREC_CAPTIONER__BASE_URL", server.base_url)
        monkeypatch.setenv("FASHIONREC_CAPTIONER__CONCURRENCY", "1")
        monkeypatch.setenv("FASHIONREC_CAPTIONER__RETRIES", "0")
        yield server
