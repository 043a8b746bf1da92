"""Damaged catalogues: opening and asking ends in an answer or one clear error, never in a crash;
`verify` finds every one.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Result, two_halves
from systems import posix_only

from fashionrec.captioner.job import caption_catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.catalogue.catalogue import verify_catalogue
from fashionrec.config import Config
from fashionrec.errors import CatalogueError
from fashionrec.store import generations

HERE = Path(__file__).parent


@pytest.fixture
def whole(photos: Path, build: Callable[..., BuildReport], tmp_path: Path, config: Config) -> Path:
    """A catalogue with several segments and captions."""
    root = tmp_path / "whole"
    build(photos, root)
    two_halves(photos / "new.jpg", "red", "black")
    build(photos, root)
    caption_catalogue(root, config)
    return root


def damaged(root: Path, tmp_path: Path, count: int, seed: int = 0) -> dict[str, Any]:
    words = [sys.executable, str(HERE / "damage_runner.py"), str(root), str(TINY / "photos" / "red-blue.jpg")]
    words += [str(tmp_path / "scratch"), "--count", str(count), "--seed", str(seed)]
    (tmp_path / "scratch").mkdir()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    sys.stdout.write(done.stdout)
    return document


@posix_only("fork")
def test_some_damaged_catalogues(whole: Path, tmp_path: Path) -> None:
    document = damaged(whole, tmp_path, 40)
    assert document["found"] == document["trials"] == 40
    assert document["error"] > 5


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_two_thousand_damaged_catalogues(whole: Path, tmp_path: Path) -> None:
    assert damaged(whole, tmp_path, 2000, seed=1)["found"] == 2000


@pytest.mark.parametrize(
    "part", ["pointer", "manifest", "items.sqlite", "vectors.faiss", "thumbnails.bin", "image.onnx"]
)
def test_one_bit_is_found(whole: Path, part: str, cli: Callable[..., Result]) -> None:
    verify_catalogue(whole)
    generation = generations.read_current(whole)
    path = {"pointer": whole / "catalogue.json", "manifest": generation.folder / "manifest.json"}.get(part)
    if path is None:
        path = whole / next(name for name in generation.manifest.files if name.endswith(part))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CatalogueError, match="damaged"):
        verify_catalogue(whole)
    result = cli("catalogue", "verify", whole)
    assert result.code == 2
    assert len(result.err.splitlines()) == 2
