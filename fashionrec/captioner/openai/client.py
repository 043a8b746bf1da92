"""The client of OpenAI's API, or any server with it: connection, retries, and error mapping.

::

    Caller(body)         one caption request: an Answer, an Outcome on failure, None once stopped
    Caller.fetch(...)    any other request (a file, a batch): its result, or a CaptionError
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
from fashionrec.captioner.openai.transport import MOST_BYTES, Rejected, TransportLimits, open_client
from fashionrec.captioner.openai.wire import redact
from fashionrec.captioner.outcome import Outcome
from fashionrec.common.backoff import backoff
from fashionrec.errors import CaptionError

if TYPE_CHECKING:
    from fashionrec.config import CaptionerConfig

KEY = "OPENAI_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"  # explicit, so that no environment variable can redirect photos

_MAX_BACKOFF = 20.0
_MAX_RETRY_AFTER = 120.0  # a request fails if the server wants a longer pause
_CONNECT_TIMEOUT = 10.0
_RETRY_STATUS = frozenset({408, 409, 429})
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
_NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_CONNECTION_LOST = frozenset({"RemoteProtocolError", "ReadError", "ReadTimeout"})
_NO_LOCAL_KEY = "none"  # sent to a local server that needs no key

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """A server's answer: its JSON, or None if the body is not JSON."""

    body: Any


@dataclass(frozen=True)
class _Failure:
    """A failed request. ``retryable`` if a retry may help, after ``retry_after`` seconds."""

    reason: str
    status: int | None = None
    code: str = ""
    param: str = ""
    retryable: bool = False
    retry_after: float | None = None
    hint: str = ""


_STOPPED = _Failure("stopped", retryable=True)


def find_key(config: CaptionerConfig, given: str | None = None) -> str:
    """Return the given key, else the environment's.

    Raises :class:`CaptionError` if a key is needed and missing, or invalid.
    """
    key = (given if given is not None else os.environ.get(KEY, "")).strip()
    if not key:
        if config.base_url is not None:
            return _NO_LOCAL_KEY
        raise CaptionError(f"{KEY} is not set", hint=f"set {KEY}, or use the local captioner: --captioner local")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise CaptionError(f"{KEY} has invalid characters", hint="copy the key again")
    return key


def server_url(config: CaptionerConfig) -> str:
    return config.base_url or OPENAI_URL


def is_openai(config: CaptionerConfig) -> bool:
    """Return whether the server is OpenAI's, whose prices and dates are known."""
    return urlsplit(server_url(config)).hostname == urlsplit(OPENAI_URL).hostname


def host(url: str) -> str:
    """Return the server's host for messages: no path, user or password."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return "the server"


def address(url: str) -> str:
    """Return the server's address for records: no user or password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{host(url)}{parts.path.rstrip('/')}"


class ApiCaller:
    """Sends requests with retries, at most ``1 + retries`` attempts each. Shared by threads.

    The openai package's own retries are off. A context manager for one user; with several ``users``
    (threads) each calls :meth:`leave`.
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
        self._host = host(server_url(config))
        self._guard = TransportLimits()
        self.client = connect(config, key, guard=self._guard)
        self._create = self.client.chat.completions.with_raw_response.create

    def leave(self) -> None:
        """Release the client for one user; the last one closes the connections."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self.client.close()

    def __enter__(self) -> ApiCaller:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def __call__(self, body: dict[str, Any]) -> Answer | Outcome | None:
        """Return the answer, an outcome if the request failed, or None if stopped while waiting.

        Raises :class:`CaptionError` for errors that affect every garment: key, model, settings,
        account.
        """
        # as the extra body, which the package sends unchanged: transforming typed messages takes
        # longer than everything else that it does
        parameters = {key: value for key, value in body.items() if key != "model"}

        def send() -> Answer:
            response = self._create(model=body["model"], messages=[], extra_body=parameters)
            self.limiter.heard(response.headers)
            return Answer(_json(response))

        result = self._send_with_retries(send, self._config.retries, self._config.timeout)
        if not isinstance(result, _Failure):
            return result
        if result is _STOPPED:
            return None
        if is_filter(result.status, result.code):
            return Outcome("filtered", "openai", self._config.model, error=result.reason)
        self._raise_general(result)
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
        """Return the result of a request about a file or a batch.

        Raises :class:`CaptionError`; ``error.state`` is ``gone`` if the server does not have the
        file or batch.

        Args:
            what: The action, for messages.
            request: Sends the request.
            retries: 0 for requests that must not be repeated; by default the setting.
            seconds: Time limit of one attempt.
            most_bytes: Size limit of the answer.
        """
        max_retries = self._config.retries if retries is None else retries
        result = self._send_with_retries(request, max_retries, seconds or self._config.timeout, most_bytes)
        if isinstance(result, _Failure):
            self._raise_general(result, model=False)
            raise CaptionError(
                f"{what}: {result.reason}",
                state="gone" if result.status == 404 else "failed",
                retryable=result.retryable,
                hint="run it again later to resume" if result.retryable else "",
            )
        return result

    def extend(self, seconds: float) -> None:
        """Give the current transfer of this thread ``seconds`` more, because it makes progress."""
        self._guard.extend(seconds)

    def _send_with_retries(
        self, send: Callable[[], T], retries: int, seconds: float, most_bytes: int = MOST_BYTES
    ) -> T | _Failure:
        for attempt in itertools.count():
            if not self.limiter.enter(self.stop):
                return _STOPPED
            sent_at = time.monotonic()
            try:
                result = self._send(send, seconds, most_bytes)
            finally:
                self.limiter.leave()
            if not isinstance(result, _Failure):
                self.limiter.succeeded()
                return result
            wait = backoff(attempt, self._backoff, _MAX_BACKOFF)
            requested_wait = result.retry_after
            if requested_wait is not None and requested_wait <= _MAX_RETRY_AFTER:
                wait = requested_wait + random.uniform(0.0, 0.1) * min(requested_wait, 10.0)
            if result.status == 429:
                self.limiter.throttled(sent_at, min(wait, _MAX_RETRY_AFTER))
            elif requested_wait is not None and requested_wait <= _MAX_RETRY_AFTER:
                self.limiter.pause(wait)
            too_long = requested_wait is not None and requested_wait > _MAX_RETRY_AFTER
            if not result.retryable or attempt >= retries or too_long:
                return result
            if self.stop.wait(wait):
                return _STOPPED
        raise AssertionError  # unreachable: itertools.count() is infinite

    def _send(self, send: Callable[[], T], seconds: float, most_bytes: int) -> T | _Failure:
        """Send one request; return its result, or a failure."""
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
            return _Failure(self._clean(f"no connection to {self._host} ({_cause(caught)})"), retryable=True)
        except openai.APIStatusError as caught:
            status_error = caught
        except Exception as caught:  # of the transport: broken encoding, invalid header, lost connection
            error_class = type(caught)
            is_lost = error_class.__module__.startswith("httpx") and error_class.__name__ in _CONNECTION_LOST
            return _Failure(self._clean(f"{error_class.__name__}: {caught}"), retryable=is_lost)
        # outside of the except block, so that no traceback chains to the server's message, which
        # may contain the key
        headers = status_error.response.headers
        self.limiter.heard(headers)
        status = int(status_error.status_code)
        code, param = str(status_error.code or ""), str(status_error.param or "")
        retryable = is_retryable(status)
        if headers.get("x-should-retry") == "false" or code in _NO_CREDIT:
            retryable = False
        # versions of the package differ in their own message: some repeat the status and the body
        body = status_error.body
        stated = body.get("message") if isinstance(body, dict) else None
        message = stated if isinstance(stated, str) else status_error.message
        reason = f"{status}: {self._clean(str(message).removeprefix(f'Error code: {status} - '))}"
        return _Failure(reason, status, code, param, retryable, retry_after(headers))

    def _raise_general(self, failure: _Failure, *, model: bool = True) -> None:
        """Raise the errors that affect every garment."""
        status, name = failure.status, self._config.model
        if failure.code == "redirect":
            raise CaptionError(failure.reason, hint=failure.hint)
        if status in (401, 403):
            raise CaptionError(f"{self._host} rejects the key ({failure.reason})", hint=f"check {KEY}")
        if status == 404 and model:
            raise CaptionError(
                f"{self._host} has no model {name} ({failure.reason})",
                hint="check captioner.model and captioner.base_url",
            )
        if failure.code in _NO_CREDIT:
            raise CaptionError(
                f"the account at {self._host} has no credit left ({failure.reason})",
                hint="add credit, then run again",
            )
        if status in (400, 422) and model and self._blames_settings(failure):
            raise CaptionError(
                f"{self._host} rejects a setting of {name} ({failure.reason})",
                hint=f"change captioner.models.{name}.parameters",
            )

    def _blames_settings(self, failure: _Failure) -> bool:
        param = failure.param.split(".")[0].split("[")[0]
        named = param == "response_format" or param in self._parameters
        return named or failure.code in ("unsupported_parameter", "unsupported_value", "unknown_parameter")

    def _clean(self, text: str) -> str:
        return redact(text, self.key)


def connect(config: CaptionerConfig, key: str, *, guard: TransportLimits, timeout: float | None = None) -> Any:
    """Create the openai package's client for the server of the settings.

    Raises :class:`CaptionError` if that fails. ``guard`` limits the answers of the server;
    ``timeout`` overrides that of the settings.
    """
    import openai

    seconds = timeout or config.timeout
    limits = openai.Timeout(seconds, connect=min(seconds, _CONNECT_TIMEOUT))
    url = server_url(config)
    try:
        http = open_client(url, limits, guard)
        return openai.OpenAI(api_key=key, base_url=url, timeout=limits, max_retries=0, http_client=http)
    except Exception as caught:  # an invalid proxy or URL
        reason = redact(str(caught), key)
    raise CaptionError(f"cannot use {host(url)}: {reason}", hint="check captioner.base_url and the proxy settings")


def is_filter(status: int | None, code: str) -> bool:
    """Return whether a content filter stopped the request."""
    return status == 400 and code in _FILTER_CODES


def is_retryable(status: int) -> bool:
    """Return whether a retry may help after such a status."""
    return status in _RETRY_STATUS or status >= 500


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the pause that the server requests, in seconds.

    It is in ``retry-after-ms`` or ``Retry-After`` (seconds, or a date).
    """
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
    """Return the body as JSON; None for anything else (a proxy's page)."""
    try:
        return json.loads(response.text)
    except (ValueError, RecursionError):
        return None


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(cause) or type(cause).__name__
