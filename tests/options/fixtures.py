"""The fixtures of the option table, imported by the tests that use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result

from options.made import Made
from options.table import World


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result]) -> World:
    """A row's surroundings;

    ``cli`` makes the working folder and takes keys out of the environment.
    """
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return World(tmp_path, made, monkeypatch)
