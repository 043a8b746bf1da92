"""The OpenAI captioner against a local server that speaks the real wire format."""

from __future__ import annotations

import base64
import gc
import io
import json
import logging
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from captioners import count_by_state, describe_crops
from openai_server import OpenAIServer, Recorded, Reply, completion, error, fitting, success
from PIL import Image

from fashionrec.captioner.cache import CaptionCache
from fashionrec.captioner.openai.client import retry_after
from fashionrec.captioner.openai.remote import OpenAICaptioner
from fashionrec.captioner.openai.wire import redact, request_body
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.schema import json_schema
from fashionrec.config import CaptionerConfig, load_config
from fashionrec.errors import CaptionError, ConfigError
from fashionrec.types import CLASS_NAMES, Box

CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def settings(server: OpenAIServer | str, **changes: Any) -> CaptionerConfig:
    url = server if isinstance(server, str) else server.base_url
    shipped = load_config(env={}).config.captioner
    return shipped.model_copy(update={"base_url": url, "timeout": 5.0, "retries": 2, "concurrency": 4} | changes)


def captioner(server: OpenAIServer | str, **changes: Any) -> OpenAICaptioner:
    return OpenAICaptioner(settings(server, **changes), api_key=CANARY, backoff=0.01)


def crops(count: int = 1, size: tuple[int, int] = (40, 60)) -> list[Image.Image]:
    return [Image.new("RGB", size, (n * 7 % 255, 90, 120)) for n in range(count)]


def one(script: list[Reply] | Callable[[Recorded, int], Reply], **changes: Any) -> tuple[Outcome, OpenAIServer]:
    with OpenAIServer(script) as server:
        found = dict(describe_crops(captioner(server, **changes), crops(), ["top"]))
    assert list(found) == [0]
    return found[0], server


def collect(outcomes: Iterator[tuple[int, Outcome]]) -> tuple[dict[int, Outcome], CaptionError | None]:
    """Return what came, and the error that ended it."""
    found: dict[int, Outcome] = {}
    try:
        for n, outcome in outcomes:
            assert n not in found
            found[n] = outcome
    except CaptionError as stopped:
        return found, stopped
    return found, None


def caption_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("caption-")]


def test_a_description_is_done_with_its_raw_answer_and_its_usage() -> None:
    outcome, server = one([success(color="navy")])
    assert outcome.state == "done"
    assert outcome.description is not None
    assert outcome.description.color == "navy"
    assert json.loads(outcome.raw or "") == fitting(server.requests[0].body) | {"color": "navy"}
    assert outcome.usage == {"input_tokens": 400, "output_tokens": 90}
    assert (outcome.captioner, outcome.model, outcome.error, outcome.retryable) == ("openai", "gpt-4o", None, False)
    assert outcome.seconds > 0
    assert len(server.requests) == 1


def test_the_request_is_what_the_api_takes() -> None:
    with OpenAIServer() as server:
        asked = captioner(server, image_side=128)
        assert len(list(describe_crops(asked, crops(1, (900, 1200)), ["skirt&pants"]))) == 1
        assert len(list(describe_crops(asked, crops(1), [None]))) == 1
    request, whole = server.requests
    body = request.body
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {CANARY}"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("gpt-4o", 0.0, 500)
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"] == json_schema("skirt&pants")
    system, user = body["messages"]
    assert system["role"] == "system"
    context, picture = user["content"]
    assert "skirt&pants" in context["text"]
    kind, data = picture["image_url"]["url"].split(",", 1)
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert sent.format == "JPEG"
        assert sent.size == (96, 128)
    assert whole.body["response_format"]["json_schema"]["schema"]["properties"]["category"]["enum"] == list(CLASS_NAMES)


def test_a_model_has_the_parameters_of_its_entry_and_an_unknown_one_has_none() -> None:
    with OpenAIServer() as server:
        list(describe_crops(captioner(server, model="gpt-6-luna"), crops(), ["top"]))
        list(describe_crops(captioner(server, model="qwen-vl"), crops(), ["top"]))
        shipped = settings(server)
        entry = shipped.models["gpt-4o"].model_copy(update={"parameters": {"top_k": 3}})  # not OpenAI's own: vLLM's
        list(describe_crops(captioner(server, models={"gpt-4o": entry}), crops(), ["top"]))
    luna, unknown, local = (request.body for request in server.requests)
    assert luna["max_completion_tokens"] == 2000
    assert "temperature" not in luna
    assert set(unknown) == {"model", "messages", "response_format"}
    assert local["top_k"] == 3


@pytest.mark.parametrize(
    ("reply", "state", "calls", "retryable"),
    [
        (Reply(body=completion(None, refusal="I can't help with that.")), "refused", 1, False),
        (Reply(body=completion("", finish="content_filter")), "filtered", 1, False),
        (error(400, "flagged by our safety system", code="content_policy_violation"), "filtered", 1, False),
        (Reply(body=completion('{"category": "top", "sub_c', finish="length")), "truncated", 1, False),
        (Reply(body=completion(None, finish="length")), "truncated", 1, False),
        (Reply(body=completion("Sure! It is a navy top.")), "invalid", 1, False),
        (Reply(body=completion(None)), "invalid", 1, False),
        (Reply(body=completion('{"category": "top"}')), "invalid", 1, False),
        (success(color="ultraviolet"), "invalid", 1, False),
        (success(category="dress"), "invalid", 1, False),
        (success(mood="happy"), "invalid", 1, False),
        (success(confidence=7), "invalid", 1, False),
        (success(caption_ko="A black top"), "invalid", 1, False),
        (success(caption_en="검은 상의"), "invalid", 1, False),
        (Reply(body='{"object": "chat.completion", "choices": []}'), "invalid", 1, False),
        (error(400, "Could not process image", code="invalid_image"), "failed", 1, False),
        (error(500, "The server had an error"), "failed", 3, True),
        (error(502, "Bad gateway"), "failed", 3, True),
        (Reply(503, "<html>Service Unavailable</html>", {"Content-Type": "text/html"}), "failed", 3, True),
        (error(429, "Rate limit reached"), "failed", 3, True),
        (error(500, "do not ask again", x_should_retry="false"), "failed", 1, False),
        (error(429, "come back in an hour", Retry_After="3600"), "failed", 1, True),
        (Reply(reset=True), "failed", 3, True),
        (Reply(half=True), "failed", 3, True),
        (Reply(200, "<html>a proxy's page</html>", {"Content-Type": "text/html"}), "failed", 1, True),
        (Reply(200, '{"error": {"message": "upstream is down"}}'), "failed", 1, True),
        (Reply(200, "[" * 100_000), "failed", 1, True),
    ],
)  # fmt: skip
def test_every_answer_ends_in_its_state_within_the_calls_allowed(
    reply: Reply, state: str, calls: int, retryable: bool
) -> None:
    outcome, server = one([reply])
    assert (outcome.state, outcome.retryable, len(server.requests)) == (state, retryable, calls)
    assert outcome.description is None
    assert outcome.error


def test_no_answer_in_time_is_a_failure() -> None:
    outcome, server = one([Reply(hang=3.0)], timeout=0.15, retries=1)
    assert (outcome.state, outcome.retryable, len(server.requests)) == ("failed", True, 2)
    assert outcome.error == "no answer within 0.15 s"


def test_nobody_listening_is_a_failure() -> None:
    with OpenAIServer() as server:
        url = server.base_url
    outcome = dict(describe_crops(captioner(url), crops(), ["top"]))[0]
    assert (outcome.state, outcome.retryable) == ("failed", True)
    assert "127.0.0.1" in (outcome.error or "")


def test_the_raw_answer_is_kept_where_it_is_no_caption() -> None:
    outcome, _ = one([Reply(body=completion("Sure! It is a navy top."))])
    assert outcome.raw == "Sure! It is a navy top."
    assert outcome.usage == {"input_tokens": 400, "output_tokens": 90}


@pytest.mark.parametrize(
    "first", [error(429, "slow down"), error(500, "oops"), error(503, "busy"), Reply(reset=True), Reply(half=True)]
)
def test_what_passes_is_asked_again(first: Reply) -> None:
    outcome, server = one([first, success()])
    assert (outcome.state, len(server.requests)) == ("done", 2)


@pytest.mark.parametrize(("header", "value"), [("Retry_After", "0.4"), ("retry_after_ms", "400")])
def test_a_retry_waits_as_long_as_the_server_asks(header: str, value: str) -> None:
    _, server = one([error(429, "slow down", **{header: value}), success()])
    first, second = server.requests
    assert 0.4 <= second.at - first.at < 2.0


def test_retry_after_may_be_a_date() -> None:
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert 55 < (retry_after({"retry-after": later}) or 0) <= 60
    assert [retry_after({"retry-after": bad}) for bad in ("soon", "-1", "nan", "inf", "")] == [None] * 5


@pytest.mark.parametrize(
    ("reply", "hint"),
    [
        (error(401, f"Incorrect API key provided: {CANARY}.", code="invalid_api_key"), "OPENAI_API_KEY"),
        (error(403, "Country not supported"), "OPENAI_API_KEY"),
        (error(404, "The model `gpt-4o` does not exist", code="model_not_found"), "captioner.model"),
        (error(429, "You exceeded your current quota", code="insufficient_quota"), "credit"),
        (error(400, "Unsupported parameter", code="unsupported_parameter", param="max_tokens"), "gpt-4o.parameters"),
    ],
)
def test_what_is_wrong_for_all_stops_everything_once(reply: Reply, hint: str) -> None:
    with OpenAIServer([reply]) as server:
        found = describe_crops(captioner(server), crops(200), ["top"] * 200)
        with pytest.raises(CaptionError) as caught:
            list(found)
    assert hint in caught.value.hint
    assert len(server.requests) <= 4  # the calls in flight
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert not caption_threads()


def test_what_was_described_before_everything_stopped_is_kept() -> None:
    def script(request: Recorded, number: int) -> Reply:
        return success() if number < 10 else error(401, "the key was withdrawn")

    with OpenAIServer(script) as server:
        found, stopped = collect(describe_crops(captioner(server), crops(50), ["top"] * 50))
    assert stopped is not None
    assert len(found) == 10
    assert {outcome.state for outcome in found.values()} == {"done"}


def test_a_server_that_fails_everything_is_given_up() -> None:
    with OpenAIServer([error(500, "down")]) as server:
        found, stopped = collect(describe_crops(captioner(server, retries=0), crops(100), ["top"] * 100))
    assert stopped is not None
    assert stopped.retryable
    assert "in a row" in str(stopped)
    assert {outcome.state for outcome in found.values()} == {"failed"}
    assert len(server.requests) <= 24 + 4


def test_many_are_described_at_once_each_in_its_place() -> None:
    def script(request: Recorded, number: int) -> Reply:
        answer = success()
        return Reply(body=answer.body, hang=0.1)

    names = [CLASS_NAMES[n % 5] for n in range(24)]
    ticks: list[tuple[int, int]] = []
    with OpenAIServer(script) as server:
        found = list(
            describe_crops(captioner(server, concurrency=8), crops(24), names, lambda *done: ticks.append(done))
        )
    assert sorted(n for n, _ in found) == list(range(24))
    assert all(o.description is not None and o.description.category == names[n] for n, o in found)
    assert server.most_at_once == 8
    assert ticks == [(n, 24) for n in range(1, 25)]


def test_stopping_sends_nothing_more_and_waits_for_nothing() -> None:
    def script(request: Recorded, number: int) -> Reply:
        return success() if number == 0 else Reply(hang=60.0, body=answer)

    answered: list[int] = []

    def answer(body: dict[str, Any]) -> str:
        answered.append(1)
        return completion(json.dumps(fitting(body)))

    with OpenAIServer(script) as server:
        found = describe_crops(captioner(server, retries=5), crops(100), ["top"] * 100)
        next(found)
        found.close()  # what Ctrl-C in the loop that reads comes down to
        assert answered == [], "requests that were under way are not waited for"
        assert all(thread.daemon for thread in caption_threads())
        server.closing.set()
        deadline = time.monotonic() + 30
        while caption_threads() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not caption_threads()
    assert len(server.requests) <= 1 + 4 + 1


def test_an_interrupted_program_ends_at_once() -> None:
    script = (
        "import signal, sys; sys.path.insert(0, 'tests')\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs inherit it ignored
        "from test_captioner_remote import captioner, crops, describe_crops\n"
        "asked = captioner(sys.argv[1], timeout=250.0)\n"
        "for _ in describe_crops(asked, crops(50), ['top'] * 50, lambda done, all: print(done, flush=True)): pass\n"
    )

    def slow(request: Recorded, number: int) -> Reply:
        return success() if number == 0 else Reply(hang=300.0, body=success().body)

    with OpenAIServer(slow) as server:
        command = [sys.executable, "-c", script, server.base_url]
        root = Path(__file__).parent.parent
        with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"1\n"
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1]  # long before a reply comes, or the request ends by itself
    assert process.returncode == -signal.SIGINT
    assert said.count(b"Traceback") == 1
    assert b"KeyboardInterrupt" in said


def test_connections_are_closed_at_the_end() -> None:
    gc.disable()  # or the collector might close what was left open
    try:
        with OpenAIServer() as server:
            list(describe_crops(captioner(server), crops(8), ["top"] * 8))
            deadline = time.monotonic() + 30
            while server.connections and time.monotonic() < deadline:
                time.sleep(0.01)
            assert server.connections == 0
    finally:
        gc.enable()


def test_an_error_in_a_worker_reaches_the_reader() -> None:
    class Broken(Image.Image):
        def copy(self) -> Image.Image:
            raise RuntimeError("a bug")

    with OpenAIServer() as server, pytest.raises(RuntimeError, match="a bug"):
        list(describe_crops(captioner(server), [Broken()], ["top"]))
    assert not caption_threads()


def test_without_a_key_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaptionError) as caught:
        describe_crops(OpenAICaptioner(settings("http://x/v1", base_url=None)), crops(), ["top"])
    assert "local" in caught.value.hint
    monkeypatch.setenv("OPENAI_API_KEY", "sk-kéy\n")
    with pytest.raises(CaptionError) as caught:
        describe_crops(OpenAICaptioner(settings("http://x/v1", base_url=None)), crops(), ["top"])
    assert "kéy" not in str(caught.value)


def test_the_key_is_read_at_the_moment_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.invalid/v1")
    with OpenAIServer() as server:
        asked = OpenAICaptioner(settings(server))
        list(describe_crops(asked, crops(), ["top"]))
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        list(describe_crops(asked, crops(), ["top"]))
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer none", f"Bearer {CANARY}"]


def test_settings_that_cannot_work_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="base_url"):
        captioner("localhost:8000/v1")
    shipped = settings("http://x/v1")
    entry = shipped.models["gpt-4o"].model_copy(update={"parameters": {"stream": True}})
    with pytest.raises(ConfigError, match="stream"):
        captioner("http://x/v1", models={"gpt-4o": entry})


@pytest.mark.parametrize(
    "reply",
    [
        error(500, f"key {CANARY} caused this"),
        error(400, f"bad header Authorization: Bearer {CANARY}", code="invalid_image"),
        error(401, f"Incorrect API key provided: {CANARY[:8]}*****cdef", code="invalid_api_key"),
        Reply(502, f"<html>{CANARY}</html>"),
        Reply(body=completion(None, refusal=f"I will not use {CANARY}")),
        Reply(body=completion(f"not JSON: {CANARY}")),
        success(caption_en=f"A {CANARY} top"),
        success(**{CANARY: 1}),
        Reply(200, json.dumps({"error": {"message": CANARY}})),
    ],
)
def test_the_key_appears_nowhere(reply: Reply, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    with OpenAIServer([reply]) as server, CaptionCache(tmp_path / "captions.sqlite") as cache:
        try:
            for _, outcome in describe_crops(captioner(server), crops(), ["top"]):
                cache.put("a" * 64, "top", Box(0, 0, 9, 9), outcome)
                said.append(repr(outcome))
        except CaptionError as caught:
            said += [*traceback.format_exception(caught), caught.hint]
    said += [record.getMessage() for record in caplog.records]
    assert server.requests
    assert said
    for text in [*said, *(path.read_bytes().decode("latin-1") for path in tmp_path.iterdir())]:
        assert "canary" not in text


def test_what_looks_like_a_key_is_redacted() -> None:
    assert redact("key sk-proj-AbC_1-2. Bearer abc.def now ab***yz", "") == "key [key] Bearer [key] now [key]"
    assert redact("the word plain-secret+1 and plain-secret%2B1", "plain-secret+1") == "the word [key] and [key]"
    assert redact("one\n two", "") == "one two"
    assert len(redact("x" * 5000, "")) == 300
    assert redact("none of that", "no") == "none of that"


def test_what_a_local_server_takes_for_a_key_is_no_secret_in_its_answers() -> None:
    with OpenAIServer([success(second_color="none", graphic="none")]) as server:
        found = dict(
            describe_crops(OpenAICaptioner(settings(server)), crops(), ["top"])
        )  # no key at all: "none" is sent
    assert found[0].state == "done"
    assert found[0].description is not None
    assert found[0].description.graphic == "none"


def test_nothing_recorded_is_asked_again(tmp_path: Path) -> None:
    replies = {
        "top": success(),
        "dress": Reply(body=completion(None, refusal="no")),
        "skirt": Reply(body=completion("", finish="content_filter")),
        "pants": Reply(body=completion("nonsense")),
        "skirt&pants": error(500, "down"),
    }

    def script(request: Recorded, number: int) -> Reply:
        return replies[request.body["response_format"]["json_schema"]["schema"]["properties"]["category"]["enum"][0]]

    def run(shift: float, again: tuple[str, ...] = ()) -> list[str]:
        with OpenAIServer(script) as server, CaptionCache(tmp_path / "captions.sqlite") as cache:
            box = Box(10 + shift, 10, 210 + shift, 310)
            known = {name: cache.find("f" * 64, name, box, "openai") for name in CLASS_NAMES}
            todo = [name for name, outcome in known.items() if outcome is None or outcome.state in again]
            for n, outcome in describe_crops(captioner(server, retries=0), crops(len(todo)), list(todo)):
                cache.put("f" * 64, todo[n], box, outcome)
            assert len(server.requests) == len(todo)
            assert count_by_state(cache) == {"done": 1, "failed": 1, "filtered": 1, "invalid": 1, "refused": 1}
        return todo

    assert run(0.0) == list(CLASS_NAMES)
    assert run(3.0) == []  # the box has moved by a few pixels
    assert run(3.0, ("failed",)) == ["skirt&pants"]


def test_the_request_body_is_plain_json() -> None:
    body = request_body("m", {"temperature": 0}, b"jpeg", "top")
    assert json.loads(json.dumps(body)) == body


def test_the_server_speaks_to_the_client_of_the_package() -> None:
    import openai

    with OpenAIServer() as server, openai.OpenAI(api_key="none", base_url=server.base_url, max_retries=0) as client:
        assert client.models.retrieve("gpt-4o").id == "gpt-4o"


def test_the_server_itself_can_tell_a_wrong_answer() -> None:
    with pytest.raises(ValueError, match="finish_reason"):
        completion("x", finish="because")
