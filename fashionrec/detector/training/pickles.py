"""Read checkpoints of ultralytics (``.pt``) without executing anything in them. Training plane.

A ``.pt`` is a pickle: a list of instructions that may call any function. It is read with
``torch.load(weights_only=True)``, whose interpreter only calls what is allowed, and the allow-list
is ours: the layers of torch and ultralytics, and a few types of plain data. A layer is created as
``copy`` does, by filling a blank instance: no constructor is called, so that nothing is built,
opened or downloaded by the checkpoint's arguments. (ultralytics' own ``ULTRALYTICS_SAFE_LOAD`` lets
a checkpoint call constructors.)
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import pathlib
import pickletools
import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fashionrec.common.files import sha256_file
from fashionrec.errors import ModelError

#: Modules whose layers a checkpoint may contain, and their submodules.
_LAYERS = ("torch.nn.modules", "ultralytics.nn.modules")
#: Modules whose classes it may contain: models, and data of a training.
_MODELS = ("ultralytics.nn.tasks", "ultralytics.nn.distill_model", "ultralytics.utils.loss", "ultralytics.utils.tal")
#: Old names, and their present ones.
_RENAMED = {
    "ultralytics.nn.modules.block.Silence": "torch.nn.modules.linear.Identity",
    "ultralytics.nn.tasks.YOLOv10DetectionModel": "ultralytics.nn.tasks.DetectionModel",
    "ultralytics.utils.loss.v10DetectLoss": "ultralytics.utils.loss.E2EDetectLoss",
}
_SHOWN = 5  # names listed in a message
#: Globals that torch itself allows and that checkpoints of models contain.
_HARMLESS = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.\w+Storage|torch\.nn\.parameter\.Parameter|torch\.(Size|device|Tensor)"
    r"|collections\.OrderedDict|(__builtin__|builtins)\.set|_codecs\.encode"
)
_LOOKED_AT = 16 << 20  # bytes of a refused pickle that are searched for globals

#: sha256 of files that the user told to execute (:func:`trusting`).
_trusted: set[str] = set()


@contextlib.contextmanager
def trusting(path: Path) -> Iterator[None]:
    """Load one file, and copies of it, as a full pickle for a while, because the user named and
    trusted it.
    """
    digest = sha256_file(path)
    _trusted.add(digest)
    try:
        yield
    finally:
        _trusted.discard(digest)


def is_trusted(path: Path) -> bool:
    """Return whether the user trusted a file."""
    return bool(_trusted) and path.is_file() and sha256_file(path) in _trusted


def load_pickle(path: Path, map_location: Any = "cpu") -> Any:
    """Load a ``.pt``. Raises :class:`ModelError` with the globals of a file that has more than
    layers and data.
    """
    if is_trusted(path):
        return torch.load(path, map_location=map_location, weights_only=False)
    _check_archive(path)
    try:
        needed = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # also below: an invalid pickle may fail in any way
        raise _unreadable(path, error, _globals(path)) from None
    known = {name: found for name in needed if (found := _allowed(name)) is not None}
    if foreign := sorted(set(needed) - set(known)):
        raise ForeignCode(path, foreign)
    # A blank stands for a layer by its name; the layer itself must be allowed too, by a name that
    # no pickle can have.
    entries: list[Any] = [(found, name) for name, found in known.items()]
    entries += [(found.layer, f"{id(found)}\n{name}") for name, found in known.items() if isinstance(found, _Blank)]
    if "numpy.dtype" in needed:
        entries.append(type(np.dtype(np.float64)))
    try:
        with torch.serialization.safe_globals(entries):
            return torch.load(path, map_location=map_location, weights_only=True)
    except _Called as error:
        raise ForeignCode(path, [str(error)]) from None
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from None


class ForeignCode(ModelError):
    """A checkpoint with globals that are not allowed: ``names``."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        super().__init__(
            f"{path} contains code, not only a model: loading it would call {', '.join(names[:_SHOWN])}{more}",
            hint="if you trust its author, train, finetune and export execute it with --trust-pickle",
        )


class _Blank:
    """A layer's class while a checkpoint is read: it can be filled, but not called."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.__dict__["__new__"] = lambda _: object.__new__(layer)  # called by the interpreter for a new instance

    def __call__(self, *_: Any) -> None:
        raise _Called(f"{self.layer.__module__}.{self.layer.__qualname__}")


class _Called(Exception):
    """A checkpoint calls a constructor, or needs more of a layer than its forward."""


def _allowed(name: str) -> Any:
    """Return what a global of a checkpoint stands for; None if it is not allowed."""
    data = _data()
    if name in data:
        return data[name]
    module, _, attribute = _RENAMED.get(name, name).rpartition(".")
    below = any(module == known or module.startswith(f"{known}.") for known in _LAYERS)
    if not below and module not in _MODELS:
        return None
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    if not isinstance(found, type) or not (issubclass(found, nn.Module) or found.__module__ == module):
        return None
    return _Blank(found)


def _data() -> dict[str, Any]:
    """Return the plain data types in checkpoints of ultralytics."""
    from ultralytics.utils import IterableSimpleNamespace

    scalar: Any = np.float64(0).__reduce__()[0]
    path = type(pathlib.Path())
    return {
        "numpy.dtype": np.dtype,
        "numpy.core.multiarray.scalar": scalar,
        "numpy._core.multiarray.scalar": scalar,
        "ultralytics.utils.IterableSimpleNamespace": IterableSimpleNamespace,
        "ultralytics.yolo.utils.IterableSimpleNamespace": IterableSimpleNamespace,
        "builtins.getattr": _method,
        **{f"{module}.{kind}Path": path for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")},
    }


def _method(owner: Any, name: str) -> Any:
    """Restrict ``getattr`` to its use in checkpoints: the forward method of a layer, and members of
    an enumeration.
    """
    if isinstance(owner, _Blank) and name in ("forward", "forward_fuse") and issubclass(owner.layer, nn.Module):
        return getattr(owner.layer, name)
    if isinstance(owner, nn.Module) and name in ("forward", "forward_fuse"):
        return getattr(type(owner), name).__get__(owner)
    if isinstance(owner, type) and issubclass(owner, enum.Enum) and not name.startswith("_"):
        return getattr(owner, name)
    raise _Called(f"getattr of {str(name)[:80]!r}")


def _check_archive(path: Path) -> None:
    """Raise :class:`ModelError` for files that are not an uncompressed archive of torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        size = path.stat().st_size
    except Exception as error:  # an invalid archive may fail in any way
        raise _unreadable(path, error, _globals(path)) from None
    if any(member.compress_type != zipfile.ZIP_STORED for member in members) or (
        sum(member.file_size for member in members) > size
    ):
        raise ModelError(f"{path} is not a checkpoint: it is compressed, which torch never does")


def _unreadable(path: Path, error: Exception, named: Collection[str] = ()) -> ModelError:
    """Explain why a file cannot be read, by its content rather than the library's message."""
    from fashionrec.detector.training.whole import what_it_is

    if other := what_it_is(path):
        return ModelError(f"{path} is not a checkpoint: {other}")
    foreign = sorted(name for name in named if _allowed(name) is None and not _HARMLESS.fullmatch(name))
    if foreign:
        return ForeignCode(path, foreign)
    reason = " ".join(str(error).split()) or type(error).__name__
    reason = (reason.partition("WeightsUnpickler error: ")[2] or reason)[:160]
    if not zipfile.is_zipfile(path):
        reason = "it is truncated, or was not saved by torch"
    elif "locating file" in reason:
        reason = f"a part is missing, {reason.partition('locating file ')[2].partition(':')[0]}"
    return ModelError(f"{path} is not a checkpoint: {reason}")


def _globals(path: Path) -> set[str]:
    """Return the globals that a pickle names as far as it can be read, in an archive of torch or
    alone. Nothing is loaded.
    """
    found: set[str] = set()
    texts = ["", ""]
    with contextlib.suppress(Exception):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                data = archive.open(name).read(_LOOKED_AT)
        else:
            with path.open("rb") as file:
                data = file.read(_LOOKED_AT)
        for operation, argument, _ in pickletools.genops(data):
            if operation.name in ("GLOBAL", "INST"):
                found.add(str(argument).replace(" ", "."))
            elif operation.name == "STACK_GLOBAL":
                found.add(".".join(texts))
            elif isinstance(argument, str):
                texts = [texts[1], argument]
    return found
