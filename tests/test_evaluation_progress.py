"""Evaluations of a search in batches: how far they are, what they do with photos that cannot be
read, and with nothing to ask.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import two_halves

from fashionrec import Catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.errors import DataError
from fashionrec.evaluation.retrieval.outfits import Look, evaluate_outfits
from fashionrec.evaluation.retrieval.retrieval import PhotoQuery, evaluate_search
from fashionrec.evaluation.retrieval.texts import TextQuery, compare_texts
from fashionrec.evaluation.retrieval.ways import compare_ways


@pytest.fixture
def shop(tmp_path: Path, build: Callable[..., BuildReport]) -> Path:
    """A red top with a title, and a grey photo in which no garment is found."""
    two_halves(tmp_path / "p" / "red.png", "#ff0000", "white")
    two_halves(tmp_path / "p" / "grey.png", "grey", "grey")
    rows = [
        {"image": "p/red.png", "product_id": "red", "category": "top", "title": "scarlet", "caption_ko": "빨간 상의"},
        {"image": "p/grey.png", "product_id": "grey"},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert build(tmp_path / "t.jsonl", tmp_path / "c").failures == []
    return tmp_path / "c"


def asked(folder: Path, lost: int) -> list[PhotoQuery]:
    """Queries of which the first ``lost`` have no photo; two can be asked, and one is about a
    product of another shop.
    """
    return [
        *(PhotoQuery(folder / "p" / f"lost{n}.png", "red", "top") for n in range(lost)),
        PhotoQuery(folder / "p" / "red.png", "red", "top"),
        PhotoQuery(folder / "p" / "red.png", "of another shop", "top"),
        PhotoQuery(folder / "p" / "grey.png", "grey"),
    ]


def test_a_search_is_evaluated_by_eight_photos(shop: Path) -> None:
    ticks: list[tuple[int, int]] = []
    with Catalogue.open(shop) as catalogue:
        found = evaluate_search(catalogue, asked(shop.parent, 8), progress=lambda *done: ticks.append(done))
        assert ticks == [(8, 10), (10, 10)]
        assert evaluate_search(catalogue, asked(shop.parent, 0)) == {**found, "failures": []}
        with pytest.raises(DataError) as caught:
            evaluate_search(catalogue, asked(shop.parent, 9)[:9])
        assert str(caught.value) == "none of 9 query photos can be read"
        with pytest.raises(DataError) as caught:
            evaluate_search(catalogue, [PhotoQuery(shop, "x"), PhotoQuery(shop, "y")])
        assert str(caught.value) == f"none of the products of 2 queries is in {shop}"
        assert caught.value.hint == "the column product_id must use the catalogue's ids"
    assert [Path(one["image"]).name for one in found["failures"]] == [f"lost{n}.png" for n in range(8)]
    assert all(one["reason"] == "missing" and one["message"] for one in found["failures"])
    assert (found["queries"], found["mrr"], found["not_in_catalogue"], found["crop_fallbacks"]) == (2, 1.0, 1, 1)
    assert (list(found["by_class"]), found["calibration"]) == (["top", "unknown"], None)


def test_ways_are_compared_by_sixteen_photos(shop: Path) -> None:
    described: list[tuple[list[tuple[int, int]], np.ndarray, list[str | None]]] = []

    def describe(crops: Sequence[Any], vectors: np.ndarray, classes: Sequence[str | None]) -> list[None]:
        described.append(([crop.size for crop in crops], vectors, list(classes)))
        return [None] * len(crops)

    ticks: list[tuple[int, int]] = []
    with Catalogue.open(shop) as catalogue:
        found = compare_ways(catalogue, asked(shop.parent, 16), describe, progress=lambda *done: ticks.append(done))
        assert ticks == [(16, 18), (18, 18)]
        ((sizes, vectors, classes),) = described  # nothing is described where no photo can be read
        assert classes == ["top", None]
        assert sizes[0][0] == sizes[0][1] < sizes[1][0]  # the garment, and all of the grey photo
        stored = {stored.item.product_id: stored.image_at for stored in catalogue.items.everything()}
        of_shop = catalogue.images.fetch([catalogue.images.position(*stored[name]) for name in ("red", "grey")])
        assert np.allclose(vectors, of_shop, atol=1e-5)
        assert list(found["ways"]) == ["whole photo, picture", "crop, picture"]
        # half of the red photo is white: as a whole it is more like the grey one
        assert {name: (one["queries"], one["mrr"]) for name, one in found["ways"].items()} == {
            "whole photo, picture": (2, 0.75), "crop, picture": (2, 1.0),
        }  # fmt: skip
        assert (found["caption_weight"], found["weights"], len(found["failures"])) == (None, {}, 16)
        with pytest.raises(DataError) as caught:
            compare_ways(catalogue, asked(shop.parent, 17)[:17], describe)
        assert str(caught.value) == "none of 17 query photos can be read"
        with pytest.raises(DataError) as caught:
            compare_ways(catalogue, [PhotoQuery(shop, "x")], describe)
        assert str(caught.value) == f"none of the products of 1 query is in {shop}"


def test_texts_are_counted_over_both_languages(shop: Path) -> None:
    ticks: list[tuple[int, int]] = []
    queries = [
        TextQuery("빨간 상의", frozenset({"red"})),
        TextQuery("scarlet", frozenset({"red", "of another shop"})),
        TextQuery("nothing", frozenset({"of another shop"})),
        TextQuery("grey", frozenset({"grey"})),
    ]
    with Catalogue.open(shop) as catalogue:
        found = compare_texts(catalogue, queries, progress=lambda *done: ticks.append(done))
        english = compare_texts(catalogue, queries[1:])
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    assert found["verbatim"] == {"English": 0.5, "Korean": 1.0}
    assert {name: found["ways"][f"{name}, words"]["queries"] for name in ("English", "Korean")} == {
        "English": 2, "Korean": 1,
    }  # fmt: skip
    assert english["verbatim"] == {"English": 0.5}
    assert english["ways"] == {name: one for name, one in found["ways"].items() if name.startswith("English")}


def test_looks_are_counted_whether_they_can_be_asked_or_not(shop: Path) -> None:
    ticks: list[tuple[int, int]] = []
    look = Look(shop.parent / "p" / "red.png", {"red": "top", "unheard": "pants"})
    with Catalogue.open(shop) as catalogue, pytest.raises(DataError) as caught:
        evaluate_outfits(catalogue, [look, look, look], progress=lambda *done: ticks.append(done))
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    assert str(caught.value) == "none of 3 outfits can be used"
    assert caught.value.hint == (
        "an outfit has several rows: one image, several product_id of the catalogue, and their category"
    )
