"""What Roboflow did to a version's pixels before it gave them out, in one form whichever way it was said.

It says so twice: in the version's metadata (``preprocessing`` and ``augmentation``, each step an object with its options, or
true), and in words in the ``README.roboflow.txt`` of an export. A step that either of them names was applied.

The form, of JSON values only; a key that is absent was not done (``upright`` is always there)::

    upright    bool: pixels turned by EXIF, and EXIF removed
    resize     {"width": 640, "height": 640, "mode": "stretch" | "letterbox" | "fit" | "fill" | "other"}
    equalize   {"kind": "adaptive" | "histogram" | "stretching" | "other"}
    augment    {"copies": 3, "steps": ["flip", "rotate"]}: copies of each photo in all, and what varies in them
    other      ["grayscale", "tile"]: whatever else changed the pixels
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

README = ("README.roboflow.txt", "README.dataset.txt")

# a word of Roboflow's -> the mode; the first that occurs counts: "Fit (black edges) in" is a letterbox, "Fit within" is not
_MODES = {"stretch": "stretch", "edges": "letterbox", "fill": "fill", "fit": "fit"}
_KINDS = {"adaptive": "adaptive", "histogram": "histogram", "stretch": "stretching"}
#: Steps that choose photos or rename classes.
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
    """What was done, from a version's metadata and, where ``folder`` is an export, from its README."""
    told: dict[str, Any] = from_readme(folder) if folder else {"upright": False}
    meant = from_metadata(preprocessing, augmentation)
    other = sorted({*told.get("other", ()), *meant.get("other", ())})
    both: dict[str, Any] = {**told, **meant, "upright": told["upright"] or meant["upright"]}
    return {**both, "other": other} if other else both


def from_metadata(preprocessing: object, augmentation: object) -> dict[str, Any]:
    """What the metadata of a version says was done. Steps that are switched off, and odd values, count for nothing."""
    before, after = _steps(preprocessing), _steps(augmentation)
    found: dict[str, Any] = {"upright": "auto-orient" in before}
    if "resize" in before:
        options = before["resize"]
        found["resize"] = _resize(options.get("width"), options.get("height"), str(options.get("format", "")))
    if "contrast" in before:
        found["equalize"] = {"kind": _first(_KINDS, str(before["contrast"].get("type", "")))}
    copies = _whole(after.pop("image", {}).get("versions")) or 1
    if after:
        found["augment"] = {"copies": copies, "steps": sorted(after)}
    other = sorted(before.keys() - {"auto-orient", "resize", "contrast"} - _NO_PIXELS)
    return {**found, "other": other} if other else found


def from_readme(folder: Path) -> dict[str, Any]:
    """What the README of an export says was done; nothing where there is none."""
    texts = [(folder / name).read_text("utf-8", "replace") for name in README if (folder / name).is_file()]
    text = "\n".join(texts).replace("\r\n", "\n")
    found: dict[str, Any] = {"upright": False}
    other = []
    for line in _lines(_PRE.search(text)):
        low = line.lower()
        if size := _RESIZE.match(line):
            found["resize"] = _resize(*size.groups())
        elif low.startswith("auto-orientation"):
            found["upright"] = True
        elif low.startswith("auto-contrast"):
            found["equalize"] = {"kind": _first(_KINDS, low)}
        else:
            other.append(line)
    augmented = _AUG.search(text)
    steps = _lines(augmented) + _lines(_BOXES.search(text))
    if steps:
        found["augment"] = {"copies": int(augmented["copies"]) if augmented else 1, "steps": steps}
    return {**found, "other": other} if other else found


def _steps(value: object) -> dict[str, dict[str, Any]]:
    """The steps that are switched on, with their options."""
    if not isinstance(value, Mapping):
        return {}
    found = {}
    for name, options in value.items():
        if isinstance(options, Mapping):
            if options.get("enabled", True) is not False:
                found[str(name)] = {str(key): item for key, item in options.items() if key != "enabled"}
        elif options is True:
            found[str(name)] = {}
    return found


def _resize(width: object, height: object, words: str) -> dict[str, Any]:
    return {"width": _whole(width), "height": _whole(height), "mode": _first(_MODES, words)}


def _first(table: Mapping[str, str], words: str) -> str:
    return next((name for word, name in table.items() if word in words.lower()), "other")


def _whole(value: object) -> int | None:
    """A whole number that may be written as text; None for anything else."""
    return int(value) if isinstance(value, (int, float, str)) and str(value).isdigit() else None


def _lines(match: re.Match[str] | None) -> list[str]:
    return [line.lstrip("* ").strip() for line in match["steps"].splitlines() if line.strip("* ")] if match else []
