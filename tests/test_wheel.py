"""The wheel and the sdist of `make wheel`: complete, and usable without the checkout."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def build(source: Path, out: Path, *targets: str) -> None:
    """Run the build backend, as `make wheel` does."""
    options = [word for target in targets for word in ("-t", target)]
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", out, *options], cwd=source, check=True)


@pytest.mark.slow
def test_wheel_and_sdist_install_without_the_checkout(tmp_path: Path) -> None:
    build(ROOT, tmp_path, "wheel", "sdist")
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fashionrec").rglob("*")
        if path.suffix in (".py", ".html")
    }
    shipped |= {f"fashionrec/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert shipped <= names

    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    build(unpacked, tmp_path / "again", "wheel")
    (again,) = (tmp_path / "again").glob("*.whl")
    assert set(zipfile.ZipFile(again).namelist()) == names

    target = tmp_path / "installed"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target)
    subprocess.run([*pip, wheel], check=True)
    code = "import fashionrec, sys; from fashionrec.__main__ import main; print(fashionrec.__file__); main()"
    for words in (["--version"], ["config", "show"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env={"PYTHONPATH": str(target), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(str(target))
