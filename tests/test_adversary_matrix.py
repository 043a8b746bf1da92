"""Every cell of the adversary's matrix, in slices: every place, everything that can be planted
there, every command.
"""

from __future__ import annotations

import random

import pytest
from adversary.cells import Place, cells, check
from adversary.commands import ROWS, Row
from adversary.fixtures import needs_linux, places, world  # noqa: F401
from adversary.project import World

pytestmark = [needs_linux, pytest.mark.release(seconds=20)]

SLICES = 160


@pytest.mark.parametrize("number", range(SLICES))
def test_slice(world: World, places: list[Place], number: int) -> None:  # noqa: F811
    found = [finding for cell in list(cells(places))[number::SLICES] for finding in check(world, cell)]
    assert not found, "\n".join(map(str, found))


HEAVY = [row for root in ("bundle", "run") for row in ROWS[root] if row.heavy]


@pytest.mark.train
@pytest.mark.parametrize("row", HEAVY, ids=lambda row: row.text)
def test_commands_that_load_torch(world: World, places: list[Place], row: Row) -> None:  # noqa: F811
    pytest.importorskip("ultralytics")
    every = [cell for cell in cells(places, heavy=True) if cell[2] == row]
    found = [finding for cell in random.Random(0).sample(every, 2) for finding in check(world, cell)]
    assert not found, "\n".join(map(str, found))
