r"""Make untrusted text safe in terminals, JSON, tables, Markdown and command lines.

Titles, file names and server messages may contain control sequences, characters that reorder or
hide their neighbours, and cells that a spreadsheet would evaluate. Control characters become
visible. All functions are total: any ``str``, including lone surrogates, has a result, and they are
idempotent.

See "Trojan Source" (https://trojansource.codes), UTR #36 and UTS #51, and OWASP's "CSV Injection".
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, Protocol

from fashionrec.common.system import WINDOWS

#: Characters without a visible form, or that reorder their neighbours (classes of `re`): C1 and
#: DEL, soft hyphen, bidi controls, zero-width and other format characters, line and paragraph
#: separators, fillers, noncharacters, surrogates, tags.
_UNSEEN = (
    "\x7f-\x9f\xad\u061c\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufdd0-\ufdef\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_HIDDEN = "\x00-\x1f" + _UNSEEN
#: Joiners and variation selectors: emoji and several scripts need them after certain characters.
_JOINER, _SELECTOR = "\u200c\u200d", "\ufe00-\ufe0f\u180b-\u180d\u180f\U000e0100-\U000e01ef"
_SPACES = "\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
#: The three flags that are spelt with tags (UTS #51): England, Scotland and Wales.
_FLAGS = "|".join(
    "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in region) + "\U000e007f"
    for region in ("gbeng", "gbsct", "gbwls")
)
#: A hidden character, or a longer sequence that is kept.
_HIDDEN_OR_KEPT = (
    f"{_FLAGS}|[0-9#*]\ufe0f\u20e3"
    f"|[^\x00-\x7f{_HIDDEN}{_JOINER}{_SELECTOR}{_SPACES}](?:[{_SELECTOR}][{_JOINER}]?|[{_JOINER}])"
    f"|[{_HIDDEN}{_JOINER}{_SELECTOR}]"
)
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
#: Combining marks per letter: Hebrew with points and accents has five.
_MARKS = 8
_MAY_STACK = re.compile(f"[^\x00-\x7f]{{{_MARKS + 1}}}")
_SURROGATES = re.compile("[\ud800-\udfff]")
#: Characters that act on a terminal showing a file; tabs and line ends belong to tables.
_ACTING = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
_UNSEEN_IN_JSON = f"[{_UNSEEN}]"

#: Characters that begin a formula in spreadsheets, including full-width and other forms (equal to
#: these by NFKC).
_SIGNS = "=+\\-@\uff1d\ufe66\u207c\u208c\uff0b\ufe62\u207a\u208a\ufb29\uff0d\ufe63\u2212\uff20\ufe6b"
#: The start of a cell, also after separators at which other programs split.
_CELL_STARTS = (
    rf"(^|[;\t\r\n])(?=[ {_SPACES}{_UNSEEN}{_JOINER}{_SELECTOR}\x00-\x08\x0b\x0c\x0e-\x1f]*[{_SIGNS}])"
    r"(?! *(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|nan)) *(?:[;\t\r\n]|\Z))"
)


def visible(text: str) -> str:
    r"""Return text for one line of a terminal, with hidden characters as escapes.

    For example ``\x1b``, ``\u202e``, and ``\n`` for a newline. Letters of every script, emoji, and
    up to eight combining marks per letter are kept.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = re.sub(_HIDDEN_OR_KEPT, lambda found: found[0] if len(found[0]) > 1 else _escape(found[0]), text)
    return _bound_marks(shown) if _MAY_STACK.search(shown) else shown


def visible_lines(text: str) -> str:
    """Return the same as :func:`visible` for a block with newlines and tabs of our own."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in lines)


def json_text(document: Any, *, indent: int | None = None, ascii_only: bool = False, stored: bool = False) -> str:
    r"""Return JSON that reads back as the same values, with hidden characters as ``\u`` escapes.

    Lone surrogates are escaped, too. In a ``stored`` document, which we read again, a lone
    surrogate (a byte of a name that is not UTF-8) becomes the text of :func:`visible`. Raises
    ``ValueError`` for NaN and infinities.
    """
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent, allow_nan=False)
    if stored:
        text = _SURROGATES.sub(lambda found: json.dumps(_escape(found[0]))[1:-1], text)
    return re.sub(_UNSEEN_IN_JSON, lambda found: json.dumps(found[0])[1:-1], text)


def shell_word(value: object, *, windows: bool = WINDOWS) -> str:
    r"""Quote a word for a command line; a path that begins with ``-`` becomes ``./-…``.

    A word with hidden characters, or white space that a line cannot keep, is written as
    ``$'\x1b…'`` (bash, zsh, ksh).
    """
    import shlex  # at call time, like the expressions above, which `re` compiles on first use

    word = str(value)
    if isinstance(value, PurePath) and word.startswith("-"):
        word = f".{os.sep}{word}"
    strange = visible(word) != word or any(ch.isspace() and ch != " " for ch in word) or "  " in word
    if windows:  # no quoting works in both cmd and PowerShell; file names cannot contain quotes
        if re.fullmatch(r"[\w@+=:,./\\-]+", word):
            return word
        return '"…"' if strange or re.search(r'["$`%!&|<>^]', word) else f'"{word}"'
    if strange:
        quoted = "".join(map(_ansi_c, word))
        return "$'" + re.sub("  +", lambda run: r"\x20" * len(run[0]), quoted) + "'"
    return "'" + word + "'" if word.startswith("=") and "'" not in word else shlex.quote(word)


def plain_name(name: str) -> str:
    """Return a file name made from an untrusted one, with ``-`` for each hidden character."""
    return name if visible(name) == name else "".join("-" if visible(one) != one else one for one in name)


def table_cell(value: Any) -> Any:
    """Return a value for a CSV or TSV table.

    Texts that a spreadsheet would evaluate get an apostrophe; numbers stay numbers.
    """
    if not isinstance(value, str):
        return value
    safe = re.sub(_CELL_STARTS, r"\1'", value, flags=re.ASCII)
    return "'" + safe if safe.startswith(("\t", "\r", "\n")) else safe


def plural(count: int, singular: str, several: str | None = None) -> str:
    """Return a count with its noun: ``plural(1200, "row")`` is "1,200 rows".

    ``several`` is the plural form if it is not ``singular`` with an "s".
    """
    return f"{count:,} {singular if count == 1 else several or singular + 's'}"


class TextSink(Protocol):
    """The target of a table."""

    def write(self, text: str, /) -> object: ...


class TableWriter:
    """A CSV table whose cells pass :func:`table_cell`.

    Lone surrogates (names that are not UTF-8), and control characters that act in a terminal,
    become escapes.
    """

    def __init__(self, file: TextSink, *, lineterminator: str = "\n") -> None:
        self._file, self._end = file, lineterminator
        import csv  # at call time: most commands write no table

        self._writer = csv.writer(self, lineterminator="\r\n")  # with another one, "\r" in a cell would not be quoted

    def write(self, row: str, /) -> object:
        """Take a row from the writer of the csv module."""
        return self._file.write(row.removesuffix("\r\n") + self._end)

    def writerow(self, row: Iterable[object]) -> None:
        self._writer.writerow([table_cell(_inert(encodable(cell)) if isinstance(cell, str) else cell) for cell in row])

    def writerows(self, rows: Iterable[Iterable[object]]) -> None:
        for row in rows:
            self.writerow(row)


def _inert(text: str) -> str:
    return re.sub(_ACTING, lambda found: _escape(found[0]), text)


def encodable(text: str, encoding: str = "utf-8") -> str:
    """Return text with an escape for each character that the encoding lacks.

    In UTF-8 those are lone surrogates.
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def markdown_cell(text: str) -> str:
    """Return text for a table cell or a line of Markdown.

    It ends no cell or line, and is neither HTML, a link nor an image.
    """
    shown = re.sub(r"[\\|`\[\]]", r"\\\g<0>", visible(text))
    return re.sub(r"&(?=#?\w+;)", "&amp;", shown).replace("<", "&lt;")


def _escape(character: str) -> str:
    code = ord(character)
    if named := _NAMED.get(character):
        return named
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _bound_marks(text: str) -> str:
    shown, run = [], 0
    for character in text:
        run = run + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        shown.append(character if run <= _MARKS else _escape(character))
    return "".join(shown)


def _ansi_c(character: str) -> str:
    if character in "'\\":
        return "\\" + character
    if character == " " or (visible(character) == character and not character.isspace()):
        return character
    raw = os.fsencode(character) if "\udc80" <= character <= "\udcff" else character.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in raw)
