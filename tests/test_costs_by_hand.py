"""Test what captions cost where inputs and outputs have prices of their own, and what is expected
before any was measured.
"""

from __future__ import annotations

import json

import pytest

from fashionrec.captioner.cache import is_place
from fashionrec.captioner.cost import CostMeter, Price, Tokens
from fashionrec.captioner.openai.tokens import estimate
from fashionrec.captioner.openai.wire import request_body
from fashionrec.captioner.schema import json_schema
from fashionrec.captioner.vocabulary import load_vocabulary
from fashionrec.config import Config

PRICE = Price(2e-6, 10e-6)


def test_the_estimate_is_of_the_picture_the_request_and_the_longest_answer(config: Config) -> None:
    settings = config.captioner.model_copy(update={"model": "gpt-4o", "image_side": 800, "image_detail": "high"})
    vocabulary = load_vocabulary()
    found = estimate(settings, settings.models["gpt-4o"], vocabulary)
    request = json.dumps(request_body("gpt-4o", {}, b"", "top", vocabulary))
    # 800 x 800 is fitted to 768 x 768: four tiles
    assert found.input == pytest.approx(85 + 170 * 4 + len(request) / 4)
    longest = {
        name: max((str(value) for value in field.get("enum", [" " * 60])), key=len)
        for name, field in json_schema("top", vocabulary)["properties"].items()
    }
    assert found.output == pytest.approx(len(json.dumps(longest)) / 3)
    assert found.measured == 0
    unknown = settings.models["gpt-4o"].model_copy(update={"image_tokens": None})
    assert estimate(settings, unknown, vocabulary).input == pytest.approx(1000 + len(request) / 4)


def test_outputs_and_inputs_are_paid_for_at_their_own_prices() -> None:
    meter = CostMeter(PRICE, Tokens(1000, 100))
    assert meter.cost_of(50) == pytest.approx(50 * (0.002 + 0.001))
    meter.came({"input_tokens": 500, "output_tokens": 300})
    assert meter.spent == pytest.approx(0.001 + 0.003)
    assert meter.each == Tokens(1000, 100)  # one answer says little
    for _ in range(9):
        meter.came({"input_tokens": 700, "output_tokens": 100})
    meter.came({"input_tokens": 0, "output_tokens": 0})  # one that failed
    assert meter.each == Tokens((500 + 9 * 700) / 10, (300 + 9 * 100) / 10, 10)
    assert meter.cost_of(2) == pytest.approx(2 * (680 * 2e-6 + 120 * 10e-6))


def test_what_is_under_way_is_reserved_at_the_dearer_of_expected_and_measured() -> None:
    meter = CostMeter(PRICE, Tokens(1000, 100), cap=0.0121)  # .003 each
    assert [meter.reserve() for _ in range(5)] == [True, True, True, True, False]
    assert meter.stopped
    meter.came({"input_tokens": 100, "output_tokens": 10})  # .0003: there is room for one more
    assert meter.reserve() is False  # .0003 + 4 * .003 is above the limit by a little
    meter.came({"input_tokens": 100, "output_tokens": 10})
    assert meter.reserve() is True
    dear = CostMeter(PRICE, Tokens(10, 0), cap=1.0)
    for _ in range(10):
        assert dear.reserve()
        dear.came({"input_tokens": 0, "output_tokens": 5000})
    assert dear.each == Tokens(10, 0)  # answers without an input are not counted
    for _ in range(10):
        assert dear.reserve()
        dear.came({"input_tokens": 100, "output_tokens": 2000})
    # .5 + .202 spent, and each is expected to cost .0702 by now
    assert [dear.reserve() for _ in range(5)] == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("sha256", "name", "box", "known"),
    [
        ("a" * 64, "top", (0, 0.5, 10, 20), True),
        ("a" * 64, None, (0, 0, 10, 20), True),
        ("A" * 64, "top", (0, 0, 10, 20), False),
        ("a" * 63, "top", (0, 0, 10, 20), False),
        ("a" * 65, "top", (0, 0, 10, 20), False),
        (7, "top", (0, 0, 10, 20), False),
        ("a" * 64, "hat", (0, 0, 10, 20), False),
        ("a" * 64, "top", (0, 0, 10), False),
        ("a" * 64, "top", (0, 0, 10, float("nan")), False),
        ("a" * 64, "top", (0, 0, 10, "20"), False),
    ],
)
def test_what_a_garment_of_a_cache_must_be(sha256: object, name: object, box: tuple[object, ...], known: bool) -> None:
    assert is_place(sha256, name, box) is known
