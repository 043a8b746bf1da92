"""Batches: split by both limits, nothing lost, nothing paid for twice, whatever happens
in between.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from captioners import count_by_state
from openai_batches import BatchServer, Ending, Plan, answered, completes, expired, refused
from openai_server import OpenAIServer
from systems import posix_only

from fashionrec.captioner.cache import CaptionCache, Place
from fashionrec.captioner.openai.batch import Batches
from fashionrec.captioner.openai.batch_answers import Collected
from fashionrec.captioner.openai.batch_api import METADATA, BatchApi
from fashionrec.captioner.openai.batch_state import BatchState, custom_id
from fashionrec.captioner.openai.remote import OpenAICaptioner
from fashionrec.captioner.openai.wire import request_body
from fashionrec.captioner.outcome import Outcome
from fashionrec.config import CaptionerConfig, load_config
from fashionrec.errors import CaptionError, CatalogueError
from fashionrec.types import Box

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def settings(server: OpenAIServer, **batch: Any) -> CaptionerConfig:
    shipped = load_config(env={}).config.captioner
    small = shipped.batch.model_copy(update={"requests": 10, "poll": 0.01, **batch})
    return shipped.model_copy(update={"base_url": server.base_url, "timeout": 5.0, "retries": 1, "batch": small})


def place(n: int) -> Place:
    return Place(f"{n:064x}", "top", Box(0, 0, 100, 100))


class Client:
    """A process's part: batches in a folder, outcomes in a cache."""

    def __init__(
        self,
        server: OpenAIServer,
        folder: Path,
        *,
        body: Callable[[Place], dict[str, Any] | None] | None = None,
        api: type[BatchApi] = BatchApi,
        **batch: Any,
    ) -> None:
        self.remote = OpenAICaptioner(settings(server, **batch), api_key=KEY, backoff=0.01)
        self.cache = CaptionCache(folder / "captions.sqlite")
        self.caller = self.remote.caller()
        self.recorded: Counter[Place] = Counter()
        self.batches = Batches(
            folder / "batches",
            self.remote.config,
            self.caller,
            body=body or self.body,
            record=self.record,
            sleep=lambda seconds: None,
            api=api(self.caller),
        )

    def body(self, place: Place) -> dict[str, Any] | None:
        return request_body("gpt-4o", {}, b"jpeg", place.class_name)

    def record(self, found: Sequence[Collected]) -> None:
        self.recorded.update(one.place for one in found)
        self.cache.put_many([(*one.place, self.outcome(one)) for one in found])

    def outcome(self, one: Collected) -> Outcome:
        return self.remote.read_collected(one)

    def until_done(self, most: int = 30) -> Counter[str]:
        counts: Counter[str] = Counter()
        for _ in range(most):
            done = self.batches.advance()
            counts.update(resubmitted=done.resubmitted, duplicates=done.duplicates, collected=done.collected)
            state = self.batches.state.counts()
            if not state["waiting"] + state["sent"]:
                return counts
        raise AssertionError(f"not done: {self.batches.state.counts()}")

    def close(self) -> None:
        self.batches.close()
        self.caller.leave()
        self.cache.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(plan: Sequence[Plan], folder: Path, garments: int = 25, **batch: Any) -> tuple[Counter[str], BatchServer]:
    with BatchServer(plan) as server, Client(server, folder, **batch) as client:
        assert client.batches.add(place(n) for n in range(garments)) == garments
        counts = client.until_done()
        counts.update(count_by_state(client.cache))
    return counts, server


def test_garments_are_split_by_requests_and_come_back_in_any_order(tmp_path: Path) -> None:
    counts, server = run([], tmp_path)
    assert counts["done"] == 25
    assert set(server.paid.values()) == {1}
    sizes = [batch.request_counts.total for batch in server.batches.values() if batch.request_counts]
    assert sizes == [10, 10, 5]
    assert all(batch.metadata and batch.metadata[METADATA] for batch in server.batches.values())
    assert not [file for file, _ in server.files.values() if file.purpose == "batch"]  # the pictures are taken away
    assert sorted(path.name for path in (tmp_path / "batches").iterdir()) == ["state.sqlite"]


def test_a_request_is_what_the_api_takes(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def keeps(lines: Sequence[dict[str, Any]]) -> Ending:
        seen.extend(lines)
        return completes(lines)

    run([keeps], tmp_path, 2)
    assert {key: seen[0][key] for key in ("custom_id", "method", "url")} == {
        "custom_id": custom_id(place(0)),
        "method": "POST",
        "url": "/v1/chat/completions",
    }
    assert seen[0]["body"] == request_body("gpt-4o", {}, b"jpeg", "top")


def test_only_what_expired_is_submitted_again(tmp_path: Path) -> None:
    def part(lines: Sequence[dict[str, Any]]) -> Ending:
        return Ending("expired", [answered(line) for line in lines[:6]], [expired(line) for line in lines[6:]])

    counts, server = run([part], tmp_path, 10)
    assert (counts["done"], counts["resubmitted"]) == (10, 4)
    assert server.paid == Counter({custom_id(place(n)): 1 for n in range(10)})


def test_what_has_no_line_at_all_is_submitted_again(tmp_path: Path) -> None:
    counts, server = run([lambda lines: Ending(output=[answered(line) for line in lines[1:]])], tmp_path, 10)
    assert (counts["done"], counts["resubmitted"]) == (10, 1)
    assert set(server.paid.values()) == {1}


def test_the_first_of_two_answers_counts(tmp_path: Path) -> None:
    def twice(lines: Sequence[dict[str, Any]]) -> Ending:
        other = json.dumps({"category": "top"})
        return Ending(output=[*map(answered, lines), *(answered(line, other) for line in lines[:3])])

    counts, _ = run([twice], tmp_path, 10)
    assert (counts["done"], counts["duplicates"]) == (10, 3)


def test_a_failed_batch_is_submitted_again_and_then_its_garments_have_failed(tmp_path: Path) -> None:
    def fails(lines: Sequence[dict[str, Any]]) -> Ending:
        return Ending("failed", wrong=[{"code": "invalid_json_line", "message": f"line 1 is wrong {KEY}"}])

    counts, server = run([fails], tmp_path, 5)
    assert (counts["done"], counts["resubmitted"], len(server.batches)) == (5, 5, 2)
    again = tmp_path / "again"
    again.mkdir()
    counts, server = run([fails] * 9, again, 5, attempts=3)
    assert (counts["failed"], counts["done"], len(server.batches)) == (5, 0, 3)
    assert not server.paid
    with CaptionCache(again / "captions.sqlite") as cache:
        known = cache.find(*place(0), "openai")
    assert known is not None
    assert "line 1 is wrong [key]" in (known.error or "")


def test_a_garment_of_a_large_batch_that_was_cancelled_is_recorded_once(tmp_path: Path) -> None:
    with BatchServer([lambda lines: Ending("cancelled")]) as server, Client(server, tmp_path, requests=600) as client:
        client.batches.add(place(n) for n in range(600))  # more than are recorded at a time
        client.until_done()
    assert client.recorded == Counter({place(n): 1 for n in range(600)})
    assert len(server.batches) == 1  # none of them is submitted again


def test_a_batch_that_finds_no_room_is_submitted_when_there_is_some(tmp_path: Path) -> None:
    def full(lines: Sequence[dict[str, Any]]) -> Ending:
        return Ending("failed", wrong=[{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}])

    with BatchServer([full, full]) as server, Client(server, tmp_path) as client:
        client.batches.add([place(0)])
        assert client.until_done()["resubmitted"] == 0
        assert len(server.batches) == 3
        assert sum(one == "POST /files" for one in server.others) == 1
        assert set(server.paid.values()) == {1}


@pytest.mark.parametrize(
    ("line", "state", "retryable"),
    [
        (lambda line: refused(line, 400, "flagged", "content_policy_violation"), "filtered", False),
        (lambda line: refused(line, 400, "Could not process image", "invalid_image"), "failed", False),
        (lambda line: refused(line, 500, "The server had an error"), "failed", True),
        (lambda line: refused(line, 429, f"Rate limit {KEY}"), "failed", True),
        (lambda line: expired(line, "batch_cancelled"), "failed", True),
    ],
)
def test_what_was_refused_is_a_state_and_is_not_submitted_again(
    line: Callable[[dict[str, Any]], dict[str, Any]], state: str, retryable: bool, tmp_path: Path
) -> None:
    counts, server = run([lambda lines: Ending(errors=[line(one) for one in lines])], tmp_path, 3)
    assert (counts[state], counts["resubmitted"], len(server.batches)) == (3, 0, 1)
    with CaptionCache(tmp_path / "captions.sqlite") as cache:
        known = cache.find(*place(0), "openai")
    assert known is not None
    assert known.retryable is retryable
    assert "canary" not in (known.error or "")


def test_an_answer_that_cannot_be_read_is_not_paid_for_again_by_itself(tmp_path: Path) -> None:
    def garbled(lines: Sequence[dict[str, Any]]) -> Ending:
        return Ending(output=[answered(line) for line in lines[1:]], garbage=b'{"custom_id": "g-\n')

    counts, server = run([garbled], tmp_path, 10)
    assert (counts["done"], counts["failed"], counts["resubmitted"], len(server.batches)) == (9, 1, 0, 1)


def test_a_cancelled_batch_keeps_its_answers_and_nothing_is_submitted_again(tmp_path: Path) -> None:
    counts, server = run([lambda lines: Ending("cancelled", [answered(lines[0])])], tmp_path, 4)
    assert (counts["done"], counts["failed"], len(server.batches)) == (1, 3, 1)


def test_answers_that_are_gone_are_told_and_not_paid_for_again(tmp_path: Path) -> None:
    with BatchServer() as server, Client(server, tmp_path) as client:
        client.batches.add([place(0)])
        client.batches.advance()
        server.files.clear()
        server.looks["batch-0"] = 5  # its work is done, by the clock of another day
        server.batches["batch-0"] = server.batches["batch-0"].model_copy(
            update={"status": "completed", "output_file_id": "file-gone"}
        )
        client.until_done()
        assert count_by_state(client.cache) == {"failed": 1}
        assert len(server.batches) == 1


@pytest.mark.parametrize("begin", ["POST /files", "POST /batches", "GET /batches/", "GET /files/", "DELETE /files/"])
def test_a_server_that_does_its_work_and_then_fails_is_not_asked_for_it_twice(begin: str, tmp_path: Path) -> None:
    with BatchServer() as server, Client(server, tmp_path) as client:
        server.fails = [(begin, 503)]
        client.batches.add(place(n) for n in range(5))
        client.until_done()
        assert not server.fails
        assert len(server.batches) == 1
        assert set(server.paid.values()) == {1}
        assert count_by_state(client.cache) == {"done": 5}


def test_a_file_that_comes_short_is_fetched_again_before_anything_is_submitted(tmp_path: Path) -> None:
    with BatchServer() as server, Client(server, tmp_path) as client:
        client.batches.add(place(n) for n in range(5))
        client.batches.advance()
        client.batches.state.close()
        client.batches.state = BatchState(tmp_path / "batches" / "state.sqlite")
        part = client.batches.open_parts()[0]
        server.work("batch-0")
        server.looks["batch-0"] = 5
        output = str(server.batches["batch-0"].output_file_id)
        file, content = server.files[output]
        server.files[output] = file, b"\n".join(content.splitlines()[:2]) + b"\n"
        with pytest.raises(CaptionError, match="its file has 2"):
            client.batches.advance()
        assert len(server.batches) == 1
        server.files[output] = file, content
        client.until_done()
        assert count_by_state(client.cache) == {"done": 5}
        assert client.batches.state.part(part.part).state == "collected"


def test_a_moved_box_of_a_pending_garment_is_not_submitted_again(tmp_path: Path) -> None:
    with BatchServer() as server, Client(server, tmp_path) as client:
        assert client.batches.add([place(0)]) == 1
        client.batches.advance()
        moved = Place(place(0).photo_sha256, "top", Box(2, 2, 102, 102))
        assert client.batches.add([place(0), moved]) == 0
        client.until_done()
        assert len(server.batches) == 1
        assert client.batches.add([moved]) == 1  # asked for again on purpose, once it is answered


def test_a_batch_of_another_server_is_not_looked_for_here(tmp_path: Path) -> None:
    with BatchServer() as server, Client(server, tmp_path) as client:
        client.batches.add([place(0)])
        client.batches.advance()
    with (
        BatchServer() as other,
        Client(other, tmp_path) as client,
        pytest.raises(CaptionError, match="a batch of this"),
    ):
        client.batches.advance()
    assert other.others == []


def _carry_on(server: BatchServer, folder: Path, garments: int) -> None:
    with Client(server, folder) as client:
        client.batches.add(place(n) for n in range(garments) if client.cache.find(*place(n), "openai") is None)
        client.until_done()


def _killed_at(step: int, folder: Path, garments: int = 12) -> tuple[BatchServer, bool]:
    """A process that is killed when its server comes to a step, and then another that is not;
    whether it was killed.
    """
    child = 0
    count = 0

    def kill(what: str, when: str) -> None:
        nonlocal count
        count += 1
        if count == step and child:
            os.kill(child, signal.SIGKILL)

    def part_expires(lines: Sequence[dict[str, Any]]) -> Ending:
        return Ending("expired", [answered(line) for line in lines[:-2]], [expired(line) for line in lines[-2:]])

    with BatchServer([part_expires], kill) as server:
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                _carry_on(server, folder, garments)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        server.step = lambda what, when: None
        _carry_on(server, folder, garments)
    return server, os.WIFSIGNALED(status)


def _one_kill(step: int, folder: Path) -> bool:
    """Return whether a process was killed at that step; either way all is there in the end, and
    paid for once.
    """
    folder.mkdir()
    server, killed = _killed_at(step, folder)
    with CaptionCache(folder / "captions.sqlite") as cache:
        assert count_by_state(cache) == {"done": 12}, step
    assert server.paid == Counter({custom_id(place(n)): 1 for n in range(12)}), step
    return killed


forks = posix_only("fork")


@forks
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("step", [1, 2, 3, 4, 12, 17])  # an upload and a creation, before and after; later ones
def test_killed_at_a_step_no_garment_is_lost_and_none_is_paid_for_twice(step: int, tmp_path: Path) -> None:
    assert _one_kill(step, tmp_path / "run")


@forks
@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_killed_at_every_step_no_garment_is_lost_and_none_is_paid_for_twice(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    step = 1
    while _one_kill(step, tmp_path / str(step)):
        step += 1
    record_property("kills", step - 1)
    assert step > 20  # before and after each request of three batches


class Forgetful(BatchApi):
    """Does not look for a batch that may have been created."""

    def find_batch(self, token: str) -> str | None:
        return None


def test_without_the_look_for_a_batch_a_kill_would_pay_twice(tmp_path: Path) -> None:
    """The gate above can fail: a client that forgets to look submits the same garments again."""
    with BatchServer() as server, Client(server, tmp_path, api=Forgetful) as client:
        server.fails = [("POST /batches", 503)]
        client.batches.add([place(0)])
        client.until_done()
        assert len(server.batches) == 2


def _resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 if status.is_file() else 0


@pytest.mark.parametrize("part", [10, pytest.param(1, marks=pytest.mark.release(seconds=30))])
@pytest.mark.parametrize(("count", "size", "by"), [(105_000, 10, "requests"), (50_000, 9000, "bytes")])
def test_many_requests_are_split_by_both_limits_in_flat_memory(
    count: int, size: int, by: str, part: int, tmp_path: Path
) -> None:
    """By hand: of OpenAI's limits, and of the number of requests, a ``part``-th."""
    filler = "x" * size
    sizes: list[tuple[int, int]] = []
    limits = load_config(env={}).config.captioner.batch
    assert (limits.requests, limits.bytes) == (50_000, 200_000_000)
    count, large = count // part, {"requests": limits.requests // part, "bytes": limits.bytes // part}
    body = {"model": "m", "f": filler}
    with BatchServer() as server, Client(server, tmp_path, body=lambda place: body, **large) as client:
        batches = client.batches
        assert batches.add(place(n) for n in range(count)) == count
        before, peak = _resident(), 0
        seen = 0
        last = ""
        while (number := batches.write_next()) is not None:
            written = batches.state.part(number)
            path = batches.part_file(written.token)
            sizes.append((written.requests, path.stat().st_size))
            peak = max(peak, _resident())
            with path.open("rb") as file:
                names = {line[14:56].decode() for line in file}
            assert len(names) == written.requests
            assert last not in names
            last = custom_id(place(seen))
            assert last in names  # the first after the part before
            seen += written.requests
            path.unlink()
    assert sum(requests for requests, _ in sizes) == count == seen
    assert all(requests <= large["requests"] and size <= large["bytes"] for requests, size in sizes)
    if by == "requests":
        assert [requests for requests, _ in sizes] == [50_000 // part, 50_000 // part, 5_000 // part]
    else:
        assert len(sizes) == -(-sum(size for _, size in sizes) // large["bytes"])  # no more files than it takes
        assert all(size > large["bytes"] - 10_000 for _, size in sizes[:-1])
    assert peak - before < max(80_000_000 // part, 12_000_000)


def test_a_request_larger_than_a_file_may_be_has_failed(tmp_path: Path) -> None:
    with BatchServer() as server, Client(server, tmp_path, bytes=500) as client:
        client.batches.add([place(0)])
        client.until_done()
        assert count_by_state(client.cache) == {"failed": 1}
        assert server.batches == {}


def test_a_state_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "state.sqlite"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE mine (x)")
    before = foreign.read_bytes()
    with pytest.raises(CatalogueError, match="not a state of caption batches"):
        BatchState(foreign)
    text = tmp_path / "text.sqlite"
    text.write_text("no database" * 500)
    with pytest.raises(CatalogueError, match="damaged"):
        BatchState(text)
    assert foreign.read_bytes() == before
