"""The command line in this process.

It is made once: typer's own runner makes it, at 17 ms, for each use.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import typer
from typer.testing import CliRunner


class Runner(CliRunner):
    """typer's runner for a command that is made already."""

    def invoke(self, command: Any, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        return super(CliRunner, self).invoke(command, *arguments, **options)


@cache
def whole() -> Any:
    from fashionrec.cli.main import make_app

    return typer.main.get_command(make_app())


def invoke(words: Sequence[object], given: bytes | None = None) -> Any:
    """Run a command of the whole command line; the result is that of click's runner."""
    return Runner().invoke(whole(), [str(word) for word in words], input=given)
