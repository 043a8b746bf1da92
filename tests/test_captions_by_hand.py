"""`evaluate --captions`: two captioners that say different things are not interchangeable."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, two_halves

from fashionrec.catalogue.build.report import BuildReport

Cli = Callable[..., Result]

#: What the other captioner says of garments that are red (1, 3, 5, 7) and blue (2, 4, 6, 8).
OTHERWISE = {1: "pink", 2: "pink", 3: "unknown", 5: "blue"}


@pytest.fixture
def document(cli: Cli, tmp_path: Path, build: Callable[..., BuildReport]) -> Any:
    """Eight garments of two colours, whose data the encoder can tell, and captions of another that
    differ from it.
    """
    rows = []
    for n, colour in enumerate(["red", "blue"] * 4):
        two_halves(tmp_path / f"{n}.png", colour, colour, size=(100 + n, 90))
        rows.append({"image": f"{n}.png", "product_id": str(n), "color": colour, "category": "top"})
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(tmp_path / "p.jsonl", tmp_path / "c", detect=False)
    assert cli("caption", "--index", "c", "--captioner", "local", "--quiet").code == 0
    items = sorted(tmp_path.glob("c/generations/*/changes.sqlite"))[-1]
    with sqlite3.connect(items) as db:
        db.execute("UPDATE captions SET captioner = 'openai'")
        for garment, colour in OTHERWISE.items():
            db.execute(
                "UPDATE captions SET attributes = json_set(attributes, '$.color', ?) WHERE garment_no = ?",
                (colour, garment),
            )
        db.execute("DELETE FROM captions WHERE garment_no = 8")
    db.close()
    done = cli("evaluate", "--captions", "--index", "c", "--json")
    assert done.code == 0, done.err
    return done.document


def test_another_captioner_is_judged_by_the_truth(document: Any) -> None:
    assert document["garments"] == 8
    found = document["captioners"]["openai"]["color"]
    mistakes = found.pop("mistakes")
    assert found == {
        "garments": 7,  # one has no caption
        "told": pytest.approx(6 / 7, abs=1e-4),
        "right_of_told": 0.5,
        "right": pytest.approx(3 / 7, abs=1e-4),
        "majority": pytest.approx(4 / 7, abs=1e-4),
        # of those told: truth red 3, blue 3; said pink 2, blue 3, red 1: by chance (3 * 1 + 3 * 3)
        # / 36
        "kappa": pytest.approx((1 / 2 - 1 / 3) / (2 / 3), abs=1e-4),
    }
    assert sorted(mistakes) == [["blue", "pink", 1], ["red", "blue", 1], ["red", "pink", 1]]
    local = document["captioners"]["local"]["color"]
    assert (local["garments"], local["right"]) == (8, 1.0)


def test_agreement_takes_the_other_captioner_for_the_truth(document: Any) -> None:
    found = document["agreement"]["openai"]["color"]
    mistakes = found.pop("mistakes")
    assert found == {
        "garments": 6,  # of one it says nothing
        "told": 1.0,
        "right_of_told": 0.5,
        "right": 0.5,
        "majority": 0.5,  # blue, three of six
        "kappa": pytest.approx(0.25, abs=1e-4),
    }
    assert sorted(mistakes) == [["blue", "red", 1], ["pink", "blue", 1], ["pink", "red", 1]]
