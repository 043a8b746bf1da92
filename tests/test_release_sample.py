"""The sample of release tests: seeded, bounded in time, every file in it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILE = """
import time, pytest
pytestmark = pytest.mark.release

@pytest.mark.parametrize("n", range(30))
def test_quick(n): time.sleep(0.2)

@pytest.mark.release(seconds=3600)
def test_long(): raise AssertionError
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("test_a.py", "test_b.py"):
        (tmp_path / name).write_text(FILE)
    (tmp_path / "conftest.py").write_text("from release_sample import pytest_addoption, pytest_configure\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    release(seconds): before a release\n")
    return tmp_path


def run(project: Path, *arguments: str) -> list[str]:
    """Names of the tests that ran and passed, in order."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-v", *arguments],
        cwd=project,
        env={"PYTHONPATH": str(TESTS), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split()[0] for line in done.stdout.splitlines() if " PASSED" in line]


def test_a_sample_ends_in_time_and_takes_some_of_every_file(project: Path) -> None:
    start = time.monotonic()
    ran = run(project, "-m", "release", "--release-sample", "4.5")
    assert time.monotonic() - start < 60  # most of it is for starting pytest
    assert {name.split("::")[0] for name in ran} == {"test_a.py", "test_b.py"}
    assert len(ran) < 60
    assert not any("test_long" in name for name in ran), "a test that needs an hour was drawn"


def test_a_seed_repeats_its_sample_and_another_draws_others(project: Path) -> None:
    samples = [run(project, "--release-sample", "2.5", "--release-seed", seed)[:1] for seed in ("1", "1", "2", "3")]
    assert samples[0] == samples[1]
    assert len({tuple(sample) for sample in samples}) > 1


def test_tests_without_the_mark_all_run_and_after_the_sample(project: Path) -> None:
    (project / "test_0.py").write_text(
        'import pytest\n@pytest.mark.parametrize("n", range(9))\ndef test_usual(n): pass\n'
    )
    ran = run(project, "--release-sample", "2.5")
    assert [name for name in ran[-9:] if "test_0.py" not in name] == []
    assert {name.split("::")[0] for name in ran[:-9]} == {"test_a.py", "test_b.py"}


def test_marked_tests_do_not_run_by_default(project: Path) -> None:
    ours = ("-c", str(TESTS.parent / "pyproject.toml"), f"--rootdir={project}", str(project / "test_a.py"))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", *ours]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(TESTS), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr
