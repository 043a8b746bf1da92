"""Test what is renamed into place is on the disk: the file before its new name, and then the folder
that holds the name.

The fault shim writes down every write, sync and rename of a process; a machine that loses its power
after the last line loses whatever was not synced.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result
from systems import posix_only
from test_catalogue_faults import shim  # noqa: F401  (a fixture)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"),
    posix_only("folders that can be synced"),
]

#: Count, and write each call down.
_START = """
import ctypes, os, sys
shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
shim.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int]
trace = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
from pathlib import Path
root = Path(sys.argv[1])
"""


def trace(shim: Path, root: Path, work: str, *, before: str = "") -> list[tuple[str, str]]:  # noqa: F811
    """The calls of some work below ``root``: what each was, and the path below ``root``."""
    code = f"{_START}{before}\nshim.fault_arm(str(root).encode(), 1, 0, trace)\n{work}\n"
    written = root.parent / "trace"
    environment = {**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(root), str(written)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1) for line in written.read_text().splitlines()]
    return [(what, path[len(str(root)) + 1 :]) for what, path in lines]


def unsynced(calls: list[tuple[str, str]]) -> list[str]:
    """Renames before which the file's content, or after which its folder, is not forced to the
    disk.
    """
    wrong = []
    for n, (what, path) in enumerate(calls):
        if what not in ("rename", "renameat"):
            continue
        folder = path.rpartition("/")[0]
        if ("fsync", folder) not in calls[n + 1 :]:
            wrong.append(f"{path}: its folder is not synced")
        if not any(kind == "fsync" and one.rpartition("/")[0] == folder and one != folder for kind, one in calls[:n]):
            wrong.append(f"{path}: its content is not synced")
    return wrong


def test_a_document_is_synced_then_renamed_then_its_folder_is_synced(shim: Path, tmp_path: Path) -> None:  # noqa: F811
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    work = "write_atomic(root / 'sub' / 'a.json', 'text')"
    calls = trace(shim, root, work, before="from fashionrec.common.files import write_atomic")
    kinds = [what for what, _ in calls]
    assert kinds == ["open", "write", "fsync", "rename", "fsync"]
    temporary = calls[0][1]
    assert temporary.startswith("sub/.a.json.")
    assert [path for _, path in calls] == [temporary, temporary, temporary, "sub/a.json", "sub"]
    assert unsynced(calls) == []
    assert unsynced(calls[:-1]) == ["sub/a.json: its folder is not synced"]
    assert unsynced(calls[3:]) == ["sub/a.json: its content is not synced"]
    assert (root / "sub" / "a.json").read_text() == "text"


def test_what_need_not_last_is_not_synced(shim: Path, tmp_path: Path) -> None:  # noqa: F811
    root = tmp_path / "root"
    root.mkdir()
    work = "Folder(root).write('a', b'x', sync=False)\nFolder(root).append('b', b'x')\nFolder(root).sync()"
    calls = trace(shim, root, work, before="from fashionrec.common.folder import Folder")
    assert [what for what, _ in calls] == ["open", "write", "rename", "open", "write", "fsync", "fsync"]
    assert [path for what, path in calls if what == "fsync"] == ["b", ""]


@pytest.mark.parametrize("command", [("rollback",), ("remove", "green.jpg", "--index")])
def test_a_generation_is_served_only_when_all_of_it_is_on_the_disk(
    shim: Path,  # noqa: F811
    cli: Callable[..., Result],
    catalogue: Path,
    command: tuple[str, ...],
) -> None:
    assert cli("catalogue", "remove", "grey.jpg", "--index", catalogue, "-q").code == 0
    before = "from fashionrec.cli.main import make_app\napp = make_app()"
    words = ["catalogue", *command]
    work = f"app({words!r} + [str(root)], standalone_mode=False)\nshim.fault_arm(b'', 0, 0, -1)"
    calls = trace(shim, catalogue, work, before=before)
    assert unsynced(calls) == []
    switched = max(n for n, (what, path) in enumerate(calls) if what == "rename" and path == "catalogue.json")
    assert ("fsync", "") in calls[switched + 1 :]
    written = {path for what, path in calls[:switched] if what in ("write", "pwrite", "pwrite64")}
    synced = {path for what, path in calls[:switched] if what in ("fsync", "fdatasync")}
    lasting = {path for path in written if path.startswith("generations/") and not path.endswith(("-journal", "-wal"))}
    assert lasting <= synced, sorted(lasting - synced)
    assert (command == ("rollback",)) == (not lasting)
