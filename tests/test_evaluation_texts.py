"""evaluate --texts: words, English and Korean, found by full-text search, by the encoder and by
both; matches calibrated.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result, two_halves

from fashionrec import Catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.errors import DataError
from fashionrec.evaluation.retrieval.texts import TextQuery, compare_texts, texts_from
from fashionrec.store.measured import write_measured

ROWS = [
    ("red", "red", "a red thing", "빨간 티셔츠"),
    ("blue", "blue", "a blue thing", "파란 티셔츠"),
    ("green", "green", "a green thing", "초록 티셔츠"),
    ("lime", "green", "a green thing", ""),
]


@pytest.fixture
def shop(tmp_path: Path, build: Callable[..., BuildReport]) -> Path:
    for product, colour, _, _ in ROWS:
        two_halves(tmp_path / "p" / f"{product}.png", colour, colour)
    lines = [
        {"image": f"p/{product}.png", "product_id": product, "title": english, "caption_ko": korean, "text": english}
        for product, _, english, korean in ROWS
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert build(tmp_path / "t.jsonl", tmp_path / "c", detect=False).failures == []
    return tmp_path / "c"


def test_each_way_is_measured_in_each_language(cli: Callable[..., Result], shop: Path, tmp_path: Path) -> None:
    done = cli("evaluate", "--index", shop, "--texts", tmp_path / "t.jsonl", "--json")
    assert done.code == 0, done.err
    ways = done.document["ways"]
    names = ["words", "pictures", "both", "both, by ranks", "both, tuned (judged half)"]
    assert list(ways) == [f"{language}, {name}" for language in ("English", "Korean") for name in names]
    assert ways["English, words"]["queries"] == 3
    assert ways["Korean, words"]["queries"] == 3
    assert ways["English, words"]["recall_at_1"] == 1.0  # either green thing is right
    assert ways["Korean, words"]["recall_at_1"] == 1.0
    assert ways["English, pictures"]["recall_at_1"] == 1.0
    assert done.document["verbatim"] == {"English": 1.0, "Korean": 1.0}
    assert done.document["calibration"] is None  # too few to go by
    table = cli("evaluate", "--index", shop, "--texts", tmp_path / "t.jsonl")
    assert "Korean, pictures" in table.out
    assert "occur in their product's data" in table.out


def test_texts_need_no_image_column(shop: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    (tmp_path / "texts.csv").write_text("product_id,text\ngreen,a green thing\n", encoding="utf-8")
    done = cli("evaluate", "--index", shop, "--texts", tmp_path / "texts.csv", "--json")
    assert done.code == 0, done.err
    assert done.document["ways"]["English, words"]["queries"] == 1


def test_texts_of_a_table_once_each() -> None:
    class Row:
        def __init__(self, product_id: str, **metadata: str) -> None:
            self.product_id, self.metadata = product_id, metadata

    rows = [Row("a", text="x", caption_ko="빨강"), Row("b", text="x "), Row("a", text="x"), Row("c", title="x")]
    assert texts_from(rows) == [TextQuery("x", frozenset("ab")), TextQuery("빨강", frozenset("a"))]
    assert [query.language for query in texts_from(rows)] == ["English", "Korean"]


def test_texts_of_other_products_are_an_error(shop: Path) -> None:
    with Catalogue.open(shop) as catalogue, pytest.raises(DataError, match="none of 1 text describes"):
        compare_texts(catalogue, [TextQuery("x", frozenset({"nobody"}))])


def test_a_match_is_told_where_it_was_measured_and_is_null_elsewhere(
    cli: Callable[..., Result], shop: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "p" / "red.png"
    hits = cli("query", photo, "--index", shop, "--json").document["garments"][0]["hits"]
    assert {hit["match"] for hit in hits} == {None}
    assert hits[0]["cosine"] == pytest.approx(hits[0]["score"])
    assert "match" not in cli("query", photo, "--index", shop).out
    with Catalogue.open(shop) as catalogue:
        about = catalogue.generation.name, catalogue.embedder_bundle.fingerprint
    write_measured(shop, "match_photo", *about, {"cosines": [0.0, 1.0], "probabilities": [0.1, 0.9]})
    hits = cli("query", photo, "--index", shop, "--json").document["garments"][0]["hits"]
    assert hits[0]["match"] == 90
    assert [hit["match"] for hit in hits] == [round(10 + 80 * max(0, hit["cosine"])) for hit in hits]
    assert "match" in cli("query", photo, "--index", shop).out
    words = cli("query", "--text", "red", "--index", shop, "--json").document["garments"][0]["hits"]
    assert {hit["match"] for hit in words} == {None}  # measured for photos alone
    write_measured(shop, "match_photo", about[0], "another", {"cosines": [0.0], "probabilities": [0.5]})
    hits = cli("query", photo, "--index", shop, "--json").document["garments"][0]["hits"]
    assert {hit["match"] for hit in hits} == {None}
