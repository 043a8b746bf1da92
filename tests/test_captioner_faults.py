"""A server that does everything wrong that servers do, one garment after another: each ends in its
state, within its calls.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from captioners import count_by_state, describe_crops, no_vector
from openai_server import OpenAIServer, Recorded, Reply, completion, error, success
from PIL import Image
from test_captioner_remote import captioner, crops, settings

from fashionrec.captioner.base import Job
from fashionrec.captioner.cache import CaptionCache
from fashionrec.captioner.cost import CostMeter, Price, Tokens
from fashionrec.captioner.openai.remote import OpenAICaptioner
from fashionrec.captioner.outcome import Outcome
from fashionrec.photos.images import encode_jpeg
from fashionrec.types import Box

RETRIES = 2
EACH = 1e-6 * (400 + 90)  # US$ of one answer, at a price of one per million tokens either way


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


Behaviour = Callable[[int], Reply]  # what is answered to the n-th call for one garment


def once(reply: Reply) -> Behaviour:
    """A fault that passes."""
    return lambda call: reply if call == 0 else success()


#: Name, what the server does, how the garment ends, and the calls that takes.
BEHAVIOURS: list[tuple[str, Behaviour, str, int]] = [
    ("success", lambda call: success(), "done", 1),
    ("429 with Retry-After", once(error(429, "slow down", Retry_After="0.05")), "done", 2),
    ("429 without", once(error(429, "slow down")), "done", 2),
    ("429 for ever", lambda call: error(429, "slow down", retry_after_ms="10"), "failed", 1 + RETRIES),
    ("500", once(error(500, "oops")), "done", 2),
    ("502", once(Reply(502, "<html>Bad gateway</html>")), "done", 2),
    ("503", lambda call: error(503, "busy"), "failed", 1 + RETRIES),
    ("read timeout", once(Reply(hang=3.0)), "done", 2),
    ("reset", once(Reply(reset=True)), "done", 2),
    ("reset half-way", once(Reply(half=True)), "done", 2),
    ("reset half-way for ever", lambda call: Reply(half=True), "failed", 1 + RETRIES),
    ("refusal", lambda call: Reply(body=completion(None, refusal="no")), "refused", 1),
    ("content filter", lambda call: Reply(body=completion("", finish="content_filter")), "filtered", 1),
    ("content policy", lambda call: error(400, "flagged", code="content_policy_violation"), "filtered", 1),
    ("length", lambda call: Reply(body=completion('{"categ', finish="length")), "truncated", 1),
    ("invalid JSON", lambda call: Reply(body=completion("{'category': top}")), "invalid", 1),
    ("schema violation", lambda call: success(color="ultraviolet"), "invalid", 1),
    ("wrong language", lambda call: success(caption_ko="A black top"), "invalid", 1),
    ("wrong language too", lambda call: success(caption_en="검은 상의"), "invalid", 1),
]


def picture(n: int) -> Image.Image:
    return Image.new("RGB", (48, 64), (n % 251, 3 * n % 253, 7 * n % 241))


class FaultyServer(OpenAIServer):
    """Does with each garment, known by its picture, what its behaviour says."""

    def __init__(self, garments: int, shipped: Any) -> None:
        super().__init__(self.decide)
        self.calls: Counter[int] = Counter()
        self._known = {
            hashlib.sha256(encode_jpeg(picture(n), shipped.image_side, shipped.image_quality, quick=True)).digest(): n
            for n in range(garments)
        }
        assert len(self._known) == garments

    def decide(self, request: Recorded, number: int) -> Reply:
        url = request.body["messages"][1]["content"][1]["image_url"]["url"]
        n = self._known[hashlib.sha256(base64.b64decode(url.split(",")[1])).digest()]
        with self._lock:
            call = self.calls[n]
            self.calls[n] += 1
        return BEHAVIOURS[n % len(BEHAVIOURS)][1](call)


def ask(
    server: FaultyServer,
    cache: CaptionCache,
    order: list[int],
    meter: CostMeter,
    concurrency: int = 8,
    kind: type[OpenAICaptioner] = OpenAICaptioner,
) -> None:
    """One run: what is not recorded is asked for, and recorded."""
    asked = kind(settings(server, concurrency=concurrency, retries=RETRIES, timeout=0.5), api_key="none", backoff=0.01)
    todo = [n for n in order if cache.find(f"{n:064}", "top", Box(0, 0, 9, 9), "openai") is None]
    jobs = (Job(n, "top", partial(picture, n), no_vector) for n in todo)
    with closing(asked.describe(jobs, most=len(todo), meter=meter)) as groups:
        for group in groups:
            cache.put_many([(f"{one.job.key:064}", "top", Box(0, 0, 9, 9), one.outcome) for one in group])


def free() -> CostMeter:
    return CostMeter(Price(1e-6, 1e-6), Tokens(400, 90))


def test_every_garment_ends_in_its_state_within_its_calls_and_is_not_asked_again(tmp_path: Path) -> None:
    in_its_state_within_its_calls(tmp_path, OpenAICaptioner)


def in_its_state_within_its_calls(tmp_path: Path, kind: type[OpenAICaptioner]) -> None:
    garments = 4 * len(BEHAVIOURS)
    order = list(range(garments))
    random.Random(5).shuffle(order)
    shipped = settings("http://127.0.0.1:1/v1")
    with FaultyServer(garments, shipped) as server, CaptionCache(tmp_path / "captions.sqlite") as cache:
        ask(server, cache, order, free(), kind=kind)
        for n in order:
            name, _, state, calls = BEHAVIOURS[n % len(BEHAVIOURS)]
            found = cache.find(f"{n:064}", "top", Box(0, 0, 9, 9), "openai")
            assert found is not None, name
            assert (name, found.state, server.calls[n]) == (name, state, calls)
            assert server.calls[n] <= 1 + RETRIES
            answered = found.state not in ("failed",) and name != "content policy"
            assert (found.usage["input_tokens"] > 0) is answered, name  # what was paid for is known, whatever it said
        before = len(server.requests)
        ask(server, cache, order, free(), kind=kind)
        assert len(server.requests) == before


@pytest.mark.parametrize("concurrency", [1, 8])
def test_what_is_spent_stays_below_the_cap_whatever_goes_wrong(concurrency: int, tmp_path: Path) -> None:
    garments = 6 * len(BEHAVIOURS)
    shipped = settings("http://127.0.0.1:1/v1")
    cap = 20 * EACH
    with FaultyServer(garments, shipped) as server, CaptionCache(tmp_path / "captions.sqlite") as cache:
        meter = CostMeter(Price(1e-6, 1e-6), Tokens(100, 10), cap=cap)  # too little is expected at first
        ask(server, cache, list(range(garments)), meter, concurrency)
        assert meter.stopped
        assert meter.spent is not None
        assert meter.spent <= cap + concurrency * EACH
        assert meter.spent > cap - (concurrency + 2) * EACH  # those under way may fail, and cost nothing
        recorded = sum(count_by_state(cache).values())
        assert recorded < garments
        more = CostMeter(Price(1e-6, 1e-6), Tokens(400, 90), cap=cap)
        ask(server, cache, list(range(garments)), more, concurrency)
        assert more.spent is not None
        assert more.spent <= cap + concurrency * EACH
        assert max(server.calls.values()) <= 1 + RETRIES


def test_no_connection_in_time_is_a_failure() -> None:
    """A server whose queue of connections is full: the kernel answers nobody."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        url = f"http://127.0.0.1:{address[1]}/v1"
        found = dict(describe_crops(captioner(url, timeout=0.3, retries=1), crops(), ["top"]))
        for one in waiting:
            one.close()
    assert (found[0].state, found[0].retryable) == ("failed", True)
    assert "0.3 s" in (found[0].error or "")


class ForgetsRefusals(OpenAICaptioner):
    """Takes a refusal for an empty answer."""

    def read_answer(self, body: str, *given: Any, **named: Any) -> Outcome:
        return super().read_answer(json.dumps(json.loads(body) | {"choices": []}), *given, **named)


def test_a_garment_whose_state_is_planted_wrong_is_caught(tmp_path: Path) -> None:
    """The gate above can fail."""
    with pytest.raises(AssertionError):
        in_its_state_within_its_calls(tmp_path, ForgetsRefusals)
