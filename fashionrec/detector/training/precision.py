"""Convert a detector's graph to half precision or 8 bits, with float32 input and output. Training
plane.

Float32 parts are found by the graph's structure, so that it works for any network: its *decoding*
(everything after the last layer with weights: anchors, DFL, sigmoids, top k) in both, and in int8
also the last convolutions and attention. Quantizing those destroys the scores.

int8 is QDQ with unsigned activations and signed weights of 7 bits, with a scale per output channel:
on CPUs without VNNI (AVX2 alone) products of full 8-bit weights saturate in 16 bits, which costs
accuracy there only.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fashionrec.detector.training.ultra import quiet
from fashionrec.errors import FashionrecError
from fashionrec.models.graphs import optimized

#: The largest number of half precision; activations of unseen photos may be this much larger than
#: those measured.
HALF_MAX = 65504.0
HALF_ROOM = 2.0

#: Operators that run in 8 bits: convolutions, and what lies between them.
_QUANTIZED = (
    *("Conv", "Add", "Mul", "Sigmoid", "Relu", "LeakyRelu", "Clip", "Concat"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Split"),
)
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Slice", "Split"})

Batches = Callable[[], Iterable[np.ndarray]]


def to_fp16(graph: Path, out: Path) -> dict[str, Any]:
    """Write ``graph`` in half precision, with its decoding in float32: boxes in pixels need more
    digits.

    Returns what was kept. Raises :class:`FashionrecError` if the conversion fails.
    """
    model = _folded(graph, out.with_name("folded.onnx"))
    kept = decoding(model, _WEIGHTED)
    with _translated("fp16"):
        from onnxruntime.transformers.float16 import convert_float_to_float16

        half = convert_float_to_float16(model, keep_io_types=True, node_block_list=list(kept))
        _unround(half.graph)
        onnx.save(half, out)
        _session(out)
    return {"nodes": len(model.graph.node), "nodes_kept_float32": len(kept)}


def _unround(graph: onnx.GraphProto) -> None:
    """Pass on the results of float32 nodes without rounding.

    The converter casts them to half precision, and back for another float32 node or an output of
    the graph.
    """
    makers = _makers(graph)
    for widen in graph.node:
        narrow = makers.get(widen.input[0]) if _casts_to(widen, onnx.TensorProto.FLOAT) else None
        if narrow is not None and _casts_to(narrow, onnx.TensorProto.FLOAT16):
            widen.op_type, widen.input[0] = "Identity", narrow.input[0]
            widen.ClearField("attribute")


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(one.name == "to" and one.i == kind for one in node.attribute)


def to_int8(
    graph: Path,
    out: Path,
    batches: Batches,
    *,
    kept: Callable[[onnx.ModelProto], set[str]] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Write ``graph`` in 8 bits, with ranges of activations measured on ``batches`` (the network's
    input, float32 [n, 3, h, w]).

    ``kept`` names the nodes that stay float32, default :func:`kept_in_float`; ``changes`` are other
    arguments for ONNX Runtime's ``quantize_static``. Returns what was kept and the number of
    calibration photos. Raises :class:`FashionrecError` if it fails.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    folded = out.with_name("folded.onnx")
    model = _folded(graph, folded)
    without = (kept or kept_in_float)(model)
    reader = _Reader(model.graph.input[0].name, batches())
    settings: dict[str, Any] = {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
        "reduce_range": True,
        "op_types_to_quantize": list(_QUANTIZED),
        "nodes_to_exclude": list(without),
        "calibrate_method": CalibrationMethod.MinMax,
    }
    with _translated("int8"):
        quantize_static(str(folded), str(out), reader, **{**settings, **changes})
        _session(out)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    return {
        "convolutions": len(convolutions),
        "convolutions_int8": sum(name not in without for name in convolutions),
        "calibrated_on": reader.photos,
    }


def largest_activation(graph: Path, batches: Batches) -> float:
    """Return the largest magnitude of activations of a float32 graph before its decoding, on
    ``batches``, and of its weights.

    A CPU computes a half-precision graph in float32, so overflows on a GPU do not show in its
    output: the ranges must be checked.
    """
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    with tempfile.TemporaryDirectory() as folder:  # the graph may belong to a bundle
        folded, ranged = Path(folder, "folded.onnx"), Path(folder, "ranges.onnx")
        model = _folded(graph, folded)
        with _translated("fp16"):
            calibrator = create_calibrator(folded, None, str(ranged), CalibrationMethod.MinMax)
            calibrator.collect_data(_Reader(model.graph.input[0].name, batches()))
            ranges = calibrator.compute_data()
    decoders = decoding(model, _WEIGHTED)
    late = {name for node in model.graph.node if node.name in decoders for name in node.output}
    found = [
        onnx.numpy_helper.to_array(value)
        for value in model.graph.initializer
        if value.data_type == onnx.TensorProto.FLOAT
    ]
    found += [np.array(edge) for name, tensor in ranges.items() if name not in late for edge in tensor.range_value]
    finite = [np.abs(values[np.isfinite(values)]) for values in found]  # a mask is infinite, in half precision too
    return max((float(values.max()) for values in finite if values.size), default=0.0)


def decoding(model: onnx.ModelProto, weighted: frozenset[str] = _CONVOLUTIONS) -> set[str]:
    """Return the names of the nodes after the last layers with weights: none of the types
    ``weighted`` is reachable from them.

    DFL's convolution is the expectation over a softmax, with fixed weights: it belongs to the
    decoding.
    """
    readers, makers = _readers(model.graph), _makers(model.graph)
    found: set[str] = set()
    for node in reversed(model.graph.node):
        after = [reader for output in node.output for reader in readers.get(output, [])]
        if all(reader.name in found for reader in after) and (
            node.op_type not in weighted or _follows_softmax(node, makers)
        ):
            found.add(node.name)
    return found


def kept_in_float(model: onnx.ModelProto) -> set[str]:
    """Return the names of the nodes that stay float32 in an int8 graph: the decoding, the
    convolutions that only feed it, attention.
    """
    late = decoding(model)
    readers = _readers(model.graph)
    last = {
        node.name
        for node in model.graph.node
        if node.op_type in _CONVOLUTIONS
        and all(reader.name in late for output in node.output for reader in readers.get(output, []))
    }
    return late | last | _attention(model, late)


def _attention(model: onnx.ModelProto, late: set[str]) -> set[str]:
    """Return the nodes around a softmax, up to the convolutions before and after it."""
    readers, makers = _readers(model.graph), _makers(model.graph)
    waiting = [node for node in model.graph.node if node.op_type == "Softmax" and node.name not in late]
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node.name in found or node.name in late or node.op_type in _CONVOLUTIONS or node.op_type == "Shape":
            continue
        found.add(node.name)
        waiting += [makers[name] for name in node.input if name in makers]
        waiting += [reader for name in node.output for reader in readers.get(name, [])]
    return found


def _follows_softmax(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    before = makers.get(node.input[0])
    while before is not None and before.op_type in _MOVES:
        before = makers.get(before.input[0])
    return before is not None and before.op_type == "Softmax"


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the nodes that read each tensor, including those in subgraphs (of If and Loop)."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in _reads(node):
            found.setdefault(name, []).append(node)
    return found


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        for subgraph in (attribute.g, *attribute.graphs):
            for inner in subgraph.node:
                yield from _reads(inner)


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _folded(graph: Path, out: Path) -> onnx.ModelProto:
    """Write the graph with constants folded, so that weights are weights, and a name
    for each node.
    """
    with _translated("folding"):
        model = optimized(graph)
    for n, node in enumerate(model.graph.node):
        node.name = f"{n}:{node.name}"
    onnx.save(model, out)
    return model


def _session(graph: Path) -> None:
    """Load a graph, which shows whether it is valid."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


class _Reader:
    """Batches for ONNX Runtime's calibrators."""

    def __init__(self, name: str, batches: Iterable[np.ndarray]) -> None:
        self._name, self._batches, self.photos = name, iter(batches), 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        self.photos += len(batch)
        return {self._name: batch}


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Report a converter's failure as one line, and suppress its output."""
    logging.disable(logging.WARNING)
    try:
        with quiet(None):
            yield
    except FashionrecError:
        raise
    except Exception as error:  # onnx, onnxruntime and the converters raise their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FashionrecError(f"the graph cannot be converted ({what}): {reason}", hint="export it as fp32") from error
    finally:
        logging.disable(logging.NOTSET)
