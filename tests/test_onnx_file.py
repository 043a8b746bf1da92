"""Graphs of others: what they may read, wherever the tensor stands that asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashionrec.common.folder import Folder
from fashionrec.common.onnx_file import Unreadable, check_graph
from fashionrec.errors import ModelError
from fashionrec.models.bundle import Bundle, write_bundle

onnx = pytest.importorskip("onnx")
from onnx import AttributeProto, TensorProto, helper, numpy_helper  # noqa: E402

SECRET = np.arange(64, dtype=np.float32) + 0.5
SHAPE = ["n", 16]


def tensor(location: str = "", offset: Any = None, length: Any = 64, name: str = "w", **more: str) -> Any:
    """Sixteen float32 numbers: in the graph, or at a ``location``."""
    made = numpy_helper.from_array(np.ones(16, np.float32), name)
    if location:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": offset, "length": length, **more}.items():
            if value is not None:
                made.external_data.add(key=key, value=str(value))
    return made


def model(nodes: list[Any], initializers: list[Any] = (), **more: Any) -> Any:  # type: ignore[assignment]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **more)


ADD = helper.make_node("Add", ["x", "w"], ["y"])


def branch(nodes: list[Any], initializers: list[Any] = ()) -> Any:  # type: ignore[assignment]
    out = [helper.make_tensor_value_info("b", TensorProto.FLOAT, SHAPE)]
    return helper.make_graph(nodes, "branch", [], out, list(initializers))


def in_initializer(value: Any) -> Any:
    return model([ADD], [value])


def in_constant(value: Any) -> Any:
    return model([helper.make_node("Constant", [], ["w"], value=value), ADD])


def in_list_of_tensors(value: Any) -> Any:
    made = helper.make_node("Add", ["x", "x"], ["y"])
    made.attribute.append(AttributeProto(name="many", type=AttributeProto.TENSORS, tensors=[tensor(), value]))
    return model([made])


def in_branch(value: Any, depth: int = 1) -> Any:
    """In an initializer of a branch of If, ``depth`` deep."""
    nodes, initializers = [helper.make_node("Add", ["x", "w"], ["b"])], [value]
    for _ in range(depth):
        inner = branch(nodes, initializers)
        other = branch([helper.make_node("Identity", ["x"], ["b"])])
        nodes, initializers = [helper.make_node("If", ["no"], ["b"], then_branch=other, else_branch=inner)], []
    nodes[0].output[0] = "y"
    return model(nodes, [numpy_helper.from_array(np.array(False), "no")])


def in_nested_constant(value: Any) -> Any:
    nodes = [helper.make_node("Constant", [], ["w"], value=value), helper.make_node("Add", ["x", "w"], ["b"])]
    made = helper.make_node("If", ["yes"], ["y"], then_branch=branch(nodes), else_branch=branch(nodes))
    return model([made], [numpy_helper.from_array(np.array(True), "yes")])


def in_sparse_initializer(value: Any) -> Any:
    made = model([ADD])
    indices = numpy_helper.from_array(np.arange(16), "i")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(value, indices, [16]))
    return made


def in_sparse_attribute(value: Any) -> Any:
    indices = numpy_helper.from_array(np.arange(16), "i")
    made = helper.make_node("Constant", [], ["w"])
    sparse = helper.make_sparse_tensor(value, indices, [16])
    made.attribute.append(AttributeProto(name="sparse_value", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse))
    return model([made, ADD])


def in_function(value: Any) -> Any:
    nodes = [helper.make_node("Constant", [], ["w"], value=value), helper.make_node("Add", ["a", "w"], ["b"])]
    function = helper.make_function("own", "f", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])
    made = model([helper.make_node("f", ["x"], ["y"], domain="own")], functions=[function])
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


def in_training(value: Any) -> Any:
    made = model([helper.make_node("Identity", ["x"], ["y"])])
    made.training_info.add().initialization.CopyFrom(branch([], [value]))
    return made


PLACES: dict[str, Callable[[Any], Any]] = {
    name: function for name, function in globals().items() if name.startswith("in_")
}
HONEST = ("in_initializer", "in_branch")  # where exporters put weights, and ONNX Runtime reads them


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """A bundle of one graph and ``w.data``, in a home with a secret beside it."""
    (tmp_path / "home").mkdir()
    (tmp_path / "secret.bin").write_bytes(SECRET.tobytes())
    (tmp_path / "home" / "secret.bin").write_bytes(SECRET.tobytes())

    def make(graph: Any) -> Bundle:
        files = {"detect.onnx": tmp_path / "detect.onnx", "w.data": tmp_path / "w.data"}
        files["detect.onnx"].write_bytes(graph if isinstance(graph, bytes) else graph.SerializeToString())
        files["w.data"].write_bytes(np.full(64, 2, np.float32).tobytes())
        made = write_bundle(
            tmp_path / "home" / "bundle",
            kind="detector",
            name="b",
            graphs={"detect": "detect.onnx"},
            spec={},
            source={},
            agreement={},
            files=files,
        )
        (made.path / "unlisted.bin").write_bytes(SECRET.tobytes())
        return made

    return make


def refused(bundle: Bundle, match: str) -> None:
    """By us, before ONNX Runtime opens it."""
    with pytest.raises(ModelError, match=f"detect.onnx cannot be loaded: {match}") as caught:
        answer(bundle)
    assert "ONNXRuntimeError" not in str(caught.value)
    assert "\n" not in str(caught.value)


def answer(bundle: Bundle) -> np.ndarray:
    values = np.zeros((1, 16), np.float32)
    return np.asarray(bundle.session("detect", device="cpu").run(None, {"x": values})[0])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../secret.bin",
        "../bundle/w.data",
        "./w.data",
        "unlisted.bin",
        "missing.bin",
        "bundle.json",
        "*/_ORT_MEM_ADDR_/*",
        "..\\secret.bin",
        "c:secret.bin",
        "..",
        " ",
    ],
)
def test_a_graph_reads_nothing_but_what_its_bundle_lists(
    place: str, location: str, bundle: Callable[..., Bundle]
) -> None:
    made = bundle(PLACES[place](tensor(location)))
    refused(made, "it")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("megabytes", [1, 9], ids=["searched by nodes", "mapped"])
def test_so_does_a_large_graph(place: str, megabytes: int, bundle: Callable[..., Bundle]) -> None:
    """Small files are searched once, larger ones node by node, the largest without being read into
    memory.
    """
    made = PLACES[place](tensor("../secret.bin"))
    made.graph.initializer.append(numpy_helper.from_array(np.zeros(megabytes << 18, np.float32), "unused"))
    refused(bundle(made), "it")


@pytest.mark.parametrize("megabytes", [1, 9])
def test_an_operator_is_found_in_a_large_graph(megabytes: int, bundle: Callable[..., Bundle]) -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
    made = model([node], [numpy_helper.from_array(np.zeros(megabytes << 18, np.float32), "unused")])
    with pytest.raises(ModelError, match="operator EPContext"):
        answer(bundle(made))


@pytest.mark.parametrize("place", HONEST)
def test_weights_beside_a_graph_are_read_wherever_it_uses_them(place: str, bundle: Callable[..., Bundle]) -> None:
    assert np.array_equal(answer(bundle(PLACES[place](tensor("w.data", 64)))), np.full((1, 16), 2))


@pytest.mark.parametrize(
    "entry",
    [
        {"offset": 193},
        {"offset": -1},
        {"offset": "1e2"},
        {"offset": "9" * 30},
        {"offset": 256, "length": 0},
        {"length": 60},
        {"length": 1 << 40},
        {"length": "sixty-four"},
        {"basepath": "/etc"},
        {"prepacked_0": "w.data|0;64;0"},
    ],
    ids=str,
)
def test_offsets_and_lengths_fit_the_file_and_the_tensor(entry: Any, bundle: Callable[..., Bundle]) -> None:
    refused(bundle(in_initializer(tensor("w.data", **entry))), "(a tensor|offset|length)")


def test_as_many_bytes_are_read_as_elements_of_each_type_take(bundle: Callable[..., Bundle]) -> None:
    """Eight elements take as many bytes as one has bits; what the onnx at hand does not know is by
    its documentation.
    """

    folder = bundle(in_initializer(tensor())).path
    listed = Folder(folder, "bundle", ModelError)

    def lengths(kind: int) -> list[int]:
        passing = []
        for length in range(1, 130):
            value = TensorProto(name="w", dims=[8], data_type=kind, data_location=TensorProto.EXTERNAL)
            value.external_data.add(key="location", value="w.data")
            value.external_data.add(key="length", value=str(length))
            (folder / "detect.onnx").write_bytes(in_initializer(value).SerializeToString())
            try:
                check_graph(listed, "detect.onnx", {"w.data"})
            except (ModelError, Unreadable):
                continue
            passing.append(length)
        return passing

    new = {"UINT2": 2, "INT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6, "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4}
    none = ("UNDEFINED", "STRING")
    assert {name: lengths(kind) for name, kind in TensorProto.DataType.items()} == {
        name: [] if name in none else [new.get(name) or helper.tensor_dtype_to_np_dtype(kind).itemsize * 8]
        for name, kind in TensorProto.DataType.items()
    }
    assert lengths(99) == []


def test_a_key_or_a_value_that_is_written_twice_is_refused(bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    """Parsers take the last one."""
    value = tensor("w.data")
    value.external_data.add(key="location", value="../secret.bin")
    with pytest.raises(ModelError, match="twice"):
        answer(bundle(in_initializer(value)))
    whole = in_constant(tensor("w.data")).SerializeToString()
    twice = whole + in_initializer(tensor("../secret.bin")).SerializeToString()
    (tmp_path / "home" / "bundle").rename(tmp_path / "first")
    with pytest.raises(ModelError, match="cannot be loaded"):
        answer(bundle(twice))


def raw(length: bytes, value: bytes) -> bytes:
    """A graph with a tensor at ``value``, where the length of the word before it is written as
    given.
    """
    entry = b"\x0a" + length + b"location" + field(2, value)
    external = b"\x08\x10\x10\x01\x70\x01" + field(8, b"w") + field(13, entry)
    return with_graph(model([ADD]), field(5, external))


def with_graph(made: Any, more: bytes) -> bytes:
    graph = made.graph.SerializeToString()
    made.ClearField("graph")
    return bytes(made.SerializeToString()) + field(7, graph + more)


def test_a_field_that_is_not_written_as_writers_write_it_is_refused(
    bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    """A length of more bytes than it needs is the same to some readers, and not to others."""
    assert np.array_equal(answer(bundle(raw(b"\x08", b"w.data"))), np.full((1, 16), 2))
    (tmp_path / "home" / "bundle").rename(tmp_path / "first")
    refused(bundle(raw(b"\x88\x00", b"w.data")), "it is not an ONNX model, or damaged")


def test_an_attribute_with_two_tensors_is_refused(bundle: Callable[..., Bundle]) -> None:
    """Parsers merge them into one."""
    value = field(5, tensor("w.data").SerializeToString())
    attribute = field(1, b"value") + value + value + b"\xa0\x01\x04"
    constant = field(2, b"w") + field(4, b"Constant") + field(5, attribute)
    refused(bundle(with_graph(model([ADD]), field(1, constant))), "an attribute has two values")


def test_a_number_in_the_place_of_a_tensor_is_skipped_as_parsers_do(bundle: Callable[..., Bundle]) -> None:
    made = in_sparse_initializer(tensor())
    sparse = made.graph.sparse_initializer[0].SerializeToString()
    made.graph.ClearField("sparse_initializer")
    folder = bundle(with_graph(made, field(15, b"\x08\x07\x10\x07" + sparse))).path
    check_graph(Folder(folder, "bundle", ModelError), "detect.onnx", set())
    (folder / "detect.onnx").write_bytes(with_graph(made, field(15, sparse + sparse)))
    with pytest.raises(ModelError, match="two values"):
        check_graph(Folder(folder, "bundle", ModelError), "detect.onnx", set())


@pytest.mark.parametrize("operator", ["EPContext", "Snpe", "ATen", "PythonOp"])
def test_operators_that_run_what_is_not_in_the_graph_are_refused(operator: str, bundle: Callable[..., Bundle]) -> None:
    node = helper.make_node(operator, ["x"], ["y"], domain="com.microsoft", embed_mode=0, ep_cache_context="../x.so")
    with pytest.raises(ModelError, match=f"operator {operator}"):
        answer(bundle(model([node])))


def test_so_are_those_in_a_branch(bundle: Callable[..., Bundle]) -> None:
    inner = branch([helper.make_node("EPContext", ["x"], ["b"], domain="com.microsoft")])
    nested = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)
    with pytest.raises(ModelError, match="operator EPContext"):
        answer(bundle(model([nested], [numpy_helper.from_array(np.array(True), "yes")])))


def test_settings_of_a_session_in_a_graph_are_refused(bundle: Callable[..., Bundle]) -> None:
    made = in_initializer(tensor())
    helper.set_model_props(made, {"ort_config": '{"session_options": {"enable_profiling": true}}'})
    with pytest.raises(ModelError, match="ort_config"):
        answer(bundle(made))


def test_names_of_a_graph_may_be_the_words_that_are_looked_for(bundle: Callable[..., Bundle]) -> None:
    nodes = [helper.make_node("Add", ["x", "location"], ["y"], name="EPContext/location", doc_string="ATen")]
    assert np.array_equal(answer(bundle(model(nodes, [tensor(name="location")]))), np.ones((1, 16)))


@pytest.mark.parametrize("depth", [10, 20])
def test_deep_subgraphs_end_in_an_answer_or_a_line(depth: int, bundle: Callable[..., Bundle]) -> None:
    made = bundle(in_branch(tensor("w.data"), depth))
    if depth == 10:
        assert np.array_equal(answer(made), np.full((1, 16), 2))
    else:
        with pytest.raises(ModelError, match="cannot be loaded"):
            answer(made)


@pytest.mark.parametrize("word", [b"", b"location"])
def test_subgraphs_beyond_every_parser_are_a_line(word: bytes, bundle: Callable[..., Bundle]) -> None:
    graph = field(2, word)
    for _ in range(5_000):
        graph = field(1, field(4, b"If") + field(5, field(6, graph)))
    with pytest.raises(ModelError, match="cannot be loaded"):
        answer(bundle(b"\x08\x08" + field(7, graph)))


def field(number: int, content: bytes) -> bytes:
    """A field of bytes as protobuf writes it."""
    size, length = len(content), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def test_a_graph_of_empty_fields_without_end_is_given_up(bundle: Callable[..., Bundle]) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError, match="cannot be loaded"):
        answer(bundle(b"\x08\x08" + field(7, b"\x0a\x00" * 5_000_000)))
    assert time.monotonic() - start < 60


def test_a_damaged_graph_is_a_line_or_still_reads_nothing_else(bundle: Callable[..., Bundle]) -> None:
    """One byte after the other, changed: whatever passes the check has the location of a listed
    file.
    """

    folder = bundle(in_branch(tensor("w.data", 0))).path
    whole = (folder / "detect.onnx").read_bytes()
    rng = np.random.default_rng(0)
    passed = 0
    for n in range(len(whole)):
        for value in (0, 0xFF, whole[n] ^ 1, int(rng.integers(256))):
            (folder / "detect.onnx").write_bytes(whole[:n] + bytes([value]) + whole[n + 1 :])
            try:
                check_graph(Folder(folder, "bundle", ModelError), "detect.onnx", {"w.data"})
            except (ModelError, Unreadable):
                continue
            passed += 1
            assert locations(folder / "detect.onnx") <= {"w.data"}
    assert passed > 100


def locations(path: Path) -> set[str]:
    """Every file that a graph names, by onnx's own parser."""
    from google.protobuf.message import DecodeError, Message

    parsed = onnx.ModelProto()
    try:
        parsed.ParseFromString(path.read_bytes())
    except DecodeError:
        return set()
    found: set[str] = set()

    def walk(message: Message) -> None:
        if isinstance(message, TensorProto) and message.data_location == TensorProto.EXTERNAL:
            found.update(entry.value for entry in message.external_data if entry.key == "location")
        for field, value in message.ListFields():
            if field.message_type is not None:
                for each in value if field.is_repeated else [value]:
                    walk(each)

    walk(parsed)
    return found
