"""Tests speak to public names: no private name of the package is imported, read or patched, and no
module is patched.

Fakes enter by arguments (a decoder, a clock, a transport), settings, the environment or a local
server. What is patched in the package nonetheless stands in `REMAINS` with its reason; a line there
that is no longer needed fails as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = "fashionrec"

# Private by their spelling alone: documented names of the standard library and of other packages.
NOT_OURS = {
    "_exit": "os._exit ends a process at once",
    "_replace": "a method of named tuples",
    "_repr_html_": "IPython: what a notebook shows of a value",
    "_parameters": "torch: the parameters of one module",
    "_attn_implementation": "transformers: a setting of a model",
}
TAKEN_AWAY = (
    "care that is taken away in a process of its own, to show that the trials, the adversary or the audit notice"
)
# `FILE: WHAT`, and why no argument, setting or server can do it.
REMAINS: dict[str, str] = {
    "audit_runner.py: sets fashionrec.detector.training.guard.install": TAKEN_AWAY,
    "audit_runner.py: sets module.write_own_yaml": TAKEN_AWAY,
    "audit_runner.py: sets ultra.load_ultralytics": TAKEN_AWAY,
    "audit_runner.py: sets ultra.own_copy": TAKEN_AWAY,
    "test_catalogue_faults.py: sets Folder.write": TAKEN_AWAY,
    "adversary/naive.py: sets Folder.append": TAKEN_AWAY,
    "adversary/naive.py: sets Folder.check": TAKEN_AWAY,
    "adversary/naive.py: sets Folder.entries": TAKEN_AWAY,
    "adversary/naive.py: sets Folder.kind": TAKEN_AWAY,
    "adversary/naive.py: sets Folder.open": TAKEN_AWAY,
    "adversary/naive.py: sets Folder.path": TAKEN_AWAY,
    "adversary/naive.py: sets Folder.remove": TAKEN_AWAY,
    "adversary/naive.py: sets Folder.write": TAKEN_AWAY,
    "adversary/naive.py: sets Reach.__init__": TAKEN_AWAY,
    "adversary/naive.py: sets generations.SHARED": TAKEN_AWAY,
}

PATCHES = {"setattr", "delattr", "setitem", "delitem", "object", "dict", "multiple", "patch"}
LOOKED_AT = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.For, ast.Assign, ast.AugAssign, ast.AnnAssign)
LOOKED_AT += (ast.Attribute, ast.Call, ast.Constant, ast.JoinedStr)
IN_TEXT = re.compile(rf"\b{PACKAGE}(?:\.\w+)*\._(?!_)\w+|\bfrom {PACKAGE}[\w.]* import [^\n;]*\b_(?!_)\w+")


def is_private(name: str) -> bool:
    return name.startswith("_") and name != "_" and not name.endswith("__")


def is_module(dotted: str) -> bool:
    path = TESTS.parent.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def is_import(node: ast.Call) -> bool:
    """A module of ours by `importlib.import_module`."""
    ours = any(text_of(given).partition(".")[0] == PACKAGE for given in node.args[:1])
    return ours and ast.unparse(node.func).endswith("import_module")


def root(node: ast.expr) -> ast.expr:
    while isinstance(node, (ast.Attribute, ast.Call, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node


def text_of(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


class Names:
    """Record of which names of a file are the package's, and which are other modules'.

    Scopes are not told apart.
    """

    def __init__(self, nodes: Sequence[ast.AST]) -> None:
        self.ours: set[str] = set()
        self.others: set[str] = set()
        self.whole: set[str] = set()  # of ours: modules and classes
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    (self.ours if top == PACKAGE else self.others).add(alias.asname or top)
                    self.whole |= {alias.asname or top} if top == PACKAGE else set()
            elif isinstance(node, ast.ImportFrom):
                ours = (node.module or "").partition(".")[0] == PACKAGE
                (self.ours if ours else self.others).update(alias.asname or alias.name for alias in node.names)
                self.whole |= {
                    alias.asname or alias.name
                    for alias in node.names
                    if ours and (alias.name[0].isupper() or is_module(f"{node.module}.{alias.name}"))
                }
        # a class made of one of the package's, a module by `import_module`, and whatever is
        # assigned from either
        while True:
            known = len(self.ours)
            for node in nodes:
                if isinstance(node, ast.ClassDef) and any(self.is_ours(base) for base in node.bases):
                    self.ours.add(node.name)
                elif isinstance(node, ast.Assign) and self.is_ours(node.value):
                    targets = {target.id for target in node.targets if isinstance(target, ast.Name)}
                    self.ours |= targets
                    self.whole |= targets if self.is_whole(node.value) else set()
                elif isinstance(node, ast.For) and isinstance(node.target, ast.Name) and self.is_whole(node.iter):
                    self.whole.add(node.target.id)
            if len(self.ours) == known:
                return

    def is_ours(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Call) and is_import(node):
            return True
        found = root(node)
        return isinstance(found, ast.Name) and found.id in self.ours

    def is_whole(self, node: ast.expr) -> bool:
        """A module or class of ours, or a tuple of them."""
        if isinstance(node, ast.Tuple):
            return any(map(self.is_whole, node.elts))
        if isinstance(node, ast.Attribute):  # `fashionrec.detector.training.guard`
            return self.is_whole(node.value)
        if isinstance(node, ast.Call):
            return is_import(node)
        return isinstance(node, ast.Name) and node.id in self.whole

    def is_others(self, node: ast.expr) -> bool:
        """A module or class that is not the package's, or one by its path."""
        if isinstance(node, ast.Constant):
            return not text_of(node).startswith(PACKAGE)
        found = root(node)
        return isinstance(found, ast.Name) and found.id in self.others and found.id not in self.ours


def imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom):
        yield from (f"imports {alias.name}" for alias in node.names if is_private(alias.name))
    elif isinstance(node, ast.Import):
        yield from (f"imports {alias.name}" for alias in node.names if any(map(is_private, alias.name.split("."))))


def read(node: ast.AST) -> Iterator[str]:
    """A private attribute of anything but the test's own object;

    `getattr` and code in a string alike.
    """
    if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in NOT_OURS:
        if ast.unparse(node.value) not in ("self", "cls"):
            yield f"uses {node.attr}"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
        if len(node.args) > 1 and is_private(text_of(node.args[1])):
            yield f"uses {text_of(node.args[1])}"
    elif isinstance(node, ast.Constant):
        yield from (f"names {found}" for found in IN_TEXT.findall(text_of(node)))


def overridden(node: ast.AST, names: Names) -> Iterator[str]:
    """Private names inside a class made of one of the package's are that class's."""
    if isinstance(node, ast.ClassDef) and any(names.is_ours(base) for base in node.bases):
        for inner in ast.walk(node):
            if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_private(inner.name):
                yield f"overrides {node.name}.{inner.name}"
            elif isinstance(inner, ast.Attribute) and is_private(inner.attr) and ast.unparse(inner.value) == "self":
                yield f"uses {inner.attr}"


def patched(node: ast.AST, names: Names) -> Iterator[str]:
    """Whatever is replaced in the package:

    `monkeypatch`, `mock.patch`, `setattr`, an assignment.
    """
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Attribute) and names.is_whole(target.value):
                yield f"sets {ast.unparse(target)}"
        return
    if not isinstance(node, ast.Call) or not node.args:
        return
    target, *others = node.args
    name = text_of(others[0]) if others else ""
    if isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
        if names.is_whole(target) or is_private(name):
            yield f"sets {ast.unparse(target)}.{name}"
    elif isinstance(node.func, (ast.Attribute, ast.Name)):
        by = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        how = ast.unparse(node.func) if by in PATCHES else ""
        if by not in PATCHES or not ("patch" in how or by in ("setattr", "delattr")):
            return
        if by in ("setitem", "delitem", "dict"):
            if names.is_ours(target) or any(text_of(given).startswith(PACKAGE) for given in node.args):
                yield f"sets {ast.unparse(target)}[]"
        elif not names.is_others(target):
            yield f"sets {text_of(target) or ast.unparse(target)}{'.' + name if name else ''}"
        elif is_private(name) or any(map(is_private, text_of(target).split("."))):
            yield f"sets {text_of(target) or ast.unparse(target)}.{name}"


def code_in(node: ast.AST) -> str:
    """A text that may be a program for another process, with zeros for what is
    formatted into it.
    """
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "0" for part in node.values)
    return text_of(node) if isinstance(node, ast.Constant) else ""


def programs(nodes: Sequence[ast.AST]) -> Iterator[str]:
    for code in map(code_in, nodes):
        if "import" in code and PACKAGE in code:
            with suppress(SyntaxError, ValueError):
                yield ast.unparse(ast.parse(code))


def coupled(source: str) -> list[str]:
    """Return what a test's source, programs in its texts included, has to do with the inside of the
    package.
    """
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, LOOKED_AT)]
    names = Names(nodes)
    found = [
        f"{what} (line {getattr(node, 'lineno', 0)})"
        for node in nodes
        for what in (*imported(node), *read(node), *overridden(node, names), *patched(node, names))
    ]
    return sorted({*found, *(what for code in programs(nodes) for what in coupled(code))})


def without_line(what: str) -> str:
    return what.partition(" (line")[0]


def test_no_test_reaches_into_the_package() -> None:
    found = {
        f"{path.relative_to(TESTS).as_posix()}: {what}"
        for path in sorted(TESTS.rglob("*.py"))
        if path != Path(__file__)
        for what in coupled(path.read_text(encoding="utf-8"))
    }
    assert [what for what in sorted(found) if without_line(what) not in REMAINS] == []
    assert set(REMAINS) - {without_line(what) for what in found} == set(), "these lines are no longer needed"
    assert len(REMAINS) <= 15, "a fake enters by an argument, a setting or a server: this list only shrinks"


PLANTED = [
    "from fashionrec.models.runs import _HELD",
    "import fashionrec._core",
    "from fashionrec.models import runs\nprint(runs._HELD)",
    "from fashionrec.models.bundle import Bundle\nBundle.open('x')._engines('image')",
    "def test(embedder):\n    assert embedder._sessions",
    "def test(server):\n    getattr(server, '_answer')",
    "from fashionrec.detector.detect import Detector\nclass Losing(Detector):\n    def _run(self): pass",
    "from fashionrec.detector.detect import Detector\nclass Losing(Detector):\n    def go(self): return self._run()",
    "from fashionrec.detector.detect import Detector\nclass Losing(Detector):\n    def run(self): return super()._run()",
    "import subprocess\nsubprocess.run(['python', '-c', 'from fashionrec.models.runs import _HELD, Run'])",
    "import subprocess\nsubprocess.run(['python', '-c', 'import fashionrec.models.runs; fashionrec.models.runs._HELD'])",
    "from fashionrec.models import runs\ndef test(monkeypatch):\n    monkeypatch.setattr(runs, '_WAIT', 1)",
    "from fashionrec.models import runs\ndef test(monkeypatch):\n    monkeypatch.setattr(runs, 'now', None)",
    "from fashionrec.models import runs as module\ndef test(patch):\n    patch.setattr(module.os, 'fsync', None)",
    "def test(monkeypatch):\n    monkeypatch.setattr('fashionrec.models.runs.now', None)",
    "def test(monkeypatch):\n    monkeypatch.delattr('fashionrec.models.runs.now')",
    "from fashionrec.models import runs\ndef test(monkeypatch):\n    monkeypatch.setitem(runs.KINDS, 'a', 1)",
    "import sys\ndef test(monkeypatch):\n    monkeypatch.setitem(sys.modules, 'fashionrec.models.runs', None)",
    "def test(monkeypatch, session):\n    monkeypatch.setattr(session.out, 'say', None)",
    "from unittest import mock\nwith mock.patch('fashionrec.models.runs.now'): pass",
    "from unittest.mock import patch\nfrom fashionrec.models import runs\nwith patch.object(runs, 'now'): pass",
    "from unittest.mock import patch\nwith patch('fashionrec.models.runs.now'): pass",
    "import importlib\nruns = importlib.import_module('fashionrec.models.runs')\nruns.now = None\nsetattr(runs, 'now', None)",
    "from fashionrec.models import runs\nruns.now = lambda: ''",
    "import sys\ncode = 'from fashionrec.models import runs\\nruns.now = None\\n' f'print({sys.argv!r})'",
    "import fashionrec.models.runs\nfashionrec.runs.now = lambda: ''",
    "from fashionrec.detector.detect import Detector\nDetector.detect = None",
    "from fashionrec.models import runs, bundle\nfor module in (runs, bundle):\n    module.now = None",
]


@pytest.mark.parametrize("source", PLANTED)
def test_the_check_sees_each_kind(source: str) -> None:
    assert coupled(source)


@pytest.mark.parametrize(
    "source",
    [
        "class Server:\n    def __init__(self):\n        self._lock = 1",
        "import os\nos._exit(0)",
        "import os\ndef test(monkeypatch):\n    monkeypatch.setattr(os, 'fsync', None)",
        "def test(monkeypatch):\n    monkeypatch.setattr('sys.platform', 'linux')",
        "import onnxruntime\ndef test(monkeypatch):\n    monkeypatch.setattr(onnxruntime, 'InferenceSession', None)",
        "def test(monkeypatch):\n    monkeypatch.setenv('FASHIONREC_BUILD__WORKERS', '1')",
        "from fashionrec.models.runs import start_run\nrun = start_run('x')\nrun.status = 'done'",
        "from fashionrec.models.runs import Run\nclass Mine(Run):\n    def save(self): super().save()",
        "for _ in range(3): pass",
    ],
)
def test_what_is_no_coupling_is_left_alone(source: str) -> None:
    assert coupled(source) == []
