"""Replace ultralytics' unsafe handling of untrusted files. Training plane.

Installed once per process by :func:`ultra.load_ultralytics`, by patching, since ultralytics has no
API for it:

- checkpoints are read by :mod:`fashionrec.detector.training.pickles`;
- ``labels.cache`` in a dataset is neither read (it is a pickle) nor written: scanned labels are
  kept in memory;
- ``x.npy`` next to a photo is neither used nor written or removed there: ``cache=disk`` keeps them
  in the run;
- a truncated JPEG is not rewritten in the dataset.
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

from fashionrec.common.extras import install_hint
from fashionrec.errors import MissingExtra, ModelError

#: Functions of ultralytics that are replaced, and their replacements in this module.
_EXCHANGED = {
    "ultralytics.nn.tasks": {"torch_safe_load": "_load_checkpoint", "torch_load": "_load", "SAFE_LOAD": "_SAFE"},
    "ultralytics.utils.torch_utils": {"torch_load": "_load"},
    "ultralytics.data.dataset": {"load_dataset_cache_file": "_scanned", "save_dataset_cache_file": "_keep_scanned"},
    "ultralytics.data.utils": {"_replace_image": "_read_whole"},
}
_SAFE = True
#: Labels scanned by this process, by the path where ultralytics would have written them.
_labels: dict[str, dict[str, Any]] = {}
#: Folders in which ``cache=disk`` keeps pixels; only set while a run is trained.
_pixels: list[Path] = []


def install() -> None:
    """Replace the functions; can be called repeatedly. Raises :class:`MissingExtra` if ultralytics
    lacks one of them.
    """
    import ultralytics
    from ultralytics.data.base import BaseDataset

    if isinstance(getattr(BaseDataset, "npy_files", None), property):
        return
    modules = {name: importlib.import_module(name) for name in _EXCHANGED}
    for module, names in _EXCHANGED.items():
        for name in names:
            if not hasattr(modules[module], name):
                raise MissingExtra(
                    f"ultralytics {ultralytics.__version__} cannot be prevented from executing code in checkpoints and datasets",
                    hint=install_hint("train", upgrade=True),
                )
    for module, names in _EXCHANGED.items():
        for name, ours in names.items():
            setattr(modules[module], name, globals()[ours])
    setattr(BaseDataset, "npy_files", property(lambda self: self._npy_files, _set_pixel_files))  # noqa: B010


@contextlib.contextmanager
def pixels_in(folder: Path) -> Iterator[None]:
    """Make ``cache=disk`` keep its pixels in ``folder`` for datasets created meanwhile."""
    _pixels.append(folder)
    try:
        yield
    finally:
        _pixels.pop()


def _load(path: Any, map_location: Any = "cpu", **_: Any) -> Any:
    from fashionrec.detector.training.pickles import load_pickle

    return load_pickle(Path(path), map_location)


def _load_checkpoint(weight: Any, safe_only: Any = None) -> tuple[dict[str, Any], str]:  # noqa: ARG001
    """Load a checkpoint like ultralytics' function of this name; published files are downloaded."""
    from ultralytics.utils.downloads import attempt_download_asset

    file = str(attempt_download_asset(weight))
    checkpoint = _load(file)
    if not isinstance(checkpoint, dict):
        raise ModelError(f"{file} is not a checkpoint of ultralytics: it holds a {type(checkpoint).__name__}")
    if not hasattr(checkpoint.get("ema") or checkpoint.get("model"), "state_dict"):
        raise ModelError(
            f"{file} is not a checkpoint of ultralytics: it has no model, only tensors or settings",
            hint="tensors without their architecture are unusable; save the model with ultralytics' own save()",
        )
    if checkpoint.get("modelopt"):
        raise ModelError(f"{file} was trained for quantization by modelopt, which is not supported")
    return checkpoint, file


def _scanned(path: Path) -> dict[str, Any]:
    return copy.deepcopy(_labels[str(path)])  # on KeyError ultralytics scans the labels


def _keep_scanned(_prefix: str, path: Path, labels: dict[str, Any], version: str) -> None:
    labels["version"] = version
    _labels[str(path)] = copy.deepcopy(labels)


def _set_pixel_files(dataset: Any, files: Sequence[Path]) -> None:
    folder = _pixels[-1] if _pixels else Path(os.devnull)  # under which nothing can exist
    dataset._npy_files = [folder / f"{hashlib.sha256(os.fsencode(file)).hexdigest()}.npy" for file in files]


def _read_whole(_path: Any, write: Any) -> None:
    """Decode a truncated JPEG, which fails if more than the end is missing, without
    rewriting it.
    """
    write(os.devnull)
