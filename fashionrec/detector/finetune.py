"""Finetune a detector so that it cannot silently lose: replay, weight interpolation, and a decision on two test sets.

Training plane: loaded by name when something is finetuned. Old images are replayed beside the new ones; the optimizer and
its learning rate are explicit; afterwards the weights before and after are mixed (WiSE-FT, Wortsman et al., arXiv
2109.01903) by the factor that validation of both data sets likes best. The outcome is a decision: the candidate is promoted
only where the new test set gains and the old one loses no more than the tolerance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from fashionrec.config import FinetuneConfig
from fashionrec.detector.train import Log, Progress, augmentation, fit
from fashionrec.detector.ultra import load_yolo, quiet, stamped
from fashionrec.errors import ConfigError, DataError, ModelError
from fashionrec.files import dump_json, sha256_file, write_atomic
from fashionrec.runs import Run, start_run
from fashionrec.yolo_data import YoloData, dataset_fingerprint, declared, read_data_yaml, read_labels

#: Measures weights (a checkpoint) on one split of a dataset: map50, map50_95, precision, recall, per_class.
Measure = Callable[[Path, Path, str], dict[str, Any]]

METRICS = ("map50", "map50_95", "precision", "recall")


def finetune_detector(
    config: FinetuneConfig,
    runs: Path,
    measure: Measure,
    *,
    log: Log | None = None,
    progress: Progress | None = None,
) -> Run:
    """Finetune, mix, measure before and after on both test sets, decide.

    Writes ``runs/finetune/NAME`` with ``weights/best_ft.pt``, ``comparison.json`` and ``comparison.md``; the run's
    ``notes["decision"]`` says whether it is promoted and why. Raises :class:`ConfigError`, :class:`DataError` or
    :class:`ModelError` before it starts.
    """
    say = log or (lambda text: None)
    before, new = Path(config.weights or ""), Path(config.data or "")
    old = Path(config.replay) if config.replay else None
    if not before.is_file():
        raise ModelError(f"no weights at {before}", hint="--weights runs/train/NAME/weights/best.pt")
    if config.optimizer.lower() == "auto":
        raise ConfigError("finetune.optimizer=auto would ignore lr0", hint="name one: AdamW, SGD")
    new_data, old_data = read_data_yaml(new), read_data_yaml(old) if old else None
    base = load_yolo(str(before))
    _same_classes(base.names, new_data, old_data)
    pixels = stamped(base).get("pixels", {})
    _same_pixels(pixels, new, *([old] if old else []))
    run = start_run(runs / "finetune", config.name, kind="detector", verb="finetune", exist_ok=config.exist_ok)
    run.seed = config.seed
    run.config = {"finetune": config.model_dump()}
    run.dataset = {"new": {"path": str(new), "fingerprint": dataset_fingerprint(new)}}
    if pixels:
        run.dataset["pixels"] = pixels
    if old:
        run.dataset["old"] = {"path": str(old), "fingerprint": dataset_fingerprint(old)}
    run.notes["before"] = {"file": before.name, "sha256": sha256_file(before)}
    run.save()
    data, replayed = _write_data(run, new_data, old_data, config)
    run.notes["replayed"] = replayed
    say(f"{len(new_data.images('train'))} new images, {replayed} old ones replayed")
    side = int(config.imgsz or base.overrides.get("imgsz") or 640)
    names = ("epochs", "patience", "batch", "device", "workers", "seed", "optimizer", "lr0", "freeze")
    asked = augmentation(declared(new))
    settings = {name: getattr(config, name) for name in names} | {"imgsz": side} | asked | config.options()
    fit(base, run, data, settings, progress)
    run.status, run.promoted = "running", False
    factor, tried = _choose_factor(before, run, new, old, side, config)
    run.notes["interpolation"] = {"factor": factor, "tried": tried}
    say(f"mixing factor {factor:g} between the old weights (0) and the finetuned ones (1)")
    after = run.path / "weights" / "best_ft.pt"
    run.weights["best_ft"] = "weights/best_ft.pt"
    comparison = compare(before, after, new, old, measure)
    comparison["decision"] = decide(comparison, config.tolerance)
    write_atomic(run.path / "comparison.json", dump_json(comparison))
    write_atomic(run.path / "comparison.md", to_markdown(comparison))
    run.metrics = comparison["after"]["new"]
    run.notes["decision"] = comparison["decision"]
    run.promoted = comparison["decision"]["promoted"]
    run.status = "done"
    run.save()
    return run


def compare(before: Path, after: Path, new: Path, old: Path | None, measure: Measure) -> dict[str, Any]:
    """Both weights on both test sets (the valid split where a data set has no test), and the differences as rows."""
    sets = {"new": new} | ({"old": old} if old else {})
    splits = {name: "test" if "test" in read_data_yaml(path).splits else "valid" for name, path in sets.items()}
    result: dict[str, Any] = {"splits": splits, "before": {}, "after": {}}
    for which, weights in (("before", before), ("after", after)):
        for name, path in sets.items():
            result[which][name] = measure(weights, path, splits[name])
    rows = []
    for name in sets:
        first, second = result["before"][name], result["after"][name]
        for metric in METRICS:
            rows.append(_row(name, metric, first[metric], second[metric]))
        for label, values in second["per_class"].items():
            if label in first["per_class"]:
                was = first["per_class"][label]["map50_95"]
                rows.append(_row(name, f"map50_95, {label}", was, values["map50_95"]))
    result["rows"] = rows
    return result


def decide(comparison: dict[str, Any], tolerance: float) -> dict[str, Any]:
    """Promote or not, and why. ``tolerance`` is in points (hundredths) of mAP50-95 that the old test set may lose."""
    change = {
        name: (comparison["after"][name]["map50_95"] - comparison["before"][name]["map50_95"]) * 100
        for name in comparison["after"]
    }
    reasons = [f"the new test set {_gained(change['new'])}"]
    promoted = change["new"] > 0
    if "old" in change:
        reasons.append(f"the old test set {_gained(change['old'])} (tolerance {tolerance:g})")
        promoted = promoted and change["old"] >= -tolerance
    else:
        reasons.append("the old data was not given, so what was lost there is not known")
    return {"promoted": promoted, "reasons": reasons, "change_points": change, "tolerance_points": tolerance}


def to_markdown(comparison: dict[str, Any]) -> str:
    """The before/after table."""
    lines = ["| test set | metric | before | after | difference |", "| --- | --- | ---: | ---: | ---: |"]
    for row in comparison["rows"]:
        figures = f"{row['before']:.3f} | {row['after']:.3f} | {row['difference']:+.3f}"
        lines.append(f"| {row['test_set']} | {row['metric']} | {figures} |")
    decision = comparison["decision"]
    verdict = "promoted" if decision["promoted"] else "not promoted"
    return "\n".join([*lines, "", f"{verdict}: {'; '.join(decision['reasons'])}", ""])


def interpolate(before: Any, after: Any, factor: float) -> dict[str, Any]:
    """``(1 - factor) * before + factor * after`` of two state dicts, running statistics too; counters are taken as after."""
    mixed = {}
    for name, value in after.items():
        if value.dtype.is_floating_point:
            mixed[name] = (1 - factor) * before[name].float() + factor * value.float()
        else:
            mixed[name] = value
    return mixed


def _choose_factor(
    before: Path, run: Run, new: Path, old: Path | None, side: int, config: FinetuneConfig
) -> tuple[float, list[dict[str, float]]]:
    """Write ``best_ft.pt`` of the best factor: the most gained on new validation with old validation within tolerance."""
    first = load_yolo(str(before)).model.float().state_dict()
    tuned_path = run.path / "weights" / "best.pt"
    second = load_yolo(str(tuned_path)).model.float().state_dict()
    target = run.path / "weights" / "best_ft.pt"
    tried: list[dict[str, float]] = []
    for factor in sorted({0.0, *config.interpolate}):
        mixed = load_yolo(str(tuned_path))
        mixed.model.float().load_state_dict(interpolate(first, second, factor))
        candidate = run.path / "weights" / f".mix-{factor:g}.pt"
        with quiet(run.path / "train.log"):
            mixed.save(str(candidate))
        scores = {"factor": factor, "new": _validate(candidate, new, side, run)}
        if old:
            scores["old"] = _validate(candidate, old, side, run)
        tried.append(scores)
    start = tried[0]

    def merit(scores: dict[str, float]) -> tuple[bool, float]:
        lost = (start["old"] - scores["old"]) * 100 if old else 0.0
        within = lost <= config.tolerance
        return within, (scores["new"] - start["new"]) * 100 - (0.0 if within else lost)

    best = max((scores for scores in tried if scores["factor"] > 0), key=merit)
    for scores in tried:
        candidate = run.path / "weights" / f".mix-{scores['factor']:g}.pt"
        if scores is best:
            candidate.replace(target)
        else:
            candidate.unlink()
    return best["factor"], tried


def _validate(weights: Path, data: Path, side: int, run: Run) -> float:
    with quiet(run.path / "train.log"):
        yolo = load_yolo(str(weights))
        place = {"project": str(run.path.resolve()), "name": ".validation", "exist_ok": True}
        found = yolo.val(
            data=str(data.resolve()), split="val", imgsz=side, plots=False, workers=0, device=_device(run), **place
        )
    return float(found.box.map)


def _device(run: Run) -> str:
    return run.device or "cpu"


def _write_data(run: Run, new: YoloData, old: YoloData | None, config: FinetuneConfig) -> tuple[Path, int]:
    """A data.yaml in the run: new images and a sample of old ones to train on, both validation sets to watch."""
    images = new.images("train")
    replayed: list[Path] = []
    if old is not None:
        replayed = _balanced_sample(old.images("train"), round(config.replay_ratio * len(images)), config.seed)
    valid = new.images("valid") + (old.images("valid") if old is not None else [])
    for name, paths in (("train", [*images, *replayed]), ("valid", valid)):
        write_atomic(run.path / f"{name}.txt", "".join(f"{path.resolve()}\n" for path in paths))
    document = {"train": "train.txt", "val": "valid.txt", "names": new.names}
    path = run.path / "data.yaml"
    write_atomic(path, yaml.safe_dump({"path": str(run.path.resolve()), **document}, sort_keys=False))
    return path, len(replayed)


def _balanced_sample(images: Sequence[Path], count: int, seed: int) -> list[Path]:
    """``count`` images (all, where there are fewer), taken from the classes in turn, rarest class first."""
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
                f"{data.path} has the classes {', '.join(data.names.values())}; the weights know {', '.join(names.values())}",
                hint="`fashionrec fetch-dataset yolo:PATH` renumbers a dataset's classes by name",
            )


def _same_pixels(pixels: dict[str, Any], *datasets: Path) -> None:
    """A detector goes on seeing what it was trained on. Raises :class:`DataError`."""
    for path in datasets:
        found = declared(path).get("pixels", {})
        if found != pixels:
            raise DataError(
                f"the photos of {path} were prepared with {found or 'nothing'}, those the weights were trained on with"
                f" {pixels or 'nothing'}",
                hint="prepare them alike: `fashionrec fetch-dataset` with the same dataset.resize, imgsz and equalize",
            )


def _row(test_set: str, metric: str, before: float, after: float) -> dict[str, Any]:
    return {"test_set": test_set, "metric": metric, "before": before, "after": after, "difference": after - before}


def _gained(points: float) -> str:
    return f"{'gained' if points > 0 else 'lost'} {abs(points):.2f} points of mAP50-95"
