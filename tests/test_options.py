"""Every option of every command, with a value that is not its default, reaches what it sets."""

from __future__ import annotations

import pytest
from options.fixtures import made, world  # noqa: F401
from options.rows import ROWS
from options.table import Row, World, surface

#: Options without a row, and why.
EXCEPTIONS = {
    ("", "--install-completion"): "typer's own: writes into the shell's start file of whoever runs it",
    ("", "--show-completion"): "typer's own: asks which shell the parent process is",
}


def test_the_table_is_the_command_line() -> None:
    rows = {(row.command, option) for row in ROWS for option in row.options}
    there = surface()
    assert sorted(there - rows - set(EXCEPTIONS)) == [], "options without a row"
    assert sorted((rows | set(EXCEPTIONS)) - there) == [], "rows without an option"
    assert rows.isdisjoint(EXCEPTIONS)


@pytest.mark.parametrize("row", [row.param() for row in {row.check: row for row in ROWS}.values()])
def test_it_reaches_what_it_sets(row: Row, world: World) -> None:  # noqa: F811
    for package in row.needs:
        pytest.importorskip(package)
    row.check(world)
