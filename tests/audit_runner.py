"""Run one command of fashionrec under ``sys.addaudithook`` and report what it did that it may not
do.

::

    python tests/audit_runner.py REPORT TOKEN ROOT [--without GUARD]... -- COMMAND...

``TOKEN`` is a word that stands in everything planted; ``ROOT`` the folder that all of it lies in.
``REPORT`` gets a line of JSON for each violation: code with the token in it, or from below the
root, that is compiled or executed; a global that a pickle looks up and that is not in ``PICKLED``;
a process that is not one of ours; a connection; a file named after the token that is opened.
``--without`` takes one of our guards away, which shows that the hook sees what the guard prevents.
``COMMAND`` is one of fashionrec's, or ``plant:NAME``, which commits one fault by itself.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any

#: Globals that pickles of our own processes name: numpy arrays, and what pools of processes hand
#: over.
PICKLED = frozenset(
    {
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("collections", "OrderedDict"),
        ("pathlib", "PosixPath"),
        ("builtins", "set"),
    }
)
#: Prefixes of modules that workers of our own pools unpickle by reference.
PICKLED_MODULES = ("fashionrec.", "PIL.", "multiprocessing.", "concurrent.futures.")
#: Programs that libraries ask about the machine.
PROGRAMS = frozenset(
    {"lscpu", "uname", "ldconfig", "/sbin/ldconfig", "nvidia-smi", "xpu-smi", "gcc", "cc", "ld", "objdump", "fc-list"}
)
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn")
CONNECTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


class Hook:
    """Writes violations to a file; ``armed`` from the first command on."""

    def __init__(self, report: Path, token: str, root: Path) -> None:
        self.file = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.token, self.root = token, str(root)
        self.busy = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.busy:
            return
        self.busy = True
        try:
            if what := self.violation(event, arguments):
                os.write(self.file, (json.dumps([event, what[:300]]) + "\n").encode())
        finally:
            self.busy = False

    def violation(self, event: str, arguments: tuple[Any, ...]) -> str:
        if event == "compile":
            return self._text(arguments[0])
        if event == "exec":
            return self._code(arguments[0])
        if event == "pickle.find_class":
            module, name = arguments
            known = (module, name) in PICKLED or str(module).startswith(PICKLED_MODULES)
            return "" if known else f"{module}.{name}"
        if event == "subprocess.Popen":
            return self._process(arguments[0], arguments[1])
        if event in STARTS:
            return repr(arguments[:2])
        if event in CONNECTS:
            address = arguments[1] if event == "socket.connect" else arguments[:2]
            return "" if isinstance(address, (str, bytes)) else repr(address)  # a socket of this machine's file system
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.fsdecode(arguments[0])
            return path if self.token in Path(path).name else ""
        if event == "ctypes.dlopen" and str(arguments[0]).startswith(self.root):
            return str(arguments[0])
        return ""

    def _text(self, source: Any) -> str:
        text = os.fsdecode(source) if isinstance(source, (str, bytes)) else ""
        return text if self.token in text else ""

    def _code(self, code: Any) -> str:
        if not isinstance(code, CodeType):
            return ""
        if code.co_filename.startswith(self.root):
            return code.co_filename
        return repr(code.co_consts) if any(self.token in str(value) for value in code.co_consts) else ""

    def _process(self, program: Any, arguments: Any) -> str:
        words = [os.fsdecode(word) for word in arguments] if isinstance(arguments, (list, tuple)) else [str(arguments)]
        if os.fsdecode(program or words[0]) in PROGRAMS:
            return ""
        if words[0] == sys.executable and any(
            mark in " ".join(words) for mark in ("multiprocessing", "fashionrec.evaluation.detection.speed")
        ):
            return ""
        return " ".join(words)


def take_away(guard: str) -> None:
    """Put back what ultralytics does by itself."""
    if guard == "guard":
        import fashionrec.detector.training.guard

        def unguarded() -> None:
            import ultralytics.nn.tasks

            ultralytics.nn.tasks.SAFE_LOAD = False

        fashionrec.detector.training.guard.install = unguarded
    elif guard == "data":
        from fashionrec.detector.training import finetune, train

        for module in (train, finetune):
            module.write_own_yaml = lambda data, folder, extra=None: data.path.resolve()
    elif guard == "architecture":
        import fashionrec.detector.training.ultra as ultra

        ultra.own_copy = lambda path, folder, name=None: path
        loaded = ultra.load_ultralytics

        def unsafe() -> Any:
            module = loaded()
            sys.modules["ultralytics.nn.tasks"].SAFE_LOAD = False
            return module

        ultra.load_ultralytics = unsafe
    else:
        raise SystemExit(f"no guard {guard}")


def plant(name: str, token: str) -> None:
    """Commit one fault, of each kind that the hook is to see."""
    import pickle
    import socket
    import subprocess

    if name == "exec":
        exec(f"{token} = 1")
    elif name == "eval":
        eval(f"len('{token}')")
    elif name == "pickle":
        pickle.loads(b"cos\ngetcwd\n.")
    elif name == "system":
        os.system("true")
    elif name == "process":
        subprocess.run(["true"], check=True)
    elif name == "connect":
        with socket.socket() as connection:
            connection.connect_ex(("127.0.0.1", 9))
    elif name == "resolve":
        socket.getaddrinfo("localhost", 9)
    elif name == "open":
        Path(f"{token}.txt").read_text()
    elif name == "import":
        sys.path.insert(0, str(Path.cwd()))
        __import__(f"planted_{token.lower()}")
    else:
        raise SystemExit(f"no fault {name}")


def main() -> None:
    split = sys.argv.index("--")
    report, token, root, *rest = sys.argv[1:split]
    command = sys.argv[split + 1 :]
    for guard in rest:
        if guard != "--without":
            take_away(guard)
    sys.addaudithook(Hook(Path(report), token, Path(root)))
    if command[0].startswith("plant:"):
        plant(command[0].removeprefix("plant:"), token)
        return
    from fashionrec.__main__ import main as run

    sys.argv = ["fashionrec", *command]
    run()


if __name__ == "__main__":
    main()
