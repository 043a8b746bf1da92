"""Check an untrusted ONNX file before anything opens it.

ONNX graphs name files with weights ("external data"); ONNX Runtime before 1.24 and the package onnx
read any path there, even that of a private key. :func:`check_graph` parses the protobuf itself (the
core installation has no package onnx) and refuses anything but a plain name of a listed regular
file with the bytes that the tensor needs, and anything that would load code or settings.

It only accepts the encoding of protobuf's own writers (shortest varints, no groups, no repeated
singular fields), so that it cannot understand a file differently from the parser that follows.
"""

from __future__ import annotations

import mmap
import re
from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping
from math import prod
from typing import IO, Any

from fashionrec.common.folder import Folder

#: Protobuf's own limit for one message.
MAX_BYTES = (1 << 31) - 1
#: Nested graphs (the branches of If, the body of Loop); exports have one or two levels.
MAX_NESTING = 16
#: Operators that load a compiled network or call into another runtime.
REFUSED_OPERATORS = frozenset(
    {b"EPContext", b"Snpe", b"ATen", b"PythonOp", b"PythonOpGrad", b"TritonOp", b"ExternalOp"}
)

_WHOLE = 8 << 20  # files up to this size are read, larger ones mapped
_SMALL = 1 << 19  # files up to this size are searched once; in larger ones (with weights) only the nodes are
_LOCATION = b"location"
_KEYS = {b"location", b"offset", b"length", b"checksum"}
#: Words in every node with external data or a refused operator.
_WORDS = re.compile(b"|".join([_LOCATION, *sorted(REFUSED_OPERATORS)]))
_MAX_NUMBER = 15  # digits of an offset or a length
_MAX_FIELDS = 4_000_000  # about 4 seconds; a large export has 20,000 outside of its nodes
#: Bits per element by TensorProto.DataType; strings (8) cannot be external.
_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
    **dict.fromkeys((27, 28), 6),
}

# Field numbers of onnx.proto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _METADATA, _TRAINING, _FUNCTIONS = 7, 14, 20, 25  # ModelProto
_NODE, _INITIALIZER, _SPARSE_INITIALIZER = 1, 5, 15  # GraphProto
_OP_TYPE, _ATTRIBUTE = 4, 5  # NodeProto
_TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS, _SPARSE, _SPARSES = 5, 6, 10, 11, 22, 23  # AttributeProto
_DIMS, _DATA_TYPE, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 13, 14  # TensorProto
_VALUES, _INDICES = 1, 2  # SparseTensorProto
_KEY, _VALUE = 1, 2  # StringStringEntryProto


def check_graph(folder: Folder, name: str, listed: Container[str] | None = None) -> None:
    """Raise the folder's error unless the ONNX file ``name`` only reads listed files of its folder.

    ``listed`` are the allowed names of external data; None allows every regular file of the folder.

    Raises:
        Unreadable: The file is not ONNX.
    """
    with folder.open(name) as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            if not size:
                raise Unreadable("the file is empty")
            if size > MAX_BYTES:
                raise _Refused(f"it has {size} bytes, but models have at most 2 GiB")
            if size <= _WHOLE:
                _Check(folder, listed, file.read()).model()
            else:
                _check_mapped(folder, listed, file)
        except _Refused as error:
            raise folder.error(f"{folder.root / name} cannot be loaded: {error}", hint=_HINT) from None


_HINT = "a bundle's graph may only read files that the bundle lists: export it again"


class Unreadable(Exception):
    """A file that is not ONNX, or damaged."""


class _Refused(Exception):
    """The reason for refusing a graph."""


def _check_mapped(folder: Folder, listed: Container[str] | None, file: IO[bytes]) -> None:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _Check(folder, listed, data).model()


class _Check:
    """One pass over one file."""

    def __init__(self, folder: Folder, listed: Container[str] | None, data: bytes | mmap.mmap) -> None:
        self.folder, self.listed, self.data = folder, listed, data
        self.sizes: dict[str, int] = {}
        self.fields_left = _MAX_FIELDS
        # nodes are only parsed if they contain one of the words; a small file is searched for these
        # once
        self.words = _places(data) if isinstance(data, bytes) and len(data) <= _SMALL else None

    def model(self) -> None:
        graphs = 0
        for number, wire, start, end in self.fields(0, len(self.data)):
            if wire != _BYTES:
                continue
            if number == _GRAPH:
                graphs += 1
                self.graph(start, end, 0)
            elif number == _METADATA:
                if self.data[start:end].find(b"ort_config") >= 0:
                    raise _Refused("it carries settings for ONNX Runtime (ort_config)")
            elif number == _FUNCTIONS:
                raise _Refused("it defines functions of its own, which no export does")
            elif number == _TRAINING:
                raise _Refused("it contains a training graph, which no export does")
        if graphs != 1:
            raise _Refused("it contains several graphs") if graphs else _damaged()

    def graph(self, start: int, end: int, nesting: int) -> None:
        if nesting > MAX_NESTING:
            raise _Refused("its subgraphs are nested too deeply")
        for number, wire, first, last in self.fields(start, end):
            if wire != _BYTES:
                continue
            if number == _NODE:
                if self.has_word(first, last):
                    self.node(first, last, nesting)
            elif number == _INITIALIZER:
                self.tensor(first, last)
            elif number == _SPARSE_INITIALIZER:
                self.sparse(first, last)

    def has_word(self, start: int, end: int) -> bool:
        if self.words is None:
            return _WORDS.search(self.data, start, end) is not None
        n = bisect_left(self.words, start)
        return n < len(self.words) and self.words[n] < end

    def node(self, start: int, end: int, nesting: int) -> None:
        operators = []
        for number, wire, first, last in self.fields(start, end):
            if wire == _BYTES and number == _ATTRIBUTE:
                self.attribute(first, last, nesting)
            elif wire == _BYTES and number == _OP_TYPE:
                operators.append(bytes(self.data[first:last]))
        if len(operators) > 1:
            raise _Refused("a node names several operators")
        if operators and operators[0] in REFUSED_OPERATORS:
            raise _Refused(f"it uses the operator {operators[0].decode()}, which executes code outside the graph")

    def attribute(self, start: int, end: int, nesting: int) -> None:
        single: set[int] = set()
        for number, wire, first, last in self.fields(start, end):
            if wire != _BYTES:
                continue
            if number in (_TENSOR, _SUBGRAPH, _SPARSE):
                _once(single, number)
            if number in (_TENSOR, _TENSORS):
                self.tensor(first, last)
            elif number in (_SUBGRAPH, _SUBGRAPHS):
                self.graph(first, last, nesting + 1)
            elif number in (_SPARSE, _SPARSES):
                self.sparse(first, last)

    def sparse(self, start: int, end: int) -> None:
        single: set[int] = set()
        for number, wire, first, last in self.fields(start, end):
            if wire == _BYTES and number in (_VALUES, _INDICES):
                _once(single, number)
                self.tensor(first, last)

    def tensor(self, start: int, end: int) -> None:
        """Check a tensor: its data is in the file, or in valid external data."""
        dims: list[int] = []
        kind, external = 0, False
        entries: dict[bytes, bytes] = {}
        for number, wire, first, last in self.fields(start, end):
            if number == _EXTERNAL_DATA and wire == _BYTES:
                key, value = self.entry(first, last)
                if key in entries:
                    raise _Refused(f"a tensor has {_shown(key)} twice in its external data")
                entries[key] = value
            elif number == _DATA_LOCATION and wire == _VARINT:
                if first not in (0, 1):
                    raise _Refused(f"the data of a tensor has an unknown location ({first})")
                external = external or first == 1
            elif number == _DATA_TYPE and wire == _VARINT:
                kind = first
            elif number == _DIMS and wire == _VARINT:
                dims.append(first)
            elif number == _DIMS and wire == _BYTES:
                at = first
                while at < last:
                    value_, at = self.varint(at, last)
                    dims.append(value_)
        if entries or external:
            self.external(entries, dims, kind)

    def external(self, entries: Mapping[bytes, bytes], dims: list[int], kind: int) -> None:
        if unknown := sorted(set(entries) - _KEYS):
            raise _Refused(f"a tensor has {_shown(unknown[0])} in its external data")
        location = entries.get(_LOCATION, b"")
        size = self.size_of(location)
        if kind not in _BITS or any(dim >= 1 << 40 for dim in dims):
            raise _Refused(f"a tensor of type {kind} and shape {dims[:8]} cannot be stored in {_shown(location)}")
        needed = (prod(dims) * _BITS[kind] + 7) // 8
        offset = _number(entries, b"offset", 0)
        length = _number(entries, b"length", needed)
        if length != needed or offset + length > size:
            raise _Refused(
                f"a tensor has {length} bytes at {offset} of {_shown(location)} ({size} bytes), but needs {needed}"
            )

    def size_of(self, location: bytes) -> int:
        """Return the size of a file for external data."""
        try:
            name = location.decode("utf-8")
        except UnicodeDecodeError:
            name = ""
        if name not in self.sizes:
            plain = name not in ("", ".", "..") and not {"/", "\\", ":"} & {*name} and name.isprintable()
            if not plain or (self.listed is not None and name not in self.listed):
                raise _Refused(f"it would read {_shown(location)}, which the bundle does not list")
            if self.folder.kind(name) != "file":
                raise _Refused(f"it would read {_shown(location)}, which is missing or not a regular file")
            with self.folder.open(name) as file:
                self.sizes[name] = file.seek(0, 2)
        return self.sizes[name]

    def entry(self, start: int, end: int) -> tuple[bytes, bytes]:
        found: dict[int, bytes] = {}
        for number, wire, first, last in self.fields(start, end):
            if wire == _BYTES and number in (_KEY, _VALUE):
                if number in found:
                    raise _Refused("an entry of its external data is repeated")
                if last - first > 4096:
                    raise _Refused("an entry of its external data is too long")
                found[number] = bytes(self.data[first:last])
        return found.get(_KEY, b""), found.get(_VALUE, b"")

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, wire type, and start and end of the content; for varints, value and 0."""
        data, at = self.data, start
        while at < end:
            self.fields_left -= 1
            tag = data[at]
            at += 1
            if tag >= 0x80:
                tag, at = self.length(at - 1, end)
            wire = tag & 7
            if tag < 8 or self.fields_left < 0:
                raise _damaged()
            if wire == _BYTES:
                if at >= end:
                    raise _damaged()
                size = data[at]
                at += 1
                if size >= 0x80:
                    size, at = self.length(at - 1, end)
                start, at = at, at + size
                if at > end:
                    raise _damaged()
                yield tag >> 3, wire, start, at
            elif wire == _VARINT:
                value, at = self.varint(at, end)
                yield tag >> 3, wire, value, 0
            elif wire in (_FIXED32, _FIXED64):
                at += 4 if wire == _FIXED32 else 8
                if at > end:
                    raise _damaged()
            else:
                raise _damaged()

    def length(self, at: int, end: int) -> tuple[int, int]:
        """Parse a tag or length: at most 32 bits, in the shortest form."""
        value, after = self.varint(at, end)
        if value > 0xFFFFFFFF or (after - at > 1 and not self.data[after - 1]):
            raise _damaged()
        return value, after

    def varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise _damaged()


def _places(data: bytes) -> list[int]:
    """Return the positions of the words; one search per word is 10x as fast as one for all."""
    found = []
    for word in (_LOCATION, *REFUSED_OPERATORS):
        at = data.find(word)
        while at >= 0:
            found.append(at)
            at = data.find(word, at + 1)
    return sorted(found)


def _damaged() -> Unreadable:
    return Unreadable("it is not an ONNX model, or damaged")


def _once(seen: set[int], number: int) -> None:
    if number in seen:
        raise _Refused("an attribute has two values instead of one")
    seen.add(number)


def _number(entries: Mapping[bytes, bytes], key: bytes, default: int) -> int:
    if key not in entries:
        return default
    text = entries[key]
    if not text.isdigit() or len(text) > _MAX_NUMBER:
        raise _Refused(f"{key.decode()} of a tensor's external data is {_shown(text)}")
    return int(text)


def _shown(value: Any) -> str:
    text = bytes(value).decode("utf-8", "replace")
    return repr(text if len(text) <= 100 else f"{text[:100]}…")
