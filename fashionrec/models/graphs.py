"""Prepare graphs for fast opening. Training plane: needs onnx.

Weights are stored as external data: a graph file is read and parsed when a session opens it,
external data is memory-mapped. An encoder of 350 MB opens in a tenth of the time this way, and
unused parts do not occupy memory. Next to a graph lies an optimized copy, as ONNX Runtime would
rewrite it for a CPU at every start, sharing the same weights.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.common.extras import need
from fashionrec.models.manifest import READY

if TYPE_CHECKING:
    import onnx

#: Smaller graphs keep their weights, and in larger ones smaller tensors do.
LEAST_GRAPH, _LEAST_TENSOR = 4 << 20, 1 << 10
_PAGE = 4096  # alignment of a mapped tensor
_MOST_VALUES = 1 << 26  # of a test input
#: Maximum difference of an optimized graph from its source: in float32, and in half floats.
NEAR, NEAR_HALVES = 1e-3, 2e-2


def write_external_data(graph: Path, least: int = LEAST_GRAPH) -> None:
    """Move the weights of an ONNX file into external data, if they have at least
    ``least`` bytes.
    """
    if graph.stat().st_size < least:
        return
    need("onnx", what="writing a model's graph")
    import onnx

    model = onnx.load(str(graph))
    _put_beside(model, graph)
    onnx.save(model, str(graph))


def with_optimized(graphs: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the graphs of a bundle (roles and names of files in ``folder``), including optimized
    ones where possible.
    """
    found = {role: name for role, name in graphs.items() if not role.endswith(READY)}
    made = {role: write_optimized(folder / name) for role, name in found.items()}
    return found | {role + READY: file.name for role, file in made.items() if file is not None}


def write_optimized(graph: Path, rewrite: Callable[[Path, str], onnx.ModelProto] | None = None) -> Path | None:
    """Write ``NAME.ready.onnx`` next to a graph: optimized by ONNX Runtime for any CPU, sharing its
    external data.

    Returns None if ONNX Runtime cannot, or if the result differs. ``rewrite`` replaces
    :func:`optimized` in tests.
    """
    need("onnx", what="writing a model's graph")
    import onnx

    ready = _ready(graph)
    try:
        model = (rewrite or optimized)(graph, "extended")
    except Exception:  # ONNX Runtime's own classes
        return None
    _share_weights(model, graph)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) >= LEAST_GRAPH:
        _put_beside(model, ready)
    onnx.save(model, str(ready))
    if not outputs_match(graph, ready, NEAR if _in_floats(graph) else NEAR_HALVES):
        for file in (ready, _beside(ready)):
            file.unlink(missing_ok=True)
        return None
    return ready


def optimized(graph: Path, level: str = "basic") -> onnx.ModelProto:
    """Return the graph optimized by ONNX Runtime, with all its weights: ``basic`` (constants
    folded) or ``extended`` (nodes fused).

    Raises what ONNX Runtime raises.
    """
    import onnx
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = _options()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
        options.optimized_model_filepath = str(Path(folder) / "rewritten.onnx")
        for key, value in {"file_name": "rewritten.data", "min_size_in_bytes": str(_LEAST_TENSOR)}.items():
            options.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
        ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def graph_files(graph: Path) -> dict[str, Path]:
    """Return an ONNX file, its optimized copy and their external data, as files of a bundle by
    name.
    """
    ready = _ready(graph)
    return {file.name: file for file in (graph, _beside(graph), ready, _beside(ready)) if file.is_file()}


def _put_beside(model: onnx.ModelProto, graph: Path) -> None:
    from onnx.external_data_helper import set_external_data

    weights = _beside(graph)
    with weights.open("wb") as file:
        for tensor in model.graph.initializer:
            data = tensor.raw_data
            if len(data) < _LEAST_TENSOR:
                continue
            file.write(b"\0" * (-file.tell() % _PAGE))
            set_external_data(tensor, weights.name, offset=file.tell(), length=len(data))
            file.write(data)
            tensor.ClearField("raw_data")


def _share_weights(model: onnx.ModelProto, graph: Path) -> None:
    """Let tensors be read from the external data of ``graph``."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, set_external_data, uses_external_data

    tensors = onnx.load(str(graph), load_external_data=False).graph.initializer
    there: dict[bytes, tuple[int, int]] = {}
    for place in [ExternalDataInfo(tensor) for tensor in tensors if uses_external_data(tensor)]:
        offset, length = place.offset or 0, place.length or 0
        with (graph.parent / place.location).open("rb") as file:
            file.seek(offset)
            there[hashlib.sha256(file.read(length)).digest()] = offset, length
    for tensor in model.graph.initializer:
        if there and len(tensor.raw_data) >= _LEAST_TENSOR:
            found = there.get(hashlib.sha256(tensor.raw_data).digest())
            if found is not None:
                set_external_data(tensor, _beside(graph).name, offset=found[0], length=found[1])
                tensor.ClearField("raw_data")


def outputs_match(graph: Path, ready: Path, near: float) -> bool:
    """Return whether a graph and its optimized copy give the same output for a test input, up to
    ``near``.
    """
    import onnxruntime as ort

    as_it_is = _options()
    as_it_is.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        one = ort.InferenceSession(str(graph), _options(), providers=["CPUExecutionProvider"])
        other = ort.InferenceSession(str(ready), as_it_is, providers=["CPUExecutionProvider"])
        values = {value.name: _made_up(value) for value in one.get_inputs()}
        pairs = list(zip(one.run(None, values), other.run(None, values), strict=True))
    except Exception:  # its own classes
        return False
    return all(np.isfinite(a).all() and np.allclose(a, b, rtol=near, atol=near) for a, b in pairs)


def _in_floats(graph: Path) -> bool:
    import onnx

    tensors = onnx.load(str(graph), load_external_data=False).graph.initializer
    return all(tensor.data_type != onnx.TensorProto.FLOAT16 for tensor in tensors)


def _made_up(value: Any) -> np.ndarray:
    """Return a test input for a graph; dimensions of any size are small."""
    integers = "int" in value.type
    shape = [dim if isinstance(dim, int) and dim > 0 else 8 if integers else 64 for dim in value.shape]
    shape[0] = value.shape[0] if isinstance(value.shape[0], int) else 1
    if math.prod(shape) > _MOST_VALUES:
        raise ValueError(f"an input of shape {shape}")
    if integers:
        return np.ones(shape, np.int64)
    kind = np.float16 if "float16" in value.type else np.float32
    return np.random.default_rng(0).random(shape).astype(kind)


def _options() -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    return options


def _ready(graph: Path) -> Path:
    return graph.with_name(f"{graph.stem}{READY}.onnx")


def _beside(graph: Path) -> Path:
    return graph.with_name(f"{graph.name}.data")
