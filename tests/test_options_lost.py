"""The option table against a command line that loses its options: for each of them a row fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
from options.fixtures import made, world  # noqa: F401
from options.rows import ROWS
from options.table import Row, World


@pytest.mark.parametrize(
    ("row", "option"),
    [row.param(row, option, seconds=10 if row.needs else 2) for row in ROWS for option in row.options],
)
def test_an_option_that_is_lost_is_noticed(row: Row, option: str, world: World) -> None:  # noqa: F811
    for package in row.needs:
        pytest.importorskip(package)
    with pytest.raises(Exception):  # noqa: PT011  (whatever stops a row's test)
        row.check(replace(world, lost=(row.command, option)))
