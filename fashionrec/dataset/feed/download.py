"""Download many photos from many servers: politely, safely, and each only once.

Each step is one request: :mod:`host_queue` schedules it, :mod:`safe_http` sends it,
:mod:`photo_cache` stores the result. Each redirect is a step of its own, so it passes the same
address checks, robots.txt and limits.

robots.txt follows RFC 9309: a server without one (4xx) allows everything; a server that fails to
return it (5xx, 429, no connection) allows nothing. ``Crawl-delay`` is respected up to 30 seconds.

This module needs urllib3 and protego and is imported by name at call time
(:func:`fashionrec.common.extras.need`).
"""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from protego import Protego

from fashionrec.common.backoff import backoff
from fashionrec.common.text import plural
from fashionrec.dataset.feed.addresses import AddressPolicy, FetchError, Target, parse_target, shown
from fashionrec.dataset.feed.host_queue import HostQueue, Job, Origin
from fashionrec.dataset.feed.photo_cache import Fetched, PhotoCache, image_suffix, open_cache
from fashionrec.dataset.feed.safe_http import Answer, Client
from fashionrec.errors import DataError, ImageError
from fashionrec.photos.images import read_photo

if TYPE_CHECKING:
    from fashionrec.config import FeedConfig, ImagesConfig

_ROBOTS_BYTES = 512 << 10  # RFC 9309 requires at least 500 KiB
_MAX_BACKOFF = 60.0
_UNREACHABLE = frozenset({"dns", "unreachable", "timeout", "too-slow", "tls"})
_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]*"')
_DATE = re.compile(r"[A-Za-z0-9,: +-]{10,40}")


@dataclass(frozen=True)
class Failed:
    """A photo that could not be fetched.

    ``reason`` is a short stable word, ``message`` one line, ``attempts`` the number of requests
    sent.

    Reasons: ``bad-url``, ``refused-address``, ``robots``, ``dns``, ``unreachable``, ``timeout``,
    ``too-slow``, ``reset``, ``tls``, ``bad-response``, ``bad-encoding``, ``http-404`` and other
    statuses, ``too-many-redirects``, ``too-large``, ``not-an-image``, ``host-down``, and those of
    :func:`fashionrec.photos.images.read_photo`.
    """

    url: str
    reason: str
    message: str
    attempts: int


def fetch_images(
    urls: Iterable[str],
    folder: Path,
    settings: FeedConfig,
    limits: ImagesConfig,
    progress: Callable[[int, int], None] | None = None,
    *,
    refresh: bool = False,
    door: AddressPolicy | None = None,
) -> dict[str, Fetched | Failed]:
    """Fetch photos into ``folder``; return the file or the failure per given URL.

    Photos that an earlier run fetched into the same folder are reused. With ``refresh`` they are
    requested again by ETag and date, and downloaded only if they have changed. Duplicate URLs are
    fetched once.

    Args:
        progress: Called with the number of photos done and the total.
        door: The servers that may be reached; by default as ``feed.allow_private`` says.

    Raises:
        Busy: Another process uses the folder.
        DataError: The folder is not writable.
    """
    normalized: dict[str, str] = {}
    targets: dict[str, Target] = {}
    results: dict[str, Fetched | Failed] = {}
    for url in dict.fromkeys(urls):
        try:
            target = parse_target(url)
        except FetchError as error:
            results[url] = Failed(shown(url), error.reason, str(error), 0)
        else:
            normalized[url] = target.url
            targets[target.url] = target
    client = Client(
        door or AddressPolicy(allow_private=settings.allow_private),
        user_agent=settings.user_agent,
        timeout=settings.timeout,
        idle=settings.connections,
    )
    try:
        with open_cache(folder) as cache:
            fetched = _Download(cache, client, settings, limits).run(targets, refresh, progress)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error}") from None
    return results | {url: fetched[name] for url, name in normalized.items()}


class _Download:
    """One call of :func:`fetch_images`.

    State changes under the lock ``turn``; requests run outside it.
    """

    def __init__(self, cache: PhotoCache, client: Client, settings: FeedConfig, limits: ImagesConfig) -> None:
        self._cache, self._client, self._settings, self._limits = cache, client, settings, limits
        self._max_bytes = min(settings.max_bytes, limits.max_bytes)
        self._robot = re.split(r"[/\s]", settings.user_agent.strip())[0]
        self._queue = HostQueue(per_host=settings.per_host, robots=settings.robots, robot=self._robot)
        self._turn = self._queue.turn
        self._progressed = threading.Condition(self._turn)
        self._decoding = threading.Lock()  # a photo of images.max_pixels takes a gigabyte: one at a time
        self._parts = itertools.count()
        self._results: dict[str, Fetched | Failed] = {}
        self._pending = 0
        self._failure: BaseException | None = None

    def run(
        self, targets: dict[str, Target], refresh: bool, progress: Callable[[int, int], None] | None
    ) -> dict[str, Fetched | Failed]:
        report = progress or (lambda done, total: None)
        for url, target in targets.items():
            known = self._cache.known(url)
            if known is not None and not refresh:
                self._results[url] = known
                report(len(self._results), len(targets))
            else:
                self._pending += 1
                with self._turn:
                    self._queue.push(Job(target, target, known))
        count, done = min(self._settings.connections, self._pending), len(self._results)
        workers: list[threading.Thread] = []
        try:
            for n in range(count):
                worker = threading.Thread(target=self._work, name=f"fetch-{n}", daemon=True)
                worker.start()
                workers.append(worker)
            self._watch(len(targets), report, done)
        finally:
            with self._turn:
                self._queue.close()
            self._client.close()
            for worker in workers:
                worker.join(2.0)  # a worker that is still connecting finds the queue closed and stores nothing
        if self._failure is not None:
            raise self._failure
        return self._results

    def _watch(self, total: int, report: Callable[[int, int], None], reported: int) -> None:
        """Report progress until all photos are done; ``reported`` were reported before."""
        while True:
            with self._turn:
                finished = not self._pending or self._failure is not None
                if not finished and len(self._results) == reported:
                    self._progressed.wait(0.5)
                done = len(self._results)
            if done != reported:
                report(done, total)
                reported = done
            if finished:
                return

    def _work(self) -> None:
        while (taken := self._queue.take()) is not None:
            job, origin = taken
            try:
                try:
                    step = self._request(job, origin)
                except FetchError as error:
                    with self._turn:
                        self._handle_failure(job, origin, error)
                else:
                    with self._turn:
                        origin.count_loss(False)
                        if isinstance(step, Target):
                            job.target, job.hops = step, job.hops + 1
                            self._queue.push(job)
                        elif isinstance(step, Fetched):
                            self._finish(job, step)
            except BaseException as error:  # not a network error: a full disk, or a bug
                with self._turn:
                    self._failure = self._failure or error
                    self._queue.close()
                    self._progressed.notify()
            finally:
                with self._turn:
                    self._queue.release(origin)

    def _request(self, job: Job, origin: Origin) -> Target | Fetched | None:
        """Send one request; return a redirect's target or the photo, None after a robots.txt."""
        headers: dict[str, str] = {}
        if job.rules_for is None:
            origin.permit(job, self._robot)
            headers = _conditions(job)
        if job.hops == 0:
            job.attempts, job.spent = job.attempts + 1, 0.0
        part = self._cache.part(next(self._parts))
        began = time.monotonic()
        try:
            with self._client.get(job.target, headers, self._settings.total_timeout - job.spent) as answer:
                if answer.status in (301, 302, 303, 307, 308) and answer.headers.get("Location"):
                    if job.hops >= self._settings.redirects:
                        raise FetchError("too-many-redirects", f"more than {self._settings.redirects} redirects")
                    return job.target.join(answer.headers["Location"])
                if answer.status == 304 and headers and job.known is not None:
                    return replace(job.known, how="unchanged")
                if answer.status == 200 and job.rules_for is not None:
                    job.rules_for.rules = Protego.parse(_robots_text(answer))
                    return None
                if answer.status == 200:
                    sha256, size, suffix = self._receive(answer, part)
            if answer.status != 200:
                raise _status_error(answer)
            return self._store(job, answer, part, sha256, size, suffix)
        finally:
            job.spent += time.monotonic() - began
            part.unlink(missing_ok=True)

    def _receive(self, answer: Answer, part: Path) -> tuple[str, int, str]:
        """Write a photo's body to a file, within the limits; return sha256, bytes and suffix."""
        announced = answer.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise FetchError("too-large", f"it has {plural(int(announced), 'byte')}, more than {self._max_bytes:,}")
        digest, size, head = hashlib.sha256(), 0, b""
        with part.open("xb") as file:
            while piece := answer.read():
                size += len(piece)
                if size > self._max_bytes:
                    raise FetchError("too-large", f"it has more than {plural(self._max_bytes, 'byte')}")
                if len(head) < 64:
                    head += piece[:64]
                    if len(head) >= 64:
                        self._suffix(head)
                digest.update(piece)
                file.write(piece)
        return digest.hexdigest(), size, self._suffix(head)

    def _suffix(self, head: bytes) -> str:
        suffix = image_suffix(head)
        if suffix is None:
            raise FetchError("not-an-image", "the response is not a JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF image")
        return suffix

    def _store(self, job: Job, answer: Answer, part: Path, sha256: str, size: int, suffix: str) -> Fetched:
        try:
            with self._decoding:
                read_photo(part.read_bytes(), self._limits)
        except ImageError as error:
            raise FetchError(error.reason, str(error)) from None
        etag, modified = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        with self._turn:
            if not self._queue.open:
                raise FetchError("stopped", "the download was stopped")
            return self._cache.keep(
                part,
                suffix,
                job.first.url,
                sha256=sha256,
                size=size,
                final_url=job.target.url,
                etag=etag if _ETAG.fullmatch(etag) else None,
                last_modified=modified if _DATE.fullmatch(modified) else None,
            )

    def _handle_failure(self, job: Job, origin: Origin, error: FetchError) -> None:
        """Retry a failed request after a pause, or give up."""
        wait = backoff(job.attempts - 1, self._settings.backoff, _MAX_BACKOFF)
        if error.after is not None:
            wait = error.after
            if wait > self._settings.total_timeout:  # too long to wait: give up on this server
                origin.closed = FetchError(error.reason, str(error))
            else:
                origin.not_before = max(origin.not_before, time.monotonic() + wait)
        if error.retry and origin.closed is None and job.attempts <= self._settings.retries:
            job.target, job.hops = job.first, 0
            self._queue.push(job, time.monotonic() + wait)
            return
        if job.rules_for is not None:
            job.rules_for.rules = _rules_after_failure(job, error)
            return
        if job.attempts:
            origin.count_loss(error.reason in _UNREACHABLE)
        self._finish(job, Failed(shown(job.first.url), error.reason, str(error), job.attempts))

    def _finish(self, job: Job, result: Fetched | Failed) -> None:
        self._results[job.first.url] = result
        self._pending -= 1
        self._progressed.notify()


def _conditions(job: Job) -> dict[str, str]:
    """Return the headers of a conditional request, empty unless this server returned the photo."""
    if job.known is None or job.known.final_url != job.target.url:
        return {}
    conditions = {"If-None-Match": job.known.etag, "If-Modified-Since": job.known.last_modified}
    return {name: value for name, value in conditions.items() if value}


def _status_error(answer: Answer) -> FetchError:
    status = answer.status
    retry = status in (408, 425, 429) or (500 <= status < 600 and status not in (501, 505))
    after = _seconds(answer.headers.get("Retry-After", "")) if retry else None
    request = f" and asked to wait {after:.0f} s" if after else ""
    return FetchError(f"http-{status}", f"the server answered {status}{request}", retry=retry, after=after)


def _seconds(text: str) -> float | None:
    """Return the seconds of a Retry-After header (a number or a date), None if it is invalid."""
    if re.fullmatch(r"\d{1,9}", text.strip()):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _robots_text(answer: Answer) -> str:
    body = b""
    while len(body) < _ROBOTS_BYTES and (piece := answer.read()):
        body += piece
    return body[:_ROBOTS_BYTES].decode("utf-8-sig", "replace")


def _rules_after_failure(job: Job, error: FetchError) -> Protego | FetchError:
    """Return the rules that apply if a robots.txt cannot be fetched (RFC 9309, 2.3.1)."""
    if error.reason == "too-many-redirects" or (error.reason.startswith("http-4") and error.reason != "http-429"):
        return Protego.parse("")
    reason = "robots" if error.reason.startswith("http-") else error.reason
    return FetchError(reason, f"cannot fetch robots.txt of {job.first.host}: {error}")
