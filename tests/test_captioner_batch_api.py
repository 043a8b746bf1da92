"""Test what is asked of a server's files and batches: each request whole, its limits, and what is
asked only once.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openai_batches import BatchServer
from test_captioner_batch import KEY, settings

from fashionrec.captioner.openai.batch_api import BatchApi, checked_id, token_of
from fashionrec.captioner.openai.client import ApiCaller
from fashionrec.captioner.openai.limiter import RateLimiter
from fashionrec.errors import CaptionError

TOKEN = "a" * 32


class Watched(ApiCaller):
    """Writes down the limits of each request."""

    def __init__(self, server: BatchServer) -> None:
        super().__init__(settings(server), KEY, {}, backoff=0.01, limiter=RateLimiter(1))
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.extended: list[float] = []
        self.gives: Any = None

    def fetch(self, what: str, request: Callable[[], Any], **limits: Any) -> Any:
        self.asked.append((what, limits))
        return super().fetch(what, request, **limits) if self.gives is None else self.gives

    def extend(self, seconds: float) -> None:
        self.extended.append(seconds)


class Server(BatchServer):
    """Keeps what came: method, path with its query, headers, body."""

    def __init__(self) -> None:
        super().__init__()
        self.came: list[tuple[str, str, dict[str, str], bytes]] = []

    def other(self, handler: BaseHTTPRequestHandler, method: str, raw: bytes) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.came.append((method, handler.path, headers, raw))
        super().other(handler, method, raw)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        yield running


@pytest.fixture
def caller(server: Server) -> Iterator[Watched]:
    with Watched(server) as made:
        yield made


@pytest.fixture
def api(caller: Watched) -> BatchApi:
    return BatchApi(caller)


def upload(api: BatchApi, name: str, content: bytes = b"{}\n") -> str:
    return api.upload(name, lambda: io.BytesIO(content), len(content))


def test_a_file_is_uploaded_by_its_name_and_given_time_by_its_size(
    api: BatchApi, caller: Watched, server: Server
) -> None:
    name = api.upload("requests.jsonl", lambda: io.BytesIO(b"{}\n"), 3 << 20)
    file, content = server.files[name]
    assert (file.filename, content) == ("requests.jsonl", b"{}\n")
    ((method, path, _, raw),) = server.came
    assert (method, path) == ("POST", "/v1/files")
    assert b'name="purpose"\r\n\r\nbatch\r\n' in raw
    assert caller.asked == [("uploading a batch", {"seconds": 690.0})]  # ten minutes, and half a minute for each MiB


def test_a_batch_is_submitted_once_and_carries_its_token(api: BatchApi, caller: Watched, server: Server) -> None:
    name = upload(api, "requests.jsonl")
    assert api.create(name, TOKEN) == "batch-0"
    method, path, headers, raw = server.came[-1]
    assert (method, path, headers["idempotency-key"]) == ("POST", "/v1/batches", TOKEN)
    assert json.loads(raw) == {
        "input_file_id": name,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"fashionrec": TOKEN},
    }
    server.fails = [("POST /batches", 503)]
    with pytest.raises(CaptionError, match="submitting a batch: 503: upstream is down") as caught:
        api.create(name, TOKEN)
    assert caught.value.retryable
    assert len(server.batches) == 2, "whether it was submitted is looked for, not tried again"
    assert caller.asked[1:] == [("submitting a batch", {"retries": 0})] * 2
    look = api.look("batch-1")
    assert (look.id, look.status) == ("batch-1", "validating")
    assert server.came[-1][:2] == ("GET", "/v1/batches/batch-1")


def test_a_file_is_found_by_its_name_and_its_size(api: BatchApi, caller: Watched, server: Server) -> None:
    first, _ = upload(api, "one.jsonl", b"12345"), upload(api, "two.jsonl", b"12345")
    assert api.find_file("one.jsonl", 5) == first
    assert server.came[-1][1] == "/v1/files?limit=100&purpose=batch"
    assert api.find_file("one.jsonl", 4) is None
    assert api.find_file("three.jsonl", 5) is None
    assert caller.asked[2:] == [("looking for a file", {})] * 3


def test_a_batch_is_found_by_its_token_on_whichever_page_it_is(api: BatchApi, caller: Watched, server: Server) -> None:
    name = upload(api, "one.jsonl")
    api.create(name, TOKEN)
    first = server.batches.pop("batch-0")
    for n in range(102):
        made = first.model_copy(update={"id": f"batch-{n}", "metadata": {"fashionrec": f"{n:032x}"}})
        server.batches[made.id] = made
    server.came.clear()
    caller.asked.clear()
    assert api.find_batch(f"{101:032x}") == "batch-101"
    assert api.find_batch(f"{1:032x}") == "batch-1"
    pages = ["/v1/batches?limit=100", "/v1/batches?after=batch-2&limit=100"]
    assert [path for _, path, _, _ in server.came] == [pages[0], *pages]
    assert api.find_batch("f" * 32) is None
    assert len(server.came) == 5, "the last page tells that it is the last"
    assert caller.asked == [("looking for a batch", {})] * 5


@pytest.mark.parametrize("data", [None, [], "text"])
def test_a_page_without_a_list_is_the_last(data: Any, api: BatchApi, caller: Watched) -> None:
    caller.gives = SimpleNamespace(data=data, has_more=True)
    assert api.find_batch(TOKEN) is None
    assert len(caller.asked) == 1


def test_a_list_without_end_ends(api: BatchApi, caller: Watched) -> None:
    caller.gives = SimpleNamespace(data=[SimpleNamespace(id="batch-1", metadata=None)], has_more=True)
    assert api.find_batch(TOKEN) is None
    assert len(caller.asked) == 1000


def test_answers_are_written_to_the_file_and_a_long_transfer_has_more_time(
    api: BatchApi, caller: Watched, server: Server, tmp_path: Path
) -> None:
    content = bytes(range(256)) * (10 << 10)  # two pieces of a MiB and a half
    name = upload(api, "answers.jsonl", content)
    caller.asked.clear()
    path = tmp_path / "answers"
    api.download(name, lambda: path.open("xb"), 8)
    assert path.read_bytes() == content
    assert server.came[-1][:2] == ("GET", f"/v1/files/{name}/content")
    assert caller.extended == [30.0, 30.0]
    # 2 MiB, and 64 KiB for each of the answers
    assert caller.asked == [("collecting a batch", {"seconds": 600.0, "most_bytes": (2 << 20) + 8 * (64 << 10)})]


def test_answers_that_are_too_many_are_not_taken(api: BatchApi, server: Server, tmp_path: Path) -> None:
    name = upload(api, "answers.jsonl", b"x" * ((2 << 20) + (64 << 10)))
    api.download(name, lambda: (tmp_path / "whole").open("xb"), 1)
    with pytest.raises(CaptionError) as caught:
        api.download(name, lambda: (tmp_path / "cut").open("xb"), 0)
    assert str(caught.value) == "collecting a batch: the answer is larger than 2,097,152 bytes"


def test_a_file_is_removed_where_the_server_lets_it(api: BatchApi, caller: Watched, server: Server) -> None:
    name = upload(api, "one.jsonl")
    api.remove(name)
    assert server.files == {}
    assert server.came[-1][:2] == ("DELETE", f"/v1/files/{name}")
    server.fails = [("DELETE", 503)]
    api.remove(name)  # asked once, and no failure
    assert server.fails == []
    assert caller.asked[1:] == [("removing a batch's file", {"retries": 0})] * 2


@pytest.mark.parametrize("name", ["", "a/b", ".a", "a b", "x" * 201])
def test_what_is_no_id_is_not_asked_for(name: str, api: BatchApi, server: Server, tmp_path: Path) -> None:
    requests: list[Callable[[], object]] = [
        lambda: api.look(name),
        lambda: api.download(name, lambda: (tmp_path / "x").open("xb"), 1),
        lambda: checked_id(name),
        lambda: checked_id(SimpleNamespace(id=name)),
    ]
    for request in requests:
        with pytest.raises(CaptionError) as caught:
            request()
        assert str(caught.value) == f"invalid file or batch id {ascii(name)[:80]}"
        assert caught.value.hint == "check captioner.base_url"
    api.remove(name)
    assert server.came == []


@pytest.mark.parametrize("name", ["0", "file-1_A.b:c", "x" * 200])
def test_what_is_an_id(name: str) -> None:
    assert checked_id(name) == checked_id(SimpleNamespace(id=name)) == name


@pytest.mark.parametrize("found", [None, 3, SimpleNamespace(id=3), SimpleNamespace()])
def test_what_has_no_id(found: object) -> None:
    with pytest.raises(CaptionError, match="invalid file or batch id"):
        checked_id(found)


@pytest.mark.parametrize(
    ("metadata", "token"),
    [({"fashionrec": "t", "other": "o"}, "t"), ({"other": "o"}, None), ({"fashionrec": 3}, None), ("t", None), (None, None)],
)  # fmt: skip
def test_the_token_that_a_batch_tells(metadata: Any, token: str | None) -> None:
    assert token_of(SimpleNamespace(metadata=metadata)) == token
    assert token_of(object()) is None
