"""compare: several detectors on one data set, trained or taken, and the table by which one of them is chosen."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.models import DETECTOR_PACKAGES, evaluate_with, model_choice, open_detector
from fashionrec.cli.session import Command, Context, Session
from fashionrec.common.folder import Folder
from fashionrec.common.text import shell_word
from fashionrec.errors import ConfigError, FashionrecError, MissingExtra, Refused

if TYPE_CHECKING:
    from fashionrec.config import TrainConfig
    from fashionrec.models.bundle import Bundle
    from fashionrec.models.runs import Run

#: Settings of a run that say nothing about what it learnt, and its data, of which the fingerprint tells.
_NOT_LEARNT = frozenset("name exist_ok resume device workers data".split())


def mount(app: typer.Typer) -> None:
    app.command(
        "compare", cls=Command, help="Train or take several detectors, and measure them alike: accuracy, speed, size."
    )(compare)


def compare(
    context: Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]... [KEY=VALUE]...", help="Models, and settings.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(help="A name (efficientdet_d3), a YAML, a checkpoint, a run or a bundle; more may follow."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="data.yaml of a YOLO dataset.")] = None,
    split: Annotated[str | None, typer.Option(help="train, valid or test.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    imgsz: Annotated[int | None, typer.Option(min=32)] = None,
    batch: Annotated[int | None, typer.Option(min=1)] = None,
    device: Annotated[str | None, typer.Option(help="To train on: cpu, 0, or 0,1.")] = None,
    name: Annotated[str | None, typer.Option(help="The report's folder under runs/compare.")] = None,
    out: Annotated[Path | None, typer.Option(help="The report's folder, wherever.")] = None,
) -> None:
    session = context.session
    named = [*(models or []), *session.assign("compare", words or [])]
    flags = {"data": data, "split": split, "epochs": epochs, "imgsz": imgsz, "batch": batch, "device": device}
    session.override("compare", {**flags, "models": named or None})
    config = session.config.compare
    if config.data is None or not config.models:
        raise ConfigError(
            "compare needs models and data", hint="fashionrec compare --models yolov8n.yaml efficientdet_d0 --data DIR"
        )
    folder = out or _free(session.runs / "compare", name)
    if out is None and session.runs.is_dir():
        runs = Folder(session.runs, "the folder of runs")
        if runs.path("compare", "folder").is_dir():
            runs.path(f"compare/{folder.name}", "folder")
    document = run_compare(session, folder)
    session.out.result(document, lambda: _print(session, document, folder))
    failed = [row["model"] for row in document["models"] if "failed" in row]
    if failed:
        raise Refused(
            f"{len(failed)} of {len(document['models'])} models could not be compared: {', '.join(failed)}",
            hint=f"the reasons, and the others: {folder / 'comparison.html'}",
        )
    best = max(document["models"], key=lambda row: float(row["map50_95"]))
    session.out.next(f"fashionrec build-index PHOTOS --detector {shell_word(best['bundle'])}")


def run_compare(session: Session, folder: Path) -> dict[str, Any]:
    """Compare by the section ``compare``; writes ``comparison.{md,json,html}`` into ``folder``."""
    from fashionrec.common.files import dump_json, write_atomic
    from fashionrec.evaluation.detection.selection import selection_markdown, selection_page
    from fashionrec.labels.data_yaml import data_yaml_of, dataset_fingerprint, read_data_yaml

    config = session.config.compare
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
        session.out.say(f"model {n} of {len(config.models)}: {model}")
        try:
            row, machine = _row(session, model, data, document["fingerprint"])
            document["machine"] = machine
        except FashionrecError as error:
            row = {"model": model, "failed": f"{error}" + (f" ({error.hint})" if error.hint else "")}
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            row = {"model": model, "failed": f"{type(error).__name__}: {reason}"}
        if "failed" in row:
            session.out.warn(f"{model}: {row['failed']}")
        document["models"].append(row)
        write_atomic(folder / "comparison.json", dump_json(document))
    if any("failed" not in row for row in document["models"]):
        write_atomic(folder / "comparison.md", selection_markdown(document))
        write_atomic(folder / "comparison.html", selection_page(document, "Detectors compared"))
    return document


def _row(session: Session, model: str, data: Path, fingerprint: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is measured of one model, and on what."""
    from fashionrec.cli.evaluating import run_evaluate_detector
    from fashionrec.evaluation.detection.complexity import complexity
    from fashionrec.evaluation.detection.speed import memory, speeds
    from fashionrec.labels.data_yaml import read_data_yaml
    from fashionrec.photos.images import read_photo

    config, project = session.config.compare, session.config.project
    how, bundle, run = _bundle(session, model, data, fingerprint)
    report = run_evaluate_detector(session, str(bundle.path), data, config.split)
    detector = open_detector(session, bundle, rectangular=False)  # photos of any shape in one batch
    paths = read_data_yaml(data).images(config.split)[: max(config.batches)]
    photos = [read_photo(path, session.config.images).pixels for path in paths]
    graph = bundle.graph_path("detect")
    session.out.say("measuring speed and memory")
    fps = speeds(detector, photos, config.batches, config.seconds)
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
        **{key: report[key] for key in ("map50_95", "map50", "precision", "recall", "f1", "per_class")},
        "fps": fps,
        "parameters": size.parameters,
        "gflops": size.gflops,
        "file_bytes": graph.stat().st_size,
        "memory_bytes": memory(
            bundle.path,
            paths[0],
            session.config.detector,
            session.config.images,
            threads=project.threads,
            device=project.device,
        ),
    }
    return row, _machine(detector.provider)


def _bundle(session: Session, model: str, data: Path, fingerprint: str) -> "tuple[str, Bundle, Run | None]":
    """How a model comes to be here (taken, trained or reused), its bundle, and the run that made it."""
    from fashionrec.config import is_bare
    from fashionrec.models.bundle import is_bundle
    from fashionrec.models.runs import is_run, read_run

    path = Path(model)
    if is_bare(model) and path.exists() and _is_name(model):
        session.out.say(f"{model} is the model of that name; what lies in this folder is ./{model}")
        how, run = _trained(session, model, data, fingerprint)
        return how, model_choice(session).detector_of(run.path), run
    if is_bundle(path):
        return "taken", model_choice(session).detector_of(path), None
    if is_run(path):
        return "taken", model_choice(session).detector_of(path), read_run(path)
    if path.is_file() and path.suffix in (".pt", ".safetensors") and _knows(path, data):
        return "taken", model_choice(session).detector_of(path), None
    how, run = _trained(session, model, data, fingerprint)
    return how, model_choice(session).detector_of(run.path), run


def _is_name(model: str) -> bool:
    """Whether a bare name is a model of a family; bundles can be compared without the packages that know."""
    from fashionrec.common.extras import load

    try:
        return bool(
            load("fashionrec.detector.training.families", what=model, packages=DETECTOR_PACKAGES).is_name(model)
        )
    except MissingExtra:
        return False


def _knows(weights: Path, data: Path) -> bool:
    """Whether a checkpoint was trained on these classes; any other is what a training starts from."""
    from fashionrec.common.extras import load
    from fashionrec.labels.data_yaml import read_data_yaml

    module = load("fashionrec.detector.training.families", what=f"reading {weights}", packages=DETECTOR_PACKAGES)
    return sorted(module.classes_of(weights)) == sorted(read_data_yaml(data).names.values())


def _trained(session: Session, model: str, data: Path, fingerprint: str) -> "tuple[str, Run]":
    """The run of a model on these data: the finished one of these settings, else a new one, or one that was stopped."""
    from fashionrec.common.extras import load
    from fashionrec.models.runs import is_run, read_run

    config = _settings(session, model, data)
    stem = re.sub(r"[^\w.-]+", "-", Path(model).stem)
    count = 1
    while True:
        name = f"compare-{stem}{'' if count == 1 else count}"
        place = session.runs / "train" / name
        if not is_run(place):
            break
        run = read_run(place)
        asked, before = config.model_dump(exclude=set(_NOT_LEARNT)), dict(run.config.get("train", {}))
        same = asked == {key: value for key, value in before.items() if key not in _NOT_LEARNT}
        if same and run.dataset.get("fingerprint") == fingerprint:
            if run.status == "done":
                session.out.say(f"taking {place}, trained before with these settings on these data")
                return "reused", run
            if run.state != "running":
                break
        count += 1
    resume = is_run(place)
    config = config.model_copy(update={"name": name, "resume": resume, "exist_ok": resume})
    module = load("fashionrec.detector.training.train", what="training a detector", packages=DETECTOR_PACKAGES)
    session.out.say(f"{'resuming' if resume else 'training'} {place}")
    with session.out.progress("epoch") as tick:

        def progress(epoch: int, epochs: int, figures: dict[str, Any]) -> None:
            told = ", ".join(f"{key} {value:.3f}" for key, value in figures.items() if isinstance(value, float))
            tick(epoch, epochs, told)

        trained: Run = module.train_detector(
            config,
            session.runs,
            log=session.out.say,
            progress=progress,
            limits=session.config.images,
            evaluate=evaluate_with(session),
        )
    trained.promoted = False  # none of several is the one to use, until somebody says so
    trained.save()
    return "trained", trained


def _settings(session: Session, model: str, data: Path) -> "TrainConfig":
    """The section ``train`` with what ``compare`` has of its own, and of the options those that the family knows."""
    from fashionrec.common.extras import load
    from fashionrec.config import TrainConfig

    compare = session.config.compare
    own = {key: getattr(compare, key) for key in ("epochs", "imgsz", "batch", "device", "workers", "seed")}
    train = session.config.train
    families = load("fashionrec.detector.training.families", what="training a detector", packages=DETECTOR_PACKAGES)
    known = families.options_of(model)
    options = {key: value for key, value in train.options().items() if known is None or key in known}
    left = sorted(set(train.options()) - set(options))
    if left:
        session.out.say(f"{model} is trained without {', '.join(left)}, which only ultralytics' detectors know")
    fixed = {key: getattr(train, key) for key in TrainConfig.model_fields()}
    return TrainConfig.model_validate({**fixed, **options, **own, "model": model, "data": str(data), "name": None})


def _machine(provider: str) -> dict[str, Any]:
    import os
    import platform

    import onnxruntime

    return {
        "provider": provider,
        "onnxruntime": onnxruntime.__version__,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _free(parent: Path, name: str | None) -> Path:
    if name is not None:
        if Path(name).name != name or name in ("", ".", ".."):
            raise ConfigError(f"{name!r} cannot be a folder's name", hint="a path goes with --out")
        return parent / name
    count = 1
    while os.path.lexists(parent / f"compare{'' if count == 1 else count}"):
        count += 1
    return parent / f"compare{'' if count == 1 else count}"


def _print(session: Session, document: dict[str, Any], folder: Path) -> None:
    from fashionrec.evaluation.detection.selection import COLUMNS, about, cells, ordered

    measured = [row for row in ordered(document["models"]) if "failed" not in row]
    if measured:
        session.out.table(COLUMNS, [cells(row) for row in measured], right=range(1, len(COLUMNS)))
    for row in document["models"]:
        if "failed" in row:
            session.out.line(f"{row['model']} failed: {row['failed']}")
    if measured:
        session.out.line(about(document))
        session.out.line(f"report: {folder / 'comparison.html'}")
