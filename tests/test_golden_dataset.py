"""Test what becomes of labels, value by value: made ours, audited, written as COCO and VOC, and
read back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from golden import Golden
from golden_world import DETECTOR, THEIRS, make_dataset, photo

Cli = Callable[..., Result]
CALLED = {"top": "tee", "pants": "jeans"}
MAP = ("--map", "tee=top", "--map", "jeans=pants", "--map", "shoe=null")


@pytest.fixture
def foreign(cli: Cli, tmp_path: Path) -> Path:
    """A dataset with names of its own, and lines that are dropped or mended."""
    make_dataset(tmp_path / "theirs", THEIRS, CALLED)
    labels = tmp_path / "theirs" / "train" / "labels"
    with (labels / "one.txt").open("a", encoding="utf-8") as file:
        file.write("1 0.5 0.5 0.1 0.1\n")  # a shoe
        file.write("3 0.95 0.5 0.2 0.3\n")  # beyond the right edge
    with (labels / "two.txt").open("a", encoding="utf-8") as file:
        file.write("4 0.25 0.770833 0.28125 0.333333\n")  # the skirt once more
        file.write("0 nonsense\n0 0.5 0.5 0 0.2\n")
    (labels / "four.txt").unlink()
    return tmp_path / "theirs"


def texts(root: Path, *patterns: str) -> dict[str, Any]:
    """The text files below a folder, each as its lines."""
    found = sorted(path for pattern in patterns for path in root.glob(pattern))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8").splitlines() for path in found}


def test_a_dataset_is_made_ours(cli: Cli, foreign: Path, golden: Golden) -> None:
    done = cli("fetch-dataset", "yolo:theirs", *MAP, "--out", "ours", "--json", "--quiet")
    assert done.code == 0, done.err
    golden.document("dataset-fetch", done.document)
    golden.document("dataset-fetch-files", texts(Path("ours"), "*.yaml", "*.csv", "*/labels/*.txt"))
    golden.document("dataset-folder", sorted(path.name for path in Path("ours").iterdir()))


def test_its_table(cli: Cli, foreign: Path, golden: Golden) -> None:
    done = cli("fetch-dataset", "yolo:theirs", *MAP, "--out", "ours")
    golden.text("dataset-fetch", f"{done.out}--- stderr\n{done.err}", {r"(?m)^preparing \d+/11.*\n": ""})


def test_other_formats_and_back(cli: Cli, tmp_path: Path, golden: Golden) -> None:
    make_dataset(tmp_path / "ours")
    for kind in ("coco", "voc"):
        done = cli("dataset", "export", "ours", "--to", kind, "--out", kind, "--json", "--quiet")
        assert done.code == 0, done.err
        golden.document(f"dataset-export-{kind}", done.document)
    written = {p.name: json.loads(p.read_text(encoding="utf-8")) for p in sorted(Path("coco/annotations").iterdir())}
    golden.document("dataset-coco", written)
    golden.document("dataset-voc", texts(Path("voc"), "Annotations/*.xml", "ImageSets/Main/*.txt"))
    for kind in ("coco", "voc"):
        done = cli("fetch-dataset", f"{kind}:{kind}", "--out", f"from-{kind}", "--json", "--quiet")
        assert done.code == 0, done.err
        golden.document(f"dataset-fetch-{kind}", done.document)
        golden.document(f"dataset-fetch-{kind}-files", texts(Path(f"from-{kind}"), "*.yaml", "*/labels/*.txt"))


def test_an_audit(cli: Cli, foreign: Path, golden: Golden) -> None:
    make_dataset(Path("ours"))
    golden.document("dataset-audit-clean", cli("dataset", "audit", "ours", "--json", "--quiet").document)
    done = cli("dataset", "audit", "theirs", "--json", "--quiet", "--strict", "--set", "audit.min_images=3")
    assert done.code == 3
    golden.document("dataset-audit", {"document": done.document, "stderr": done.err.splitlines()})
    golden.text("dataset-audit", cli("dataset", "audit", "theirs", "--quiet", "--set", "audit.min_images=3").out)


def test_what_would_be_sent_to_be_labelled(cli: Cli, tmp_path: Path, golden: Golden) -> None:
    make_dataset(tmp_path / "ours")
    target = ("--to", "roboflow", "--target", "shop/garments", "--weights", DETECTOR, "--limit", 4, "--dry-run")
    for strategy in ("uncertain", "disagree"):
        named = ("--set", f"roboflow.batch=doubtful-{strategy}")
        done = cli("dataset", "export", "ours", *target, "--strategy", strategy, *named, "--json", "--quiet")
        assert done.code == 0, done.err
        golden.document(f"dataset-to-be-labelled-{strategy}", done.document, {"$.bytes": "<count>"})  # of JPEG files


FEED = """\
id,image_link,additional_image_link,name,brand,price,sale_price,availability,sizes,link,release_date,category
7,a.bmp,b.bmp,셔츠 반팔,Hanbok,"39,000원","29,000",품절,S|M,https://shop.example/7,2026.03.01,top
8,b.bmp,,Blue jeans,Aster,$24.50,,in stock,30|32,https://shop.example/8,2025-12-24,pants
9,gone.bmp,,Gone,Aster,€5,,in stock,,https://shop.example/9,,dress
10,,,No photo,Miro,문의,,preorder,,javascript:alert(1),곧,skirt
,c.bmp,,No id,,1.234,,backorder,XL,,,
"""


def test_a_product_feed(cli: Cli, tmp_path: Path, golden: Golden) -> None:
    for name, (colour, size) in {"a": ("red", (160, 120)), "b": ("blue", (120, 160)), "c": ("green", (90, 90))}.items():
        photo(tmp_path / "shop" / f"{name}.bmp", {"a": colour}, size)
    (tmp_path / "shop" / "feed.csv").write_text(FEED, encoding="utf-8")
    done = cli("fetch-dataset", "feed:shop/feed.csv", "--out", "ours", "--json", "--quiet")
    assert done.code == 3, done.err
    golden.document("dataset-feed", {"document": done.document, "stderr": done.err.splitlines()})
    root = Path("ours")
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    golden.document(
        "dataset-feed-files", {"files": files, **texts(root, "**/*.csv", "**/*.jsonl")}, {"[].time": "<date>"}
    )
