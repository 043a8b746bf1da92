"""Read a bundle's manifest, and check types and sizes of all values.

A bundle may be untrusted. Sizes decide how much memory a photo takes, names are looked up in files,
and numbers are divisors: values out of range are refused when the bundle is opened, not when
something breaks. Missing keys of a spec are reported by the detector or encoder that needs them,
unknown ones are ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fashionrec.common.documents import read_json
from fashionrec.common.files import canonical_json
from fashionrec.common.folder import Folder
from fashionrec.common.text import plural
from fashionrec.errors import ModelError

FORMAT = "fashionrec-bundle"
#: 2 if an encoder's spec has fields that readers of format 1 would ignore.
FORMAT_VERSIONS = (1, 2)
_SINCE_2 = {
    "image": frozenset({"resize", "pooling"}),
    "text": frozenset({"inputs", "padding", "special_tokens", "pooling"}),
}
MANIFEST = "bundle.json"
KINDS = ("detector", "embedder")
PRECISIONS = ("fp32", "fp16", "int8")
#: Suffix of the roles of optimized graphs, also in their file names.
READY = ".ready"
EXPORT_AGAIN = "export it again, or get another copy"

MAX_SIDE = 4096  # pixels of a network's input
_MAX_EDGE = 1024  # pixels of the short side of an encoder's resized photo; its long side may be much longer
_MAX_ANCHORS = 2_000_000
_MAX_LABELS = 10_000
_MAX_FILES = 1000
_SHA256 = re.compile("[0-9a-f]{64}")

#: Raises ValueError with the problem if a value of the given name is invalid.
Check = Callable[[str, Any], None]


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the validated manifest of the bundle folder ``path``. Raises :class:`ModelError`."""
    if not path.is_dir():
        raise ModelError(f"no such bundle: {path}", hint="create one with `fashionrec export`")
    folder = Folder(path, "bundle", ModelError)
    try:
        with folder.open(MANIFEST) as file:
            manifest = read_json(file)
        canonical_json(manifest)  # numbers that JSON cannot represent
    except FileNotFoundError:
        raise ModelError(
            f"{path} is not a bundle: {MANIFEST} is missing", hint="create one with `fashionrec export`"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path / MANIFEST} is damaged: {error}", hint=EXPORT_AGAIN) from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(
            f"{path / MANIFEST} is not the manifest of a bundle", hint="create one with `fashionrec export`"
        )
    if manifest.get("format_version") not in FORMAT_VERSIONS:
        raise ModelError(
            f"{path} is a bundle of format {shown(manifest.get('format_version'))}; this fashionrec reads"
            f" {FORMAT_VERSIONS[-1]}",
            hint="export it again with this version",
        )
    try:
        check_manifest(manifest)
    except ValueError as error:
        raise ModelError(f"{path / MANIFEST} is damaged: {error}", hint=EXPORT_AGAIN) from None
    return manifest


def format_version(kind: str, spec: Mapping[str, Any]) -> int:
    """Return the oldest format that can represent a spec."""
    newer = kind == "embedder" and (
        "scores" in spec or any(_SINCE_2[part] & {*spec.get(part, ())} for part in _SINCE_2)
    )
    return FORMAT_VERSIONS[newer]


def is_plain_name(name: Any) -> bool:
    """Return whether a name is a file name without folders on every system."""
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
        return False
    return name not in (".", "..") and not {"/", "\\", ":"} & {*name}


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raise ValueError with the problem for an invalid manifest."""
    texts, tables = ("kind", "name", "fingerprint"), ("graphs", "spec", "source", "agreement", "files")
    for key in (*texts, *tables):
        if not isinstance(manifest.get(key), str if key in texts else dict):
            raise ValueError(f"{key} is {shown(manifest.get(key))}")
    if manifest["kind"] not in KINDS:
        raise ValueError(f"kind is {shown(manifest['kind'])}, not one of {', '.join(KINDS)}")
    _text(500)("name", manifest["name"])
    _AGREEMENT("agreement", manifest["agreement"])
    _check_listed(manifest["files"])
    _check_graphs(manifest["graphs"], manifest["files"])
    check_spec(manifest["kind"], manifest["spec"])
    tokenizer = manifest["spec"].get("text", {}).get("tokenizer") if manifest["kind"] == "embedder" else None
    if tokenizer is not None and (tokenizer not in manifest["files"] or READY in tokenizer):
        raise ValueError(f"its tokenizer {shown(tokenizer)} is not listed")


def _check_listed(files: Mapping[str, Any]) -> None:
    if len(files) > _MAX_FILES:
        raise ValueError(f"it lists {plural(len(files), 'file')}")
    if len({name.casefold() for name in files}) < len(files):
        raise ValueError("it lists two files whose names differ only in case")
    for name, entry in files.items():
        if not is_plain_name(name) or name.casefold() == MANIFEST:
            raise ValueError(f"it names a file outside its folder: {shown(name)}")
        size, digest = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError(f"the size of {name} is {shown(size)}")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise ValueError(f"the sha256 of {name} is {shown(digest)}")


def _check_graphs(graphs: Mapping[str, Any], files: Mapping[str, Any]) -> None:
    """Check that graphs are listed ONNX files, and that optimized graphs, which the fingerprint
    excludes, have their own roles and names.
    """
    for role, name in graphs.items():
        if not is_plain_name(role):
            raise ValueError(f"{shown(role)} is not a role of a graph")
        if not isinstance(name, str) or name not in files:
            raise ValueError(f"its graph {shown(name)} is not listed")
        if not name.endswith(".onnx"):
            raise ValueError(f"its graph {name} is not an ONNX file")
        ready = role.endswith(READY)
        if ready != (READY in name) or (ready and role.removesuffix(READY) not in graphs):
            raise ValueError(f"its graph {shown(role)} cannot be {name}")


def check_spec(kind: str, spec: Mapping[str, Any]) -> None:
    """Validate the spec of a bundle of a kind. Raises ValueError with the first invalid value."""
    _fields(_DETECTOR if kind == "detector" else _EMBEDDER)("spec", spec)
    if kind == "detector" and "anchors" in spec:
        _check_anchors(spec)


def _is(fits: Callable[[Any], bool], words: str) -> Check:
    def check(name: str, value: Any) -> None:
        if not fits(value):
            raise ValueError(f"{name} is {shown(value)}, not {words}")

    return check


def _whole(least: int, most: int) -> Check:
    return _is(lambda value: type(value) is int and least <= value <= most, f"an integer from {least} to {most}")


def _number(least: float, most: float) -> Check:
    def fits(value: Any) -> bool:  # NaN fails both comparisons
        return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most

    return _is(fits, f"a number from {least:g} to {most:g}")


def _text(most: int = 200) -> Check:
    return _is(lambda value: isinstance(value, str) and len(value) <= most, f"a text of at most {most} characters")


def _one_of(*choices: str) -> Check:
    return _is(lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}")


def _list_of(item: Check, least: int, most: int) -> Check:
    whole = _is(
        lambda value: isinstance(value, (list, tuple)) and least <= len(value) <= most,
        f"a list of {least} to {most} values",
    )

    def check(name: str, value: Any) -> None:
        whole(name, value)
        for each in value:
            item(name, each)

    return check


def _optional(inner: Check) -> Check:
    def check(name: str, value: Any) -> None:
        if value is not None:
            inner(name, value)

    return check


def _fields(fields: Mapping[str, Check]) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is {shown(value)}, not a mapping")
        for key, inner in fields.items():
            if key in value:
                inner(f"{name}.{key}", value[key])

    return check


def _labels(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or len(value) > _MAX_LABELS:
        raise ValueError(
            f"{name} is {shown(value)}, not the names of at most {plural(_MAX_LABELS, 'class', 'classes')}"
        )
    for number, label in value.items():
        if not isinstance(number, str) or not re.fullmatch("[0-9]{1,6}", number):
            raise ValueError(f"{name} has {shown(number)}, which is not a class number")
        _text()(f"{name}.{number}", label)


def _one_or_list(item: Check, most: int) -> Check:
    def check(name: str, value: Any) -> None:
        if isinstance(value, (list, tuple)):
            _list_of(item, 1, most)(name, value)
        else:
            item(name, value)

    return check


_DURATION = _number(0, 1e9)
_AGREEMENT = _fields({"speed": _fields(dict.fromkeys(("ratio", "ms", "fp32_ms"), _DURATION))})
_POSITIVE = _number(1e-9, 1e6)
_MEAN = _list_of(_number(-1e4, 1e4), 3, 3)
_STD = _list_of(_number(1e-6, 1e4), 3, 3)
_PIXELS = _fields(
    {
        "resize": _one_of("none", "fit", "letterbox", "stretch"),
        "imgsz": _whole(1, MAX_SIDE),
        "equalize": _number(0, 1e4),
        "tiles": _whole(1, 64),
    }
)
_ANCHORS = _fields(
    {
        "min_level": _whole(1, 12),
        "max_level": _whole(1, 12),
        "num_scales": _whole(1, 16),
        "aspect_ratios": _list_of(_one_or_list(_number(1e-3, 1e3), 2), 1, 32),
        "anchor_scale": _one_or_list(_number(1e-3, 1e3), 12),
    }
)
_DETECTOR: dict[str, Check] = {
    "imgsz": _whole(1, MAX_SIDE),
    "resize": _one_of("letterbox", "stretch"),
    "pad": _whole(0, 255),
    "scale": _POSITIVE,
    "mean": _optional(_MEAN),
    "std": _optional(_STD),
    "channels": _text(),
    "head": _text(),
    "labels": _labels,
    "input": _text(),
    "batch": _optional(_whole(0, 1024)),
    "rectangular": _optional(_whole(0, MAX_SIDE)),
    "precision": _one_of(*PRECISIONS),
    "pixels": _optional(_PIXELS),
    "anchors": _ANCHORS,
}
#: Resampling filters of an encoder's images, by Pillow's names.
RESAMPLINGS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
_POOLING = _one_of("none", "first", "last", "mean")
_EMBEDDER: dict[str, Check] = {
    "dim": _whole(1, 16384),
    "logit_scale": _number(-1e6, 1e6),
    "logit_bias": _number(-1e6, 1e6),
    "scores": _one_of("softmax", "sigmoid"),
    "precision": _one_of(*PRECISIONS),
    "image": _fields(
        {
            "input": _text(),
            "resize": _one_of("crop", "squash"),
            "pooling": _POOLING,
            "shortest_edge": _whole(1, _MAX_EDGE),
            "resample": _one_of(*RESAMPLINGS),
            "crop": _list_of(_whole(1, _MAX_EDGE), 2, 2),
            "scale": _POSITIVE,
            "mean": _MEAN,
            "std": _STD,
        }
    ),
    "text": _fields(
        {
            "tokenizer": _text(),
            "max_length": _whole(1, 1 << 16),
            "pad_id": _whole(0, (1 << 31) - 1),
            "pad_token": _text(1000),
            "inputs": _list_of(_one_of("input_ids", "attention_mask", "token_type_ids"), 1, 3),
            "padding": _one_of("longest", "max_length"),
            "special_tokens": _whole(0, 100),
            "pooling": _POOLING,
        }
    ),
}


def _check_anchors(spec: Mapping[str, Any]) -> None:
    """Check the number of anchors of an EfficientDet spec before they are created."""
    about, side = spec["anchors"], spec.get("imgsz", 0)
    first, last = about.get("min_level", 1), about.get("max_level", 0)
    cells = sum(math.ceil(side / 2**level) ** 2 for level in range(first, last + 1))
    if cells * about.get("num_scales", 1) * len(about.get("aspect_ratios", ())) > _MAX_ANCHORS:
        raise ValueError(f"spec.anchors has more than {_MAX_ANCHORS} anchors")


def shown(value: Any) -> str:
    """Format a value for a message: short, on one line, and without traversing huge values."""
    if isinstance(value, (str, float, bool)) or value is None:
        text = repr(value[:80] if isinstance(value, str) else value)
    elif isinstance(value, int):
        text = str(value) if abs(value) < 1 << 64 else "a huge number"
    else:
        text = f"a {type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else type(value).__name__
    return text
