"""Render the help of commands: usage, arguments, options and examples.

typer does this itself, but differently in each version: 0.29 writes `{SOURCE...}...` and `<str>`,
and with 0.25 click 8.5 drops the help of arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from fashionrec.cli.examples import EXAMPLES


def usage_arguments(command: Any, ctx: Any) -> Iterator[str]:
    """Yield the arguments of the usage line: `SOURCE...`, or `[PHOTO...]` if optional."""
    for parameter in command.get_params(ctx):
        if parameter.param_type_name == "argument":
            yield parameter.metavar if parameter.required else f"[{parameter.metavar}]"


def write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    """Write the sections of arguments and options."""
    arguments, options = [], []
    for parameter in command.get_params(ctx):
        if parameter.param_type_name == "argument":
            arguments.append((parameter.metavar, parameter.help or _declared_help(command.callback, parameter.name)))
        elif record := parameter.get_help_record(ctx):
            options.append(record)
    for title, rows in (("Arguments", arguments), ("Options", options)):
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def write_examples(ctx: Any, formatter: Any) -> None:
    """Write the examples of a command or group, if it has any."""
    names: list[str] = []
    while ctx.parent is not None:
        names.insert(0, ctx.info_name)
        ctx = ctx.parent
    if examples := EXAMPLES.get(" ".join(names)):
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"  fashionrec {example}\n")


def _declared_help(callback: Any, name: str) -> str:
    """Return the help of an argument as its annotation declares it."""
    texts = (getattr(declared, "help", None) for declared in get_args(callback.__annotations__.get(name)))
    return next(filter(None, texts), "")
