"""An audit hook for a process of the command line: what it opened, started and connected to that is
nobody's business.

Each event is a line of JSON in the file that the environment names. As ``sitecustomize`` (a folder
with a file of that name that calls :func:`install`) it is in child processes, too.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

LOG, HOME, OURS = "ADVERSARY_LOG", "ADVERSARY_HOME", "ADVERSARY_OURS"

#: Events whose first arguments are paths, and how many of them.
_PATHS = {
    "open": 1,
    "os.listdir": 1,
    "os.scandir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.mkdir": 1,
    "os.chmod": 1,
    "os.chown": 1,
    "os.truncate": 1,
    "os.utime": 1,
    "os.rename": 2,
    "os.link": 2,
    "shutil.rmtree": 1,
    "shutil.copyfile": 2,
    "shutil.copytree": 2,
    "shutil.move": 2,
    "sqlite3.connect": 1,
}
#: Of these the last part of a path is not followed.
_ITSELF = {"os.remove", "os.rmdir", "os.rename", "os.mkdir", "os.link", "shutil.rmtree", "shutil.move"}
_PROCESSES = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn"}


def install() -> None:
    log = os.environ.get(LOG)
    if not log:
        return
    home = os.path.realpath(os.environ[HOME])
    ours = tuple(os.path.realpath(path) + os.sep for path in os.environ[OURS].split(os.pathsep))
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    inside = False

    def tell(event: str, what: Any) -> None:
        os.write(handle, json.dumps([event, str(what)[:500]]).encode() + b"\n")

    def is_canary(path: str) -> bool:
        return path.startswith(home + os.sep) and not f"{path}{os.sep}".startswith(ours)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal inside
        if inside or not (event in _PATHS or event in _PROCESSES or event in ("socket.connect", "pickle.find_class")):
            return
        inside = True
        try:
            if event in _PATHS:
                for path in given[: _PATHS[event]]:
                    if isinstance(path, bytes):
                        path = os.fsdecode(path)
                    if not isinstance(path, (str, os.PathLike)) or str(path) == ":memory:":
                        continue
                    text = os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118
                    whole = event not in _ITSELF and not (event == "open" and _not_followed(given))
                    real = os.path.realpath(text) if whole else _real_parent(text)
                    if is_canary(real):
                        tell(event, real)
            elif event == "socket.connect":
                tell(event, given[1])
            elif event == "pickle.find_class":
                tell(event, f"{given[0]}.{given[1]}")
            else:
                tell(event, given[:2])
        finally:
            inside = False

    sys.addaudithook(hook)


def _not_followed(given: tuple[Any, ...]) -> bool:
    return len(given) > 2 and isinstance(given[2], int) and bool(given[2] & os.O_NOFOLLOW)


def _real_parent(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
