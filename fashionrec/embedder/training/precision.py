"""Convert an encoder's image tower to half precision or 8 bits, and test it on images. Training
plane: needs onnx.

In 8 bits, products with weights are converted: each output channel of a weight has its own scale,
and so has each row of the activations (a token of an image). ONNX Runtime's `quantize_dynamic`
gives all rows of a batch one scale: faster by a tenth, but then an image's vector depends on the
rest of its batch, and a query would not quite find itself in an index. Attention, normalization and
the text tower stay float32: texts are embedded one at a time, and take a small share of the time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fashionrec.embedder.embed import Embedder
from fashionrec.embedder.training.gate import Tolerance, compare, judge
from fashionrec.errors import FashionrecError
from fashionrec.models.bundle import Bundle, write_bundle
from fashionrec.models.graphs import graph_files, optimized, with_optimized, write_external_data

if TYPE_CHECKING:
    from PIL import Image

_MICROSOFT = "com.microsoft"
_LEAST = 32  # smaller weights are not worth converting
_BATCH = 16

#: Writes a graph in another precision and returns what was done.
Converter = Callable[[Path, Path], dict[str, Any]]


def convert_embedder(
    source: Bundle,
    out: Path,
    precision: str,
    pictures: Sequence[Image.Image],
    *,
    tolerance: Tolerance,
    products: Sequence[str | None] = (),
    photos: Sequence[str] = (),
    overwrite: bool = False,
    converter: Converter | None = None,
    log: Callable[[str], None] | None = None,
) -> Bundle:
    """Convert a float32 bundle to ``precision`` (fp16 or int8), and write it to ``out`` if it
    matches on ``pictures``.

    ``products`` are the products in the pictures (None: unknown), ``photos`` their photos: see
    :func:`gate.compare`. The figures and a measured speed are stored in the bundle's ``agreement``,
    the source's fingerprint in its ``source``. Raises :class:`Refused` if it does not match.
    """
    name = source.graphs["image"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        made = (converter or {"int8": to_int8, "fp16": to_fp16}[precision])(source.graph_path("image"), file)
        write_external_data(file)
        spec = {**source.spec, "precision": precision}
        unwritten = Bundle(file.parent, "embedder", "unwritten", "", {"image": name}, spec, {}, {}, {})
        first, second = Embedder(source, threads=1), Embedder(unwritten, threads=1)
        figures = compare(
            first.embed_images(pictures, _BATCH),
            second.embed_images(pictures, _BATCH),
            products=products,
            photos=photos,
        )
        if log:
            log(figures.line(precision))
        judge(precision, figures, tolerance)
        replaced = graph_files(source.path / name)
        files = {each: source.path / each for each in source.files if each not in replaced}
        kept = {role: each for role, each in source.graphs.items() if each in files}
        return write_bundle(
            out,
            kind="embedder",
            name=f"{source.name}-{precision}",
            graphs={**kept, **with_optimized({"image": name}, file.parent)},
            spec=spec,
            source={**source.source, "fingerprint": source.fingerprint, "conversion": made},
            agreement={
                "float32": source.agreement,
                **figures.to_dict(),
                "speed": speed(first, second, pictures[:_BATCH]),
            },
            files={**files, **graph_files(file)},
            overwrite=overwrite,
        )


def speed(first: Embedder, second: Embedder, pictures: Sequence[Image.Image], rounds: int = 3) -> dict[str, float]:
    """Return milliseconds per image of each, in a batch and one thread, alternating; and the median
    ratio.
    """
    from fashionrec.embedder.preprocess import pixel_values

    values = pixel_values(pictures, first.spec.image)
    times: list[tuple[float, float]] = []
    for n in range(rounds + 1):
        both = (_seconds(first, values), _seconds(second, values))
        if n:
            times.append(both)
    count = len(pictures)
    return {
        "fp32_ms": statistics.median(a for a, _ in times) * 1000 / count,
        "ms": statistics.median(b for _, b in times) * 1000 / count,
        "ratio": statistics.median(a / b for a, b in times),
    }


def _seconds(embedder: Embedder, values: np.ndarray) -> float:
    start = time.perf_counter()
    embedder.answer(values)
    return time.perf_counter() - start


def to_fp16(graph: Path, out: Path) -> dict[str, Any]:
    """Write ``graph`` in half precision, with float32 input and output."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        onnx.save(convert_float_to_float16(_folded(graph), keep_io_types=True), out)
    except Exception as error:  # the converter's own, of any kind
        raise FashionrecError(f"the graph cannot be converted (fp16): {error}", hint="use fp32") from error
    return {"half": True}


def to_int8(graph: Path, out: Path) -> dict[str, Any]:
    """Write ``graph`` with its products by weights in 8 bits. Returns how many were converted."""
    model = _folded(graph)
    shapes = _shapes(model)
    weights = {value.name: value for value in model.graph.initializer}
    rewriter = _Rows(model)
    products = 0
    for node in list(model.graph.node):
        weight = weights.get(node.input[1]) if node.op_type in ("MatMul", "Conv") else None
        shape = shapes.get(node.input[0], []) if node.input else []
        products += weight is not None
        if weight is None or min(weight.dims[:2]) < (_LEAST if node.op_type == "MatMul" else 1):
            rewriter.nodes.append(node)
            continue
        values = numpy_helper.to_array(weight).astype(np.float32)
        if node.op_type == "Conv" and _cuts_patches(node, values, shape):
            rewriter.patches(node, values, shape)
        elif node.op_type == "MatMul" and values.ndim == 2 and len(shape) >= 2:
            rewriter.product(node, values, len(shape))
        else:
            rewriter.nodes.append(node)
    if not rewriter.count:
        raise FashionrecError("the encoder has no products with weights to convert to 8 bits", hint="use fp32")
    onnx.save(rewriter.finish(), out)
    return {"products": products, "products_int8": rewriter.count}


class _Rows:
    """Replaces products with weights by products in 8 bits, with a scale per row of the left side.

    A row's scale is a 127th of its largest magnitude; ``y = scale * weight_scale * (row8 @
    weight8)``. Rows that several products read (as queries, keys and values of attention do) are
    converted once. Both sides are unsigned with a zero point of 128: on CPUs without VNNI (AVX2
    alone) products of unsigned and signed bytes saturate in 16 bits.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.count = model, 0
        self.nodes: list[onnx.NodeProto] = []
        self._known: dict[str, tuple[str, str]] = {}
        self._constant("part", np.float32(1 / 127))
        self._constant("tiny", np.float32(1e-12))
        self._constant("one", np.float32(1))
        self._constant("middle", np.array(128, np.uint8))
        self._constant("flat", np.array([-1], np.int64))

    def product(self, node: onnx.NodeProto, weight: np.ndarray, rank: int) -> None:
        inner, outer = weight.shape
        mark = f"int8_{self.count}"
        self.count += 1
        scale = np.maximum(np.abs(weight).max(axis=0) / 127, 1e-12).astype(np.float32)
        eight = np.clip(np.rint(weight / scale), -127, 127) + 128
        self._constant(f"{mark}_weight", eight.astype(np.uint8))
        self._constant(f"{mark}_scale", scale)
        rows, row_scale = self._rows(node.input[0], inner, mark)
        inputs = [rows, f"{mark}_weight", _own("one"), f"{mark}_scale", _own("middle"), _own("middle")]
        self._add("MatMulIntegerToFloat", inputs, f"{mark}_raw", domain=_MICROSOFT)
        result = node.output[0] if rank == 2 else f"{mark}_rows"
        self._add("Mul", [f"{mark}_raw", row_scale], result)
        if rank > 2:
            self._constant(f"{mark}_outer", np.array([outer], np.int64))
            self._add("Shape", [node.input[0]], f"{mark}_lead", end=-1)
            self._add("Concat", [f"{mark}_lead", f"{mark}_outer"], f"{mark}_shape", axis=0)
            self._add("Reshape", [result, f"{mark}_shape"], node.output[0])

    def patches(self, node: onnx.NodeProto, weight: np.ndarray, shape: list[int]) -> None:
        """Rewrite a convolution with adjacent windows as a product: each window is a row."""
        outer, channels, high, wide = weight.shape
        down, across = shape[2] // high, shape[3] // wide
        mark = f"int8_patches_{self.count}"
        self._constant(f"{mark}_six", np.array([-1, channels, down, high, across, wide], np.int64))
        self._constant(f"{mark}_rows", np.array([-1, down * across, channels * high * wide], np.int64))
        self._constant(f"{mark}_map", np.array([-1, outer, down, across], np.int64))
        self._add("Reshape", [node.input[0], f"{mark}_six"], f"{mark}_cut")
        self._add("Transpose", [f"{mark}_cut"], f"{mark}_turned", perm=[0, 2, 4, 1, 3, 5])
        self._add("Reshape", [f"{mark}_turned", f"{mark}_rows"], f"{mark}_flat")
        product = helper.make_node("MatMul", [f"{mark}_flat", node.input[1]], [f"{mark}_product"])
        self.product(product, weight.reshape(outer, -1).T, 3)
        result = f"{mark}_product"
        if len(node.input) > 2:
            result = f"{mark}_sum"
            self._add("Add", [f"{mark}_product", node.input[2]], result)
        self._add("Transpose", [result], f"{mark}_first", perm=[0, 2, 1])
        self._add("Reshape", [f"{mark}_first", f"{mark}_map"], node.output[0])

    def _rows(self, source: str, inner: int, mark: str) -> tuple[str, str]:
        """Return the rows of a tensor in 8 bits, and their scales [rows, 1]."""
        if source not in self._known:
            self._constant(f"{mark}_two", np.array([-1, inner], np.int64))
            self._add("Reshape", [source, f"{mark}_two"], f"{mark}_in")
            self._add("Abs", [f"{mark}_in"], f"{mark}_size")
            self._add("ReduceMax", [f"{mark}_size"], f"{mark}_most", axes=[1], keepdims=1)
            self._add("Mul", [f"{mark}_most", _own("part")], f"{mark}_step")
            self._add("Max", [f"{mark}_step", _own("tiny")], f"{mark}_rowscale")
            self._add("Reshape", [f"{mark}_rowscale", _own("flat")], f"{mark}_line")
            self._add("Shape", [f"{mark}_line"], f"{mark}_count")
            self._add("Expand", [_own("middle"), f"{mark}_count"], f"{mark}_zeros")
            self._add("QuantizeLinear", [f"{mark}_in", f"{mark}_line", f"{mark}_zeros"], f"{mark}_eight", axis=0)
            self._known[source] = f"{mark}_eight", f"{mark}_rowscale"
        return self._known[source]

    def finish(self) -> onnx.ModelProto:
        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        read = {name for node in graph.node for name in node.input}
        kept = [value for value in graph.initializer if value.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]
        if not any(opset.domain == _MICROSOFT for opset in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
        return self.model

    def _constant(self, name: str, value: Any) -> None:
        own = name if name.startswith("int8_") else _own(name)
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), own))

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}_node", **attributes))


def _own(name: str) -> str:
    return f"int8_{name}"


def _cuts_patches(node: onnx.NodeProto, weight: np.ndarray, shape: list[int]) -> bool:
    """Return whether a convolution's windows are adjacent and cover the image, as in a vision
    transformer.
    """
    told = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    window = list(weight.shape[2:])
    return (
        len(window) == 2
        and list(told.get("strides", [])) == window
        and not any(told.get("pads", []))
        and told.get("group", 1) == 1
        and told.get("auto_pad", b"NOTSET") == b"NOTSET"
        and all(each == 1 for each in told.get("dilations", [1]))
        and len(shape) == 4
        and all(length > 0 and length % side == 0 for length, side in zip(shape[2:], window, strict=True))
        and np.prod(window) > 1
    )


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the dimensions of each float tensor as far as known; 0 is any."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.type.tensor_type.HasField("shape")
    }


def _folded(graph: Path) -> onnx.ModelProto:
    """Return the graph with constants folded, so that weights are weights."""
    try:
        return optimized(graph)
    except Exception as error:  # onnxruntime raises its own classes
        reason = str(error).splitlines()[0][:200]
        raise FashionrecError(f"the graph cannot be read: {reason}", hint="export it again") from None
