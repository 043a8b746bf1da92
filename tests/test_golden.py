"""The comparison with golden documents: what it notices, and what its masks let pass."""

from __future__ import annotations

from typing import Any

import pytest
from golden import MASKS, TOLERANCE, differences, masked, readable


@pytest.mark.parametrize(
    ("expected", "actual", "told"),
    [
        ({"a": [1, 2, 3]}, {"a": [1, 2, 4]}, [".a[2]: 3 became 4"]),
        ({"a": [1, 2, 3]}, {"a": [1, 2]}, [".a: 3 elements became 2"]),
        ({"a": 1, "b": 2}, {"a": 1}, [": lost ['b'], new []"]),
        ({"a": 1}, {"a": 1, "b": 2}, [": lost [], new ['b']"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, [": the order of ['a', 'b'] became ['b', 'a']"]),
        ([1], [1.0], ["[0]: 1 became 1.0"]),
        ([True], [1], ["[0]: True became 1"]),
        ([None], [0], ["[0]: None became 0"]),
        ([0.5], [0.5 + 2 * TOLERANCE], [f"[0]: 0.5 became {0.5 + 2 * TOLERANCE}"]),
        ([0.5, "a", None, {}], [0.5 + TOLERANCE / 2, "a", None, {}], []),
        ([{}], [[]], ["[0]: {} became []"]),
    ],
)
def test_what_differs(expected: Any, actual: Any, told: list[str]) -> None:
    assert differences(expected, actual) == told


def test_masks_check_what_they_hide() -> None:
    document = {"timings_ms": {"load": 1.5}, "created": "2026-11-29T20:10:11+00:00", "other": {"load": 1.5}}
    hidden = {"timings_ms": {"load": "<number>"}, "created": "<date>", "other": {"load": 1.5}}
    assert masked(document, MASKS) == hidden
    wrong: list[dict[str, Any]] = [
        {"timings_ms": {"load": -1}},
        {"timings_ms": {"load": None}},
        {"timings_ms": {"load": float("nan")}},
        {"created": "yesterday"},
        {"latency_ms_p50": 2.0, "latency_ms_p95": 1.0},
        {"versions": {"python": "3.11.7"}},
        {"files": {"generations/1/items.sqlite": {"size": 0}}},
        {"files": {"generations/1/items.sqlite": {"sha256": "abc"}}},
    ]
    for one in wrong:
        with pytest.raises(AssertionError):
            masked(one, MASKS)


def test_a_mask_may_name_one_place_alone() -> None:
    assert masked({"bytes": 3, "a": {"bytes": 3}}, {"$.bytes": "<count>"}) == {"bytes": "<count>", "a": {"bytes": 3}}


def test_short_values_stand_on_one_line() -> None:
    text = readable({"box": [1.5, 2, 3, 4], "long": [{"word": "x" * 80}, {"word": "y" * 80}]})
    assert text.splitlines()[1] == ' "box": [1.5, 2, 3, 4],'
    assert len(text.splitlines()) == 7
