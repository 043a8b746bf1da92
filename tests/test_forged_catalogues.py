"""Catalogues that somebody forged, with right hashes: a clear refusal or a right answer, and nothing from outside them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import forge_runner
import pytest
from conftest import two_halves

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")


@pytest.fixture
def whole(photos: Path, tmp_path: Path, decoded_here: None) -> Path:
    two_halves(photos / "new.jpg", "red", "black")
    forge_runner.make(photos, tmp_path / "whole")
    return tmp_path / "whole"


def forged(root: Path, photos: Path, tmp_path: Path, count: int, seed: int) -> dict[str, Any]:
    words = [sys.executable, str(HERE / "forge_runner.py"), str(root), str(photos / "red-blue.jpg")]
    words += [str(tmp_path / "scratch"), "--count", str(count), "--seed", str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert not document.get("wrong"), done.stdout[-8000:]
    return document


def test_some_forged_catalogues(whole: Path, photos: Path, tmp_path: Path) -> None:
    document = forged(whole, photos, tmp_path, 12, 0)
    assert document["trials"] == 12
    assert document["refused"] >= 5


@pytest.mark.release
@pytest.mark.timeout(7200)
def test_five_hundred_forged_catalogues(whole: Path, photos: Path, tmp_path: Path) -> None:
    assert forged(whole, photos, tmp_path, 500, 1000)["trials"] == 500
