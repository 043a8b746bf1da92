"""Check model and dataset files for what a library would execute, read or download."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import IO, Any

from fashionrec.common.documents import MAX_JSON, MAX_YAML, DocumentError, parse_yaml, read_bytes, read_json
from fashionrec.common.folder import Folder
from fashionrec.common.onnx_file import Unreadable, check_graph
from fashionrec.detector.training.architecture import check_architecture
from fashionrec.errors import ModelError
from fashionrec.inspection.report import Report

#: Keys of a Hugging Face configuration that name code in the folder.
_CODE_KEYS = ("auto_map", "custom_pipelines", "custom_objects", "trust_remote_code")
_LAYERS = [[-1, 1, "nn.Identity", []]]  # for a YAML with an activation but no layers


def check_yaml(name: str, file: IO[bytes], report: Report) -> None:
    """Report a data.yaml or a model YAML with something to execute or download."""
    try:
        document = parse_yaml(read_bytes(file, MAX_YAML).decode("utf-8"))
    except (DocumentError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:160]
        refused = report.kind == "dataset" and PurePosixPath(name).name == "data.yaml"
        report.add(name, "yaml", f"unreadable: {reason}", "", refused=refused)
        return
    if not isinstance(document, dict):
        return
    if document.get("download"):
        report.add(name, "download", f"download: {_shown(document['download'])}")
    if "backbone" in document or "activation" in document:
        try:
            check_architecture({"backbone": _LAYERS, "head": _LAYERS, **document}, name)
        except ModelError as error:
            report.add(name, "architecture", str(error), refused=_is_model(report))


def check_json(name: str, file: IO[bytes], report: Report) -> None:
    """Report a configuration with custom code."""
    own = PurePosixPath(name).name
    if not own.endswith("config.json"):
        return
    try:
        document = read_json(file, limit=MAX_JSON)
    except (DocumentError, OSError) as error:
        report.add(name, "json", f"unreadable: {str(error)[:160]}", "", refused=_is_model(report))
        return
    for key in _CODE_KEYS:
        if isinstance(document, dict) and document.get(key):
            report.add(name, "custom-code", f"{key}: {_shown(document[key])}")


def check_onnx(folder: Folder, name: str, report: Report) -> None:
    """Report a graph that reads files elsewhere, or names libraries that ONNX Runtime
    would load.
    """
    own = PurePosixPath(name)
    try:
        check_graph(Folder(folder.root / own.parent, error=ModelError), own.name)
    except ModelError as error:
        report.add(name, "graph", str(error), refused=True)
    except Unreadable as error:
        report.add(name, "graph", f"unreadable: {error}", "", refused=report.kind in ("bundle", "catalogue"))


def _is_model(report: Report) -> bool:
    return report.kind in ("run", "unknown")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
