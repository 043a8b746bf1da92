"""OpenAI's Batch API: garments into files, files into batches, answers back, whatever happens in between.

Each step is written down before and after the server is asked (:mod:`fashionrec.captioner.batch_state`). Where a process ended
between the two, the next one looks whether the server was asked: a file is found by its name, a batch by the token in its
metadata. So nothing is submitted twice, and only what is missing or expired is submitted again.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.batch_api import ENDPOINT, BatchApi
from fashionrec.captioner.batch_state import OPEN, BatchState, Part
from fashionrec.captioner.client import Caller, host, is_filter, is_retryable, server_url
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.wire import essence, redact
from fashionrec.errors import CaptionError
from fashionrec.files import fsync_file

if TYPE_CHECKING:
    from fashionrec.captioner.cache import Place
    from fashionrec.config import CaptionerConfig

STATE = "state.sqlite"

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_NO_ROOM = frozenset({"token_limit_exceeded", "rate_limit_exceeded"})  # the account has too much waiting: later
_EXPIRED = "batch_expired"
_CHUNK = 256  # answers recorded together


@dataclass(frozen=True)
class Collected:
    """What a batch says of one garment: an answer (``body`` as kept) or an outcome."""

    place: Place
    model: str
    body: str | None
    outcome: Outcome | None


@dataclass
class Progress:
    """What a call of :meth:`Batches.advance` did."""

    submitted: int = 0
    collected: int = 0
    resubmitted: int = 0
    duplicates: int = 0
    errors: list[str] = field(default_factory=list)


class Batches:
    """The batches of one folder. Used by one process at a time."""

    def __init__(
        self,
        folder: Path,
        config: CaptionerConfig,
        caller: Caller,
        *,
        body: Callable[[Place], dict[str, Any] | None],
        record: Callable[[Sequence[Collected]], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``body`` makes a garment's request (None: it is gone); ``record`` keeps what came, for good when it returns."""
        folder.mkdir(parents=True, exist_ok=True)
        self.state = BatchState(folder / STATE)
        self._folder, self._config, self._caller = folder, config, caller
        self._body, self._record, self._sleep = body, record, sleep
        self._api = BatchApi(caller)
        self._server = host(server_url(config))

    def close(self) -> None:
        self.state.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, places: Iterable[Place]) -> int:
        """Garments to be asked; returns how many are new. What is waiting or under way already is not added."""
        return self.state.add(places)

    def advance(self) -> Progress:
        """Carry every part as far as it goes now, and submit what waits. Returns what was done; waits for no batch.

        Raises :class:`CaptionError` where the server cannot be asked. What was done until then is kept.
        """
        done = Progress()
        self._sweep()
        for part in self.state.parts():
            if part.server != self._server:
                raise CaptionError(
                    f"a batch of this catalogue is at {part.server}, not at {self._server}",
                    hint="set captioner.base_url as it was, and collect it with --batch --resume",
                )
            self._carry(part, done)
        room = not any("uploaded" in part.state for part in self.state.parts())
        while room and (part_no := self._write()) is not None:
            part = self._carry(self.state.part(part_no), done)
            room = part.state != "uploaded"
        return done

    def open_parts(self) -> list[Part]:
        """The parts that are not done with."""
        return self.state.parts(OPEN)

    # writing

    def _write(self) -> int | None:
        """One file of waiting garments, as many as it may hold; None where none wait. Returns its part's number."""
        token = uuid.uuid4().hex
        path = self._path(token)
        temporary = path.with_suffix(".tmp")
        ids: list[str] = []
        gone: list[str] = []
        huge: list[tuple[str, Place]] = []
        size = 0
        with temporary.open("wb") as file:
            for name, place in self.state.waiting():
                body = self._body(place)
                if body is None:
                    gone.append(name)
                    continue
                request = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
                line = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                if len(line) > self._config.batch.bytes:
                    huge.append((name, place))
                    continue
                if len(ids) == self._config.batch.requests or size + len(line) > self._config.batch.bytes:
                    break
                file.write(line)
                ids.append(name)
                size += len(line)
            file.flush()
            os.fsync(file.fileno())
        self.state.drop(gone)
        self._fail(huge, self._config.model, "the request is larger than a batch's file may be", retryable=False)
        if not ids:
            temporary.unlink()
            return None
        temporary.replace(path)
        fsync_file(self._folder)
        return self.state.write_part(token, self._server, self._config.model, ids, size)

    # one part, step by step

    def _carry(self, part: Part, done: Progress) -> Part:
        """Take a part as far as it goes without waiting."""
        if part.state in ("written", "uploading"):
            path = self._path(part.token)
            if not path.is_file() or path.stat().st_size != part.bytes:
                known = self._api.find_file(path.name, part.bytes) if part.state == "uploading" else None
                if known is None:
                    self.state.release(part.part)
                    return self.state.part(part.part)
            part = self._upload(part, path)
        if part.state in ("uploaded", "creating"):
            part = self._create(part)
            self._path(part.token).unlink(missing_ok=True)
            done.submitted += part.requests
        if part.state == "submitted":
            part = self._look(part)
            if part.state == "uploaded":
                done.errors.append(f"a batch waits for room at {part.server}: {part.error}")
        if part.state == "ended":
            self._collect(part, done)
            part = self.state.part(part.part)
        return part

    def _upload(self, part: Part, path: Path) -> Part:
        known = self._api.find_file(path.name, part.bytes) if part.state == "uploading" else None
        self.state.change(part.part, "uploading")
        return self.state.change(part.part, "uploaded", file_id=known or self._api.upload(path))

    def _create(self, part: Part) -> Part:
        """Submit a part once, however often that has to be tried."""
        unclear = part.state == "creating"
        error: CaptionError | None = None
        for attempt in range(1 + self._config.retries):
            if unclear:
                found = self._api.find_batch(part.token)
                if found is None:  # it may not be listed yet
                    self._sleep(min(self._config.batch.poll, 5.0 * (attempt + 1)))
                    found = self._api.find_batch(part.token)
                if found is not None:
                    return self.state.change(part.part, "submitted", batch_id=found)
            part = self.state.change(part.part, "creating")
            try:
                made = self._api.create(str(part.file_id), part.token)
            except CaptionError as caught:
                if not caught.retryable:
                    self.state.change(part.part, "uploaded")
                    raise
                unclear, error = True, caught
                continue
            return self.state.change(part.part, "submitted", batch_id=made)
        assert error is not None
        raise error

    def _look(self, part: Part) -> Part:
        """Ask how a batch is going."""
        try:
            found = self._api.look(str(part.batch_id))
        except CaptionError as error:
            if error.state != "gone":
                raise
            return self.state.change(part.part, "ended", status="gone", error="the server knows the batch no more")
        counts = found.request_counts
        values: dict[str, Any] = {
            "status": found.status,
            "completed": counts.completed if counts else None,
            "output_file_id": found.output_file_id,
            "error_file_id": found.error_file_id,
        }
        errors = (found.errors.data if found.errors else None) or []
        if errors:
            values["error"] = redact("; ".join(f"{one.code}: {one.message}" for one in errors[:3]), self._caller.key)
        if found.status == "failed" and {one.code for one in errors} & _NO_ROOM:
            # nothing was done: the same file is submitted again, by another token, when there is room
            return self._again(part, str(values.get("error")))
        return self.state.change(part.part, "ended" if found.status in _ENDED else "submitted", **values)

    def _again(self, part: Part, error: str) -> Part:
        return self.state.change(part.part, "uploaded", token=uuid.uuid4().hex, batch_id=None, error=error)

    # collecting

    def _collect(self, part: Part, done: Progress) -> None:
        """Record a batch's answers; what has none waits again, or has failed."""
        lines = unreadable = 0
        for file_id in (part.output_file_id, part.error_file_id):
            if file_id is None:
                continue
            path = self._folder / f"{part.token}.{file_id}.answers"
            try:
                self._api.download(file_id, path)
            except CaptionError as error:
                if error.state != "gone":
                    raise
                self._fail(self.state.sent_in(part.part), part.model, "the batch's answers are gone")
                continue
            with path.open("rb") as file:
                for chunk in _chunks(file, _CHUNK):
                    found = [_line(line) for line in chunk]
                    if file_id == part.output_file_id:
                        lines += len(found)
                        unreadable += sum(one is None for one in found)
                    self._take([one for one in found if one is not None], part, done)
            path.unlink()
        if part.status == "completed" and part.completed is not None and lines < part.completed:
            raise CaptionError(
                f"batch {part.batch_id} has {part.completed} answers, and its file holds {lines}",
                retryable=True,
                hint="nothing is submitted again before the whole file was there: try again later",
            )
        if part.error:
            done.errors.append(f"batch {part.batch_id}: {part.error}")
        missing = self.state.sent_in(part.part)
        if part.status in ("cancelled", "gone"):
            self._fail(missing, part.model, part.error or f"the batch was {part.status}")
        elif unreadable:
            self._fail(missing, part.model, "its answer cannot be read")
        else:
            most = self._config.batch.attempts
            given_up = self.state.sent_in(part.part, at_least=most)
            self._fail(given_up, part.model, part.error or f"no answer in {most} batches")
        done.resubmitted += self.state.collected(part.part, self._config.batch.attempts)
        self._api.remove(str(part.file_id))

    def _take(self, lines: Sequence[dict[str, Any]], part: Part, done: Progress) -> None:
        known = self.state.find([str(line["custom_id"]) for line in lines])
        taken: dict[str, Collected] = {}
        for line in lines:
            name = str(line["custom_id"])
            place, state = known.get(name, (None, ""))
            if place is None:
                continue
            if state == "answered" or name in taken:
                done.duplicates += 1
                continue
            collected = self._read(line, place, part)
            if collected is not None:
                taken[name] = collected
        if taken:
            self._record(list(taken.values()))
            self.state.answered(taken)
            done.collected += len(taken)

    def _read(self, line: dict[str, Any], place: Place, part: Part) -> Collected | None:
        """What a line of the output says; None for a garment that was not asked: it expired."""
        key, model = self._caller.key, part.model
        response, error = line.get("response"), line.get("error")
        if isinstance(response, dict):
            body, status = response.get("body"), response.get("status_code")
            if status == 200:
                return Collected(place, model, essence(body, key), None)
            told = body.get("error") if isinstance(body, dict) else None
            told = told if isinstance(told, dict) else {}
            code, status = str(told.get("code") or ""), status if isinstance(status, int) else 0
            reason = redact(f"{status}: {told.get('message')}", key)
            if is_filter(status, code):
                return Collected(place, model, None, Outcome("filtered", "openai", model, error=reason))
            failed = Outcome("failed", "openai", model, error=reason, retryable=is_retryable(status))
            return Collected(place, model, None, failed)
        told = error if isinstance(error, dict) else {}
        if told.get("code") == _EXPIRED:
            return None
        reason = redact(f"{told.get('code')}: {told.get('message')}", key)
        return Collected(place, model, None, Outcome("failed", "openai", model, error=reason, retryable=True))

    def _fail(self, requests: Sequence[tuple[str, Place]], model: str, reason: str, *, retryable: bool = True) -> None:
        """Record garments whose answer will not come: whether they are paid for again is for a person to say (--retry)."""
        for start in range(0, len(requests), _CHUNK):
            part = requests[start : start + _CHUNK]
            failed = Outcome("failed", "openai", model, error=redact(reason, self._caller.key), retryable=retryable)
            self._record([Collected(place, model, None, failed) for _, place in part])
            self.state.answered(name for name, _ in part)

    def _sweep(self) -> None:
        """Remove files that a killed process left."""
        known = {self._path(part.token).name for part in self.state.parts()}
        for path in self._folder.iterdir():
            if path.suffix in (".jsonl", ".tmp", ".answers") and path.name not in known:
                path.unlink(missing_ok=True)

    def _path(self, token: str) -> Path:
        return self._folder / f"fashionrec-{token}.jsonl"


def _line(line: bytes) -> dict[str, Any] | None:
    """A line of a batch's output; None where it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("custom_id"), str) else None


def _chunks(lines: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    for line in lines:
        if line.strip():
            chunk.append(line)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
