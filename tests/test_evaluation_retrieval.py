"""Retrieval metrics, by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fashionrec.evaluation.retrieval.retrieval import (
    colour_histogram,
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
