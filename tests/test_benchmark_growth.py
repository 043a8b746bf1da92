"""`python -m benchmarks growth`: what it measures of a process, and what it says of the growth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.growth import Cost, exponent, run, tell

HERE = Path(__file__).parent.parent


def test_the_exponent_is_that_of_the_last_two_sizes() -> None:
    costs = [Cost(seconds, 0, 0) for seconds in (9.0, 2.0, 2.0)]
    assert exponent([100, 200, 800], costs) == 0
    assert exponent([100, 200, 800], [*costs[:2], Cost(8.0, 0, 0)]) == 1
    assert exponent([100, 200, 800], [*costs[:2], Cost(32.0, 0, 0)]) == 2


def test_a_row_has_the_costs_of_all_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    tell("items", [1_000, 10_000], [{"show": Cost(0.25, 99.6, 0)}, {"show": Cost(0.25, 101, 1.26)}])
    assert capsys.readouterr().out.splitlines() == [
        "",
        "| items | 1,000 | 10,000 | exponent |",
        "| --- | ---: | ---: | ---: |",
        "| show | 0.25 s, 100 MB | 0.25 s, 101 MB, 1.3 MB out | 0.00 |",
    ]


def test_a_process_has_a_cost_and_a_failure_ends_it(tmp_path: Path) -> None:
    cost = run(HERE, tmp_path, ("doctor", "--help"))
    assert cost.seconds > 0.01
    assert cost.peak > 5  # and as much as this process has, of which it was a copy for a moment
    with pytest.raises(subprocess.CalledProcessError):
        run(HERE, tmp_path, ("catalogue", "show", "nowhere"))


@pytest.mark.release(60)
def test_every_operation_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks", "growth", "--smoke"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) == 2 + 17 + 2
    assert all(row.count("MB") >= 2 for row in rows if "this version" not in row)
