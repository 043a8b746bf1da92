"""Check values of ultralytics' options before a run begins: it refuses some late, and
some never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fashionrec.config import nearest
from fashionrec.detector.training.names import model_file
from fashionrec.errors import ConfigError, ModelError

OPTIMIZERS = ("SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp", "auto")
#: Options with a few allowed words, including True and False where listed.
WORDS: dict[str, tuple[object, ...]] = {
    "optimizer": OPTIMIZERS,
    "cache": (True, False, "ram", "disk"),
    "copy_paste_mode": ("flip", "mixup"),
    "auto_augment": ("randaugment", "autoaugment", "augmix", None),
    "compile": (True, False, "default", "reduce-overhead", "max-autotune-no-cudagraphs"),
    "split": ("train", "val", "test"),
}
#: Options with numeric bounds beyond those that ultralytics checks.
BOUNDS: dict[str, tuple[float, float]] = {
    "degrees": (0, 180),
    "shear": (0, 90),
    "warmup_epochs": (0, float("inf")),
    "box": (0, float("inf")),
    "cls": (0, float("inf")),
    "dfl": (0, float("inf")),
    "dis": (0, float("inf")),
    "time": (0.001, float("inf")),
    "workers": (0, float("inf")),
    "close_mosaic": (0, float("inf")),
    "imgsz": (1, float("inf")),
}


def check_options(settings: dict[str, Any]) -> None:
    """Raise :class:`ConfigError` for the first value that ultralytics would refuse or
    misinterpret.
    """
    from ultralytics.cfg import get_cfg

    given = {name: value for name, value in settings.items() if name != "device"}
    for name, words in WORDS.items():
        if name in given:
            _check_word(name, given[name], words)
    try:
        get_cfg(overrides=dict(given))
    except (TypeError, ValueError, SyntaxError) as error:
        raise ConfigError(" ".join(str(error).split()), hint="https://docs.ultralytics.com/usage/cfg") from None
    for name, (least, most) in BOUNDS.items():
        value = given.get(name)
        if value is not None and not least <= value <= most:
            most_words = f", at most {most:g}" if most < float("inf") else ""
            raise ConfigError(f"{name}={value} is out of range", hint=f"at least {least:g}{most_words}")
    for name, check in _CHECKS.items():
        if given.get(name) is not None:
            check(name, given[name])


def augmentation(about: dict[str, Any]) -> dict[str, float]:
    """Return the flips and rotation that a dataset requests, as ultralytics' options; none if it
    contains augmented copies.
    """
    asked = about.get("augment") or {}
    if asked.get("mode") == "fly":
        return {name: float(asked[name]) for name in ("fliplr", "flipud", "degrees")}
    if asked.get("mode") in ("copies", "done"):
        return {"fliplr": 0.0, "flipud": 0.0, "degrees": 0.0}
    return {}


def _check_word(name: str, value: object, words: tuple[object, ...]) -> None:
    same = [word for word in words if word == value and isinstance(word, bool) == isinstance(value, bool)]
    if same or (name == "optimizer" and str(value).lower() in [str(word).lower() for word in words]):
        return
    named = [str(word).lower() if isinstance(word, bool) else str(word) for word in words if word is not None]
    raise ConfigError(f"{name}={value} is not one of {', '.join(named)}", hint=nearest(str(value), named))


def _batch(name: str, value: Any) -> None:
    if not (value == -1 or (isinstance(value, int) and value >= 1) or 0 < value < 1):
        raise ConfigError(
            f"{name}={value} is not a number of photos",
            hint="16; -1 for as many as fit on the GPU; 0.7 for that share of its memory",
        )


def _pretrained(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        _checkpoint(name, value)


def _checkpoint(name: str, value: Any) -> None:
    try:
        model_file(str(value))
    except ModelError as error:
        raise ConfigError(f"{name}: {error}", hint=error.hint) from None


def _numbers(name: str, value: Any) -> None:
    numbers = value if isinstance(value, list) else [value]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ConfigError(f"{name}={value} is not a number or list of numbers", hint=f"{name}=10 or {name}=[0,1,2]")


def _layers(name: str, value: Any) -> None:
    if not (isinstance(value, list) and all(isinstance(layer, (int, str)) for layer in value)):
        _numbers(name, value)


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "batch": _batch,
    "pretrained": _pretrained,
    "distill_model": _checkpoint,
    "freeze": _layers,
    "classes": _numbers,
}
