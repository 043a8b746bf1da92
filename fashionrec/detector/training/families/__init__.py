"""Detector libraries, one small module each, behind one interface. Training plane.

A family's module exports a checkpoint::

    to_graph(weights, work, imgsz=None) -> Graph     a checkpoint as ONNX in the folder `work`

ultralytics' detectors are trained by :mod:`train`; the others share :mod:`plain`, which describes
what else they provide. Checkpoints of ultralytics are ``.pt`` files (pickles). Those of every other
family are ``.safetensors`` with metadata, which cannot execute code.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.common.documents import parse_json
from fashionrec.config import is_bare
from fashionrec.detector.training.whole import check_file
from fashionrec.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.detector.detect import Detector

#: Called with the epoch, the number of epochs, and the metrics after it.
Progress = Callable[[int, int, dict[str, Any]], None]
Log = Callable[[str], None]
#: Measures a detector on a split (its name) of a data.yaml: ``map50``, ``map50_95``, ``precision``,
#: ``recall``, and the same by class in ``per_class``, all from 0 to 1.
Evaluate = Callable[["Detector", Path, str], Mapping[str, Any]]
#: Prefixes of model names, and the module of their family; every other name is ultralytics'.
PREFIXES = {
    "efficientdet": "effdet",
    "tf_efficientdet": "effdet",
    "fasterrcnn": "torchvision",
}
#: File next to a run's weights during the plain training loop, for resuming after a kill.
STATE = "state.safetensors"
_METADATA_LIMIT = 1 << 20


@dataclass(frozen=True)
class Graph:
    """A checkpoint as ONNX: the file, the bundle's ``spec``, its ``source``, and the checkpoint
    itself.

    ``reference(photo)`` returns the checkpoint's raw output for one RGB photo in pixels of the
    input, as :meth:`Detector.raw` does: float32 [...]. ``pixels(photo)`` is the network's input by
    the checkpoint's own library: float32 [3, side, side]; a network that has learned little does
    not reveal a wrong input.
    """

    path: Path
    spec: dict[str, Any]
    source: dict[str, Any]
    reference: Callable[[Image.Image], np.ndarray]
    pixels: Callable[[Image.Image], np.ndarray] | None = None


def family_of_model(model: str) -> Any:
    """Return the family's module for a model name or file (``yolov8l.pt``, ``efficientdet_d3``)."""
    if Path(model).suffix == ".safetensors":
        return family_of_weights(Path(model))
    name = Path(model).name.lower()
    return family_module(next((family for prefix, family in PREFIXES.items() if name.startswith(prefix)), "ultra"))


def other_family(model: str) -> Any:
    """Return the module of the family that trains ``model`` by the plain loop; None if ultralytics
    trains it.
    """
    family = family_of_model(model)
    return None if family.__name__.endswith(".ultra") else family


def family_of_weights(weights: Path) -> Any:
    """Return the family's module for a checkpoint. Raises :class:`ModelError` for other files."""
    if weights.suffix == ".safetensors":
        return family_module(str(metadata(weights).get("family")))
    if weights.suffix == ".pt":
        return family_module("ultra")
    raise ModelError(
        f"{weights} is not a checkpoint of a detector",
        hint="expected a .pt of ultralytics, or a .safetensors of fashionrec",
    )


def is_name(model: str) -> bool:
    """Return whether a bare name (``efficientdet_d3``, ``yolov8n.yaml``) is a model of a family,
    whatever the working folder contains.
    """
    if not is_bare(model) or Path(model).suffix in (".pt", ".safetensors"):
        return False
    family = other_family(model)
    if family is None:
        from fashionrec.detector.training.names import is_known

        return is_known(model)
    return bool(family.is_known(model))


def classes_of(weights: Path) -> list[str]:
    """Return the classes of a checkpoint. Raises :class:`ModelError`."""
    if weights.suffix == ".safetensors":
        return [str(name) for name in dict(metadata(weights).get("names", {})).values()]
    from fashionrec.detector.training.ultra import load_yolo

    return [str(name) for name in load_yolo(str(weights)).names.values()]


def options_of(model: str) -> frozenset[str] | None:
    """Return the training options that a model's family supports, by ultralytics' names; None for
    ultralytics itself: all.
    """
    if other_family(model) is None:
        return None
    from fashionrec.detector.training.families.options import OPTIONS

    return frozenset(OPTIONS)


def metadata(weights: Path) -> dict[str, Any]:
    """Return the metadata of a ``.safetensors`` checkpoint of fashionrec: family, model, names,
    imgsz, pixels.

    It is read from the file's header: nothing is loaded or executed. Raises :class:`ModelError`.
    """
    check_file(weights)
    try:
        with weights.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _METADATA_LIMIT * 16:
                raise ValueError("its header is too long")
            header = parse_json(file.read(length))
        found = parse_json(header["__metadata__"]["fashionrec"])
        return dict(found)
    except FileNotFoundError:
        raise ModelError(f"no such checkpoint: {weights}") from None
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ModelError(f"{weights} is not a detector checkpoint of fashionrec: {error}") from None


def family_module(family: str) -> Any:
    if family not in ("ultra", *PREFIXES.values()):
        raise ModelError(f"detector family {family!r} is not supported by this version")
    return importlib.import_module(f"fashionrec.detector.training.families.{family}")
