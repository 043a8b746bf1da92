"""Golden documents: whole outputs, value by value, kept under ``tests/data/golden`` and read by a
reviewer.

``python -m pytest tests/test_golden_*.py --write-golden`` writes them anew after an intended
change; the difference is in the commit. What no two machines share is masked by :data:`MASKS`, an
explicit list, and each mask still checks the value: a time is a number that is not negative, a date
is a date. Floats are compared within :data:`TOLERANCE`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "data" / "golden"
#: Scores and cosines differ in the last bits of float32 between machines; nothing else may differ.
TOLERANCE = 2e-4
_WIDTH, _LONGEST_ROW = 150, 400  # characters; a value that is shorter stays on one line of its golden document


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _are_versions(value: Any) -> bool:
    return {"python", "fashionrec"} <= value.keys() and all(
        re.fullmatch(r"\d+(\.\w+)+(\+\w+)?", one) for one in value.values()
    )


#: What stands in a golden document instead of the value, and what the value must be.
KINDS: dict[str, Callable[[Any], bool]] = {
    "<number>": _number,
    "<count>": lambda value: isinstance(value, int) and value > 0,
    "<date>": _matches(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)"),
    "<versions>": _are_versions,
    "<sha256>": _matches("[0-9a-f]{64}"),
    "<local server>": _matches(r"127\.0\.0\.1:\d+"),
}
#: What differs between machines or runs: the end of a value's place in its document, in which each
#: key may have wildcards and ``$`` is the document itself.
MASKS: dict[str, str] = {
    "timings_ms.*": "<number>",
    "seconds.*": "<number>",
    "seconds": "<number>",
    "total_seconds": "<number>",
    "build_seconds": "<number>",
    "photos_per_second": "<number>",
    "latency_ms_p50": "<number>",
    "latency_ms_p95": "<number>",
    "created": "<date>",
    "created_at": "<date>",
    "batches.[].server": "<local server>",
    "time": "<date>",
    "versions": "<versions>",
    # databases, JPEGs and vectors: their bytes are those of the SQLite, the libjpeg and the
    # processor at hand
    "files.generations/*.sha256": "<sha256>",
    "files.generations/*.size": "<count>",
    "files.segments/*.sha256": "<sha256>",
    "files.segments/*.size": "<count>",
    "manifest_sha256": "<sha256>",
}


def masked(document: Any, masks: Mapping[str, str], place: tuple[str, ...] = ("$",)) -> Any:
    """The document with what ``masks`` name replaced.

    Raises AssertionError for a value that is not of its kind.
    """
    for pattern, kind in masks.items():
        keys = pattern.split(".")
        end = place[-len(keys) :]
        if len(end) == len(keys) and all(fnmatchcase(key, wanted) for wanted, key in zip(keys, end, strict=True)):
            if isinstance(document, (dict, list)) and kind != "<versions>":
                continue
            assert KINDS[kind](document), f"{'.'.join(place)} is {document!r}, which is no {kind}"
            return kind
    if isinstance(document, dict):
        if {"latency_ms_p50", "latency_ms_p95"} <= document.keys():
            assert document["latency_ms_p50"] <= document["latency_ms_p95"], f"{'.'.join(place)}: {document}"
        return {key: masked(value, masks, (*place, str(key))) for key, value in document.items()}
    if isinstance(document, list):
        return [masked(value, masks, (*place, "[]")) for value in document]
    return document


def differences(expected: Any, actual: Any, place: str = "", tolerance: float = TOLERANCE) -> list[str]:
    """Return where two documents differ, one line each: types exactly, texts exactly, floats within
    the tolerance.
    """
    if isinstance(expected, dict) and isinstance(actual, dict):
        lost, new = [[key for key in a if key not in b] for a, b in ((expected, actual), (actual, expected))]
        found = [f"{place}: lost {lost}, new {new}"] if lost or new else []
        if not found and list(expected) != list(actual):
            found = [f"{place}: the order of {list(expected)} became {list(actual)}"]
        for key in [key for key in expected if key in actual]:
            found += differences(expected[key], actual[key], f"{place}.{key}", tolerance)
        return found
    if isinstance(expected, list) and isinstance(actual, list):
        found = [f"{place}: {len(expected)} elements became {len(actual)}"] if len(expected) != len(actual) else []
        for n, (one, other) in enumerate(zip(expected, actual, strict=False)):
            found += differences(one, other, f"{place}[{n}]", tolerance)
        return found
    if isinstance(expected, float) and isinstance(actual, float) and abs(expected - actual) <= tolerance:
        return []
    return [] if type(expected) is type(actual) and expected == actual else [f"{place}: {expected!r} became {actual!r}"]


def readable(value: Any, indent: int = 0) -> str:
    """JSON in which short values stand on one line, so that a box is not four lines."""
    flat = json.dumps(value, ensure_ascii=False)
    row = isinstance(value, list) and not any(isinstance(one, (dict, list)) for one in value)
    if len(flat) + indent <= (_LONGEST_ROW if row else _WIDTH) or not isinstance(value, (dict, list)) or not value:
        return flat
    inner = " " * (indent + 1)
    if isinstance(value, dict):
        rows = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {readable(v, indent + 1)}" for key, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{' ' * indent}}}"
    return "[\n" + ",\n".join(inner + readable(v, indent + 1) for v in value) + f"\n{' ' * indent}]"


class Golden:
    """Compares outputs with their golden documents, or writes these."""

    def __init__(self, write: bool) -> None:
        self.write = write

    def document(
        self,
        name: str,
        actual: Any,
        masks: Mapping[str, str] | None = None,
        *,
        usual: Mapping[str, str] = MASKS,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Compare a document with ``NAME.json``. ``masks`` are added to the ``usual`` ones."""
        path = FOLDER / f"{name}.json"
        found = masked(json.loads(json.dumps(actual)), {**(masks or {}), **usual})
        if self.write:
            path.write_text(readable(found) + "\n", encoding="utf-8", newline="\n")
        wrong = differences(json.loads(path.read_text(encoding="utf-8")), found, tolerance=tolerance)
        assert not wrong, "\n".join([f"{path.name}: is the change meant? Then --write-golden", *wrong[:40]])

    def text(self, name: str, actual: str, masks: Mapping[str, str] | None = None) -> None:
        """Compare a text with ``NAME.txt``.

        ``masks`` are regular expressions, and what stands for what they match.
        """
        for pattern, kind in (masks or {}).items():
            actual = re.sub(pattern, kind, actual)
        path = FOLDER / f"{name}.txt"
        if self.write:
            path.write_text(actual, encoding="utf-8", newline="\n")
        assert actual == path.read_text(encoding="utf-8"), f"{path.name}: is the change meant? Then --write-golden"


class _Words(HTMLParser):
    """The texts of a page, and what its links and pictures say."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in ("style", "script")
        for key, value in attrs:
            if key in ("href", "alt", "title", "src") and value:
                self.found.append(f"{tag} {key}: {value if not value.startswith('data:') else value[:22]}")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if data.strip() and not self.hidden:
            self.found.append(" ".join(data.split()))


def words_of(page: Path) -> str:
    """Return what a page says, a line for each of its texts."""
    reader = _Words()
    reader.feed(page.read_text(encoding="utf-8"))
    return "\n".join(reader.found) + "\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write the golden documents anew")


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.config.getoption("write_golden"))
