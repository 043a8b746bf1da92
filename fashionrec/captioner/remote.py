"""Captions by OpenAI, or by any server that speaks its API. The only place that talks to it, and the one that retries.

::

    describe ──▶ concurrency threads ──▶ one request each, retried here (the client's own retries are off)
       ◀── (position, outcome) as they come; a wrong key, model or setting stops everything with one CaptionError
"""

from __future__ import annotations

import email.utils
import itertools
import json
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.vocabulary import Vocabulary, load_vocabulary
from fashionrec.captioner.wire import RESERVED, read_answer, redact, request_body
from fashionrec.errors import CaptionError, ConfigError
from fashionrec.images import encode_jpeg

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.config import CaptionerConfig

KEY = "OPENAI_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"  # said outright, so that no other variable of the environment redirects photos

_LONGEST_BACKOFF = 20.0
_LONGEST_RETRY_AFTER = 120.0  # a server that wants a longer pause than this is not worth waiting for
_CONNECT_TIMEOUT = 10.0
_RETRY_STATUS = frozenset({408, 409, 429})
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
_NO_LOCAL_KEY = "none"  # what the client sends to a local server that needs no key

_Result = tuple[int, "Outcome | BaseException | None"]  # None: never asked, because everything stopped


class OpenAICaptioner:
    """Describes crops by ``config.model``. The key is ``api_key``, else the environment's at the moment of use."""

    name = "openai"

    def __init__(
        self,
        config: CaptionerConfig,
        api_key: str | None = None,
        *,
        vocabulary: Vocabulary | None = None,
        backoff: float = 0.5,
    ) -> None:
        """``backoff`` is the first pause before asking again, in seconds; it doubles. Raises :class:`ConfigError`."""
        self.config = config
        self._given_key = api_key
        self._vocabulary = vocabulary or load_vocabulary()
        self._backoff = backoff
        self._failures_in_a_row = 0
        self._lock = threading.Lock()
        entry = config.models.get(config.model)
        self._parameters = dict(entry.parameters) if entry else {}
        for key in RESERVED & self._parameters.keys():
            raise ConfigError(f"captioner.models.{config.model}.parameters may not set {key}")
        if config.base_url is not None and not config.base_url.lower().startswith(("http://", "https://")):
            raise ConfigError("captioner.base_url is not an http(s) URL", hint="for example http://127.0.0.1:8000/v1")

    def describe(
        self,
        crops: Sequence[Image.Image],
        class_names: Sequence[str | None],
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[int, Outcome]]:
        """Each crop's position and outcome, in the order in which they come. ``progress`` gets (done, all).

        Raises :class:`CaptionError` at once where no key is there, and as soon as the server says that the key, the
        model or a setting is wrong, or does not answer many requests in a row; what had come by then is yielded first.
        Closing the iterator stops it: nothing more is sent, and nothing waits for what is under way.
        """
        if len(crops) != len(class_names):
            raise ValueError(f"{len(crops)} crops, {len(class_names)} classes")
        return self._run(crops, class_names, progress, self._key())

    def _run(
        self,
        crops: Sequence[Image.Image],
        class_names: Sequence[str | None],
        progress: Callable[[int, int], None] | None,
        key: str,
    ) -> Iterator[tuple[int, Outcome]]:
        if not crops:
            return
        workers = min(self.config.concurrency, len(crops))
        results: queue.Queue[_Result] = queue.Queue()
        call = _Caller(self._open(key), key, self.config, self._parameters, self._backoff, workers)
        positions = itertools.count()  # next() on it is atomic

        def work() -> None:
            try:
                while (n := next(positions)) < len(crops):
                    results.put((n, None if call.stop.is_set() else self._one(call, crops[n], class_names[n])))
            except BaseException as error:  # whatever it is, the thread that waits must hear of it
                results.put((-1, error))
                call.stop.set()
            finally:
                call.leave()
                results.put((-1, None))  # this worker is done

        # daemons: an interrupted program ends without waiting for a request's timeout
        threads = [threading.Thread(target=work, name=f"caption-{n}", daemon=True) for n in range(workers)]
        fatal: BaseException | None = None
        done, working = 0, workers
        try:
            for thread in threads:
                thread.start()
            while working:
                try:
                    n, result = results.get(timeout=0.5)  # with a timeout, Ctrl-C is heard on Windows too
                except queue.Empty:
                    continue
                if isinstance(result, Outcome):
                    done += 1
                    if progress:
                        progress(done, len(crops))
                    yield n, result
                elif isinstance(result, BaseException):
                    fatal = fatal or result
                elif n < 0:
                    working -= 1
        finally:
            call.stop.set()
        if fatal is not None:
            raise fatal

    def _one(self, call: _Caller, crop: Image.Image, class_name: str | None) -> Outcome | None:
        """One garment's outcome; None where everything stopped meanwhile. Raises what concerns every garment."""
        started = time.monotonic()
        jpeg = encode_jpeg(crop, self.config.image_side, self.config.image_quality)
        body = request_body(self.config.model, self._parameters, jpeg, class_name, self._vocabulary)
        answer = call(body)
        if isinstance(answer, _Answer):
            outcome = read_answer(
                answer.body,
                model=self.config.model,
                class_name=class_name,
                secret=call.key,
                vocabulary=self._vocabulary,
            )
        elif answer is None:
            return None
        else:
            outcome = answer
        self._count(outcome)
        return replace(outcome, seconds=round(time.monotonic() - started, 3))

    def _count(self, outcome: Outcome) -> None:
        """Give up on a server that fails everything: each failure has cost all its retries already."""
        with self._lock:
            self._failures_in_a_row = self._failures_in_a_row + 1 if outcome.state == "failed" else 0
            many = self._failures_in_a_row >= max(24, 3 * self.config.concurrency)
        if many:
            raise CaptionError(
                f"{self._failures_in_a_row} requests in a row failed, the last one: {outcome.error}",
                retryable=True,
                hint="what was described is kept; run it again later",
            )

    def _key(self) -> str:
        key = (self._given_key if self._given_key is not None else os.environ.get(KEY, "")).strip()
        if not key:
            if self.config.base_url is not None:
                return _NO_LOCAL_KEY
            raise CaptionError(f"{KEY} is not set", hint=f"set {KEY}, or use the local captioner: --captioner local")
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise CaptionError(f"{KEY} holds characters that no key has", hint="copy the key again")
        return key

    def _open(self, key: str) -> Any:
        import openai

        timeout = openai.Timeout(self.config.timeout, connect=min(self.config.timeout, _CONNECT_TIMEOUT))
        url = self.config.base_url or OPENAI_URL
        try:
            return openai.OpenAI(api_key=key, base_url=url, timeout=timeout, max_retries=0)
        except Exception as caught:  # a proxy or a URL that its transport cannot read
            reason = redact(str(caught), key)
        raise CaptionError(f"cannot use {_host(url)}: {reason}", hint="check captioner.base_url and the proxy settings")


@dataclass(frozen=True)
class _Answer:
    body: Any


class _Caller:
    """Sends one body, again where that can help. Shared by the workers; the last of them closes the client."""

    def __init__(
        self, client: Any, key: str, config: CaptionerConfig, parameters: dict[str, Any], backoff: float, users: int
    ) -> None:
        self.key = key
        self.stop = threading.Event()
        self._client = client
        self._create = client.chat.completions.with_raw_response.create
        self._config = config
        self._parameters = parameters
        self._backoff = backoff
        self._users = users
        self._lock = threading.Lock()

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._client.close()

    def __call__(self, body: dict[str, Any]) -> _Answer | Outcome | None:
        """The answer; an outcome where there is none; None where everything stopped while waiting to ask again."""
        for attempt in itertools.count():
            result, retry_after = self._once(body)
            if isinstance(result, _Answer) or not result.retryable or attempt >= self._config.retries:
                return result
            wait = random.uniform(0.5, 1.0) * min(self._backoff * 2.0**attempt, _LONGEST_BACKOFF)
            if retry_after is not None:
                if retry_after > _LONGEST_RETRY_AFTER:
                    return result
                wait = retry_after + random.uniform(0.0, 0.1) * min(retry_after, 10.0)
            if self.stop.wait(wait):
                return None
        raise AssertionError  # the count has no end

    def _once(self, body: dict[str, Any]) -> tuple[_Answer | Outcome, float | None]:
        """One request: the answer or the failure, and for how long the server asks to wait."""
        import openai

        ours = {key: value for key, value in body.items() if key not in self._parameters}
        try:
            response = self._create(**ours, extra_body=self._parameters or None)
            return _Answer(_json(response)), None
        except openai.APITimeoutError:
            return self._failed(f"no answer within {self._config.timeout:g} s", retryable=True), None
        except openai.APIConnectionError as caught:
            reason = f"no connection to {_host(self._config.base_url or OPENAI_URL)} ({_cause(caught)})"
            return self._failed(reason, retryable=True), None
        except openai.APIStatusError as caught:
            refused = caught
        except Exception as caught:  # the transport's own: a broken encoding, a header that it does not take
            return self._failed(f"{type(caught).__name__}: {caught}", retryable=False), None
        # out of the except block, so that no traceback ever chains to the server's words, which may echo the key
        return self._status(refused), _retry_after(refused.response.headers)

    def _status(self, error: Any) -> Outcome:
        """What a 4xx or 5xx means for this garment; raises what it means for all."""
        status, code = int(error.status_code), str(error.code or "")
        reason = f"{status}: {redact(str(error.message), self.key)}"
        where = _host(self._config.base_url or OPENAI_URL)
        model = self._config.model
        if status in (401, 403):
            raise CaptionError(f"{where} does not accept the key ({reason})", hint=f"check {KEY}")
        if status == 404:
            raise CaptionError(
                f"{where} has no model {model} ({reason})", hint="check captioner.model and captioner.base_url"
            )
        if code in ("insufficient_quota", "billing_hard_limit_reached"):
            raise CaptionError(
                f"the account at {where} has no credit left ({reason})", hint="add credit, then run again"
            )
        if status == 400 and code in _FILTER_CODES:
            return Outcome("filtered", "openai", model, error=reason)
        if status in (400, 422) and self._blames_settings(error, code):
            raise CaptionError(
                f"{where} refuses a setting of {model} ({reason})",
                hint=f"change captioner.models.{model}.parameters",
            )
        retryable = status in _RETRY_STATUS or status >= 500
        if error.response.headers.get("x-should-retry") == "false":
            retryable = False
        return self._failed(reason, retryable=retryable)

    def _blames_settings(self, error: Any, code: str) -> bool:
        param = str(error.param or "").split(".")[0].split("[")[0]
        named = param == "response_format" or param in self._parameters
        return named or code in ("unsupported_parameter", "unsupported_value", "unknown_parameter")

    def _failed(self, reason: str, *, retryable: bool) -> Outcome:
        return Outcome("failed", "openai", self._config.model, error=redact(reason, self.key), retryable=retryable)


def _json(response: Any) -> Any:
    """The body as JSON; None where it is something else (a proxy's page)."""
    try:
        return json.loads(response.text)
    except (ValueError, RecursionError):
        return None


def _retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait, by ``retry-after-ms`` or ``Retry-After`` (seconds, or a date)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        try:
            seconds = float(value) * unit
            if 0 <= seconds < float("inf"):
                return seconds
        except (TypeError, ValueError):
            continue
    date = email.utils.parsedate_tz(headers.get("retry-after") or "")
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def _host(url: str) -> str:
    """The server's name for messages: no path, no user, no password."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return "the server"


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(cause) or type(cause).__name__
