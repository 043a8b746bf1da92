"""`evaluate --texts` where words and pictures disagree: each way's figures, by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, two_halves

from fashionrec.catalogue.build.report import BuildReport

#: Products of plain colours, which the tiny encoder knows, with titles that it does not know.
PRODUCTS = [("red", "alpha"), ("blue", "bravo"), ("lime", "charlie"), ("#0000e0", "delta")]

#: Texts, the product that each is about, and its rank there by hand: by the words, by the pictures,
#: by both with the weight 0.3 of words, and by ranks. An unknown word points a little towards red
#: (+) and away from what holds no red (-).
QUERIES = [
    ("red", "red", None, 1, 1, 1),  # no title holds the word
    ("bravo", "blue", 1, 2, 1, 1),  # pictures: red .14, the others -.14, in the order of their items
    ("blue charlie", "lime", 1, 4, 3, 1),  # pictures: blue, dark blue, red a little before lime: -1/3
]


@pytest.fixture
def ways(cli: Callable[..., Result], tmp_path: Path, build: Callable[..., BuildReport]) -> dict[str, Any]:
    for colour, _ in PRODUCTS:
        two_halves(tmp_path / f"{colour}.png", colour, colour)
    rows = [
        {"image": f"{colour}.png", "product_id": colour, "title": title, "availability": "out of stock"}
        for colour, title in PRODUCTS
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert build(tmp_path / "p.jsonl", tmp_path / "c", detect=False).failures == []
    texts = [{"image": "none.png", "product_id": product, "text": text} for text, product, *_ in QUERIES]
    texts.append({"image": "none.png", "product_id": "of another shop", "text": "white"})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    # settings of a search that would hide what is looked for
    limits = [f"query.{one}" for one in ("k=1", "min_score=0.9", "diversity=0.9", "hide_unavailable=true")]
    sets = [part for one in limits for part in ("--set", one)]
    done = cli("evaluate", "--index", "c", "--texts", "t.jsonl", "--json", *sets)
    assert done.code == 0, done.err
    return dict(done.document)


def figures(ranks: list[int | None]) -> dict[str, float]:
    found = [rank for rank in ranks if rank is not None]
    return {
        "queries": len(ranks),
        "recall_at_1": found.count(1) / len(ranks),
        "recall_at_5": len(found) / len(ranks),
        "mrr": sum(1 / rank for rank in found) / len(ranks),
    }


def test_each_way_has_its_own_figures(ways: dict[str, Any]) -> None:
    for column, way in enumerate(("words", "pictures", "both", "both, by ranks"), start=2):
        expected = figures([query[column] for query in QUERIES])  # type: ignore[misc]
        measured = ways["ways"][f"English, {way}"]
        assert {name: measured[name] for name in expected} == pytest.approx(expected), way
    # the best weight is found on every second text, and judged on the others
    # "blue charlie" finds lime first where w - (1 - w) / 3 > (1 - w): above 4 / 7
    weights = {f"0.{n}": 1.0 if n >= 6 else 2 / 3 for n in range(1, 10)}
    assert ways["weights"] == {"English": pytest.approx(weights)}
    assert ways["lexical_weight"] == {"English": 0.6}
    tuned = ways["ways"]["English, both, tuned (judged half)"]
    assert (tuned["queries"], tuned["recall_at_1"]) == (1, 1.0)  # "bravo"
    assert ways["verbatim"] == {"English": pytest.approx(1 / 3)}
    assert ways["not_understood"] == {"English": 0}
    assert ways["calibration"] is None


def test_korean_that_the_lexicon_does_not_know_is_asked_by_words_alone(
    cli: Callable[..., Result], tmp_path: Path, build: Callable[..., BuildReport]
) -> None:
    for colour in ("red", "blue"):
        two_halves(tmp_path / f"{colour}.png", colour, colour)
    rows = [
        {"image": "red.png", "product_id": "a", "title": "alpha", "caption_ko": "빨간"},
        {"image": "blue.png", "product_id": "b", "title": "꽈당뿅", "caption_ko": "꽈당뿅"},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    titles = [{key: row[key] for key in ("image", "product_id", "title")} for row in rows]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in titles))
    build(tmp_path / "p.jsonl", tmp_path / "c", detect=False)
    document = cli("evaluate", "--index", "c", "--texts", "t.jsonl", "--json").document
    assert document["ways"]["Korean, words"]["recall_at_10"] == 0.5
    assert document["ways"]["Korean, pictures"]["recall_at_10"] == 0.5
    assert document["ways"]["Korean, both"]["recall_at_1"] == 1.0
    assert document["not_understood"] == {"Korean": 1}
    assert document["verbatim"] == {"Korean": 0.5}
