"""Parts of a batch on their way: what each step says, records and leaves, whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai_batches import BatchServer, Ending, Plan, answered, completes, expired, refused
from test_captioner_batch import KEY, Forgetful, place, settings

from fashionrec.captioner.base import BatchProgress
from fashionrec.captioner.cache import Place
from fashionrec.captioner.ledger import Ledger
from fashionrec.captioner.openai.batch import Batches
from fashionrec.captioner.openai.batch_answers import Collected
from fashionrec.captioner.openai.batch_state import custom_id
from fashionrec.captioner.openai.client import host
from fashionrec.captioner.openai.remote import OpenAICaptioner
from fashionrec.captioner.openai.wire import request_body
from fashionrec.captioner.outcome import Outcome
from fashionrec.errors import CaptionError, CatalogueError, Refused


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with BatchServer() as running:
        yield running


class Part:
    """A process's part. ``outcomes`` is what was recorded, ``slept`` the pauses."""

    def __init__(
        self, server: BatchServer, folder: Path, *, limits: dict[str, Any] | None = None, **given: Any
    ) -> None:
        config = settings(server, **(limits or {}))
        self.remote = OpenAICaptioner(config, api_key=KEY, backoff=0.01)
        self.caller = self.remote.caller()
        self.ledger = Ledger()
        self.outcomes: list[tuple[Place, Outcome]] = []
        self.slept: list[float] = []
        self.folder = folder / "batches"
        api = given.pop("api", None)
        options: dict[str, Any] = {"body": lambda one: BODY, "ledger": self.ledger, "sleep": self.slept.append}
        self.batches = Batches(
            self.folder,
            self.remote.config,
            self.caller,
            record=self.record,
            **options | given,
            api=api(self.caller) if api else None,
        )

    def record(self, found: Sequence[Collected]) -> None:
        self.outcomes += [(one.place, self.remote.read_collected(one)) for one in found]

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        self.batches.close()
        self.caller.leave()


BODY = request_body("gpt-4o", {}, b"jpeg", "top")


def run(server: BatchServer, folder: Path, plan: Sequence[Plan], garments: int = 1, **limits: Any) -> Part:
    """A part after all of its garments have an outcome."""
    server.plan = list(plan)
    with Part(server, folder, limits=limits) as part:
        part.batches.add(place(n) for n in range(garments))
        for _ in range(20):
            if not part.batches.advance().outstanding:
                return part
    raise AssertionError("it does not end")


def test_what_each_call_has_done(server: BatchServer, tmp_path: Path) -> None:
    def most(lines: Sequence[dict[str, Any]]) -> Ending:
        return Ending("expired", [answered(line) for line in lines[2:]], [expired(line) for line in lines[:1]])

    def doubled(lines: Sequence[dict[str, Any]]) -> Ending:
        return Ending(output=[answered(line) for line in [*lines, lines[0]]])

    server.plan = [completes, most]
    with Part(server, tmp_path) as part:
        assert part.batches.add(place(n) for n in range(13)) == 13
        assert part.batches.add(place(n) for n in range(14)) == 1
        assert part.batches.planned_requests() == 14
        assert part.ledger.planned(part.folder) == {custom_id(place(n)) for n in range(14)}
        assert part.batches.advance() == BatchProgress(submitted=14, outstanding=14)
        assert part.batches.planned_requests() == 0
        assert [open_.requests for open_ in part.batches.open_parts()] == [10, 4]
        # the two that have no answer are submitted anew at once
        server.plan += [doubled]
        assert part.batches.advance() == BatchProgress(submitted=2, collected=12, resubmitted=2, outstanding=2)
        assert part.ledger.planned(part.folder) == {custom_id(place(10)), custom_id(place(11))}
        assert part.batches.advance() == BatchProgress(collected=2, duplicates=1)
        assert part.ledger.planned(part.folder) == set()
        assert part.batches.advance() == BatchProgress()
    assert sorted(one.photo_sha256 for one, _ in part.outcomes) == [place(n).photo_sha256 for n in range(14)]
    assert {outcome.state for _, outcome in part.outcomes} == {"done"}
    assert list(part.ledger.folder.glob("*.json")) == []


def line_of(status: Any, body: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda line: {
        "custom_id": line["custom_id"],
        "response": {"status_code": status, "body": body},
        "error": None,
    }


def bare(line: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": line["custom_id"]}


def failed(error: str, retryable: bool) -> Outcome:
    return Outcome("failed", "openai", "gpt-4o", error=error, retryable=retryable)


NO_JSON = "the server's answer is not JSON"


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        (
            lambda line: refused(line, 400, f"flagged {KEY}", "content_policy_violation"),
            Outcome("filtered", "openai", "gpt-4o", error="400: flagged [key]"),
        ),
        (lambda line: refused(line, 400, "odd", "invalid_image"), failed("400: odd", False)),
        (lambda line: refused(line, 403, "odd", "content_filter"), failed("403: odd", False)),
        (lambda line: refused(line, 500, f"down {KEY}"), failed("500: down [key]", True)),
        (lambda line: refused(line, 429, "slow down"), failed("429: slow down", True)),
        (line_of("many", None), failed("0: None", False)),
        (line_of(500, {"error": "text"}), failed("500: None", True)),
        (line_of(200, None), failed(NO_JSON, True)),
        (
            lambda line: expired(line, "batch_cancelled"),
            failed("batch_cancelled: This request could not be executed before the completion window expired.", True),
        ),
        (bare, failed("None: None", True)),
    ],
)
def test_what_a_line_says_of_its_garment(
    line: Callable[[dict[str, Any]], dict[str, Any]], outcome: Outcome, server: BatchServer, tmp_path: Path
) -> None:
    part = run(server, tmp_path, [lambda lines: Ending(errors=[line(one) for one in lines])])
    assert part.outcomes == [(place(0), outcome)]
    assert len(server.batches) == 1


def nothing(status: str, *wrong: tuple[str, str]) -> Plan:
    return lambda lines: Ending(status, wrong=[{"code": code, "message": text} for code, text in wrong])


def no_line(lines: Sequence[dict[str, Any]]) -> Ending:
    return Ending("expired", errors=[expired(line) for line in lines])


def garbage(text: bytes) -> Plan:
    return lambda lines: Ending(garbage=text, output=[answered(lines[0])])


LONG = b'{"custom_id": "' + b"x" * (1 << 18) + b'"}\n'


@pytest.mark.parametrize(
    ("plan", "batches", "error"),
    [
        ([no_line] * 2, 2, "no answer in 2 batches"),
        ([nothing("failed", ("a", "one"), ("b", KEY), ("c", "three"), ("d", "four"))] * 2, 2, "a: one; b: [key]; c: three"),
        ([nothing("cancelled")], 1, "the batch was cancelled"),
        ([nothing("cancelled", ("a", "by you"))], 1, "a: by you"),
        *(([garbage(text)], 1, "the answer is unreadable") for text in (
            b"{\n", b"[]\n", b'{"id": 1}\n', b'{"custom_id": 3}\n', b"[" * 9000 + b"\n", b"\xff\n", LONG, LONG[:-1],
        )),
    ],
)  # fmt: skip
def test_what_is_told_of_a_garment_without_an_answer(
    plan: Sequence[Plan], batches: int, error: str, server: BatchServer, tmp_path: Path
) -> None:
    part = run(server, tmp_path, plan, 2, attempts=2)
    without = [(one, outcome) for one, outcome in part.outcomes if outcome.state != "done"]
    assert (place(1), failed(error, True)) in without
    assert len(server.batches) == batches
    assert len(part.outcomes) == 2


def test_empty_lines_and_lines_of_nobodys_say_nothing(server: BatchServer, tmp_path: Path) -> None:
    stranger = json.dumps({"custom_id": "g-0", "response": None, "error": None}).encode()
    plan: Plan = lambda lines: Ending(garbage=b"\n  \n" + stranger + b"\n", output=[answered(lines[0])])  # noqa: E731
    part = run(server, tmp_path, [plan], 2)
    assert [outcome.state for _, outcome in part.outcomes] == ["done", "done"]
    assert len(server.batches) == 2, "the other was submitted again"


def test_a_line_may_be_almost_a_quarter_of_a_mebibyte(server: BatchServer, tmp_path: Path) -> None:
    def long(lines: Sequence[dict[str, Any]]) -> Ending:
        found = answered(lines[0])
        found["padding"] = "x" * (
            (1 << 18) - len(json.dumps(found, ensure_ascii=False).encode()) - len(', "padding": ""') - 2
        )
        assert len(json.dumps(found, ensure_ascii=False).encode()) + 1 == (1 << 18) - 1
        return Ending(output=[found, *map(answered, lines[1:])])

    part = run(server, tmp_path, [long], 2)
    assert [outcome.state for _, outcome in part.outcomes] == ["done", "done"]
    assert len(server.batches) == 1


def test_a_request_that_is_too_large_has_failed_and_the_others_are_sent(server: BatchServer, tmp_path: Path) -> None:
    places = [place(0), place(1), place(2)]
    bodies = {place(0): {"f": "x" * 5000}, place(1): {"f": "빨강"}, place(2): None}
    seen: list[bytes] = []

    def keeps(lines: Sequence[dict[str, Any]]) -> Ending:
        seen.extend(content for file, content in server.files.values() if file.purpose == "batch")
        return Ending(output=[answered({"custom_id": line["custom_id"], "body": BODY}) for line in lines])

    server.plan = [keeps]
    with Part(server, tmp_path, limits={"bytes": 4000}, body=bodies.__getitem__) as part:
        part.batches.add(places)
        assert part.batches.advance() == BatchProgress(submitted=1, outstanding=1)
        assert part.outcomes == [(place(0), failed("the request exceeds the size limit of a batch file", False))]
        assert part.batches.state.find([custom_id(place(2))]) == {}, "it is gone"
        part.batches.advance()
    line = (
        f'{{"custom_id":"{custom_id(place(1))}","method":"POST","url":"/v1/chat/completions","body":{{"f":"빨강"}}}}\n'
    )
    assert seen == [line.encode()]


@pytest.mark.parametrize(("spare", "sizes"), [(0, [2, 1]), (-1, [1, 1, 1])])
def test_a_file_holds_as_many_requests_as_its_bytes_allow(
    spare: int, sizes: list[int], server: BatchServer, tmp_path: Path
) -> None:
    line = {"custom_id": custom_id(place(0)), "method": "POST", "url": "/v1/chat/completions", "body": BODY}
    length = len(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()) + 1
    with Part(server, tmp_path, limits={"bytes": 2 * length + spare}) as part:
        part.batches.add(place(n) for n in range(3))
        part.batches.advance()
        assert [one.requests for one in part.batches.open_parts()] == sizes
        assert [one.bytes for one in part.batches.open_parts()] == [length * n for n in sizes]


def test_one_request_may_fill_a_file(server: BatchServer, tmp_path: Path) -> None:
    line = {"custom_id": custom_id(place(0)), "method": "POST", "url": "/v1/chat/completions", "body": BODY}
    length = len(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()) + 1
    assert run(server, tmp_path, [], bytes=length).outcomes[0][1].state == "done"


# -- what may be sent


def test_no_more_is_sent_than_may_be(server: BatchServer, tmp_path: Path) -> None:
    with Part(server, tmp_path, limits={"requests": 2}, most=3) as part:
        part.batches.add(place(n) for n in range(5))
        assert part.batches.advance() == BatchProgress(submitted=3, held=2, outstanding=5)
        assert [one.requests for one in part.batches.open_parts()] == [2, 1]
        assert part.batches.advance() == BatchProgress(collected=3, held=2, outstanding=2)


def test_what_waits_and_was_planned_by_nobody_here_is_counted(server: BatchServer, tmp_path: Path) -> None:
    with Part(server, tmp_path) as part:
        part.batches.state.add([place(0), place(1)])
        assert part.batches.add([place(2)]) == 1
        assert part.batches.advance() == BatchProgress(submitted=1, unplanned=2, outstanding=3)
        assert part.batches.add([place(0)]) == 1, "it is planned now, though it waited already"


def stopped(server: BatchServer, folder: Path, what: str, status: int = 400, **given: Any) -> str:
    """The token of a part at which the server said no."""
    server.fails = [(what, status)] * 10
    with Part(server, folder, **given) as part:
        part.batches.add([place(0), place(1)])
        with pytest.raises(CaptionError):
            part.batches.advance()
        (open_,) = part.batches.open_parts()
    server.fails.clear()
    return open_.token


@pytest.mark.parametrize(
    ("status", "state", "sent", "asked"), [(400, "uploaded", False, 1), (503, "creating", True, 2)]
)
def test_whether_a_batch_was_submitted_is_recorded_before_it_is(
    status: int, state: str, sent: bool, asked: int, server: BatchServer, tmp_path: Path
) -> None:
    ledger = Ledger()
    said: list[bool] = []

    def step(what: str, when: str) -> None:
        if (what, when) == ("POST /batches", "before"):
            (path,) = ledger.folder.glob("*.part.json")
            found = ledger.find(path.name.split(".")[0])
            said.append(found is not None and found.sent and found.file_id is not None)

    server.step = step
    token = stopped(server, tmp_path, "POST /batches", status, api=Forgetful)
    assert said == [True] * asked
    known = ledger.find(token)
    assert known is not None
    assert (known.sent, known.folder, known.server) == (sent, str(tmp_path.resolve() / "batches"), server.base_url)
    assert (known.model, known.requests) == ("gpt-4o", 2)
    with Part(server, tmp_path) as part:
        assert [one.state for one in part.batches.open_parts()] == [state]
        assert (tmp_path / "batches" / f"fashionrec-{token}.jsonl").stat().st_size == known.bytes


def test_a_batch_that_is_not_listed_yet_is_looked_for_after_longer_and_longer_pauses(
    server: BatchServer, tmp_path: Path
) -> None:
    stopped(server, tmp_path, "POST /batches", 503, api=Forgetful)
    server.fails = [("POST /batches", 503)] * 10
    with Part(server, tmp_path, limits={"poll": 7.0}, api=Forgetful) as part, pytest.raises(CaptionError) as caught:
        part.batches.advance()
    assert str(caught.value) == "submitting a batch: 503: upstream is down"
    assert part.slept == [5.0, 7.0]  # at most as long as between two looks


def test_a_part_of_which_nothing_is_left_is_given_up(server: BatchServer, tmp_path: Path) -> None:
    token = stopped(server, tmp_path, "POST /files")
    server.files.clear()
    (tmp_path / "batches" / f"fashionrec-{token}.jsonl").unlink()
    with Part(server, tmp_path, most=2) as part:  # what was not sent is not counted
        assert part.batches.advance() == BatchProgress(submitted=2, outstanding=2)
        assert part.ledger.find(token) is None
        (open_,) = part.batches.open_parts()
        assert open_.token != token
        assert part.batches.state.sent_in(open_.part, at_least=2) == []


DISCARD = "--batch --discard-unsent plans its garments again; nothing was paid for it"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (None, "has no record in {ledger}: another user or an older fashionrec planned it"),
        ({"folder": "/elsewhere"}, "was planned for /elsewhere"),
        ({"model": "m-2"}, "differs from the plan: 2 requests of m-2"),
        ({"requests": 1234}, "differs from the plan: 1,234 requests of gpt-4o"),
        ({"bytes": 1}, "differs from the plan: 2 requests of gpt-4o"),
        ({"server": "http://other/v1"}, "was planned for http://other/v1, not {server}"),
        ({"sha256": "0" * 64}, "its file fashionrec-{token}.jsonl differs from the plan"),
    ],
)
def test_a_part_that_is_not_as_it_was_planned_is_not_sent(
    change: dict[str, Any] | None, told: str, server: BatchServer, tmp_path: Path
) -> None:
    token = stopped(server, tmp_path, "POST /files")
    ledger = Ledger()
    known = ledger.find(token)
    assert known is not None
    ledger.record(replace(known, **change)) if change else ledger.forget(token)
    server.others.clear()
    with Part(server, tmp_path) as part:
        with pytest.raises(CatalogueError) as caught:
            part.batches.advance()
        assert not isinstance(caught.value, Refused)
        what = told.format(ledger=ledger.folder, server=server.base_url, token=token)
        joined = f"part 1 (2 requests, gpt-4o){':' if what.startswith('its') else ''} {what}"
        assert str(caught.value) == f"{part.folder}: nothing is sent: {joined}"
        assert caught.value.hint == DISCARD
        assert server.others == []
        assert part.batches.discard_unsent() == 2
        assert part.batches.advance().submitted == 2
    assert not list((tmp_path / "batches").glob("*.jsonl"))


def test_a_part_for_another_model_than_is_asked_is_not_sent(server: BatchServer, tmp_path: Path) -> None:
    stopped(server, tmp_path, "POST /files")
    with Part(server, tmp_path) as part:
        part.remote.config = part.remote.config.model_copy(update={"model": "gpt-6-luna"})
        batches = Batches(part.folder, part.remote.config, part.caller, body=lambda one: BODY, record=part.record)
        with batches, pytest.raises(CatalogueError) as caught:
            batches.advance()
    assert str(caught.value).endswith(
        "part 1 (2 requests, gpt-4o) was planned for another model than captioner.model (gpt-6-luna)"
    )


def test_what_is_refused_holds_up_no_answers(server: BatchServer, tmp_path: Path) -> None:
    with Part(server, tmp_path) as part:
        part.batches.add([place(9)])
        part.batches.advance()
    for n in range(2):
        server.fails = [("POST /files", 400)] * 2
        with Part(server, tmp_path) as part:
            part.batches.add([place(n)])
            state = part.batches.state
            state.write_part(f"{n:032x}", host(server.base_url), "gpt-4o", [custom_id(place(n))], 1)
    server.fails.clear()
    with Part(server, tmp_path) as part:
        with pytest.raises(Refused) as caught:
            part.batches.advance()
        assert str(caught.value).endswith("an older fashionrec planned it (and 1 more)")
        assert [one.photo_sha256 for one, _ in part.outcomes] == [place(9).photo_sha256]
        assert part.batches.discard_unsent() == 2


def test_a_batch_of_another_server_is_named(server: BatchServer, tmp_path: Path) -> None:
    with Part(server, tmp_path) as part:
        part.batches.state.write_part("a" * 32, "shop.test\x1b[2J", "gpt-4o", [], 1)
        with pytest.raises(CaptionError) as caught:
            part.batches.advance()
    assert str(caught.value) == (rf"a batch of this catalogue is on shop.test\x1b[2J, not on {host(server.base_url)}")
    assert caught.value.hint == "restore captioner.base_url and collect it with --batch --resume"


# -- looks


def test_a_batch_that_found_no_room_is_told_and_submitted_again(server: BatchServer, tmp_path: Path) -> None:
    server.plan = [nothing("failed", ("rate_limit_exceeded", "full"))]
    with Part(server, tmp_path, most=1) as part:
        part.batches.add([place(0)])
        part.batches.advance()
        (before,) = part.batches.open_parts()
        waits = f"the queue of {host(server.base_url)} is full, the batch is submitted later: rate_limit_exceeded: full"
        # nothing was spent on the first: the second is within the limit
        assert part.batches.advance() == BatchProgress(submitted=1, outstanding=1, errors=[waits])
        (after,) = part.batches.open_parts()
        assert (after.state, after.batch_id, after.file_id) == ("submitted", "batch-1", before.file_id)
        assert server.batches["batch-1"].metadata == {"fashionrec": after.token} != {"fashionrec": before.token}
        assert part.ledger.find(before.token) is None
        known = part.ledger.find(after.token)
        assert known is not None
        assert (known.sent, known.file_id) == (True, after.file_id)
        assert part.batches.advance() == BatchProgress(collected=1, errors=["batch batch-1: rate_limit_exceeded: full"])


@pytest.mark.parametrize(
    ("changes", "status", "completed"),
    [
        ({"status": "in_progress", "request_counts": {"completed": 2, "failed": 0, "total": 2}}, "in_progress", 2),
        ({"status": "s" * 50, "request_counts": {"completed": 3, "failed": 0, "total": 3}}, "s" * 40, None),
        ({"status": "finalizing", "request_counts": {"completed": -1, "failed": 0, "total": 3}}, "finalizing", None),
        ({"status": 5, "request_counts": None}, "unknown", None),
        ({"status": "cancelling", "request_counts": {"completed": 0, "failed": 0, "total": 3}}, "cancelling", 0),
    ],
)
def test_what_a_look_says_is_kept(
    changes: dict[str, Any], status: str, completed: int | None, server: BatchServer, tmp_path: Path
) -> None:
    with Part(server, tmp_path) as part:
        part.batches.add([place(0), place(1)])
        part.batches.advance()
        made = server.batches["batch-0"].model_dump() | changes
        server.batches["batch-0"] = type(server.batches["batch-0"]).model_construct(**made)
        server.looks["batch-0"] = 5
        done = part.batches.advance()
        assert done == BatchProgress(outstanding=2, completed=completed or 0)
        (open_,) = part.batches.open_parts()
        assert (open_.state, open_.status, open_.completed) == ("submitted", status, completed)
        keys = ("batch_id", "status", "state", "server", "model", "requests", "completed", "created_at", "error")
        assert OpenAICaptioner.open_batches(part.folder) == [{key: getattr(open_, key) for key in keys}]
        assert OpenAICaptioner.open_batches(part.folder)[0]["batch_id"] == "batch-0"


def test_answers_that_come_short_are_told(server: BatchServer, tmp_path: Path) -> None:
    with Part(server, tmp_path) as part:
        part.batches.add([place(0), place(1)])
        part.batches.advance()
        server.work("batch-0")
        output = str(server.batches["batch-0"].output_file_id)
        file, content = server.files[output]
        server.files[output] = file, content.splitlines()[0] + b"\n"
        server.looks["batch-0"] = 5
        with pytest.raises(CaptionError) as caught:
            part.batches.advance()
    assert str(caught.value) == "batch batch-0 has 2 answers, but its file has 1"
    assert caught.value.retryable
    assert caught.value.hint == "try again later: nothing is submitted again before the file is complete"


def test_answers_that_are_gone_are_told_of_each_garment(server: BatchServer, tmp_path: Path) -> None:
    with Part(server, tmp_path) as part:
        part.batches.add([place(0)])
        part.batches.advance()
        server.looks["batch-0"] = 5
        server.batches["batch-0"] = server.batches["batch-0"].model_copy(
            update={"status": "completed", "output_file_id": "file-gone"}
        )
        assert part.batches.advance() == BatchProgress()
        assert part.outcomes == [(place(0), failed("the server no longer has the batch's answers", True))]


def test_answers_of_another_batch_are_named(server: BatchServer, tmp_path: Path) -> None:
    with Part(server, tmp_path) as part:
        part.batches.add([place(0)])
        part.batches.advance()
        part.batches.state.change(1, "submitted", token="b" * 32)
        with pytest.raises(CatalogueError) as caught:
            part.batches.advance()
        assert str(caught.value) == (
            f"{part.folder}: part 1 does not belong to the batch batch-0; its answers are not used"
        )
        assert caught.value.hint == "move the folder away, or get a copy of the catalogue without it"


# -- what others ask of a folder


def test_the_garments_that_are_under_way(server: BatchServer, tmp_path: Path) -> None:
    under_way, folder = OpenAICaptioner.under_way, tmp_path / "batches"
    assert (under_way(folder, Ledger()).places, under_way(folder, Ledger()).unsent) == ((), 0)
    assert OpenAICaptioner.open_batches(folder) == []
    with Part(server, tmp_path, limits={"requests": 2}) as part:
        part.batches.add(place(n) for n in range(3))
        part.batches.state.add([place(7)])  # planned by nobody here
        found = under_way(folder, part.ledger)
        assert (list(found.places), found.unsent) == ([place(0), place(1), place(2)], 3)
        assert part.batches.write_next() == 1
        found = under_way(folder, part.ledger)
        assert (list(found.places), found.unsent) == ([place(0), place(1), place(2)], 3)
        part.batches.advance()
        found = under_way(folder, part.ledger)
        assert (list(found.places), found.unsent) == ([place(0), place(1), place(2)], 0)
        others = under_way(folder, Ledger(tmp_path / "other"))
        assert (list(others.places), others.unsent) == ([place(0), place(1), place(2)], 0)
