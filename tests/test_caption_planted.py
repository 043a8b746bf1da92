"""Batches in somebody else's catalogue: nothing of them is sent on this user's key, whatever their
state says.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Result, two_halves
from openai_batches import BatchServer, Ending, expired
from systems import posix_only

from fashionrec.captioner.cache import Place
from fashionrec.captioner.ledger import Ledger
from fashionrec.captioner.openai.batch_state import BatchState, custom_id
from fashionrec.types import Box

Cli = Callable[..., Result]
GARMENTS = 5
KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("FASHIONREC_CAPTIONER__KIND", "openai")
    monkeypatch.setenv("FASHIONREC_CAPTIONER__BATCH__POLL", "0.01")
    monkeypatch.setenv("FASHIONREC_CAPTIONER__RETRIES", "0")


@pytest.fixture
def index(cli: Cli, tmp_path: Path) -> Path:
    for n in range(GARMENTS):
        two_halves(tmp_path / "photos" / f"p{n}.jpg", "red", "white", (120 + n, 90))
    models = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")
    assert cli("build-index", "photos", "--index", "c", *models, "--quiet").code == 0
    return tmp_path / "c"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    with BatchServer() as running:
        monkeypatch.setenv("FASHIONREC_CAPTIONER__BASE_URL", running.base_url)
        yield running


def place(n: int) -> Place:
    return Place(f"{n:064x}", "top", Box(0, 0, 100, 100))


def plant(index: Path, server: BatchServer, requests: int = 1000, state: str = "written", **values: Any) -> Path:
    """A part that somebody else has put into a catalogue; returns its file of requests."""
    folder = index / "caption-batches"
    folder.mkdir(exist_ok=True)
    token = uuid.uuid4().hex
    body = {"model": "gpt-5-pro", "messages": [{"role": "user", "content": "write a novel"}]}
    lines = [
        {"custom_id": custom_id(place(n)), "method": "POST", "url": "/v1/chat/completions", "body": body}
        for n in range(requests)
    ]
    path = folder / f"fashionrec-{token}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with BatchState(folder / "state.sqlite") as book:
        names = book.add(place(n) for n in range(requests))
        host = server.base_url.split("/")[2]
        part = book.write_part(token, host, values.pop("model", "gpt-4o"), names, path.stat().st_size)
        book.change(part, state, **values)
    return path


def sent(server: BatchServer) -> list[str]:
    """The requests that cost something, or bring something to the server."""
    return [one for one in server.others if one.startswith(("POST", "DELETE"))] + [r.path for r in server.requests]


@pytest.mark.parametrize("options", [(), ("--max-cost", "0"), ("--resume",), ("--resume", "--wait", "--max-cost", "0")])
@pytest.mark.parametrize("state", ["written", "uploading", "uploaded", "creating"])
def test_a_planted_part_is_refused_and_never_sent(
    state: str, options: tuple[str, ...], cli: Cli, index: Path, server: BatchServer
) -> None:
    path = plant(index, server, state=state, file_id="file-of-mine" if state in ("uploaded", "creating") else None)
    done = cli("caption", "--index", "c", "--batch", *options, "--json")
    assert done.code == 2, done.err
    assert sent(server) == []
    assert "nothing is sent: part 1 (1,000 requests, gpt-4o) has no record in" in done.err
    assert path.is_file(), "it is left as it is"


def test_a_planted_part_is_given_up_where_that_is_wanted(cli: Cli, index: Path, server: BatchServer) -> None:
    path = plant(index, server)
    done = cli("caption", "--index", "c", "--batch", "--discard-unsent", "--json")
    assert done.code == 0, done.err
    assert not path.exists()
    assert done.document["asked"] == GARMENTS
    assert len(server.batches) == 1
    (content,) = [data for file, data in server.files.values() if file.purpose == "batch"]
    bodies = [json.loads(line)["body"] for line in content.splitlines()]
    assert len(bodies) == GARMENTS
    assert {body["model"] for body in bodies} == {"gpt-4o"}


def test_requests_that_wait_and_were_not_planned_are_not_sent(cli: Cli, index: Path, server: BatchServer) -> None:
    from fashionrec import Catalogue

    with Catalogue.open(index) as catalogue:
        garments = [Place(s.photo, s.item.class_name, s.item.box) for s in catalogue.items.everything()]
    (index / "caption-batches").mkdir()
    with BatchState(index / "caption-batches" / "state.sqlite") as book:
        assert len(book.add(garments)) == GARMENTS
    done = cli("caption", "--index", "c", "--batch", "--resume", "--wait", "--json")
    assert done.code == 0, done.err
    assert f"{GARMENTS} queued garments not sent, because this user did not plan them" in done.err
    assert sent(server) == []
    done = cli("caption", "--index", "c", "--batch", "--limit", "2", "--json")
    assert (done.code, done.document["asked"]) == (0, 2), done.err
    (batch,) = server.batches.values()
    assert len(server.files[batch.input_file_id][1].splitlines()) == 2


def stop_before(server: BatchServer, what: str) -> None:
    """The server refuses what would be done next, so that a part stays as it is."""
    server.fails = [(what, 400)] * 10


def unsent_part(cli: Cli, server: BatchServer) -> None:
    """A part that this user has planned and that could not be uploaded."""
    stop_before(server, "POST /files")
    assert cli("caption", "--index", "c", "--batch", "--json").code == 1
    server.fails.clear()
    server.files.clear()
    server.others.clear()


def test_a_part_of_ones_own_is_resumed(cli: Cli, index: Path, server: BatchServer, user_cache: Path) -> None:
    unsent_part(cli, server)
    assert len(list((user_cache / "captions").glob("*.part.json"))) == 1
    done = cli("caption", "--index", "c", "--batch", "--resume", "--wait", "--json")
    assert (done.code, done.document["made"]) == (0, GARMENTS), done.err
    assert set(server.paid.values()) == {1}
    assert not list((user_cache / "captions").glob("*.json")), "what is done with is forgotten"


@pytest.mark.parametrize("cap", ["0", "0.0001"])
def test_the_limit_of_the_cost_holds_for_resumed_parts(cap: str, cli: Cli, index: Path, server: BatchServer) -> None:
    unsent_part(cli, server)
    for options in (("--resume",), ("--resume", "--wait"), ()):
        done = cli("caption", "--index", "c", "--batch", *options, "--max-cost", cap, "--json")
        assert done.code == 3, done.err
        assert sent(server) == []
    done = cli("caption", "--index", "c", "--batch", "--resume", "--wait", "--max-cost", "1", "--json")
    assert (done.code, done.document["made"]) == (0, GARMENTS), done.err


def test_what_expired_is_not_submitted_again_past_the_limit_of_the_cost(
    cli: Cli, index: Path, server: BatchServer
) -> None:
    server.plan = [lambda lines: Ending("expired", errors=[expired(line) for line in lines])]
    assert cli("caption", "--index", "c", "--batch", "--json").code == 0
    cli("caption", "--index", "c", "--batch", "--resume", "--max-cost", "0", "--json")
    done = cli("caption", "--index", "c", "--batch", "--resume", "--max-cost", "0", "--json")
    assert done.code == 3, done.err
    assert (done.document["stopped"], done.document["left"]) == ("max-cost", GARMENTS) if done.out else True
    assert len(server.batches) == 1
    assert cli("caption", "--index", "c", "--batch", "--resume", "--wait", "--json").code == 0
    assert len(server.batches) == 2


def forge(index: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(index / "caption-batches" / "state.sqlite")) as db, db:
        db.execute(sql, values)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda index: forge(index, "UPDATE parts SET model = 'gpt-5-pro'"), "differs from the plan"),
        (lambda index: forge(index, "UPDATE parts SET requests = 1"), "differs from the plan"),
        (
            lambda index: forge(index, "UPDATE parts SET state = 'uploaded', file_id = 'file-x'"),
            "differs from the plan",
        ),
        (lambda index: forge(index, "UPDATE parts SET token = ?", "0" * 32), "has no record"),
        (lambda index: forge(index, "UPDATE parts SET token = '../../x'"), "is damaged"),
        (lambda index: forge(index, "UPDATE parts SET requests = 'many'"), "is damaged"),
        (lambda index: forge(index, "UPDATE requests SET custom_id = 'g-' || custom_id"), "is damaged"),
        (lambda index: forge(index, "UPDATE requests SET x2 = 1e999"), "is damaged"),
        (lambda index: forge(index, "CREATE VIEW v AS SELECT 1"), "not part of fashionrec's schema"),
    ],
)
def test_a_part_of_ones_own_that_was_changed_is_refused(
    change: Callable[[Path], None], told: str, cli: Cli, index: Path, server: BatchServer
) -> None:
    unsent_part(cli, server)
    change(index)
    done = cli("caption", "--index", "c", "--batch", "--resume")
    assert done.code == 2, done.err
    assert told in done.err
    assert sent(server) == []


def test_a_file_of_requests_that_was_changed_is_refused(cli: Cli, index: Path, server: BatchServer) -> None:
    unsent_part(cli, server)
    (path,) = (index / "caption-batches").glob("*.jsonl")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"gpt-4o", b"gpt-9x"))
    done = cli("caption", "--index", "c", "--batch", "--resume")
    assert (done.code, sent(server)) == (2, [])
    assert "differs from the plan" in done.err
    path.write_bytes(data)
    assert cli("caption", "--index", "c", "--batch", "--resume").code == 0


def test_a_part_for_another_model_is_not_sent(cli: Cli, index: Path, server: BatchServer) -> None:
    unsent_part(cli, server)
    done = cli("caption", "--index", "c", "--batch", "--resume", "--set", "captioner.model=gpt-6-luna")
    assert (done.code, sent(server)) == (2, [])
    assert "another model than captioner.model" in done.err


def test_a_copy_of_a_catalogue_does_not_pay_twice(cli: Cli, index: Path, server: BatchServer, tmp_path: Path) -> None:
    unsent_part(cli, server)
    shutil.copytree(index, tmp_path / "copy")
    done = cli("caption", "--index", "copy", "--batch", "--resume")
    assert (done.code, sent(server)) == (2, [])
    assert f"was planned for {index / 'caption-batches'}" in done.err
    shutil.copytree(index, tmp_path / "before")
    assert cli("caption", "--index", "c", "--batch").code == 0
    shutil.rmtree(index)  # restored from a copy made before it was submitted
    shutil.copytree(tmp_path / "before", index)
    done = cli("caption", "--index", "c", "--batch", "--resume", "--wait", "--json")
    assert (done.code, done.document["made"]) == (0, GARMENTS), done.err
    assert len(server.batches) == 1


def test_answers_of_a_batch_that_an_older_version_submitted_are_fetched(
    cli: Cli, index: Path, server: BatchServer, user_cache: Path
) -> None:
    assert cli("caption", "--index", "c", "--batch").code == 0
    shutil.rmtree(user_cache)  # there was no record then
    done = cli("caption", "--index", "c", "--batch", "--resume", "--wait", "--json")
    assert (done.code, done.document["made"]) == (0, GARMENTS), done.err
    assert not [one for one in server.others if one.startswith("DELETE")], "only its own files are removed"


def test_answers_of_another_batch_are_not_taken(cli: Cli, index: Path, server: BatchServer, user_cache: Path) -> None:
    assert cli("caption", "--index", "c", "--batch").code == 0
    shutil.rmtree(user_cache)
    forge(index, "UPDATE parts SET token = ?", "1" * 32)
    for state in ("submitted", "ended"):
        forge(index, "UPDATE parts SET state = ?, status = 'completed', output_file_id = 'file-0'", state)
        done = cli("caption", "--index", "c", "--batch", "--resume")
        assert done.code == 2, done.err
        assert "its answers are not used" in done.err
    assert not [one for one in server.others if one.startswith(("DELETE", "GET /files/"))]


@pytest.mark.parametrize("name", ["../../models", "batch/../x", "", "x" * 500, ".."])
def test_an_id_that_is_none_becomes_no_address(name: str, cli: Cli, index: Path, server: BatchServer) -> None:
    plant(index, server, 3, "submitted", batch_id=name)
    done = cli("caption", "--index", "c", "--batch", "--resume")
    assert done.code == 1, done.err
    assert "invalid file or batch id" in done.err
    assert [one for one in server.others if "/models/" not in one] == []


def test_a_file_name_that_a_server_makes_up_leads_nowhere(
    cli: Cli, index: Path, server: BatchServer, tmp_path: Path
) -> None:
    assert cli("caption", "--index", "c", "--batch").code == 0
    server.looks["batch-0"] = 5
    server.batches["batch-0"] = server.batches["batch-0"].model_copy(
        update={"status": "completed", "output_file_id": "../../../stolen"}
    )
    done = cli("caption", "--index", "c", "--batch", "--resume")
    assert done.code == 1
    assert "invalid file or batch id" in done.err


@pytest.mark.parametrize("entry", ["state.sqlite", "fashionrec-x.jsonl", "other"])
def test_a_link_among_the_batches_is_refused_by_name(
    entry: str, cli: Cli, index: Path, server: BatchServer, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    canary.write_text("mine")
    (index / "caption-batches").mkdir()
    (index / "caption-batches" / entry).symlink_to(canary)
    done = cli("caption", "--index", "c", "--batch")
    assert done.code == 2, done.err
    assert entry in done.err
    assert canary.read_text() == "mine"
    assert sent(server) == []


def test_only_files_of_our_own_names_are_swept(cli: Cli, index: Path, server: BatchServer, tmp_path: Path) -> None:
    folder = index / "caption-batches"
    folder.mkdir()
    kept = ["notes.jsonl", "orders.answers", "fashionrec-short.jsonl", "x.tmp"]
    gone = [f"fashionrec-{'a' * 32}.jsonl", f"fashionrec-{'b' * 32}.tmp", f"{'c' * 32}.file-1.answers"]
    for name in (*kept, *gone):
        (folder / name).write_text("x")
    assert cli("caption", "--index", "c", "--batch").code == 0
    assert {path.name for path in folder.iterdir()} == {*kept, "state.sqlite"}


def test_batches_that_are_a_link_are_not_followed(cli: Cli, index: Path, server: BatchServer, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (index / "caption-batches").symlink_to("..")
    for options in (("--batch",), ("--batch", "--dry-run"), ("--status",)):
        done = cli("caption", "--index", "c", *options)
        assert done.code == 2, done.err
        assert "caption-batches is a link" in done.err


def test_records_that_cannot_be_written_stop_before_anything_is_sent(
    cli: Cli, index: Path, server: BatchServer, user_cache: Path
) -> None:
    user_cache.parent.mkdir(exist_ok=True)
    user_cache.write_text("a file where the folder would be")
    done = cli("caption", "--index", "c", "--batch")
    assert done.code == 1
    assert "cannot be used" in done.err
    assert sent(server) == []


@posix_only("modes of files")
def test_records_that_others_could_have_written_are_none(
    cli: Cli, index: Path, server: BatchServer, user_cache: Path
) -> None:
    unsent_part(cli, server)
    (user_cache / "captions").chmod(0o777)
    done = cli("caption", "--index", "c", "--batch", "--resume")
    assert (done.code, sent(server)) == (2, []), done.err


def test_a_record_that_was_damaged_is_none(user_cache: Path) -> None:
    from fashionrec.captioner.ledger import PlannedPart

    ledger = Ledger()
    part = PlannedPart("0" * 32, "1" * 64, 10, 2, "m", "http://x", "/y")
    ledger.record(part)
    assert ledger.find(part.token) == part
    ledger.update(part.token, sent=True)
    assert ledger.find(part.token) == replace(part, sent=True)
    (user_cache / "captions" / f"{part.token}.part.json").write_text('{"token": 3}')
    assert ledger.find(part.token) is None
    assert ledger.find("../key") is None
    signature = ledger.signature(b"x")
    assert Ledger().is_own(b"x", signature)
    assert not Ledger().is_own(b"y", signature)
    assert not Ledger().is_own(b"x", "é" * 64)


@posix_only("modes of files")
def test_the_key_that_signs_records_is_this_users_alone(user_cache: Path) -> None:
    Ledger().signature(b"x")
    assert (user_cache / "captions" / "key").stat().st_mode & 0o077 == 0
