"""`evaluate --queries` where crops and whole photos disagree: each figure, by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, two_halves

from fashionrec.catalogue.build.report import BuildReport
from fashionrec.config import Config

Cli = Callable[..., Result]

#: The photo, the product it shows, its category, and the product's rank by the crop and by the
#: whole photo. The gallery has `plain`, a red top, and `mixed`, a whole photo that is reddish on
#: the left and bluish on the right, too pale to be detected. The photo `split` is red on the left
#: (a top) and blue on the right (pants): its top is like `plain`, all of it like `mixed`.
QUERIES = [
    ("split.png", "plain", "top", 1, 2),
    ("split.png", "mixed", "top", 2, 1),
    ("mixed.png", "mixed", "", 1, 1),  # nothing is detected: the whole photo stands in
    ("mixed.png", "plain", "dress", 2, 2),  # the same
    ("split.png", "plain", "skirt", 2, 2),  # the pants are what a detector takes a skirt for
    ("split.png", "plain", "", 1, 2),  # the better one of the top and the pants
]


@pytest.fixture
def asked(cli: Cli, tmp_path: Path, config: Config, build: Callable[..., BuildReport]) -> Path:
    """A catalogue of two products, and the table of queries, in the working folder."""
    two_halves(tmp_path / "plain.png", "red", "red")
    two_halves(tmp_path / "mixed.png", "#a06e6e", "#6e6ea0")
    two_halves(tmp_path / "split.png", "red", "blue")
    (tmp_path / "broken.png").write_bytes(b"no photo")
    (tmp_path / "p.csv").write_text(
        "image,product_id,availability\nplain.png,plain,out of stock\nmixed.png,mixed,in stock\n"
    )
    crop = config.crop.model_copy(update={"square": False, "margin": 0.0})
    report = build(tmp_path / "p.csv", tmp_path / "c", settings=config.model_copy(update={"crop": crop}))
    assert report.failures == []
    rows = [{"image": image, "product_id": product, "category": name} for image, product, name, *_ in QUERIES]
    rows.append({"image": "split.png", "product_id": "of another shop", "category": "top"})
    rows.append({"image": "broken.png", "product_id": "plain", "category": "top"})
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def figures(ranks: list[int]) -> dict[str, float]:
    return {
        "queries": len(ranks),
        "recall_at_1": ranks.count(1) / len(ranks),
        "recall_at_5": 1.0,
        "mrr": sum(1 / rank for rank in ranks) / len(ranks),
    }


def part(document: dict[str, Any], expected: dict[str, float]) -> dict[str, Any]:
    return {name: document[name] for name in expected}


def test_crops_and_whole_photos_have_figures_of_their_own(cli: Cli, asked: Path) -> None:
    done = cli(
        "evaluate",
        "--index",
        "c",
        "--queries",
        "q.jsonl",
        "--json",
        "--set",
        "query.k=1",
        "--set",
        "query.min_score=0.99",
    )
    assert done.code == 0, done.err
    document = done.document
    crop, whole = (figures([query[column] for query in QUERIES]) for column in (3, 4))  # type: ignore[misc]
    assert part(document, crop) == pytest.approx(crop)
    assert part(document["crop"], crop) == pytest.approx(crop)
    assert part(document["whole"], whole) == pytest.approx(whole)
    classes = {
        name: figures(ranks) for name, ranks in {"top": [1, 2], "dress": [2], "skirt": [2], "unknown": [1, 1]}.items()
    }
    assert list(document["by_class"]) == ["dress", "skirt", "top", "unknown"]
    for name, expected in classes.items():
        assert part(document["by_class"][name], expected) == pytest.approx(expected), name
    assert (document["crop_fallbacks"], document["not_in_catalogue"]) == (2, 1)
    assert [Path(one["image"]).name for one in document["failures"]] == ["broken.png"]


def test_ways_are_told_apart(cli: Cli, asked: Path) -> None:
    done = cli("evaluate", "--index", "c", "--queries", "q.jsonl", "--ways", "--json")
    assert done.code == 0, done.err
    ways = done.document["ways"]
    # of several garments that may be meant the surest one is asked: here the top
    for name, column in (("crop, picture", 3), ("whole photo, picture", 4)):
        expected = figures([query[column] for query in QUERIES])  # type: ignore[misc]
        assert part(ways[name], expected) == pytest.approx(expected), name
