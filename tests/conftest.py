"""Shared fixtures: the tiny bundles of `tests/make_tiny.py`, photos, a catalogue, and the command
line in this process.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command_line
import pytest
from hypothesis import settings as hypothesis_settings
from PIL import Image, ImageDraw
from release_sample import pytest_addoption, pytest_configure  # noqa: F401  (hooks)

from fashionrec.catalogue.build.build import build_catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.config import Config, load_config
from fashionrec.models.bundle import Bundle
from fashionrec.products.tables import read_products

# a first example may import torch; what is slow is seen by --durations, not by a deadline on a
# shared machine
hypothesis_settings.register_profile("fashionrec", deadline=None)
hypothesis_settings.load_profile("fashionrec")

pytest_plugins = ("golden", "golden_world", "ram_disk")

TINY = Path(__file__).parent / "data" / "tiny"


def shape(value: object) -> object:
    """A document's structure: keys and types, numbers alike."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def keeps_its_contract(name: str, document: object) -> None:
    """The golden file is what other people's scripts rely on: keys may be added to it, never
    renamed or removed.
    """
    golden = Path(__file__).parent / "data" / "contracts" / f"{name}.json"
    assert shape(document) == json.loads(golden.read_text(encoding="utf-8")), f"{golden.name}: the contract changed"


@dataclass
class Result:
    """Record of what one use of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own cache, a new one for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "fashionrec"


@pytest.fixture
def config() -> Config:
    return load_config(env={}).config


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run a command as a user would, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATASET", "BUILD"):
        monkeypatch.setenv(f"FASHIONREC_{name}__WORKERS", "1")  # processes cost more than a test's few photos
    for name in ("OPENAI_API_KEY", "ROBOFLOW_API_KEY", "FASHIONREC_INDEX"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object, stdin: bytes | None = None) -> Result:
        done = command_line.invoke(arguments, stdin)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Result(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def outside(tmp_path: Path, cli: Callable[..., Result]) -> Iterator[Path]:
    """A folder of somebody's own beside the one that is worked in: it must be as it was afterwards,
    and nowhere else.
    """
    from foreign import untouched

    yield from untouched(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    shutil.copytree(TINY / "photos", folder)
    return folder


@pytest.fixture
def build(config: Config) -> Callable[..., BuildReport]:
    """Build a catalogue with the tiny bundles. Photos are decoded in this process: `test_images`
    and `test_pipeline` have the tests of others, which cost more than a test's few photos.
    """

    def run(source: Path, root: Path, *, detect: bool = True, settings: Config = config, **options: Any) -> BuildReport:
        options.setdefault("embedder_bundle", Bundle.open(TINY / "embedder"))
        options.setdefault("detector_bundle", Bundle.open(TINY / "detector") if detect else None)
        return build_catalogue(
            read_products(source),
            root,
            config=settings.model_copy(update={"build": settings.build.model_copy(update={"workers": 1})}),
            source=str(source),
            **options,
        )

    return run


@pytest.fixture
def catalogue(photos: Path, build: Callable[..., BuildReport], tmp_path: Path) -> Path:
    """A catalogue of the six photos, each a product of its own."""
    root = tmp_path / "catalogue"
    build(photos, root)
    return root


def two_halves(path: Path, left: str, right: str, size: tuple[int, int] = (120, 90)) -> Path:
    """A photo that the tiny detector understands: red on the left is a top, blue on the right is
    pants.
    """
    image = Image.new("RGB", size, right)
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2 - 1, size[1]), fill=left)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95)
    return path
