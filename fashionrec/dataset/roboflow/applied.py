"""The preprocessing and augmentation that Roboflow applied to a version, in one normalized form.

Roboflow states it twice: in the version's metadata (``preprocessing`` and ``augmentation``, each
step an object with its options, or true), and in prose in the ``README.roboflow.txt`` of an export.
A step that either of them mentions was applied.

The form consists of JSON values; a missing key means that the step was not applied (``upright`` is
always present)::

    upright    bool: pixels rotated by EXIF, and EXIF removed resize     {"width": 640, "height":
        640, "mode": "stretch" | "letterbox" | "fit" | "fill" | "other"} equalize   {"kind":
        "adaptive" | "histogram" | "stretching" | "other"} augment    {"copies": 3, "steps":
        ["flip", "rotate"]}: total copies of each photo, and what varies other      ["grayscale",
        "tile"]: other steps that changed the pixels
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

README = ("README.roboflow.txt", "README.dataset.txt")

# Roboflow's word -> mode; the first match counts: "Fit (black edges) in" is a letterbox
_MODES = {"stretch": "stretch", "edges": "letterbox", "fill": "fill", "fit": "fit"}
_KINDS = {"adaptive": "adaptive", "histogram": "histogram", "stretch": "stretching"}
#: Steps that select photos or rename classes, and do not change pixels.
_NO_PIXELS = {"filter-null", "filter-tag", "filter-tags", "filtertags", "remap"}

_PRE = re.compile(r"The following pre-processing was applied to each image:\n(?P<steps>(?:\*.*(?:\n|$))*)")
_AUG = re.compile(
    r"The following augmentation was applied to create (?P<copies>\d+) versions? of each source image:\n"
    r"(?P<steps>(?:\*.*(?:\n|$))*)"
)
_BOXES = re.compile(
    r"The following transformations were applied to the bounding boxes of each image:\n(?P<steps>(?:\*.*(?:\n|$))*)"
)
_RESIZE = re.compile(r"resize to (\d+)x(\d+) \((.*)\)", re.IGNORECASE)


def applied(preprocessing: object, augmentation: object, folder: Path | None = None) -> dict[str, Any]:
    """Return the applied steps from a version's metadata and the README of an export ``folder``."""
    readme: dict[str, Any] = from_readme(folder) if folder else {"upright": False}
    metadata = from_metadata(preprocessing, augmentation)
    other = sorted({*readme.get("other", ()), *metadata.get("other", ())})
    both: dict[str, Any] = {**readme, **metadata, "upright": readme["upright"] or metadata["upright"]}
    return {**both, "other": other} if other else both


def from_metadata(preprocessing: object, augmentation: object) -> dict[str, Any]:
    """Return the applied steps from a version's metadata.

    Disabled steps and invalid values are ignored.
    """
    pre_steps, augment_steps = _steps(preprocessing), _steps(augmentation)
    result: dict[str, Any] = {"upright": "auto-orient" in pre_steps}
    if "resize" in pre_steps:
        options = pre_steps["resize"]
        result["resize"] = _resize(options.get("width"), options.get("height"), str(options.get("format", "")))
    if "contrast" in pre_steps:
        result["equalize"] = {"kind": _first_match(_KINDS, str(pre_steps["contrast"].get("type", "")))}
    copies = _to_int(augment_steps.pop("image", {}).get("versions")) or 1
    if augment_steps:
        result["augment"] = {"copies": copies, "steps": sorted(augment_steps)}
    other = sorted(pre_steps.keys() - {"auto-orient", "resize", "contrast"} - _NO_PIXELS)
    return {**result, "other": other} if other else result


def from_readme(folder: Path) -> dict[str, Any]:
    """Return the applied steps from the README of an export, if it has one."""
    texts = [(folder / name).read_text("utf-8", "replace") for name in README if (folder / name).is_file()]
    text = "\n".join(texts).replace("\r\n", "\n")
    result: dict[str, Any] = {"upright": False}
    other = []
    for line in _lines(_PRE.search(text)):
        lower = line.lower()
        if size := _RESIZE.match(line):
            result["resize"] = _resize(*size.groups())
        elif lower.startswith("auto-orientation"):
            result["upright"] = True
        elif lower.startswith("auto-contrast"):
            result["equalize"] = {"kind": _first_match(_KINDS, lower)}
        else:
            other.append(line)
    augmented = _AUG.search(text)
    steps = _lines(augmented) + _lines(_BOXES.search(text))
    if steps:
        result["augment"] = {"copies": int(augmented["copies"]) if augmented else 1, "steps": steps}
    return {**result, "other": other} if other else result


def _steps(value: object) -> dict[str, dict[str, Any]]:
    """Return the enabled steps with their options."""
    if not isinstance(value, Mapping):
        return {}
    steps = {}
    for name, options in value.items():
        if isinstance(options, Mapping):
            if options.get("enabled", True) is not False:
                steps[str(name)] = {str(key): item for key, item in options.items() if key != "enabled"}
        elif options is True:
            steps[str(name)] = {}
    return steps


def _resize(width: object, height: object, words: str) -> dict[str, Any]:
    return {"width": _to_int(width), "height": _to_int(height), "mode": _first_match(_MODES, words)}


def _first_match(table: Mapping[str, str], words: str) -> str:
    return next((name for word, name in table.items() if word in words.lower()), "other")


def _to_int(value: object) -> int | None:
    """Return a whole number, possibly given as text; None for anything else."""
    return int(value) if isinstance(value, (int, float, str)) and str(value).isdigit() else None


def _lines(match: re.Match[str] | None) -> list[str]:
    return [line.lstrip("* ").strip() for line in match["steps"].splitlines() if line.strip("* ")] if match else []
