"""Searches as the library runs them: what is noted, told and counted on the way from a question to
its answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import two_halves
from PIL import Image

from fashionrec import Catalogue
from fashionrec.captioner.schema import QueryDescription
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.errors import ImageError, UsageError
from fashionrec.search.query import Query
from fashionrec.search.result import QueryResult
from fashionrec.search.search import search
from fashionrec.types import Box

COLOURS = ("#ff0000", "#ff2020", "#ff4040", "#e00000", "#ff0040")


@pytest.fixture
def shop(tmp_path: Path, build: Callable[..., BuildReport]) -> Iterator[Catalogue]:
    """Five red tops of their own and blue pants."""
    rows = []
    for n, colour in enumerate(COLOURS):
        two_halves(tmp_path / "p" / f"{n}.png", colour, "white")
        rows.append({"image": f"p/{n}.png", "product_id": f"t{n}", "category": "top", "price": n})
    two_halves(tmp_path / "p" / "x.png", "white", "#0000ff")
    rows.append({"image": "p/x.png", "product_id": "x1", "category": "pants"})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert build(tmp_path / "t.jsonl", tmp_path / "c").failures == []
    with Catalogue.open(tmp_path / "c") as catalogue:
        yield catalogue


def vector_of(catalogue: Catalogue, product: str) -> np.ndarray:
    (stored,) = [one for one in catalogue.items.everything() if one.item.product_id == product]
    vector: np.ndarray = catalogue.images.fetch([catalogue.images.position(*stored.image_at)])[0]
    return vector


def test_a_box_by_hand_is_cut_to_the_photo(shop: Catalogue, tmp_path: Path) -> None:
    two_halves(tmp_path / "q.png", "red", "blue", (120, 90))
    (garment,) = shop.search(tmp_path / "q.png", box=(-10, 20, 60.5, 200)).garments
    assert garment.garment.box == Box(0, 20, 60.5, 90)
    assert (garment.garment.index, garment.garment.class_name, garment.garment.whole_photo) == (0, None, False)
    (thin,) = shop.search(tmp_path / "q.png", box=(5, 5, 5.5, 6)).garments
    assert thin.garment.box == Box(5, 5, 5.5, 6)
    for box in ((60, 10, 50, 20), (10, 10, 10, 20), (10, 20, 20, 20), (130, 10, 150, 20), (-9, 0, 0, 9)):
        with pytest.raises(UsageError) as caught:
            shop.search(tmp_path / "q.png", box=box)
        told = ",".join(f"{value:g}" for value in box)
        assert str(caught.value) == f"the box {told} is empty or outside the photo"
        assert caught.value.hint == "--box X1,Y1,X2,Y2 in pixels; the photo is 120 x 90"


def test_a_photo_without_garments_is_searched_for_whole(shop: Catalogue, tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), "white").save(tmp_path / "q.png")
    answer = shop.search(tmp_path / "q.png", k=2)
    assert answer.notes == ["no garment detected: searching with the whole photo"]
    (garment,) = answer.garments
    assert (garment.garment.whole_photo, garment.garment.box) == (True, Box(0, 0, 50, 40))
    assert len(garment.hits) == 2
    two_halves(tmp_path / "r.png", "red", "white")
    found = shop.search(tmp_path / "r.png")
    assert found.notes == []
    assert (found.results[0].photo, found.results[0].width, found.results[0].height) == (
        str(tmp_path / "r.png"),
        120,
        90,
    )
    timings = found.timings_ms
    assert set(timings) == {"load", "detect", "caption", "embed", "search"}
    assert timings["caption"] == 0.0
    assert all(timings[stage] > 0 for stage in ("load", "detect", "embed", "search"))


def test_garments_are_described_by_who_is_asked(shop: Catalogue, tmp_path: Path) -> None:
    two_halves(tmp_path / "q.png", "red", "blue")
    asked: list[tuple[int, tuple[int, ...], list[str | None]]] = []

    def describe(
        crops: Sequence[Image.Image], vectors: np.ndarray, names: Sequence[str | None]
    ) -> list[QueryDescription | None]:
        asked.append((len(crops), vectors.shape, list(names)))
        said = {"category": "top", "color": "red"}, {"category": "pants", "color": "blue"}
        return [QueryDescription(f"A {one['color']} one", one["color"], one) for one in said]

    answer = shop.search(tmp_path / "q.png", describe=describe)
    assert asked == [(2, (2, shop.embedder.dim), ["top", "pants"])]
    assert [one.garment.caption for one in answer.garments] == ["A red one", "A blue one"]
    assert answer.results[0].outfit == {"en": "A red top and blue pants", "ko": "레드 상의와 블루 팬츠"}
    assert answer.notes == []
    assert answer.timings_ms["caption"] > 0
    none = shop.search(tmp_path / "q.png", describe=lambda crops, vectors, names: [None] * len(crops))
    assert none.notes == ["some garments could not be captioned: they are searched by image only"]
    assert none.results[0].outfit is None
    assert [one.garment.caption for one in none.garments] == [None, None]
    plain = shop.search(tmp_path / "q.png")
    assert [[hit.score for hit in one.hits] for one in none.garments] == [
        [hit.score for hit in one.hits] for one in plain.garments
    ]


def test_words_that_are_too_many_are_told(shop: Catalogue) -> None:
    answer = shop.search(text=["red", "red " * 30])
    assert answer.notes == ["the text exceeds the encoder's limit: the last 24 tokens were dropped"]
    assert shop.search(text="red " * 6).notes == []


def test_an_id_that_is_nothing_is_told_with_the_nearest(shop: Catalogue) -> None:
    with pytest.raises(UsageError) as caught:
        shop.search(like="x2")
    assert str(caught.value) == f"{shop.root} has no item or product 'x2'"
    assert caught.value.hint == "did you mean x1?"
    with pytest.raises(UsageError, match="has no item or product 'zzzzzz'"):
        shop.search(like="t1", unlike="zzzzzz")
    answer = shop.search(like=["t1", "t2"], unlike="x1", text=["red", "blue:-1"])
    assert answer.results[0].text == "like t1, t2; not like x1; red; not blue"
    assert {hit.item.product_id for hit in answer.garments[0].hits} == {"t0", "t3", "t4"}


def test_each_photo_is_reported_as_soon_as_it_is_there(shop: Catalogue, tmp_path: Path) -> None:
    for name, left in (("a", "red"), ("b", "white")):
        two_halves(tmp_path / f"{name}.png", left, "blue")
    gone = tmp_path / "gone.png"
    reported: list[Any] = []
    query = Query([tmp_path / "a.png", gone, tmp_path / "b.png"], garment="top")
    answer = search(shop, query, report=reported.append)
    assert reported == answer.outcomes
    assert [type(one) for one in reported] == [QueryResult, ImageError, UsageError]
    assert [one.photo for one in answer.results] == [str(tmp_path / "a.png")]
    assert str(answer.failures[1]) == "no top found in the photo"
    assert answer.failures[1].hint == "it has 0: pants"
    document = answer.to_dict()
    assert [one["reason"] for one in document["failures"]] == ["missing", "usage"]
    with pytest.raises(ImageError):
        search(shop, Query([gone, gone]))
    assert answer.query.k == 10


def test_diverse_hits_are_those_of_maximal_marginal_relevance(shop: Catalogue, tmp_path: Path) -> None:
    """The next is the one of the greatest (1 - d) * score - d * likeness with what is chosen."""
    two_halves(tmp_path / "q.png", "red", "white")
    pool = shop.search(tmp_path / "q.png", k=6).garments[0].hits
    vectors = {hit.item.product_id: vector_of(shop, hit.item.product_id) for hit in pool}
    for diversity in (0.3, 0.6, 1.0):
        chosen: list[str] = []
        while len(chosen) < 4:
            value = {
                hit.item.product_id: (1 - diversity) * hit.score
                - (
                    diversity * max(float(vectors[hit.item.product_id] @ vectors[name]) for name in chosen)
                    if chosen
                    else 0
                )
                for hit in pool
                if hit.item.product_id not in chosen
            }
            chosen.append(max(value, key=lambda name: value[name]))
        found = shop.search(tmp_path / "q.png", k=4, diversity=diversity).garments[0].hits
        assert [hit.item.product_id for hit in found] == chosen, diversity
        assert [hit.rank for hit in found] == [1, 2, 3, 4]


def test_another_class_is_held_back_by_so_much(shop: Catalogue, tmp_path: Path) -> None:
    two_halves(tmp_path / "q.png", "red", "white")
    for penalty in (0.0, 0.25):
        hits = shop.search(tmp_path / "q.png", same_class=penalty).garments[0].hits
        for hit in hits:
            assert hit.cosine is not None
            held = {"class": -penalty} if hit.item.class_name == "pants" else {}
            assert hit.parts == pytest.approx({"image": hit.cosine} | held)
            assert hit.score == pytest.approx(sum(hit.parts.values()))
            assert hit.closeness == pytest.approx(hit.score)
        assert [hit.item.product_id for hit in hits][-1] == "x1"


def test_a_filter_is_heeded_within_the_search(shop: Catalogue, tmp_path: Path) -> None:
    two_halves(tmp_path / "q.png", "red", "white")
    for where, products in (("price < 2", {"t0", "t1"}), ("price is null", {"x1"}), ("product_id = 't4'", {"t4"})):
        hits = shop.search(tmp_path / "q.png", where=where).garments[0].hits
        assert {hit.item.product_id for hit in hits} == products
    with pytest.raises(UsageError) as caught:
        shop.search(tmp_path / "q.png", where="prise < 2")
    assert (str(caught.value), caught.value.hint) == ("unknown column 'prise'", "did you mean price?")
    with pytest.raises(UsageError) as caught:
        shop.search(tmp_path / "q.png", where="zzzz = 2")
    assert caught.value.hint.startswith("there are ")
    assert "price" in caught.value.hint
    assert "product_id, item_id, image, class_name, confidence" in caught.value.hint
