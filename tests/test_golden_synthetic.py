"""The drawn world of a seed, value by value: its labels, products, outfits and queries, and what
its photos look like.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from conftest import Result
from golden import Golden
from PIL import Image

Cli = Callable[..., Result]
SIZES = ("size=96", "queries=3", "outfits=3", "views=2")
#: Of the full range of brightness: JPEG decoders and fonts differ by some levels, another drawing
#: by more.
SAME_GREY = 0.02


def look(path: Path) -> list[float]:
    """A photo at 6 x 6 pixels, as greys from 0 to 1, and its mean colour."""
    with Image.open(path) as photo:
        grey = np.asarray(photo.convert("L").resize((6, 6), Image.Resampling.BOX), np.float64) / 255
        colour = np.asarray(photo.convert("RGB"), np.float64).mean(axis=(0, 1)) / 255
    return [*photo.size, *(round(float(value), 3) for value in (*colour, *grey.ravel()))]


def test_a_small_drawn_world(cli: Cli, tmp_path: Path, golden: Golden) -> None:
    sets = [word for size in SIZES for word in ("--set", f"synthetic.{size}")]
    done = cli(
        "fetch-dataset", "synthetic", "--out", "d", "--images", 14, "--products", 5, "--seed", 5, *sets, "--json"
    )
    assert done.code == 0, done.err
    # hashes are of JPEG files
    golden.document("synthetic", done.document, {"$.fingerprint": "<sha256>"})
    root = Path("d")
    tables = sorted([*root.glob("*/labels/*.txt"), *root.rglob("*.csv"), *root.glob("data.yaml")])
    lines = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8-sig").splitlines() for path in tables}
    golden.document("synthetic-tables", lines)
    photos = {path.relative_to(root).as_posix(): look(path) for path in sorted(root.rglob("*.jpg"))}
    golden.document("synthetic-photos", photos, tolerance=SAME_GREY)
