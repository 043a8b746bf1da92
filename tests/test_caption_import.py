"""Captions of somebody else: taken into one's own file by a command alone, and only as a server's
answer would be.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from captioners import count_by_state, read_spool
from conftest import TINY, Result, two_halves
from openai_batches import BatchServer
from openai_server import completion
from test_captioner_schema import answer

from fashionrec.captioner.cache import CaptionCache, Place
from fashionrec.captioner.ledger import Ledger
from fashionrec.captioner.openai.wire import stored_answer
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.schema import Description
from fashionrec.captioner.spool import Spool, SpooledAnswer
from fashionrec.types import Box

Cli = Callable[..., Result]
GARMENTS = 3
MODELS = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
    monkeypatch.setenv("FASHIONREC_CAPTIONER__KIND", "openai")


@pytest.fixture
def index(cli: Cli, tmp_path: Path) -> Path:
    for n in range(GARMENTS):
        two_halves(tmp_path / "photos" / f"p{n}.jpg", "red", "white", (120 + n, 90))
    assert cli("build-index", "photos", "--index", "c", *MODELS, "--quiet").code == 0
    return tmp_path / "c"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    with BatchServer() as running:
        monkeypatch.setenv("FASHIONREC_CAPTIONER__BASE_URL", running.base_url)
        yield running


def places(index: Path) -> list[Place]:
    from fashionrec import Catalogue

    with Catalogue.open(index) as catalogue:
        return [Place(s.photo, s.item.class_name, s.item.box) for s in catalogue.items.everything()]


def body(content: str) -> str:
    return stored_answer(json.loads(completion(content)))


def somebody_elses(index: Path, server: BatchServer, cli: Cli, user_cache: Path) -> Path:
    """A captioned catalogue as it comes from a colleague: with its file, and without anything of
    this user.
    """
    assert cli("caption", "--index", "c", "--quiet").code == 0
    server.requests.clear()
    shutil.rmtree("data")
    shutil.rmtree(user_cache)
    return index


def count(path: Path) -> dict[str, int]:
    with CaptionCache(path) as cache:
        return count_by_state(cache)


def test_a_catalogue_of_somebody_else_keeps_its_captions_and_gives_none_away(
    cli: Cli, index: Path, server: BatchServer, user_cache: Path, tmp_path: Path
) -> None:
    somebody_elses(index, server, cli, user_cache)
    assert cli("caption", "--index", "c", "--json").document["kept"] == GARMENTS
    assert count(tmp_path / "data" / "captions.sqlite") == {}
    shown = cli("catalogue", "show", "c", "--product", "p0.jpg", "--json")
    assert "A black striped garment" in shown.out
    assert cli("build-index", "photos", "--index", "d", *MODELS, "--quiet").code == 0
    assert cli("caption", "--index", "d", "--dry-run", "--json").document["plan"]["to_ask"] == GARMENTS
    assert server.requests == []


def test_captions_are_imported_by_a_command(
    cli: Cli, index: Path, server: BatchServer, user_cache: Path, tmp_path: Path
) -> None:
    somebody_elses(index, server, cli, user_cache)
    done = cli("caption", "--import-captions", "c", "--json")
    assert done.code == 0, done.err
    document = done.document
    assert (document["imported"], document["known"], document["refused"]) == (GARMENTS, 0, {})
    assert cli("caption", "--import-captions", "c/captions.sqlite", "--json").document["known"] == GARMENTS
    assert cli("build-index", "photos", "--index", "d", *MODELS, "--quiet").code == 0
    assert cli("caption", "--index", "d", "--json").document["reused"] == GARMENTS
    assert server.requests == []


def forge(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(sql, values)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("raw", json.dumps(answer(caption_en="long shirt " * 90_000)), "too-long"),
        ("raw", json.dumps(answer(caption_en="long shirt " * 100)), "too-long"),
        ("raw", json.dumps(answer(caption_en="셔츠")), "language"),
        ("raw", json.dumps(answer(caption_ko="shirt")), "language"),
        ("raw", json.dumps(answer(color="#ff0000")), "schema"),
        ("raw", json.dumps({"caption_en": "x"}), "schema"),
        ("raw", "[" * 5000, "schema"),
        ("raw", None, "schema"),
        ("raw", b"\xff\x00", "schema"),
        ("class_name", "\x1b]52;c;AAAA\x07", "garment"),
        ("photo_sha256", "../../etc/passwd", "garment"),
        ("x2", 1e999, "garment"),
        ("model", "m" * 10_000, "model"),
        ("model", "gpt\x1b[2J", "model"),
    ],
)
def test_what_no_server_could_have_answered_is_rejected(
    column: str,
    value: object,
    reason: str,
    cli: Cli,
    index: Path,
    server: BatchServer,
    user_cache: Path,
    tmp_path: Path,
) -> None:
    somebody_elses(index, server, cli, user_cache)
    forge(index / "captions.sqlite", f"UPDATE outcomes SET {column} = ? WHERE rowid = 1", value)
    done = cli("caption", "--import-captions", "c", "--json")
    assert done.code == 3, done.err
    assert json.loads(done.out)["refused"] == {reason: 1}
    assert done.err.splitlines()[-2:] == [
        "error: 1 caption of c rejected: a server could not have returned them",
        "hint: all others were imported",
    ]
    assert count(tmp_path / "data" / "captions.sqlite") == {"done": GARMENTS - 1}
    assert cli("caption", "--import-captions", "c").out.splitlines() == [
        f"0 captions imported, {GARMENTS - 1} already known, 0 other records, 1 rejected",
        f"  rejected ({reason}): 1",
    ]


def test_the_text_is_that_of_the_answer_not_of_the_record_beside_it(
    cli: Cli, index: Path, server: BatchServer, user_cache: Path, tmp_path: Path
) -> None:
    somebody_elses(index, server, cli, user_cache)
    lie = answer(caption_en="\x1b]0;owned\x07 Buy at evil.example")
    forge(index / "captions.sqlite", "UPDATE outcomes SET record = ?", json.dumps(lie))
    done = cli("caption", "--import-captions", "c")
    assert (done.code, done.out) == (
        0,
        f"{GARMENTS} captions imported, 0 already known, 0 other records\n",
    )
    with CaptionCache(tmp_path / "data" / "captions.sqlite") as cache:
        texts = {one.outcome.description.caption_en for group in cache.everything("openai") for one in group}  # type: ignore[union-attr]
    assert texts == {"A black striped garment"}


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("CREATE VIEW v AS SELECT 1", "not part of fashionrec's schema"),
        ("CREATE TRIGGER t AFTER DELETE ON outcomes BEGIN SELECT 1; END", "not part of fashionrec's schema"),
        ("DROP TABLE outcomes", "is damaged"),
        ("PRAGMA user_version = 9", "has schema 9"),
    ],
)
def test_a_file_that_is_no_file_of_captions_is_rejected(
    sql: str, told: str, cli: Cli, index: Path, server: BatchServer, user_cache: Path
) -> None:
    somebody_elses(index, server, cli, user_cache)
    forge(index / "captions.sqlite", sql)
    for command in (("--import-captions", "c"), ("--index", "c")):
        done = cli("caption", *command)
        assert done.code == 2, done.err
        assert told in done.err


def test_nothing_to_import_is_said(cli: Cli, index: Path, tmp_path: Path) -> None:
    assert cli("caption", "--import-captions", "photos").code == 2
    assert cli("caption", "--import-captions", "nowhere").code == 2
    assert cli("caption", "--import-captions", "c", "--index", "c").code == 2


def test_a_link_in_the_place_of_the_captions_is_not_followed(
    cli: Cli, index: Path, server: BatchServer, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.sqlite"
    CaptionCache(secret).close()
    before = secret.read_bytes()
    for name in ("captions.sqlite", ".captions.arrived", ".captions.lock"):
        link = index / name
        link.unlink(missing_ok=True)
        link.symlink_to(secret)
        commands = [("--index", "c")]
        if name != ".captions.lock":
            commands.append(("--import-captions", "c"))
        for command in commands:
            done = cli("caption", *command)
            assert done.code == 2, (name, done.err)
            assert f"{name} is a link" in done.err
        link.unlink()
    assert secret.read_bytes() == before
    assert server.requests == []


def test_a_record_that_was_forged_is_not_shown_in_its_own_catalogue_either(
    cli: Cli, index: Path, server: BatchServer, tmp_path: Path
) -> None:
    described = Description.model_validate({**dict.fromkeys(Description.model_fields, ""), "confidence": 0.5})
    texts = ("x" * 1_000_000, "A \x1b]52;c;AAAA\x07 shirt", "A ‮ shirt")
    with CaptionCache(index / "captions.sqlite") as cache:
        for place, text in zip(places(index), texts, strict=True):
            forged = described.model_copy(update={"category": "top", "caption_en": text, "caption_ko": "셔츠"})
            cache.put(*place, Outcome("done", "openai", "gpt-4o", description=forged, raw="{}"))
    done = cli("caption", "--index", "c", "--json")
    assert done.document["states"] == {"invalid": GARMENTS}
    assert server.requests == [], "recorded is recorded: it is asked again with --retry"
    again = cli("caption", "--index", "c", "--retry", "invalid", "--json")
    assert again.document["made"] == GARMENTS


def test_a_catalogue_cannot_tell_that_captions_cost_nothing(cli: Cli, index: Path, server: BatchServer) -> None:
    with CaptionCache(index / "captions.sqlite") as cache:
        for n in range(20):
            cheap = Outcome("failed", "openai", "gpt-4o", usage={"input_tokens": 1, "output_tokens": 0})
            cache.put(f"{n:064x}", "top", Box(0, 0, 1, 1), cheap)
    plan = cli("caption", "--index", "c", "--dry-run", "--json").document["plan"]
    assert plan["tokens_each"]["measured"] == 0
    done = cli("caption", "--index", "c", "--batch", "--max-cost", "0.000001")
    assert done.code == 3
    assert len(server.batches) == 0


def test_a_projects_file_cannot_make_captions_cheap(cli: Cli, index: Path, server: BatchServer, tmp_path: Path) -> None:
    guess = cli("caption", "--index", "c", "--dry-run", "--json").document["plan"]["tokens_each"]
    (tmp_path / "data").mkdir(exist_ok=True)
    with CaptionCache(tmp_path / "data" / "captions.sqlite") as cache:
        for n in range(20):
            cheap = Outcome("failed", "openai", "gpt-4o", usage={"input_tokens": 1, "output_tokens": 0})
            cache.put(f"{n:064x}", "top", Box(0, 0, 1, 1), cheap)
    told = cli("caption", "--index", "c", "--dry-run", "--json").document["plan"]["tokens_each"]
    assert told["input"] >= guess["input"] / 5
    assert told["output"] >= guess["output"] / 5


# -- what a killed run has left


def left(index: Path, *contents: str, ledger: Ledger | None = None) -> Path:
    spool = Spool(index / ".captions.arrived", ledger)
    for place, content in zip(places(index), contents, strict=False):
        spool.append(SpooledAnswer(place, "gpt-4o", body(content), 0.5))
    spool.close()
    return spool.path


def test_answers_of_somebody_elses_run_are_not_used(cli: Cli, index: Path, server: BatchServer, tmp_path: Path) -> None:
    path = left(index, json.dumps(answer(caption_en="A planted text")), ledger=Ledger(tmp_path / "another user"))
    for options in ((), ("--batch",)):
        done = cli("caption", "--index", "c", *options)
        assert done.code == 2, done.err
        assert "has answers that were not written by your runs" in done.err
        assert "--import-captions" in done.err
    assert server.requests == []
    assert path.is_file()
    assert count(tmp_path / "data" / "captions.sqlite") == {}
    assert cli("caption", "--import-captions", "c", "--json").document["imported"] == 1
    assert not path.exists()
    done = cli("caption", "--index", "c", "--json")
    assert (done.document["reused"], done.document["made"]) == (1, GARMENTS - 1)


def test_answers_of_ones_own_run_are_used(cli: Cli, index: Path, server: BatchServer) -> None:
    path = left(index, json.dumps(answer(caption_en="A paid text")))
    done = cli("caption", "--index", "c", "--json")
    assert (done.document["reused"], done.document["made"]) == (1, GARMENTS - 1), done.err
    assert not path.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b"A paid text", b"A sold text"),
        lambda line: line.replace(b"gpt-4o", b"gpt-5x"),
        lambda line: json.dumps([*json.loads(line)[:6]]).encode() + b"\n",
        lambda line: json.dumps([*json.loads(line)[:6], None]).encode() + b"\n",
        lambda line: b"[" * 100_000 + b"\n",
        lambda line: b"x" * 3_000_000 + b"\n",
        lambda line: b"{}\n",
    ],
)
def test_an_answer_that_was_changed_is_somebody_elses(
    change: Callable[[bytes], bytes], cli: Cli, index: Path, server: BatchServer
) -> None:
    path = left(index, json.dumps(answer(caption_en="A paid text")))
    path.write_bytes(path.read_bytes() + change(path.read_bytes()))
    done = cli("caption", "--index", "c")
    assert done.code == 2, done.err
    assert "not written by your runs" in done.err


def test_forged_answers_are_counted_by_reason(cli: Cli, index: Path, server: BatchServer, tmp_path: Path) -> None:
    left(index, "no JSON", json.dumps(answer(caption_ko="x")), json.dumps(answer()))
    lines: list[Any] = [
        ["short"],
        [places(index)[0][0], "top", [0, 0, float("nan"), 1], "m", "{}", 1.0],
        ["/etc/passwd", "top", [0, 0, 1, 1], "m", "{}", 1.0],
        [places(index)[0][0], ["top"], [0, 0, 1, 1], "m", "{}", 1.0],
        [places(index)[0][0], "top", [0, 0, 1, 1], "m", "[[[[", 1.0],
    ]
    with (index / ".captions.arrived").open("ab") as spool:
        spool.writelines(json.dumps(line).encode() + b"\n" for line in lines)
        spool.write(b"y" * 2_500_000 + b"\n")
    assert len(read_spool(index / ".captions.arrived")) == 4
    done = cli("caption", "--import-captions", "c", "--json")
    assert done.code == 3
    assert json.loads(done.out)["refused"] == {"failed": 1, "language": 1, "line": 5, "schema": 1}
    assert count(tmp_path / "data" / "captions.sqlite") == {"done": 1}
