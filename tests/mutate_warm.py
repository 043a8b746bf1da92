"""Runs of pytest in forks of a process that has imported what is slow to import.

Run as a script it is that process: it reads requests from its standard input, a line of JSON each,
forks pytest for each, and answers with the fork's process number and then with its exit code.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Imported before the fork where the tree under test names them. None of them starts a thread when
#: it is imported.
SLOW = ("numpy", "PIL.Image", "yaml", "pandas", "typer", "rich", "pydantic", "onnxruntime", "faiss", "openai", "torch")


def named(texts: Iterable[str]) -> list[str]:
    """Return those of `SLOW` that the sources import."""
    whole = "\n".join(texts)
    return [name for name in SLOW if f"import {name.partition('.')[0]}" in whole or f"from {name} import" in whole]


class Warm:
    """One such process. A run that exceeds its time is killed with all that it started."""

    def __init__(self, env: dict[str, str], modules: Iterable[str]) -> None:
        command = [sys.executable, __file__, *modules]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=env, text=True, **pipes)

    def run(self, arguments: list[str], cwd: Path, env: dict[str, str], wall: float) -> tuple[int, bool]:
        """Run pytest. The exit code, and whether it had to be killed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"arguments": arguments, "cwd": str(cwd), "env": env}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        killed = threading.Event()

        def kill() -> None:
            killed.set()
            kill_session(child)

        timer = threading.Timer(wall, kill)
        timer.start()
        code = int(self.process.stdout.readline())
        timer.cancel()
        kill_session(child)
        return code, killed.is_set()

    def close(self) -> None:
        self.process.communicate()


def kill_session(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, 9)


def serve(modules: list[str]) -> None:
    import pytest

    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.setsid()
                nothing = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(nothing, stream)
                os.chdir(request["cwd"])
                os.environ.clear()
                os.environ.update(request["env"])
                sys.path[:0] = request["env"]["PYTHONPATH"].split(os.pathsep)
                code = int(pytest.main(request["arguments"]))
            finally:
                os._exit(code)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1:])
