"""Weights beside their graph: a graph file is read and parsed when a session opens it, a file beside it is mapped.

An encoder of 350 MB is so ready in a tenth of the time, and what is not touched is not in memory. Training plane: needs onnx.
"""

from __future__ import annotations

from pathlib import Path

from fashionrec.extras import need

#: Graphs smaller than this are left whole, and in larger ones tensors smaller than that.
LEAST_GRAPH, _LEAST_TENSOR = 4 << 20, 1 << 10
_PAGE = 4096  # where a mapped tensor begins


def keep_weights_beside(graph: Path, least: int = LEAST_GRAPH) -> None:
    """Rewrite an ONNX file so that its weights lie in a file beside it; of fewer bytes than ``least`` it stays as it is."""
    if graph.stat().st_size < least:
        return
    need("onnx", what="writing a model's graph")
    import onnx
    from onnx.external_data_helper import set_external_data

    model = onnx.load(str(graph))
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
    onnx.save(model, str(graph))


def graph_files(graph: Path) -> dict[str, Path]:
    """An ONNX file, and its weights where they lie beside it, as files of a bundle by name."""
    return {file.name: file for file in (graph, _beside(graph)) if file.is_file()}


def _beside(graph: Path) -> Path:
    return graph.with_name(f"{graph.name}.data")
