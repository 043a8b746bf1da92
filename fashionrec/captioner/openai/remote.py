"""Captions by OpenAI, or by any server that speaks its API.

::

    jobs ─▶ a few threads make their pictures ready, a bounded number ahead
         ─▶ concurrency threads, one request each (client.py sends it, and again where that can help)
         ─▶ groups of what came, as it comes; where the reader is slow, the threads wait for it
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
from fashionrec.captioner.openai.ahead import Ahead
from fashionrec.captioner.openai.batch import STATE, Batches
from fashionrec.captioner.openai.batch_answers import Collected
from fashionrec.captioner.openai.batch_state import OPEN, UNSENT, BatchState
from fashionrec.captioner.openai.client import KEY, Answer, Caller, find_key
from fashionrec.captioner.openai.limiter import RateLimiter
from fashionrec.captioner.openai.retirement import ask_shutdown, shutdown_notice
from fashionrec.captioner.openai.tokens import estimate
from fashionrec.captioner.openai.translate import read_translation, translation_body
from fashionrec.captioner.openai.wire import RESERVED, essence, read_answer, request_body
from fashionrec.captioner.outcome import Outcome
from fashionrec.common.folder import Folder
from fashionrec.config.captioners import BATCH_FOLDERS, SPOOL_FILES
from fashionrec.errors import CaptionError, CatalogueError, ConfigError
from fashionrec.photos.images import encode_jpeg

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.captioner.cache import Place
    from fashionrec.captioner.cost import Meter
    from fashionrec.captioner.ledger import Ledger
    from fashionrec.captioner.vocabulary import Vocabulary
    from fashionrec.config import CaptionerConfig, CaptionModelConfig

_GROUP = 256  # answers given out together at most
_PREPARERS = 2  # threads that cut and encode; the work is Pillow's, which lets go of the interpreter


class OpenAICaptioner(Captioner):
    """Describes crops by ``config.model``. The key is ``api_key``, else the environment's at the moment of use."""

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
        """``backoff`` is the first pause before asking again, in seconds; it doubles. Raises :class:`ConfigError`."""
        super().__init__(config, vocabulary=vocabulary)
        self._given_key = api_key
        self._backoff = backoff
        self._failures_in_a_row = 0
        self._lock = threading.Lock()
        self.entry: CaptionModelConfig = config.models.get(config.model) or config.models["other"]
        self.parameters: dict[str, Any] = dict(self.entry.parameters)
        for key in RESERVED & self.parameters.keys():
            raise ConfigError(f"captioner.models.{config.model}.parameters may not set {key}")
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

    def caller(self, *, users: int = 1, tokens: float = 0.0) -> Caller:
        """A connection to the server. Raises :class:`CaptionError` where no key is there."""
        limiter = RateLimiter(self.config.concurrency, tokens)
        key = find_key(self.config, self._given_key)
        return Caller(self.config, key, self.parameters, backoff=self._backoff, limiter=limiter, users=users)

    def body(self, picture: Image.Image, class_name: str | None) -> dict[str, Any]:
        """The request that asks for one garment's description."""
        jpeg = encode_jpeg(picture, self.config.image_side, self.config.image_quality, quick=True)
        detail = None if self.config.image_detail == "auto" else self.config.image_detail
        return request_body(self.config.model, self.parameters, jpeg, class_name, self.vocabulary, detail=detail)

    def read_answer(
        self, answer: str, class_name: str | None, *, model: str | None = None, seconds: float = 0.0
    ) -> Outcome:
        outcome = read_answer(answer, model=model or self.model, class_name=class_name, vocabulary=self.vocabulary)
        return replace(outcome, seconds=seconds)

    def read_text(self, text: str, class_name: str | None, *, model: str, usage: dict[str, int]) -> Outcome:
        used = {"prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"]}
        body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": used}
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
            record([(one.place, self.read_collected(one)) for one in collected])

        with (
            self.caller() as caller,
            Batches(folder, self.config, caller, body=body, record=read, ledger=ledger, most=most) as batches,
        ):
            yield batches

    def read_collected(self, one: Collected) -> Outcome:
        """The outcome of a batch's line."""
        return one.outcome or self.read_answer(one.body or "", one.place.class_name, model=one.model)

    @classmethod
    def under_way(cls, folder: Path, ledger: Ledger) -> UnderWay:
        path = _state(folder)
        if not path.is_file():
            return UnderWay()
        planned = ledger.planned(folder.resolve())
        with BatchState(path, write=False) as state:
            found = [(step, place) for name, step, place in state.unanswered() if step != "waiting" or name in planned]
            unsent = sum(step == "waiting" for step, _ in found) + sum(part.requests for part in state.parts(UNSENT))
        return UnderWay([place for _, place in found], unsent)

    @classmethod
    def open_batches(cls, folder: Path) -> list[dict[str, Any]]:
        path = _state(folder)
        if not path.is_file():
            return []
        keys = ("batch_id", "status", "state", "server", "model", "requests", "completed", "created_at", "error")
        with BatchState(path, write=False) as state:
            return [{key: asdict(part)[key] for key in keys} for part in state.parts(OPEN)]

    def translate(self, texts: Sequence[str]) -> list[str]:
        """Texts in English by ``config.model``, in one request. Raises :class:`CaptionError` where they cannot be had."""
        with self.caller() as ask:
            came = ask(translation_body(self.model, self.parameters, texts))
        if not isinstance(came, Answer):
            reason = came.error if came is not None else "stopped"
            raise CaptionError(f"the words were not translated: {reason}", hint="leave --translate out")
        return read_translation(came.body, len(texts))

    def describe(
        self,
        jobs: Iterable[Job],
        *,
        most: int | None = None,
        meter: Meter | None = None,
        arrived: Callable[[Job, str, float], None] | None = None,
    ) -> Generator[list[Described], None, None]:
        """As :meth:`Captioner.describe`: at most ``concurrency`` answers wait to be given out, and ``arrived`` is called by
        the threads that ask.

        Raises :class:`CaptionError` at once where no key is there, and as soon as the server says that the key, the model
        or a setting is wrong, or does not answer many requests in a row; what had come by then is yielded first. Closing
        the iterator stops it: nothing more is sent, and nothing waits for what is under way.
        """
        workers = min(self.config.concurrency, self.config.concurrency if most is None else most)
        tokens = 0.0 if meter is None else meter.each.input + meter.each.output
        call = self.caller(users=max(1, workers), tokens=tokens)
        if not workers:
            call.leave()
            nothing: tuple[list[Described], ...] = ()
            return (group for group in nothing)
        return self._run(jobs, workers, call, meter, arrived or (lambda job, body, seconds: None))

    def _run(
        self,
        jobs: Iterable[Job],
        workers: int,
        call: Caller,
        meter: Meter | None,
        arrived: Callable[[Job, str, float], None],
    ) -> Generator[list[Described], None, None]:
        results: queue.Queue[Described | BaseException | None] = queue.Queue(workers)
        unread = threading.Event()  # nobody reads the results any more
        spent = threading.Event()  # nothing more may be asked
        ahead: Ahead[Job, tuple[Job, dict[str, Any]]] = Ahead(
            jobs,
            lambda job: (job, self.body(job.picture(), job.class_name)),
            threads=min(_PREPARERS, workers),
            most=workers,
            stop=call.stop,
            name="caption-crop",
        )

        def give(result: Described | BaseException | None) -> None:
            while not unread.is_set():
                try:
                    return results.put(result, timeout=0.5)
                except queue.Full:
                    continue

        def work() -> None:
            try:
                while not spent.is_set() and (ready := ahead.take()) is not None:
                    if meter is not None and not meter.reserve():
                        spent.set()
                        break
                    came = self._one(call, *ready, arrived)
                    if came is None:
                        break
                    if meter is not None:
                        meter.came(came.outcome.usage)
                    give(came)
            except BaseException as error:  # whatever it is, the thread that waits must hear of it
                call.stop.set()
                give(error)
            finally:
                call.leave()
                give(None)  # this worker is done

        # daemons: an interrupted program ends without waiting for a request's timeout
        threads = [threading.Thread(target=work, name=f"caption-{n}", daemon=True) for n in range(workers)]
        fatal: BaseException | None = None
        working = workers
        try:
            for thread in threads:
                thread.start()
            while working:
                group: list[Described] = []
                for result in _those_there(results):
                    if result is None:
                        working -= 1
                    elif isinstance(result, BaseException):
                        fatal = fatal or result
                    else:
                        group.append(result)
                if group:
                    yield group
        finally:
            unread.set()
            ahead.close()
        ahead.close(wait=5.0)
        if fatal is not None:
            raise fatal

    def _one(
        self, call: Caller, job: Job, body: dict[str, Any], arrived: Callable[[Job, str, float], None]
    ) -> Described | None:
        """What came for one garment; None where everything stopped meanwhile. Raises what concerns every garment."""
        started = time.monotonic()
        answer = call(body)
        if answer is None:
            return None
        seconds = round(time.monotonic() - started, 3)
        if isinstance(answer, Answer):
            failed = not isinstance(answer.body, dict) or isinstance(answer.body.get("error"), dict)
            kept = essence(answer.body, call.key)
            arrived(job, kept, seconds)
            self._count(failed, "the server answers something other than captions" if failed else "")
            return Described(job, self.read_answer(kept, job.class_name, seconds=seconds), arrived=True)
        self._count(answer.state == "failed", answer.error or "")
        return Described(job, replace(answer, seconds=seconds))

    def _count(self, failed: bool, reason: str) -> None:
        """Give up on a server that fails everything: each failure has cost all its retries already."""
        with self._lock:
            self._failures_in_a_row = self._failures_in_a_row + 1 if failed else 0
            many = self._failures_in_a_row >= max(24, 3 * self.config.concurrency)
        if many:
            raise CaptionError(
                f"{self._failures_in_a_row} requests in a row failed, the last one: {reason}",
                retryable=True,
                hint="what was described is kept; go on later with `caption --retry failed`",
            )


def _those_there(results: queue.Queue[Described | BaseException | None]) -> Iterator[Described | BaseException | None]:
    """What is in the queue now; waits a moment for the first. With a timeout, Ctrl-C is heard on Windows too."""
    try:
        yield results.get(timeout=0.5)
        for _ in range(_GROUP):
            yield results.get_nowait()
    except queue.Empty:
        return


def _state(folder: Path) -> Path:
    """The state of a catalogue's batches. Raises :class:`CatalogueError` for a link."""
    return Folder(folder.parent, "catalogue", CatalogueError).path(f"{folder.name}/{STATE}")
