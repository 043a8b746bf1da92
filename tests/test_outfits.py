"""Test what goes with a garment, by the plain definition over the catalogue's own vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import two_halves

from fashionrec import Catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.config import load_config
from fashionrec.search.embedded import EmbeddedQuery
from fashionrec.search.outfits import goes_with, recommend
from fashionrec.search.result import GarmentAnswer, QueryResult
from fashionrec.types import Box, Garment

BOX = Box(0, 0, 60, 90)
TOP, PANTS = Garment(0, "top", 0.9, BOX), Garment(1, "pants", 0.9, BOX)


@pytest.fixture
def root(tmp_path: Path, build: Callable[..., BuildReport]) -> Path:
    """Four looks of a top and pants, whose pants (the last one's: the top) are products; two more
    pants.
    """
    rows = []
    for n, (left, right) in enumerate(
        [("#ff0000", "#0000ff"), ("#f00010", "#1010f0"), ("#e02020", "#3030e0"), ("#ff1010", "#0000a0")]
    ):
        two_halves(tmp_path / "p" / f"look{n}.png", left, right, (120 + n, 90))
        rows.append({"image": f"p/look{n}.png", "product_id": f"look{n}", "category": "top" if n == 3 else "pants"})
    for n, colour in enumerate(("#3030e0", "#0000d0", "#0808ff")):  # the first product has two photos
        two_halves(tmp_path / "p" / f"pants{n}.png", "white", colour, (130 + n, 90))
        rows.append({"image": f"p/pants{n}.png", "product_id": f"pants{n % 2}", "category": "pants"})
    rows[1]["availability"] = "sold out"
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert build(tmp_path / "t.jsonl", tmp_path / "c").failures == []
    return tmp_path / "c"


def by_hand(catalogue: Catalogue, vector: np.ndarray, settings: Any) -> list[tuple[str, float, str]]:
    """Each product's share of the wearers: of those nearest, by how near they are; and by how near
    what they wear is. The photo of a product is the one that is nearest to anything worn.
    """
    how, stored = settings.goes_with, list(catalogue.items.everything())
    vectors = {one.item_no: catalogue.images.fetch([catalogue.images.position(*one.image_at)])[0] for one in stored}
    wearers = []
    for one in stored:
        worn = [other for other in stored if other.photo == one.photo and other.item.class_name == "pants"]
        if one.item.class_name == "top" and worn:
            wearers.append((float(vectors[one.item_no] @ vector), one, worn))
    wearers = sorted(wearers, key=lambda each: -each[0])[: how.wearers]
    pants = [one for one in stored if one.item.class_name == "pants"]
    weights = [math.exp((cosine - wearers[0][0]) / how.wearer) for cosine, _, _ in wearers]
    scores: dict[str, float] = {}
    shown: dict[str, tuple[float, str]] = {}
    for weight, (_, _, worn) in zip(weights, wearers, strict=True):
        best: dict[str, float] = {}
        for companion in worn:
            near = sorted(pants, key=lambda one: -float(vectors[one.item_no] @ vectors[companion.item_no]))
            for one in near[: how.lookalikes]:
                sold_out = one.item.metadata.get("availability") == "sold out"
                if one.worn_with or (settings.hide_unavailable and sold_out):
                    continue
                cosine = float(vectors[one.item_no] @ vectors[companion.item_no])
                product = one.item.product_id
                best[product] = max(best.get(product, 0.0), math.exp((min(1.0, cosine) - 1) / how.worn))
                shown[product] = max(shown.get(product, (-1.0, "")), (cosine, one.item.image))
        for product, likeness in best.items():
            scores[product] = scores.get(product, 0.0) + weight * likeness / sum(weights)
    ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[: settings.k]
    return [(product, score, shown[product][1]) for product, score in ranked]


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({}, {}),
        ({"k": 2}, {}),
        ({"hide_unavailable": False}, {}),
        ({}, {"wearers": 2}),
        ({}, {"lookalikes": 2}),
        ({"hide_unavailable": False}, {"wearer": 0.5, "worn": 0.2}),
    ],
)
def test_a_products_score_is_its_share_of_the_wearers(changes: dict[str, Any], how: dict[str, Any], root: Path) -> None:
    base = load_config(env={}).config.query
    settings = base.model_copy(update={**changes, "goes_with": base.goes_with.model_copy(update=how)})
    with Catalogue.open(root) as catalogue:
        tops = [one for one in catalogue.items.everything() if one.item.class_name == "top"]
        vector = catalogue.images.fetch([catalogue.images.position(*tops[2].image_at)])[0]
        found = recommend(catalogue, TOP, vector, settings)
        expected = by_hand(catalogue, vector, settings)
    assert [(hit.rank, hit.item.product_id, hit.item.image) for hit in found.hits] == [
        (n, product, image) for n, (product, _, image) in enumerate(expected, start=1)
    ]
    assert [hit.score for hit in found.hits] == pytest.approx([score for _, score, _ in expected], rel=1e-3)
    assert [stored.item for stored in found.stored] == [hit.item for hit in found.hits]
    assert found.garment == TOP
    assert len(found.hits) >= 2


def test_what_is_told_where_nothing_can_be_said(root: Path, tmp_path: Path, build: Callable[..., BuildReport]) -> None:
    settings = load_config(env={}).config.query
    dress, none = Garment(2, "dress", 0.9, BOX), Garment(3, None, None, BOX, whole_photo=True)
    two_halves(tmp_path / "single" / "a.png", "white", "blue")
    build(tmp_path / "single", tmp_path / "s")
    two_halves(tmp_path / "look" / "a.png", "red", "blue")  # its pants are no product
    (tmp_path / "look.csv").write_text("image,product_id,category\nlook/a.png,a,top\n")
    build(tmp_path / "look.csv", tmp_path / "l")
    dressed = "no photo of the catalogue shows top worn with a dress"
    for name, told in ((root, dressed), (tmp_path / "s", None), (tmp_path / "l", None)):
        with Catalogue.open(name) as catalogue:
            vector = np.ones(catalogue.embedder.dim, np.float32) / np.sqrt(np.float32(catalogue.embedder.dim))
            answer = QueryResult("a.png", 9, 9, [GarmentAnswer(one, (), ()) for one in (TOP, none, dress)])
            answer.queries = [EmbeddedQuery(one, vector) for one in (TOP, none, dress)]
            found = goes_with(catalogue, answer, settings)
        assert [one.garment for one in found] == [TOP, dress]
        notes = ["outfits can only be recommended for detected garments"]
        if told is None:
            notes.insert(0, "no photo of the catalogue shows pants or skirt or skirt&pants worn with a top")
        assert answer.notes == [*notes, "no photo of the catalogue shows top worn with a dress"]
        assert bool(found[0].hits) is (told is not None)
