"""OpenAI's Batch API: garments into files, files into batches, answers back, whatever happens in between.

Each step is written down before and after the server is asked (:mod:`batch_state`). Where a process ended
between the two, the next one looks whether the server was asked: a file is found by its name, a batch by the token in its
metadata. So nothing is submitted twice, and only what is missing or expired is submitted again.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fashionrec.captioner.base import BatchProgress
from fashionrec.captioner.ledger import Ledger, PlannedPart
from fashionrec.captioner.openai.batch_answers import Collected, answer_lines, read_line
from fashionrec.captioner.openai.batch_api import ENDPOINT, BatchApi, checked_id, token_of
from fashionrec.captioner.openai.batch_state import OPEN, UNSENT, BatchState, Part
from fashionrec.captioner.openai.client import Caller, address, host, server_url
from fashionrec.captioner.openai.wire import redact
from fashionrec.captioner.outcome import Outcome
from fashionrec.common.batches import batched
from fashionrec.common.folder import Folder
from fashionrec.common.system import sync_file
from fashionrec.errors import CaptionError, CatalogueError, Refused

if TYPE_CHECKING:
    from fashionrec.captioner.cache import Place
    from fashionrec.config import CaptionerConfig

STATE = "state.sqlite"

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_NO_ROOM = frozenset({"token_limit_exceeded", "rate_limit_exceeded"})  # the account has too much waiting: later
_CHUNK = 256  # answers recorded together
#: The files of ours in the folder, beside its state: requests, one being written, and answers.
_OURS = re.compile(r"fashionrec-[0-9a-f]{32}\.(jsonl|tmp)|[0-9a-f]{32}\.[A-Za-z0-9_.:-]{1,200}\.answers")


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
        ledger: Ledger | None = None,
        most: int | None = None,
        api: BatchApi | None = None,
    ) -> None:
        """``body`` makes a garment's request (None: it is gone); ``record`` keeps what came, for good when it returns.

        ``ledger`` knows what this user has planned: nothing else is sent. ``most`` requests are sent in all; None: any number.
        Raises :class:`CatalogueError` for a link in the folder, or a state that is damaged.
        """
        Folder(folder.parent, "catalogue", CatalogueError).make_folder(folder.name, exist_ok=True)
        self._files = Folder(folder, "batches", CatalogueError)
        self._files.check()
        self.state = BatchState(folder / STATE)
        self._ledger, self._left = ledger or Ledger(), most
        self._place = folder.resolve()
        self._planned = self._ledger.planned(self._place)
        self._sent_here: set[int] = set()
        self._config, self._caller = config, caller
        self._body, self._record, self._sleep = body, record, sleep
        self._api = api or BatchApi(caller)
        self._server = host(server_url(config))
        self._address = address(server_url(config))

    def close(self) -> None:
        self.state.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, places: Iterable[Place]) -> int:
        """Plan garments to be asked; returns how many are new. What is planned or under way already is not added."""
        new = set(self.state.add(places)) - self._planned
        if new:
            self._planned |= new
            self._ledger.plan(self._place, self._planned)
        return len(new)

    def planned_requests(self) -> int:
        """How many requests this user has planned that are not sent."""
        waiting = sum(name in self._planned for name, _ in self.state.waiting())
        return waiting + sum(part.requests for part in self.state.parts(UNSENT))

    def advance(self) -> BatchProgress:
        """Carry every part as far as it goes now, and submit what waits. Returns what was done; waits for no batch.

        Raises :class:`CaptionError` where the server cannot be asked; :class:`CatalogueError` (:class:`Refused` where answers
        were collected) for a part that this user has not planned as it is: nothing is sent then. What was done is kept.
        """
        done = BatchProgress()
        self._sweep()
        parts = [self._find_sent(part) for part in self._known_parts()]
        refused = [reason for part in parts if part.state in UNSENT and (reason := self._refusal(part))]
        for part in parts:
            if part.state not in UNSENT:
                self._carry(part, done)
        if refused:
            raise self._refused(refused, collected=any(part.state not in UNSENT for part in parts))
        for part in self.state.parts(UNSENT):
            if self._afford(part):
                self._carry(part, done)
            else:
                done.held += part.requests
        room = not any("uploaded" in part.state for part in self.state.parts())
        while room and (part_no := self.write_next()) is not None:
            part = self.state.part(part_no)
            if not self._afford(part):
                raise AssertionError("a part of more requests than may be sent")
            part = self._carry(part, done)
            room = part.state != "uploaded"
        for name, _ in self.state.waiting():
            done.unplanned += name not in self._planned
            done.held += name in self._planned and self._left == 0
        counts = self.state.counts()
        done.outstanding = counts["waiting"] + counts["sent"]
        done.completed = sum(part.completed or 0 for part in self.open_parts())
        return done

    def discard_unsent(self) -> int:
        """Give up the parts that may not be sent: their garments wait to be planned anew. Returns how many garments."""
        count = 0
        for part in [self._find_sent(part) for part in self._known_parts()]:
            if part.state in UNSENT and self._refusal(part):
                self._release(part)
                count += part.requests
        return count

    def open_parts(self) -> list[Part]:
        """The parts that are not done with."""
        return self.state.parts(OPEN)

    # what may be sent

    def _known_parts(self) -> list[Part]:
        """The open parts, all of them of the server that is asked."""
        parts = self.state.parts()
        for part in parts:
            if part.server != self._server:
                raise CaptionError(
                    f"a batch of this catalogue is at {ascii(part.server)[1:-1][:80]}, not at {self._server}",
                    hint="set captioner.base_url as it was, and collect it with --batch --resume",
                )
        return parts

    def _find_sent(self, part: Part) -> Part:
        """A part that a process may have submitted before it ended: submitted, where the server knows of it."""
        known = self._ledger.find(part.token)
        if part.state == "creating" or (part.state in UNSENT and known is not None and known.sent):
            batch_id = self._api.find_batch(part.token)
            if batch_id is not None:
                return self.state.change(part.part, "submitted", batch_id=batch_id)
        return part

    def _refusal(self, part: Part) -> str | None:
        """Why a part may not be sent; None where it is what this user has planned."""
        known = self._ledger.find(part.token)
        what = f"part {part.part} ({part.requests:,} requests, {ascii(part.model)[1:-1][:60]})"
        if known is None:
            return f"{what} has no record in {self._ledger.folder}: you did not plan it, or with an older fashionrec"
        if known.folder != str(self._place):
            return f"{what} was planned for {known.folder}"
        planned = (known.model, known.requests, known.bytes)
        if planned != (part.model, part.requests, part.bytes) or part.file_id not in (None, known.file_id):
            return f"{what} is not what was planned: {known.requests:,} requests of {known.model}"
        if known.server != self._address:
            return f"{what} was planned for {known.server}, not {self._address}"
        if known.model != self._config.model:
            return f"{what} was planned for another model than captioner.model, which is {self._config.model}"
        if part.file_id is None and self.part_file(part.token).exists() and not self._is_whole(known):
            return f"{what}: its file {_file(part.token)} is not the one that was planned"
        return None

    def _refused(self, reasons: Sequence[str], *, collected: bool) -> CatalogueError | Refused:
        kind = Refused if collected else CatalogueError
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return kind(
            f"{self._files.root}: nothing is sent: {reasons[0]}{more}",
            hint="--batch --discard-unsent plans its garments anew: nothing was paid for it",
        )

    def _is_whole(self, known: PlannedPart) -> bool:
        try:
            self._open_file(known).close()
        except CatalogueError:
            return False
        return True

    def _open_file(self, known: PlannedPart) -> IO[bytes]:
        """The file of requests of a part, the very one that was planned."""
        file = self._files.open(_file(known.token))
        try:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            if (digest.hexdigest(), file.tell()) == (known.sha256, known.bytes):
                file.seek(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        raise CatalogueError(f"{self._files.root}: {_file(known.token)} is not the file that was planned")

    def _afford(self, part: Part) -> bool:
        if self._left is None:
            return True
        if part.requests > self._left:
            return False
        self._left -= part.requests
        self._sent_here.add(part.part)
        return True

    def _release(self, part: Part) -> None:
        """Give up a part that the server was not asked for."""
        if part.part in self._sent_here and self._left is not None:
            self._left += part.requests
        self.state.release(part.part)
        self._ledger.forget(part.token)
        self._files.remove(_file(part.token))

    # writing

    def write_next(self) -> int | None:
        """One file of waiting garments, as many as it and the cost may hold; None where none wait. Returns its part's number."""
        most = self._config.batch.requests if self._left is None else min(self._config.batch.requests, self._left)
        token = uuid.uuid4().hex
        temporary = f"fashionrec-{token}.tmp"
        ids: list[str] = []
        gone: list[str] = []
        huge: list[tuple[str, Place]] = []
        size = 0
        digest = hashlib.sha256()
        with self._files.open(temporary, "xb") as file:
            for name, place in self.state.waiting():
                if len(ids) == most:
                    break
                if name not in self._planned:
                    continue
                body = self._body(place)
                if body is None:
                    gone.append(name)
                    continue
                request = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
                line = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                if len(line) > self._config.batch.bytes:
                    huge.append((name, place))
                    continue
                if size + len(line) > self._config.batch.bytes:
                    break
                file.write(line)
                digest.update(line)
                ids.append(name)
                size += len(line)
            sync_file(file)
        self.state.drop(gone)
        self._fail(huge, self._config.model, "the request is larger than a batch's file may be", retryable=False)
        if not ids:
            self._files.remove(temporary)
            return None
        model = self._config.model
        part = PlannedPart(token, digest.hexdigest(), size, len(ids), model, self._address, str(self._place))
        self._ledger.record(part)
        self._files.rename(temporary, _file(token))
        self._files.sync()
        return self.state.write_part(token, self._server, model, ids, size)

    # one part, step by step

    def _carry(self, part: Part, done: BatchProgress) -> Part:
        """Take a part as far as it goes without waiting. One that is not sent yet has been checked."""
        known = self._ledger.find(part.token)
        if part.state in UNSENT and known is None:
            raise AssertionError("a part that was not planned")
        if part.state in ("written", "uploading"):
            assert known is not None
            there = self.part_file(part.token).is_file()
            found = self._api.find_file(_file(part.token), part.bytes) if part.state == "uploading" else None
            if found is None and not there:
                self._release(part)
                return self.state.part(part.part)
            if found is None:
                self.state.change(part.part, "uploading")
                found = self._api.upload(_file(part.token), lambda: self._open_file(known), part.bytes)
            self._ledger.update(part.token, file_id=found)
            part = self.state.change(part.part, "uploaded", file_id=found)
        if part.state in ("uploaded", "creating"):
            part = self._create(part)
            self._files.remove(_file(part.token))
            done.submitted += part.requests
        if part.state == "ended" and known is None:
            part = replace(part, state="submitted")  # what the state says of it was not written by this user
        if part.state == "submitted":
            part = self._look(part, own=known is not None)
            if part.state == "uploaded":
                done.errors.append(f"a batch waits for room at {part.server}: {part.error}")
        if part.state == "ended":
            self._collect(part, done, own=known is not None)
            part = self.state.part(part.part)
        return part

    def _create(self, part: Part) -> Part:
        """Submit a part once, however often that has to be tried."""
        known = self._ledger.find(part.token)
        assert known is not None
        assert known.file_id is not None
        unclear = part.state == "creating" or known.sent
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
            self._ledger.update(part.token, sent=True)
            try:
                made = self._api.create(known.file_id, part.token)
            except CaptionError as caught:
                if not caught.retryable:
                    self.state.change(part.part, "uploaded")
                    self._ledger.update(part.token, sent=False)
                    raise
                unclear, error = True, caught
                continue
            return self.state.change(part.part, "submitted", batch_id=made)
        assert error is not None
        raise error

    def _look(self, part: Part, *, own: bool) -> Part:
        """Ask how a batch is going. One that is not known as this user's ``own`` must be the one of the part's token."""
        try:
            found = self._api.look(checked_id(part.batch_id))
        except CaptionError as error:
            if error.state != "gone":
                raise
            return self.state.change(part.part, "ended", status="gone", error="the server knows the batch no more")
        if not own and token_of(found) != part.token:
            raise CatalogueError(
                f"{self._files.root}: part {part.part} is not of the batch {checked_id(part.batch_id)}, whose answers"
                " are not taken",
                hint="move the folder away, or ask for a catalogue without it",
            )
        counts = getattr(found, "request_counts", None)
        completed = getattr(counts, "completed", None)
        status = getattr(found, "status", None)
        values: dict[str, Any] = {
            "status": status[:40] if isinstance(status, str) else "unknown",
            "completed": completed if type(completed) is int and 0 <= completed <= part.requests else None,
            "output_file_id": _file_id(found, "output_file_id"),
            "error_file_id": _file_id(found, "error_file_id"),
        }
        listed = getattr(getattr(found, "errors", None), "data", None)
        errors = [(str(getattr(one, "code", "")), getattr(one, "message", "")) for one in listed or ()][:100]
        if errors:
            told = "; ".join(f"{code}: {message}" for code, message in errors[:3])
            values["error"] = redact(told, self._caller.key)
        if status == "failed" and {code for code, _ in errors} & _NO_ROOM:
            # nothing was done: the same file is submitted again, by another token, when there is room
            return self._again(part, str(values.get("error")))
        return self.state.change(part.part, "ended" if status in _ENDED else "submitted", **values)

    def _again(self, part: Part, error: str) -> Part:
        token = uuid.uuid4().hex
        known = self._ledger.find(part.token)
        if known is not None:
            self._ledger.record(replace(known, token=token, sent=False))
            self._ledger.forget(part.token)
        if part.part in self._sent_here and self._left is not None:
            self._left += part.requests
        return self.state.change(part.part, "uploaded", token=token, batch_id=None, error=error)

    # collecting

    def _collect(self, part: Part, done: BatchProgress, *, own: bool) -> None:
        """Record a batch's answers; what has none waits again, or has failed."""
        lines = unreadable = 0
        for file_id in (part.output_file_id, part.error_file_id):
            if file_id is None:
                continue
            name = f"{part.token}.{checked_id(file_id)}.answers"
            try:
                self._api.download(file_id, lambda name=name: self._create_file(name), part.requests)  # type: ignore[misc]
            except CaptionError as error:
                if error.state != "gone":
                    raise
                self._fail(self.state.sent_in(part.part), part.model, "the batch's answers are gone")
                continue
            with self._files.open(name) as file:
                for found in batched(answer_lines(file), _CHUNK):
                    if file_id == part.output_file_id:
                        lines += len(found)
                        unreadable += sum(one is None for one in found)
                    self._take([one for one in found if one is not None], part, done)
            self._files.remove(name)
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
        if own and part.file_id is not None:
            self._api.remove(part.file_id)
        self._ledger.forget(part.token)
        self._keep_planned()

    def _create_file(self, name: str) -> IO[bytes]:
        self._files.remove(name)
        return self._files.open(name, "xb")

    def _keep_planned(self) -> None:
        """Forget the requests whose outcome is recorded."""
        left = {name for name, _, _ in self.state.unanswered()} & self._planned
        if left != self._planned:
            self._planned = left
            self._ledger.plan(self._place, left)

    def _take(self, lines: Sequence[dict[str, Any]], part: Part, done: BatchProgress) -> None:
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
            collected = read_line(line, place, part.model, self._caller.key)
            if collected is not None:
                taken[name] = collected
        if taken:
            self._record(list(taken.values()))
            self.state.answered(taken)
            done.collected += len(taken)

    def _fail(self, requests: Sequence[tuple[str, Place]], model: str, reason: str, *, retryable: bool = True) -> None:
        """Record garments whose answer will not come: whether they are paid for again is for a person to say (--retry)."""
        for part in batched(requests, _CHUNK):
            failed = Outcome("failed", "openai", model, error=redact(reason, self._caller.key), retryable=retryable)
            self._record([Collected(place, model, None, failed) for _, place in part])
            self.state.answered(name for name, _ in part)

    def _sweep(self) -> None:
        """Remove files that a killed process left."""
        known = {_file(part.token) for part in self.state.parts()}
        for entry in self._files.entries():
            if entry.kind == "file" and _OURS.fullmatch(entry.name) and entry.name not in known:
                self._files.remove(entry.name)

    def part_file(self, token: str) -> Path:
        """The file of a part's requests. Raises :class:`CatalogueError` for a link."""
        return self._files.path(_file(token))


def _file(token: str) -> str:
    return f"fashionrec-{token}.jsonl"


def _file_id(batch: object, name: str) -> str | None:
    """The id of a file of a batch; None where there is none, which some servers tell as an empty text."""
    found = getattr(batch, name, None)
    return checked_id(found) if found else None
