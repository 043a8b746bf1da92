"""Test what is read of items on the way to an answer: keys to rank by, and whole items of what is
shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import two_halves

from fashionrec import Catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.evaluation.retrieval.retrieval import PhotoQuery, evaluate_search
from fashionrec.evaluation.retrieval.texts import TextQuery, compare_texts
from fashionrec.evaluation.retrieval.ways import compare_ways
from fashionrec.search.query import Query
from fashionrec.search.search import search
from fashionrec.store.items import ItemReader, StoredItem

REDS = ("#ff0000", "#ff1010", "#ff2020", "#ff3030", "#ff4040", "#ff5050", "#ff6060", "#ff7070")


@pytest.fixture
def shop(tmp_path: Path, build: Callable[..., BuildReport]) -> Iterator[Catalogue]:
    """Eight red tops, each less red than the one before; the four reddest are sold out, but for
    another photo of the third.
    """
    rows: list[dict[str, Any]] = []
    for n, colour in enumerate(REDS):
        two_halves(tmp_path / "p" / f"{n}.png", colour, "white")
        rows.append({"image": f"p/{n}.png", "product_id": f"t{n}", "category": "top", "availability": "sold out"})
    for row in rows[4:]:
        row["availability"] = "in stock"
    two_halves(tmp_path / "p" / "more.png", "#ff2828", "white")
    rows.append({"image": "p/more.png", "product_id": "t2", "category": "top"})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert build(tmp_path / "t.jsonl", tmp_path / "c").failures == []
    with Catalogue.open(tmp_path / "c") as catalogue:
        yield catalogue


class Counted(ItemReader):
    """Counts the items that are read whole."""

    whole = 0

    def by_numbers(self, numbers: Sequence[int]) -> dict[int, StoredItem]:
        return self.counted(super().by_numbers(numbers))

    def by_item_ids(self, item_ids: Sequence[str]) -> list[StoredItem]:
        return self.counted(super().by_item_ids(item_ids))

    def of_product(self, product_id: str) -> list[StoredItem]:
        return self.counted(super().of_product(product_id))

    def everything(self) -> Iterable[StoredItem]:
        return self.counted(list(super().everything()))

    def counted(self, found: Any) -> Any:
        self.whole += len(found)
        return found


@pytest.fixture
def items(shop: Catalogue) -> Counted:
    shop.items = Counted(shop.generation.items_path, shop.generation.changes_path)
    return shop.items


def products(catalogue: Catalogue, photo: Path, **options: Any) -> list[tuple[str, str]]:
    (garment,) = catalogue.search(photo, **options).garments
    assert [stored.item for stored in garment.stored] == [hit.item for hit in garment.hits]
    return [(hit.item.product_id, Path(hit.item.image).name) for hit in garment.hits]


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_what_is_sold_out_makes_room_for_what_comes_after_it(shop: Catalogue, tmp_path: Path, k: int) -> None:
    two_halves(tmp_path / "q.png", "#ff0000", "white")
    bought = [("t2", "more.png"), *((f"t{n}", f"{n}.png") for n in range(4, 8))]
    assert products(shop, tmp_path / "q.png", k=k) == bought[:k]
    every = [(f"t{n}", f"{n}.png") for n in range(8)]
    assert products(shop, tmp_path / "q.png", k=k, hide_unavailable=False) == every[:k]


def test_whole_items_are_read_of_what_is_shown(shop: Catalogue, items: Counted, tmp_path: Path) -> None:
    two_halves(tmp_path / "q.png", "#ff0000", "white")
    for options, read in (
        ({"hide_unavailable": False}, 2),
        ({}, 8),
    ):  # two by two until two can be bought, and those two
        items.whole = 0
        assert len(shop.search(tmp_path / "q.png", k=2, **options).garments[0].hits) == 2
        assert items.whole == read
    items.whole = 0
    answer = search(shop, Query(tmp_path / "q.png", hide_unavailable=False), read_items=False)
    assert answer.garments[0].hits == answer.garments[0].stored == ()
    assert len(answer.garments[0].ranking) == 8
    assert items.whole == 0


def test_a_ranking_is_that_of_the_hits(shop: Catalogue, tmp_path: Path) -> None:
    """By photo, text, item, what was embedded before, and what is worn with it, from the file and
    from memory.
    """
    two_halves(tmp_path / "q.png", "#ff0000", "blue")
    options = {"k": 5, "where": "availability = 'in stock'"}
    embedded = search(shop, Query(tmp_path / "q.png")).results[0].queries
    queries = [
        Query(tmp_path / "q.png", diversity=0.5, **options),
        Query(text="red top", fusion="rrf", **options),
        Query(like="t1", **options),
        Query(embedded=embedded, **options),
    ]
    shown = [search(shop, query).garments for query in queries]
    assert all(len(garment.hits) == 4 for garments in shown for garment in garments)
    for _ in ("from the file", "from memory"):
        for query, garments in zip(queries, shown, strict=True):
            ranked = search(shop, query, read_items=False).garments
            for garment, other in zip(garments, ranked, strict=True):
                assert other.ranking == garment.ranking
                assert (
                    tuple(one.of(hit.item) for one, hit in zip(other.ranking, garment.hits, strict=True))
                    == garment.hits
                )
                assert [one.product_id for one in other.ranking] == [hit.item.product_id for hit in garment.hits]
                assert [one.closeness for one in other.ranking] == [hit.closeness for hit in garment.hits]
        shop.items.keep_keys()


def test_merged_lists_have_their_items(shop: Catalogue, tmp_path: Path) -> None:
    two_halves(tmp_path / "q.png", "#ff0000", "white")
    query = Query([tmp_path / "q.png"], text="top", merge=True, k=3)
    whole, other = search(shop, query).garments, search(shop, query, read_items=False).garments
    assert whole == other
    assert len(whole[0].hits) == 3


def test_an_evaluation_reads_no_whole_item(shop: Catalogue, items: Counted, tmp_path: Path) -> None:
    two_halves(tmp_path / "q.png", "#ff0000", "white")
    asked = [PhotoQuery(tmp_path / "q.png", product, "top") for product in ("t0", "t7")]
    assert evaluate_search(shop, asked)["mrr"] == pytest.approx((1 + 1 / 8) / 2)
    assert compare_ways(shop, asked, lambda crops, vectors, names: [None] * len(crops))["ways"]
    assert items.whole == 0
    compare_texts(shop, [TextQuery("red top", frozenset({"t0"})), TextQuery("a top", frozenset({"t7"}))])
    assert items.whole == 2, "the data of each text's product"
