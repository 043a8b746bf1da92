"""Documents of others up to each limit and one beyond it, with the line that is told."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from systems import posix_only

from fashionrec.common import documents
from fashionrec.common.documents import (
    DocumentError,
    iter_jsonl,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_yaml,
)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(DocumentError) as caught:
        act()
    return str(caught.value)


def test_the_limits() -> None:
    limits = (documents.MAX_DEPTH, documents.MAX_YAML, documents.MAX_JSON, documents.MAX_NODES, documents.MAX_DIGITS)
    assert limits == (100, 4_194_304, 16_777_216, 500_000, 100)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 2000)
    for source in (path, io.BytesIO(b"x" * 2000)):
        assert read_bytes(source, 2000) == b"x" * 2000
    assert refused(lambda: read_bytes(path, 1999)) == "larger than 1,999 bytes"
    path.write_bytes(b"x" * (2 << 20))
    assert refused(lambda: read_bytes(path, (1 << 20) - 1)) == "larger than 1,048,575 bytes"
    assert refused(lambda: read_bytes(path, 1 << 20)) == "larger than 1 MiB"
    path.write_text("a: 12345")
    assert read_yaml(path, limit=8) == {"a": 12345}
    assert refused(lambda: read_yaml(path, limit=7)) == "larger than 7 bytes"
    assert refused(lambda: parse_yaml("a: 12345", limit=7)) == "larger than 7 bytes"
    path.write_text("[12345]")
    assert read_json(path, limit=7) == [12345]
    assert refused(lambda: read_json(path, limit=6)) == "larger than 6 bytes"
    path.write_bytes(b'["\xff"]')
    assert refused(lambda: read_json(path)) == "not UTF-8: invalid start byte at byte 2"
    assert refused(lambda: read_yaml(path)) == "not UTF-8: invalid start byte at byte 2"
    path.write_bytes("\ufeff[1]".encode())
    assert read_json(path, encoding="utf-8-sig") == [1]
    assert refused(lambda: read_json(path)) == "Expecting value: line 1 column 1 (char 0)"


@posix_only("named pipes")
def test_a_pipe_is_read_only_where_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert refused(lambda: read_bytes(path, 10)) == "not a regular file"
    assert refused(lambda: read_yaml(path)) == "not a regular file"
    writer = threading.Thread(target=path.write_bytes, args=(b"a: 1",), daemon=True)
    writer.start()
    assert read_yaml(path, pipe=True) == {"a": 1}
    writer.join(20)


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("read", [parse_json, parse_yaml])
def test_nesting(read: Callable[[str], Any]) -> None:
    assert str(read(nested(100))).count("[") == 100
    assert read("[" + ",".join(["[]"] * 3000) + "]") == [[]] * 3000  # wide, not deep
    assert refused(lambda: read(nested(102))).startswith("nested deeper than 100 levels")
    assert refused(lambda: read(nested(100_000))).startswith("nested deeper than 100 levels")
    assert read('{"a": ' * 100 + "1" + "}" * 100)


def test_the_depth_of_json_may_be_given() -> None:
    assert parse_json("[[[1]]]", depth=3) == [[[1]]]
    assert refused(lambda: parse_json("[[[[]]]]", depth=2)) == "nested deeper than 2 levels"
    assert parse_json('["[[[[", {}]', depth=2) == ["[[[[", {}]
    assert parse_json(b'{"a": 1.5}', parse_float=str) == {"a": "1.5"}


@pytest.mark.parametrize("read", [parse_json, parse_yaml])
def test_digits(read: Callable[[str], Any]) -> None:
    assert read("9" * 100) == int("9" * 100)
    told = refused(lambda: read("9" * 101))
    assert told == ("a number of 101 digits" if read is parse_json else "a number of 101 characters, line 1")
    assert refused(lambda: parse_json("9" * 1001, parse_float=str)) == "a number of 1,001 digits"
    assert refused(lambda: parse_yaml("a: 1\nb: 1." + "5" * 99)) == "a number of 101 characters, line 2"


def test_half_a_surrogate_pair() -> None:
    told = "invalid text: a lone surrogate"
    for text in (r'"\ud800"', r'{"\uDC00": 1}', r'["\ud83d"]', r'"\uD83D"'):
        assert refused(lambda: parse_json(text)) == told  # noqa: B023
    assert parse_json(r'"\ud83d\ude00"') == "😀"


def test_what_is_no_json() -> None:
    assert refused(lambda: parse_json("[1,")).startswith("Expecting value: line 1 column 4")
    assert len(refused(lambda: parse_json('{"' + "x" * 500 + '": 1'))) <= 200
    assert refused(lambda: parse_json(b"\xff")) == "not UTF-8: invalid start byte at byte 0"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3", "duplicate key 'a', line 3"),
        (f"{'x' * 80}: 1\n{'x' * 80}: 1", f"duplicate key {'x' * 60!r}, line 2"),
        ("a: {b: 1, c: 2, b: 3}", "duplicate key 'b', line 1"),
        ("!!int x", "a value does not fit its type: "),
        ("2001-99-99", "a value does not fit its type: month must be in 1..12"),
        ("a: &a [*a]\n" + "b: [*a, *a, *a, *a, *a]", "the alias *a refers to itself, line 1"),
        ("b: [*a, *a, *a, *a, *a]", "the alias *a is unknown, line 1"),
        ("!!python/name:os.system ''", "could not determine a constructor for the tag"),
        ("a: [", "while parsing a flow "),
    ],
)
def test_what_is_no_yaml(text: str, told: str) -> None:
    found = refused(lambda: parse_yaml(text))
    assert found.startswith(told)
    assert found == told or told[-1] in " g"


def test_what_yaml_may_say() -> None:
    text = "a: {<<: {x: 1}, y: 2}\nb: 2001-02-03\nc: [yes, null, 1.5, 0x10]\n1: one\n'1': text\n"
    found = parse_yaml(text)
    assert (found["a"], found["c"], found[1], found["1"]) == ({"x": 1, "y": 2}, [True, None, 1.5, 16], "one", "text")
    assert str(found["b"]) == "2001-02-03"
    assert parse_yaml("") is None
    assert parse_yaml("a: &a [1]\nb: [*a, *a, *a, *a, *a]") == {"a": [1], "b": [[1]] * 5}


def repeated(aliases: int) -> str:
    """A list of 1,000 values, and as many aliases of it."""
    return f"a: &a [{','.join(['1'] * 999)}]\nb: [{','.join(['*a'] * aliases)}]\n"


def test_what_aliases_stand_for_is_counted() -> None:
    # a mapping, two keys, two lists, and 999 values; each alias stands for the list and its values
    assert len(parse_yaml(repeated(498))["b"]) == 498
    assert refused(lambda: parse_yaml(repeated(499))) == "its aliases expand to more than 500,000 values, line 2"


def test_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf{}\n\n  \nlast")
    assert list(iter_jsonl(path, limit=6, encoding="utf-8-sig")) == [(1, "{}\n"), (4, "last")]
    assert list(iter_jsonl(path, limit=6))[0] == (1, "\ufeff{}\n")  # noqa: RUF015
    assert refused(lambda: list(iter_jsonl(path, limit=5))) == "line 1 is longer than 5 bytes"
    path.write_bytes(b"a\nbbbb\nc")
    assert refused(lambda: list(iter_jsonl(path, limit=4))) == "line 2 is longer than 4 bytes"
    path.write_bytes(b"a\n\xff\n")
    assert refused(lambda: list(iter_jsonl(path, limit=9))) == "line 2 is not UTF-8: invalid start byte"
    path.write_bytes(b"a\n\xef\xbb\xbfb\n")
    assert list(iter_jsonl(path, limit=9, encoding="utf-8-sig")) == [(1, "a\n"), (2, "\ufeffb\n")]
