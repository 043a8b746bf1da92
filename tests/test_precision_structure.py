"""Test which nodes of a graph stay float32 in a smaller export, found by its structure alone; and
how the others are quantized.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fashionrec.detector.training.precision import decoding, kept_in_float, largest_activation, to_fp16, to_int8
from fashionrec.errors import DataError, FashionrecError

SHAPE = [1, 4, 4, 4]
PIXELS = np.linspace(-1, 1, 64, dtype=np.float32).reshape(SHAPE)


def wired(*lines: str) -> onnx.ModelProto:
    """A graph of nodes written as ``name:

    Type input input > output output``; shapes and values do not matter.
    """
    nodes = []
    for line in lines:
        name, _, rest = line.partition(": ")
        call, _, outputs = rest.partition(" > ")
        kind, *inputs = call.split()
        nodes.append(helper.make_node(kind, inputs, (outputs or name).split(), name=name))
    return helper.make_model(helper.make_graph(nodes, "g", [], []))


def computed(path: Path, nodes: Sequence[onnx.NodeProto], weights: dict[str, Any], outputs: Sequence[str]) -> Path:
    """A graph of ``images`` that ONNX Runtime can run."""
    values = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        values,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def square(*channels: float) -> np.ndarray:
    """The weights of a convolution that multiplies each channel by its number."""
    return np.diag(np.array(channels, np.float32)).reshape(len(channels), len(channels), 1, 1)


# --- what is kept


@pytest.mark.parametrize(
    ("between", "is_dfl"),
    [
        ((), True),
        *(((move,), True) for move in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Slice", "Split")),
        (("Reshape", "Transpose", "Split"), True),
        (("Mul",), False),
        (("Transpose", "Relu"), False),
    ],
)  # fmt: skip
def test_the_convolution_of_dfl_belongs_to_the_decoding(between: tuple[str, ...], is_dfl: bool) -> None:
    """It is the expectation over a softmax, with fixed weights; the softmax may be moved about
    before.
    """
    names = ["soft", *(f"m{n}" for n in range(len(between)))]
    moves = [f"m{n}: {kind} {names[n]}" for n, kind in enumerate(between)]
    model = wired("a: Conv images", "b: Conv a", "soft: Softmax b", *moves, f"dfl: Conv {names[-1]}", "out: Mul dfl")
    assert decoding(model) == ({"dfl", "out", *names} if is_dfl else {"out"})
    if is_dfl:
        assert kept_in_float(model) == {"b", "dfl", "out", *names}


def test_the_convolution_of_an_input_is_none_of_dfls() -> None:
    assert decoding(wired("a: Conv images", "b: Reshape a")) == {"b"}
    assert decoding(wired("m: Reshape images", "a: Conv m", "b: Reshape a")) == {"b"}


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "MatMul", "Gemm"])
def test_layers_with_weights_end_what_half_precision_may_round(kind: str, tmp_path: Path) -> None:
    """All four in half precision; in 8 bits only a convolution counts as a layer."""
    model = wired("a: Conv images", f"b: {kind} a", "c: Sigmoid b", "d: Mul c")
    convolution = kind.startswith("Conv")
    assert decoding(model) == ({"c", "d"} if convolution else {"b", "c", "d"})
    assert kept_in_float(model) == ({"b", "c", "d"} if convolution else {"a", "b", "c", "d"})
    weights = square(1, 2, 3, 4).reshape(4, 4) if kind in ("MatMul", "Gemm") else square(1, 2, 3, 4)
    flat = [helper.make_node("Reshape", ["first", "flat"], ["flattened"])] if kind == "Gemm" else []
    nodes = [
        helper.make_node("Conv", ["images", "one"], ["first"]),
        *flat,
        helper.make_node(kind, ["flattened" if flat else "first", "weights"], ["layer"]),
        helper.make_node("Exp", ["layer"], ["out"]),
        helper.make_node("Sqrt", ["out"], ["root"]),
    ]
    more = {"flat": np.array([16, 4], np.int64)} if flat else {}
    path = computed(tmp_path / "g.onnx", nodes, {"one": square(1, 1, 1, 1), "weights": weights, **more}, ["root"])
    assert to_fp16(path, tmp_path / "half.onnx") == {"nodes": len(nodes), "nodes_kept_float32": 2}


def test_attention_stays_float32_up_to_the_convolutions_around_it() -> None:
    model = wired(
        "in: Conv images",
        "side: Relu in",  # beside it, and read by the decoding
        "qkv: Conv side",
        "parts: Split qkv > q k v",
        "qk: MatMul q k",
        "soft: Softmax qk",
        "mix: MatMul soft v",
        "size: Shape side",  # whose shape is no part of it
        "back: Reshape mix size",
        "out: Conv back",
        "act: Sigmoid out",
        "last: Conv act",
        "join: Concat last back side",
    )
    late = {"join"}
    attention = {"parts", "qk", "soft", "mix", "back"}
    assert decoding(model) == late
    assert kept_in_float(model) == late | {"last"} | attention


def test_a_softmax_of_the_decoding_is_no_attention() -> None:
    model = wired("a: Conv images", "b: Relu a", "c: Conv b", "d: Concat c b", "soft: Softmax d")
    assert kept_in_float(model) == {"c", "d", "soft"}


@pytest.mark.parametrize("several", [False, True])
def test_what_a_subgraph_reads_is_read(several: bool) -> None:
    """A branch of an If that feeds a convolution, and a branch within it: what they read comes
    before the decoding.
    """
    inner = helper.make_graph([helper.make_node("Relu", ["a2"], ["r2"])], "inner", [], [])
    nested = helper.make_node("If", ["yes"], ["deep"], then_branch=inner)
    outer = helper.make_graph([helper.make_node("Relu", ["a1"], ["r1"]), nested], "outer", [], [])
    if several:
        choice = helper.make_node("Choose", ["yes"], ["chosen"], name="if", domain="own")
        choice.attribute.append(helper.make_attribute("branches", [helper.make_graph([], "none", [], []), outer]))
    else:
        choice = helper.make_node("If", ["yes"], ["chosen"], name="if", then_branch=outer)
    model = wired("x: Conv images", "a1: Abs x", "a2: Abs x", "a3: Abs x", "last: Conv chosen", "out: Mul last")
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:4], choice, *nodes[4:]])
    assert decoding(model) == {"a3", "out"}


# --- how the others are quantized


def test_weights_are_signed_7_bits_a_scale_for_each_channel_and_activations_unsigned(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"]),
        helper.make_node("Conv", ["a", "one"], ["out"]),
    ]
    path = computed(tmp_path / "g.onnx", nodes, {"w": square(1, 2, 4, 8), "one": square(1, 1, 1, 1)}, ["out"])
    found = to_int8(path, tmp_path / "q.onnx", lambda: [PIXELS])
    assert found == {"convolutions": 2, "convolutions_int8": 1, "calibrated_on": 1}
    made = onnx.load(tmp_path / "q.onnx").graph
    values = {one.name: numpy_helper.to_array(one) for one in made.initializer}
    (weights,) = (one for one in values.values() if one.dtype == np.int8 and one.shape == (4, 4, 1, 1))
    assert np.diag(weights.reshape(4, 4)).tolist() == [64, 64, 64, 64]
    (scales,) = (one for one in values.values() if one.dtype == np.float32 and one.shape == (4,))
    assert scales.tolist() == pytest.approx([1 / 64, 2 / 64, 4 / 64, 8 / 64])
    activations = {node.input[2] for node in made.node if node.op_type == "QuantizeLinear"}
    assert {values[name].dtype for name in activations} == {np.dtype(np.uint8)}
    assert [node.op_type for node in made.node if "QLinear" in node.op_type] == []


def test_what_is_not_to_be_quantized_can_be_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["images", "one"], ["a"]), helper.make_node("Conv", ["a", "one"], ["out"])]
    path = computed(tmp_path / "g.onnx", nodes, {"one": square(1, 2, 3, 4)}, ["out"])

    def last(model: onnx.ModelProto) -> set[str]:
        return {model.graph.node[0].name}

    for kept, expected in ((lambda model: set(), 2), (last, 1)):
        made = to_int8(path, tmp_path / "q.onnx", lambda: [PIXELS], kept=kept, per_channel=False)
        assert made["convolutions_int8"] == expected
        values = {one.name: one.data_type for one in onnx.load(tmp_path / "q.onnx").graph.initializer}
        assert (TensorProto.FLOAT, [4]) not in values.items()
        quantized = [node for node in onnx.load(tmp_path / "q.onnx").graph.node if node.op_type == "QuantizeLinear"]
        assert len(quantized) == expected + 1


#: Each type of node between two convolutions, with its inputs.
BETWEEN: dict[str, tuple[list[str], dict[str, Any]]] = {
    "Add": (["conv", "conv"], {}),
    "Mul": (["conv", "conv"], {}),
    "Sigmoid": (["conv"], {}),
    "Relu": (["conv"], {}),
    "LeakyRelu": (["conv"], {}),
    "Clip": (["conv", "low", "high"], {}),
    "Concat": (["conv", "conv"], {"axis": 2}),
    "MaxPool": (["conv"], {"kernel_shape": [2, 2]}),
    "AveragePool": (["conv"], {"kernel_shape": [2, 2]}),
    "GlobalAveragePool": (["conv"], {}),
    "Resize": (["conv", "", "twice"], {}),
    "Split": (["conv"], {"axis": 2}),
    "Erf": (["conv"], {}),
}


def test_what_lies_between_convolutions_is_quantized_too(tmp_path: Path) -> None:
    nodes: list[onnx.NodeProto] = []
    for kind, (inputs, attributes) in BETWEEN.items():
        outputs = [f"{kind}.out", f"{kind}.more"][: 2 if kind == "Split" else 1]
        given = [f"{kind}.conv" if name == "conv" else name for name in inputs]
        nodes += [
            helper.make_node("Conv", ["images", "one"], [f"{kind}.conv"]),
            helper.make_node(kind, given, outputs, **attributes),
            helper.make_node("Abs", outputs[:1], [f"{kind}.abs"]),
            helper.make_node("Conv", [f"{kind}.abs", "one"], [f"{kind}.last"]),
        ]
    weights = {
        "one": square(1, 2, 3, 4),
        "low": np.float32(-0.5),
        "high": np.float32(0.5),
        "twice": np.array([1, 1, 2, 2], np.float32),
    }
    path = computed(tmp_path / "g.onnx", nodes, weights, [f"{kind}.last" for kind in BETWEEN])
    to_int8(path, tmp_path / "q.onnx", lambda: [PIXELS])
    made = onnx.load(tmp_path / "q.onnx").graph
    makers = {name: node.op_type for node in made.node for name in node.output}
    of_abs = {node.output[0].removesuffix(".abs"): makers[node.input[0]] for node in made.node if node.op_type == "Abs"}
    assert of_abs == {**dict.fromkeys(BETWEEN, "DequantizeLinear"), "Erf": "Erf"}


# --- ranges


def test_infinities_and_whole_numbers_do_not_count_as_activations(tmp_path: Path) -> None:
    """A mask is infinite in half precision too; the sizes of a Reshape are not computed in it."""
    mask = np.zeros(SHAPE, np.float32)
    mask[0, 0, 0, 0] = -np.inf
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"]),
        helper.make_node("Add", ["a", "mask"], ["b"]),
        helper.make_node("Max", ["b", "least", "never"], ["c"]),
        helper.make_node("Slice", ["c", "zero", "end"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["last"]),
        helper.make_node("Mul", ["last", "last"], ["out"]),
    ]
    weights = {"w": square(1, 1, 1, 2), "mask": mask, "least": np.float32(-3)}
    weights |= {"zero": np.array([0], np.int64), "end": np.array([1 << 40], np.int64)}
    weights["never"] = np.float32(-np.inf)  # infinite throughout
    path = computed(tmp_path / "g.onnx", nodes, weights, ["out"])
    assert largest_activation(path, lambda: [PIXELS]) == pytest.approx(4.0)
    assert largest_activation(path, lambda: [PIXELS, PIXELS * -2]) == pytest.approx(6.0)


# --- what fails


def faulty(error: Exception) -> Iterator[np.ndarray]:
    yield PIXELS
    raise error


@pytest.mark.parametrize(
    ("error", "said", "hint"),
    [
        (ValueError("one\n  two " + "x" * 300), "(int8): one two " + "x" * 192, "export it as fp32"),
        (KeyError(), "(int8): KeyError", "export it as fp32"),
        (DataError("theirs", hint="mine"), "theirs", "mine"),
    ],
)
def test_what_fails_in_a_conversion_is_one_line(
    error: Exception, said: str, hint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes = [helper.make_node("Conv", ["images", "w"], ["a"]), helper.make_node("Conv", ["a", "w"], ["out"])]
    path = computed(tmp_path / "g.onnx", nodes, {"w": square(1, 1, 1, 1)}, ["out"])
    with pytest.raises(FashionrecError) as caught:
        to_int8(path, tmp_path / "q.onnx", lambda: faulty(error))
    assert (str(caught.value).removeprefix("the graph cannot be converted "), caught.value.hint) == (said, hint)
    assert logging.getLogger().isEnabledFor(logging.WARNING)
    if isinstance(error, DataError):
        return
    with pytest.raises(FashionrecError, match=r"^the graph cannot be converted \(fp16\): "):
        largest_activation(path, lambda: faulty(error))
    (tmp_path / "none.onnx").write_bytes(b"none")
    with pytest.raises(FashionrecError, match=r"^the graph cannot be converted \(folding\): "):
        to_fp16(tmp_path / "none.onnx", tmp_path / "half.onnx")
    assert not (tmp_path / "half.onnx").exists()
    assert capfd.readouterr() == ("", "")


def test_what_does_not_load_in_half_precision_is_refused(tmp_path: Path) -> None:
    """ONNX quantizes no float16 before opset 19, so a graph that is partly in 8 bits already makes
    no valid one.
    """
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"]),
        helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["out"]),
    ]
    weights = {"w": square(1, 1, 1, 1), "scale": np.float32(0.1), "zero": np.uint8(128)}
    path = computed(tmp_path / "g.onnx", nodes, weights, ["out"])
    with pytest.raises(FashionrecError, match=r"^the graph cannot be converted \(fp16\): ") as caught:
        to_fp16(path, tmp_path / "half.onnx")
    assert caught.value.hint == "export it as fp32"
