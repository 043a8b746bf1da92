"""Count what makes a tree hard to read, for a comparison before and after a rebuild.

    python -m tests.counts [ROOT ...]

One column for each checkout. ``dataset/synthetic`` (it draws the demo's pictures) is left out of
the lines.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests import test_architecture, test_coupling

LONG_FUNCTION, LONG_PROSE = 60, 100
LEFT_OUT = "dataset/synthetic"


def functions(tree: ast.Module) -> Iterator[int]:
    """The lengths of all functions, in lines with their docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def prose(text: str, tree: ast.Module) -> set[int]:
    """The numbers of the lines that hold docstrings or comments."""
    lines = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def count(root: Path) -> dict[str, int]:
    """The figures of one checkout."""
    package = root / "fashionrec"
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    circles = test_architecture.circles(test_architecture.graph(test_architecture.package_modules(package)))
    words = {path: prose(text, trees[path]) for path, text in texts.items()}
    lines = {path: text.splitlines() for path, text in texts.items()}
    lengths = {path: len(each) for path, each in lines.items()}
    own = {path: n for path, n in lengths.items() if LEFT_OUT not in path.as_posix()}
    sizes = [size for tree in trees.values() for size in functions(tree)]
    return {
        "modules at the top level": len(list(package.glob("*.py"))),
        "modules": len(texts),
        "circles of modules": len(circles),
        "lines of the longest file": max(lengths.values()),
        "lines of the median file": round(statistics.median(lengths.values())),
        f"functions over {LONG_FUNCTION} lines": sum(size > LONG_FUNCTION for size in sizes),
        f"lines, without {LEFT_OUT}": sum(own.values()),
        "of these neither empty nor prose": sum(
            bool(line.strip()) and n not in words[path] for path in own for n, line in enumerate(lines[path], 1)
        ),
        f"lines of prose over {LONG_PROSE} characters": sum(
            len(lines[path][n - 1]) > LONG_PROSE for path, numbers in words.items() for n in numbers
        ),
        "dict[str, Any]": sum(text.count("dict[str, Any]") for text in texts.values()),
        "calls of load_config outside cli and config": sum(
            text.count("load_config(")
            for path, text in texts.items()
            if path.relative_to(package).parts[0] not in ("cli", "config", "config.py")
        ),
        "private or patched names in tests": sum(
            len(set(test_coupling.coupled(path.read_text(encoding="utf-8"))))
            for path in sorted((root / "tests").rglob("*.py"))
            if path.name != "test_coupling.py"
        ),
    }


def main(roots: list[Path]) -> None:
    columns = [count(root) for root in roots]
    for name in columns[0]:
        print(f"{name:<48}" + "".join(f"{column[name]:>10,}" for column in columns))


if __name__ == "__main__":
    main([Path(root) for root in sys.argv[1:]] or [Path(__file__).parent.parent])
