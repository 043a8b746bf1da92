"""Count the parameters and operations of a network from its ONNX graph, alike for all.

Convolutions and matrix products are counted with two operations per multiply-add, as ultralytics
and most papers do (some call half of it GFLOPs). Shapes come from ONNX shape inference; those that
depend on the image (the number of proposals of a two-stage detector) are those of the given image.
Needs the package onnx.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fashionrec.common.extras import need

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Other operators with learned weights, besides the products.
_NORMS = ("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "PRelu")
#: Nodes that pass on a weight in exports of another precision.
_HANDED = ("DequantizeLinear", "QuantizeLinear", "Cast", "Identity", "Transpose")


@dataclass(frozen=True)
class Complexity:
    """``parameters`` of convolutions, matrix products and norms; ``operations`` for one image."""

    parameters: int
    operations: int

    @property
    def gflops(self) -> float:
        return self.operations / 1e9


def complexity(graph: Path, picture: np.ndarray) -> Complexity:
    """Count a graph for one image, float32 [1, 3, side, side] as its detector prepares it."""
    need("onnx", what="counting a network's operations")
    import onnx

    model = onnx.load(str(graph))
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, picture.shape, strict=True):
        dimension.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {value.name: _shape(value) for value in (*inferred.graph.value_info, *inferred.graph.output)}
    shapes |= {model.graph.input[0].name: tuple(picture.shape)}
    weights = _weights(model.graph)
    products = [node for node in model.graph.node if node.op_type in _PRODUCTS]
    wanted = {name for node in products for name in (node.input[0], node.output[0]) if name not in weights}
    unknown = sorted(name for name in wanted if shapes.get(name) is None)
    if unknown:
        shapes |= _measured(model, unknown, picture)
    operations = sum(2 * _multiplications(node, shapes, weights) for node in products)
    learnt: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in (*_PRODUCTS, *_NORMS):
            learnt |= {weights[name][0]: math.prod(weights[name][1]) for name in node.input if name in weights}
    return Complexity(sum(learnt.values()), int(operations))


def _multiplications(
    node: Any, shapes: Mapping[str, tuple[int, ...] | None], weights: Mapping[str, tuple[str, tuple[int, ...]]]
) -> int:
    out = shapes[node.output[0]] or ()
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(weights[node.input[1]][1][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[node.input[0]] or ()) * math.prod(weights[node.input[1]][1][1:])
    first = weights[node.input[0]][1] if node.input[0] in weights else shapes[node.input[0]] or ()
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(out) * first[-2 if turned else -1]


def _weights(graph: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Map names that stand for an initializer, its own and those of nodes passing it on, to name
    and shape.
    """
    found = {value.name: (value.name, tuple(value.dims)) for value in graph.initializer}
    for node in graph.node:  # in execution order
        if node.op_type in _HANDED and node.input[0] in found:
            name, dims = found[node.input[0]]
            order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            found[node.output[0]] = (name, tuple(dims[n] for n in order) if order else dims)
    return found


def _measured(model: Any, names: Iterable[str], picture: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Return shapes of tensors, measured by running the graph on an image."""
    import onnx
    import onnxruntime as ort

    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(list(names), {model.graph.input[0].name: picture})
    return {name: tuple(value.shape) for name, value in zip(names, found, strict=True)}


def _shape(value: Any) -> tuple[int, ...] | None:
    dims = value.type.tensor_type.shape.dim
    known = value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") and d.dim_value > 0 for d in dims)
    return tuple(d.dim_value for d in dims) if known else None
