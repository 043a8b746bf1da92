"""A catalogue survives what happens to machines: killed at any write, a full disk, a broken one.

Every write, sync and rename of a build, an update, a rollback, a compaction and a captioning is
found by counting, and each gets the fault in turn (`pytest -m soak
tests/test_catalogue_faults.py`); the quick run takes some of them. See `fault_runner.py`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from systems import posix_only

HERE = Path(__file__).parent
SCENARIOS = ("build", "update", "again", "rollback", "compact", "caption", "reindex")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"),
    posix_only("fork"),
]


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shim") / "fault_shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(out), str(HERE / "fault_shim.c"), "-ldl"], check=True)
    return out


def trials(shim: Path, folder: Path, *words: str) -> dict[str, Any]:
    environment = {**os.environ, "LD_PRELOAD": str(shim), "FAULT_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "fault_runner.py"), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert document["trials"] > 0
    sys.stdout.write(json.dumps(document) + "\n")
    return document


@pytest.mark.parametrize(("scenario", "mode", "step"), [("update", "kill", "41"), ("update", "full", "61")])
def test_some_faults_of_an_update(shim: Path, tmp_path: Path, scenario: str, mode: str, step: str) -> None:
    document = trials(shim, tmp_path, scenario, mode, "--step", step)
    # the last may come when the new generation is already served, and only what is old is left to
    # remove
    assert document["stopped"] >= document["trials"] - 1 >= 3


def test_a_commit_that_is_not_atomic_is_caught(shim: Path, tmp_path: Path) -> None:
    """The planted fault: the pointer is switched before the manifest is there.

    The trials must see it.
    """
    environment = {**os.environ, "LD_PRELOAD": str(shim), "FAULT_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    code = (
        "import sys, runpy\n"
        "from fashionrec.common.folder import Folder\n"
        "from fashionrec.store import generations\n"
        "whole = Folder.write\n"
        "def torn(self, name, data):\n"
        "    if name != generations.POINTER: return whole(self, name, data)\n"
        "    with open(self.root / name, 'wb', buffering=0) as file:\n"
        "        raw = data.encode(); file.write(raw[:20]); file.write(raw[20:])\n"
        "Folder.write = torn\n"
        f"sys.argv = ['fault_runner.py', 'rollback', 'kill']\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        f"runpy.run_path({str(HERE / 'fault_runner.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "neither old nor new" in done.stdout


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mode", ["kill", "torn", "full", "broken"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_write(shim: Path, tmp_path: Path, scenario: str, mode: str) -> None:
    trials(shim, tmp_path, scenario, mode)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("scenario", "count"), [("build", 150), ("update", 150), ("compact", 100), ("caption", 100)])
def test_random_moments(shim: Path, tmp_path: Path, scenario: str, count: int) -> None:
    trials(shim, tmp_path, scenario, "random", "--count", str(count))
