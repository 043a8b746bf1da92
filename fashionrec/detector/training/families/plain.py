"""Shared parts of families without a trainer of their own: the start of a training, its run, its
export.

Such a family is a module with ``NAME``, ``PACKAGES``, ``is_known(model)``, ``check(config)``,
``build(about)`` and ``pretrained(learner, about)``.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import socket
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fashionrec.common.extras import need
from fashionrec.common.text import plural
from fashionrec.config import ImagesConfig, TrainConfig
from fashionrec.detector.training.families import STATE, Evaluate, Graph, Log, Progress
from fashionrec.detector.training.families.checkpoint import About, load_weights
from fashionrec.detector.training.families.loop import Learner, fit, placed
from fashionrec.detector.training.families.options import settled
from fashionrec.detector.training.families.ultra import square_by_ultralytics
from fashionrec.detector.training.resume import same_settings, unfinished
from fashionrec.detector.training.ultra import failures_in_one_line, load_ultralytics, quiet
from fashionrec.errors import DataError, ModelError
from fashionrec.labels.data_yaml import dataset_fingerprint, declared, read_data_yaml
from fashionrec.labels.label_lines import read_labels
from fashionrec.models.runs import Run, remove_leftovers, run_folder, start_run

if TYPE_CHECKING:
    from PIL import Image

_PATIENCE = 15.0  # seconds until a server must answer


def train_in_run(
    family: Any,
    config: TrainConfig,
    runs: Path,
    *,
    limits: ImagesConfig,
    evaluate: Evaluate,
    log: Log | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train a detector of a family into ``runs/train/NAME``, or resume it; the run is recorded in
    any case.

    Raises :class:`ConfigError`, :class:`DataError` or :class:`ModelError` before it starts.
    """
    need(*family.PACKAGES, what=f"training {config.model}")
    before = unfinished(runs / "train", config.name) if config.resume else None
    data = Path(config.data or "")
    settled(config, data)
    family.check(config)
    placed(config.device)
    _trainable(data)
    if Path(config.model).suffix == ".safetensors":  # so that it is refused before there is a run
        about = About.of(Path(config.model))
        load_weights(Path(config.model), family.build(about).model)
    fingerprint, watched = dataset_fingerprint(data), dataset_fingerprint(data, ("valid",))
    if before is not None:
        same_settings(before, config, fingerprint)
        run = before
        run.notes["resumed"] = int(run.notes.get("resumed", 0)) + 1
    else:
        run = start_run(runs / "train", config.name, kind="detector", verb="train", exist_ok=config.exist_ok)
        remove_leftovers(run)
        run_folder(run.path).remove(f"weights/{STATE}")
    run.config = {"train": config.model_dump() | {"name": run.name, "resume": False}}
    run.seed = config.seed
    run.dataset = {"path": str(data), "fingerprint": fingerprint, "valid": watched}
    pixels = declared(data).get("pixels")
    if pixels:
        run.dataset["pixels"] = pixels
    run.status = "running"
    run.save()
    log_file = run.path / "train.log"

    def say(text: str) -> None:
        with log_file.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
        if log:
            log(text)

    try:
        with failures_in_one_line("training", log_file), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            learner, about = begin(family, run, config, data, say)
            fit(run, config, data, learner, about, progress, say, limits=limits, evaluate=evaluate)
    except BaseException:
        run.status = "failed"
        run.save()
        raise
    run.status, run.promoted = "done", True
    run.save()
    return run


def begin(family: Any, run: Run, config: TrainConfig, data: Path, log: Log) -> tuple[Learner, About]:
    """Build the network, and load pretrained weights or those of a checkpoint of fashionrec."""
    names = read_data_yaml(data).names
    source = Path(config.model) if Path(config.model).suffix == ".safetensors" else None
    earlier = About.of(source) if source else None
    about = About(
        family=family.NAME,
        model=earlier.model if earlier else Path(config.model).name.lower(),
        names=names,
        imgsz=config.imgsz,
        pixels=dict(run.dataset.get("pixels", {})),
        versions={name: importlib.metadata.version(name) for name in family.PACKAGES},
        notes=dict(earlier.notes) if earlier else {},
    )
    torch.manual_seed(config.seed)
    resumed = (run.path / "weights" / STATE).is_file()
    if resumed:
        about = About.of(run.path / "weights" / STATE)
        learner = family.build(about)
    elif source and earlier:
        learner = family.build(about)
        take_weights(source, earlier, learner.model, about, family, log)
    elif settled(config, data)["pretrained"]:
        learner, about = start(family, about, log)
    else:
        learner = family.build(about)
        log(f"{about.model} from scratch")
    return learner, about


def start(family: Any, about: About, log: Log) -> tuple[Learner, About]:
    """Return a learner with published weights, or without if they are not available."""
    noted = replace(about, notes={**about.notes, "pretrained": True})
    learner = family.build(noted)
    try:
        with impatient(), quiet(None):
            what = family.pretrained(learner, noted)
    except ModelError:
        raise
    except Exception as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())[:160] or type(error).__name__
        if not isinstance(error, (OSError, HTTPException, LookupError)) and "hash" not in reason:
            raise ModelError(
                f"pretrained weights of {about.model} are unusable: {reason}",
                hint=f"delete the cached files under {torch.hub.get_dir()}, or set pretrained=false",
            ) from None
        # network, proxy or disk errors
        log(f"pretrained weights of {about.model} cannot be downloaded ({reason}): training from scratch")
        return family.build(about), about
    log(f"{about.model} starts from {what}")
    return learner, noted


def exported(
    learner: Learner,
    about: About,
    work: Path,
    normalize: Callable[[torch.Tensor], torch.Tensor],
    reference: Callable[[torch.Tensor], np.ndarray],
) -> Graph:
    """Export a learner's network to ONNX, with its source for comparison.

    ``normalize`` is how the family's own library normalizes an image float32 [3, side, side] of 0
    to 1, ``reference`` its output for such an image.
    """
    load_ultralytics()
    learner.model.eval()
    learner.served.eval()  # the export keeps this mode for everything inside
    side, most = about.imgsz, int(learner.spec.get("batch") or 0)
    example = torch.zeros(most or 2, 3, side, side)
    path = work / "detect.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            learner.served,
            (example,),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=[learner.spec["input"]],
            output_names=["output0"],
            dynamic_axes={"output0": {1: "boxes"}}
            if most
            else {learner.spec["input"]: {0: "batch"}, "output0": {0: "batch"}},
        )

    def normalized(photo: Image.Image) -> torch.Tensor:
        square = torch.from_numpy(np.ascontiguousarray(square_by_ultralytics(photo, side)))
        return normalize(square.permute(2, 0, 1).float() / 255)

    source = {"architecture": about.model, **about.versions}
    return Graph(
        path,
        learner.spec,
        source,
        reference=lambda photo: reference(normalized(photo)),
        pixels=lambda photo: np.asarray(normalized(photo).numpy()),
    )


def spec_of(about: About, *, head: str, mean: tuple[float, ...], std: tuple[float, ...], **more: Any) -> dict[str, Any]:
    """Return the bundle's spec of a network whose images are letterboxed, scaled to 0..1 and
    normalized.
    """
    spec: dict[str, Any] = {
        "imgsz": about.imgsz,
        "resize": "letterbox",
        "pad": 114,
        "scale": 1 / 255,
        "mean": list(mean),
        "std": list(std),
        "channels": "RGB",
        "head": head,
        "labels": {str(number): name for number, name in about.names.items()},
        "input": "images",
        **more,
    }
    if about.pixels:
        spec["pixels"] = about.pixels
    return spec


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Treat servers that do not answer in time as unreachable."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def take_weights(source: Path, earlier: About, model: torch.nn.Module, about: About, family: Any, log: Log) -> None:
    """Load weights of an earlier training; with other classes, all except the class layers."""
    if earlier.names == about.names:
        load_weights(source, model)
        log(f"continuing from {source}")
        return
    other = family.build(earlier).model
    load_weights(source, other)
    fresh, old = model.state_dict(), other.state_dict()
    same = {name: value for name, value in old.items() if fresh[name].shape == value.shape}
    model.load_state_dict(fresh | same)
    log(f"continuing from {source}, except its class layers, whose classes differ")


def _trainable(data: Path) -> None:
    """Raise :class:`DataError` for labels that cannot be learned, or a valid split
    without boxes.
    """
    yolo = read_data_yaml(data)
    if sorted(yolo.names) != list(range(len(yolo.names))):
        raise DataError(f"classes of {data} are not numbered 0 to {len(yolo.names) - 1}: {sorted(yolo.names)}")
    for path in yolo.images("train"):
        numbers = read_labels(path)[:, 0]
        if len(numbers) and numbers.max() >= len(yolo.names):
            raise DataError(
                f"{path} has a box of class {numbers.max():.0f}, but {data} has {plural(len(yolo.names), 'class', 'classes')}",
                hint="class numbers start at 0",
            )
    if not any(len(read_labels(path)) for path in yolo.images("valid")):
        raise DataError(f"the valid split of {data} has no boxes", hint="training uses it to choose the best epoch")
