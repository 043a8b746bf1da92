"""The plain training loop for families without a trainer of their own. Training plane.

A family builds a :class:`Learner`; the rest is the same for all: photos letterboxed by the serving
code and augmented, AdamW or SGD, a warm-up and a cosine schedule, mixed precision on CUDA, early
stopping, and after each epoch mAP50-95 of the valid split by our own evaluator, through the serving
code, with the network still in torch. Every random choice depends only on seed and epoch, so that a
killed training resumes as if it had not been killed.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fashionrec.common.files import write_atomic
from fashionrec.common.text import TableWriter, plural
from fashionrec.config import ImagesConfig, TrainConfig
from fashionrec.detector.detect import Detector
from fashionrec.detector.training.balance import BalancedSampler, image_weights
from fashionrec.detector.training.families import STATE, Evaluate, Log, Progress
from fashionrec.detector.training.families.checkpoint import About, load_state, save_state, save_weights
from fashionrec.detector.training.families.options import settled
from fashionrec.detector.training.families.photos import LabelledPhotos, Variation
from fashionrec.errors import ConfigError, FashionrecError
from fashionrec.labels.data_yaml import read_data_yaml
from fashionrec.labels.label_lines import read_labels
from fashionrec.models.bundle import Bundle
from fashionrec.models.runs import Run

#: Boxes float32 [n, 4] (xyxy pixels of the input) and class numbers int64 [n] of one photo.
Truth = tuple[torch.Tensor, torch.Tensor]

_VARIED = tuple(Variation.__dataclass_fields__)
_CLIP = 10.0  # maximum gradient norm, as in ultralytics
_MOST_WARMUP = 0.2  # share of the steps


@dataclass
class Learner:
    """A network of a family.

    ``model`` is saved, ``served`` exported (float32 [n, 3, side, side] to its raw head); it also
    has the losses for normalized images and their truth, and the bundle's spec.
    """

    model: nn.Module
    served: nn.Module
    losses: Callable[[torch.Tensor, list[Truth]], torch.Tensor]
    spec: dict[str, Any]
    lr0: float  # for optimizer=auto


class TorchDetector(Detector):
    """A detector whose network is still in torch; everything else is the serving code."""

    def __init__(self, learner: Learner, device: torch.device) -> None:
        bundle = Bundle(Path(), "detector", "unwritten", "", {}, learner.spec, {}, {}, {})
        super().__init__(bundle, conf=0.25, iou=0.6, max_garments=100)
        self._network, self._place = learner.served, device

    def _run(self, values: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(self._network(torch.from_numpy(values).to(self._place)).float().cpu().numpy())


def placed(device: int | str | list[int] | None) -> torch.device:
    """Return the device to train on: the GPU if there is one and no other was named. Raises
    :class:`ConfigError`.
    """
    if device is None or device == "":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(device, list) or "," in str(device):
        raise ConfigError(f"device={device}: this family trains on a single device", hint="device=0, or device=cpu")
    name = f"cuda:{device}" if str(device).isdigit() else str(device)
    try:
        found = torch.device(name)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device} is not available: {str(error).splitlines()[0][:120]}") from None
    return found


def fit(
    run: Run,
    config: TrainConfig,
    data: Path,
    learner: Learner,
    about: About,
    progress: Progress | None,
    log: Log,
    *,
    limits: ImagesConfig,
    evaluate: Evaluate,
) -> None:
    """Train into the run's folder, and fill in the run's weights, metrics, device and epochs.

    Writes ``weights/{best,last}.safetensors`` and ``results.csv``. Resumes from
    ``weights/state.safetensors`` if it exists.
    """
    options = settled(config, data)
    yolo = read_data_yaml(data)
    images = yolo.images("train")
    classes = [read_labels(path)[:, 0] for path in images]
    variation = Variation(**{name: float(options[name]) for name in _VARIED})
    device = placed(config.device)
    run.device = str(device)
    learner.model.to(device)
    photos = LabelledPhotos(images, about.imgsz, int(learner.spec["pad"]), variation, config.seed, limits)
    steps = math.ceil(len(images) / int(config.batch))
    optimizer, lr = _optimizer(learner, config, options)
    schedule = _schedule(lr, float(options["lrf"]), steps * config.epochs, round(options["warmup_epochs"] * steps))
    log(
        f"{about.model} on {device}: {type(optimizer).__name__}, learning rate {lr:g}"
        + (" (optimizer=auto: lr0 is the family's default)" if config.optimizer.lower() == "auto" else "")
    )
    _settle_norms(learner.model, steps * config.epochs)
    scaler = torch.amp.GradScaler("cuda", enabled=device.type == "cuda" and bool(options["amp"]))
    record: dict[str, Any] = {"rows": [], "best": -1.0, "best_epoch": -1, "metrics": {}, "seconds": 0.0}
    weights = run.path / "weights"
    if (weights / STATE).is_file():
        record = load_state(weights / STATE, learner.model, optimizer)
        if record["scaler"]:
            scaler.load_state_dict(record["scaler"])
        log(f"resuming after epoch {len(record['rows'])} of {config.epochs}")
    sampler = (
        BalancedSampler(image_weights(classes, len(yolo.names)), config.seed) if config.balance == "sample" else None
    )
    for epoch in range(len(record["rows"]), config.epochs):
        if epoch - record["best_epoch"] > config.patience > 0 and record["best_epoch"] >= 0:
            log(f"no improvement for {plural(config.patience, 'epoch')}: stopped at epoch {epoch}")
            break
        start = time.perf_counter()
        torch.manual_seed(config.seed * 1_000_003 + epoch)  # for dropout and sampled proposals
        loss = _epoch(learner, photos, sampler, epoch, config, optimizer, scaler, schedule, device)
        figures = _measured(learner, device, data, evaluate)
        better = figures["map50_95"] >= record["best"]
        if better:
            if figures["map50_95"] > record["best"] or record["best"] == 0:
                record["best_epoch"] = epoch
            record |= {"best": figures["map50_95"], "metrics": figures}
            save_weights(weights / "best.safetensors", learner.model, about)
        row = {
            "epoch": epoch + 1,
            "loss": loss,
            **{k: figures[k] for k in ("precision", "recall", "map50", "map50_95")},
        }
        record["rows"].append({**row, "lr": optimizer.param_groups[0]["lr"]})
        record |= {"seconds": record["seconds"] + time.perf_counter() - start, "scaler": scaler.state_dict()}
        save_weights(weights / "last.safetensors", learner.model, about)
        save_state(
            weights / STATE, learner.model, optimizer, about, record
        )  # last, so that everything it refers to is on disk
        _write_results(run.path / "results.csv", record["rows"])
        run.epochs, run.seconds = len(record["rows"]), record["seconds"]
        run.save()
        if progress:
            progress(
                epoch + 1, config.epochs, {"map50": figures["map50"], "map50_95": figures["map50_95"], "loss": loss}
            )
    run.epochs, run.seconds = len(record["rows"]), record["seconds"]
    run.weights = {which: f"weights/{which}.safetensors" for which in ("best", "last")}
    run.metrics = record["metrics"]
    (weights / STATE).unlink(missing_ok=True)


def _epoch(
    learner: Learner,
    photos: LabelledPhotos,
    sampler: BalancedSampler | None,
    epoch: int,
    config: TrainConfig,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    schedule: Callable[[int], float],
    device: torch.device,
) -> float:
    """Train one epoch; return the mean loss."""
    learner.model.train()
    photos.epoch = epoch
    if sampler is None:
        order = np.random.default_rng((config.seed, epoch)).permutation(len(photos)).tolist()
    else:
        sampler.epoch = epoch
        order = list(sampler)
    if len(order) % int(config.batch) == 1 < int(config.batch):
        order.append(order[0])  # no batch of one photo: batch norm may get a single value
    loader: Any = torch.utils.data.DataLoader(
        photos,  # type: ignore[arg-type]
        batch_size=int(config.batch),
        sampler=order,
        num_workers=config.workers,
        collate_fn=_collated,
    )
    total, count = 0.0, 0
    step = epoch * len(loader)
    for pictures, truth in loader:
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        images = _normalized(pictures.to(device), learner.spec)
        with torch.autocast(device.type, enabled=scaler.is_enabled()):
            loss = learner.losses(images, [(boxes.to(device), classes.to(device)) for boxes, classes in truth])
        if not torch.isfinite(loss):
            raise FashionrecError(
                f"the loss became {loss.item()} in epoch {epoch + 1}", hint="lower lr0, with optimizer=AdamW"
            )
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(learner.model.parameters(), _CLIP)
        scaler.step(optimizer)
        scaler.update()
        total, count, step = total + loss.item() * len(truth), count + len(truth), step + 1
    return total / count


def _measured(learner: Learner, device: torch.device, data: Path, evaluate: Evaluate) -> dict[str, Any]:
    """Measure the valid split with our own evaluator, as a run records it."""
    learner.model.eval()
    document = evaluate(TorchDetector(learner, device), data, "valid")
    names = ("map50", "map50_95", "precision", "recall")
    per_class = {name: {key: float(values[key]) for key in names} for name, values in document["per_class"].items()}
    return {**{key: float(document[key]) for key in names}, "per_class": per_class, "split": "valid"}


def _normalized(pictures: torch.Tensor, spec: dict[str, Any]) -> torch.Tensor:
    """Normalize uint8 [n, side, side, 3] for the network: the torch version of serving's
    ``batch_input``.
    """
    mean, std = (torch.tensor(spec[key], device=pictures.device)[:, None, None] for key in ("mean", "std"))
    result: torch.Tensor = (pictures.permute(0, 3, 1, 2).float() * spec["scale"] - mean) / std
    return result


def _collated(items: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, list[Truth]]:
    pictures = torch.from_numpy(np.stack([picture for picture, _, _ in items]))
    return pictures, [(torch.from_numpy(boxes), torch.from_numpy(classes)) for _, boxes, classes in items]


def _settle_norms(model: nn.Module, total: int) -> None:
    """Average running statistics over the last twentieth of the steps, at least ten.

    With EfficientDet's own momentum of 0.01, a short training would be judged and served by its
    initial statistics; with those of a single batch it would explode.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            module.momentum = max(module.momentum, min(0.1, 20 / total))


def _optimizer(learner: Learner, config: TrainConfig, options: dict[str, Any]) -> tuple[torch.optim.Optimizer, float]:
    """Create the optimizer: weights of layers decay, biases and norms do not."""
    trained = [value for value in learner.model.parameters() if value.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [value for value in trained if value.ndim > 1], "weight_decay": float(options["weight_decay"])},
        {"params": [value for value in trained if value.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = config.optimizer.lower()
    lr = learner.lr0 if kind == "auto" else config.lr0
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=float(options["momentum"]), nesterov=True), lr
    return torch.optim.AdamW(groups, lr=lr), lr


def _schedule(lr: float, last: float, total: int, warmup: int) -> Callable[[int], float]:
    """Return the learning rate of each step: a linear warm-up, then a cosine down to the fraction
    ``last``.
    """
    warmup = min(warmup, int(_MOST_WARMUP * total))

    def at(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, total - warmup)
        return lr * (last + (1 - last) * (1 + math.cos(math.pi * min(1.0, done))) / 2)

    return at


def _write_results(path: Path, rows: list[dict[str, Any]]) -> None:
    table = io.StringIO(newline="")
    writer = TableWriter(table, lineterminator="\r\n")
    writer.writerow(rows[0])
    writer.writerows([f"{v:.6g}" if isinstance(v, float) else v for v in map(row.get, rows[0])] for row in rows)
    write_atomic(path, table.getvalue())
