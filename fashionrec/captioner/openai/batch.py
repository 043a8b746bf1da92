"""OpenAI's Batch API: writes requests to files, submits them as batches, collects the answers.

Each step is recorded before and after the request (:mod:`batch_state`). If a process ended in
between, the next run looks up whether the request arrived: a file by its name, a batch by the token
in its metadata. So nothing is submitted twice, and only missing or expired requests are submitted
again.
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
from fashionrec.captioner.openai.client import ApiCaller, address, host, server_url
from fashionrec.captioner.openai.wire import redact
from fashionrec.captioner.outcome import Outcome
from fashionrec.common.batches import batched
from fashionrec.common.folder import Folder
from fashionrec.common.system import sync_file
from fashionrec.common.text import plural
from fashionrec.errors import CaptionError, CatalogueError, Refused

if TYPE_CHECKING:
    from fashionrec.captioner.cache import Place
    from fashionrec.config import CaptionerConfig

STATE = "state.sqlite"

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_QUEUE_FULL = frozenset({"token_limit_exceeded", "rate_limit_exceeded"})  # of the account: retry later
_CHUNK = 256  # answers per transaction
#: Our files in the folder besides the state: requests, complete or being written, and answers.
_OWN_FILES = re.compile(r"fashionrec-[0-9a-f]{32}\.(jsonl|tmp)|[0-9a-f]{32}\.[A-Za-z0-9_.:-]{1,200}\.answers")


class Batches:
    """The batches of one folder, used by one process at a time."""

    def __init__(
        self,
        folder: Path,
        config: CaptionerConfig,
        caller: ApiCaller,
        *,
        body: Callable[[Place], dict[str, Any] | None],
        record: Callable[[Sequence[Collected]], None],
        sleep: Callable[[float], None] = time.sleep,
        ledger: Ledger | None = None,
        most: int | None = None,
        api: BatchApi | None = None,
    ) -> None:
        """Open the batches of a folder.

        Raises :class:`CatalogueError` for a symbolic link in the folder, or a damaged state.

        Args:
            folder: The folder of the batches; created if missing.
            config: The settings.
            caller: Sends the requests.
            body: Makes a garment's request; None if the garment no longer exists.
            record: Records answers durably before it returns.
            sleep: Waits for some seconds.
            ledger: Records what this user planned: nothing else is sent.
            most: Most requests to send; None for no limit.
            api: The Batch API.
        """
        Folder(folder.parent, "catalogue", CatalogueError).make_folder(folder.name, exist_ok=True)
        self._files = Folder(folder, "batches", CatalogueError)
        self._files.check()
        self.state = BatchState(folder / STATE)
        self._ledger, self._left = ledger or Ledger(), most
        self._folder = folder.resolve()
        self._planned = self._ledger.planned(self._folder)
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
        """Plan requests for garments; return how many are new.

        Requests that were planned or sent before are skipped.
        """
        new = set(self.state.add(places)) - self._planned
        if new:
            self._planned |= new
            self._ledger.plan(self._folder, self._planned)
        return len(new)

    def planned_requests(self) -> int:
        """Return the number of requests that this user planned and that are not sent yet."""
        waiting = sum(name in self._planned for name, _ in self.state.waiting())
        return waiting + sum(part.requests for part in self.state.parts(UNSENT))

    def advance(self) -> BatchProgress:
        """Advance every part as far as possible now, and submit new ones.

        Raises :class:`CaptionError` if the server cannot be reached; :class:`CatalogueError`
        (:class:`Refused` if answers were collected) for a part that differs from this user's plan:
        then nothing is sent. Progress up to the error is kept.
        """
        progress = BatchProgress()
        self._sweep()
        parts = [self._find_sent(part) for part in self._known_parts()]
        problems = [reason for part in parts if part.state in UNSENT and (reason := self._refusal(part))]
        for part in parts:
            if part.state not in UNSENT:
                self._advance_part(part, progress)
        if problems:
            raise self._refused(problems, collected=any(part.state not in UNSENT for part in parts))
        for part in self.state.parts(UNSENT):
            if self._reserve(part):
                self._advance_part(part, progress)
            else:
                progress.held += part.requests
        has_room = not any("uploaded" in part.state for part in self.state.parts())
        while has_room and (part_no := self.write_next()) is not None:
            part = self.state.part(part_no)
            if not self._reserve(part):
                raise AssertionError("the part has more requests than may be sent")
            part = self._advance_part(part, progress)
            has_room = part.state != "uploaded"
        for name, _ in self.state.waiting():
            progress.unplanned += name not in self._planned
            progress.held += name in self._planned and self._left == 0
        counts = self.state.counts()
        progress.outstanding = counts["waiting"] + counts["sent"]
        progress.completed = sum(part.completed or 0 for part in self.open_parts())
        return progress

    def discard_unsent(self) -> int:
        """Discard the parts that may not be sent; return the number of their requests.

        Their garments can be planned again.
        """
        count = 0
        for part in [self._find_sent(part) for part in self._known_parts()]:
            if part.state in UNSENT and self._refusal(part):
                self._release(part)
                count += part.requests
        return count

    def open_parts(self) -> list[Part]:
        """Return the unfinished parts."""
        return self.state.parts(OPEN)

    # checks before sending

    def _known_parts(self) -> list[Part]:
        """Return the unfinished parts; raise :class:`CaptionError` if one is on another server."""
        parts = self.state.parts()
        for part in parts:
            if part.server != self._server:
                raise CaptionError(
                    f"a batch of this catalogue is on {ascii(part.server)[1:-1][:80]}, not on {self._server}",
                    hint="restore captioner.base_url and collect it with --batch --resume",
                )
        return parts

    def _find_sent(self, part: Part) -> Part:
        """Mark a part as submitted if a process submitted it before it ended."""
        known = self._ledger.find(part.token)
        if part.state == "creating" or (part.state in UNSENT and known is not None and known.sent):
            batch_id = self._api.find_batch(part.token)
            if batch_id is not None:
                return self.state.change(part.part, "submitted", batch_id=batch_id)
        return part

    def _refusal(self, part: Part) -> str | None:
        """Return why a part may not be sent; None if it equals this user's plan."""
        plan = self._ledger.find(part.token)
        name = f"part {part.part} ({plural(part.requests, 'request')}, {ascii(part.model)[1:-1][:60]})"
        if plan is None:
            return f"{name} has no record in {self._ledger.folder}: another user or an older fashionrec planned it"
        if plan.folder != str(self._folder):
            return f"{name} was planned for {plan.folder}"
        planned = (plan.model, plan.requests, plan.bytes)
        if planned != (part.model, part.requests, part.bytes) or part.file_id not in (None, plan.file_id):
            return f"{name} differs from the plan: {plural(plan.requests, 'request')} of {plan.model}"
        if plan.server != self._address:
            return f"{name} was planned for {plan.server}, not {self._address}"
        if plan.model != self._config.model:
            return f"{name} was planned for another model than captioner.model ({self._config.model})"
        if part.file_id is None and self.part_file(part.token).exists() and not self._file_matches(plan):
            return f"{name}: its file {_file(part.token)} differs from the plan"
        return None

    def _refused(self, reasons: Sequence[str], *, collected: bool) -> CatalogueError | Refused:
        error_class = Refused if collected else CatalogueError
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return error_class(
            f"{self._files.root}: nothing is sent: {reasons[0]}{more}",
            hint="--batch --discard-unsent plans its garments again; nothing was paid for it",
        )

    def _file_matches(self, plan: PlannedPart) -> bool:
        try:
            self._open_file(plan).close()
        except CatalogueError:
            return False
        return True

    def _open_file(self, plan: PlannedPart) -> IO[bytes]:
        """Open the request file of a part.

        Raises :class:`CatalogueError` if the file differs from the plan.
        """
        file = self._files.open(_file(plan.token))
        try:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            if (digest.hexdigest(), file.tell()) == (plan.sha256, plan.bytes):
                file.seek(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        raise CatalogueError(f"{self._files.root}: {_file(plan.token)} differs from the plan")

    def _reserve(self, part: Part) -> bool:
        if self._left is None:
            return True
        if part.requests > self._left:
            return False
        self._left -= part.requests
        self._sent_here.add(part.part)
        return True

    def _release(self, part: Part) -> None:
        """Discard a part that was not submitted."""
        if part.part in self._sent_here and self._left is not None:
            self._left += part.requests
        self.state.release(part.part)
        self._ledger.forget(part.token)
        self._files.remove(_file(part.token))

    # writing files of requests

    def write_next(self) -> int | None:
        """Write waiting requests to one file, up to its size and the cost limit.

        Returns the number of the new part, or None if no request waits.
        """
        max_requests = (
            self._config.batch.requests if self._left is None else min(self._config.batch.requests, self._left)
        )
        token = uuid.uuid4().hex
        temporary = f"fashionrec-{token}.tmp"
        ids: list[str] = []
        missing: list[str] = []
        too_large: list[tuple[str, Place]] = []
        size = 0
        digest = hashlib.sha256()
        with self._files.open(temporary, "xb") as file:
            for name, place in self.state.waiting():
                if len(ids) == max_requests:
                    break
                if name not in self._planned:
                    continue
                body = self._body(place)
                if body is None:
                    missing.append(name)
                    continue
                request = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
                line = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                if len(line) > self._config.batch.bytes:
                    too_large.append((name, place))
                    continue
                if size + len(line) > self._config.batch.bytes:
                    break
                file.write(line)
                digest.update(line)
                ids.append(name)
                size += len(line)
            sync_file(file)
        self.state.drop(missing)
        self._fail(too_large, self._config.model, "the request exceeds the size limit of a batch file", retryable=False)
        if not ids:
            self._files.remove(temporary)
            return None
        model = self._config.model
        part = PlannedPart(token, digest.hexdigest(), size, len(ids), model, self._address, str(self._folder))
        self._ledger.record(part)
        self._files.rename(temporary, _file(token))
        self._files.sync()
        return self.state.write_part(token, self._server, model, ids, size)

    # the steps of one part

    def _advance_part(self, part: Part, progress: BatchProgress) -> Part:
        """Advance a part as far as possible now. Unsent parts have been checked before."""
        plan = self._ledger.find(part.token)
        if part.state in UNSENT and plan is None:
            raise AssertionError("the part was not planned")
        if part.state in ("written", "uploading"):
            assert plan is not None
            has_file = self.part_file(part.token).is_file()
            file_id = self._api.find_file(_file(part.token), part.bytes) if part.state == "uploading" else None
            if file_id is None and not has_file:
                self._release(part)
                return self.state.part(part.part)
            if file_id is None:
                self.state.change(part.part, "uploading")
                file_id = self._api.upload(_file(part.token), lambda: self._open_file(plan), part.bytes)
            self._ledger.update(part.token, file_id=file_id)
            part = self.state.change(part.part, "uploaded", file_id=file_id)
        if part.state in ("uploaded", "creating"):
            part = self._create(part)
            self._files.remove(_file(part.token))
            progress.submitted += part.requests
        if part.state == "ended" and plan is None:
            part = replace(part, state="submitted")  # another user wrote the state: ask the server
        if part.state == "submitted":
            part = self._look(part, own=plan is not None)
            if part.state == "uploaded":
                progress.errors.append(
                    f"the queue of {part.server} is full, the batch is submitted later: {part.error}"
                )
        if part.state == "ended":
            self._collect(part, progress, own=plan is not None)
            part = self.state.part(part.part)
        return part

    def _create(self, part: Part) -> Part:
        """Submit a part exactly once, with retries."""
        plan = self._ledger.find(part.token)
        assert plan is not None
        assert plan.file_id is not None
        may_exist = part.state == "creating" or plan.sent
        error: CaptionError | None = None
        for attempt in range(1 + self._config.retries):
            if may_exist:
                batch_id = self._api.find_batch(part.token)
                if batch_id is None:  # it may not be listed yet
                    self._sleep(min(self._config.batch.poll, 5.0 * (attempt + 1)))
                    batch_id = self._api.find_batch(part.token)
                if batch_id is not None:
                    return self.state.change(part.part, "submitted", batch_id=batch_id)
            part = self.state.change(part.part, "creating")
            self._ledger.update(part.token, sent=True)
            try:
                batch_id = self._api.create(plan.file_id, part.token)
            except CaptionError as caught:
                if not caught.retryable:
                    self.state.change(part.part, "uploaded")
                    self._ledger.update(part.token, sent=False)
                    raise
                may_exist, error = True, caught
                continue
            return self.state.change(part.part, "submitted", batch_id=batch_id)
        assert error is not None
        raise error

    def _look(self, part: Part, *, own: bool) -> Part:
        """Query the status of a batch.

        A part that is not this user's ``own`` must have its token in the batch's metadata.
        """
        try:
            batch = self._api.look(checked_id(part.batch_id))
        except CaptionError as error:
            if error.state != "gone":
                raise
            return self.state.change(part.part, "ended", status="gone", error="the server no longer has the batch")
        if not own and token_of(batch) != part.token:
            raise CatalogueError(
                f"{self._files.root}: part {part.part} does not belong to the batch {checked_id(part.batch_id)};"
                " its answers are not used",
                hint="move the folder away, or get a copy of the catalogue without it",
            )
        counts = getattr(batch, "request_counts", None)
        completed = getattr(counts, "completed", None)
        status = getattr(batch, "status", None)
        values: dict[str, Any] = {
            "status": status[:40] if isinstance(status, str) else "unknown",
            "completed": completed if type(completed) is int and 0 <= completed <= part.requests else None,
            "output_file_id": _file_id(batch, "output_file_id"),
            "error_file_id": _file_id(batch, "error_file_id"),
        }
        listed = getattr(getattr(batch, "errors", None), "data", None)
        errors = [(str(getattr(error, "code", "")), getattr(error, "message", "")) for error in listed or ()][:100]
        if errors:
            message = "; ".join(f"{code}: {text}" for code, text in errors[:3])
            values["error"] = redact(message, self._caller.key)
        if status == "failed" and {code for code, _ in errors} & _QUEUE_FULL:
            # nothing was processed: the file is submitted again later, with a new token
            return self._requeue(part, str(values.get("error")))
        return self.state.change(part.part, "ended" if status in _ENDED else "submitted", **values)

    def _requeue(self, part: Part, error: str) -> Part:
        token = uuid.uuid4().hex
        plan = self._ledger.find(part.token)
        if plan is not None:
            self._ledger.record(replace(plan, token=token, sent=False))
            self._ledger.forget(part.token)
        if part.part in self._sent_here and self._left is not None:
            self._left += part.requests
        return self.state.change(part.part, "uploaded", token=token, batch_id=None, error=error)

    # collecting

    def _collect(self, part: Part, progress: BatchProgress, *, own: bool) -> None:
        """Record the answers of a batch; requests without one are queued again, or have failed."""
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
                self._fail(self.state.sent_in(part.part), part.model, "the server no longer has the batch's answers")
                continue
            with self._files.open(name) as file:
                for chunk in batched(answer_lines(file), _CHUNK):
                    if file_id == part.output_file_id:
                        lines += len(chunk)
                        unreadable += sum(line is None for line in chunk)
                    self._take([line for line in chunk if line is not None], part, progress)
            self._files.remove(name)
        if part.status == "completed" and part.completed is not None and lines < part.completed:
            raise CaptionError(
                f"batch {part.batch_id} has {plural(part.completed, 'answer')}, but its file has {lines:,}",
                retryable=True,
                hint="try again later: nothing is submitted again before the file is complete",
            )
        if part.error:
            progress.errors.append(f"batch {part.batch_id}: {part.error}")
        missing = self.state.sent_in(part.part)
        if part.status in ("cancelled", "gone"):
            self._fail(missing, part.model, part.error or f"the batch was {part.status}")
        elif unreadable:
            self._fail(missing, part.model, "the answer is unreadable")
        else:
            attempts = self._config.batch.attempts
            exhausted = self.state.sent_in(part.part, at_least=attempts)
            self._fail(exhausted, part.model, part.error or f"no answer in {plural(attempts, 'batch', 'batches')}")
        progress.resubmitted += self.state.collected(part.part, self._config.batch.attempts)
        if own and part.file_id is not None:
            self._api.remove(part.file_id)
        self._ledger.forget(part.token)
        self._prune_plan()

    def _create_file(self, name: str) -> IO[bytes]:
        self._files.remove(name)
        return self._files.open(name, "xb")

    def _prune_plan(self) -> None:
        """Remove requests with a recorded outcome from the plan."""
        unanswered = {name for name, _, _ in self.state.unanswered()} & self._planned
        if unanswered != self._planned:
            self._planned = unanswered
            self._ledger.plan(self._folder, unanswered)

    def _take(self, lines: Sequence[dict[str, Any]], part: Part, progress: BatchProgress) -> None:
        requests = self.state.find([str(line["custom_id"]) for line in lines])
        new: dict[str, Collected] = {}
        for line in lines:
            name = str(line["custom_id"])
            place, state = requests.get(name, (None, ""))
            if place is None:
                continue
            if state == "answered" or name in new:
                progress.duplicates += 1
                continue
            collected = read_line(line, place, part.model, self._caller.key)
            if collected is not None:
                new[name] = collected
        if new:
            self._record(list(new.values()))
            self.state.answered(new)
            progress.collected += len(new)

    def _fail(self, requests: Sequence[tuple[str, Place]], model: str, reason: str, *, retryable: bool = True) -> None:
        """Record requests that will get no answer; a paid retry is up to the user (--retry)."""
        for part in batched(requests, _CHUNK):
            failed = Outcome("failed", "openai", model, error=redact(reason, self._caller.key), retryable=retryable)
            self._record([Collected(place, model, None, failed) for _, place in part])
            self.state.answered(name for name, _ in part)

    def _sweep(self) -> None:
        """Remove the files that a killed process left."""
        known = {_file(part.token) for part in self.state.parts()}
        for entry in self._files.entries():
            if entry.kind == "file" and _OWN_FILES.fullmatch(entry.name) and entry.name not in known:
                self._files.remove(entry.name)

    def part_file(self, token: str) -> Path:
        """Return the path of a part's requests.

        Raises :class:`CatalogueError` for a symbolic link.
        """
        return self._files.path(_file(token))


def _file(token: str) -> str:
    return f"fashionrec-{token}.jsonl"


def _file_id(batch: object, name: str) -> str | None:
    """Return the id of a batch's file; None if there is none (some servers send an empty text)."""
    file_id = getattr(batch, name, None)
    return checked_id(file_id) if file_id else None
