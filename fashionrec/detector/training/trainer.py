"""Additions to ultralytics' trainers that do not change what is learned.

Checkpoints are written atomically, so that a kill leaves one to resume from; a training that only
lacks its end can be finished; only requested services are used; nothing is downloaded to check
mixed precision; class balance if configured.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fashionrec.common.extras import patched
from fashionrec.common.files import dump_json, temporary_beside, write_atomic
from fashionrec.common.system import put
from fashionrec.config.yolo_options import YOLO_OPTIONS
from fashionrec.detector.training.balance import balanced
from fashionrec.detector.training.gpus import launch
from fashionrec.detector.training.guard import pixels_in
from fashionrec.detector.training.loggers import started, switched
from fashionrec.detector.training.ultra import load_ultralytics
from fashionrec.errors import ModelError

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Trainer
else:
    _Trainer = object  # mixed into a trainer of the library, which callers import

#: The checkpoint of the previous epoch, kept during training in case a disk damages last.pt.
PREVIOUS = "previous.pt"
#: Options that name a file.
_FILES = frozenset({"pretrained", "distill_model"})
#: Attributes that training on several GPUs returns to the starting process.
METRICS = ".metrics.json"


@dataclass(frozen=True)
class Plan:
    """Tasks of a trainer beyond ultralytics' settings.

    ``done`` epochs were trained before; with ``finish`` all were. ``pixels`` is the folder of
    ``cache=disk``.
    """

    log: str
    balance: str = "none"
    loggers: tuple[str, ...] = ()
    done: int = 0
    finish: bool = False
    pixels: str | None = None


class RunTrainer(_Trainer):
    """Mixin for ultralytics' trainers, added by :func:`trainer_class`."""

    plan: ClassVar[Plan]
    ending = False  # the final validation calls the epoch callbacks once more

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        load_ultralytics()  # guarded in each process of several GPUs, too
        with switched(self.plan.loggers):
            super().__init__(*args, **kwargs)
        if self.plan.done:
            # with the seed alone, photo order and augmentations of the first epochs would repeat
            from ultralytics.utils.torch_utils import init_seeds

            init_seeds(self.args.seed + 1 + _rank() + self.plan.done, deterministic=self.args.deterministic)
        self.wdir, self.last, self.best = WholePath(self.wdir), WholePath(self.last), WholePath(self.best)

    def train(self) -> None:
        if self.ddp:
            launch(self, Path(self.plan.log))
        else:
            super().train()

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Take from a checkpoint how it was trained, but none of the files that it names."""
        super().check_resume(overrides)
        if not self.resume:
            return
        from ultralytics.utils import DEFAULT_CFG_DICT

        for name in set(vars(self.args)) - (YOLO_OPTIONS - _FILES) - {"model", "resume", "task", "mode"}:
            setattr(self.args, name, overrides.get(name, DEFAULT_CFG_DICT.get(name)))

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        with pixels_in(Path(self.plan.pixels)) if self.plan.pixels else contextlib.nullcontext():
            return super().build_dataset(img_path, mode, batch)

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        loader = super().get_dataloader(dataset_path, batch_size=batch_size, rank=rank, mode=mode)
        if mode != "train" or self.plan.balance != "sample":
            return loader
        return balanced(loader, self.data["nc"], self.args.seed, max(rank, 0), max(self.world_size, 1))

    def resume_training(self, ckpt: Any) -> None:
        if self.plan.finish:
            self.start_epoch = self.epochs
            return
        super().resume_training(ckpt)
        if self.plan.balance == "sample":
            self.train_loader.sampler.set_epoch(self.start_epoch)

    def save_model(self) -> Any:
        if self.last.exists():
            previous = self.last.with_name(PREVIOUS)
            with contextlib.suppress(OSError):  # file systems without links do without
                previous.unlink(missing_ok=True)
                os.link(self.last, previous)
        return super().save_model()

    def final_eval(self) -> None:
        from ultralytics.engine import trainer as engine

        self.ending = True
        with patched(engine, strip_optimizer=_strip_whole):
            super().final_eval()
        if _rank() == 0:
            validator: Any = self.validator
            write_atomic(Path(self.save_dir) / METRICS, dump_json(metrics_of(validator.metrics)))

    def _setup_train(self) -> None:
        from ultralytics.engine import trainer as engine

        with patched(engine, check_amp=check_amp_offline):
            super()._setup_train()
        if _rank() < 1:
            started(self, self.plan.loggers)

    def _do_train(self) -> None:
        if not self.plan.finish:
            super()._do_train()
            return
        if self.world_size > 1:
            self._setup_ddp()
        self._setup_train()
        self.epoch, self.train_time_start = self.plan.done - 1, time.time()
        self.final_eval()
        if _rank() < 1:
            if self.args.plots:
                self.plot_metrics()
            self.run_callbacks("on_train_end")
        for loader in (self.train_loader, self.test_loader):
            loader.close()


def trainer_class(yolo: Any, plan: Plan) -> type[Any]:
    """Return the trainer of a model's family with :class:`RunTrainer` mixed in.

    Several GPUs train in separate processes, to which the class travels by value (cloudpickle) with
    its plan. Raises :class:`ModelError` for a head without class weights if the plan balances the
    loss.
    """
    base = yolo.task_map[yolo.task]["trainer"]
    if plan.balance == "loss" and "RTDETR" in base.__name__:
        raise ModelError(
            "RT-DETR's loss has no class weights", hint="train.balance=sample draws rare classes more often"
        )
    return type(f"Run{base.__name__}", (RunTrainer, base), {"plan": plan})


def metrics_of(metrics: Any) -> dict[str, Any]:
    """Return map50, map50_95, precision and recall, overall and per class, of
    ultralytics' metrics.
    """
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


class WholePath(type(Path())):  # type: ignore[misc]
    """A path whose files are written atomically."""

    def write_bytes(self, data: Any) -> int:
        write_atomic(Path(self), bytes(data))
        return len(data)


def _rank() -> int:
    """Return this process's rank among several GPUs; -1 for a single one."""
    return int(os.environ.get("RANK", -1))


def _strip_whole(file: Any, s: str = "", updates: dict[str, Any] | None = None) -> Any:
    """Run ultralytics' ``strip_optimizer`` into a temporary file, then replace its source."""
    from ultralytics.utils.torch_utils import strip_optimizer

    target = Path(s or file)
    temporary = temporary_beside(target)
    found = strip_optimizer(file, str(temporary), updates)
    if temporary.exists():
        put(temporary, target)
    return found


def check_amp_offline(model: Any) -> bool:
    """Run ultralytics' check of mixed precision without the model that it downloads or takes from
    ``./weights``.
    """
    import ultralytics
    from ultralytics.utils.checks import check_amp

    def offline(*_: Any) -> None:
        raise ConnectionError

    with patched(ultralytics, YOLO=offline):
        return bool(check_amp(model))
