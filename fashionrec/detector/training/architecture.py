"""Check ultralytics' model YAMLs and write a copy of our own for it.

ultralytics evaluates some strings of a model YAML (``activation:`` as Python, arguments as
literals) and takes layers by name from whole modules. Here a YAML may only name the layers of
ultralytics' own detectors and the usual activations; the copy is written from parsed values, so
that nothing else of the file is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fashionrec.common.files import write_atomic
from fashionrec.config import nearest, read_yaml
from fashionrec.errors import ConfigError, ModelError

#: Allowed activations, as ``SiLU()``, ``nn.SiLU()`` or ``torch.nn.SiLU()`` with numbers as
#: arguments.
ACTIVATIONS = (
    "SiLU ReLU ReLU6 LeakyReLU PReLU RReLU ELU SELU CELU GELU Mish Hardswish Hardsigmoid Hardtanh"
    " Sigmoid Tanh Softplus Identity"
).split()
#: Layers of ultralytics' detectors.
LAYERS = frozenset(
    """
    A2C2f ADown AConv AIFI Bottleneck BottleneckCSP C1 C2 C2f C2fAttn C2fCIB C2fPSA C2PSA C3 C3Ghost C3k2 C3TR C3x CBFuse
    CBLinear Concat Conv ConvTranspose Detect DWConv DWConvTranspose2d ELAN1 Focus GhostBottleneck GhostConv HGBlock HGStem
    PSA RepC3 RepNCSPELAN4 ResNetLayer RTDETRDecoder SCDown SPP SPPELAN SPPF v10Detect
    """.split()
)
#: Layers of torch that they use.
TORCH_LAYERS = frozenset(
    f"nn.{name}"
    for name in (
        "AvgPool2d BatchNorm2d Conv2d ConvTranspose2d Identity MaxPool2d Upsample UpsamplingBilinear2d"
        " UpsamplingNearest2d ZeroPad2d"
    ).split()
)
#: Allowed strings in a layer's arguments: names of values in the YAML, and modes of nn.Upsample.
_WORDS = frozenset({"nc", "reg_max", "None", "True", "False", "nearest", "nearest-exact", "bilinear", "bicubic"})
_NUMBERS = frozenset({"nc", "reg_max", "depth_multiple", "width_multiple", "ch", "channels"})
_KEYS = _NUMBERS | {"activation", "scales", "scale", "end2end", "backbone", "head"}
#: Other keys of files and checkpoints, which are ignored.
_IGNORED = frozenset({"yaml_file", "anchors", "names", "task", "kpt_shape", "inplace"})
_ACTIVATION = re.compile(r"(?:(?:torch\.)?nn\.)?([A-Za-z0-9]+)\(([^()\n]*)\)")
_ARGUMENT = re.compile(r"(?:[a-z_]+\s*=\s*)?(?:[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|True|False)")
_MOST_LAYERS, _MOST_REPEATS, _LARGEST = 1000, 100, 65536


def own_copy(path: Path, folder: Path, name: str | None = None) -> Path:
    """Check a model YAML and write its copy for ultralytics into ``folder``, under its own name,
    which determines the size.

    Raises :class:`ModelError`.
    """
    try:
        document = read_yaml(path, like="ultralytics' yolov8.yaml")
    except ConfigError as error:
        raise ModelError(str(error), hint=error.hint) from None
    check_architecture(document, str(path))
    target = folder / (name or path.name)
    kept = {key: value for key, value in document.items() if key in _KEYS}
    write_atomic(target, yaml.safe_dump(kept, sort_keys=False))
    return target


def check_architecture(document: Mapping[str, Any], where: str) -> None:
    """Raise :class:`ModelError` for a model YAML with anything but layers and numbers; ``where`` is
    its source for messages.
    """
    for key, value in document.items():
        if key not in _KEYS | _IGNORED:
            raise _refusal(where, f"unknown key {key!r}", nearest(str(key), _KEYS))
        if key in _NUMBERS:
            _check_number(value, where, str(key))
    if (activation := document.get("activation")) is not None:
        _check_activation(activation, where)
    if not isinstance(document.get("end2end"), (bool, type(None))):
        raise _refusal(where, f"end2end: {_shown(document['end2end'])} is not true or false")
    scale = document.get("scale")
    if scale is not None and not (isinstance(scale, str) and re.fullmatch(r"[a-z]?", scale)):
        raise _refusal(where, f"scale: {_shown(scale)} is not a letter")
    _check_scales(document.get("scales"), where)
    for part in ("backbone", "head"):
        rows = document.get(part)
        if not isinstance(rows, list) or not rows or len(rows) > _MOST_LAYERS:
            raise _refusal(where, f"{part}: expected a list of layers")
        for number, row in enumerate(rows, start=1):
            _check_layer(row, where, f"{part}, layer {number}")


def _check_activation(value: Any, where: str) -> None:
    match = _ACTIVATION.fullmatch(value.strip()) if isinstance(value, str) and len(value) < 100 else None
    arguments = [part.strip() for part in match[2].split(",")] if match and match[2].strip() else []
    if not match or match[1] not in ACTIVATIONS or not all(_ARGUMENT.fullmatch(part) for part in arguments):
        names = ", ".join(f"nn.{name}()" for name in ACTIVATIONS[:6])
        raise _refusal(where, f"activation: {_shown(value)} is not allowed", f"{names}, ...")


def _check_scales(scales: Any, where: str) -> None:
    if scales is None:
        return
    if not isinstance(scales, dict):
        raise _refusal(where, f"scales: {_shown(scales)} is not a table of sizes")
    for letter, numbers in scales.items():
        if not (isinstance(numbers, list) and len(numbers) == 3 and len(str(letter)) == 1):
            raise _refusal(
                where, f"scales: {_shown(letter)}: {_shown(numbers)} is not depth, width and maximum channels"
            )
        for number in numbers:
            _check_number(number, where, f"scales: {letter}")


def _check_layer(row: Any, where: str, place: str) -> None:
    if not (isinstance(row, list) and len(row) == 4 and isinstance(row[3], list)):
        raise _refusal(where, f"{place}: {_shown(row)} is not [from, repeats, module, arguments]")
    source, repeats, module, arguments = row
    sources = source if isinstance(source, list) else [source]
    if not sources or not all(type(n) is int and -_MOST_LAYERS <= n <= _MOST_LAYERS for n in sources):
        raise _refusal(where, f"{place}: from: {_shown(source)} is not a layer number")
    if type(repeats) is not int or not 1 <= repeats <= _MOST_REPEATS:
        raise _refusal(where, f"{place}: repeats: {_shown(repeats)} is not a number from 1 to {_MOST_REPEATS}")
    known = LAYERS | TORCH_LAYERS
    if not isinstance(module, str) or module not in known:
        hint = nearest(str(module), known) or "only layers of ultralytics' own detectors are allowed"
        raise _refusal(where, f"{place}: module: {_shown(module)} is not allowed", hint)
    for argument in arguments:
        _check_argument(argument, where, f"{place} ({module})")


def _check_argument(value: Any, where: str, place: str, depth: int = 0) -> None:
    if isinstance(value, list) and depth < 3 and len(value) <= _MOST_LAYERS:
        for part in value:
            _check_argument(part, where, place, depth + 1)
    elif isinstance(value, str):
        if value not in _WORDS:
            raise _refusal(where, f"{place}: argument {_shown(value)} is not allowed")
    elif value is not None and not isinstance(value, bool):
        _check_number(value, where, f"{place}: argument")


def _check_number(value: Any, where: str, key: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
        raise _refusal(where, f"{key}: {_shown(value)} is not a number up to {_LARGEST}")


def _refusal(where: str, what: str, hint: str = "") -> ModelError:
    return ModelError(f"{where} is not a valid model YAML: {what}", hint=hint)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
