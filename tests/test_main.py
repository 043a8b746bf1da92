"""``python -m fashionrec``: what is set up before the command line is made, and how the process
leaves.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Result

import fashionrec
from fashionrec.cli.main import FAMILIES, make_app

#: A command line that prints what it finds, and ends as ``ending`` says.
SCRIPT = """
import atexit, gc, json, os, signal, sys, typer
from fashionrec.__main__ import main

found = {}

def made(self, *args, make=typer.Typer.__init__, **options):
    found.setdefault("collecting", gc.isenabled())
    make(self, *args, **options)

def run(self):
    found["mounted"] = sorted(one.name for one in [*self.registered_commands, *self.registered_groups])
    found["served"] = gc.isenabled()
    found["frozen"] = gc.get_freeze_count() > 1000
    found["guarded"] = type(sys.stdout).__name__, sys.__stderr__ is sys.stderr
    found.update((name, os.environ.get(name)) for name in ("PYTHONSAFEPATH", "OPENBLAS_NUM_THREADS"))
    handler = signal.getsignal(signal.SIGINT)
    found["interrupt"] = {signal.SIG_IGN: "ignored", signal.default_int_handler: "raised"}.get(handler, "ended")
    print(json.dumps(found))
    ENDING

atexit.register(print, "tidied up")
typer.Typer.__init__, typer.Typer.__call__ = made, run
main()
"""
NAMES = "Answer Box Bundle Catalogue Detector Embedder FashionrecError Garment Hit Query"
EVERYTHING = sorted(name for names in FAMILIES.values() for name in names)
ALWAYS = {"collecting": False, "served": True, "frozen": True, "guarded": ["GuardedStream", True]}


def run(
    *words: str, ending: str = "sys.exit(0)", ignored: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    unset = ("PYTHONSAFEPATH", "OPENBLAS_NUM_THREADS", "PYTHONUNBUFFERED")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        return subprocess.run(
            [sys.executable, "-c", SCRIPT.replace("ENDING", ending), *words],
            env=environment | env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def found(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[0])


def test_a_command_is_set_up_and_tidied_up_after() -> None:
    done = run("doctor", "query")
    told = {"PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": None, "interrupt": "raised"}
    assert found(done) == {**ALWAYS, "mounted": ["config", "doctor"], **told}
    assert done.stdout.splitlines()[1:] == ["tidied up"]
    assert found(run(PYTHONSAFEPATH="x")) == {**ALWAYS, "mounted": EVERYTHING, **told, "PYTHONSAFEPATH": "x"}


def test_a_query_takes_no_core_for_threads_and_ends_at_once() -> None:
    done = run("query", "doctor")
    told = {"PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1", "interrupt": "ended"}
    assert found(done) == {**ALWAYS, "mounted": ["query"], **told}
    assert len(done.stdout.splitlines()) == 1
    own = {"OPENBLAS_NUM_THREADS": "3", "interrupt": "ignored"}
    assert found(run("query", ignored=True, OPENBLAS_NUM_THREADS="3")) == {
        **ALWAYS,
        "mounted": ["query"],
        **told,
        **own,
    }


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit(3)", 3),
        ("sys.exit()", 0),
        ("sys.exit('broken')", 1),
        ("os.close(1); sys.exit(75)", 75),
        ("os.close(1); sys.exit()", 0),
        ("os.kill(os.getpid(), signal.SIGINT); sys.exit(0)", 130),
    ],
)
def test_a_query_leaves_with_its_code(ending: str, code: int) -> None:
    done = run("query", ending=ending)
    assert (done.returncode, done.stderr) == (code, "error: interrupted\n" if code == 130 else "")


def test_the_package_names_what_is_public_and_nothing_else() -> None:
    assert dir(fashionrec) == sorted(["__version__", *NAMES.split()])
    with pytest.raises(AttributeError, match="module 'fashionrec' has no attribute 'Item'"):
        fashionrec.Item  # noqa: B018


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), EVERYTHING),
        (("-h",), EVERYTHING),
        (("--help",), EVERYTHING),
        (("catalogue",), "add compact export import list reindex remove rollback show update verify".split()),
        (("dataset",), ["audit", "export"]),
        (("runs",), "compare demote list promote show".split()),
        (("config",), ["schema", "show"]),
    ],
)
def test_without_a_command_those_that_there_are_are_told(
    words: tuple[str, ...], named: list[str], cli: Callable[..., Result]
) -> None:
    """Like production: plain text: rich would draw frames around it."""
    done = cli(*words)
    told = done.out + done.err
    names = " ".join(word for word in ("fashionrec", *words) if not word.startswith("-"))
    assert told.split("\n")[0].strip() == f"Usage: {names} [OPTIONS] COMMAND [ARGS]..."
    assert told.isascii()
    listed = told.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert sorted(line.split()[0] for line in listed if re.match(r"  \S", line)) == named


def test_what_a_bug_outside_of_a_command_shows_is_pythons_own_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rich's would be a frame of many lines, and could show the values of variables."""

    def broken() -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    app = make_app("config")
    app.command("broken")(broken)
    with pytest.raises(ZeroDivisionError) as caught:
        app(["broken"])
    sys.excepthook(caught.type, caught.value, caught.tb)
    told = capsys.readouterr().err.splitlines()
    assert (told[0], told[-1]) == ("Traceback (most recent call last):", "ZeroDivisionError: planted")
