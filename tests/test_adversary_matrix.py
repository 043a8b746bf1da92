"""Every cell of the adversary's matrix, in slices: every place, everything that can be planted there, every command."""

from __future__ import annotations

import pytest
from adversary.cells import Place, cells, check
from adversary.fixtures import needs_linux, places, world  # noqa: F401
from adversary.project import World

pytestmark = [needs_linux, pytest.mark.release(seconds=20)]

SLICES = 160


@pytest.mark.parametrize("number", range(SLICES))
def test_slice(world: World, places: list[Place], number: int) -> None:  # noqa: F811
    found = [finding for cell in list(cells(places))[number::SLICES] for finding in check(world, cell)]
    assert not found, "\n".join(map(str, found))
