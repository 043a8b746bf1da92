"""One limit for all who ask: what one is told, all heed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from captioners import describe_crops
from openai_server import OpenAIServer, Recorded, Reply, error, success
from test_captioner_remote import captioner, crops

from fashionrec.captioner.openai.ahead import Prefetcher
from fashionrec.captioner.openai.limiter import RateLimiter, seconds
from fashionrec.captioner.openai.wire import request_body


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6m0s", 360.0), ("1s", 1.0), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("7.66s", 7.66), (" 2d1s ", 172801.0),
        ("3", 3.0), ("0", 0.0), ("0s", 0.0), ("2.5", 2.5), ("soon", None), ("5s.", None), ("-1", None), ("inf", None),
    ],
)  # fmt: skip
def test_durations_are_read_as_openai_writes_them(text: str, expected: float | None) -> None:
    assert seconds(text) == (pytest.approx(expected) if expected is not None else None)
    assert seconds(None) is None
    assert seconds("") is None


def test_no_more_are_under_way_than_allowed() -> None:
    limiter = RateLimiter(2, clock=Clock())
    assert limiter.try_enter() == 0
    assert limiter.try_enter() == 0
    assert limiter.try_enter() > 0
    limiter.leave()
    assert limiter.try_enter() == 0


def test_when_one_is_told_to_wait_all_wait() -> None:
    clock = Clock()
    limiter = RateLimiter(4, clock=clock)
    limiter.throttled(clock.now, 30.0)
    assert limiter.try_enter() > 0
    clock.now += 29.0
    assert limiter.try_enter() > 0
    clock.now += 1.5
    assert limiter.try_enter() == 0


def test_fewer_are_under_way_after_a_refusal_and_more_again_after_answers() -> None:
    clock = Clock()
    limiter = RateLimiter(64, clock=clock)
    limiter.throttled(clock.now, 0.0)
    assert limiter.limit == 32
    clock.now += 1.0
    for _ in range(31):  # the others of the same moment say nothing new
        limiter.throttled(clock.now - 1.5, 0.0)
    assert limiter.limit == 32
    limiter.throttled(clock.now, 0.0)
    assert limiter.limit == 16
    for _ in range(16):
        limiter.succeeded()
    assert 17 <= limiter.limit <= 18  # a tenth more in a round
    for _ in range(2000):
        limiter.succeeded()
    assert limiter.limit == 64


def test_a_budget_of_requests_that_is_used_up_is_waited_for() -> None:
    clock = Clock()
    limiter = RateLimiter(8, clock=clock)
    limiter.heard(
        {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "2", "x-ratelimit-reset-requests": "58s"}
    )
    assert limiter.try_enter() == 0
    assert limiter.try_enter() == 0
    assert limiter.try_enter() > 0
    clock.now += 1.1  # one a second comes back
    assert limiter.try_enter() == 0
    assert limiter.try_enter() > 0


def test_a_budget_of_tokens_that_is_used_up_is_waited_for() -> None:
    clock = Clock()
    limiter = RateLimiter(8, tokens=1000, clock=clock)
    limiter.heard(
        {"x-ratelimit-limit-tokens": "30000", "x-ratelimit-remaining-tokens": "1500", "x-ratelimit-reset-tokens": "57s"}
    )
    assert limiter.try_enter() == 0
    assert limiter.try_enter() > 0
    clock.now += 1.1  # 500 a second come back
    assert limiter.try_enter() == 0


def test_an_answer_that_was_long_under_way_gives_nothing_back() -> None:
    clock = Clock()
    limiter = RateLimiter(8, clock=clock)

    def told(remaining: int) -> None:
        limiter.heard(
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": str(remaining),
                "x-ratelimit-reset-requests": f"{60 - remaining}s",
            }
        )

    told(1)
    assert limiter.try_enter() == 0
    told(5)  # older than the one before
    assert limiter.try_enter() > 0


def headers(kind: str, limit: str | None, remaining: str | None, reset: str | None) -> dict[str, str]:
    told = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{what}-{kind}": value for what, value in told.items() if value is not None}


@pytest.mark.parametrize(
    ("told", "waits"),
    [
        (headers("requests", "60", "0", "60s"), 1.0),  # one a second
        (headers("requests", "61", "1", "60s"), 0.0),
        (headers("requests", "60.5", "0.5", "60s"), 0.5),
        (headers("requests", None, "0", "8s"), 8.0),  # one is missing at least
        (headers("requests", "5", "9", "8s"), 0.0),
        (headers("requests", "1", "0", "0"), 0.001),
        (headers("requests", "60", None, "60s"), 0.0),
        (headers("requests", "60", "0", None), 0.0),
        (headers("requests", "60", "none", "soon"), 0.0),
        (headers("requests", "60", "-5", "1s"), 0.0),
        (headers("requests", "60", "inf", "1s"), 0.0),
        (headers("tokens", "30000", "0", "60s"), 2.0),  # 500 a second, and 1,000 are needed
        (headers("tokens", "30000", "1000", "58s"), 0.0),
        (headers("tokens", "30000", "999", "58.002s"), 0.002),
        (headers("requests", "60", "0", "60s") | headers("tokens", "30000", "0", "90s"), 3.0),
        (headers("requests", "60", "0", "300s") | headers("tokens", "30000", "0", "60s"), 5.0),
    ],
)
def test_what_a_server_says_is_left_is_waited_for_to_the_moment(told: dict[str, str], waits: float) -> None:
    clock = Clock()
    limiter = RateLimiter(8, tokens=1000, clock=clock)
    limiter.heard(told)
    if waits:
        assert limiter.try_enter() == pytest.approx(min(waits, 0.5))
        clock.now += waits - 0.0001
        assert limiter.try_enter() == pytest.approx(0.0001, rel=0.01)
        clock.now += 0.0002
    assert limiter.try_enter() == 0


def test_who_enters_takes_from_both_budgets() -> None:
    clock = Clock()
    limiter = RateLimiter(9, tokens=100, clock=clock)
    limiter.heard(headers("requests", "10", "3", "70s") | headers("tokens", "1000", "250", "750s"))
    assert [limiter.try_enter() for _ in range(3)] == [0, 0, 0.5]  # tokens for two
    clock.now += 50.0  # 50 tokens have come back, and 5 requests
    assert limiter.try_enter() == 0
    clock.now += 99.9
    assert limiter.try_enter() == pytest.approx(0.1)


def test_who_does_not_use_tokens_is_held_up_by_none() -> None:
    limiter = RateLimiter(1, clock=Clock())
    limiter.heard(headers("tokens", "10", "0", "60s"))
    assert limiter.try_enter() == 0


def test_one_pause_after_another_ends_with_the_later() -> None:
    clock = Clock()
    limiter = RateLimiter(4, clock=clock)
    limiter.pause(30.0)
    limiter.pause(10.0)
    limiter.throttled(clock.now, 20.0)
    assert limiter.limit == 2
    clock.now += 29.75
    assert limiter.try_enter() == 0.25
    clock.now += 0.25
    assert [limiter.try_enter() for _ in range(3)] == [0, 0, 0.5]
    limiter.pause(1.0)
    limiter.leave()
    clock.now += 0.75
    assert limiter.try_enter() == 0.25


def test_one_is_always_let_in_and_never_more_than_the_settings_say() -> None:
    limiter = RateLimiter(3, clock=Clock())
    for _ in range(9):
        limiter.throttled(100.0, 0.0)
    assert limiter.limit == 1
    limits = []
    for _ in range(5):
        limiter.succeeded()
        limits.append(limiter.limit)
    assert limits == [2, 2, 2, 3, 3]  # 2, 2.5, 2.9, and then no more than 3
    assert [limiter.try_enter() for _ in range(4)] == [0, 0, 0, 0.5]


def test_who_waits_is_let_in_when_another_leaves_or_all_stops() -> None:
    limiter = RateLimiter(1)
    stop = threading.Event()
    assert limiter.enter(stop)
    entered: list[bool] = []
    waiting = threading.Thread(target=lambda: entered.append(limiter.enter(stop)))
    waiting.start()
    waiting.join(0.05)
    assert entered == []
    limiter.leave()
    waiting.join(30)
    assert entered == [True]
    stop.set()
    assert not limiter.enter(stop)


def test_a_retry_after_of_one_stops_all_the_workers() -> None:
    """Check what the server sees: no request comes while it has asked for a pause."""

    def script(request: Recorded, number: int) -> Reply:
        return error(429, "slow down", Retry_After="1.0") if number == 0 else Reply(body=success().body, hang=0.02)

    with OpenAIServer(script) as server:
        found = dict(describe_crops(captioner(server, concurrency=8), crops(40), ["top"] * 40))
    assert {outcome.state for outcome in found.values()} == {"done"}
    told = server.requests[0].at
    during = [request for request in server.requests[1:] if 0.4 < request.at - told < 0.95]
    assert during == []
    assert len(server.requests) == 41


def test_answers_after_a_refusal_let_more_in_again() -> None:
    def script(request: Recorded, number: int) -> Reply:
        return error(429, "slow down", Retry_After="0") if number == 0 else success()

    limits = []
    with OpenAIServer(script) as server, captioner(server, concurrency=4).caller() as caller:
        for _ in range(3):
            caller(request_body("gpt-4o", {}, b"jpeg", "top"))
            limits.append(caller.limiter.limit)
    assert limits == [2, 2, 3]  # half of four, and then 2.5, 2.9 and 3.24


def _limited(per_second: float, burst: float, header: bool) -> Callable[[Recorded, int], Reply]:
    """A server with a bucket of requests: what finds it empty gets a 429."""
    state = {"left": burst, "at": time.monotonic()}
    lock = threading.Lock()

    def script(request: Recorded, number: int) -> Reply:
        with lock:
            now = time.monotonic()
            state["left"] = min(burst, state["left"] + (now - state["at"]) * per_second)
            state["at"] = now
            if state["left"] < 1:
                wait = {"retry_after_ms": str(round(1000 * (1 - state["left"]) / per_second))} if header else {}
                return error(429, "Rate limit reached", **wait)
            state["left"] -= 1
        return Reply(body=success().body, hang=0.02)

    return script


@pytest.mark.parametrize("header", [True, False])
def test_a_rate_limit_is_found_without_a_storm(header: bool) -> None:
    with OpenAIServer(_limited(40.0, 10.0, header)) as server:
        found = dict(describe_crops(captioner(server, concurrency=16, retries=8), crops(80), ["top"] * 80))
    assert {outcome.state for outcome in found.values()} == {"done"}
    assert len(server.requests) <= 80 * 2  # far below the 80 x 9 that may be


def test_what_is_made_ahead_is_bounded_and_nothing_is_lost() -> None:
    stop = threading.Event()
    made: list[int] = []
    ahead: Prefetcher[int, int] = Prefetcher(range(50), lambda n: made.append(n) or n, threads=2, most=5, stop=stop)  # type: ignore[func-returns-value]
    time.sleep(0.2)
    assert len(made) <= 5 + 2
    taken = []
    while (one := ahead.take()) is not None:
        taken.append(one)
    assert sorted(taken) == list(range(50))
    ahead.close(wait=1.0)


def test_an_error_in_what_is_made_ahead_reaches_who_takes() -> None:
    def fails(n: int) -> int:
        raise RuntimeError("a bug")

    ahead: Prefetcher[Any, int] = Prefetcher([1], fails, threads=1, most=1, stop=threading.Event())
    with pytest.raises(RuntimeError, match="a bug"):
        ahead.take()
