"""The help of every command fits 80 columns, is not cut, names all values, and shows examples."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Result
from typer.main import get_command

from fashionrec.cli.examples import EXAMPLES
from fashionrec.cli.main import make_app

Cli = Callable[..., Result]


def commands(group: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path of each group and command, and the command."""
    yield names, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, *names, name)


TREE = dict(commands(get_command(make_app())))


@pytest.mark.parametrize("names", TREE, ids=" ".join)
def test_help_fits_80_columns_and_shows_examples(
    names: tuple[str, ...], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = cli(*names, "--help").out
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "…" not in text
    _, _, examples = text.partition("\nExamples:\n")
    assert examples == "".join(f"  fashionrec {example}\n" for example in EXAMPLES[" ".join(names)])


@pytest.mark.parametrize("names", [names for names, command in TREE.items() if hasattr(command, "commands")])
def test_summaries_of_commands_are_not_cut(names: tuple[str, ...], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, _, text = cli(*names, "--help").out.partition("\nCommands:\n")
    for name, command in TREE[names].commands.items():
        assert re.search(rf"(?m)^  {name} +{re.escape(command.help)}$", text), name


@pytest.mark.parametrize("names", [names for names, command in TREE.items() if not hasattr(command, "commands")])
def test_every_value_has_a_name_and_a_help(names: tuple[str, ...], cli: Cli) -> None:
    """typer makes up other names for values in each version: `TEXT`, `<str>`, `{SOURCE...}...`."""
    text = cli(*names, "--help").out
    usage, *_ = text.partition("\n\n")
    for parameter in TREE[names].params:
        if not getattr(parameter, "is_flag", False):
            assert re.fullmatch(r"[A-Z][A-Z0-9_,/=.]*(\.\.\.)?", parameter.metavar or ""), parameter.name
        if parameter.param_type_name == "argument":
            shown = parameter.metavar if parameter.required else f"[{parameter.metavar}]"
            assert shown in usage.split(" ")
            assert re.search(rf"(?m)^  {re.escape(parameter.metavar)}  +\S", text), f"{parameter.name} has no help"
        else:
            assert parameter.help, parameter.name


def test_examples_are_commands_and_options_that_exist() -> None:
    assert set(EXAMPLES) == {" ".join(names) for names in TREE}
    for example in (example for examples in EXAMPLES.values() for example in examples):
        words = shlex.split(example.partition(" > ")[0].replace("\\\n", " "))
        names = next(tuple(words[:n]) for n in (2, 1) if tuple(words[:n]) in TREE)
        options = {option for parameter in TREE[names].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, example
