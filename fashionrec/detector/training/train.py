"""Train a detector with ultralytics, as a run of fashionrec. Training plane: imported by name when
something is trained.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fashionrec.common.documents import read_json
from fashionrec.common.text import plural
from fashionrec.config import ImagesConfig, TrainConfig
from fashionrec.detector.training.balance import CLS_PW
from fashionrec.detector.training.families import Evaluate, Log, Progress, other_family
from fashionrec.detector.training.gpus import check_device, watched
from fashionrec.detector.training.loggers import PROJECT, need_loggers, places
from fashionrec.detector.training.names import model_note
from fashionrec.detector.training.options import augmentation, check_options
from fashionrec.detector.training.resume import Point, recalled, recover, same_settings, unfinished
from fashionrec.detector.training.trainer import METRICS, PREVIOUS, Plan, metrics_of, trainer_class
from fashionrec.detector.training.ultra import failures_in_one_line, load_ultralytics, load_yolo, quiet, stamp
from fashionrec.errors import ConfigError
from fashionrec.labels.data_yaml import YoloData, dataset_fingerprint, declared, read_data_yaml, write_own_yaml
from fashionrec.models.runs import LOCK_WAIT, Run, start_run

__all__ = ["Log", "Progress", "fit", "recalled", "train_detector"]

#: Settings that ultralytics knows by the same name.
_NAMED = ("epochs", "patience", "batch", "imgsz", "device", "workers", "seed", "optimizer", "lr0")


def train_detector(
    config: TrainConfig,
    runs: Path,
    *,
    log: Log | None = None,
    progress: Progress | None = None,
    limits: ImagesConfig | None = None,
    evaluate: Evaluate | None = None,
    devices: Callable[[Any], int] = check_device,
    wait: float = LOCK_WAIT,
) -> Run:
    """Train, and write ``runs/train/NAME`` with ``weights/{best,last}.pt``, ultralytics' plots and
    tables, and run.json.

    Metrics are those of the best epoch on the valid split. With ``resume``, the run of that name,
    or the newest unfinished one, continues after its last complete epoch. Families without a
    trainer of their own need ``limits`` for photos and ``evaluate`` for judging epochs. ``devices``
    returns how many devices a name means, ``wait`` is how many seconds to wait for a run that
    another process holds. Raises :class:`ConfigError`, :class:`DataError`, :class:`ModelError` or
    :class:`MissingExtra` before it starts.
    """
    say = log or (lambda text: None)
    if (family := other_family(config.model)) is not None:
        from fashionrec.detector.training.families.plain import train_in_run

        if limits is None or evaluate is None:
            raise TypeError(f"training {config.model} needs limits and evaluate")
        return train_in_run(family, config, runs, limits=limits, evaluate=evaluate, log=log, progress=progress)
    before = unfinished(runs / "train", config.name) if config.resume else None
    data = Path(config.data or "")
    yolo_data = read_data_yaml(data)
    for split in ("train", "valid"):
        yolo_data.images(split)
    load_ultralytics()
    about = declared(data)
    settings = {name: getattr(config, name) for name in _NAMED} | augmentation(about) | config.options()
    if config.balance == "loss":
        settings.setdefault("cls_pw", CLS_PW)
    if config.balance == "sample" and settings.get("rect"):
        raise ConfigError("train.balance=sample cannot be combined with rect=true, which orders photos by shape")
    check_options(settings)
    devices(config.device)
    for source in (settings.get("pretrained"), settings.get("distill_model")):
        if isinstance(source, str):
            tell_which(source, say)
            load_yolo(source)
    need_loggers(config.loggers)
    fingerprint, watched_data = dataset_fingerprint(data), dataset_fingerprint(data, ("valid",))
    if before is not None:
        same_settings(before, config, fingerprint)
        run, point = before, _go_on(before, config, say, wait)
        yolo = load_yolo(str(run.path / "weights" / "last.pt") if point else config.model)
    else:
        tell_which(config.model, say)
        yolo, point = load_yolo(config.model), None
        trainer_class(yolo, Plan("", config.balance))
        run = start_run(runs / "train", config.name, kind="detector", verb="train", exist_ok=config.exist_ok)
    run.config = {"train": config.model_dump() | {"name": run.name, "resume": False}}
    run.seed = config.seed
    run.dataset = {"path": str(data), "fingerprint": fingerprint, "valid": watched_data}
    if about.get("pixels"):
        run.dataset["pixels"] = about["pixels"]
    more: dict[str, Any] = {"balance": config.balance, "loggers": config.loggers, "point": point, "devices": devices}
    return fit(yolo, run, yolo_data, settings, progress, **more)


def fit(
    yolo: Any,
    run: Run,
    data: YoloData,
    settings: dict[str, Any],
    progress: Progress | None,
    *,
    extra: Mapping[str, Sequence[Path]] | None = None,
    balance: str = "none",
    loggers: Sequence[str] = (),
    point: Point | None = None,
    devices: Callable[[Any], int] = check_device,
) -> Run:
    """Run ultralytics' trainer into the folder of a run and record the outcome; resume at
    ``point``.

    ultralytics reads a data.yaml written by us, in a folder of ours; ``extra`` are photos of other
    data, by split.
    """
    log_file, weights = run.path / "train.log", run.path / "weights"
    plan = Plan(str(log_file), balance, tuple(loggers), point.epochs if point else 0, bool(point and point.finish))
    several = devices(settings.get("device")) > 1
    clock = _Clock(run, int(settings["epochs"]), progress)
    place = {"project": PROJECT, "name": run.name, "save_dir": str(run.path.resolve())}
    if point:
        place["resume"] = str(weights / "last.pt")
    run.status = "running"
    run.save()
    try:
        with contextlib.ExitStack() as stack:
            own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fashionrec-data-")))
            listed = write_own_yaml(data, own, extra)
            if settings.get("cache") == "disk":
                pixels = stack.enter_context(tempfile.TemporaryDirectory(prefix=".pixels-", dir=run.path))
                plan = replace(plan, pixels=str(Path(pixels).absolute()))
            trainer = trainer_class(yolo, plan)
            stack.enter_context(failures_in_one_line("training", log_file))
            stack.enter_context(quiet(log_file))
            stack.enter_context(places(loggers, run.path.parent.parent))
            if several:  # state of this process does not reach the others
                stack.enter_context(watched(run.path / "results.csv", lambda epoch: clock.tell(epoch, {})))
            else:
                yolo.add_callback("on_fit_epoch_end", clock.epoch_ended)
            yolo.train(trainer=trainer, data=str(listed), **settings, **place)
    except BaseException:
        run.status = "failed"
        clock.stop()
        run.save()
        raise
    run.device = str(yolo.trainer.args.device if several else yolo.trainer.device)
    run.weights = {which: f"weights/{which}.pt" for which in ("best", "last") if (weights / f"{which}.pt").exists()}
    if run.dataset.get("pixels"):
        for checkpoint in run.weights.values():
            stamp(run.path / checkpoint, {"pixels": run.dataset["pixels"]})
    run.metrics = dict(read_json(run.path / METRICS)) if several else metrics_of(yolo.trainer.validator.metrics)
    for leftover in (weights / PREVIOUS, run.path / METRICS):
        leftover.unlink(missing_ok=True)
    clock.stop()
    run.status, run.promoted = "done", True
    run.save()
    return run


def _go_on(run: Run, config: TrainConfig, say: Log, wait: float) -> Point | None:
    run.status = "running"
    run.save(wait=wait)  # from now on no other process writes into its folder
    point = recover(run, config.patience)
    run.notes["resumed"] = int(run.notes.get("resumed", 0)) + 1
    if point is None:
        say(f"run {run.path} had no complete epoch: starting again")
    elif point.finish:
        say(f"run {run.path} had finished {plural(point.epochs, 'epoch')}: only the final validation is missing")
    else:
        say(f"resuming run {run.path} after epoch {point.epochs}")
    return point


def tell_which(model: str, say: Log) -> None:
    """Say which one an ambiguous bare name means."""
    if note := model_note(model):
        say(note)


class _Clock:
    """Saves a run's seconds and epochs as they pass, and reports progress."""

    def __init__(self, run: Run, epochs: int, progress: Progress | None) -> None:
        self.run, self.epochs, self.progress = run, epochs, progress
        self.before, self.start = run.seconds, time.perf_counter()

    def epoch_ended(self, trainer: Any) -> None:
        if not trainer.ending:
            self.tell(trainer.epoch + 1, _epoch(trainer))

    def tell(self, epoch: int, figures: dict[str, Any]) -> None:
        self.run.epochs = epoch
        self.stop()
        self.run.save()
        if self.progress:
            self.progress(epoch, self.epochs, figures)

    def stop(self) -> None:
        self.run.seconds = self.before + time.perf_counter() - self.start


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
