"""The option table against a command line that loses its options: for each of them a row fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
from options.fixtures import made, world  # noqa: F401
from options.rows import ROWS
from options.table import Row, World

from fashionrec.errors import FashionrecError

#: What a test that notices something ends with; anything else is a mistake of the table.
NOTICED = (AssertionError, LookupError, OSError, ValueError, FashionrecError)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is no longer named is looked for where models are published."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(
    ("row", "option"),
    [row.param(row, option, seconds=15 if row.needs else 2) for row in ROWS for option in row.options],
)
def test_an_option_that_is_lost_is_noticed(row: Row, option: str, world: World) -> None:  # noqa: F811
    for package in row.needs:
        pytest.importorskip(package)
    with pytest.raises(NOTICED):
        row.check(replace(world, lost=(row.command, option)))


@pytest.mark.parametrize("row", [row.param(row, seconds=15 if row.needs else 2) for row in ROWS])
def test_it_is_the_loss_that_is_noticed(row: Row, world: World) -> None:  # noqa: F811
    for package in row.needs:
        pytest.importorskip(package)
    row.check(replace(world, lost=(row.command, row.options[0]), keep=True))
