"""`python -m benchmarks nights`: what it counts, and that it ends well only where the answers are
those of a new build.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import nights
from benchmarks.growth import Cost

HERE = Path(__file__).parent.parent


def test_a_file_of_two_names_takes_room_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1_000_000))
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").write_bytes(bytes(500_000))
    assert nights.room(tmp_path) == pytest.approx(1.5, abs=0.1)


def test_nights_are_compared_with_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    nights.tell("update", [Cost(1.0, 10, 0.5), Cost(1.2, 30, 0.5), Cost(1.3, 20, 1.0)])
    assert capsys.readouterr().out == (
        "3 x update: the first 1.00 s, 10 MB, 0.5 MB out; median 1.20 s, the last tenth 1.30 s,"
        " the most 1.30 s and 30 MB; 1 above 1.2 x the first; 2 MB out\n"
    )


def test_other_answers_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "nights", "--items", "8", "--nights", "0"])
    monkeypatch.setattr(nights, "answers", lambda folder, catalogue: catalogue)
    with pytest.raises(SystemExit, match="answers otherwise"):
        nights.main()


@pytest.mark.release(60)
def test_some_nights_end_well() -> None:
    command = [sys.executable, "-m", "benchmarks", "nights", "--smoke"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("it answers as a catalogue that is built anew\n")
