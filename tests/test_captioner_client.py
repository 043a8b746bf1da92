"""The wire to a server: what is told of each failure, how long it waits, what all heed, and when it
hangs up.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openai
import pytest
from hostile_server import HostileServer, answer
from openai_server import OpenAIServer, Reply, completion, error, success
from test_captioner_remote import CANARY, captioner, settings

from fashionrec.captioner.openai.client import (
    Answer,
    ApiCaller,
    address,
    find_key,
    host,
    is_filter,
    is_openai,
    is_retryable,
    retry_after,
    server_url,
)
from fashionrec.captioner.openai.limiter import RateLimiter
from fashionrec.captioner.openai.transport import Rejected
from fashionrec.captioner.openai.wire import request_body
from fashionrec.captioner.outcome import Outcome
from fashionrec.config import load_config
from fashionrec.errors import CaptionError

BODY = request_body("gpt-4o", {"temperature": 0.0}, b"jpeg", "top")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


# -- names and keys


@pytest.mark.parametrize(
    ("url", "name", "recorded"),
    [
        ("https://api.openai.com/v1", "api.openai.com", "https://api.openai.com/v1"),
        ("http://user:pass@Shop.test:8000/v1/", "shop.test:8000", "http://shop.test:8000/v1"),
        ("http://shop.test", "shop.test", "http://shop.test"),
    ],
)
def test_a_server_is_named_without_user_and_password(url: str, name: str, recorded: str) -> None:
    assert (host(url), address(url)) == (name, recorded)


@pytest.mark.parametrize("url", ["http://x:99999/v1", "http://[::1/v1"])
def test_a_server_whose_name_cannot_be_read_has_none(url: str) -> None:
    assert host(url) == "the server"


def test_who_is_asked() -> None:
    shipped = load_config(env={}).config.captioner
    local = shipped.model_copy(update={"base_url": "http://127.0.0.1:8000/v1"})
    proxy = shipped.model_copy(update={"base_url": "https://API.openai.com:443/other"})
    assert [server_url(one) for one in (shipped, local)] == ["https://api.openai.com/v1", "http://127.0.0.1:8000/v1"]
    assert [is_openai(one) for one in (shipped, local, proxy)] == [True, False, True]


def test_the_key_that_is_given_goes_before_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_config(env={}).config.captioner
    local = shipped.model_copy(update={"base_url": "http://127.0.0.1:8000/v1"})
    monkeypatch.setenv("OPENAI_API_KEY", " env-key\n")
    assert (find_key(shipped), find_key(shipped, " mine "), find_key(local)) == ("env-key", "mine", "env-key")
    assert find_key(local, "") == "none"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert find_key(local) == "none"
    with pytest.raises(CaptionError) as caught:
        find_key(shipped)
    assert str(caught.value) == "OPENAI_API_KEY is not set"
    assert caught.value.hint == "set OPENAI_API_KEY, or use the local captioner: --captioner local"


@pytest.mark.parametrize("key", ["kéy", "k\x07y", "two words"])
def test_a_key_that_no_server_takes_is_refused_before_it_is_sent(key: str) -> None:
    for url in (None, "http://127.0.0.1:8000/v1"):
        with pytest.raises(CaptionError) as caught:
            find_key(settings("http://x/v1", base_url=url), key)
        assert str(caught.value) == "OPENAI_API_KEY has invalid characters"
        assert caught.value.hint == "copy the key again"


# -- what an answer's status and headers mean


def test_which_statuses_pass() -> None:
    assert [status for status in range(300, 600) if is_retryable(status)] == [408, 409, 429, *range(500, 600)]


def test_which_refusals_are_a_filters() -> None:
    codes = ("content_filter", "content_policy_violation", "moderation_blocked", "invalid_image", "")
    assert [code for code in codes if is_filter(400, code)] == list(codes[:3])
    assert not any(is_filter(status, codes[0]) for status in (200, 401, 403, 422, 500, None))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 +0000"}, 0.0),
    ],
)
def test_when_a_server_wants_to_be_asked_again(headers: Mapping[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


# -- what comes of a request


class Listening(RateLimiter):
    """Writes down what it is told."""

    def __init__(self) -> None:
        super().__init__(4)
        self.waits: list[tuple[str, float]] = []
        self.headers: list[str | None] = []

    def heard(self, headers: Mapping[str, str]) -> None:
        self.headers.append(headers.get("x-ratelimit-remaining-requests"))
        super().heard(headers)

    def throttled(self, sent_at: float, pause: float) -> None:
        self.waits.append(("throttled", pause))
        super().throttled(sent_at, 0.0)

    def pause(self, seconds: float) -> None:
        self.waits.append(("pause", seconds))


def ask(script: list[Reply], limiter: RateLimiter | None = None, times: int = 1, **changes: Any) -> Any:
    """Return what comes of the last of so many requests."""
    with OpenAIServer(script) as server:
        remote = captioner(server, **changes)
        with ApiCaller(
            remote.config, CANARY, remote.parameters, backoff=0.01, limiter=limiter or RateLimiter(1)
        ) as caller:
            for _ in range(times):
                came = caller(BODY)
        assert [request.body for request in server.requests] == [BODY] * len(server.requests)
    return came


def test_a_request_is_sent_as_it_is_and_its_answer_comes_as_it_is() -> None:
    text = completion("x")
    assert ask([Reply(body=text)]) == Answer(json.loads(text))
    assert ask([Reply(body="<html>")]) == Answer(None)


PLACE = "127.0.0.1:PORT"


@pytest.mark.parametrize(
    ("reply", "told", "retryable"),
    [
        (error(400, f"bad picture {CANARY}", code="invalid_image"), "400: bad picture [key]", False),
        (error(400, "odd", param="messages[0].content"), "400: odd", False),
        (error(418, "a teapot"), "418: a teapot", False),
        (error(422, "odd", param="top_p"), "422: odd", False),
        (error(500, "oops"), "500: oops", True),
        (error(500, "oops", x_should_retry="false"), "500: oops", False),
        (error(408, "late"), "408: late", True),
        (Reply(200, "x" * (2 << 20)), None, False),
        (Reply(200, "x" * ((2 << 20) + 1)), "the answer is larger than 2,097,152 bytes", False),
        (
            Reply(200, "x", {"Content-Encoding": "br"}),
            "the answer has an unsupported compression ('br')",
            False,
        ),
        (Reply(200, "x" * 99, {"Content-Encoding": "gzip"}), "the compressed answer is invalid", False),
    ],
)
def test_what_is_told_of_a_garment_that_got_no_answer(reply: Reply, told: str | None, retryable: bool) -> None:
    came = ask([reply], retries=0)
    if told is None:
        assert came == Answer(None)
    else:
        assert came == Outcome("failed", "openai", "gpt-4o", error=told, retryable=retryable)


def test_a_filtered_garment() -> None:
    came = ask([error(400, f"flagged {CANARY}", code="content_filter")])
    assert came == Outcome("filtered", "openai", "gpt-4o", error="400: flagged [key]")


def test_a_server_that_is_not_there_is_named() -> None:
    with OpenAIServer() as server:
        url = server.base_url
    with captioner(url, retries=0).caller() as caller:
        came = caller(BODY)
    assert isinstance(came, Outcome)
    reason = f"[Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"
    assert came == Outcome(
        "failed", "openai", "gpt-4o", error=f"no connection to {host(url)} ({reason})", retryable=True
    )


def test_an_answer_whose_compression_is_cut_is_told() -> None:
    import gzip

    packed = gzip.compress(b"x" * 1000)[:-9]
    with (
        HostileServer(lambda request: request.send(answer(packed, Content_Encoding="X-GZip"))) as server,
        captioner(f"{server.url}/v1", retries=0).caller() as caller,
    ):
        came = caller(BODY)
    assert came == Outcome("failed", "openai", "gpt-4o", error="the compressed answer is truncated")


@pytest.mark.parametrize(
    ("reply", "told", "hint"),
    [
        (error(401, "wrong"), f"{PLACE} rejects the key (401: wrong)", "check OPENAI_API_KEY"),
        (error(403, "wrong"), f"{PLACE} rejects the key (403: wrong)", "check OPENAI_API_KEY"),
        (
            error(404, "none"),
            f"{PLACE} has no model gpt-4o (404: none)",
            "check captioner.model and captioner.base_url",
        ),
        *(
            (
                error(429, "spent", code=code),
                f"the account at {PLACE} has no credit left (429: spent)",
                "add credit, then run again",
            )
            for code in ("insufficient_quota", "billing_hard_limit_reached")
        ),
        *(
            (
                error(status, "odd", code=code, param=param),
                f"{PLACE} rejects a setting of gpt-4o ({status}: odd)",
                "change captioner.models.gpt-4o.parameters",
            )
            for status, code, param in (
                (400, "unsupported_parameter", None),
                (400, "unsupported_value", None),
                (422, "unknown_parameter", None),
                (400, None, "temperature"),
                (400, None, "response_format.json_schema"),
                (422, None, "max_tokens[0]"),
            )
        ),
    ],
)
def test_what_is_told_of_what_is_wrong_for_every_garment(reply: Reply, told: str, hint: str) -> None:
    with OpenAIServer([reply]) as server, captioner(server).caller() as caller:
        with pytest.raises(CaptionError) as caught:
            caller(BODY)
        assert str(caught.value) == told.replace(PLACE, host(server.base_url))
    assert (caught.value.hint, len(server.requests)) == (hint, 1)


def test_a_proxy_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"odd://{CANARY}")
    monkeypatch.delenv("NO_PROXY")
    with pytest.raises(CaptionError) as caught:
        captioner("http://shop.test:8000/v1").caller()
    assert str(caught.value).startswith("cannot use shop.test:8000: ")
    assert CANARY not in str(caught.value)
    assert caught.value.hint == "check captioner.base_url and the proxy settings"


# -- waiting


@pytest.mark.parametrize(
    ("reply", "told", "least", "most"),
    [
        (error(429, "slow down"), "throttled", 0.005, 0.01),  # half to all of the first pause
        (error(429, "slow down", Retry_After="20"), "throttled", 20.0, 21.0),  # and up to a tenth of ten seconds
        (error(429, "slow down", Retry_After="2"), "throttled", 2.0, 2.2),
        (error(429, "slow down", Retry_After="120"), "throttled", 120.0, 120.0),
        (error(429, "slow down", Retry_After="121"), "throttled", 0.005, 0.01),  # not worth waiting for
        (error(503, "busy", Retry_After="20"), "pause", 20.0, 21.0),
        (error(503, "busy", Retry_After="120"), "pause", 120.0, 121.0),
        (error(503, "busy", Retry_After="121"), None, 0, 0),
        (error(503, "busy"), None, 0, 0),
        (success(), None, 0, 0),
    ],
)
def test_what_one_is_told_all_heed(reply: Reply, told: str | None, least: float, most: float) -> None:
    limiter = Listening()
    ask([reply], limiter, 6, retries=0)
    assert [kind for kind, _ in limiter.waits] == [told] * (6 if told else 0)
    waits = [seconds for _, seconds in limiter.waits]
    assert all(least <= seconds <= most for seconds in waits)
    assert len(set(waits)) > 1 or least == most  # not all return together


def test_the_budgets_are_heard_of_answers_and_of_refusals() -> None:
    limiter = Listening()
    ask([Reply(body=completion("x"), headers={"x-ratelimit-remaining-requests": "7"})], limiter)
    ask([error(500, "oops", **{"x_ratelimit_remaining_requests": "6"})], limiter, retries=0)
    assert limiter.headers == ["7", "6"]
    assert [limiter.try_enter() for _ in range(4)] == [0] * 4, "both have left"


def test_a_caller_that_is_stopped_while_it_waits_asks_no_more() -> None:
    class Stopping(RateLimiter):
        def leave(self) -> None:
            super().leave()
            caller.stop.set()

    with OpenAIServer([error(500, "oops")]) as server:
        remote = captioner(server)
        with ApiCaller(remote.config, CANARY, remote.parameters, backoff=60.0, limiter=Stopping(1)) as caller:
            assert caller(BODY) is None
        assert len(server.requests) == 1


def test_a_caller_that_was_stopped_asks_no_more() -> None:
    with OpenAIServer([error(500, "oops")]) as server, captioner(server).caller() as caller:
        caller.stop.set()
        assert caller(BODY) is None
        with pytest.raises(CaptionError) as caught:
            caller.fetch("looking", lambda: None)
        assert server.requests == []
    assert str(caught.value) == "looking: stopped"
    assert caught.value.retryable


# -- other requests


def looked(script: list[Reply], **options: Any) -> tuple[int, Any]:
    """Return how often the server was asked, and the error or what came."""
    with OpenAIServer(script) as server, captioner(server).caller() as caller:

        def request() -> Any:
            return caller.client.chat.completions.create(model="m", messages=[], extra_body=BODY)

        try:
            came: Any = caller.fetch("looking at it", request, **options)
        except CaptionError as caught:
            came = caught
    return len(server.requests), came


AGAIN = "run it again later to resume"


@pytest.mark.parametrize(
    ("reply", "calls", "told", "state", "retryable", "hint"),
    [
        (error(404, "none"), 1, "looking at it: 404: none", "gone", False, ""),
        (error(500, "down"), 3, "looking at it: 500: down", "failed", True, AGAIN),
        (error(400, "odd", code="unsupported_value"), 1, "looking at it: 400: odd", "failed", False, ""),
        (Reply(hang=3.0), 3, "looking at it: no answer within 0.2 s", "failed", True, AGAIN),
    ],
)
def test_what_is_told_of_a_file_or_batch_that_cannot_be_had(
    reply: Reply, calls: int, told: str, state: str, retryable: bool, hint: str
) -> None:
    asked, caught = looked([reply], seconds=0.2)
    assert (asked, str(caught), caught.state) == (calls, told, state)
    assert (caught.retryable, caught.hint) == (retryable, hint)


def test_what_must_not_be_done_twice_is_asked_once() -> None:
    assert looked([error(500, "down"), success()], retries=0)[0] == 1
    calls, came = looked([error(500, "down"), error(500, "down"), success()])
    assert (calls, came.model) == (3, "gpt-4o-2024-08-06")
    calls, came = looked([error(500, "down"), error(500, "down"), success()], retries=1)
    assert (calls, str(came)) == (2, "looking at it: 500: down")


def transport_error(name: str) -> Exception:
    """An error of the transport that the openai package uses."""
    transport = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.split(".")[0])
    made: Exception = getattr(transport, name)(f"cut for {CANARY}")
    return made


def wrapped_rejection() -> Exception:
    """An answer that is not taken, as versions of the openai package that wrap every error raise
    it.
    """
    error = openai.APIConnectionError(request=transport_request())
    error.__cause__ = Rejected("elsewhere", "redirect", hint="trust it")
    return error


def transport_request() -> Any:
    return importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.split(".")[0]).Request(
        "GET", "http://x"
    )


@pytest.mark.parametrize(
    ("failure", "calls", "told", "hint"),
    [
        *(
            (transport_error(name), 3, f"looking at it: {name}: cut for [key]", AGAIN)
            for name in ("RemoteProtocolError", "ReadError", "ReadTimeout")
        ),
        (transport_error("DecodingError"), 1, "looking at it: DecodingError: cut for [key]", ""),
        (ValueError(f"a header of {CANARY}"), 1, "looking at it: ValueError: a header of [key]", ""),
        (type("ReadError", (Exception,), {})("of another kind"), 1, "looking at it: ReadError: of another kind", ""),
        (openai.APIConnectionError(request=transport_request()), 3,
         "looking at it: no connection to shop.test:8000 (Connection error.)", AGAIN),
        (wrapped_rejection(), 1, "elsewhere", "trust it"),
        (Rejected("elsewhere", "redirect", hint="trust it"), 1, "elsewhere", "trust it"),
    ],
)  # fmt: skip
def test_what_is_told_of_a_connection_that_fails_on_the_way(
    failure: Exception, calls: int, told: str, hint: str
) -> None:
    made = 0

    def request() -> None:
        nonlocal made
        made += 1
        raise failure

    with captioner("http://shop.test:8000/v1").caller() as caller, pytest.raises(CaptionError) as caught:
        caller.fetch("looking at it", request)
    assert (made, str(caught.value), caught.value.hint, caught.value.retryable) == (calls, told, hint, hint == AGAIN)


def test_a_transfer_that_makes_progress_has_more_time() -> None:
    with OpenAIServer([Reply(body=completion("x"), hang=0.3)]) as server, captioner(server).caller() as caller:

        def request() -> Any:
            caller.extend(60.0)
            return caller.client.chat.completions.create(model="m", messages=[], extra_body=BODY)

        assert caller.fetch("looking", request, retries=0, seconds=0.1).choices[0].message.content == "x"


def test_the_size_of_an_answer_is_limited_as_it_is_asked() -> None:
    size = len(completion("x"))
    assert looked([Reply(body=completion("x"))], most_bytes=size)[1].choices[0].message.content == "x"
    assert str(looked([Reply(body=completion("x"))], most_bytes=size - 1)[1]) == (
        f"looking at it: the answer is larger than {size - 1} bytes"
    )


# -- the connection


def test_the_last_of_its_users_closes_the_connections() -> None:
    with OpenAIServer() as server:
        remote = captioner(server)
        with remote.caller() as one:
            assert not one.client.is_closed()
        assert one.client.is_closed()
        two = remote.caller(users=2)
        two.leave()
        assert not two.client.is_closed()
        two.leave()
        assert two.client.is_closed()


@pytest.mark.parametrize(("timeout", "connect"), [(60.0, 10.0), (9.5, 9.5)])
def test_the_package_asks_once_and_within_the_time_of_the_settings(timeout: float, connect: float) -> None:
    with captioner("http://shop.test:8000/v1", timeout=timeout).caller() as caller:
        assert caller.client.max_retries == 0
        assert caller.client.timeout.as_dict() == {
            "connect": connect,
            "read": timeout,
            "write": timeout,
            "pool": timeout,
        }
        assert str(caller.client.base_url) == "http://shop.test:8000/v1/"
        assert caller.client.api_key == caller.key == CANARY


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for 127.0.0.1 in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key", tmp_path / "cert"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    made += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=127.0.0.1"]
    subprocess.run([*made, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    (tmp_path / "both.pem").write_text(key.read_text() + certificate.read_text())
    return tmp_path / "both.pem"


def test_a_server_is_asked_by_tls_within_its_deadline_and_its_certificate_is_checked(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    with OpenAIServer([Reply(body=completion("x")), Reply(hang=30.0)], tls=served) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with captioner(server, retries=0, timeout=1.0).caller() as caller:
            assert caller(BODY) == Answer(json.loads(completion("x")))
            late = caller(BODY)
            assert isinstance(late, Outcome)
            assert late.error == "no answer within 1 s"
        monkeypatch.delenv("SSL_CERT_FILE")
        with captioner(server, retries=0).caller() as caller:
            refused = caller(BODY)
            assert isinstance(refused, Outcome)
            assert "certificate verify failed" in (refused.error or "").lower()
    assert len(server.requests) == 2
