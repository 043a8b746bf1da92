"""Whether a checkpoint is whole: the file, and each tensor that the model needs. No torch at import."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fashionrec.errors import ModelError

_SHOWN = 3  # names that a message lists
#: What a file is after a crash of the machine, rather than by somebody's mistake.
TORN = ("it is empty", "it is filled with zeros")
_POINTER = b"version https://git-lfs.github.com/spec/"


def what_it_is(path: Path) -> str:
    """What a file is that is found where weights should be: a pointer, a page, nothing. Empty for anything else."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if not head:
        return TORN[0]
    if head.startswith(_POINTER):
        return "it is a Git LFS pointer, not the weights that it stands for; fetch them with `git lfs pull`"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, as servers send for an error"
    if not head.strip(b"\0"):
        return TORN[1]
    return ""


def check_file(path: Path) -> None:
    """Raise :class:`ModelError` for a checkpoint that is missing, or plainly something else."""
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}")
    if reason := what_it_is(path):
        raise ModelError(f"{path} is not a checkpoint: {reason}")


def check_tensors(
    path: Path,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Any],
    harmless: Callable[[str], bool] = lambda name: False,
) -> None:
    """Raise :class:`ModelError` unless ``found`` (torch tensors) are those of ``expected`` (shapes), and all finite.

    ``harmless`` tells the names that may be missing or too many.
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
            f"{path} is not whole: {'; '.join(filter(None, faults))}",
            hint="get the file again from where it was made, or use another checkpoint of that run",
        )


def _listed(names: Iterable[str], what: str) -> str:
    names = list(names)
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {what}: {', '.join(names[:_SHOWN])}{more}"


def _shape(sides: Iterable[int]) -> str:
    return "x".join(map(str, sides)) or "scalar"
