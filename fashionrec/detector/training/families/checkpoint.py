"""Checkpoints of the plain training loop: ``.safetensors`` with metadata, and nothing pickled.

``best`` and ``last`` hold the network's weights, with a metadata entry ``fashionrec``. ``state``
holds what resuming a killed training needs: weights, optimizer moments and epoch, in one file that
is written atomically.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fashionrec.common.documents import parse_json
from fashionrec.common.files import temporary_beside
from fashionrec.common.system import put
from fashionrec.common.text import plural
from fashionrec.config import TrainConfig
from fashionrec.detector.training.families import metadata
from fashionrec.detector.training.whole import check_tensors
from fashionrec.errors import ModelError

#: Largest input, and number of classes, that a checkpoint may request memory for.
MAX_SIDE, MAX_CLASSES = 8192, 65536
_WEIGHTS, _MOMENTS = "model:", "optimizer:"


@dataclass(frozen=True)
class About:
    """Metadata of a checkpoint. ``notes`` is the family's own (which part was pretrained)."""

    family: str
    model: str
    names: dict[int, str]
    imgsz: int
    pixels: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def to_text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of(cls, weights: Path) -> About:
        """Read it from the file's header. Raises :class:`ModelError`."""
        found = metadata(weights)
        try:
            names = {int(number): str(name) for number, name in found["names"].items()}
            about = cls(**{**found, "names": names, "imgsz": int(found["imgsz"])})
            if not (isinstance(about.model, str) and isinstance(about.pixels, dict) and isinstance(about.notes, dict)):
                raise TypeError("model, pixels or notes")
            if not 1 <= about.imgsz <= MAX_SIDE or not 1 <= len(names) <= MAX_CLASSES:
                raise ValueError(f"a side of {about.imgsz} pixels, {plural(len(names), 'class', 'classes')}")
            return about
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{weights} has invalid metadata ({error!r})", hint="train it again") from None


def model_of(config: TrainConfig) -> str:
    """Return the model that a training names, directly or by a checkpoint of fashionrec. Raises
    :class:`ModelError`.
    """
    path = Path(config.model)
    return About.of(path).model if path.suffix == ".safetensors" else config.model


def save_weights(path: Path, model: torch.nn.Module, about: About) -> None:
    """Write a network's weights atomically."""
    _save(path, {name: value.detach() for name, value in model.state_dict().items()}, {"fashionrec": about.to_text()})


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Load weights of :func:`save_weights` into a network of the same shape.

    Raises :class:`ModelError`, which names tensors that are missing, unexpected, of another shape
    or not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        check_tensors(path, {name: tuple(value.shape) for name, value in model.state_dict().items()}, tensors)
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be loaded: {str(error).splitlines()[0][:160]}") from None


def save_state(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, about: About, record: dict[str, Any]
) -> None:
    """Write weights, moments and ``record`` (numbers and texts)."""
    tensors = {f"{_WEIGHTS}{name}": value.detach() for name, value in model.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            if value is not None:
                tensors[f"{_MOMENTS}{number}:{name}"] = torch.as_tensor(value)
    _save(path, tensors, {"fashionrec": about.to_text(), "training": json.dumps(record)})


def load_state(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load what :func:`save_state` wrote; return its record. Raises :class:`ModelError`."""
    state = optimizer.state_dict()
    moments: dict[int, dict[str, torch.Tensor]] = {}
    weights: dict[str, torch.Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if name.startswith(_WEIGHTS):
                    weights[name.removeprefix(_WEIGHTS)] = file.get_tensor(name)
                else:
                    number, moment = name.removeprefix(_MOMENTS).split(":")
                    moments.setdefault(int(number), {})[moment] = file.get_tensor(name)
            record = dict(parse_json(file.metadata()["training"]))
        check_tensors(path, {name: tuple(value.shape) for name, value in model.state_dict().items()}, weights)
        model.load_state_dict(weights)
        optimizer.load_state_dict({**state, "state": moments})
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} cannot be resumed from: {str(error).splitlines()[0][:160]}") from None
    return record


def _save(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    temporary = temporary_beside(path)
    try:
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary, metadata=about)
        put(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
