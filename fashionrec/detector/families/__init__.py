"""The libraries that detectors come from, one small module each, behind one interface. Training plane.

A family's module has two functions::

    train(run, config, data, progress) -> None       trains into run.path; fills run.weights, run.metrics, run.device
    to_graph(weights, work, imgsz=None) -> Graph     a checkpoint as ONNX in the folder `work`

Checkpoints of ultralytics are its own ``.pt`` (pickles). Those of every other family are ``.safetensors`` whose metadata says
what they are, so that nothing is run by loading them.
"""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

#: What a model's name begins with, and the module of its family; every other name is ultralytics'.
PREFIXES = {
    "efficientdet": "effdet",
    "tf_efficientdet": "effdet",
    "fasterrcnn": "torchvision",
}
_METADATA_LIMIT = 1 << 20


@dataclass(frozen=True)
class Graph:
    """A checkpoint as ONNX: the file, what its bundle says (``spec``), what it was made of (``source``), and the checkpoint
    itself, which answers one RGB photo with its raw output as the graph does: ``reference(photo)`` float32 [...]."""

    path: Path
    spec: dict[str, Any]
    source: dict[str, Any]
    reference: Callable[[Image.Image], np.ndarray]


def family_of_model(model: str) -> Any:
    """The family's module for a model's name or file (``yolov8l.pt``, ``efficientdet_d3``)."""
    if Path(model).suffix == ".safetensors":
        return family_of_weights(Path(model))
    name = Path(model).name.lower()
    return _module(next((family for prefix, family in PREFIXES.items() if name.startswith(prefix)), "ultra"))


def family_of_weights(weights: Path) -> Any:
    """The family's module for a checkpoint. Raises :class:`ModelError` for a file that is none."""
    if weights.suffix == ".safetensors":
        return _module(str(metadata(weights).get("family")))
    if weights.suffix == ".pt":
        return _module("ultra")
    raise ModelError(
        f"{weights} is no checkpoint of a detector", hint="a .pt of ultralytics, or a .safetensors of ours"
    )


def metadata(weights: Path) -> dict[str, Any]:
    """What a ``.safetensors`` checkpoint of ours says of itself: family, model, names, imgsz, pixels.

    Read from the file's header: nothing is loaded, nothing run. Raises :class:`ModelError`.
    """
    try:
        with weights.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _METADATA_LIMIT * 16:
                raise ValueError("its header is too long")
            header = json.loads(file.read(length))
        found = json.loads(header["__metadata__"]["fashionrec"])
        return dict(found)
    except FileNotFoundError:
        raise ModelError(f"no checkpoint at {weights}") from None
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ModelError(f"{weights} is not a checkpoint of a detector of ours: {error}") from None


def _module(family: str) -> Any:
    if family not in ("ultra", *PREFIXES.values()):
        raise ModelError(f"detectors of the family {family!r} are not known to this version")
    return importlib.import_module(f"fashionrec.detector.families.{family}")
