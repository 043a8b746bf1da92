"""Parse untrusted YAML and JSON: bounded in size, nesting, aliases and numbers, and free of code.

Unacceptable content raises :class:`DocumentError`, a ``ValueError`` with the place in its message;
callers convert it to an error of their own that names the file.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Hashable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

#: Levels of nesting. Our deepest document has nine; Python's own limit is about 1,000.
MAX_DEPTH = 100
#: Bytes of a settings file, a ``data.yaml`` or a model YAML: a thousand times our largest.
MAX_YAML = 4 << 20
#: Bytes of a manifest, a report or a marker; each file in a manifest takes about 150.
MAX_JSON = 16 << 20
#: Nodes of a YAML document with every alias expanded.
MAX_NODES = 500_000
#: Digits of an integer. Longer ones take quadratic time to parse and print.
MAX_DIGITS = 100


class DocumentError(ValueError):
    """A malformed or too large document; the message is one line with the position."""


def read_bytes(source: Path | IO[bytes], limit: int, *, pipe: bool = False) -> bytes:
    """Return the content of an open file, or of a regular file (or a pipe, if allowed).

    Never waits for a pipe without a writer.

    Raises:
        OSError: The file cannot be read.
        DocumentError: It has more than ``limit`` bytes, or is a special file.
    """
    if isinstance(source, Path):
        with open(source, "rb", opener=None if pipe else _without_waiting) as file:
            if not (pipe or stat.S_ISREG(os.fstat(file.fileno()).st_mode)):
                raise DocumentError("not a regular file")
            return read_bytes(file, limit)
    data = source.read(limit + 1)
    if len(data) > limit:
        raise DocumentError(f"larger than {_size(limit)}")
    return data


def read_yaml(path: Path, *, limit: int = MAX_YAML, pipe: bool = False) -> Any:
    """Parse a YAML file. Raises ``OSError`` or :class:`DocumentError`."""
    return parse_yaml(_text(read_bytes(path, limit, pipe=pipe)), limit=limit)


def parse_yaml(text: str, *, limit: int = MAX_YAML) -> Any:
    """Parse YAML text: plain types only, each key once. Raises :class:`DocumentError`."""
    if len(text) > limit:
        raise DocumentError(f"larger than {_size(limit)}")
    import yaml  # at call time: most commands read none

    loader = _loader()
    try:
        if _may_explode(text):
            _check_nodes(text, loader)
        value = yaml.load(text, Loader=loader)
        _check_depth(value, MAX_DEPTH, most=4 * MAX_NODES)
        return value
    except DocumentError:
        raise
    except yaml.YAMLError as error:
        raise DocumentError(" ".join(str(error).split())) from None
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        # PyYAML accepts these although the values do not fit their tag: `!!int x`, `2001-99-99`
        raise DocumentError(f"a value does not fit its type: {str(error)[:200]}") from None


def read_json(source: Path | IO[bytes], *, limit: int = MAX_JSON, encoding: str = "utf-8", **hooks: Any) -> Any:
    """Parse a JSON file; ``hooks`` are those of ``json.loads``.

    Raises ``OSError`` or :class:`DocumentError`.
    """
    return parse_json(_text(read_bytes(source, limit), encoding), **hooks)


def parse_json(text: str | bytes, *, depth: int = MAX_DEPTH, **hooks: Any) -> Any:
    """Parse JSON text; ``hooks`` are those of ``json.loads``. Raises :class:`DocumentError`."""
    if isinstance(text, bytes):
        text = _text(text)
    try:
        value = (json.JSONDecoder(**{"parse_int": _whole_number, **hooks}) if hooks else _decoder()).decode(text)
        if "\\ud" in text or "\\uD" in text:  # a lone surrogate cannot be written or printed
            json.dumps(value, ensure_ascii=False, default=str).encode()
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    except DocumentError:
        raise
    except UnicodeEncodeError:
        raise DocumentError("invalid text: a lone surrogate") from None
    except ValueError as error:
        raise DocumentError(str(error)[:200]) from None
    if text.count("[") + text.count("{") > depth:
        _check_depth(value, depth)
    return value


def iter_jsonl(path: Path, *, limit: int, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield the number and text of each line that is not blank.

    Decodes while reading, so that an endless line costs no more memory than the limit.

    Raises:
        DocumentError: A line has more than ``limit`` bytes.
    """
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(limit + 1):
            number += 1
            if len(line) > limit:
                raise DocumentError(f"line {number} is longer than {_size(limit)}")
            try:
                text = line.decode("utf-8-sig" if number == 1 and encoding == "utf-8-sig" else "utf-8")
            except UnicodeDecodeError as error:
                raise DocumentError(f"line {number} is not UTF-8: {error.reason}") from None
            if text.strip():
                yield number, text


_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
#: A line with this many leading indicators may nest as deeply, each by two columns or more.
_DEEP_LINE = re.compile(rf"^[ \t?:-]{{{MAX_DEPTH}}}", re.MULTILINE)
_MANY_BRACKETS = 1_000
#: This many aliases can repeat a document at most 2 ** 4 times.
_FEW_ALIASES = 4
_ALIAS = re.compile(r"(?<![^\s\[\]{},:?-])\*[^\s\[\]{},*]")


def _may_explode(text: str) -> bool:
    """Return whether text could nest or repeat itself excessively.

    If so, its events are counted before it is loaded: PyYAML's C composer recurses without a limit
    (about 200 bytes of stack per level). Honest files pass this test, which costs them
    microseconds.
    """
    flow = text.count("[") + text.count("{")
    return (
        flow > _MANY_BRACKETS
        or bool(_DEEP_LINE.search(text))
        or text.count("*") > _FEW_ALIASES < len(_ALIAS.findall(text))
    )


def _check_nodes(text: str, loader: Any) -> None:
    """Count nesting, and nodes with every alias expanded, from the events, without recursion."""
    import yaml

    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    count = 0
    events: Any = yaml.parse(text, Loader=loader)
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                why = "refers to itself" if any(event.anchor == name for name, _ in open_nodes) else "is unknown"
                raise DocumentError(f"the alias *{str(event.anchor)[:40]} {why}, line {_line(event)}")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            if isinstance(event, yaml.ScalarEvent):
                if event.anchor:
                    sizes[event.anchor] = 1
            else:
                open_nodes.append((event.anchor, count - 1))
                if event.anchor:
                    sizes.pop(event.anchor, None)
                if len(open_nodes) > MAX_DEPTH:
                    raise DocumentError(f"{_TOO_DEEP}, line {_line(event)}")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = count - before
        if count > MAX_NODES:
            line = _line(event)
            raise DocumentError(f"its aliases expand to more than {MAX_NODES:,} values, line {line}")


def _line(place: Any) -> int:
    return int(place.start_mark.line) + 1


@lru_cache(maxsize=1)
def _loader() -> Any:
    """Return PyYAML's safe loader, restricted to plain types, short numbers and unique keys.

    It is ten times as fast with libyaml.
    """
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        pass

    def mapping(loader: Any, node: Any) -> Iterator[dict[Hashable, Any]]:
        keys: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if (key.tag, key.value) in keys:
                    raise DocumentError(f"duplicate key {key.value[:60]!r}, line {_line(key)}")
                keys.add((key.tag, key.value))
        yield from base.construct_yaml_map(loader, node)

    def number(loader: Any, node: Any) -> Any:
        if len(node.value) > MAX_DIGITS:
            raise DocumentError(f"a number of {len(node.value):,} characters, line {_line(node)}")
        whole = node.tag.endswith(":int")
        return (base.construct_yaml_int if whole else base.construct_yaml_float)(loader, node)

    prefix = "tag:yaml.org,2002:"
    plain = ("null", "bool", "timestamp", "seq", "str")
    Loader.yaml_constructors = {
        **{f"{prefix}{name}": base.yaml_constructors[f"{prefix}{name}"] for name in plain},
        f"{prefix}map": mapping,
        f"{prefix}int": number,
        f"{prefix}float": number,
        None: base.construct_undefined,
    }
    return Loader


@lru_cache(maxsize=1)
def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_int=_whole_number)


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise DocumentError(f"a number of {len(text):,} digits")
    return int(text)


def _check_depth(value: Any, limit: int, most: int | None = None) -> None:
    """Raise for a value that nests deeper than ``limit``, or contains itself.

    A value that contains itself has more than ``most`` nodes.
    """
    level, count = [value], 0
    for _ in range(limit + 1):
        count += len(level)
        if most is not None and count > most:
            break
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise DocumentError(f"nested deeper than {limit} levels")


def _text(data: bytes, encoding: str = "utf-8") -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit:,} bytes"


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
