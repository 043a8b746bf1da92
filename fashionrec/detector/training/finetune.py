"""Fine-tune a detector without losing silently: replay, weight interpolation, and a decision on two
test sets.

Training plane: imported by name when something is fine-tuned. Old images are replayed with the new
ones, and the old weights act as a teacher whose features are to be preserved (ultralytics' own
distillation, with the identity between equal layers), which is the only protection of old knowledge
without old images. Optimizer and learning rate are explicit. Afterwards the weights before and
after are interpolated (WiSE-FT, Wortsman et al., arXiv 2109.01903) by the factor that is best on
the validation of both datasets. Whether the result may be used is decided above, by
:mod:`fashionrec.evaluation.detection.decision`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fashionrec.common.files import sha256_file
from fashionrec.common.system import replace
from fashionrec.common.text import plural, shell_word
from fashionrec.config import FinetuneConfig
from fashionrec.detector.training.options import augmentation
from fashionrec.detector.training.train import Log, Progress, fit, tell_which
from fashionrec.detector.training.ultra import load_yolo, own_folder, quiet, stamped
from fashionrec.errors import ConfigError, DataError, ModelError
from fashionrec.labels.data_yaml import YoloData, dataset_fingerprint, declared, read_data_yaml, write_own_yaml
from fashionrec.labels.label_lines import read_labels
from fashionrec.models.runs import Run, start_run

#: Decides on weights before and after by the test sets ``new`` and ``old`` (if available), and
#: writes its reports into the run's folder. Returns a document with ``after`` and ``decision``.
Judge = Callable[[Path, Path, Mapping[str, Path], Path], dict[str, Any]]


#: Settings that ultralytics knows by the same name, with other defaults here.
_WARMUP = ("nbs", "warmup_epochs", "warmup_bias_lr")


def finetune_detector(
    config: FinetuneConfig,
    runs: Path,
    judge: Judge,
    *,
    log: Log | None = None,
    progress: Progress | None = None,
) -> Run:
    """Fine-tune, interpolate, and let ``judge`` measure before and after on both test sets and
    decide.

    Writes ``runs/finetune/NAME`` with ``weights/best_ft.pt`` and the judge's reports; the run's
    ``notes["decision"]`` says whether it is promoted and why. Raises :class:`ConfigError`,
    :class:`DataError` or :class:`ModelError` before it starts.
    """
    say = log or (lambda text: None)
    before, new = Path(config.weights or ""), Path(config.data or "")
    old = Path(config.replay) if config.replay else None
    if not before.is_file():
        raise ModelError(f"no such weights: {before}", hint="--weights runs/train/NAME/weights/best.pt")
    if before.suffix != ".pt":
        raise ModelError(
            f"{before} cannot be fine-tuned: only detectors of ultralytics can",
            hint="train on from it, without a decision: "
            f"fashionrec train {shell_word(f'model={before}')} {shell_word(f'data={new}')}",
        )
    if config.optimizer.lower() == "auto":
        raise ConfigError("finetune.optimizer=auto would ignore lr0", hint="name one: AdamW, SGD")
    new_data, old_data = read_data_yaml(new), read_data_yaml(old) if old else None
    for split in ("train", "valid"):
        new_data.images(split)
    tell_which(config.weights or "", say)
    base = load_yolo(str(before))
    _same_classes(base.names, new_data, old_data)
    pixels = stamped(base).get("pixels", {})
    _same_pixels(pixels, new, *([old] if old else []))
    replay = old_data is not None and "train" in old_data.splits
    teach = _teaching(base, before, config, needed=not replay)
    run = start_run(runs / "finetune", config.name, kind="detector", verb="finetune", exist_ok=config.exist_ok)
    run.seed = config.seed
    run.config = {"finetune": config.model_dump()}
    run.dataset = {"new": {"path": str(new), "fingerprint": dataset_fingerprint(new)}}
    if pixels:
        run.dataset["pixels"] = pixels
    if old:
        run.dataset["old"] = {"path": str(old), "fingerprint": dataset_fingerprint(old)}
    run.notes["before"] = {"file": before.name, "sha256": sha256_file(before)}
    run.notes["distilled"] = bool(teach)
    run.save()
    extra = _old_photos(new_data, old_data, config)
    replayed = len(extra["train"])
    run.notes["replayed"] = replayed
    say(
        f"{plural(len(new_data.images('train')), 'new image')}, {replayed} old ones replayed"
        + ("; distillation from the old weights takes about a third more time" if teach else "")
    )
    side = int(config.imgsz or base.overrides.get("imgsz") or 640)
    names = ("epochs", "patience", "batch", "device", "workers", "seed", "optimizer", "lr0", "freeze", *_WARMUP)
    asked = augmentation(declared(new))
    settings = {name: getattr(config, name) for name in names} | {"imgsz": side} | asked | config.options() | teach
    if teach:
        base.add_callback("on_pretrain_routine_end", keep_features_as_they_are)
    fit(base, run, new_data, settings, progress, extra=extra)
    run.status, run.promoted = "running", False
    run.save()
    measurable = {"new": new_data, "old": old_data}
    watched = {name: data for name, data in measurable.items() if data is not None and "valid" in data.splits}
    factor, tried = _choose_factor(before, run, watched, side, config)
    run.notes["interpolation"] = {"factor": factor, "tried": tried}
    say(f"interpolation factor {factor:g} between the old weights (0) and the fine-tuned ones (1)")
    run.weights["best_ft"] = "weights/best_ft.pt"
    sets = {"new": new} | ({"old": old} if old else {})
    document = judge(before, run.path / "weights" / "best_ft.pt", sets, run.path)
    run.metrics = document["after"]["new"]
    run.notes["decision"] = document["decision"]
    run.promoted = bool(document["decision"]["promoted"])
    run.status = "done"
    run.save()
    return run


def _teaching(base: Any, before: Path, config: FinetuneConfig, *, needed: bool) -> dict[str, Any]:
    """Return ultralytics' options for distillation from the old weights, if the head supports it.

    Raises :class:`ConfigError` if it does not and nothing else protects old knowledge.
    """
    from ultralytics.nn.modules.head import Detect

    if not config.distill:
        return {}
    if any(isinstance(module, Detect) for module in base.model.model):
        return {"distill_model": str(before.resolve()), "dis": config.distill}
    if needed:
        raise ConfigError(
            "these weights cannot act as a teacher: distillation needs a YOLO head",
            hint="give the old data with --replay, or set distill=0",
        )
    return {}


def keep_features_as_they_are(trainer: Any) -> None:
    """Compare features directly: teacher and student are the same network, so no learned projection
    is needed.
    """
    import torch

    wrapped = trainer.model
    wrapped.projector = torch.nn.ModuleList(torch.nn.Identity() for _ in wrapped.projector)
    if getattr(trainer, "ema", None) is not None:
        trainer.ema.ema.projector = torch.nn.ModuleList(torch.nn.Identity() for _ in wrapped.projector)


def interpolate(before: Any, after: Any, factor: float) -> dict[str, Any]:
    """``(1 - factor) * before + factor * after`` of two state dicts, running statistics too;
    counters are taken as after.
    """
    mixed = {}
    for name, value in after.items():
        if value.dtype.is_floating_point:
            mixed[name] = (1 - factor) * before[name].float() + factor * value.float()
        else:
            mixed[name] = value
    return mixed


def _choose_factor(
    before: Path, run: Run, sets: Mapping[str, YoloData], side: int, config: FinetuneConfig
) -> tuple[float, list[dict[str, float]]]:
    """Write ``best_ft.pt`` with the best factor, and record the scores (mAP50-95) of each on the
    valid splits of ``sets``.
    """
    first = load_yolo(str(before)).model.float().state_dict()
    tuned_path = run.path / "weights" / "best.pt"
    second = load_yolo(str(tuned_path)).model.float().state_dict()
    tried: list[dict[str, float]] = []
    listed = {name: write_own_yaml(data, own_folder() / f"validate-{name}") for name, data in sets.items()}
    for factor in sorted({0.0, *config.interpolate}):
        mixed = load_yolo(str(tuned_path))
        mixed.model.float().load_state_dict(interpolate(first, second, factor))
        candidate = run.path / "weights" / f".mix-{factor:g}.pt"
        with quiet(run.path / "train.log"):
            mixed.save(str(candidate))
        scores = {name: _validate(candidate, data, side, run) for name, data in listed.items()}
        tried.append({"factor": factor, **scores})
    best = best_factor(tried, config.tolerance)
    for scores in tried:
        candidate = run.path / "weights" / f".mix-{scores['factor']:g}.pt"
        if scores["factor"] == best:
            replace(candidate, run.path / "weights" / "best_ft.pt")
        else:
            candidate.unlink()
    return best, tried


def best_factor(tried: Sequence[Mapping[str, float]], tolerance: float) -> float:
    """Choose the factor from scores by ``factor`` (0, the old weights, is among them).

    It is the one that gains most on ``new`` among those losing at most ``tolerance`` points on
    ``old``; if all lose more, the one that loses least relative to its gain. Without ``old``, it is
    the smallest factor with nine tenths of the largest gain: nearer to the old weights, less is
    forgotten.
    """
    start = next(scores for scores in tried if scores["factor"] == 0)
    mixed = sorted((scores for scores in tried if scores["factor"] > 0), key=lambda scores: scores["factor"])
    gains = {scores["factor"]: (scores.get("new", 0.0) - start.get("new", 0.0)) * 100 for scores in mixed}
    if "old" not in start:
        most = max(gains.values())
        return next(factor for factor, gain in gains.items() if gain >= most - 0.1 * abs(most))
    lost = {scores["factor"]: (start["old"] - scores["old"]) * 100 for scores in mixed}
    kept = [factor for factor in gains if lost[factor] <= tolerance]
    return max(kept or gains, key=lambda factor: gains[factor] - (0.0 if kept else lost[factor]))


def _validate(weights: Path, data: Path, side: int, run: Run) -> float:
    with quiet(run.path / "train.log"):
        yolo = load_yolo(str(weights))
        place = {"project": str(run.path.resolve()), "name": ".validation", "exist_ok": True}
        found = yolo.val(
            data=str(data.resolve()),
            split="val",
            imgsz=side,
            plots=False,
            workers=0,
            device=run.device or "cpu",
            **place,
        )
    return float(found.box.map)


def _old_photos(new: YoloData, old: YoloData | None, config: FinetuneConfig) -> dict[str, list[Path]]:
    """Return the additions to the new data: a sample of old photos for training, and the old
    validation set for monitoring.
    """
    if old is None:
        return {"train": [], "valid": []}
    replayed: list[Path] = []
    if "train" in old.splits:
        count = round(config.replay_ratio * len(new.images("train")))
        replayed = balanced_sample(old.images("train"), count, config.seed)
    return {"train": replayed, "valid": old.images("valid") if "valid" in old.splits else []}


def balanced_sample(images: Sequence[Path], count: int, seed: int) -> list[Path]:
    """Return ``count`` images (all, if there are fewer), drawn from the classes in turn, rarest
    class first.
    """
    rng = random.Random(seed)
    by_class: dict[int, list[Path]] = {}
    for image in images:
        for number in {int(row[0]) for row in read_labels(image)} or {-1}:
            by_class.setdefault(number, []).append(image)
    queues = sorted(by_class.values(), key=len)
    for queue in queues:
        rng.shuffle(queue)
    chosen: dict[Path, None] = {}
    while len(chosen) < min(count, len(images)) and any(queues):
        for queue in queues:
            while queue and queue[-1] in chosen:
                queue.pop()
            if queue and len(chosen) < count:
                chosen[queue.pop()] = None
    return list(chosen)


def _same_classes(names: dict[int, str], *datasets: YoloData | None) -> None:
    for data in datasets:
        if data is not None and list(data.names.values()) != list(names.values()):
            raise DataError(
                f"{data.path} has the classes {', '.join(data.names.values())}; the weights have {', '.join(names.values())}",
                hint="`fashionrec fetch-dataset yolo:PATH` renumbers a dataset's classes by name",
            )


def _same_pixels(pixels: dict[str, Any], *datasets: Path) -> None:
    """Require the pixel operations of the detector's training data. Raises :class:`DataError`."""
    for path in datasets:
        found = declared(path).get("pixels", {})
        if found != pixels:
            raise DataError(
                f"the photos of {path} were prepared with {found or 'nothing'}, those the weights were trained on with"
                f" {pixels or 'nothing'}",
                hint="use `fashionrec fetch-dataset` with the same dataset.resize, imgsz and equalize",
            )
