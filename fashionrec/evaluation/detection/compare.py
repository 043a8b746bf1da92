"""Compare several detectors on one dataset, existing or newly trained, all measured alike."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.extras import DETECTOR_PACKAGES, load
from fashionrec.common.files import dump_json, write_atomic
from fashionrec.common.folder import Folder
from fashionrec.config import Config, TrainConfig, is_bare
from fashionrec.errors import ConfigError, FashionrecError, MissingExtra
from fashionrec.evaluation.detection.selection import selection_markdown, selection_page
from fashionrec.labels.data_yaml import data_yaml_of, dataset_fingerprint, read_data_yaml
from fashionrec.models.bundle import Bundle, is_bundle
from fashionrec.models.runs import Run, free_place, is_run, read_run

if TYPE_CHECKING:
    from fashionrec.detector.detect import Detector
    from fashionrec.models.choice import ModelChoice

#: Settings of a run that do not affect what it learned, and its data, which is identified by
#: fingerprint.
_NOT_LEARNT = frozenset("name exist_ok resume device workers data".split())
#: Metrics shown in the table.
_FIGURES = ("map50_95", "map50", "precision", "recall", "f1", "per_class")


@dataclass(frozen=True)
class Comparison:
    """Compares the models of the section ``compare``.

    ``choice`` finds and exports them, ``train`` trains by a section ``train``, ``evaluate``
    measures a bundle on a split as ``fashionrec evaluate --weights`` does.
    """

    choice: ModelChoice
    train: Callable[[TrainConfig], Run]
    evaluate: Callable[[str, Path, str], Mapping[str, Any]]

    @property
    def config(self) -> Config:
        return self.choice.resolved.config

    def run(self, folder: Path) -> dict[str, Any]:
        """Measure all models and write ``comparison.{md,json,html}`` into ``folder``. Failed models
        are listed with their reason.
        """
        config = self.config.compare
        data = data_yaml_of(Path(config.data or ""))
        images = read_data_yaml(data).images(config.split)
        folder.mkdir(parents=True, exist_ok=True)
        document: dict[str, Any] = {
            "data": str(data),
            "fingerprint": dataset_fingerprint(data),
            "split": config.split,
            "photos": len(images),
            "machine": {},
            "settings": config.model_dump(exclude={"models", "data"}),
            "models": [],
        }
        for n, model in enumerate(config.models, start=1):
            self.choice.say(f"model {n} of {len(config.models)}: {model}")
            try:
                row, document["machine"] = self._measure(model, data, document["fingerprint"])
            except FashionrecError as error:
                row = {"model": model, "failed": f"{error}" + (f" ({error.hint})" if error.hint else "")}
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                row = {"model": model, "failed": f"{type(error).__name__}: {reason}"}
            if "failed" in row:
                self.choice.warn(f"{model}: {row['failed']}")
            document["models"].append(row)
            write_atomic(folder / "comparison.json", dump_json(document))
        if any("failed" not in row for row in document["models"]):
            write_atomic(folder / "comparison.md", selection_markdown(document))
            write_atomic(folder / "comparison.html", selection_page(document, "Detectors compared"))
        return document

    def _measure(self, model: str, data: Path, fingerprint: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Measure one model and describe the conditions."""
        from fashionrec.detector.detect import Detector
        from fashionrec.evaluation.detection.complexity import complexity
        from fashionrec.evaluation.detection.speed import memory, speeds
        from fashionrec.photos.images import read_photo

        config, compare, project = self.config, self.config.compare, self.config.project
        how, bundle, run = self._bundle(model, data, fingerprint)
        report = self.evaluate(str(bundle.path), data, compare.split)
        settings = config.detector.model_copy(update={"rectangular": False})  # photos of any shape in one batch
        detector = Detector.of_config(bundle, settings, threads=project.threads, device=project.device)
        paths = read_data_yaml(data).images(compare.split)[: max(compare.batches)]
        photos = [read_photo(path, config.images).pixels for path in paths]
        graph = bundle.graph_path("detect")
        self.choice.say("measuring speed and memory")
        fps = speeds(detector, photos, compare.batches, compare.seconds)
        size = complexity(graph, detector.inputs(photos[:1]))
        row = {
            "model": model,
            "how": how,
            "run": str(run.path) if run else None,
            "epochs": run.epochs if run else None,
            "train_seconds": run.seconds if run else None,
            "bundle": str(bundle.path),
            "bundle_fingerprint": bundle.fingerprint,
            "imgsz": detector.imgsz,
            **{key: report[key] for key in _FIGURES},
            "fps": fps,
            "parameters": size.parameters,
            "gflops": size.gflops,
            "file_bytes": graph.stat().st_size,
            "memory_bytes": memory(
                bundle.path, paths[0], settings, config.images, threads=project.threads, device=project.device
            ),
        }
        return row, _machine(detector)

    def _bundle(self, model: str, data: Path, fingerprint: str) -> tuple[str, Bundle, Run | None]:
        """Return how a model was obtained (existing, trained or reused), its bundle,
        and its run.
        """
        path = Path(model)
        named = is_bare(model) and path.exists() and _is_name(model)
        if named:
            self.choice.say(f"{model} means the model of that name; the file in this folder is ./{model}")
        elif is_bundle(path):
            return "taken", self.choice.detector_of(path), None
        elif is_run(path):
            return "taken", self.choice.detector_of(path), read_run(path)
        elif path.is_file() and path.suffix in (".pt", ".safetensors") and _knows(path, data):
            return "taken", self.choice.detector_of(path), None
        how, run = self._trained(model, data, fingerprint)
        return how, self.choice.detector_of(run.path), run

    def _trained(self, model: str, data: Path, fingerprint: str) -> tuple[str, Run]:
        """Return the run of a model on this data: a finished one with these settings, otherwise a
        new or resumed one.
        """
        config = self._settings(model, data)
        stem = re.sub(r"[^\w.-]+", "-", Path(model).stem)
        count = 1
        while True:
            name = f"compare-{stem}{'' if count == 1 else count}"
            place = Path(self.config.project.runs) / "train" / name
            if not is_run(place):
                break
            run = read_run(place)
            asked, before = config.model_dump(exclude=set(_NOT_LEARNT)), dict(run.config.get("train", {}))
            same = asked == {key: value for key, value in before.items() if key not in _NOT_LEARNT}
            if same and run.dataset.get("fingerprint") == fingerprint:
                if run.status == "done":
                    self.choice.say(f"reusing {place}, trained with the same settings and data")
                    return "reused", run
                if run.state != "running":
                    break
            count += 1
        resume = is_run(place)
        self.choice.say(f"{'resuming' if resume else 'training'} {place}")
        trained = self.train(config.model_copy(update={"name": name, "resume": resume, "exist_ok": resume}))
        trained.promoted = False  # no candidate becomes the default
        trained.save()
        return "trained", trained

    def _settings(self, model: str, data: Path) -> TrainConfig:
        """Return the section ``train`` with the options of ``compare`` that the family supports."""
        compare, train = self.config.compare, self.config.train
        own = {key: getattr(compare, key) for key in ("epochs", "imgsz", "batch", "device", "workers", "seed")}
        known = _families("training a detector").options_of(model)
        options = {key: value for key, value in train.options().items() if known is None or key in known}
        left = sorted(set(train.options()) - set(options))
        if left:
            self.choice.say(f"{model} is trained without {', '.join(left)}, which only ultralytics' detectors support")
        fixed = {key: getattr(train, key) for key in TrainConfig.model_fields()}
        return TrainConfig.model_validate({**fixed, **options, **own, "model": model, "data": str(data), "name": None})


def report_folder(runs: Path, name: str | None) -> Path:
    """Return the folder of a report below ``runs``: of that name, or the first free one.

    Raises :class:`ConfigError` for a name that is a path, and the errors of :class:`Folder` if it
    leads elsewhere.
    """
    parent = runs / "compare"
    if name is None:
        name = free_place(parent, "compare").name
    elif Path(name).name != name or name in ("", ".", ".."):
        raise ConfigError(f"invalid folder name {name!r}", hint="give paths with --out")
    if runs.is_dir():
        folder = Folder(runs, "the folder of runs")
        if folder.path("compare", "folder").is_dir():
            folder.path(f"compare/{name}", "folder")
    return parent / name


def _families(what: str) -> Any:
    return load("fashionrec.detector.training.families", what=what, packages=DETECTOR_PACKAGES)


def _is_name(model: str) -> bool:
    """Return whether a bare name is a model of a family; comparing bundles does not need the
    packages that know.
    """
    try:
        return bool(_families(model).is_name(model))
    except MissingExtra:
        return False


def _knows(weights: Path, data: Path) -> bool:
    """Return whether a checkpoint was trained on these classes; any other is only a starting point
    for training.
    """
    classes = _families(f"reading {weights}").classes_of(weights)
    return sorted(classes) == sorted(read_data_yaml(data).names.values())


def _machine(detector: Detector) -> dict[str, Any]:
    import onnxruntime

    return {
        "provider": detector.provider,
        "onnxruntime": onnxruntime.__version__,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }
