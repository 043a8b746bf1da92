"""Import of heavy packages by name at call time, reporting missing ones with their extra."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from fashionrec.errors import MissingExtra

#: The extra that contains a package.
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
#: Packages of the training plane for detectors and encoders.
DETECTOR_PACKAGES = ("torch", "ultralytics", "onnx")
EMBEDDER_PACKAGES = ("torch", "transformers", "onnx")


def need(*packages: str, what: str) -> None:
    """Raise :class:`MissingExtra` unless all packages are installed (they are not imported)."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        extra = EXTRA_OF.get(missing[0], "train")
        raise MissingExtra(f"{what} needs {', '.join(missing)}", hint=install_hint(extra))


def install_hint(extra: str = "", *, upgrade: bool = False) -> str:
    """Return the command that installs fashionrec with an extra.

    It installs from a checkout: fashionrec is on no package registry.
    """
    target = f"'.[{extra}]'" if extra else "."
    return f"pip install {'-U ' if upgrade else ''}{target} in a checkout of fashionrec"


def load(module: str, *, what: str, packages: tuple[str, ...] = ()) -> ModuleType:
    """Import a module of the training plane.

    Raises :class:`MissingExtra` if a package it needs is not installed.
    """
    need(*packages, what=what)
    return importlib.import_module(module)


@contextmanager
def patched(owner: Any, **attributes: Any) -> Iterator[None]:
    """Patch attributes of a package's module temporarily, for packages without an API for it."""
    before = {name: getattr(owner, name) for name in attributes}
    vars(owner).update(attributes)
    try:
        yield
    finally:
        vars(owner).update(before)
