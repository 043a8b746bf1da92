"""One printer, one writer of tables, one function that quotes: what the package's source may not do
elsewhere.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fashionrec
from fashionrec.cli.main import FAMILIES

PACKAGE = Path(fashionrec.__file__).parent
#: Where something other than the printer may name a standard stream, and why.
STREAMS = {
    "__main__.py": "flushes them before it leaves",
    "cli/output.py": "the printer",
    "cli/session.py": "closes standard output when its reader has gone",
    "detector/training/ultra.py": "gives ultralytics' logger back a stream, which is guarded",
}
PRINTERS = ("print", "pprint", "echo", "secho", "style", "basicConfig", "StreamHandler", "print_exc",
            "print_exception", "print_stack")  # fmt: skip


@functools.cache
def sources() -> dict[str, ast.AST]:
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}


def called(node: ast.Call) -> str:
    function: Any = node.func
    return str(getattr(function, "attr", "") or getattr(function, "id", ""))


def bypasses(file: str, tree: ast.AST) -> list[str]:
    """Return what of a file writes past the printer."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr", "__stdout__", "__stderr__"):
            owner: Any = node.value
            if getattr(owner, "id", "") == "sys" and file not in STREAMS:
                found.append(f"{file}:{node.lineno} sys.{node.attr}")
        version = file == "cli/main.py" and isinstance(node, ast.Call) and called(node) == "echo"
        if isinstance(node, ast.Call) and called(node) in PRINTERS and file != "cli/output.py" and not version:
            found.append(f"{file}:{node.lineno} {called(node)}")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rich" and file != "cli/output.py":
            found.append(f"{file}:{node.lineno} rich")
        if isinstance(node, ast.Call) and called(node) == "write" and isinstance(node.args[0], ast.Constant):
            owner = getattr(node.func, "value", None)
            if getattr(owner, "id", "") == "os" and not isinstance(node.args[1], ast.Constant):
                found.append(f"{file}:{node.lineno} os.write")
    return found


VERBS = "|".join(name for names in FAMILIES.values() for name in names)
ANYWHERE = re.compile(rf"fashionrec ({VERBS})\b")
COMMAND = re.compile(rf"{ANYWHERE.pattern}|(^|\s)--(set|map|index|weights|data|out)\b|\b(model|data)=")


def pieces(node: ast.AST) -> Iterator[ast.JoinedStr]:
    """The f-strings of an expression, but for those that ``shell_word`` is given."""
    if isinstance(node, ast.Call) and called(node) == "shell_word":
        return
    if isinstance(node, ast.JoinedStr):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from pieces(child)


def unquoted(file: str, tree: ast.AST) -> list[str]:
    """Values that stand in a command to be pasted without having passed ``shell_word``."""
    found = set()
    suggestions: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node) == "next":
            suggestions += node.args
        if isinstance(node, ast.keyword) and node.arg == "hint":
            suggestions.append(node.value)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in (
            "hint",
            "apply_command",
            "commands",
            "undo",
            "found",
        ):
            suggestions.append(node.value)
    suggested = [(piece, COMMAND) for part in suggestions for piece in pieces(part)]
    for text, pattern in suggested + [(piece, ANYWHERE) for piece in pieces(tree)]:
        if not pattern.search("".join(str(part.value) for part in text.values if isinstance(part, ast.Constant))):
            continue
        for value in (part.value for part in text.values if isinstance(part, ast.FormattedValue)):
            known = ast.unparse(value)
            if not (isinstance(value, ast.Call) and called(value) == "shell_word") and (file, known) not in KNOWN:
                found.add(f"{file}:{value.lineno} {known}")
    return sorted(found)


#: Values in suggestions that are ours, or quoted where they are made.
KNOWN = {
    ("cli/query.py", "_repeat_options(request)"),
    ("cli/catalogue.py", "ends"),
    ("cli/main.py", "__version__"),
    ("products/columns.py", "', '.join(images)"),
}


def test_nothing_writes_past_the_printer() -> None:
    assert [line for file, tree in sources().items() for line in bypasses(file, tree)] == []


def test_every_table_has_one_writer() -> None:
    writers = [
        f"{file}:{node.lineno}"
        for file, tree in sources().items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Call) and called(node) in ("DictWriter", "to_csv", "to_excel", "to_markdown_table"))
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "csv.writer" and file != "common/text.py")
    ]  # fmt: skip
    assert writers == []


def test_every_suggested_command_quotes_what_it_names() -> None:
    assert [line for file, tree in sources().items() for line in unquoted(file, tree)] == []


@pytest.mark.parametrize(
    "planted",
    ["print(x)", "import sys\nsys.stderr.write(x)", "typer.echo(x)", "from rich.console import Console",
     "import os\nos.write(2, x)", "logging.basicConfig()", "traceback.print_exc()"],
)  # fmt: skip
def test_the_rule_sees_a_planted_bypass(planted: str) -> None:
    assert bypasses("x.py", ast.parse(planted))


@pytest.mark.parametrize(
    "planted",
    ['out.next(f"fashionrec query PHOTO --index {root}")', 'raise E("x", hint=f"--map \'{label}=top\'")',
     'found = [f"fashionrec build-index {path}"]', 'hint = f"train on: model={path}"'],
)  # fmt: skip
def test_the_rule_sees_an_unquoted_name(planted: str) -> None:
    assert unquoted("x.py", ast.parse(planted))
