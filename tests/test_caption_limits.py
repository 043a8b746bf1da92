"""Test what a caption server may take of time and memory, and where its redirects and its texts may
not lead.
"""

from __future__ import annotations

import io
import json
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from captioners import describe_crops
from hostile_server import Act, HostileServer, Request, answer, bomb, most_resident, resident
from openai_server import OpenAIServer, Reply, completion, fitting, success
from PIL import Image
from test_captioner_schema import answer as garment

from fashionrec.captioner.openai.batch_api import BatchApi
from fashionrec.captioner.openai.remote import OpenAICaptioner
from fashionrec.captioner.openai.retirement import ask_shutdown
from fashionrec.captioner.openai.transport import MOST_BYTES, TransportLimits, open_client
from fashionrec.captioner.openai.wire import read_answer, redact, stored_answer
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.schema import InvalidAnswer, parse
from fashionrec.config import CaptionerConfig, load_config
from fashionrec.errors import CaptionError

KEY = "sk-canary-0123456789abcdef"
TIMEOUT = 1.0


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def settings(url: str, **changes: Any) -> CaptionerConfig:
    shipped = load_config(env={}).config.captioner
    given = {"base_url": f"{url}/v1", "timeout": TIMEOUT, "retries": 0, "concurrency": 2, **changes}
    return shipped.model_copy(update=given)


def describe(url: str, **changes: Any) -> Outcome:
    """Return what comes of one crop."""
    remote = OpenAICaptioner(settings(url, **changes), api_key=KEY, backoff=0.01)
    ((_, outcome),) = describe_crops(remote, [Image.new("RGB", (32, 32), "red")], ["top"])
    return outcome


def whole(request: Request) -> bytes:
    """The body of an honest answer."""
    return completion(json.dumps(fitting(json.loads(request.body)))).encode()


def drip_headers(request: Request) -> None:
    request.drip(answer(whole(request)), 0.3)


def drip_body(request: Request) -> None:
    data = answer(whole(request))
    head = data.index(b"\r\n\r\n") + 4
    request.send(data[:head])
    request.drip(data[head:], 0.3)


@pytest.mark.parametrize("act", [drip_headers, drip_body])
def test_a_server_that_sends_a_byte_now_and_then_has_the_timeout_and_no_more(act: Act) -> None:
    with HostileServer(act) as server:
        outcome = describe(server.url)
        dripped = server.dripped
    assert (outcome.state, outcome.retryable) == ("failed", True)
    assert outcome.error == "no answer within 1 s"
    assert 1 <= dripped < 30  # one every 0.3 s, of hundreds


def test_a_server_that_falls_silent_has_no_second_timeout() -> None:
    def stall(request: Request) -> None:
        data = answer(whole(request))
        time.sleep(1.5)
        request.send(data[:10])
        request.server.closing.wait(1.5)  # too late for two seconds in all, early enough for two since the last byte
        request.send(data[10:])

    with HostileServer(stall) as server:
        assert describe(server.url, timeout=2.0).state == "failed"
        assert describe(server.url, timeout=60.0).state == "done"


def test_an_answer_within_the_timeout_may_come_in_pieces() -> None:
    def pieces(request: Request) -> None:
        data = answer(whole(request))
        for n in range(0, len(data), 200):
            request.send(data[n : n + 200])
            time.sleep(0.02)

    with HostileServer(pieces) as server:
        assert describe(server.url).state == "done"


def test_a_slow_server_does_not_hold_up_the_question_after_a_model() -> None:
    """Each byte comes in time, but not all of them within the five seconds that the question may
    take.
    """
    body = json.dumps({"id": "gpt-4o", "object": "model", "shutdown_date": "2027-02-03"}).encode() + b" " * 4

    def drip(request: Request) -> None:
        whole = answer(body)
        request.send(whole[:-4])
        request.drip(whole[-4:], 2.0)

    with HostileServer(drip) as server:
        assert ask_shutdown(settings(server.url), KEY) is None
        assert server.dripped == 3


def test_what_is_no_caption_has_a_timeout_of_its_own(tmp_path: Path) -> None:
    """The question after a model, and the transfer of a batch's file: a short ``captioner.timeout``
    does not end them.
    """

    def late(request: Request) -> None:
        request.server.closing.wait(0.3)
        request.send(answer(json.dumps({"id": "file-1", "object": "any", "shutdown_date": "2027-02-03"}).encode()))

    with HostileServer(late) as server:
        hasty = settings(server.url, timeout=0.1)
        assert ask_shutdown(hasty, KEY) == "2027-02-03"
        with OpenAICaptioner(hasty, KEY).caller() as caller:
            api = BatchApi(caller)
            assert api.upload("batch.jsonl", lambda: io.BytesIO(b"{}"), 2) == "file-1"
            api.download("file-1", lambda: (tmp_path / "answers").open("wb"), 1)
            with pytest.raises(CaptionError, match=r"no answer within 0\.1 s"):
                api.look("batch-1")
    assert json.loads((tmp_path / "answers").read_text())["id"] == "file-1"


def test_a_compressed_answer_is_read() -> None:
    import gzip

    with HostileServer(lambda r: r.send(answer(gzip.compress(whole(r)), Content_Encoding="gzip"))) as server:
        assert describe(server.url).state == "done"


@pytest.mark.parametrize("status", [200, 400])
def test_a_compressed_answer_without_end_is_refused_in_little_memory(status: int) -> None:
    data = bomb(400)
    assert len(data) < 1_000_000
    with HostileServer(lambda r: r.send(answer(data, status, Content_Encoding="gzip"))) as server:
        before = resident()
        outcome = describe(server.url, timeout=20.0)
        assert most_resident() - before < 60_000_000
    assert (outcome.state, outcome.retryable) == ("failed", False)
    assert "larger than" in (outcome.error or "")


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
def test_an_encoding_that_was_not_asked_for_is_refused(encoding: str) -> None:
    with HostileServer(lambda r: r.send(answer(b"\x1b" * 500, Content_Encoding=encoding))) as server:
        assert "compression" in (describe(server.url).error or "")


def test_an_answer_of_many_plain_bytes_is_refused() -> None:
    with HostileServer(lambda r: r.send(answer(b" " * 30_000_000 + whole(r)))) as server:
        assert "larger than" in (describe(server.url, timeout=20.0).error or "")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_is_refused_and_nothing_is_asked_there(status: int) -> None:
    with HostileServer(lambda r: r.send(answer(whole(r)))) as canary:

        def elsewhere(request: Request) -> None:
            request.send(answer(b"", status, Location=f"{canary.url}/v1/chat/completions"))

        with HostileServer(elsewhere) as server:
            with pytest.raises(CaptionError, match=r"redirects to 127\.0\.0\.1: not followed") as caught:
                describe(server.url, retries=3)
            assert len(server.seen) == 1, "it is wrong for every garment, and asked once"
            assert "captioner.base_url" in caught.value.hint
            with pytest.raises(CaptionError, match="not followed"):
                OpenAICaptioner(settings(server.url), KEY).translate(["셔츠"])
            with (
                OpenAICaptioner(settings(server.url), KEY).caller() as caller,
                pytest.raises(CaptionError, match="not followed"),
            ):
                BatchApi(caller).find_file("x", 1)
            assert ask_shutdown(settings(server.url), KEY) is None
        assert canary.seen == []


def test_a_redirect_within_the_server_is_followed() -> None:
    def moved(request: Request) -> None:
        if "/v1/" in request.line:
            request.send(answer(b"", 307, Location="/v2/chat/completions"))
        else:
            request.send(answer(whole(request)))

    with HostileServer(moved) as server:
        assert describe(server.url).state == "done"
        assert len(server.seen) == 2


def test_a_caption_of_a_megabyte_is_no_caption() -> None:
    huge = "black shirt " * 90_000
    for script in ([success(caption_en=huge)], [Reply(body=completion(huge))], [success(caption_ko="셔" * 20_000)]):
        with OpenAIServer(list(script)) as server:
            outcome = describe(server.base_url.removesuffix("/v1"))
        assert outcome.state == "invalid"
        assert "more than 16,384 characters" in (outcome.error or "")
        assert len(outcome.raw or "") < 20_000


@pytest.mark.parametrize(("length", "fits"), [(500, True), (990, True), (1010, False), (9000, False)])
def test_a_caption_is_a_phrase(length: int, fits: bool) -> None:
    text = json.dumps(garment(caption_en=("a long shirt " * 1000)[:length]))
    if fits:
        assert parse(text, "top").caption_en
        return
    with pytest.raises(InvalidAnswer) as caught:
        parse(text, "top")
    assert caught.value.code == "too-long"


@pytest.mark.parametrize("deep", ["[" * 900_000, '{"a":' * 300_000, '{"choices":' + "[" * 100_000])
def test_an_answer_that_nests_without_end_is_none(deep: str) -> None:
    with HostileServer(lambda r: r.send(answer(deep.encode()))) as server:
        began = time.process_time()
        assert describe(server.url, timeout=20.0).state == "failed"
        with pytest.raises(CaptionError):
            OpenAICaptioner(settings(server.url, timeout=20.0), KEY).translate(["셔츠"])
        assert time.process_time() - began < 5
    with pytest.raises(InvalidAnswer):
        parse("{" * 10_000, "top")


@pytest.mark.parametrize("count", [10**40, -5, True, "many", 1e300])
def test_a_count_of_tokens_that_is_none_is_not_counted(count: Any) -> None:
    body = json.loads(completion(json.dumps(garment())))
    body["usage"] = {"prompt_tokens": count, "completion_tokens": 7}
    read = read_answer(stored_answer(body), model="m", class_name="top")
    assert (read.state, read.usage) == ("done", {"input_tokens": 0, "output_tokens": 7})


@pytest.mark.parametrize("kept", ["", "{", "[]", "null", "[" * 5000, '{"choices": 3}', '{"usage": []}'])
def test_an_answer_that_was_kept_wrongly_is_a_state(kept: str) -> None:
    assert read_answer(kept, model="m", class_name="top").state in ("failed", "invalid")


@pytest.mark.parametrize(
    "text", ["*" * 40_000, "a*" * 40_000, "a***b" * 20_000, "bearer " * 20_000, "sk-" * 40_000, "sk-a***" * 10_000]
)
def test_redaction_takes_time_that_grows_with_the_text(text: str) -> None:
    def seconds(times: int) -> float:
        began = time.process_time()
        redact(text * times, KEY)
        return time.process_time() - began

    assert seconds(1) < 0.2
    assert min(seconds(50) for _ in range(2)) < 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Incorrect API key provided: {KEY}. See", "Incorrect API key provided: [key]. See"),
        ("Incorrect API key provided: sk-abc***xyz.", "Incorrect API key provided: [key]"),
        ("key org***************1234 is wrong", "key [key] is wrong"),
        ("Authorization: Bearer abc.def rejected", "Authorization: Bearer [key] rejected"),
        ("Authorization: bearer\tabc.def\nrejected", "Authorization: bearer [key] rejected"),
        ("token=(sk-1234567890)", "token=([key])"),
        ("2 * 3 ** 4 is fine", "2 * 3 ** 4 is fine"),
    ],
)
def test_what_redaction_leaves(text: str, shown: str) -> None:
    assert redact(text, KEY) == shown
    assert KEY not in redact("x " * 140 + text, KEY)


@pytest.mark.parametrize(
    "english",
    [["x" * 2000], [{"shirt": 1}], ["\x1b[2J\x07"], "s", [" "], [None]],
)
def test_a_translation_is_a_short_plain_text(english: Any) -> None:
    with OpenAIServer([Reply(body=completion(json.dumps({"english": english})))]) as server:
        ask = OpenAICaptioner(settings(server.base_url.removesuffix("/v1")), KEY).translate
        if english == ["\x1b[2J\x07"]:
            assert ask(["셔츠"]) == ["[2J"]
            return
        with pytest.raises(CaptionError, match="translation is invalid"):
            ask(["셔츠"])


def test_an_error_of_forty_thousand_characters_costs_no_time() -> None:
    told = json.dumps({"error": {"message": "a*" * 20_000}}).encode()
    with HostileServer(lambda r: r.send(answer(told, 400))) as server:
        began = time.process_time()
        outcome = describe(server.url, timeout=20.0)
        assert time.process_time() - began < 5
    assert outcome.state == "failed"
    assert len(outcome.error or "") <= 320


def test_a_date_of_another_kind_is_no_shutdown() -> None:
    from fashionrec.captioner.openai.retirement import shutdown_notice

    assert shutdown_notice(settings("http://127.0.0.1:1"), date(2026, 1, 1), "\x1b]0;x\x07" * 1000) == ""


def test_a_deadline_is_of_one_request_and_one_thread() -> None:
    guard = TransportLimits()
    assert (guard.left(None), guard.left(7.0), guard.most_bytes) == (None, 7.0, MOST_BYTES)
    with guard.limit(100.0, 10):
        assert (guard.left(7.0), guard.most_bytes) == (7.0, 10)
        assert 90 < (guard.left(None) or 0) <= 100
        assert 90 < (guard.left(1000.0) or 0) <= 100
        guard.extend(50.0)  # less than is left
        assert 90 < (guard.left(None) or 0) <= 100
        guard.extend(500.0)
        assert 490 < (guard.left(None) or 0) <= 500
        elsewhere: list[object] = []
        thread = threading.Thread(target=lambda: elsewhere.extend((guard.left(None), guard.most_bytes)))
        thread.start()
        thread.join()
        assert elsewhere == [None, MOST_BYTES]
    guard.extend(5.0)  # nothing is under way
    assert (guard.left(None), guard.most_bytes) == (None, MOST_BYTES)
    with guard.limit(-1.0):
        assert (guard.left(None) or 0) < 0


@pytest.mark.parametrize(
    ("base_url", "url", "followed"),
    [
        ("https://API.test/v1", "https://api.test:443/v2", True),
        ("http://api.test/v1", "http://api.test:80/v2", True),
        ("https://api.test/v1", "http://api.test/v1", False),
        ("https://api.test/v1", "https://api.test:444/v1", False),
        ("https://api.test/v1", "https://api.test.evil/v1", False),
        ("https://api.test/v1", "http://api.test:443/v1", False),
    ],
)
def test_what_is_the_same_server(base_url: str, url: str, followed: bool) -> None:
    client = open_client(base_url, 1.0, TransportLimits())
    (check,) = client.event_hooks["request"]
    request = client.build_request("GET", url)
    if followed:
        check(request)
    else:
        with pytest.raises(Exception, match=r"api\.test redirects to api\.test") as caught:
            check(request)
        assert caught.value.code == "redirect"
    client.close()
