"""The options of the plain training loop, by ultralytics' names. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fashionrec.config import TrainConfig, nearest
from fashionrec.detector.training.options import augmentation
from fashionrec.errors import ConfigError
from fashionrec.labels.data_yaml import declared

#: Options of ultralytics that the plain loop supports, with their defaults.
OPTIONS: dict[str, Any] = {
    "pretrained": True,
    "amp": True,
    "lrf": 0.01,  # the final learning rate, as a fraction of the initial one
    "momentum": 0.937,  # of SGD
    "weight_decay": 0.0005,
    "warmup_epochs": 3.0,
    "fliplr": 0.5,
    "flipud": 0.0,
    "degrees": 0.0,
    "translate": 0.1,
    "scale": 0.5,
    "hsv_h": 0.015,
    "hsv_s": 0.7,
    "hsv_v": 0.4,
}


def settled(config: TrainConfig, data: Path) -> dict[str, Any]:
    """Resolve the options of a training: explicit ones, those of the dataset, the defaults.

    Raises :class:`ConfigError` for options that the loop does not support.
    """
    asked, model = config.options(), config.model
    for name, value in asked.items():
        if name not in OPTIONS:
            hint = nearest(name, OPTIONS) or f"it knows {', '.join(OPTIONS)}"
            raise ConfigError(f"{model} does not support the option {name}: only ultralytics' detectors do", hint=hint)
        if not isinstance(value, (int, float)):
            raise ConfigError(f"train.{name} is {value!r}, not a number")
    wrong = {
        f"balance={config.balance}": config.balance not in ("none", "sample"),
        f"loggers={','.join(config.loggers)}": bool(config.loggers),
        f"optimizer={config.optimizer}": config.optimizer.lower() not in ("auto", "adamw", "sgd"),
        f"batch={config.batch}": not isinstance(config.batch, int) or config.batch < 1,
    }
    for setting, refused in wrong.items():
        if refused:
            hint = (
                "allowed: balance=none|sample, optimizer=auto|AdamW|SGD, batch=1 or more, no loggers (see results.csv)"
            )
            raise ConfigError(f"{model} cannot be trained with {setting}", hint=hint)
    return {**OPTIONS, **augmentation(declared(data)), **asked}
