"""Fusion of signals and of lists, by hand; curves that never fall; what an evaluation keeps beside
a catalogue.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.config import QueryConfig, load_config
from fashionrec.config.fusions import FUSIONS
from fashionrec.errors import ConfigError
from fashionrec.evaluation.retrieval.calibration import Judged, calibration_error, isotonic
from fashionrec.search.fusion import Parts, Signal, by_ranks, by_weights, fuse_lists, fusion_of, ranks
from fashionrec.store.measured import FILE, Curve, read_measured, write_measured

PICTURES = {1: 0.9, 2: 0.8, 3: 0.7}


def test_weights_mix_what_is_said_and_the_rest_is_the_pictures() -> None:
    parts = by_weights(PICTURES, 0.7, {"caption": (0.2, {1: 0.5}), "words": (0.3, {1: 0.0, 2: 1.0, 3: 0.0})}, {3}, 0.03)
    assert parts[1] == pytest.approx({"image": 0.5 * 0.9, "caption": 0.1, "words": 0.0})
    assert parts[2] == pytest.approx({"image": 0.7 * 0.8, "words": 0.3})
    assert parts[3] == pytest.approx({"image": 0.7 * 0.7, "words": 0.0, "class": -0.03})


def test_ranks_are_fused_reciprocally() -> None:
    parts = by_ranks(PICTURES, 0.7, {"words": (0.3, {1: 0.0, 2: 1.0, 3: 0.5})}, (), 0.0)
    assert parts[1] == pytest.approx({"image": 0.7})
    assert parts[2] == pytest.approx({"image": 0.7 * 61 / 62, "words": 0.3})
    assert parts[3] == pytest.approx({"image": 0.7 * 61 / 63, "words": 0.3 * 61 / 62})
    held = by_ranks(PICTURES, 1.0, {"caption": (0.5, {1: 0.1})}, {1}, 0.15)
    assert held[1] == pytest.approx({"image": 0.5 * 61 / 62, "caption": 0.5})  # behind 2, before 3


def test_what_is_first_everywhere_scores_one_and_equal_values_are_ranked_by_number() -> None:
    (best,) = by_ranks({7: 0.3}, 0.4, {"words": (0.6, {7: 0.2})}, (), 0.0).values()
    assert sum(best.values()) == pytest.approx(1.0)
    assert ranks({3: 1.0, 1: 1.0, 2: 0.0}, positive=True) == {1: 1, 3: 2}
    assert ranks({3: 1.0, 1: 1.0, 2: 0.0}) == {1: 1, 3: 2, 2: 3}


def combsum(
    images: Mapping[int, float],
    weight: float,
    signals: Mapping[str, Signal],
    penalised: Collection[int],
    penalty: float,
) -> Parts:
    """A fusion as somebody would add it: signals are summed as they are."""
    return {
        item: {"image": cosine, **{name: values.get(item, 0.0) for name, (_, values) in signals.items()}}
        for item, cosine in images.items()
    }


def test_another_fusion_is_a_function_and_a_line_of_the_registry() -> None:
    found = fusion_of("combsum", {**FUSIONS, "combsum": f"{__name__}:combsum"})
    assert found(PICTURES, 0.7, {"words": (0.3, {1: 0.5})}, (), 0.0)[1] == {"image": 0.9, "words": 0.5}
    assert (fusion_of("weighted"), fusion_of("rrf")) == (by_weights, by_ranks)
    assert all(callable(fusion_of(name)) for name in FUSIONS)


def test_the_setting_takes_the_fusions_of_the_registry() -> None:
    _, rule = get_args(QueryConfig.model_fields()["fusion"])
    assert (rule.words, rule.registry) == ([], FUSIONS)
    with pytest.raises(ConfigError, match=f"query.fusion: should be {' or '.join(FUSIONS)}, not 'loudest'"):
        load_config(sets=["query.fusion=loudest"], env={})


def test_lists_become_one() -> None:
    found = fuse_lists([["a", "b", "c"], ["b", "d"]])
    assert [name for name, _ in found] == ["b", "a", "d", "c"]
    assert dict(found)["b"] == pytest.approx((61 / 62 + 1) / 2)
    assert fuse_lists([["a"], ["a"]]) == [("a", pytest.approx(1.0))]
    assert fuse_lists([]) == []


@given(st.lists(st.tuples(st.floats(-1, 1), st.booleans()), min_size=1, max_size=300))
def test_a_curve_never_falls_and_is_never_certain(hits: list[tuple[float, bool]]) -> None:
    values = np.array(hits, float)
    curve = isotonic(values[:, 0], values[:, 1])
    asked = [curve(x) for x in np.linspace(-1.5, 1.5, 50)]
    assert asked == sorted(asked)
    assert 0 < asked[0] <= asked[-1] < 1


def test_a_curve_finds_the_probabilities_that_made_its_hits() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.uniform(0.2, 0.9, 20_000)
    truth = np.clip((cosines - 0.3) / 0.5, 0, 1)
    right = rng.random(20_000) < truth
    curve = isotonic(cosines[::2], right[::2].astype(float))
    assert curve(0.55) == pytest.approx(0.5, abs=0.06)
    assert curve(0.1) < 0.02
    assert curve(0.95) > 0.97
    assert calibration_error(curve, cosines[1::2], right[1::2].astype(float)) < 0.03
    flat = Curve((0.0,), (0.5,))  # the planted fault: a curve that knows nothing
    assert calibration_error(flat, cosines[1::2], (right[1::2] & (cosines[1::2] > 0.7)).astype(float)) > 0.2


def test_a_curve_by_hand() -> None:
    """Groups of twenty by cosine; the third is right less often than the second, and both become
    one.
    """
    rights = (0, 12, 8, 19)
    hits = [(group + n / 100, n < right) for group, right in enumerate(rights) for n in range(20)]
    cosines, right = np.array(hits[::-1], float).T
    curve = isotonic(cosines, right)
    assert curve.cosines == (0.095, 1.595, 3.095)
    assert curve.probabilities == (round(1 / 22, 6), 0.5, round(20 / 22, 6))
    assert curve(0.845) == pytest.approx((1 / 22 + 0.5) / 2), "straight between them"
    assert curve(-9) == curve(0.095)
    assert curve(9) == curve(3.095)
    few = isotonic(cosines[:39], right[:39])  # too few for two groups
    assert few.probabilities == (round((right[:39].sum() + 1) / 41, 6),)
    even = isotonic(np.arange(40.0), np.tile([1.0, 0.0], 20))  # as often right: one pool
    assert (even.cosines, even.probabilities) == ((19.5,), (0.5,))
    assert len(isotonic(np.arange(2000.0), np.arange(2000.0) > 999).cosines) <= 50


def test_how_far_off_a_curve_is_by_hand() -> None:
    curve = Curve((0.0, 1.0), (0.0, 1.0))
    # of two told 0.25 both are right, of two told 1 one is, and what is told 0.05 is wrong
    cosines, right = np.array([0.25, 0.25, 1.0, 1.0, 0.05]), np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    assert calibration_error(curve, cosines, right) == pytest.approx((2 * 0.75 + 2 * 0.5 + 0.05) / 5)
    assert calibration_error(curve, cosines, right, bins=1) == pytest.approx(abs(2.55 / 5 - 3 / 5))
    assert calibration_error(curve, cosines[:0], right[:0]) == 0.0


def test_what_is_kept_of_judged_questions() -> None:
    """Half of the questions make the curve that the others judge; the curve that is kept is made by
    all.
    """
    judged = Judged()
    for n in range(24):
        judged.add([(0.9, n % 2 == 0)] + [(0.1, False)] * 9)
    found = judged.document()
    # of all: ten groups of 0.1, the last two of which become one; 16 of 0.1 and 4 of 0.9, 2 right;
    # 20 of 0.9, 10 right
    assert found == {
        "cosines": [0.1, 0.26, 0.9],
        "probabilities": [round(1 / 42, 6), round(3 / 22, 6), 0.5],
        "hits": 240,
        "right": 12,
        # the even questions: five groups of 0.1; 8 of 0.1 and 12 of 0.9, which are right. Of the
        # others none is
        "calibration_error": round((12 * 13 / 22 + 108 * 1 / 22) / 120, 4),
    }


def test_too_little_to_go_by_is_no_curve() -> None:
    judged = Judged()
    for _ in range(9):
        judged.add([(0.9, True)] + [(0.1, False)] * 20)  # ten of a question count
    assert judged.document() is None
    judged.add([(0.9, True)] + [(0.1, False)] * 9)
    found = judged.document()
    assert found is not None
    assert (found["hits"], found["right"]) == (100, 10)
    wrong = Judged()
    for _ in range(30):
        wrong.add([(0.5, False)] * 10)
    assert wrong.document() is None


@pytest.mark.parametrize(
    ("cosines", "probabilities"),
    [((), ()), ((0.1, 0.1), (0.2, 0.3)), ((0.1, 0.2), (0.3, 0.2)), ((0.1,), (1.1,)), ((0.1, 0.2), (0.3,))],
)
def test_no_curve_that_falls(cosines: tuple[float, ...], probabilities: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="not a monotonic curve"):
        Curve(cosines, probabilities)


def test_what_was_measured_holds_for_its_generation_and_encoder_alone(tmp_path: Path) -> None:
    assert read_measured(tmp_path, "000001", "e").curves == {}
    curve = {"cosines": [0.5, 0.7], "probabilities": [0.1, 0.9]}
    write_measured(tmp_path, "match_photo", "000001", "e", curve)
    write_measured(tmp_path, "caption_weight", "000001", "e", {"value": 0.4})
    found = read_measured(tmp_path, "000001", "e")
    match = found.match_of("photo")
    assert match is not None
    assert [match(x) for x in (0.0, 0.5, 0.6, 0.7, 1.0)] == [10, 10, 50, 90, 90]
    assert found.match_of("text") is None
    assert found.caption_weight == 0.4
    for generation, embedder in (("000002", "e"), ("000001", "f")):
        other = read_measured(tmp_path, generation, embedder)
        assert (other.curves, other.caption_weight) == ({}, None)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"match_photo": 3, "caption_weight": {"value": "x"}}', "\ud800"])
def test_a_broken_file_is_nothing_measured(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode("utf-8", "surrogatepass"))
    found = read_measured(tmp_path, "000001", "e")
    assert (found.curves, found.caption_weight) == ({}, None)


def test_a_broken_entry_is_nothing_measured(tmp_path: Path) -> None:
    write_measured(tmp_path, "match_photo", "1", "e", {"cosines": [2, 1], "probabilities": [0.1, 0.9]})
    write_measured(tmp_path, "caption_weight", "1", "e", {"value": 7})
    found = read_measured(tmp_path, "1", "e")
    assert (found.curves, found.caption_weight) == ({}, None)
