"""Rows of the option table, the options that the command line has, and a command line that
loses one of them.

A row is a function that runs a command with other values than the defaults and asserts effects::

    @row("train", "--epochs", "--batch")
    def training(world: World) -> None: ...

`tests/test_options.py` runs all rows and compares the table with the command line;
`tests/test_options_lost.py` loses each option in turn and expects its rows to fail.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from command_line import Runner
from conftest import TINY, Result

from fashionrec.cli.main import make_app
from options.made import Made

MODELS = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")


@dataclass(frozen=True)
class Row:
    """``check`` fails where one of ``options`` of ``command`` has no effect; it needs the packages
    ``needs``.
    """

    command: str
    options: tuple[str, ...]
    check: Callable[[World], None]
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.command or 'fashionrec'}: {self.check.__name__}"

    def param(self, *values: Any, seconds: float = 0.0) -> Any:
        """This row, or ``values`` about it, as a parameter of a test."""
        marks = [pytest.mark.train] if self.needs else []
        if seconds:
            marks.append(pytest.mark.release(seconds=seconds))
        return pytest.param(*(values or (self,)), id=" ".join([self.name, *values[1:]]), marks=marks)


ROWS: list[Row] = []


def row(
    command: str, *options: str, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Add a function to the table."""

    def add(check: Callable[[World], None]) -> Callable[[World], None]:
        ROWS.append(Row(command, options, check, needs))
        return check

    return add


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command below a group, and the group itself where it has options, by the words that
    name it.
    """
    if group.params:
        yield " ".join(path), group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def spellings(parameter: Any) -> list[str]:
    """An option's long names (``--rehash``, ``--no-rehash``), or an argument's in capitals."""
    if parameter.param_type_name == "argument":
        return [str(parameter.name).upper()]
    return [name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")]


def surface() -> set[tuple[str, str]]:
    """Every command with every option and argument of it, as the command line itself says."""
    root = typer.main.get_command(make_app())
    return {(path, name) for path, command in commands(root) for one in command.params for name in spellings(one)}


def lose(root: Any, command: str, option: str, *, keep: bool = False) -> None:
    """Let a command run as if an option had not been given, whatever stands on its line; a needed
    one names nothing there.

    With ``keep`` all is done but that: it shows that a row fails for what is lost and nothing else.
    """
    found = dict(commands(root))[command]
    (parameter,) = [one for one in found.params if option in spellings(one)]
    inner = found.invoke
    several = parameter.multiple or parameter.nargs == -1
    default = ["lost"] if several else "lost"
    if not parameter.required:
        default = [] if several else parameter.default

    def without(context: Any) -> Any:
        context.params |= {} if keep else {parameter.name: default}
        return inner(context)

    parameter.callback = parameter.callback if keep else None
    found.invoke = without


@dataclass
class World:
    """A row's surroundings: an empty working folder, the command line, and things to work on that
    are made once.
    """

    folder: Path
    made: Made
    patch: pytest.MonkeyPatch
    lost: tuple[str, str] | None = None
    keep: bool = False

    def run(self, *arguments: object, code: int | None = 0, app: typer.Typer | None = None) -> Result:
        """Run a command, of ``app`` where that is another, and expect its exit code unless that is
        None.
        """
        given = [str(one) for one in arguments]
        root = typer.main.get_command(app or make_app(given[0]))
        if self.lost and (not self.lost[0] or self.lost[0].split()[0] == given[0]):
            lose(root, *self.lost, keep=self.keep)
        done = Runner().invoke(root, given)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        result = Result(done.exit_code, done.stdout, done.stderr)
        assert code is None or result.code == code, f"exit code {result.code}\n{result.out}\n{result.err}"
        return result

    def json(self, *arguments: object, code: int | None = 0, app: typer.Typer | None = None) -> Any:
        """The document that a command prints with ``--json``."""
        return self.run(*arguments, "--json", code=code, app=app).document

    def take(self, thing: str, name: str = "") -> Path:
        """A copy of one of the things that are made once, in the working folder."""
        target = Path(name or thing)
        shutil.copytree(getattr(self.made, thing), target)
        return target
