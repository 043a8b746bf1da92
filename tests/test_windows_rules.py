"""The core under the file rules of Windows (`tests/windows_rules`), which is run before a release.

What a test asks of POSIX alone is marked (`tests/systems.py`); everything else passes under these
rules too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: They judge the source, start this very test, or measure: nothing of theirs depends on the rules.
LEFT_OUT = {
    "architecture",
    "benchmark_growth",
    "benchmark_versions",
    "coupling",
    "core_install",
    "mutate",
    "windows_rules",
}
FILES = sorted(path.name for path in HERE.glob("test_*.py") if path.stem.removeprefix("test_") not in LEFT_OUT)


def under_rules(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    signed_in = tmp_path / "signed-in"
    signed_in.mkdir()
    places = (HERE / "windows_rules", HERE.parent)
    environment = os.environ | {"WINDOWS_RULES": str(signed_in), "PYTHONPATH": os.pathsep.join(map(str, places))}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=HERE.parent, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("open('a', 'w'); open('b', 'w'); held = open('a'); os.remove('a')", "PermissionError"),
        ("open('a', 'w'); open('b', 'w'); held = open('b'); os.replace('a', 'b')", "PermissionError"),
        ("os.mkdir('d'); held = open('d/a', 'w'); os.rename('d', 'e')", "PermissionError"),
        ("import mmap; open('a', 'w').write('x'); f = open('a'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ);"
         "f.close(); os.remove('a')", "PermissionError"),
        ("open('a', 'w'); open('b', 'w'); os.rename('a', 'b')", "FileExistsError"),
        ("os.mkdir('d'); os.mkdir('e'); os.replace('d', 'e')", "PermissionError"),
        ("os.open('.', os.O_RDONLY)", "PermissionError"),
        ("open('a', 'w'); os.fsync(open('a').fileno())", "Bad file descriptor"),
        ("open('a:b', 'w')", "not allowed"),
        ("os.mkdir('aux')", "not allowed"),
        ("open('c', 'w'); os.replace('c', 'nul.txt')", "not allowed"),
        ("os.fork()", "AttributeError"),
        ("sys.modules['__main__'].__name__ = 'fashionrec.x'; import fcntl", "ModuleNotFoundError"),
        ("open('a', 'w').close(); os.chmod('a', 0o600); print(oct(os.stat('a').st_mode)[-3:], file=sys.stderr)", "644"),
        ("import multiprocessing; print(multiprocessing.get_start_method(), file=sys.stderr)", "spawn"),
    ],
)  # fmt: skip
def test_what_windows_refuses_is_refused(code: str, error: str, tmp_path: Path) -> None:
    done = under_rules(tmp_path, "-c", f"import os, sys; os.chdir({str(tmp_path)!r}); {code}")
    assert error in done.stderr


def test_what_windows_allows_is_allowed(tmp_path: Path) -> None:
    code = (
        "open('a', 'w').write('1'); open('b', 'w').write('2'); os.replace('a', 'b'); os.rename('b', 'c');"
        "assert open('c').read() == '1'; file = open('c', 'a'); os.fsync(file.fileno()); file.close(); os.remove('c');"
        "os.mkdir('d'); os.rename('d', 'e'); os.rmdir('e'); import fcntl;"
        "import tempfile; file = tempfile.TemporaryFile(); second = os.dup(file.fileno()); file.close(); os.close(second);"
        "import getpass; assert getpass.getuser()"
    )
    done = under_rules(tmp_path, "-c", f"import os; os.chdir({str(tmp_path)!r}); {code}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.release(30)
@pytest.mark.parametrize("file", FILES)
def test_the_core_passes_under_the_rules_of_windows(file: str, tmp_path: Path) -> None:
    wanted = "not train and not slow and not soak and not release"
    words = ("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", wanted, f"--basetemp={tmp_path / 'base'}")
    done = under_rules(tmp_path, *words, f"tests/{file}")
    assert done.returncode in (0, 5), done.stdout[-4000:] + done.stderr[-1000:]  # 5: all of its tests need torch
