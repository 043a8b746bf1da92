"""The bytes of an ONNX file: which are read as protobuf's own writers write them, and what is told
of all others.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from fashionrec.common.folder import Folder
from fashionrec.common.onnx_file import MAX_BYTES, MAX_NESTING, Unreadable, check_graph
from fashionrec.errors import ModelError

DAMAGED = "it is not an ONNX model, or damaged"
HINT = "a bundle's graph may only read files that the bundle lists: export it again"
SIZE = 256  # bytes of w.data


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.data").write_bytes(bytes(SIZE))
    Path("folder").mkdir()


def told(data: bytes, listed: Collection[str] | None = ("w.data", "folder", "gone")) -> str | None:
    """Return what is told of a file with this content; None where it may be loaded."""
    Path("g.onnx").write_bytes(data)
    try:
        check_graph(Folder(".", "bundle", ModelError), "g.onnx", listed)
    except Unreadable as error:
        return str(error)
    except ModelError as error:
        return str(error).removeprefix("g.onnx cannot be loaded: ") + ("" if error.hint == HINT else " with no hint")
    return None


def varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


def field(number: int, content: bytes | int) -> bytes:
    """A field as protobuf writes it: a message, or a number."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def model(graph: bytes = b"") -> bytes:
    return field(1, 8) + field(7, graph)


def entries(**values: str | bytes) -> bytes:
    pairs = ((key.encode(), value if isinstance(value, bytes) else value.encode()) for key, value in values.items())
    return b"".join(field(13, field(1, key) + field(2, value)) for key, value in pairs)


def tensor(dims: bytes = field(1, 16), kind: int = 1, external: bytes = field(14, 1), **values: str | bytes) -> bytes:
    """Return, of sixteen float32 numbers in w.data, or as given."""
    return dims + field(2, kind) + entries(**{"location": "w.data"} | values) + external


def weights(*given: bytes, **values: str | bytes) -> bytes:
    return model(field(5, tensor(*given, **values)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (model(), None),
        (field(7, b""), None),
        (field(1, 8), DAMAGED),
        (field(7, 3), DAMAGED),  # a number in the place of the graph
        (model() + field(7, b""), "it contains several graphs"),
        # numbers of fields, and what they hold
        (b"\x02\x00" + model(), DAMAGED),
        (b"\x07\x00" + model(), DAMAGED),
        *((bytes([9 << 3 | wire]) + bytes(8) + model(), DAMAGED) for wire in (3, 4, 6, 7)),
        (b"\x4d" + b"four" + model(), None),
        (model() + b"\x4d" + b"four", None),
        (model() + b"\x4d" + b"fou", DAMAGED),
        (b"\x49" + b"of eight" + model(), None),
        (model() + b"\x49" + b"of eight", None),
        (model() + b"\x49" + b"of seve", DAMAGED),
        # lengths
        (model() + b"\x12", DAMAGED),
        (model() + b"\x12\x00", None),
        (model() + b"\x12\x02x", DAMAGED),
        (model() + field(2, b"x" * 127), None),
        (model() + field(2, b"x" * 128), None),
        (model() + field(2, b"x" * 20_000), None),
        (model() + b"\x12\x80", DAMAGED),
        (model() + b"\x12\x80\x00", DAMAGED),  # not as short as it can be
        (model() + b"\x12\x81\x00x", DAMAGED),
        # tags of several bytes
        (model() + varint(0xFFFFFFF8) + b"\x00", None),
        (model() + varint(0x1FFFFFFF8) + b"\x00", DAMAGED),
        (model() + b"\x90\x00\x00", DAMAGED),
        (model() + b"\x90", DAMAGED),
        # numbers: any of ten bytes, and none that ends outside of its message
        (model() + b"\x08" + b"\xff" * 9 + b"\x01", None),
        (model() + b"\x08" + b"\xff" * 10 + b"\x01", DAMAGED),
        (model() + b"\x08\x80", DAMAGED),
        (model(b"\x08\x80") + b"\x08\x01", DAMAGED),
        (model(b"\x08\x80\x01") + b"\x08\x01", None),
        (model(b"\x12\x01") + b"\x08\x01", DAMAGED),
        # what no export writes
        (model() + field(14, field(1, b"producer")), None),
        (model() + field(14, b"\x0a\x0aort_config"), "it carries settings for ONNX Runtime (ort_config)"),
        (model() + field(14, 3) + field(20, 3) + field(25, 3), None),
        (model() + field(20, b""), "it contains a training graph, which no export does"),
        (model() + field(25, b""), "it defines functions of its own, which no export does"),
        (model() + field(26, b""), None),
    ],
)
def test_what_is_told_of_the_fields_of_a_file(data: bytes, message: str | None) -> None:
    assert told(data) == message


def test_a_file_of_more_than_two_gibibytes_is_no_model() -> None:
    with Path("g.onnx").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # without content on the disk
    with pytest.raises(ModelError) as caught:
        check_graph(Folder(".", "bundle", ModelError), "g.onnx")
    assert str(caught.value) == f"g.onnx cannot be loaded: it has {MAX_BYTES + 1} bytes, but models have at most 2 GiB"
    with Path("g.onnx").open("wb") as file:
        file.truncate(MAX_BYTES)
    with pytest.raises(Unreadable, match=DAMAGED):
        check_graph(Folder(".", "bundle", ModelError), "g.onnx")


def node(*attributes: bytes, operator: bytes = b"Constant") -> bytes:
    """A node that is looked into: its name is a word that is looked for."""
    return field(1, field(3, b"location") + field(4, operator) + b"".join(field(5, one) for one in attributes))


GONE = tensor(location="gone")
REFUSED = "it would read 'gone', which is missing or not a regular file"
TWO = "an attribute has two values instead of one"


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (field(5, GONE), REFUSED),
        (field(5, 3) + field(1, 3) + field(15, 3), None),
        *((field(15, field(number, GONE)), REFUSED) for number in (1, 2)),
        (field(15, field(3, 16) + field(1, tensor()) + field(2, tensor())), None),
        *((field(15, field(number, tensor()) * 2), TWO) for number in (1, 2)),
        (node(field(1, b"value")), None),
        *((node(field(number, GONE)), REFUSED) for number in (5, 10)),
        *((node(field(number, field(5, GONE))), REFUSED) for number in (6, 11)),
        *((node(field(number, field(1, GONE))), REFUSED) for number in (22, 23)),
        (node(field(5, b"") + field(6, b"") + field(22, b"")), None),
        *((node(field(number, b"") * 2), TWO) for number in (5, 6, 22)),
        *((node(field(number, b"") * 2), None) for number in (10, 11, 23)),
        (node(field(5, 3) + field(5, 3)), None),
        (node(operator=b"ATen"), "it uses the operator ATen, which executes code outside the graph"),
        (node(operator=b"ATenBetter"), None),
        (field(1, field(4, b"Add") + field(4, b"ATen")), "a node names several operators"),
        (field(1, field(4, 3) + field(5, 3) + field(3, b"location")), None),
    ],
)
def test_what_is_told_of_a_graph_by_where_its_tensor_stands(graph: bytes, message: str | None) -> None:
    assert told(model(graph)) == message


def test_subgraphs_are_read_as_deep_as_exports_nest_them() -> None:
    for depth, message in ((MAX_NESTING, REFUSED), (MAX_NESTING + 1, "its subgraphs are nested too deeply")):
        graph = field(5, GONE)
        for _ in range(depth):
            graph = node(field(6, graph))
        assert told(model(graph)) == message


NOT_LISTED = "it would read {!r}, which the bundle does not list"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "c:w.data", "w.data\x07", "v.data"])
def test_only_plain_names_that_are_listed_are_read(name: str) -> None:
    assert told(weights(location=name), ["w.data", *([name] if name != "v.data" else [])]) == NOT_LISTED.format(name)


@pytest.mark.parametrize("listed", [["w.data"], None])
def test_without_a_list_every_regular_file_of_the_folder_may_be_read(listed: list[str] | None) -> None:
    Path("other.data").write_bytes(bytes(64))
    assert told(weights(), listed) is None
    assert told(weights(location="other.data"), listed) == (NOT_LISTED.format("other.data") if listed else None)
    for name in ("folder", "gone"):
        message = f"it would read {name!r}, which is missing or not a regular file"
        assert told(weights(location=name), [name] if listed else None) == message


def test_long_names_are_told_in_part_and_those_that_are_no_text_are_none() -> None:
    assert told(weights(location="n" * 100)) == NOT_LISTED.format("n" * 100)
    assert told(weights(location="n" * 101)) == NOT_LISTED.format("n" * 100 + "…")
    assert told(weights(location=b"w\xff")) == NOT_LISTED.format("w\ufffd")


def takes(length: int, offset: int, needed: int) -> str:
    return f"a tensor has {length} bytes at {offset} of 'w.data' ({SIZE} bytes), but needs {needed}"


def shaped(kind: int, *dims: int) -> str:
    return f"a tensor of type {kind} and shape {list(dims)} cannot be stored in 'w.data'"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(), None),
        (tensor(offset="0", length="64", checksum="x"), None),
        (tensor(offset="192"), None),
        (tensor(offset="193"), takes(64, 193, 64)),
        (tensor(length="63"), takes(63, 0, 64)),
        (tensor(length="65"), takes(65, 0, 64)),
        (tensor(offset="9" * 15), takes(64, 10**15 - 1, 64)),
        (tensor(offset="9" * 16), f"offset of a tensor's external data is '{'9' * 16}'"),
        (tensor(length="-64"), "length of a tensor's external data is '-64'"),
        (tensor(length=""), "length of a tensor's external data is ''"),
        (tensor(basepath="x"), "a tensor has 'basepath' in its external data"),
        (tensor() + entries(location="w.data"), "a tensor has 'location' twice in its external data"),
        (tensor(checksum="x" * 4096), None),
        (tensor(checksum="x" * 4097), "an entry of its external data is too long"),
        (field(13, field(1, b"location") * 2), "an entry of its external data is repeated"),
        (field(13, field(1, 3) + field(3, b"x") * 2) + tensor(), "a tensor has '' in its external data"),
        # where it says that its data is
        (tensor(external=b""), None),
        (tensor(external=b"", location="gone"), REFUSED),
        (tensor(external=field(14, 0), location="gone"), REFUSED),
        (tensor(external=field(14, 1) + field(14, 0)), None),
        (field(14, 1) + field(14, 0), NOT_LISTED.format("")),
        (field(14, 0), None),
        (field(14, 2), "the data of a tensor has an unknown location (2)"),
        (field(14, b"\x01") + field(13, 3), None),
        # types and shapes
        (tensor(b""), None),
        (tensor(field(1, 4) + field(1, 4)), None),
        (tensor(field(1, b"\x04\x04")), None),
        (tensor(field(1, b"\x80\x01")), takes(512, 0, 512)),
        (tensor(field(1, b"\x80")), DAMAGED),
        (tensor(field(1, 0)), None),
        (tensor(field(1, 65)), takes(260, 0, 260)),
        (tensor(field(1, (1 << 40) - 1)), takes(4 * ((1 << 40) - 1), 0, 4 * ((1 << 40) - 1))),
        (tensor(field(1, 1 << 40)), shaped(1, 1 << 40)),
        (tensor(field(1, 0) + field(1, 1 << 40)), shaped(1, 0, 1 << 40)),
        (tensor(field(1, 1 << 40) * 9), shaped(1, *[1 << 40] * 8)),
        (tensor(kind=8), shaped(8, 16)),
        (tensor(kind=0), shaped(0, 16)),
        (tensor(field(1, 3), kind=21, length="2"), None),
        (tensor(field(1, 3), kind=21, length="1"), takes(1, 0, 2)),
        (tensor(field(1, 4), kind=21, length="2"), None),
        (tensor(field(2, b"\x07"), kind=1, length="4"), None),
    ],
)
def test_what_is_told_of_a_tensor_whose_data_is_elsewhere(value: bytes, message: str | None) -> None:
    assert told(model(field(5, value))) == message
