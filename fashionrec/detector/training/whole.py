"""Check that a checkpoint is complete: the file, and each tensor that the model needs. Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fashionrec.errors import ModelError

_SHOWN = 3  # names listed in a message
#: States of a file after a crash of the machine, rather than by a mistake.
TORN = ("the file is empty", "the file is filled with zeros")
_POINTER = b"version https://git-lfs.github.com/spec/"


def what_it_is(path: Path) -> str:
    """Describe a file that is not weights: a Git LFS pointer, a web page, an empty file. Empty for
    anything else.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    if not head:
        return TORN[0]
    if head.startswith(_POINTER):
        return "it is a Git LFS pointer; download the weights with `git lfs pull`"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, such as a server's error page"
    if not head.strip(b"\0"):
        return TORN[1]
    return ""


def check_file(path: Path) -> None:
    """Raise :class:`ModelError` for a checkpoint that is missing, or obviously something else."""
    if not path.is_file():
        raise ModelError(f"no such checkpoint: {path}")
    if reason := what_it_is(path):
        raise ModelError(f"{path} is not a checkpoint: {reason}")


def check_tensors(
    path: Path,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Any],
    harmless: Callable[[str], bool] = lambda name: False,
) -> None:
    """Raise :class:`ModelError` unless ``found`` (torch tensors) match ``expected`` (shapes), all
    finite.

    ``harmless`` selects names that may be missing or extra.
    """
    missing = [name for name in expected if name not in found and not harmless(name)]
    unexpected = [name for name in found if name not in expected and not harmless(name)]
    wrong = [
        f"{name} ({_shape(found[name].shape)} instead of {_shape(expected[name])})"
        for name in expected
        if name in found and tuple(found[name].shape) != tuple(expected[name])
    ]
    faults = [_listed(missing, "missing"), _listed(unexpected, "unknown"), _listed(wrong, "of the wrong shape")]
    if not any(faults):
        bad = [name for name, tensor in found.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        faults = [_listed(bad, "not finite (NaN or infinite)")]
    if any(faults):
        raise ModelError(
            f"{path} is incomplete: {'; '.join(filter(None, faults))}",
            hint="download the file again, or use another checkpoint of that run",
        )


def _listed(names: Iterable[str], what: str) -> str:
    names = list(names)
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {what}: {', '.join(names[:_SHOWN])}{more}"


def _shape(sides: Iterable[int]) -> str:
    return "x".join(map(str, sides)) or "scalar"
