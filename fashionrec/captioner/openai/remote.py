"""Captions by OpenAI, or by any server that speaks its API.

::

    jobs ─▶ a few threads make their pictures ready, a bounded number ahead
         ─▶ concurrency threads, one request each (client.py sends it, and again where that can help)
         ─▶ groups of what came, as it comes; where the reader is slow, the threads wait for it
    a wrong key, model or setting stops everything with one CaptionError
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.openai.ahead import Ahead
from fashionrec.captioner.openai.client import Answer, Caller, find_key
from fashionrec.captioner.openai.limiter import RateLimiter
from fashionrec.captioner.openai.wire import RESERVED, essence, read_answer, request_body, usage
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.vocabulary import Vocabulary, vocabulary_of
from fashionrec.errors import CaptionError, ConfigError
from fashionrec.photos.images import encode_jpeg

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.captioner.cost import Meter
    from fashionrec.captioner.spool import Arrived
    from fashionrec.config import CaptionerConfig, CaptionModelConfig

_GROUP = 256  # answers given out together at most
_PREPARERS = 2  # threads that cut and encode; the work is Pillow's, which lets go of the interpreter


@dataclass(frozen=True)
class Job:
    """One garment to describe. ``key`` is whatever the asker knows it by; ``picture`` is called when its turn comes."""

    key: Hashable
    class_name: str | None
    picture: Callable[[], Image.Image]


@dataclass(frozen=True)
class Came:
    """What came of a job: an answer (``body``, JSON as kept, to be read by :meth:`OpenAICaptioner.read`), or an outcome."""

    job: Job
    body: str | None
    outcome: Outcome | None
    seconds: float
    usage: dict[str, int]


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
        self.vocabulary = vocabulary or vocabulary_of(config)
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

    def read(self, came: Came) -> Outcome:
        """What became of a job, in the end."""
        if came.body is None:
            assert came.outcome is not None
            return came.outcome
        return self.read_body(came.body, came.job.class_name, came.seconds)

    def read_body(
        self, body: str, class_name: str | None, seconds: float = 0.0, *, model: str | None = None
    ) -> Outcome:
        """The outcome that an answer as kept amounts to; ``model`` gave it, where it is not the one asked now."""
        model = model or self.config.model
        outcome = read_answer(body, model=model, class_name=class_name, vocabulary=self.vocabulary)
        return replace(outcome, seconds=seconds)

    def read_arrived(self, arrived: Arrived) -> Outcome:
        """The outcome that an answer amounts to which another process had written down."""
        return self.read_body(arrived.body, arrived.place.class_name, arrived.seconds, model=arrived.model)

    def describe(
        self,
        crops: Sequence[Image.Image],
        class_names: Sequence[str | None],
        progress: Callable[[int, int], None] | None = None,
    ) -> Generator[tuple[int, Outcome], None, None]:
        """Each crop's position and outcome, in the order in which they come. ``progress`` gets (done, all).

        Raises what :meth:`stream` raises. Closing the iterator stops it, as there.
        """
        if len(crops) != len(class_names):
            raise ValueError(f"{len(crops)} crops, {len(class_names)} classes")
        jobs = [
            Job(n, class_name, lambda crop=crop: crop)  # type: ignore[misc]
            for n, (crop, class_name) in enumerate(zip(crops, class_names, strict=True))
        ]
        groups = self.stream(jobs, most=len(jobs))

        def positions() -> Generator[tuple[int, Outcome], None, None]:
            done = 0
            with closing(groups):
                for group in groups:
                    for came in group:
                        done += 1
                        if progress:
                            progress(done, len(jobs))
                        assert isinstance(came.job.key, int)
                        yield came.job.key, self.read(came)

        return positions()

    def stream(
        self,
        jobs: Iterable[Job],
        *,
        most: int | None = None,
        tokens: float = 0.0,
        meter: Meter | None = None,
        arrived: Callable[[Job, str, float], None] | None = None,
    ) -> Generator[list[Came], None, None]:
        """What comes of the jobs, in groups, as it comes; the next group is asked for when this one is done with.

        At most ``concurrency`` answers wait to be given out. ``meter`` counts what is spent; where no more may be, it all ends
        when what is under way has come. ``arrived`` is told of each answer (body as kept, seconds) by the thread that asked.
        ``tokens`` are those that one request is expected to use, ``most`` how many jobs there are at most.

        Raises :class:`CaptionError` at once where no key is there, and as soon as the server says that the key, the model
        or a setting is wrong, or does not answer many requests in a row; what had come by then is yielded first. Closing
        the iterator stops it: nothing more is sent, and nothing waits for what is under way.
        """
        workers = min(self.config.concurrency, self.config.concurrency if most is None else most)
        call = self.caller(users=max(1, workers), tokens=tokens)
        if not workers:
            call.leave()
            return _nothing()
        return self._run(jobs, workers, call, meter, arrived or (lambda job, body, seconds: None))

    def _run(
        self,
        jobs: Iterable[Job],
        workers: int,
        call: Caller,
        meter: Meter | None,
        arrived: Callable[[Job, str, float], None],
    ) -> Generator[list[Came], None, None]:
        results: queue.Queue[Came | BaseException | None] = queue.Queue(workers)
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

        def give(result: Came | BaseException | None) -> None:
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
                        meter.came(came.usage)
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
                group: list[Came] = []
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
    ) -> Came | None:
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
            return Came(job, kept, None, seconds, usage(answer.body))
        self._count(answer.state == "failed", answer.error or "")
        return Came(job, None, replace(answer, seconds=seconds), seconds, answer.usage)

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


def _nothing() -> Generator[list[Came], None, None]:
    yield from ()


def _those_there(results: queue.Queue[Came | BaseException | None]) -> Iterator[Came | BaseException | None]:
    """What is in the queue now; waits a moment for the first. With a timeout, Ctrl-C is heard on Windows too."""
    try:
        yield results.get(timeout=0.5)
        for _ in range(_GROUP):
            yield results.get_nowait()
    except queue.Empty:
        return
