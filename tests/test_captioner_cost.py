"""Test what captions cost: estimated, measured, counted, held below a limit; and when a
model ends.
"""

from __future__ import annotations

import threading
from datetime import date
from typing import Any

import pytest
from openai_server import OpenAIServer

from fashionrec.captioner.cost import CostMeter, Price, Tokens, dollars
from fashionrec.captioner.openai.retirement import ask_shutdown, shutdown_notice
from fashionrec.captioner.openai.tokens import estimate, image_tokens
from fashionrec.captioner.vocabulary import load_vocabulary
from fashionrec.config import CaptionerConfig, ImageTokensConfig, load_config
from fashionrec.errors import CaptionError, ConfigError

GPT_4O = ImageTokensConfig.model_validate({"base": 85, "tile": 170})


def settings(**changes: Any) -> CaptionerConfig:
    return load_config(env={}).config.captioner.model_copy(update=changes)


@pytest.mark.parametrize(
    ("width", "height", "detail", "tokens"),
    [
        (1024, 1024, "high", 765),  # the guide's own examples: 768 x 768, 4 tiles
        (2048, 4096, "high", 1105),  # 768 x 1536, 6 tiles
        (4096, 8192, "low", 85),
        (512, 512, "high", 255),  # one tile: what we send
        (512, 300, "high", 255),
        (513, 300, "high", 425),
        (2000, 100, "high", 85 + 4 * 170),
    ],
)
def test_the_tokens_of_a_picture_follow_from_its_size(width: int, height: int, detail: str, tokens: int) -> None:
    assert image_tokens(GPT_4O, width, height, detail) == tokens


def test_an_estimate_follows_from_what_is_sent() -> None:
    words = load_vocabulary()
    config = settings()
    entry = config.models["gpt-4o"]
    whole = estimate(config, entry, words)
    low = estimate(settings(image_detail="low"), entry, words)
    large = estimate(settings(image_side=1024), entry, words)
    assert whole.measured == 0
    assert whole.input - low.input == 170
    assert large.input - whole.input == 510
    assert 800 < whole.input < 3000
    assert 100 < whole.output < 500
    assert estimate(config, config.models["other"], words).input > whole.input  # not known: rather too much


def test_a_price_is_per_million_tokens_and_a_batch_costs_half() -> None:
    entry = settings().models["gpt-4o"]
    price, batch = Price.of(entry), Price.of(entry, batch=True)
    assert price is not None
    assert batch is not None
    assert price(Tokens(1_000_000, 100_000)) == pytest.approx(2.5 + 1.0)
    assert batch(Tokens(1_000_000, 100_000)) == pytest.approx(1.75)
    assert Price.of(settings().models["other"]) is None


def test_a_meter_stops_before_its_limit_is_passed() -> None:
    meter = CostMeter(Price(1e-6, 0.0), Tokens(1000, 0), cap=0.0105)  # a tenth of a cent each: ten
    asked = 0
    while meter.reserve():
        asked += 1
        if asked % 3 == 0:
            for _ in range(3):
                meter.came({"input_tokens": 1000, "output_tokens": 0})
    assert asked == 10
    assert meter.stopped
    assert meter.spent == pytest.approx(0.009)


def test_answers_that_cost_more_than_expected_pass_the_limit_by_those_under_way_at_most() -> None:
    meter = CostMeter(Price(1e-6, 0.0), Tokens(100, 0), cap=0.02)
    most_under_way, under_way = 8, 0
    while True:
        while under_way < most_under_way and meter.reserve():
            under_way += 1
        if not under_way:
            break
        meter.came({"input_tokens": 1000, "output_tokens": 0})  # ten times what was expected
        under_way -= 1
    assert meter.spent is not None
    assert 0.0195 < meter.spent <= 0.02 + most_under_way * 0.001


def test_a_meter_counts_what_many_threads_reserve() -> None:
    meter = CostMeter(Price(1e-6, 0.0), Tokens(1000, 0), cap=0.1)
    got = []

    def work() -> None:
        while meter.reserve():
            got.append(1)
            meter.came({"input_tokens": 1000, "output_tokens": 0})

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 100


def test_an_answer_of_a_single_token_is_measured_and_one_of_none_is_not() -> None:
    meter = CostMeter(Price(1.0, 2.0), Tokens(100, 10))
    for used in (0, 1) * 10:
        assert meter.each == Tokens(100, 10)
        assert meter.reserve()
        meter.came({"input_tokens": used, "output_tokens": 0})
    assert meter.each == Tokens(1.0, 0.0, 10)


def test_a_limit_without_a_price_is_refused() -> None:
    with pytest.raises(CaptionError) as caught:
        CostMeter(None, Tokens(1, 1), cap=1.0)
    assert str(caught.value) == "the price of this model is unknown, so a cost limit cannot be enforced"
    assert caught.value.hint == "set input_price and output_price in captioner.models, or omit --max-cost"
    free = CostMeter(None, Tokens(1, 1))
    assert (free.spent, free.cost_of(5), free.reserve(), free.stopped) == (None, None, True, False)


def test_a_price_needs_both_of_its_halves() -> None:
    entry = settings().models["gpt-4o"]
    assert Price.of(entry.model_copy(update={"input_price": None})) is None
    assert Price.of(entry.model_copy(update={"output_price": None})) is None
    assert Price(2.0, 3.0).usage({"input_tokens": 10, "output_tokens": 1}) == 23.0
    assert Price(2.0, 3.0).usage({}) == 0.0


def test_what_is_expected_counts_until_ten_answers_have_come() -> None:
    """By hand, at US$ 1 an input token and 2 an output token: 100 and 10 expected is 120, 50 and 5
    measured is 60.
    """
    meter = CostMeter(Price(1.0, 2.0), Tokens(100, 10), cap=1000.0)
    assert meter.cost_of(3) == 360.0
    for n in range(9):
        assert meter.reserve(), n
        meter.came({"input_tokens": 50, "output_tokens": 5})
    assert meter.each == Tokens(100, 10)
    for untold in ({}, {"output_tokens": 5}):  # an answer that tells of no tokens is not measured
        assert meter.reserve()
        meter.came(untold)
    assert (meter.answers, meter.usage) == (9, {"input_tokens": 450, "output_tokens": 50})
    assert meter.reserve()
    meter.came({"input_tokens": 60, "output_tokens": 0})
    assert meter.each == Tokens(51.0, 5.0, 10)
    assert (meter.spent, meter.cost_of(2)) == (610.0, 122.0)
    assert [meter.reserve() for _ in range(4)] == [True, True, True, False]  # 610 and three times 120, not four
    assert meter.stopped
    meter.came({})
    assert meter.reserve()


def test_the_limit_itself_may_be_spent() -> None:
    meter = CostMeter(Price(1.0, 0.0), Tokens(10, 0), cap=20.0)
    assert [meter.reserve() for _ in range(3)] == [True, True, False]


def test_what_was_measured_in_the_run_replaces_the_estimate() -> None:
    meter = CostMeter(Price(1e-6, 0.0), Tokens(9999, 0))
    for _ in range(10):
        assert meter.reserve()
        meter.came({"input_tokens": 500, "output_tokens": 100})
    assert (meter.each.input, meter.each.output) == (500, 100)


def test_amounts_are_shown_as_people_read_them() -> None:
    amounts = [0.0, 0.00312, 0.99994, 1.0, 1234.5, None]
    assert [dollars(amount) for amount in amounts] == [
        "US$ 0.0000", "US$ 0.0031", "US$ 0.9999", "US$ 1.00", "US$ 1,234.50", "cost unknown",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("today", "says"),
    [
        ("2026-11-14", ""),
        ("2026-11-15", "in 60 days"),
        ("2026-11-25", "in 50 days"),
        ("2027-01-14", "in 0 days"),
    ],
)
def test_a_run_warns_from_sixty_days_before_the_end(today: str, says: str) -> None:
    notice = shutdown_notice(settings(), date.fromisoformat(today))
    whole = f"OpenAI shuts gpt-4o down on 2027-01-14, {says}: switch with --set captioner.model=gpt-6-luna"
    assert notice == (whole if says else "")


def test_after_the_end_the_replacement_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        shutdown_notice(settings(), date(2027, 1, 15))
    assert str(caught.value) == "gpt-4o was shut down on 2027-01-14; gpt-6-luna replaces it"
    assert caught.value.hint == (
        "switch with --set captioner.model=gpt-6-luna; existing captions are kept, and nothing is requested again"
    )
    assert shutdown_notice(settings(model="gpt-6-luna"), date(2027, 1, 15)) == ""


def test_another_server_has_its_own_dates() -> None:
    local = settings(base_url="http://127.0.0.1:8000/v1")
    assert shutdown_notice(local, date(2027, 3, 1)) == ""
    move = "switch with --set captioner.model=gpt-6-luna"
    assert shutdown_notice(local, date(2027, 3, 1), "2027-02-01") == (
        f"127.0.0.1:8000 shut gpt-4o down on 2027-02-01: {move}"
    )
    assert shutdown_notice(local, date(2027, 1, 1), "2027-03-02") == (
        f"127.0.0.1:8000 shuts gpt-4o down on 2027-03-02, in 60 days: {move}"
    )
    assert shutdown_notice(local, date(2027, 1, 1), "2027-03-03") == ""


def test_a_model_that_nothing_replaces() -> None:
    unknown = settings(model="my model", base_url="http://127.0.0.1:8000/v1")
    assert shutdown_notice(unknown, date(2027, 2, 1), "2027-02-01") == (
        "127.0.0.1:8000 shuts my model down on 2027-02-01, in 0 days: switch with --set captioner.model=MODEL"
    )
    with pytest.raises(ConfigError) as caught:
        shutdown_notice(settings(model="my-model"), date(2027, 2, 2), "2027-02-01")
    assert str(caught.value) == "my-model was shut down on 2027-02-01"


def test_what_the_server_tells_goes_before_what_we_know() -> None:
    assert "in 10 days" in shutdown_notice(settings(), date(2027, 1, 1), "2027-01-11T00:00:00Z")
    assert shutdown_notice(settings(), date(2027, 1, 20), "2027-06-01") == ""  # it was put off
    assert "in 50 days" in shutdown_notice(settings(), date(2026, 11, 25), "some day")


def test_the_date_is_read_from_the_models_own_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with OpenAIServer() as server:
        config = settings(base_url=server.base_url)
        assert ask_shutdown(config, "none") is None
        server.shutdown_date = "2027-02-03"
        assert ask_shutdown(config, "none") == "2027-02-03"
        assert server.others == ["GET /v1/models/gpt-4o"] * 2
    assert ask_shutdown(config, "none") is None  # nobody answers: that is no failure
