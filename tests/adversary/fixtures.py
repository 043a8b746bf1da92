"""The world that a session's cells are tried in, made once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_batches import BatchServer, Ending

from adversary.cells import Place
from adversary.home import supported
from adversary.places import all_places
from adversary.project import World, make_world

needs_linux = pytest.mark.skipif(not supported(), reason="needs fork and inotify")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A home, a project, and a server of captions whose batches never end.

    In memory where there is room for it.
    """
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory)) if memory.is_dir() else tmp_path_factory.mktemp("adversary")
    with BatchServer([lambda lines: Ending(status="in_progress")] * 100_000) as server:
        yield make_world(folder, {"FASHIONREC_CAPTIONER__BASE_URL": server.base_url})
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def places(world: World) -> list[Place]:
    return all_places(world)
