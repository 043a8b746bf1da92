"""The harness of an adversary: what it must see, what honest folders do, and a seeded sample of its
cells.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from adversary.cells import Place, cells, check, unexpected
from adversary.commands import EXCUSED, ROWS, Row, commands_of
from adversary.fixtures import needs_linux, places, world  # noqa: F401
from adversary.home import canary_state, differences
from adversary.naive import FAULTS
from adversary.places import FOLDERS
from adversary.plants import PLANTS
from adversary.project import CATALOGUE, World

from fashionrec.cli.main import make_app

pytestmark = needs_linux

PLANT = {plant.name: plant for plant in PLANTS}
HONEST = [(root, row) for root, rows in ROWS.items() for row in rows]


def test_every_command_has_a_row() -> None:
    there = commands_of(typer.main.get_command(make_app()))
    tried = {row.name for rows in ROWS.values() for row in rows}
    assert there - tried - EXCUSED.keys() == set(), "a new command: which folders of others does it read or write?"
    assert (tried | EXCUSED.keys()) - there == set()


@pytest.mark.parametrize("row", [row for _, row in HONEST if not row.heavy], ids=lambda row: row.text)
def test_honest_folders_are_used(world: World, row: Row) -> None:  # noqa: F811
    """Without this a refusal of everything, or of a misspelt option, would pass for safety."""
    env = {**world.env, "OPENAI_API_KEY": "sk-local"} if row.paid else None
    before = canary_state(world.home, world.ours)
    ended = world.run(*row.words, env=env)
    world.restore_all()
    assert ended.code == 0, ended.err
    assert list(unexpected(ended)) == []
    assert differences(before, canary_state(world.home, world.ours)) == []


def _reads() -> None:
    """Behave as a library in C does it, which no audit hook sees."""
    import ctypes

    path = os.path.expanduser("~/.ssh/id_ed25519").encode()  # noqa: PTH111
    libc = ctypes.CDLL(None)
    libc.close(libc.open(path, os.O_RDONLY))


def _in_a_child() -> None:
    subprocess.run(["cat", str(Path("~/.bashrc").expanduser())], check=True, stdout=subprocess.DEVNULL)


def _hangs() -> None:
    import time

    time.sleep(60)


FAULTY: dict[str, tuple[Callable[[], object], str]] = {
    "reads in C": (_reads, "a canary was touched"),
    "reads in another process": (_in_a_child, "a canary was touched"),
    "lists": (lambda: list(Path("~/Documents").expanduser().iterdir()), "a canary was touched"),
    "writes": (lambda: Path("~/.profile").expanduser().write_text("x"), "the home changed"),
    "makes a file": (lambda: Path("~/elsewhere/new").expanduser().touch(), "the home changed"),
    "removes": (lambda: Path("~/Documents/taxes/2025.txt").expanduser().unlink(), "the home changed"),
    "changes a mode": (lambda: Path("~/.ssh/id_ed25519").expanduser().chmod(0o644), "the home changed"),
    "copies out": (
        lambda: Path("out/copy").write_bytes(Path("~/.env").expanduser().read_bytes()),
        "a canary's content got out",
    ),
    "writes before it refuses": (lambda: Path(CATALOGUE, "late").touch(), "changed by a refused command"),
    "raises": (lambda: 1 / 0, "a bug"),
    "leaves without a word": (lambda: sys.exit(2), "not one line of error"),
    "accepts": (lambda: sys.exit(0), "accepted"),
}


@pytest.mark.parametrize("what", FAULTY)
def test_the_harness_sees(world: World, what: str) -> None:  # noqa: F811
    fault, kind = FAULTY[what]
    place = Place("catalogue", CATALOGUE, "measured.json", "file")
    row = next(row for row in ROWS["catalogue"] if row.name == "catalogue verify")

    with world.mended():
        found = check(world, (place, PLANT["link to a file"], row), lambda: fault)
    assert kind in {finding.kind for finding in found}, found


def test_the_harness_sees_a_command_that_does_not_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("adversary.cells.SECONDS", 1)
    place = Place("catalogue", CATALOGUE, "measured.json", "file")
    found = check(world, (place, PLANT["pipe"], ROWS["catalogue"][0]), _hangs)
    assert "it does not end" in {finding.kind for finding in found}


@pytest.mark.release(seconds=30)
@pytest.mark.parametrize(
    ("fault", "root", "name", "what", "line", "expected"),
    [
        ("removes", "catalogue", "indexes", "relative link to a folder", "catalogue update", "the home changed"),
        ("removes", "catalogue", "segments", "link to its own copy", "catalogue reindex", "the home changed"),
        ("removes", "catalogue", "bundles", "link to its own copy", "build-index", "the home changed"),
        ("removes", "catalogue", "generations/000001", "link to a folder", "catalogue update", "the home changed"),
        ("writes", "catalogue", "builds.jsonl", "relative link to a file", "build-index", "the home changed"),
        ("writes", "catalogue", ".measured.json.{pid}.tmp", "relative link to a file", "evaluate", "the home changed"),
        (
            "writes",
            "catalogue",
            ".catalogue.json.{pid}.tmp",
            "link to a file",
            "catalogue rollback",
            "the home changed",
        ),
        ("locks", "catalogue", ".captions.lock", "link to a file", "caption", "the home changed"),
        ("locks", "catalogue", ".lock", "dangling link", "catalogue update", "the home changed"),
        (
            "reads",
            "catalogue",
            "segments/000001-image/thumbnails.bin",
            "link to its own copy",
            "query",
            "a canary was touched",
        ),
        ("reads", "catalogue", "catalogue.json", "link to its own copy", "catalogue verify", "a canary was touched"),
        # whoever opens it is refused once more (common/sqlite.py); the others accept the catalogue
        ("unchecked", "catalogue", "captions.sqlite", "link to its own copy", "caption", "accepted"),
        ("removes", "staging", ".n.staging", "link to its own copy", "fetch-dataset", "the home changed"),
        ("reads", "staging", "request", "relative link to a file", "fetch-dataset", "a canary was touched"),
        ("reads", "bundle", "detect.onnx", "link to its own copy", "build-index", "a canary was touched"),
        ("reads", "bundle", "bundle.json", "link to its own copy", "build-index", "a canary was touched"),
        ("unchecked", "run", "weights/best.pt", "link to a file", "runs show", "accepted"),
        ("unchecked", "run", "run.json", "link to its own copy", "runs compare", "a canary was touched"),
        ("follows", "dataset", "train/images", "link to its own copy", "dataset audit", "a canary was touched"),
        ("follows", "dataset", "train/labels", "link to its own copy", "fetch-dataset", "a canary was touched"),
        ("unchecked", "project", "data/captions.sqlite", "link to its own copy", "caption", "a canary was touched"),
        ("unchecked", "catalogue", "unknown", "link to a file", "catalogue verify", "accepted"),
        ("unchecked", "catalogue", "unknown", "pipe", "catalogue verify", "accepted"),
        ("unchecked", "catalogue", "unknown", "socket", "catalogue verify", "accepted"),
        ("unchecked", "catalogue", "unknown", "loop", "catalogue verify", "accepted"),
    ],
)
def test_a_reverted_fix_is_caught(
    world: World,  # noqa: F811
    fault: str,
    root: str,
    name: str,
    what: str,
    line: str,
    expected: str,
) -> None:
    place = Place(root, "data" if name == ".n.staging" else FOLDERS[root], name, "any")
    kinds: set[str] = set()
    for row in ROWS[root]:
        if row.name == line:
            assert check(world, (place, PLANT[what], row)) == [], "with the fix"
            with world.mended():
                kinds |= {finding.kind for finding in check(world, (place, PLANT[what], row), FAULTS[fault])}
    assert expected in kinds


def test_some_cells(world: World, places: list[Place]) -> None:  # noqa: F811
    """A seeded sample: each plant and each command is in it."""
    every = list(cells(places))
    rng = random.Random(0)
    chosen = [
        rng.choice([cell for cell in every if cell[2] == row]) for row in dict.fromkeys(cell[2] for cell in every)
    ]
    chosen += [rng.choice([cell for cell in every if cell[1] == plant]) for plant in PLANTS]
    chosen += rng.sample(every, 10)
    found = [finding for cell in chosen for finding in check(world, cell)]
    assert not found, "\n".join(map(str, found))
