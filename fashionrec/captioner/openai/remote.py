"""The captioner that uses OpenAI, or any server with its API.

::

    jobs ─▶ a few threads prepare the requests, a bounded number ahead
         ─▶ ``concurrency`` threads send them, one at a time each (client.py, with retries)
         ─▶ groups of outcomes as they arrive; a slow consumer blocks the threads
    a wrong key, model or setting stops everything with one CaptionError
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.base import Captioner, Described, Job, UnderWay
from fashionrec.captioner.cost import Price, Tokens
from fashionrec.captioner.openai.ahead import Prefetcher
from fashionrec.captioner.openai.batch import STATE, Batches
from fashionrec.captioner.openai.batch_answers import Collected
from fashionrec.captioner.openai.batch_state import OPEN, UNSENT, BatchState
from fashionrec.captioner.openai.client import KEY, Answer, ApiCaller, find_key
from fashionrec.captioner.openai.limiter import RateLimiter
from fashionrec.captioner.openai.retirement import ask_shutdown, shutdown_notice
from fashionrec.captioner.openai.tokens import estimate
from fashionrec.captioner.openai.translate import read_translation, translation_body
from fashionrec.captioner.openai.wire import RESERVED, read_answer, request_body, stored_answer
from fashionrec.captioner.outcome import Outcome
from fashionrec.common.folder import Folder
from fashionrec.common.text import plural
from fashionrec.config.captioners import BATCH_FOLDERS, SPOOL_FILES
from fashionrec.errors import CaptionError, CatalogueError, ConfigError
from fashionrec.photos.images import encode_jpeg

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.captioner.cache import Place
    from fashionrec.captioner.cost import CostMeter
    from fashionrec.captioner.ledger import Ledger
    from fashionrec.captioner.vocabulary import Vocabulary
    from fashionrec.config import CaptionerConfig, CaptionModelConfig

_GROUP = 256  # outcomes yielded at once, at most
_PREPARERS = 2  # threads that crop and encode, mostly in Pillow, which releases the GIL


class OpenAICaptioner(Captioner):
    """Describes crops by ``config.model``. The key is ``api_key``, else the environment's."""

    name = "openai"
    title = "OpenAI"
    sends_photos = True
    costs = True
    spool_file = SPOOL_FILES[name]
    batch_folder = BATCH_FOLDERS[name]

    def __init__(
        self,
        config: CaptionerConfig,
        api_key: str | None = None,
        *,
        vocabulary: Vocabulary | None = None,
        backoff: float = 0.5,
    ) -> None:
        """Check the settings. ``backoff`` is the first pause before a retry in seconds; it doubles.

        Raises :class:`ConfigError`.
        """
        super().__init__(config, vocabulary=vocabulary)
        self._given_key = api_key
        self._backoff = backoff
        self._failures_in_a_row = 0
        self._lock = threading.Lock()
        self.entry: CaptionModelConfig = config.models.get(config.model) or config.models["other"]
        self.parameters: dict[str, Any] = dict(self.entry.parameters)
        for key in RESERVED & self.parameters.keys():
            raise ConfigError(f"captioner.models.{config.model}.parameters must not set {key}")
        if config.base_url is not None and not config.base_url.lower().startswith(("http://", "https://")):
            raise ConfigError("captioner.base_url is not an http(s) URL", hint="for example http://127.0.0.1:8000/v1")

    @classmethod
    def is_ready(cls) -> bool:
        return bool(os.environ.get(KEY))

    @property
    def model(self) -> str:
        return self.config.model

    @property
    def label(self) -> str:
        return f"{self.model} at {self.config.base_url or self.title} (the crops are sent there)"

    def notice(self, *, ask: bool) -> str:
        return shutdown_notice(self.config, date.today(), ask_shutdown(self.config) if ask else None)

    def price(self, model: str | None = None, *, batch: bool = False) -> Price | None:
        models = self.config.models
        return Price.of(models.get(model or self.model) or models["other"], batch=batch)

    def expected_tokens(self) -> Tokens:
        return estimate(self.config, self.entry, self.vocabulary)

    def caller(self, *, users: int = 1, tokens: float = 0.0) -> ApiCaller:
        """Connect to the server. Raises :class:`CaptionError` if the key is missing."""
        limiter = RateLimiter(self.config.concurrency, tokens)
        key = find_key(self.config, self._given_key)
        return ApiCaller(self.config, key, self.parameters, backoff=self._backoff, limiter=limiter, users=users)

    def body(self, picture: Image.Image, class_name: str | None) -> dict[str, Any]:
        """Return the request body for one garment."""
        jpeg = encode_jpeg(picture, self.config.image_side, self.config.image_quality, quick=True)
        detail = None if self.config.image_detail == "auto" else self.config.image_detail
        return request_body(self.config.model, self.parameters, jpeg, class_name, self.vocabulary, detail=detail)

    def read_answer(
        self, answer: str, class_name: str | None, *, model: str | None = None, seconds: float = 0.0
    ) -> Outcome:
        outcome = read_answer(answer, model=model or self.model, class_name=class_name, vocabulary=self.vocabulary)
        return replace(outcome, seconds=seconds)

    def read_text(self, text: str, class_name: str | None, *, model: str, usage: dict[str, int]) -> Outcome:
        counts = {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]}
        body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": counts}
        return read_answer(body, model=model, class_name=class_name, vocabulary=self.vocabulary)

    @contextmanager
    def batches(
        self,
        folder: Path,
        *,
        picture: Callable[[Place], Image.Image | None],
        record: Callable[[Sequence[tuple[Place, Outcome]]], None],
        ledger: Ledger,
        most: int | None = None,
    ) -> Iterator[Batches]:
        def body(place: Place) -> dict[str, Any] | None:
            crop = picture(place)
            return None if crop is None else self.body(crop, place.class_name)

        def read(collected: Sequence[Collected]) -> None:
            record([(result.place, self.read_collected(result)) for result in collected])

        with (
            self.caller() as caller,
            Batches(folder, self.config, caller, body=body, record=read, ledger=ledger, most=most) as batches,
        ):
            yield batches

    def read_collected(self, result: Collected) -> Outcome:
        """Return the outcome of a batch's result."""
        return result.outcome or self.read_answer(result.body or "", result.place.class_name, model=result.model)

    @classmethod
    def under_way(cls, folder: Path, ledger: Ledger) -> UnderWay:
        path = _state_path(folder)
        if not path.is_file():
            return UnderWay()
        planned = ledger.planned(folder.resolve())
        with BatchState(path, write=False) as state:
            pending = [
                (status, place) for name, status, place in state.unanswered() if status != "waiting" or name in planned
            ]
            unsent = sum(status == "waiting" for status, _ in pending) + sum(
                part.requests for part in state.parts(UNSENT)
            )
        return UnderWay([place for _, place in pending], unsent)

    @classmethod
    def open_batches(cls, folder: Path) -> list[dict[str, Any]]:
        path = _state_path(folder)
        if not path.is_file():
            return []
        keys = ("batch_id", "status", "state", "server", "model", "requests", "completed", "created_at", "error")
        with BatchState(path, write=False) as state:
            return [{key: asdict(part)[key] for key in keys} for part in state.parts(OPEN)]

    def translate(self, texts: Sequence[str]) -> list[str]:
        """Translate texts into English by ``config.model``, in one request.

        Raises :class:`CaptionError` if that fails.
        """
        with self.caller() as call:
            answer = call(translation_body(self.model, self.parameters, texts))
        if not isinstance(answer, Answer):
            reason = answer.error if answer is not None else "stopped"
            raise CaptionError(f"the text was not translated: {reason}", hint="omit --translate")
        return read_translation(answer.body, len(texts))

    def describe(
        self,
        jobs: Iterable[Job],
        *,
        most: int | None = None,
        meter: CostMeter | None = None,
        arrived: Callable[[Job, str, float], None] | None = None,
    ) -> Generator[list[Described], None, None]:
        """Yield outcomes like :meth:`Captioner.describe`, with concurrent requests.

        At most ``concurrency`` outcomes wait for the consumer; ``arrived`` is called by the threads
        that send the requests.

        Raises :class:`CaptionError` at once for a missing key; after yielding the outcomes so far,
        if the server rejects the key, the model or a setting, or many requests in a row fail.
        Closing the iterator stops it: nothing more is sent, and requests in flight are not awaited.
        """
        workers = min(self.config.concurrency, self.config.concurrency if most is None else most)
        tokens = 0.0 if meter is None else meter.each.input + meter.each.output
        call = self.caller(users=max(1, workers), tokens=tokens)
        if not workers:
            call.leave()
            no_groups: tuple[list[Described], ...] = ()
            return (group for group in no_groups)
        return self._run(jobs, workers, call, meter, arrived or (lambda job, body, seconds: None))

    def _run(
        self,
        jobs: Iterable[Job],
        workers: int,
        call: ApiCaller,
        meter: CostMeter | None,
        arrived: Callable[[Job, str, float], None],
    ) -> Generator[list[Described], None, None]:
        results: queue.Queue[Described | BaseException | None] = queue.Queue(workers)
        closed = threading.Event()  # the results are no longer read
        spent = threading.Event()  # the cost limit is reached
        prefetch: Prefetcher[Job, tuple[Job, dict[str, Any]]] = Prefetcher(
            jobs,
            lambda job: (job, self.body(job.picture(), job.class_name)),
            threads=min(_PREPARERS, workers),
            most=workers,
            stop=call.stop,
            name="caption-crop",
        )

        def put(result: Described | BaseException | None) -> None:
            while not closed.is_set():
                try:
                    return results.put(result, timeout=0.5)
                except queue.Full:
                    continue

        def work() -> None:
            try:
                while not spent.is_set() and (ready := prefetch.take()) is not None:
                    if meter is not None and not meter.reserve():
                        spent.set()
                        break
                    described = self._describe_job(call, *ready, arrived)
                    if described is None:
                        break
                    if meter is not None:
                        meter.came(described.outcome.usage)
                    put(described)
            except BaseException as error:  # of any kind: the consumer must get it
                call.stop.set()
                put(error)
            finally:
                call.leave()
                put(None)  # this worker is done

        # daemons, so that an interrupted program ends without waiting for a request's time-out
        threads = [threading.Thread(target=work, name=f"caption-{n}", daemon=True) for n in range(workers)]
        fatal: BaseException | None = None
        working = workers
        try:
            for thread in threads:
                thread.start()
            while working:
                group: list[Described] = []
                for result in _available(results):
                    if result is None:
                        working -= 1
                    elif isinstance(result, BaseException):
                        fatal = fatal or result
                    else:
                        group.append(result)
                if group:
                    yield group
        finally:
            closed.set()
            prefetch.close()
        prefetch.close(wait=5.0)
        if fatal is not None:
            raise fatal

    def _describe_job(
        self, call: ApiCaller, job: Job, body: dict[str, Any], arrived: Callable[[Job, str, float], None]
    ) -> Described | None:
        """Request one caption. Returns None once stopped.

        Raises :class:`CaptionError` for errors that affect every garment.
        """
        started = time.monotonic()
        answer = call(body)
        if answer is None:
            return None
        seconds = round(time.monotonic() - started, 3)
        if isinstance(answer, Answer):
            failed = not isinstance(answer.body, dict) or isinstance(answer.body.get("error"), dict)
            stored = stored_answer(answer.body, call.key)
            arrived(job, stored, seconds)
            self._count_failures(failed, "the server's answers are not captions" if failed else "")
            return Described(job, self.read_answer(stored, job.class_name, seconds=seconds), arrived=True)
        self._count_failures(answer.state == "failed", answer.error or "")
        return Described(job, replace(answer, seconds=seconds))

    def _count_failures(self, failed: bool, reason: str) -> None:
        """Give up on a server after many failures in a row; each of them had all its retries."""
        with self._lock:
            self._failures_in_a_row = self._failures_in_a_row + 1 if failed else 0
            too_many = self._failures_in_a_row >= max(24, 3 * self.config.concurrency)
        if too_many:
            raise CaptionError(
                f"{plural(self._failures_in_a_row, 'request')} failed in a row, the last one with: {reason}",
                retryable=True,
                hint="finished captions are kept; resume later with `caption --retry failed`",
            )


def _available(results: queue.Queue[Described | BaseException | None]) -> Iterator[Described | BaseException | None]:
    """Yield the results in the queue; wait a moment for the first one.

    Thanks to the time-out, Ctrl-C works on Windows too.
    """
    try:
        yield results.get(timeout=0.5)
        for _ in range(_GROUP):
            yield results.get_nowait()
    except queue.Empty:
        return


def _state_path(folder: Path) -> Path:
    """Return the path of the state of a catalogue's batches.

    Raises :class:`CatalogueError` for a symbolic link.
    """
    return Folder(folder.parent, "catalogue", CatalogueError).path(f"{folder.name}/{STATE}")
