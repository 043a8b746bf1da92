"""Every mutant of a Python file: small edits of its source, found with `ast`.

No mutants are made in docstrings, annotations (so neither in what `Annotated` says of an option),
imports, ``raise``, ``assert``, logging and warnings, ``if TYPE_CHECKING``, ``__all__``, versions,
decorators of dataclasses and f-strings. A string that has a space is taken for a message and stays;
so do the keywords in `KEPT_KEYWORDS`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

COMPARISONS: dict[type, tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: (r"not\s+in", ("in",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: (r"is\s+not", ("is",)),
}
ARITHMETIC: dict[type, tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitOr: ("|", "&"),
    ast.BitAnd: ("&", "|"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
#: Keyword arguments that are texts, or that change nothing on the machines that run the tests.
KEPT_KEYWORDS = {"hint", "help", "description", "title", "encoding", "strict", "daemon"}
SYMMETRIC = {"min", "max", "cast", "gcd", "isclose"}
LOGGERS = {"log", "logger", "logging", "warnings"}
TYPES = {"Annotated", "Literal", "Callable", "Union", "Optional", "TypeVar", "cast", "NamedTuple"}


@dataclass(frozen=True)
class Mutant:
    """One edit. ``lines`` are those of its statement;

    ``reader`` says what must run where that is not in a function.
    """

    file: str
    line: int
    operator: str
    before: str
    after: str
    source: str
    lines: range
    in_function: bool
    reader: tuple[str, ...] = ()

    @property
    def diff(self) -> str:
        return f"{self.before} -> {self.after}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: [{self.operator}] {self.diff}"


class Places(ast.NodeVisitor):
    """The mutable places of one file, in its order, each with its alternatives."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.data = file, text.encode()
        self.starts = [0]
        for row in self.data.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(row))
        self.places: list[list[tuple[str, int, int, str]]] = []
        self.contexts: list[tuple[range, bool, tuple[str, ...]]] = []
        self.statement: range = range(1)
        self.functions = 0
        self.reader: tuple[str, ...] = ()
        self.visit(ast.parse(text))

    # -- where things are

    def start(self, node: ast.AST) -> int:
        return self.starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        return self.starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def text(self, node: ast.AST) -> str:
        return self.data[self.start(node) : self.end(node)].decode()

    def add(self, operator: str, start: int, end: int, *replacements: str) -> None:
        self.places.append([(operator, start, end, text) for text in replacements])
        self.contexts.append((self.statement, self.functions > 0, self.reader))

    def add_between(self, operator: str, left: ast.AST, right: ast.AST, pattern: str, *replacements: str) -> None:
        """Replace an operator, which has no position of its own: it stands between its operands."""
        gap = self.data[self.end(left) : self.start(right)].decode()
        code = re.sub(r"#[^\n]*", lambda comment: " " * len(comment[0]), gap)
        match = re.search(pattern, code)
        if match and code.isascii():
            begin = self.end(left)
            self.add(operator, begin + match.start(), begin + match.end(), *replacements)

    # -- statements

    def visit(self, node: ast.AST) -> None:
        if not isinstance(node, ast.stmt):
            super().visit(node)
            return
        kept = self.statement, self.reader
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno or node.lineno
        self.statement = range(node.lineno, max(node.lineno, last) + 1)
        if not self.functions:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            self.reader = (*bound_names(targets), *self.reader)
        super().visit(node)
        self.statement, self.reader = kept

    def skip(self, node: ast.AST) -> None:
        """Nothing in it is changed."""

    visit_Import = visit_ImportFrom = visit_Raise = visit_Assert = visit_JoinedStr = skip

    def visit_body(self, body: list[ast.stmt]) -> None:
        for n, statement in enumerate(body):
            docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if not (n == 0 and docstring):
                self.visit(statement)

    def visit_Module(self, node: ast.Module) -> None:
        self.visit_body(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        kept, self.reader = self.reader, (node.name,)
        self.visit_body(node.body)
        self.reader = kept

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        kept = self.statement, self.reader, self.functions
        for decorator in node.decorator_list:
            self.visit(decorator)
        if node.body:  # a default is read when the function runs
            self.statement, self.functions = range(node.body[0].lineno, (node.end_lineno or 0) + 1), self.functions + 1
        for default in (*node.args.defaults, *(value for value in node.args.kw_defaults if value is not None)):
            if isinstance(default, (ast.Name, ast.Attribute)):
                self.add("default", self.start(default), self.end(default), "None")
            self.visit(default)
        self.visit_body(node.body)
        self.statement, self.reader, self.functions = kept

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Assign(self, node: ast.Assign) -> None:
        if not any(name.startswith("__") or "VERSION" in name for name in bound_names(node.targets)):
            self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        told = f"{ast.dump(node.annotation)} {ast.dump(node.target)}"
        if node.value is not None and "TypeAlias" not in told and "VERSION" not in told:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        old, new = ARITHMETIC.get(type(node.op), ("", ""))
        if old and not is_text(node.value):
            self.add_between("arithmetic", node.target, node.value, re.escape(old) + "=", new + "=")
        self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None):
            return
        self.add("return", self.start(node.value), self.end(node.value), "None")
        self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call):
            if root_name(node.value.func) in LOGGERS:
                return
            self.add("statement deleted", self.start(node), self.end(node), "pass")
        self.visit(node.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        self.add("loop", self.start(node), self.end(node), "break")

    def visit_Break(self, node: ast.Break) -> None:
        self.add("loop", self.start(node), self.end(node), "continue")

    def visit_If(self, node: ast.If) -> None:
        names = {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node.test)}
        if not names & {"TYPE_CHECKING", "__name__"}:
            self.condition(node.test, "True", "False")
            self.visit(node.test)
            self.visit_body_and_else(node.body)
        self.visit_body_and_else(node.orelse)

    def visit_body_and_else(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self.visit(statement)

    def visit_While(self, node: ast.While) -> None:
        if not isinstance(node.test, ast.Constant):
            self.condition(node.test, "False")
            self.visit(node.test)
        self.visit_body_and_else([*node.body, *node.orelse])

    # -- expressions

    def condition(self, test: ast.expr, *values: str) -> None:
        self.add("condition", self.start(test), self.end(test), *values)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.condition(node.test, "True", "False")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.condition(test, "True")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            pattern, replacements = COMPARISONS[type(operator)]
            self.add_between("comparison", left, right, pattern, *replacements)
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.add_between("and/or", left, right, rf"\b{old}\b", new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.add("not", self.start(node), self.start(node.operand), "")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        old, new = ARITHMETIC.get(type(node.op), ("", ""))
        if old and not is_text(node.left) and not is_text(node.right) and not is_type_union(node):
            self.add_between("arithmetic", node.left, node.right, re.escape(old), new)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value, start, end = node.value, self.start(node), self.end(node)
        if isinstance(value, bool):
            self.add("constant", start, end, str(not value))
        elif isinstance(value, (int, float)):
            self.add("constant", start, end, repr(value + 1) if value + 1 != value else repr(value * 2))
        elif isinstance(value, str) and " " not in value and self.data[start:end].count(b"\n") == 0:
            text = self.text(node)
            quote = 3 if text.endswith(('"""', "'''")) and len(text) > 5 else 1
            self.add("constant", start, end, f"{text[:-quote]}XX{text[-quote:]}")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if root_name(node.value) in TYPES:
            return
        if isinstance(node.slice, ast.Slice):
            for bound in (node.slice.lower, node.slice.upper):
                if bound is not None:
                    self.add("slice", self.start(bound), self.end(bound), "")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in TYPES or root_name(node.func) in LOGGERS or name == "dataclass":
            return
        if isinstance(node.func, ast.Name) and name in FUNCTIONS:
            self.add("function", self.start(node.func), self.end(node.func), FUNCTIONS[name])
        for left, right in zip(node.args, node.args[1:], strict=False):
            starred = isinstance(left, ast.Starred) or isinstance(right, ast.Starred)
            one, two = self.text(left), self.text(right)
            if not starred and name not in SYMMETRIC and one != two:
                gap = self.data[self.end(left) : self.start(right)].decode()
                self.add("arguments swapped", self.start(left), self.end(right), f"{two}{gap}{one}")
        self.visit(node.func)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg in KEPT_KEYWORDS or (name == "Thread" and keyword.arg == "name"):
                continue
            if keyword.arg is not None:
                self.drop_keyword(node, keyword)
            self.visit(keyword.value)

    def drop_keyword(self, call: ast.Call, keyword: ast.keyword) -> None:
        """Remove a keyword argument with the comma behind it, or else the one before it."""
        start, end = self.start(keyword), self.end(keyword)
        behind = re.match(rb"\s*,\s*", self.data[end : self.end(call)])
        before = re.search(rb",\s*$", self.data[self.end(call.func) : start])
        if behind:
            end += behind.end()
        elif before:
            start = self.end(call.func) + before.start()
        self.add("keyword dropped", start, end, "")

    # -- the result

    def __len__(self) -> int:
        return len(self.places)

    def alternatives(self, place: int) -> list[Mutant]:
        """The mutants of a place. There may be none: edits that give no Python are left out."""
        lines, in_function, reader = self.contexts[place]
        found = []
        for operator, start, end, replacement in self.places[place]:
            first, last = self.data.rfind(b"\n", 0, start) + 1, self.data.find(b"\n", end)
            last = len(self.data) if last < 0 else last
            changed = self.data[first:start] + self.edit(start, end, replacement) + self.data[end:last]
            source = self.data[:first] + changed + self.data[last:]
            before = " ".join(self.data[first:last].decode().split())
            after = " ".join(changed.decode().split())
            try:
                compile(source, self.file, "exec", dont_inherit=True)
            except (SyntaxError, ValueError):
                continue
            if before != after:
                line = self.data.count(b"\n", 0, start) + 1
                found.append(
                    Mutant(self.file, line, operator, before, after, source.decode(), lines, in_function, reader)
                )
        return found

    def edit(self, start: int, end: int, replacement: str) -> bytes:
        """The replacement, in a space where it would grow together with a word beside it."""
        text = replacement.encode()
        if text and start and (self.data[start - 1 : start] + text[:1]).isalnum():
            text = b" " + text
        if text and (text[-1:] + self.data[end : end + 1]).isalnum() and len(self.data) > end:
            text += b" "
        return text


def bound_names(targets: list[ast.expr | None]) -> tuple[str, ...]:
    found = []
    for target in targets:
        for node in ast.walk(target) if target is not None else ():
            if isinstance(node, (ast.Name, ast.Attribute)):
                found.append(node.id if isinstance(node, ast.Name) else node.attr)
    return tuple(found)


def root_name(node: ast.AST) -> str:
    while isinstance(node, (ast.Attribute, ast.Call, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return getattr(node, "id", "")


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)))


def is_type_union(node: ast.BinOp) -> bool:
    """``int | None`` and the like, outside of annotations."""
    return isinstance(node.op, ast.BitOr) and any(
        (isinstance(part, ast.Constant) and part.value is None)
        or (isinstance(part, ast.Name) and part.id in {"int", "str", "float", "bool", "bytes", "dict", "list", "tuple"})
        for part in (node.left, node.right)
    )
