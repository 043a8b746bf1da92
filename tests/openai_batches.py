"""The local server with OpenAI's files and batches, built from the openai package's own types.

What becomes of a batch is decided by ``plan``: for each batch in the order of their creation, a
function of its lines that says what is answered and how it ends. A batch is worked on when it is
looked at for the second time.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from openai.types import Batch, FileObject
from openai_server import OpenAIServer, completion, fitting

#: What OpenAI allows of one file.
MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000


@dataclass
class Ending:
    """Record of how a batch ends: its output and error lines, its status, and what is wrong with
    it.
    """

    status: str = "completed"
    output: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[dict[str, str]] = field(default_factory=list)
    garbage: bytes = b""


Plan = Callable[[Sequence[dict[str, Any]]], Ending]


def answered(line: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    """The output line of a request that was answered."""
    if content is None:
        content = json.dumps(fitting(line["body"]), ensure_ascii=False)
    body = json.loads(completion(content))
    response = {"status_code": 200, "request_id": "req-local", "body": body}
    return {"id": "batch-req", "custom_id": line["custom_id"], "response": response, "error": None}


def refused(line: dict[str, Any], status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """The error line of a request that the model's endpoint refused."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    response = {"status_code": status, "request_id": "req-local", "body": body}
    return {"id": "batch-req", "custom_id": line["custom_id"], "response": response, "error": None}


def expired(line: dict[str, Any], code: str = "batch_expired") -> dict[str, Any]:
    """The error line of a request that was not come to."""
    error = {"code": code, "message": "This request could not be executed before the completion window expired."}
    return {"id": "batch-req", "custom_id": line["custom_id"], "response": None, "error": error}


def completes(lines: Sequence[dict[str, Any]]) -> Ending:
    """Every request answered, the last one first."""
    return Ending(output=[answered(line) for line in reversed(lines)])


class BatchServer(OpenAIServer):
    """``step`` is called before and after each request is worked on: a test may kill the client
    there.
    """

    def __init__(self, plan: Sequence[Plan] = (), step: Callable[[str, str], None] | None = None) -> None:
        super().__init__()
        self.plan = list(plan)
        self.step = step or (lambda what, when: None)
        self.files: dict[str, tuple[FileObject, bytes]] = {}
        self.batches: dict[str, Batch] = {}
        self.paid: Counter[str] = Counter()  # how often each request was answered
        self.looks: Counter[str] = Counter()
        self.fails: list[
            tuple[str, int]
        ] = []  # (method and path begin with, status): once each, after the work was done

    def other(self, handler: BaseHTTPRequestHandler, method: str, raw: bytes) -> None:
        path = urlsplit(handler.path).path.removeprefix("/v1")
        what = f"{method} {path}"
        if "/models/" in path:
            super().other(handler, method, raw)
            return
        with self._lock:
            self.others.append(what)
        self.step(what, "before")
        query = {key: values[0] for key, values in parse_qs(urlsplit(handler.path).query).items()}
        with self._lock:
            status, body = self._answer(method, path, query, handler.headers.get("Content-Type") or "", raw)
            for n, (begin, failure) in enumerate(self.fails):
                if what.startswith(begin):
                    del self.fails[n]
                    status, body = failure, json.dumps({"error": {"message": "upstream is down"}}).encode()
                    break
        self.step(what, "after")
        self.write(handler, status, body, {})

    def _answer(self, method: str, path: str, query: dict[str, str], kind: str, raw: bytes) -> tuple[int, bytes]:
        parts = path.strip("/").split("/")
        if parts[0] == "files":
            return self._files(method, parts[1:], query, kind, raw)
        if parts[0] == "batches":
            return self._batches(method, parts[1:], query, raw)
        return 404, b"{}"

    def _files(self, method: str, parts: list[str], query: dict[str, str], kind: str, raw: bytes) -> tuple[int, bytes]:
        if method == "POST":
            boundary = kind.split("boundary=")[1].encode()
            name, content = "", b""
            for part in raw.split(b"--" + boundary)[1:-1]:
                head, _, data = part.partition(b"\r\n\r\n")
                if b"filename=" in head:
                    name = re.search(rb'filename="([^"]+)"', head)[1].decode()  # type: ignore[index]
                    content = data[:-2]
            made = self._store(name, content, "batch")
            return 200, made.model_dump_json().encode()
        if not parts:
            return 200, _page([file for file, _ in self.files.values() if file.purpose == query.get("purpose")], query)
        if parts[0] not in self.files:
            return 404, json.dumps({"error": {"message": f"No such File object: {parts[0]}"}}).encode()
        if method == "DELETE":
            del self.files[parts[0]]
            return 200, json.dumps({"id": parts[0], "object": "file", "deleted": True}).encode()
        return 200, self.files[parts[0]][1]

    def _store(self, name: str, content: bytes, purpose: str) -> FileObject:
        number = len(self.files) + sum(self.looks.values()) + len(self.others)
        made = FileObject.model_validate(
            {
                "id": f"file-{number}",
                "bytes": len(content),
                "created_at": number,
                "filename": name,
                "object": "file",
                "purpose": purpose,
                "status": "processed",
            }
        )
        while made.id in self.files:
            made = made.model_copy(update={"id": made.id + "x"})
        self.files[made.id] = made, content
        return made

    def _batches(self, method: str, parts: list[str], query: dict[str, str], raw: bytes) -> tuple[int, bytes]:
        if method == "POST":
            asked = json.loads(raw)
            made = Batch.model_validate(
                {
                    "id": f"batch-{len(self.batches)}",
                    "object": "batch",
                    "endpoint": asked["endpoint"],
                    "input_file_id": asked["input_file_id"],
                    "completion_window": asked["completion_window"],
                    "status": "validating",
                    "created_at": len(self.batches),
                    "metadata": asked.get("metadata"),
                }
            )
            self.batches[made.id] = made
            return 200, made.model_dump_json().encode()
        if not parts:
            return 200, _page(list(self.batches.values()), query)
        if parts[0] not in self.batches:
            return 404, json.dumps({"error": {"message": "No batch found"}}).encode()
        self.looks[parts[0]] += 1
        if self.looks[parts[0]] == 2:
            self.work(parts[0])
        return 200, self.batches[parts[0]].model_dump_json().encode()

    def work(self, name: str) -> None:
        number = int(name.rsplit("-", 1)[1])
        batch = self.batches[name]
        content = self.files[batch.input_file_id][1]
        lines = [json.loads(line) for line in content.splitlines()]
        ids = Counter(line["custom_id"] for line in lines)
        if len(lines) > MOST_REQUESTS or len(content) > MOST_BYTES or max(ids.values()) > 1:
            ending = Ending("failed", wrong=[{"code": "invalid_batch", "message": "too large, or a custom_id twice"}])
        else:
            ending = (self.plan[number] if number < len(self.plan) else completes)(lines)
        self.paid.update({line["custom_id"] for line in ending.output})
        changes: dict[str, Any] = {"status": ending.status}
        for key, found in (("output_file_id", ending.output), ("error_file_id", ending.errors)):
            if found:
                text = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in found)
                text += ending.garbage if key == "output_file_id" else b""
                changes[key] = self._store(f"{name}-{key}.jsonl", text, "batch_output").id
        counts = {"completed": len(ending.output), "failed": len(ending.errors), "total": len(lines)}
        changes["request_counts"] = counts
        if ending.wrong:
            changes["errors"] = {"object": "list", "data": ending.wrong}
        self.batches[name] = Batch.model_validate(batch.model_dump() | changes)


def _page(found: Sequence[Any], query: dict[str, str]) -> bytes:
    """One page of a list, newest first."""
    newest = list(reversed(found))
    if "after" in query:
        newest = newest[[one.id for one in newest].index(query["after"]) + 1 :]
    limit = int(query.get("limit", "20"))
    data = [one.model_dump() for one in newest[:limit]]
    return json.dumps({"object": "list", "data": data, "has_more": len(newest) > limit}).encode()
