"""Check the language of the code: what a machine can check of "plain technical English".

    python -m tests.language [PATH ...]

Prints one line per finding (``path:line: rule: text``) and exits with 1 if there are any.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROSE_COLUMNS = 100
#: Lines that are not prose: URLs, command lines, rules.
_VERBATIM = re.compile(r"://|^ *python |^# -+$")
#: Docstrings must not begin with a relative clause or a dangling preposition.
_BAD_START = re.compile(
    r"(Of|What|Where|Whether|Which|Who|Whose|Whom|That which|Those|How|When|Why|As|Beside|Such|One that|One of which)\b"
)
#: Everyday words and participles that were used as names (the field's terms replace them).
BANNED_NAMES = frozenset(
    "seen asked moved opened translated opinion opinions held_back damping efforts make_ready told_of_the_disk"
    " keep_weights_beside put_away_detector counted silenced guarded swapped".split()
)
#: Nouns that are counted in messages: their plural goes through `fashionrec.common.text.plural`.
_COUNTED = (
    "rows|items|photos|garments|products|captions|files|boxes|images|labels|lines|threads|classes|pictures|queries"
    "|annotations|batches|requests|vectors|columns|folders|seconds|minutes|hours|epochs|texts|links|names|splits"
)
#: Verbs that look like the plural of a counted noun.
_VERBS = ("names ", "lines up")
_PLURAL = re.compile(rf"^ (?:[a-z-]+ )?(?:{_COUNTED})\b")


@dataclass(frozen=True)
class Finding:
    """One finding in a file."""

    path: Path
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{self.line}: {self.rule}: {self.text}"


def check(path: Path, *, names: bool = True) -> Iterator[Finding]:
    """Yield the findings of one Python file.

    ``names=False`` skips the rules on names and messages (tests).
    """
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstring(path, node, lines)
        if names:
            yield from _names(path, node)
            if isinstance(node, ast.JoinedStr):
                yield from _plurals(path, node)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = lines[token.start[0] - 1] if token.type == tokenize.COMMENT else ""
        if len(line) > PROSE_COLUMNS and line.lstrip().startswith("#") and not _VERBATIM.search(line):
            yield Finding(path, token.start[0], "long-prose", token.string)


def _docstring(path: Path, node: ast.AST, lines: list[str]) -> Iterator[Finding]:
    first = node.body[0] if getattr(node, "body", None) else None  # type: ignore[attr-defined]
    if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return
    text = first.value.value
    if not isinstance(text, str):
        return
    if _BAD_START.match(text.strip()):
        yield Finding(path, first.lineno, "docstring-start", text.strip().splitlines()[0])
    for number in range(first.lineno, (first.end_lineno or first.lineno) + 1):
        if len(lines[number - 1]) > PROSE_COLUMNS and not _VERBATIM.search(lines[number - 1]):
            yield Finding(path, number, "long-prose", lines[number - 1].strip())


def _names(path: Path, node: ast.AST) -> Iterator[Finding]:
    defined: list[tuple[str, int]] = []
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        defined = [(node.name, node.lineno)]
        if isinstance(node, ast.ClassDef):
            defined += [
                (item.target.id, item.lineno)
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            ]
    for name, line in defined:
        if name.lower() in BANNED_NAMES:
            yield Finding(path, line, "name", name)


def _plurals(path: Path, node: ast.JoinedStr) -> Iterator[Finding]:
    for value, text in zip(node.values, node.values[1:], strict=False):
        if not isinstance(value, ast.FormattedValue) or not isinstance(text, ast.Constant):
            continue
        if str(text.value)[1:].startswith(_VERBS):
            continue
        if _PLURAL.match(str(text.value)) and not _is_constant(value.value):
            yield Finding(path, node.lineno, "plural", f"{ast.unparse(value.value)}{text.value}")


def _is_constant(node: ast.expr) -> bool:
    """Return whether a formatted value is a constant such as ``MAX_ROWS``, whose number is known to
    be above one.
    """
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return bool(name) and name.lstrip("_").isupper()


def main(arguments: list[str]) -> int:
    """Check files and folders (default: the package); return the exit code."""
    paths = [Path(argument).resolve() for argument in arguments] or [ROOT / "fashionrec"]
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    findings = [finding for file in files for finding in check(file, names=file.is_relative_to(ROOT / "fashionrec"))]
    for finding in findings:
        print(finding)
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
