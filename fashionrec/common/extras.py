"""Heavy parts are imported by name at call time; a missing one is reported with the command that brings it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from fashionrec.errors import MissingExtra

#: Which extra brings a package.
EXTRA_OF = {
    "torch": "train",
    "torchvision": "train",
    "ultralytics": "train",
    "transformers": "train",
    "onnx": "train",
    "roboflow": "train",
    "pandas": "train",
    "pyarrow": "train",
    "defusedxml": "train",
    "urllib3": "train",
    "protego": "train",
}
#: What the training plane of detectors and of encoders needs.
DETECTOR_PACKAGES = ("torch", "ultralytics", "onnx")
EMBEDDER_PACKAGES = ("torch", "transformers", "onnx")


def need(*packages: str, what: str) -> None:
    """Raise :class:`MissingExtra` unless all packages are installed (they are not imported)."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        extra = EXTRA_OF.get(missing[0], "train")
        raise MissingExtra(f"{what} needs {', '.join(missing)}", hint=f"pip install 'fashionrec[{extra}]'")


def load(module: str, *, what: str, packages: tuple[str, ...] = ()) -> ModuleType:
    """Import a module of the training plane. Raises :class:`MissingExtra` when a package it needs is not installed."""
    need(*packages, what=what)
    return importlib.import_module(module)


@contextmanager
def swapped(owner: Any, **attributes: Any) -> Iterator[None]:
    """Exchange attributes of a package's module for a while, where it has no other door to them."""
    before = {name: getattr(owner, name) for name in attributes}
    vars(owner).update(attributes)
    try:
        yield
    finally:
        vars(owner).update(before)
