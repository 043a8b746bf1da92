"""The command line in a process of its own, forked from this one so that nothing is
imported anew.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adversary import hook

#: Environment that would change what a command does.
_CLEARED = ("OPENAI_API_KEY", "ROBOFLOW_API_KEY", "FASHIONREC_INDEX")

Sabotage = Callable[[], "Callable[[], object] | None"]


@dataclass
class Outcome:
    """Record of how a command ended: its exit code (None: it had to be killed), what it said, and
    what the audit hook saw.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    audited: list[tuple[str, str]] = field(default_factory=list)


def warm_up() -> None:
    """Import what commands import, once, before anything is forked."""
    import openai  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import warm  # noqa: F401

    import fashionrec.captioner.job
    import fashionrec.catalogue.compaction
    import fashionrec.catalogue.edit
    import fashionrec.catalogue.exchange
    import fashionrec.catalogue.reindex  # noqa: F401
    from fashionrec.cli.main import make_app

    make_app()


def run(
    words: Sequence[object],
    *,
    home: Path,
    project: Path,
    scratch: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    before: Callable[[int], None] | None = None,
    sabotage: Sabotage | None = None,
) -> Outcome:
    """Run one command in ``project``. ``before`` is called with the process's id when it exists and
    has not begun; ``sabotage`` is called within it before it is watched, and what that returns as
    the first thing of the command.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    files = [scratch / name for name in ("stdout", "stderr", "audit")]
    for file in files:
        file.write_bytes(b"")
    ready, go = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 97
        try:
            os.close(go)
            os.setpgid(0, 0)
            os.read(ready, 1)
            code = _inside([str(word) for word in words], home, project, scratch, dict(env or {}), sabotage)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(ready)
    try:
        if before is not None:
            before(child)
    finally:
        os.write(go, b".")
        os.close(go)
    status = _wait(child, started + timeout)
    code = None if status is None else os.waitstatus_to_exitcode(status)
    out, err = (file.read_text(encoding="utf-8", errors="replace") for file in files[:2])
    audited = [tuple(json.loads(line)) for line in files[2].read_text(encoding="utf-8").splitlines()]
    return Outcome(code, out, err, time.monotonic() - started, audited)  # type: ignore[arg-type]


def _inside(
    words: list[str], home: Path, project: Path, scratch: Path, env: dict[str, str], sabotage: Sabotage | None
) -> int:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(scratch / name, os.O_WRONLY | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(0, "r", closefd=False),
        os.fdopen(1, "w", encoding="utf-8", closefd=False),
        os.fdopen(2, "w", encoding="utf-8", closefd=False),
    )
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    for name in _CLEARED:
        os.environ.pop(name, None)
    os.environ.update(environment(home, scratch), **env)
    os.environ |= {
        hook.LOG: str(scratch / "audit"),
        hook.HOME: str(home),
        hook.OURS: f"{project}{os.pathsep}{home}/.cache/fashionrec",
    }
    os.chdir(project)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fault = sabotage() if sabotage is not None else None
    hook.install()
    sys.argv = ["fashionrec", *words]
    from fashionrec.__main__ import main

    code: object = 0
    try:
        if fault is not None:
            fault()
        main()
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code if isinstance(code, int) else 1 if code else 0


def environment(home: Path, scratch: Path) -> dict[str, str]:
    """Return what a user of that home has set; caches of other packages lie outside of it, so that
    they are not seen as ours.
    """
    temporary = scratch / "tmp"
    temporary.mkdir(exist_ok=True)
    return {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "YOLO_CONFIG_DIR": str(temporary),
        "MPLCONFIGDIR": str(temporary),
        "HF_HOME": str(temporary),
        "TORCH_HOME": str(temporary),
        "TMPDIR": str(temporary),
        "NO_PROXY": "127.0.0.1",
        "FASHIONREC_DATASET__WORKERS": "1",
        "FASHIONREC_BUILD__WORKERS": "1",  # processes cost more than a cell's few photos
        "FASHIONREC_PROJECT__THREADS": "1",
        "FASHIONREC_CAPTIONER__RETRIES": "0",
    }


def _wait(child: int, until: float) -> int | None:
    pause = 0.001
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            _end(child)
            return status
        if time.monotonic() > until:
            _end(child)
            os.waitpid(child, 0)
            return None
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
