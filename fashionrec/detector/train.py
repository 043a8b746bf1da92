"""Train a detector with ultralytics, as a run of ours. Training plane: loaded by name when something is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fashionrec.config import TrainConfig
from fashionrec.detector.ultra import load_yolo, quiet, stamp, translated
from fashionrec.errors import ConfigError
from fashionrec.runs import RECORD, Run, read_run, start_run
from fashionrec.yolo_data import dataset_fingerprint, declared, read_data_yaml

Progress = Callable[[int, int, dict[str, Any]], None]
Log = Callable[[str], None]

#: Settings of ours that ultralytics knows by the same name.
_NAMED = ("epochs", "patience", "batch", "imgsz", "device", "workers", "seed", "optimizer", "lr0")


def train_detector(config: TrainConfig, runs: Path, *, log: Log | None = None, progress: Progress | None = None) -> Run:
    """Train, and write ``runs/train/NAME`` with ``weights/{best,last}.pt``, ultralytics' plots and tables, and run.json.

    Metrics are those of the best epoch on the valid split. With ``resume`` the run of that name goes on in its folder from
    the end of its last whole epoch. Raises :class:`ConfigError`, :class:`DataError` or :class:`ModelError` before it
    starts.
    """
    data = Path(config.data or "")
    read_data_yaml(data).images("train")
    if config.resume:
        run = _resumable(runs / "train", config.name)
        yolo = load_yolo(str(run.path / "weights" / "last.pt"))
    else:
        yolo = load_yolo(config.model)
        run = start_run(runs / "train", config.name, kind="detector", verb="train", exist_ok=config.exist_ok)
    run.config = {"train": config.model_dump()}
    run.seed = config.seed
    run.dataset = {"path": str(data), "fingerprint": dataset_fingerprint(data)}
    about = declared(data)
    if about.get("pixels"):
        run.dataset["pixels"] = about["pixels"]
    settings = {name: getattr(config, name) for name in _NAMED} | augmentation(about) | config.options()
    if config.resume:
        settings["resume"] = True
    return fit(yolo, run, data, settings, progress)


def fit(yolo: Any, run: Run, data: Path, settings: dict[str, Any], progress: Progress | None) -> Run:
    """Run ultralytics' trainer into the folder of a run and record the outcome."""
    start = time.perf_counter()
    log_file = run.path / "train.log"
    epochs = int(settings["epochs"])
    if progress:

        def tell(trainer: Any) -> None:
            if trainer.epoch < epochs:  # ultralytics calls once more after the last, for its final validation
                progress(trainer.epoch + 1, epochs, _epoch(trainer))

        yolo.add_callback("on_fit_epoch_end", tell)
    place = {"project": str(run.path.parent.resolve()), "name": run.path.name, "exist_ok": True}
    settings.setdefault("amp", settings.get("device") not in (None, "cpu"))
    run.status = "running"
    run.save()
    try:
        with quiet(log_file), translated("training", log_file):
            yolo.train(data=str(data.resolve()), **settings, **place)
    except BaseException:
        run.status = "failed"
        run.seconds += time.perf_counter() - start
        run.save()
        raise
    run.device = str(yolo.trainer.device)
    run.weights = {
        which: f"weights/{which}.pt" for which in ("best", "last") if (run.path / f"weights/{which}.pt").exists()
    }
    if run.dataset.get("pixels"):
        for weights in run.weights.values():
            stamp(run.path / weights, {"pixels": run.dataset["pixels"]})
    run.metrics = metrics_of(yolo.trainer.validator.metrics)
    run.seconds += time.perf_counter() - start
    run.status, run.promoted = "done", True
    run.save()
    return run


def augmentation(about: dict[str, Any]) -> dict[str, float]:
    """The flips and rotation that a dataset asks for, as ultralytics' options; none where it holds augmented copies."""
    asked = about.get("augment") or {}
    if asked.get("mode") == "fly":
        return {name: float(asked[name]) for name in ("fliplr", "flipud", "degrees")}
    if asked.get("mode") in ("copies", "done"):
        return {"fliplr": 0.0, "flipud": 0.0, "degrees": 0.0}
    return {}


def metrics_of(metrics: Any) -> dict[str, Any]:
    """map50, map50_95, precision and recall, in all and per class, of ultralytics' metrics."""
    box = metrics.box
    per_class = {}
    for position, number in enumerate(box.ap_class_index):
        precision, recall, map50, map50_95 = (float(value) for value in box.class_result(position))
        name = str(metrics.names[int(number)])
        per_class[name] = {"map50": map50, "map50_95": map50_95, "precision": precision, "recall": recall}
    return {
        "map50": float(box.map50),
        "map50_95": float(box.map),
        "precision": float(box.mp),
        "recall": float(box.mr),
        "per_class": per_class,
        "split": "valid",
    }


def _epoch(trainer: Any) -> dict[str, float]:
    measured = trainer.args.val or trainer.epoch + 1 >= trainer.epochs  # with val=False ultralytics reports zeros
    found = {
        short: float(trainer.metrics[name])
        for short, name in {"map50": "metrics/mAP50(B)", "map50_95": "metrics/mAP50-95(B)"}.items()
        if measured and name in (trainer.metrics or {})
    }
    losses = getattr(trainer, "tloss", None)
    if losses is not None:
        found["loss"] = float(sum(losses.values()) if isinstance(losses, dict) else losses.sum())
    return found


def _resumable(parent: Path, name: str | None) -> Run:
    if name is None:
        raise ConfigError("resume needs the run's name", hint="fashionrec train --resume name=NAME data=...")
    if not (parent / name / RECORD).is_file() or not (parent / name / "weights" / "last.pt").is_file():
        raise ConfigError(
            f"there is nothing to resume in {parent / name}", hint="it has no weights/last.pt yet: train it anew"
        )
    run = read_run(parent / name)
    if run.status == "done":
        raise ConfigError(
            f"run {run.path} is finished", hint="train on from it: model=" + str(run.weights_path("best"))
        )
    return run
