"""The filter language, ``price < 50000 and brand in ('A', 'B')``, parsed into a tree. Nothing is
executed.

A search decides the tree for all items at once: :mod:`fashionrec.search.filters.columns`.

::

    filter     = term {"or" term}            term = factor {"and" factor}
    factor     = "not" factor | "(" filter ")" | test
    test       = column ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") value
               | column ["not"] "in" "(" value {"," value} ")"
               | column ["not"] "like" text            % any characters, _ one
               | column ["not"] "between" value "and" value
               | column "is" ["not"] "null"
    column     = a word, or any characters in backticks: `on sale`
    value      = number | 'text' | "text" | true | false

Logic is that of SQL, with three values: comparisons with a missing value are unknown, ``not``
unknown is unknown, and a row matches if the whole is true. Texts are compared ignoring case
(Unicode case folding, NFKC). A number equals a text that reads as that number. A list matches if
any of its members does.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fashionrec.common.values import as_number, as_text, folded, like
from fashionrec.errors import UsageError

Value = str | float | int | bool
#: Three-valued logic: None is unknown.
Truth = bool | None

MOST_CHARACTERS = 10_000
MOST_DEPTH = 60

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<column>`[^`]*`)
    |(?P<word>[^\W\d][\w.]*)
    |(?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"and", "or", "not", "in", "like", "between", "is", "null", "true", "false"})
_COMPARE = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


class WhereError(UsageError):
    """An invalid filter: ``shown`` has it with a caret below the position."""

    def __init__(self, message: str, text: str, at: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint or "for example --where \"price < 50000 and brand in ('A', 'B')\"")
        line = " ".join(text.split("\n"))
        start = max(0, at - 60)
        self.shown = f"  {line[start : start + 120]}\n  {' ' * _display_width(line[start:at])}^"


@dataclass(frozen=True)
class Comparison:
    """A test of a column: ``kind`` is ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in``, ``like``
    or ``null``.
    """

    column: str
    kind: str
    values: tuple[Value, ...]
    at: int

    def truth(self, value: Any) -> Truth:
        """Evaluate the test for one value; None (missing) is unknown except for ``is null``."""
        if self.kind == "null":
            return value is None
        if value is None:
            return None
        if isinstance(value, (list, tuple)):
            found = [self.truth(member) for member in value if member is not None]
            if self.kind == "!=":
                return all(found) if found else None
            return any(one is True for one in found) if found else None
        if self.kind == "in":
            return any(_equal(value, one) for one in self.values)
        if self.kind == "like":
            return like(folded(str(self.values[0])), folded(as_text(value)))
        if self.kind in ("=", "!="):
            return _equal(value, self.values[0]) == (self.kind == "=")
        order = _order(value, self.values[0])
        if order is None:
            return None
        return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[self.kind]


@dataclass(frozen=True)
class Not:
    part: Filter


@dataclass(frozen=True)
class Group:
    """``and`` of the parts, or ``or`` if ``any_``."""

    parts: tuple[Filter, ...]
    any_: bool


Filter = Comparison | Not | Group


def parse_where(text: str) -> Filter:
    """Parse a filter into a tree. Raises :class:`WhereError`, which shows the position of the
    error.
    """
    if len(text) > MOST_CHARACTERS:
        raise WhereError(f"filter longer than {MOST_CHARACTERS} characters", text, MOST_CHARACTERS)
    return _Parser(text).whole()


def columns_of(tree: Filter) -> Iterator[Comparison]:
    """Yield every test of a filter, from left to right."""
    if isinstance(tree, Comparison):
        yield tree
    elif isinstance(tree, Not):
        yield from columns_of(tree.part)
    else:
        for part in tree.parts:
            yield from columns_of(part)


def keeps(tree: Filter, get: Callable[[str], Any]) -> Truth:
    """Evaluate a filter for one row, whose values ``get`` returns by column name.

    This defines the meaning of filters. Searches use ``Columns.allowed``, which evaluates all rows
    together.
    """
    if isinstance(tree, Comparison):
        return tree.truth(get(tree.column))
    if isinstance(tree, Not):
        found = keeps(tree.part, get)
        return None if found is None else not found
    truths = [keeps(part, get) for part in tree.parts]
    decisive = tree.any_
    if decisive in truths:
        return decisive
    return None if None in truths else not decisive


@dataclass(frozen=True)
class _Word:
    kind: str
    text: str
    at: int
    value: Any = None


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.words = list(self._words())
        self.n = 0
        self.depth = 0

    def _words(self) -> Iterator[_Word]:
        at = 0
        while at < len(self.text):
            found = _TOKEN.match(self.text, at)
            if found is None:
                character = self.text[at]
                if character in "'\"`":
                    raise WhereError(f"unclosed {character}", self.text, at)
                raise WhereError(f"unexpected {character!r}", self.text, at)
            kind, part = str(found.lastgroup), found.group()
            if kind == "number":
                number = float(part)
                if not math.isfinite(number):
                    raise WhereError("number too large", self.text, at)
                yield _Word(kind, part, at, int(part) if re.fullmatch(r"[+-]?\d+", part) else number)
            elif kind == "text":
                yield _Word(kind, part, at, part[1:-1].replace(part[0] * 2, part[0]))
            elif kind == "column":
                if part == "``":
                    raise WhereError("empty column name", self.text, at)
                yield _Word("column", part, at, part[1:-1])
            elif kind == "word" and part.lower() in _KEYWORDS:
                yield _Word(part.lower(), part, at)
            elif kind == "word":
                yield _Word("column", part, at, part)
            elif kind == "sign":
                yield _Word(part, part, at)
            at = found.end()
        yield _Word("end", "the end", len(self.text))

    @property
    def word(self) -> _Word:
        return self.words[self.n]

    def take(self, *kinds: str) -> _Word | None:
        if self.word.kind in kinds:
            self.n += 1
            return self.words[self.n - 1]
        return None

    def need(self, kind: str, what: str) -> _Word:
        found = self.take(kind)
        if found is None:
            raise self.error(f"expected {what} before {self.word.text!r}")
        return found

    def error(self, message: str, hint: str = "") -> WhereError:
        return WhereError(message, self.text, self.word.at, hint=hint)

    def whole(self) -> Filter:
        if self.word.kind == "end":
            raise self.error("empty filter")
        tree = self.either()
        if self.word.kind != "end":
            raise self.error(f"expected 'and' or 'or' before {self.word.text!r}")
        return tree

    def either(self) -> Filter:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise self.error("too many nested brackets")
        parts = [self.all_()]
        while self.take("or"):
            parts.append(self.all_())
        self.depth -= 1
        return parts[0] if len(parts) == 1 else Group(tuple(parts), any_=True)

    def all_(self) -> Filter:
        parts = [self.factor()]
        while self.take("and"):
            parts.append(self.factor())
        return parts[0] if len(parts) == 1 else Group(tuple(parts), any_=False)

    def factor(self) -> Filter:
        times = 0
        while self.take("not"):
            times += 1
        if self.take("("):
            tree = self.either()
            self.need(")", "a closing bracket")
        else:
            tree = self.test()
        return Not(tree) if times % 2 else tree

    def test(self) -> Filter:
        column = self.take("column")
        if column is None:
            hint = (
                "put unusual column names in backticks: `on sale` = true"
                if self.word.kind in ("text", "number")
                else ""
            )
            raise self.error(f"expected a column before {self.word.text!r}", hint)
        name, at = str(column.value), column.at
        if self.take("is"):
            negated = self.take("not") is not None
            self.need("null", "null")
            null = Comparison(name, "null", (), at)
            return Not(null) if negated else null
        negated = self.take("not") is not None
        if self.take("in"):
            self.need("(", "an opening bracket")
            values = [self.value()]
            while self.take(","):
                values.append(self.value())
            self.need(")", "a closing bracket")
            found: Filter = Comparison(name, "in", tuple(values), at)
        elif self.take("like"):
            pattern = self.take("text")
            if pattern is None:
                raise self.error("like needs a text, as in like 'shirt%'")
            found = Comparison(name, "like", (str(pattern.value),), at)
        elif self.take("between"):
            low = self.value()
            self.need("and", "and")
            found = Group((Comparison(name, ">=", (low,), at), Comparison(name, "<=", (self.value(),), at)), any_=False)
        elif not negated and (sign := self.take(*_COMPARE)):
            return Comparison(name, _COMPARE[sign.kind], (self.value(),), at)
        else:
            raise self.error(f"incomplete filter: expected a comparison (=, <, in, like ...) before {self.word.text!r}")
        return Not(found) if negated else found

    def value(self) -> Value:
        word = self.take("number", "text", "true", "false")
        if word is None:
            hint = f"put text in quotes: '{self.word.value}'" if self.word.kind == "column" else ""
            if self.word.kind == "null":
                hint = "use: is null"
            raise self.error(f"expected a value before {self.word.text!r}", hint)
        if word.kind in ("true", "false"):
            return word.kind == "true"
        value: Value = word.value
        return value


def _display_width(text: str) -> int:
    """Return the terminal columns of a text: Korean letters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _equal(value: Any, wanted: Value) -> bool:
    if isinstance(wanted, bool) or isinstance(value, bool):
        return folded(as_text(value)) == folded(as_text(wanted))
    if isinstance(wanted, (int, float)) or isinstance(value, (int, float)):
        left, right = as_number(value), as_number(wanted)
        return left is not None and left == right
    return folded(str(value)) == folded(wanted)


def _order(value: Any, wanted: Value) -> int | None:
    """Return a negative number, 0 or a positive number for the order of two values; None if they
    have none.
    """
    if isinstance(wanted, bool) or isinstance(value, bool):
        return None
    if isinstance(wanted, (int, float)) or isinstance(value, (int, float)):
        left, right = as_number(value), as_number(wanted)
        return None if left is None or right is None else (left > right) - (left < right)
    a, b = folded(str(value)), folded(wanted)
    return (a > b) - (a < b)
