"""Report training curves to TensorBoard, MLflow or Weights & Biases, if requested.

ultralytics has a callback for each and decides by its settings which to use, by default all that
are installed. Here they are switched per training. Files of TensorBoard and W&B lie in the run's
folder. MLflow writes to ``MLFLOW_TRACKING_URI``, otherwise to ``mlflow.db`` and ``mlflow/`` next to
the runs. W&B uploads unless ``WANDB_MODE=offline``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fashionrec.errors import FashionrecError, MissingExtra

#: Project name in MLflow and W&B.
PROJECT = "fashionrec"
#: All services that ultralytics could report to.
SWITCHES = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
_PLATFORM_KEY = "ULTRALYTICS_API_KEY"


def need_loggers(names: Sequence[str]) -> None:
    """Raise :class:`MissingExtra` unless the packages of all ``names`` are installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(f"train.loggers={name} needs the package {name}", hint=f"pip install {name}")


@contextlib.contextmanager
def switched(names: Sequence[str]) -> Iterator[None]:
    """Enable exactly these services in ultralytics' settings while a trainer reads them.

    Its own platform, which it uses if it finds a key, is off. Nothing is written to its settings
    file.
    """
    from ultralytics.utils import SETTINGS

    settings = {switch: switch in names for switch in SWITCHES} | {"api_key": "", "sync": False}
    before = {name: dict.get(SETTINGS, name) for name in settings}
    key = os.environ.pop(_PLATFORM_KEY, None)
    try:
        for name, value in settings.items():
            dict.__setitem__(SETTINGS, name, value)
        yield
    finally:
        for name, was in before.items():
            dict.__setitem__(SETTINGS, name, was)
        if key is not None:
            os.environ[_PLATFORM_KEY] = key


@contextlib.contextmanager
def places(names: Sequence[str], runs: Path) -> Iterator[None]:
    """Set default locations of the services unless the environment does; ``runs`` is the folder of
    all runs.
    """
    added: list[str] = []

    def offer(name: str, value: str) -> None:
        if not os.environ.get(name):
            os.environ[name] = value
            added.append(name)

    stdin = sys.stdin
    try:
        with contextlib.ExitStack() as stack:
            if "mlflow" in names:
                if not os.environ.get("MLFLOW_TRACKING_URI"):
                    offer("MLFLOW_TRACKING_URI", f"sqlite:///{(runs / 'mlflow.db').resolve()}")
                    _experiment_beside(runs)
                offer("MLFLOW_EXPERIMENT_NAME", PROJECT)
            if "wandb" in names:  # without a key it would prompt for one where nobody sees it
                sys.stdin = stack.enter_context(Path(os.devnull).open(encoding="utf-8"))
            yield
    finally:
        sys.stdin = stdin
        for name in added:
            del os.environ[name]


def started(trainer: Any, names: Sequence[str]) -> None:
    """Raise :class:`FashionrecError` unless a trainer's services started: ultralytics
    only warns.
    """
    module = "ultralytics.utils.callbacks.tensorboard"
    silent = []
    if "tensorboard" in names and getattr(importlib.import_module(module), "WRITER", None) is None:
        silent.append("tensorboard")
    if "mlflow" in names and not getattr(trainer, "_mlflow_active", False):
        silent.append("mlflow")
    if silent:
        raise FashionrecError(f"cannot write to {' and '.join(silent)}", hint="see train.log in the run's folder")


def _experiment_beside(runs: Path) -> None:
    """Keep MLflow from putting files of an experiment into the working directory."""
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    if mlflow.get_experiment_by_name(name) is None:
        mlflow.create_experiment(name, artifact_location=(runs / "mlflow").resolve().as_uri())
