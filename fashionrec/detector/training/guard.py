"""What ultralytics does with files of others, exchanged for what is safe. Training plane.

Installed once for the process by :func:`ultra.load_ultralytics`; ultralytics has no other door to it:

- checkpoints are read by :mod:`fashionrec.detector.training.pickles`, wherever ultralytics reads one;
- ``labels.cache`` in a data set is neither read (it is a pickle) nor written: labels that were scanned are kept in memory;
- ``x.npy`` beside a photo is neither taken for it nor written or removed there: ``cache=disk`` keeps them in the run;
- a JPEG without its end is not rewritten in the data set.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fashionrec.errors import MissingExtra, ModelError

#: Functions of ultralytics that are exchanged, and by what of this module.
_EXCHANGED = {
    "ultralytics.nn.tasks": {"torch_safe_load": "_load_checkpoint", "torch_load": "_load", "SAFE_LOAD": "_SAFE"},
    "ultralytics.utils.torch_utils": {"torch_load": "_load"},
    "ultralytics.data.dataset": {"load_dataset_cache_file": "_scanned", "save_dataset_cache_file": "_keep_scanned"},
    "ultralytics.data.utils": {"_replace_image": "_read_whole"},
}
_SAFE = True
#: Labels that this process has scanned, by the place where ultralytics would have written them.
_labels: dict[str, dict[str, Any]] = {}
#: Where ``cache=disk`` keeps pixels; nowhere but while a run is trained.
_pixels: list[Path] = []


def install() -> None:
    """Exchange the functions. Safe to call often. Raises :class:`MissingExtra` for an ultralytics that lacks one of them."""
    import ultralytics
    from ultralytics.data.base import BaseDataset

    if isinstance(getattr(BaseDataset, "npy_files", None), property):
        return
    modules = {name: importlib.import_module(name) for name in _EXCHANGED}
    for module, names in _EXCHANGED.items():
        for name in names:
            if not hasattr(modules[module], name):
                raise MissingExtra(
                    f"ultralytics {ultralytics.__version__} cannot be kept from running what is in a checkpoint or a data set",
                    hint="pip install -U 'fashionrec[train]'",
                )
    for module, names in _EXCHANGED.items():
        for name, ours in names.items():
            setattr(modules[module], name, globals()[ours])
    setattr(BaseDataset, "npy_files", property(lambda self: self._npy_files, _set_pixel_files))  # noqa: B010


@contextlib.contextmanager
def pixels_in(folder: Path) -> Iterator[None]:
    """Have ``cache=disk`` keep its pixels in ``folder`` for the data sets that are made meanwhile."""
    _pixels.append(folder)
    try:
        yield
    finally:
        _pixels.pop()


def _load(path: Any, map_location: Any = "cpu", **_: Any) -> Any:
    from fashionrec.detector.training.pickles import load_pickle

    return load_pickle(Path(path), map_location)


def _load_checkpoint(weight: Any, safe_only: Any = None) -> tuple[dict[str, Any], str]:  # noqa: ARG001
    """As ultralytics' function of this name: a checkpoint and its file, which is fetched where it is one of the published."""
    from ultralytics.utils.downloads import attempt_download_asset

    file = str(attempt_download_asset(weight))
    checkpoint = _load(file)
    if not isinstance(checkpoint, dict):
        raise ModelError(f"{file} is not a checkpoint of ultralytics: it holds a {type(checkpoint).__name__}")
    if not hasattr(checkpoint.get("ema") or checkpoint.get("model"), "state_dict"):
        raise ModelError(
            f"{file} is not a checkpoint of ultralytics: it has no model, only tensors or settings",
            hint="tensors without their architecture cannot be used; save the model with ultralytics' own save()",
        )
    if checkpoint.get("modelopt"):
        raise ModelError(f"{file} was trained for quantization by modelopt, which is not supported")
    return checkpoint, file


def _scanned(path: Path) -> dict[str, Any]:
    return copy.deepcopy(_labels[str(path)])  # a KeyError has ultralytics scan the labels


def _keep_scanned(_prefix: str, path: Path, labels: dict[str, Any], version: str) -> None:
    labels["version"] = version
    _labels[str(path)] = copy.deepcopy(labels)


def _set_pixel_files(dataset: Any, files: Sequence[Path]) -> None:
    folder = _pixels[-1] if _pixels else Path(os.devnull)  # below which nothing can be
    dataset._npy_files = [folder / f"{hashlib.sha256(os.fsencode(file)).hexdigest()}.npy" for file in files]


def _read_whole(_path: Any, write: Any) -> None:
    """Have a JPEG without its end decoded, which fails where more than the end is missing; write nothing beside it."""
    write(os.devnull)
