"""Test what a query's vector and scores are, by hand: items liked and not liked, words beside a
photo, several questions at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, two_halves

from fashionrec import Catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.cli.answers import print_result
from fashionrec.cli.session import Session
from fashionrec.config import load_config
from fashionrec.search.merging import merge_results
from fashionrec.search.outfits import OTHER_HALF
from fashionrec.search.photo import choose_garments
from fashionrec.search.result import QueryResult
from fashionrec.types import Box, Garment

Cli = Callable[..., Result]
Vectors = dict[str, np.ndarray]

COLOURS = {"a": "#ff0000", "b": "#ff2020", "c": "#ff4060", "d": "#ff6010"}


@pytest.fixture
def shop(tmp_path: Path, build: Callable[..., BuildReport]) -> Vectors:
    """Four red tops (the second in two photos), pants, and their image vectors by photo."""
    rows = []
    for name, colour in COLOURS.items():
        two_halves(tmp_path / "p" / f"{name}.png", colour, "white")
        rows.append({"image": f"p/{name}.png", "product_id": name, "category": "top"})
    two_halves(tmp_path / "p" / "b2.png", "#ff0040", "white")
    rows.append({"image": "p/b2.png", "product_id": "b", "category": "top"})
    two_halves(tmp_path / "p" / "x.png", "white", "#0000ff")
    rows.append({"image": "p/x.png", "product_id": "x", "category": "pants"})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert build(tmp_path / "t.jsonl", tmp_path / "shop").failures == []
    with Catalogue.open(tmp_path / "shop") as catalogue:
        return {
            Path(stored.item.image).stem: catalogue.images.fetch([catalogue.images.position(*stored.image_at)])[0]
            for stored in catalogue.items.everything()
        }


def ask(cli: Cli, *words: object, count: int = 1) -> Any:
    done = cli("query", *words, "--index", "shop", "--json", "--explain", "--set", "query.lexical_weight=0")
    assert done.code == 0, done.err
    assert len(done.document["garments"]) == count
    return done.document


def cosines(document: Any) -> dict[str, float]:
    return {hit["product_id"]: hit["cosine"] for hit in document["garments"][0]["hits"]}


def unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))


def expected(vector: np.ndarray, vectors: Vectors, *products: str) -> dict[str, Any]:
    """The cosine of each product's best photo."""
    return {
        product: pytest.approx(max(float(unit(vector) @ vectors[n]) for n in vectors if n[0] == product), abs=1e-5)
        for product in products
    }


def test_items_that_are_liked_and_not_liked(cli: Cli, shop: Vectors) -> None:
    """Rocchio: the mean of what is liked, each product once, less a third of what is not; neither
    is an answer.
    """
    liked = unit(shop["a"])
    document = ask(cli, "--like", "a")
    assert cosines(document) == expected(liked, shop, "b", "c", "d", "x")
    assert document["text"] == "like a"
    document = ask(cli, "--like", "a", "--unlike", "d")
    assert cosines(document) == expected(liked - shop["d"] / 3, shop, "b", "c", "x")
    assert document["text"] == "like a; not like d"
    document = ask(cli, "--like", "a", "--like", "b")
    mean = unit(shop["a"] + (shop["b"] + shop["b2"]) / 2)
    assert cosines(document) == expected(mean, shop, "c", "d", "x")
    away = ask(cli, "--like", "a", "--unlike", "b")
    assert cosines(away) == expected(liked - unit((shop["b"] + shop["b2"]) / 2) / 3, shop, "c", "d", "x")


def test_a_class_is_preferred_where_all_that_is_liked_is_of_it(cli: Cli, shop: Vectors) -> None:
    def held_back(document: Any) -> set[str]:
        return {hit["product_id"] for hit in document["garments"][0]["hits"] if "class" in hit["parts"]}

    one = ask(cli, "--like", "a", "--like", "b")
    assert (one["garments"][0]["class_name"], held_back(one)) == ("top", {"x"})
    both = ask(cli, "--like", "a", "--like", "x")
    assert (both["garments"][0]["class_name"], held_back(both)) == (None, set())


def test_words_move_a_vector_by_what_sets_them_apart(cli: Cli, shop: Vectors, tmp_path: Path) -> None:
    with Catalogue.open(tmp_path / "shop") as catalogue:
        neutral, blue = catalogue.embedder.embed_texts(["a photo of clothes", "blue"])
    moved = ask(cli, "--like", "a", "--text", "blue:0.5")
    assert cosines(moved) == expected(unit(shop["a"]) + 0.5 * (blue - neutral), shop, "b", "c", "d", "x")
    assert moved["text"] == "like a; blue"
    away = ask(cli, "--like", "a", "--text", "blue:-0.5")
    assert cosines(away) == expected(unit(shop["a"]) - 0.5 * (blue - neutral), shop, "b", "c", "d", "x")
    assert away["text"] == "like a; not blue"
    alone = ask(cli, "--text", "blue:2", "--text", "white:-1", "--set", "query.same_class=0")
    with Catalogue.open(tmp_path / "shop") as catalogue:
        (white,) = catalogue.embedder.embed_texts(["white"])
    assert cosines(alone) == expected(unit(blue) - (white - neutral), shop, "a", "b", "c", "d", "x")
    assert alone["text"] == "blue:2, white:-1"


def test_a_weight_reaches_ten_and_no_further(cli: Cli, shop: Vectors) -> None:
    ask(cli, "--text", "red:10")
    for weight in ("10.1", "0", "-10.1"):
        done = cli("query", "--text", f"red:{weight}", "--index", "shop")
        assert (done.code, "is 0 or outside -10..10" in done.err) == (2, True)


def test_several_questions_are_fused_by_their_ranks(cli: Cli, shop: Vectors) -> None:
    first, second = ask(cli, "p/a.png", "-k", "5"), ask(cli, "p/d.png", "-k", "5")
    ranks = [{hit["product_id"]: hit["rank"] for hit in one["garments"][0]["hits"]} for one in (first, second)]
    merged = ask(cli, "p/a.png", "p/d.png", "--merge", "-k", "3")
    fused = {name: sum(61 / (60 + of[name]) for of in ranks) / 2 for name in ranks[0]}
    hits = merged["garments"][0]["hits"]
    assert [hit["product_id"] for hit in hits] == sorted(fused, key=lambda name: (-fused[name], name))[:3]
    for n, hit in enumerate(hits, start=1):
        assert hit["rank"] == n
        assert hit["score"] == pytest.approx(fused[hit["product_id"]], abs=1e-5)
        parts = [61 / (60 + of[hit["product_id"]]) / 2 for of in ranks]
        assert list(hit["parts"].values()) == pytest.approx(parts, abs=1e-5)
        assert list(hit["parts"]) == ["1: a.png, top", "2: d.png, top"]
    assert merged["text"] == "a.png; d.png"
    assert merged["garments"][0]["class_name"] == "top"
    mixed = ask(cli, "p/a.png", "p/x.png", "--merge")
    assert mixed["garments"][0]["class_name"] is None


def test_the_picture_of_a_fused_product_is_the_one_most_alike(cli: Cli, shop: Vectors) -> None:
    """By hand: of the second product one photo suits the first question better, the other the
    second one.
    """
    for photos, image in ((("p/b.png", "p/a.png"), "p/b.png"), (("p/b2.png", "p/a.png"), "p/b2.png")):
        hits = ask(cli, *photos, "--merge")["garments"][0]["hits"]
        assert next(hit["image"] for hit in hits if hit["product_id"] == "b") == image


def test_the_least_score_is_enough(cli: Cli, shop: Vectors) -> None:
    scores = [hit["score"] for hit in ask(cli, "p/a.png")["garments"][0]["hits"]]
    assert len(ask(cli, "p/a.png", "--min-score", f"{scores[2] - 2e-6}")["garments"][0]["hits"]) == 3
    assert len(ask(cli, "p/a.png", "--min-score", f"{scores[2] + 2e-6}")["garments"][0]["hits"]) == 2
    assert len(ask(cli, "--like", "a", "-k", "1")["garments"][0]["hits"]) == 1


@pytest.mark.parametrize(
    ("column", "value", "hidden"),
    [
        ("availability", "품절", True),
        ("availability", " Sold Out ", True),
        ("availability", "discontinued", True),
        ("availability", "OutOfStock", True),
        ("availability", "in_stock", False),
        ("availability_date", "2999-01-01", True),
        ("release_date", "2999-01-01T10:00", True),
        ("available_from", "2999-01-01", True),
        ("available_from", "2001-01-01", False),
        ("release_date", "2999", False),
        ("sold_from", "2999-01-01", False),
    ],
)
def test_what_cannot_be_bought_is_hidden(
    cli: Cli, tmp_path: Path, photos: Path, build: Callable[..., BuildReport], column: str, value: str, hidden: bool
) -> None:
    rows = [
        {"image": "photos/green.jpg", "product_id": "a", column: value},
        {"image": "photos/grey.jpg", "product_id": "b"},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(tmp_path / "t.jsonl", tmp_path / "shop", detect=False)
    found = [hit["product_id"] for hit in ask(cli, "photos/green.jpg")["garments"][0]["hits"]]
    assert found == (["b"] if hidden else ["a", "b"])
    shown = ask(cli, "photos/green.jpg", "--set", "query.hide_unavailable=false")["garments"][0]["hits"]
    assert [hit["product_id"] for hit in shown] == ["a", "b"]


def test_what_is_only_worn_with_a_product_is_not_what_is_liked(
    cli: Cli, tmp_path: Path, build: Callable[..., BuildReport]
) -> None:
    """The photo of a top shows pants too: more like it means tops."""
    two_halves(tmp_path / "p" / "look.png", "#ff0000", "#0000ff")
    rows = [{"image": "p/look.png", "product_id": "l", "category": "top"}]
    for name, left, right, kind in (("t", "#ff2020", "white", "top"), ("x", "white", "#0000ff", "pants")):
        two_halves(tmp_path / "p" / f"{name}.png", left, right)
        rows.append({"image": f"p/{name}.png", "product_id": name, "category": kind})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(tmp_path / "t.jsonl", tmp_path / "shop")
    (garment,) = ask(cli, "--like", "l")["garments"]
    assert garment["class_name"] == "top"
    assert [hit["product_id"] for hit in garment["hits"]] == ["t", "x"]
    assert garment["hits"][0]["cosine"] > 0.9


def test_lists_are_fused_deeper_than_what_is_wanted(cli: Cli, shop: Vectors) -> None:
    (hit,) = ask(cli, "p/a.png", "p/d.png", "--merge", "-k", "1")["garments"][0]["hits"]
    assert list(hit["parts"]) == ["1: a.png, top", "2: d.png, top"], "its rank in the other list counts, whatever it is"


def test_a_merged_answer_took_the_time_of_all() -> None:
    answers = [QueryResult(f"{name}.png", 1, 1, notes=["n", name]) for name in "ab"]
    answers[0].timings_ms |= {"load": 2.0, "search": 5.0}
    answers[1].timings_ms |= {"load": 3.0, "embed": 7.0}
    found = merge_results(answers, load_config(env={}).config.query)
    assert found.timings_ms == {"load": 5.0, "detect": 0.0, "caption": 0.0, "embed": 7.0, "search": 5.0}
    assert found.notes == ["n", "a", "b"]


def test_the_time_of_each_stage_that_took_any(capsys: pytest.CaptureFixture[str]) -> None:
    answer = QueryResult(None, None, None, text="red")
    answer.timings_ms |= {"load": 12.4, "detect": 0.4, "embed": 0.6, "search": 3.0}
    print_result(Session(), answer, False, False)
    assert capsys.readouterr().out == "\n16 ms (load 12, embed 1, search 3)\n"


def test_equal_scores_stand_in_the_order_of_the_catalogue(
    cli: Cli, tmp_path: Path, photos: Path, build: Callable[..., BuildReport]
) -> None:
    rows = [{"image": "photos/green.jpg", "product_id": name} for name in ("z", "a", "m")]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(tmp_path / "t.jsonl", tmp_path / "shop", detect=False)
    with Catalogue.open(tmp_path / "shop") as catalogue:
        order = [stored.item.product_id for stored in sorted(catalogue.items.everything(), key=lambda s: s.item_no)]
    assert [hit["product_id"] for hit in ask(cli, "photos/green.jpg")["garments"][0]["hits"]] == order


def test_of_two_garments_of_a_class_the_surer_is_meant() -> None:
    garments = [Garment(n, "top", sure, Box(0, 0, 9, 9)) for n, sure in enumerate((0.4, 0.9, 0.6))]
    assert [one.index for one in choose_garments(garments, "top")] == [1]
    assert [one.index for one in choose_garments(garments, "2")] == [2]
    assert choose_garments(garments, "all") == garments


def test_what_is_worn_with_each_class() -> None:
    lower = ("pants", "skirt", "skirt&pants")
    assert {"top": lower, "dress": ("top",), **dict.fromkeys(lower, ("top",))} == OTHER_HALF


def test_as_much_goes_with_it_as_is_asked_for_and_can_be_bought(
    cli: Cli, tmp_path: Path, build: Callable[..., BuildReport]
) -> None:
    """Three looks alike, each with pants of its own; those of the second cannot be bought."""
    rows: list[dict[str, Any]] = []
    for n in range(3):
        two_halves(tmp_path / "p" / f"look{n}.png", f"#d0{n}000", f"#0000{0xC0 + n * 8:02x}")
        rows.append({"image": f"p/look{n}.png", "product_id": f"pants{n}", "category": "pants"})
    rows[1]["availability"] = "sold out"
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(tmp_path / "t.jsonl", tmp_path / "shop")
    two_halves(tmp_path / "q.png", "#d00000", "white")

    def worn(*words: object) -> list[str]:
        (found,) = ask(cli, "q.png", "--goes-with", *words)["goes_with"]
        assert [hit["score"] for hit in found["hits"]] == sorted((hit["score"] for hit in found["hits"]), reverse=True)
        return [hit["product_id"] for hit in found["hits"]]

    assert sorted(worn()) == ["pants0", "pants2"]
    assert len(worn("-k", "1")) == 1
    assert sorted(worn("--set", "query.hide_unavailable=false")) == ["pants0", "pants1", "pants2"]
