"""The OpenAI captioner as jobs use it: what it says of itself, and what goes out with
each answer.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from captioners import no_vector
from openai_server import OpenAIServer, Recorded, Reply, completion, error, fitting, success
from PIL import Image
from test_captioner_remote import CANARY, caption_threads, captioner, crops

from fashionrec.captioner.base import Described, Job
from fashionrec.captioner.cost import CostMeter, Price, Tokens
from fashionrec.captioner.openai.client import host
from fashionrec.captioner.openai.remote import OpenAICaptioner
from fashionrec.captioner.openai.wire import stored_answer
from fashionrec.captioner.outcome import Outcome
from fashionrec.config import load_config
from fashionrec.errors import CaptionError, ConfigError
from fashionrec.photos.images import encode_jpeg

USED = {"input_tokens": 400, "output_tokens": 90}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def shipped(**changes: Any) -> OpenAICaptioner:
    return OpenAICaptioner(load_config(env={}).config.captioner.model_copy(update=changes), api_key=CANARY)


def jobs(count: int) -> list[Job]:
    pictures = crops(count)
    return [Job(n, "top", partial(pictures.__getitem__, n), no_vector) for n in range(count)]


def described(made: OpenAICaptioner, asked: Sequence[Job], **given: Any) -> list[Described]:
    return [one for group in made.describe(asked, **given) for one in group]


# -- what it says of itself


def test_whether_it_is_ready_is_whether_there_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not OpenAICaptioner.is_ready()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert OpenAICaptioner.is_ready()


def test_what_it_is() -> None:
    kind = OpenAICaptioner
    assert (kind.name, kind.title, kind.sends_photos, kind.costs) == ("openai", "OpenAI", True, True)
    assert (kind.spool_file, kind.batch_folder, kind.from_encoder) == (".captions.arrived", "caption-batches", False)
    made = shipped()
    assert (made.model, made.only_model, made.bind(None)) == ("gpt-4o", None, made)  # type: ignore[arg-type]
    assert made.label == "gpt-4o at OpenAI (the crops are sent there)"
    local = shipped(base_url="http://127.0.0.1:8000/v1", model="qwen-vl")
    assert local.label == "qwen-vl at http://127.0.0.1:8000/v1 (the crops are sent there)"
    assert [made.keeps(name) for name in ("openai", "local", None)] == [True, False, False]


def test_its_prices_are_those_of_its_models() -> None:
    made = shipped()
    assert made.price() == made.price("gpt-4o") == Price(2.5 / 1e6, 10 / 1e6)
    assert made.price("gpt-6-luna") == Price(0.1 / 1e6, 0.5 / 1e6)
    assert made.price(batch=True) == Price(1.25 / 1e6, 5 / 1e6)
    assert made.price("qwen-vl") is None
    assert shipped(model="qwen-vl").price() is None
    assert made.expected_tokens().input > shipped(image_detail="low").expected_tokens().input


def test_the_end_of_a_model_is_asked_only_where_that_is_allowed() -> None:
    with OpenAIServer() as server:
        server.shutdown_date = "2020-01-02"
        made = captioner(server)
        assert made.notice(ask=False) == ""
        assert server.others == []
        assert made.notice(ask=True) == (
            f"{host(server.base_url)} shut gpt-4o down on 2020-01-02: switch with --set captioner.model=gpt-6-luna"
        )


def test_settings_that_cannot_work_are_told() -> None:
    for url in ("localhost:8000/v1", "ftp://x/v1", ""):
        with pytest.raises(ConfigError) as caught:
            shipped(base_url=url)
        assert str(caught.value) == "captioner.base_url is not an http(s) URL"
        assert caught.value.hint == "for example http://127.0.0.1:8000/v1"
    for url in ("HTTP://x/v1", "https://x/v1"):
        assert shipped(base_url=url).model == "gpt-4o"
    entry = load_config(env={}).config.captioner.models["gpt-4o"].model_copy(update={"parameters": {"tools": []}})
    with pytest.raises(ConfigError) as caught:
        shipped(models={"gpt-4o": entry})
    assert str(caught.value) == "captioner.models.gpt-4o.parameters must not set tools"


@pytest.mark.parametrize(("detail", "told"), [("auto", {}), ("low", {"detail": "low"}), ("high", {"detail": "high"})])
def test_the_picture_is_sent_as_the_settings_say(detail: str, told: dict[str, str]) -> None:
    picture = Image.effect_noise((300, 400), 80).convert("RGB")
    made = shipped(image_detail=detail, image_side=128, image_quality=40)
    body = made.body(picture, "dress")
    jpeg = base64.b64encode(encode_jpeg(picture, 128, 40, quick=True)).decode()
    text, image = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "Class: dress."}
    assert image == {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg}"} | told}
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("gpt-4o", 0.0, 500)


def test_what_is_recorded_is_read_again() -> None:
    made = shipped()
    text = json.dumps(fitting(made.body(crops()[0], "top")), ensure_ascii=False)
    found = made.read_text(text, "top", model="older", usage=USED)
    assert (found.state, found.model, found.raw, found.usage, found.seconds) == ("done", "older", text, USED, 0.0)
    assert made.read_text("{}", "top", model="older", usage=USED) == Outcome(
        "invalid",
        "openai",
        "older",
        raw="{}",
        usage=USED,
        error=made.read_text("{}", "top", model="m", usage=USED).error,
    )
    kept = stored_answer(json.loads(completion(text)))
    assert made.read_answer(kept, "top") == replace(found, model="gpt-4o")
    assert made.read_answer(kept, "top", model="older", seconds=1.5) == replace(found, seconds=1.5)


def test_a_translation_that_did_not_come_is_told() -> None:
    with OpenAIServer([error(500, "down")]) as server, pytest.raises(CaptionError) as caught:
        captioner(server, retries=0).translate(["바지"])
    assert str(caught.value) == "the text was not translated: 500: down"
    assert caught.value.hint == "omit --translate"
    with OpenAIServer([Reply(body=completion('{"english": ["pants", "top"]}'))]) as server:
        assert captioner(server).translate(["바지", "상의"]) == ["pants", "top"]
        assert server.requests[0].body["max_tokens"] == 500
        assert json.loads(server.requests[0].body["messages"][1]["content"]) == {"texts": ["바지", "상의"]}


# -- what goes out with each answer


def test_each_answer_is_handed_over_before_it_is_read() -> None:
    handed: list[tuple[object, str, float]] = []

    def arrived(job: Job, body: str, seconds: float) -> None:
        handed.append((job.key, body, seconds))

    replies = [Reply(body=completion("x"), hang=0.05), error(400, "odd"), Reply(body="<html>"), success()]
    meter = CostMeter(Price(1e-6, 1e-6), Tokens(1, 1))
    with OpenAIServer(replies) as server:
        found = described(captioner(server, concurrency=1), jobs(4), arrived=arrived, meter=meter, most=4)
    assert [(one.job.key, one.outcome.state, one.arrived) for one in found] == [
        (0, "invalid", True), (1, "failed", False), (2, "failed", True), (3, "done", True),
    ]  # fmt: skip
    assert [key for key, _, _ in handed] == [0, 2, 3]
    assert handed[0][1] == stored_answer(json.loads(completion("x")))
    assert handed[1][1] == "null"
    for key, body, seconds in handed:
        outcome = found[int(str(key))].outcome
        assert captioner(server).read_answer(body, "top", seconds=seconds) == outcome
    assert 0.05 <= handed[0][2] < 3
    assert all(one.outcome.seconds == round(one.outcome.seconds, 3) > 0 for one in found)
    assert meter.usage == {"input_tokens": 800, "output_tokens": 180}
    assert meter.answers == 2


def test_the_failure_of_a_request_keeps_its_time() -> None:
    with OpenAIServer([error(400, "odd")]) as server:
        (one,) = described(captioner(server), jobs(1))
    assert one.outcome == Outcome(
        "failed", "openai", "gpt-4o", error="400: odd", retryable=False, seconds=one.outcome.seconds
    )
    assert one.outcome.seconds > 0


def test_nothing_is_asked_where_there_is_nothing() -> None:
    with OpenAIServer() as server:
        assert list(captioner(server).describe(jobs(3), most=0)) == []
        assert list(captioner(server).describe([], most=3)) == []
        assert described(captioner(server), [], most=None) == []
    assert server.requests == []


@pytest.mark.parametrize(("most", "workers"), [(None, 3), (2, 2), (9, 3)])
def test_there_are_as_many_threads_as_there_is_work(most: int | None, workers: int) -> None:
    seen: set[str] = set()

    def script(request: Recorded, number: int) -> Reply:
        seen.update(thread.name for thread in caption_threads())
        return success()

    with OpenAIServer(script) as server:
        assert len(described(captioner(server, concurrency=3), jobs(2), most=most)) == 2
    asking = {name for name in seen if name.removeprefix("caption-").isdigit()}
    assert asking <= {f"caption-{n}" for n in range(workers)}
    assert {name for name in seen if name.startswith("caption-crop")} <= {"caption-crop-0", "caption-crop-1"}


def test_what_is_left_of_a_budget_of_tokens_is_heeded() -> None:
    """Each request is expected to use 100 tokens, and the server has 150 for the next
    ten minutes.
    """
    headers = {
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "150",
        "x-ratelimit-reset-tokens": "600s",
    }
    with OpenAIServer([Reply(body=completion("x"), headers=headers)]) as server:
        meter = CostMeter(Price(1e-6, 1e-6), Tokens(60, 40))
        groups = captioner(server, concurrency=1).describe(jobs(3), meter=meter)
        assert len(next(groups)) == 1
        until = time.monotonic() + 30
        while len(server.requests) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.3)
        assert len(server.requests) == 2, "the third waits"
        groups.close()


# -- a server that is given up


def give_up(
    script: list[Reply] | Callable[[Recorded, int], Reply], count: int, **changes: Any
) -> tuple[int, CaptionError]:
    """Return how many outcomes came, and the error."""
    came = 0
    with OpenAIServer(script) as server:
        try:
            for group in captioner(server, retries=0, **changes).describe(jobs(count)):
                came += len(group)
        except CaptionError as caught:
            return came, caught
    raise AssertionError("it was not given up")


NO_CAPTIONS = "the server's answers are not captions"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (error(500, "down"), "500: down"),
        (Reply(body="[]"), NO_CAPTIONS),
        (Reply(body='{"error": {"message": "x"}}'), NO_CAPTIONS),
    ],
)
def test_a_server_that_fails_all_is_given_up(reply: Reply, reason: str) -> None:
    came, caught = give_up([reply], 30, concurrency=1)
    assert str(caught) == f"24 requests failed in a row, the last one with: {reason}"
    assert caught.retryable
    assert caught.hint == "finished captions are kept; resume later with `caption --retry failed`"
    assert came == 23


def test_many_at_once_are_given_more_failures() -> None:
    came, caught = give_up([error(500, "down")], 60, concurrency=9)
    assert came >= 3 * 9 - 1
    assert str(caught).endswith(" requests failed in a row, the last one with: 500: down")


def test_one_answer_in_between_is_enough_to_go_on() -> None:
    def script(request: Recorded, number: int) -> Reply:
        return Reply(body=completion(None, refusal="no")) if number % 24 == 23 else error(500, "down")

    with OpenAIServer(script) as server:
        found = described(captioner(server, retries=0, concurrency=1), jobs(30))
    assert [one.outcome.state for one in found].count("refused") == 1
    assert len(found) == 30


def test_a_garment_that_cannot_be_described_is_no_failure_of_the_server() -> None:
    with OpenAIServer([error(400, "flagged", code="content_filter")]) as server:
        found = described(captioner(server, retries=0, concurrency=1), jobs(30))
    assert {one.outcome.state for one in found} == {"filtered"}
    assert len(found) == 30


def test_the_first_of_several_errors_is_told() -> None:
    class Broken(Image.Image):
        def copy(self) -> Image.Image:
            raise RuntimeError("a bug")

    with OpenAIServer() as server, pytest.raises(RuntimeError, match="a bug"):
        described(captioner(server, concurrency=2), [Job(n, "top", Broken, no_vector) for n in range(5)])
    assert not caption_threads()
