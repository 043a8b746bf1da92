"""evaluate --index --queries: ranks by hand, and what is counted beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, two_halves

from fashionrec.catalogue.build.report import BuildReport

Cli = Callable[..., Result]


@pytest.fixture
def shop(tmp_path: Path, build: Callable[..., BuildReport]) -> Path:
    """Three red tops, each less red than the one before, and a grey photo in which no garment is
    found.
    """
    rows = [{"image": "p/grey.png", "product_id": "grey"}]
    two_halves(tmp_path / "p" / "grey.png", "grey", "grey")
    for name, colour in (("r1", "#ff0000"), ("r2", "#ff4040"), ("r3", "#ff7070")):
        two_halves(tmp_path / "p" / f"{name}.png", colour, "white")
        rows.append({"image": f"p/{name}.png", "product_id": name, "category": "top"})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert build(tmp_path / "t.jsonl", tmp_path / "c").failures == []
    return tmp_path / "c"


def scores(*ranks: int) -> dict[str, Any]:
    def mean(values: list[float]) -> Any:
        return pytest.approx(sum(values) / len(ranks))

    return {
        "queries": len(ranks),
        **{f"recall_at_{k}": mean([float(rank <= k) for rank in ranks]) for k in (1, 5, 10)},
        "mrr": mean([1 / rank for rank in ranks]),
        "ndcg_at_10": mean([1 / math.log2(rank + 1) for rank in ranks]),
    }


def test_ranks_classes_fallbacks_and_what_cannot_be_asked(cli: Cli, shop: Path, tmp_path: Path) -> None:
    """The first photo asks for its own product and for the third; the grey one falls back to the
    whole photo.
    """
    (tmp_path / "q.csv").write_text(
        "image,product_id,category\np/r1.png,r1,top\np/r1.png,r3,top\np/grey.png,grey,\n"
        "p/none.png,r2,top\np/r2.png,nobody,top\np/r3.png,nobody,top\n"
    )
    done = cli("evaluate", "--index", "c", "--queries", "q.csv", "--json")
    assert done.code == 0, done.err
    told = done.document
    assert {key: told[key] for key in scores(1)} == scores(1, 3, 1)
    assert told["crop"] == scores(1, 3, 1)
    assert told["whole"]["queries"] == 3
    assert told["by_class"] == {"top": scores(1, 3), "unknown": scores(1)}
    assert list(told["by_class"]) == ["top", "unknown"]
    assert told["crop_fallbacks"] == 1
    assert told["not_in_catalogue"] == 2
    (failure,) = told["failures"]
    assert (Path(failure["image"]).name, failure["reason"]) == ("none.png", "missing")
    assert told["catalogue"]["products"] == 4


def test_the_table_says_the_same(cli: Cli, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("image,product_id,category\np/r1.png,r3,top\np/grey.png,grey,\np/r2.png,x,\n")
    asked = ("evaluate", "--index", "c", "--queries", "q.csv")
    whole = cli(*asked, "--json").document["whole"]
    measures = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "ndcg_at_10")
    done = cli(*asked)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "query          n    R@1    R@5   R@10    MRR  nDCG@10",
        "crop           2  0.500  1.000  1.000  0.667    0.750",
        "whole photo    2  {:.3f}  {:.3f}  {:.3f}  {:.3f}    {:.3f}".format(*(whole[name] for name in measures)),
        "crop, top      1  0.000  1.000  1.000  0.333    0.500",
        "crop, unknown  1  1.000  1.000  1.000  1.000    1.000",
        "1 query skipped: the product is not in the catalogue",
    ]


def test_what_the_whole_photo_finds_is_not_counted_for_the_crop(
    cli: Cli, tmp_path: Path, build: Callable[..., BuildReport]
) -> None:
    """No garment is seen in the pale photo, which the query resembles as a whole: its left half
    looks more like other tops.
    """
    rows = [{"image": "p/pale.png", "product_id": "pale"}]
    two_halves(tmp_path / "p" / "pale.png", "#ffc8c8", "white")
    for name, colour in (("r1", "#ff0000"), ("r2", "#ff4040"), ("r3", "#ff7070")):
        two_halves(tmp_path / "p" / f"{name}.png", colour, "white")
        rows.append({"image": f"p/{name}.png", "product_id": name, "category": "top"})
    two_halves(tmp_path / "q.png", "#ff8080", "white")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert build(tmp_path / "t.jsonl", tmp_path / "c").failures == []
    (tmp_path / "q.csv").write_text("image,product_id,category\nq.png,pale,top\n")
    told = cli("evaluate", "--index", "c", "--queries", "q.csv", "--json").document
    # cosines of the left half, centred (.5, 0, 0): r3 .99, r2 .82, pale .66, r1 .57; of the whole:
    # pale .93, r3 .61
    assert told["crop"] == scores(3)
    assert told["whole"] == scores(1)
    assert told["by_class"] == {"top": scores(3)}
    assert told["crop_fallbacks"] == 0


def test_nothing_that_can_be_asked_is_refused(cli: Cli, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("image,product_id\np/none.png,r1\n")
    done = cli("evaluate", "--index", "c", "--queries", "q.csv")
    assert (done.code, done.out) == (2, "")
    assert "none of 1 query photo can be read" in done.err
    (tmp_path / "q.csv").write_text("image,product_id\np/r1.png,nobody\n")
    assert cli("evaluate", "--index", "c", "--queries", "q.csv").code == 2
