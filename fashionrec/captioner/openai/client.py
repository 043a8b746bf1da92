"""The wire to OpenAI, or to any server that speaks its API: one client, one place that asks again, one that reads errors.

::

    Caller(body)         one caption's request: an Answer, an Outcome where there is none, None where everything stopped
    Caller.fetch(...)    any other request (a file, a batch): what it gives, or one CaptionError
"""

from __future__ import annotations

import email.utils
import itertools
import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from fashionrec.captioner.openai.limiter import RateLimiter
from fashionrec.captioner.openai.transport import MOST_BYTES, Guard, Rejected, open_client
from fashionrec.captioner.openai.wire import redact
from fashionrec.captioner.outcome import Outcome
from fashionrec.common.backoff import backoff
from fashionrec.errors import CaptionError

if TYPE_CHECKING:
    from fashionrec.config import CaptionerConfig

KEY = "OPENAI_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"  # said outright, so that no other variable of the environment redirects photos

_LONGEST_BACKOFF = 20.0
_LONGEST_RETRY_AFTER = 120.0  # a server that wants a longer pause than this is not worth waiting for
_CONNECT_TIMEOUT = 10.0
_RETRY_STATUS = frozenset({408, 409, 429})
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
_NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_CUT = frozenset({"RemoteProtocolError", "ReadError", "ReadTimeout"})
_NO_LOCAL_KEY = "none"  # what the client sends to a local server that needs no key

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """A server's answer as it came: its JSON, or None where it is none."""

    body: Any


@dataclass(frozen=True)
class _Failure:
    """What came instead of an answer. ``retryable`` says whether asking again can help; ``retry_after`` when, in seconds."""

    reason: str
    status: int | None = None
    code: str = ""
    param: str = ""
    retryable: bool = False
    retry_after: float | None = None
    hint: str = ""


_STOPPED = _Failure("everything stopped", retryable=True)


def find_key(config: CaptionerConfig, given: str | None = None) -> str:
    """The key given, else the environment's. Raises :class:`CaptionError` where there is none and one is needed."""
    key = (given if given is not None else os.environ.get(KEY, "")).strip()
    if not key:
        if config.base_url is not None:
            return _NO_LOCAL_KEY
        raise CaptionError(f"{KEY} is not set", hint=f"set {KEY}, or use the local captioner: --captioner local")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise CaptionError(f"{KEY} holds characters that no key has", hint="copy the key again")
    return key


def server_url(config: CaptionerConfig) -> str:
    return config.base_url or OPENAI_URL


def is_openai(config: CaptionerConfig) -> bool:
    """Whether it is OpenAI itself that is asked: its models' prices and dates hold there."""
    return urlsplit(server_url(config)).hostname == urlsplit(OPENAI_URL).hostname


def host(url: str) -> str:
    """The server's name for messages: no path, no user, no password."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return "the server"


def address(url: str) -> str:
    """A server's address without user and password, to be recorded."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{host(url)}{parts.path.rstrip('/')}"


class Caller:
    """Sends requests, again where that can help: never more than ``1 + retries`` for one. Shared by threads.

    Its own retries of the openai package are off. Used as a context manager by one, or left by each of ``users`` threads.
    """

    def __init__(
        self,
        config: CaptionerConfig,
        key: str,
        parameters: Mapping[str, Any],
        *,
        backoff: float,
        limiter: RateLimiter,
        users: int = 1,
    ) -> None:
        self.key = key
        self.stop = threading.Event()
        self.limiter = limiter
        self._config = config
        self._parameters = dict(parameters)
        self._backoff = backoff
        self._users = users
        self._lock = threading.Lock()
        self._where = host(server_url(config))
        self._guard = Guard()
        self.client = connect(config, key, guard=self._guard)
        self._create = self.client.chat.completions.with_raw_response.create

    def leave(self) -> None:
        """One user needs it no more; the last one closes the connections."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self.client.close()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def __call__(self, body: dict[str, Any]) -> Answer | Outcome | None:
        """The answer; an outcome where there is none; None where everything stopped while waiting to ask.

        Raises :class:`CaptionError` for what concerns every garment: the key, the model, a setting, the account.
        """
        # as the extra body, which the package sends as it is: walking through the messages by their types costs more than
        # all else that it does
        plain = {key: value for key, value in body.items() if key != "model"}

        def send() -> Answer:
            response = self._create(model=body["model"], messages=[], extra_body=plain)
            self.limiter.heard(response.headers)
            return Answer(_json(response))

        result = self._ask(send, self._config.retries, self._config.timeout)
        if not isinstance(result, _Failure):
            return result
        if result is _STOPPED:
            return None
        if is_filter(result.status, result.code):
            return Outcome("filtered", "openai", self._config.model, error=result.reason)
        self._raise_for_all(result)
        return Outcome("failed", "openai", self._config.model, error=result.reason, retryable=result.retryable)

    def fetch(
        self,
        what: str,
        request: Callable[[], T],
        *,
        retries: int | None = None,
        seconds: float | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> T:
        """What a request about a file or a batch gives. Raises :class:`CaptionError` if it cannot be had.

        ``retries`` 0 is for what must not be done twice; ``seconds`` and ``most_bytes`` limit one
        attempt. ``error.state`` is ``gone`` where the server knows of no such thing.
        """
        tries = self._config.retries if retries is None else retries
        result = self._ask(request, tries, seconds or self._config.timeout, most_bytes)
        if isinstance(result, _Failure):
            self._raise_for_all(result, model=False)
            raise CaptionError(
                f"{what}: {result.reason}",
                state="gone" if result.status == 404 else "failed",
                retryable=result.retryable,
                hint="run it again later: it goes on where it is" if result.retryable else "",
            )
        return result

    def extend(self, seconds: float) -> None:
        """The transfer under way in this thread makes progress: it has ``seconds`` more from now on."""
        self._guard.extend(seconds)

    def _ask(self, send: Callable[[], T], retries: int, seconds: float, most_bytes: int = MOST_BYTES) -> T | _Failure:
        for attempt in itertools.count():
            if not self.limiter.enter(self.stop):
                return _STOPPED
            sent_at = time.monotonic()
            try:
                result = self._once(send, seconds, most_bytes)
            finally:
                self.limiter.leave()
            if not isinstance(result, _Failure):
                self.limiter.succeeded()
                return result
            wait = backoff(attempt, self._backoff, _LONGEST_BACKOFF)
            told = result.retry_after
            if told is not None and told <= _LONGEST_RETRY_AFTER:
                wait = told + random.uniform(0.0, 0.1) * min(told, 10.0)
            if result.status == 429:
                self.limiter.throttled(sent_at, min(wait, _LONGEST_RETRY_AFTER))
            elif told is not None and told <= _LONGEST_RETRY_AFTER:
                self.limiter.pause(wait)
            too_long = told is not None and told > _LONGEST_RETRY_AFTER
            if not result.retryable or attempt >= retries or too_long:
                return result
            if self.stop.wait(wait):
                return _STOPPED
        raise AssertionError  # the count has no end

    def _once(self, send: Callable[[], T], seconds: float, most_bytes: int) -> T | _Failure:
        """One request: what it gave, or what came instead."""
        import openai

        try:
            with self._guard.limit(seconds, most_bytes):
                return send()
        except openai.APITimeoutError:
            return _Failure(f"no answer within {seconds:g} s", retryable=True)
        except Rejected as caught:
            return _Failure(str(caught), code=caught.code, hint=caught.hint)
        except openai.APIConnectionError as caught:
            if isinstance(caught.__cause__, Rejected):
                rejected = caught.__cause__
                return _Failure(str(rejected), code=rejected.code, hint=rejected.hint)
            return _Failure(self._clean(f"no connection to {self._where} ({_cause(caught)})"), retryable=True)
        except openai.APIStatusError as caught:
            refused = caught
        except (
            Exception
        ) as caught:  # the transport's own: a broken encoding, a header that it does not take, a cut download
            kind = type(caught)
            cut = kind.__module__.startswith("httpx") and kind.__name__ in _CUT
            return _Failure(self._clean(f"{kind.__name__}: {caught}"), retryable=cut)
        # out of the except block, so that no traceback ever chains to the server's words, which may echo the key
        headers = refused.response.headers
        self.limiter.heard(headers)
        status = int(refused.status_code)
        code, param = str(refused.code or ""), str(refused.param or "")
        retryable = is_retryable(status)
        if headers.get("x-should-retry") == "false" or code in _NO_CREDIT:
            retryable = False
        message = str(refused.message).removeprefix(f"Error code: {status} - ")
        reason = f"{status}: {self._clean(message)}"
        return _Failure(reason, status, code, param, retryable, retry_after(headers))

    def _raise_for_all(self, failure: _Failure, *, model: bool = True) -> None:
        """Raise what is wrong for every garment: no other would fare better."""
        status, name = failure.status, self._config.model
        if failure.code == "redirect":
            raise CaptionError(failure.reason, hint=failure.hint)
        if status in (401, 403):
            raise CaptionError(f"{self._where} does not accept the key ({failure.reason})", hint=f"check {KEY}")
        if status == 404 and model:
            raise CaptionError(
                f"{self._where} has no model {name} ({failure.reason})",
                hint="check captioner.model and captioner.base_url",
            )
        if failure.code in _NO_CREDIT:
            raise CaptionError(
                f"the account at {self._where} has no credit left ({failure.reason})",
                hint="add credit, then run again",
            )
        if status in (400, 422) and model and self._blames_settings(failure):
            raise CaptionError(
                f"{self._where} refuses a setting of {name} ({failure.reason})",
                hint=f"change captioner.models.{name}.parameters",
            )

    def _blames_settings(self, failure: _Failure) -> bool:
        param = failure.param.split(".")[0].split("[")[0]
        named = param == "response_format" or param in self._parameters
        return named or failure.code in ("unsupported_parameter", "unsupported_value", "unknown_parameter")

    def _clean(self, text: str) -> str:
        return redact(text, self.key)


def connect(config: CaptionerConfig, key: str, *, guard: Guard, timeout: float | None = None) -> Any:
    """The openai package's client for the server of the settings. Raises :class:`CaptionError` where it cannot be made.

    ``guard`` limits what the server's answers may take; ``timeout`` replaces that of the settings.
    """
    import openai

    seconds = timeout or config.timeout
    limits = openai.Timeout(seconds, connect=min(seconds, _CONNECT_TIMEOUT))
    url = server_url(config)
    try:
        http = open_client(url, limits, guard)
        return openai.OpenAI(api_key=key, base_url=url, timeout=limits, max_retries=0, http_client=http)
    except Exception as caught:  # a proxy or a URL that its transport cannot read
        reason = redact(str(caught), key)
    raise CaptionError(f"cannot use {host(url)}: {reason}", hint="check captioner.base_url and the proxy settings")


def is_filter(status: int | None, code: str) -> bool:
    """Whether a refused request was stopped by a content filter."""
    return status == 400 and code in _FILTER_CODES


def is_retryable(status: int) -> bool:
    """Whether asking again can help after such a status."""
    return status in _RETRY_STATUS or status >= 500


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, by ``retry-after-ms`` or ``Retry-After`` (seconds, or a date)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name) or "") * unit
            if 0 <= seconds < float("inf"):
                return seconds
        except (TypeError, ValueError):
            continue
    date = email.utils.parsedate_tz(headers.get("retry-after") or "")
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def _json(response: Any) -> Any:
    """The body as JSON; None where it is something else (a proxy's page)."""
    try:
        return json.loads(response.text)
    except (ValueError, RecursionError):
        return None


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(cause) or type(cause).__name__
