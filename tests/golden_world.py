"""The small world of the golden documents: drawn photos, a product table, a catalogue of them, datasets with labels.

Photos are BMP files, whose bytes are the same everywhere, so that ids and hashes are too. The detector is that of
`make_golden_models.py`, the encoder the tiny one: a photo at 4 x 4 pixels. Everything is named from the world's own
folder, in which commands run, so that no document holds a path of the machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import TINY, Result
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from fashionrec.cli.main import make_app

DETECTOR = Path(__file__).parent / "data" / "golden" / "models" / "detector"
LENIENT = ("--set", "build.max_failures=0.2")
MODELS = ("--detector", DETECTOR, "--embedder", TINY / "embedder")

LANDSCAPE, PORTRAIT = (160, 120), (120, 160)
#: Where the detector looks, in the pixels of a photo of 160 x 120 (scale 2.5, eight rows of padding above and below).
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
    """A photo with a coloured garment at each of the named places. ``"red/blue"`` has a blue lower part."""
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    # a portrait is padded left and right instead: the same places lie 20 pixels further left and lower
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


#: photo, product, and its data. Empty cells, a price in cents, a sold-out and an unreleased product, Korean titles, a
#: cell that a spreadsheet would compute, a product of two photos, a photo of two products, a photo that nothing is seen in.
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
    done = CliRunner().invoke(make_app(), [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return Result(done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def built_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world with its catalogue in ``catalogue``, for reading only; ``build.json`` is what the build said."""
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
