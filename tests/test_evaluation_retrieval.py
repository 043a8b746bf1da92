"""Retrieval metrics, by hand."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import two_halves
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fashionrec import Catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.evaluation.retrieval.retrieval import (
    PhotoQuery,
    colour_histogram,
    histogram_baseline,
    mean_reciprocal_rank,
    ndcg_at_k,
    rank_of,
    recall_at_k,
)

RANKS = [1, 3, None, 10, 11]


def test_metrics_by_hand() -> None:
    assert recall_at_k(RANKS, 1) == pytest.approx(1 / 5)
    assert recall_at_k(RANKS, 5) == pytest.approx(2 / 5)
    assert recall_at_k(RANKS, 10) == pytest.approx(3 / 5)
    assert mean_reciprocal_rank(RANKS) == pytest.approx((1 + 1 / 3 + 0 + 1 / 10 + 1 / 11) / 5)
    assert ndcg_at_k(RANKS, 10) == pytest.approx((1 + 1 / math.log2(4) + 1 / math.log2(11)) / 5)
    assert recall_at_k([], 10) == 0.0


@given(st.lists(st.one_of(st.none(), st.integers(1, 100)), min_size=1))
def test_metrics_are_ordered(ranks: list[int | None]) -> None:
    assert recall_at_k(ranks, 1) <= mean_reciprocal_rank(ranks) + 1e-12
    assert recall_at_k(ranks, 1) <= recall_at_k(ranks, 5) <= recall_at_k(ranks, 10) <= 1
    assert recall_at_k(ranks, 1) <= ndcg_at_k(ranks, 10) + 1e-12
    assert ndcg_at_k(ranks, 10) <= recall_at_k(ranks, 10) + 1e-12


def test_several_answers_are_merged_by_each_products_best_score() -> None:
    answers = [{"a": 0.9, "b": 0.5}, {"b": 0.95, "c": 0.1}]
    assert rank_of("b", answers) == 1
    assert rank_of("a", answers) == 2
    assert rank_of("c", answers) == 3
    assert rank_of("d", answers) is None


def test_an_encoder_to_which_all_look_alike_finds_nothing() -> None:
    """The planted fault: scores that are all the same would else count as found."""
    assert rank_of("b", [{"a": 0.5, "b": 0.5, "c": 0.5}]) == 3


def test_a_colour_histogram_counts_colours_and_leaves_padding_out() -> None:
    image = Image.new("RGB", (64, 64), "white")
    image.paste((255, 0, 0), (0, 0, 64, 32))
    histogram = colour_histogram(image, 4)
    assert histogram.sum() == pytest.approx(1)
    assert histogram[3 * 16] == pytest.approx(1)
    assert np.count_nonzero(colour_histogram(Image.new("RGB", (9, 9), "white"), 4)) == 0


@pytest.mark.parametrize(
    ("colour", "cell"),
    [((63, 127, 191), 6), ((64, 128, 192), 27), ((255, 249, 255), 63), ((250, 250, 250), None), ((0, 0, 0), 0)],
)
def test_the_cell_of_a_colour(colour: tuple[int, int, int], cell: int | None) -> None:
    """A quarter of each channel: red counts 16, green 4, blue 1; what is white in all of them is
    padding.
    """
    histogram = colour_histogram(Image.new("RGB", (64, 64), colour), 4)
    assert histogram.shape == (64,)
    assert np.flatnonzero(histogram).tolist() == ([] if cell is None else [cell])


Build = Callable[..., BuildReport]


def built(folder: Path, build: Build, products: list[tuple[str, str, str, str]], *, detect: bool) -> Path:
    """A catalogue of photos: file, colours of its halves, product (a top)."""
    rows = []
    for name, left, right, product in products:
        two_halves(folder / f"{name}.png", left, right)
        rows.append({"image": f"{name}.png", "product_id": product, "category": "top"})
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert build(folder / "p.jsonl", folder / "c", detect=detect).failures == []
    return folder / "c"


def test_by_colour_alone_a_product_is_as_near_as_its_best_photo(tmp_path: Path, build: Build) -> None:
    photos = [
        ("green", "#00c800", "#00c800", "many"),
        ("dark", "#280000", "#280000", "many"),  # in one cell with the query's colour: a quarter is 64 wide
        ("blue", "#0000c8", "#0000c8", "many"),
        ("half", "#3c0000", "#0000c8", "half"),
    ]
    root = built(tmp_path, build, photos, detect=False)
    asked = two_halves(tmp_path / "asked.png", "#3c0000", "#3c0000")
    (tmp_path / "broken.png").write_bytes(b"no photo")
    queries = [PhotoQuery(asked, "many")] * 8 + [PhotoQuery(tmp_path / "broken.png", "many")]
    with Catalogue.open(root) as catalogue:
        found = histogram_baseline(catalogue, [*queries, PhotoQuery(asked, "half"), PhotoQuery(asked, "of nobody")])
    assert found["queries"] == 9  # what cannot be read, and what the catalogue does not have, is left out
    assert found["recall_at_1"] == pytest.approx(8 / 9)
    assert found["mrr"] == pytest.approx((8 + 1 / 2) / 9)


def test_by_colour_alone_garments_are_compared_and_companions_left_out(tmp_path: Path, build: Build) -> None:
    photos = [("look", "red", "blue", "red"), ("blue", "blue", "blue", "blue")]
    root = built(tmp_path, build, photos, detect=True)
    look = tmp_path / "look.png"  # its top is the product, its pants look like the other one
    with Catalogue.open(root) as catalogue:
        assert histogram_baseline(catalogue, [PhotoQuery(look, "red", "top")])["mrr"] == 1.0
        assert histogram_baseline(catalogue, [PhotoQuery(look, "red", "pants")])["mrr"] == 0.5
        assert histogram_baseline(catalogue, [PhotoQuery(look, "red")])["queries"] == 1
