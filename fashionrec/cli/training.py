"""The commands ``train`` and ``finetune``.

A detector is trained on labelled photos, an encoder on a product table.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.models import epoch_progress, train_detector, trusting
from fashionrec.cli.options import Epochs, ImageSize, TrainingWords, TrustPickle
from fashionrec.cli.session import Command, Context, Session, one_or_none, require
from fashionrec.common.extras import DETECTOR_PACKAGES, EMBEDDER_PACKAGES, load
from fashionrec.common.text import plural, shell_word
from fashionrec.errors import ConfigError, Refused, UsageError
from fashionrec.models.choice import check_encoder_name

if TYPE_CHECKING:
    from fashionrec.models.runs import Run


#: Settings shared by detectors and encoders.
_SHARED_SETTINGS = ("epochs", "batch", "device", "seed")
#: Settings that do not apply to encoders, and what to use instead.
_DETECTOR_SETTINGS = {
    "model": "fashionrec finetune --weights CLIP --data TABLE starts from a CLIP",
    "imgsz": "--set train_embedder.image_size=N is the image size of a small CLIP",
}


def mount(app: typer.Typer) -> None:
    app.command("train", cls=Command, help="Train a detector or an encoder.")(train)
    app.command("finetune", cls=Command, help="Fine-tune on new data; reject models that forget the old.")(finetune)


def train(
    context: Context,
    settings: TrainingWords = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="data.yaml of a YOLO dataset, or a product table.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Detector: yolov8l.pt (pretrained), yolov8n.yaml (from scratch), ..."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the run, a folder under runs/train.")
    ] = None,
    epochs: Epochs = None,
    imgsz: ImageSize = None,
    batch: Annotated[int | None, typer.Option(metavar="N", help="Images per batch.")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="cpu, 0, or 0,1.")] = None,
    resume: Annotated[
        bool | None, typer.Option("--resume", help="Resume the run of that name, or the newest unfinished one.")
    ] = None,
    trust_pickle: TrustPickle = False,
) -> None:
    session = context.session
    first_set = len(session.sets)
    words = session.assign("train", settings or [])
    flags = {"data": data, "model": model, "name": name, "epochs": epochs, "imgsz": imgsz, "batch": batch}
    session.override("train", {**flags, "device": device, "resume": resume})
    if words:
        raise UsageError(f"unexpected argument {words[0]!r}", hint="settings are key=value, as in epochs=50")
    if not session.config.train.resume:
        hint = "--data DIR/data.yaml trains a detector, --data products.csv an encoder"
        require({"--data": session.config.train.data}, hint=hint)
    if trust_pickle and not session.is_on_line("train.model"):
        raise UsageError("--trust-pickle needs the model on the same command line", hint="model=PATH.pt --trust-pickle")
    if _is_table(Path(session.config.train.data or "")):
        _apply_to_encoder(session, str(session.config.train.data), session.sets[first_set:])
    with trusting(session, trust_pickle, Path(session.config.train.model)):
        document = run_train(session)
    session.out.result(document, lambda: _print_run(session, document))
    if document["kind"] == "embedder":
        session.out.next(f"fashionrec build-index PHOTOS --embedder {shell_word(document['path'])}")
    else:
        session.out.next(
            f"fashionrec evaluate --weights {shell_word(document['weights']['best'])}"
            f" --data {shell_word(document['dataset']['path'])}",
            f"fashionrec build-index PHOTOS --detector {shell_word(document['path'])}",
        )


def run_train(session: Session) -> dict[str, Any]:
    """Train by the section ``train``: a detector, or an encoder if the data is a product table."""
    config = session.config.train
    data = Path(config.data or "")
    if _is_table(data):
        if config.resume:
            raise ConfigError("training of an encoder cannot be resumed", hint="start it again without resume")
        return _run_document(_train_embedder(session, data, init=None))
    module = load("fashionrec.detector.training.train", what="training a detector", packages=DETECTOR_PACKAGES)
    if config.resume:
        given = {key.removeprefix("train.") for key in session.resolved.origins if key.startswith("train.")}
        config = module.recalled(config, session.runs, given)
    session.out.say(
        f"{'resuming ' + str(config.name) + ': ' if config.resume else ''}training {config.model} on {config.data}"
    )
    return _run_document(train_detector(session, config))


def finetune(
    context: Context,
    settings: TrainingWords = None,
    weights: Annotated[
        str | None, typer.Option(metavar="MODEL", help="best.pt or run to start from; for a product table, a CLIP.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="data.yaml of the new data, or a product table.")
    ] = None,
    replay: Annotated[str | None, typer.Option(metavar="FILE", help="data.yaml of the old data, to replay.")] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the run, a folder under runs/finetune.")
    ] = None,
    epochs: Epochs = None,
    trust_pickle: TrustPickle = False,
) -> None:
    session = context.session
    first_set = len(session.sets)
    words = session.assign("finetune", settings or [])
    flags = {"weights": weights, "data": data, "replay": replay, "name": name, "epochs": epochs}
    session.override("finetune", flags)
    weights_word = one_or_none(words, "the weights")
    if weights_word is not None:
        session.override("finetune", {"weights": weights_word})
    config = session.config.finetune
    hint = "fashionrec finetune --weights best.pt --data NEW/data.yaml"
    require({"--weights": config.weights, "--data": config.data}, hint=hint)
    if trust_pickle and not session.is_on_line("finetune.weights"):
        raise UsageError(
            "--trust-pickle needs the weights on the same command line", hint="--weights PATH.pt --trust-pickle"
        )
    if _is_table(Path(config.data or "")):
        _apply_to_encoder(session, str(config.data), session.sets[first_set:])
    with trusting(session, trust_pickle, Path(config.weights or "")):
        document = run_finetune(session)
    session.out.result(document, lambda: _print_run(session, document))
    if not document["promoted"]:
        reasons = "; ".join(document["notes"].get("decision", {}).get("reasons", [])) or "it did not improve"
        raise Refused(
            f"not promoted: {reasons}",
            hint=f"the candidate is kept in {shell_word(document['path'])}, with comparison.html;"
            " `fashionrec runs promote` overrules",
        )
    session.out.next(f"fashionrec build-index PHOTOS --{shell_word(document['kind'])} {shell_word(document['path'])}")


def run_finetune(session: Session) -> dict[str, Any]:
    """Fine-tune by the section ``finetune``: a detector, or an encoder if the data is a table."""
    from fashionrec.models.runs import check_weights, is_run, read_run

    config = session.config.finetune
    weights = Path(config.weights or "")
    check_weights(weights)
    if is_run(weights):
        run = read_run(weights)
        weights = run.best
        config = config.model_copy(update={"weights": str(weights)})
    if _is_table(Path(config.data or "")):
        if not weights.exists():
            check_encoder_name(str(weights), session.config.project)
        return _run_document(_train_embedder(session, Path(config.data or ""), init=str(weights)))
    module = load("fashionrec.detector.training.finetune", what="finetuning a detector", packages=DETECTOR_PACKAGES)
    session.out.say(f"fine-tuning {config.weights} on {config.data}, replaying {config.replay or 'nothing'}")
    with session.out.progress("epoch") as tick:
        run = module.finetune_detector(
            config, session.runs, _judge(session), log=session.out.say, progress=epoch_progress(tick)
        )
    return _run_document(run)


def _train_embedder(session: Session, table: Path, init: str | None) -> "Run":
    module = load("fashionrec.embedder.training.train", what="training an encoder", packages=EMBEDDER_PACKAGES)
    config = session.config.train_embedder
    section = session.config.train if init is None else session.config.finetune
    if config.name is None and section.name is not None:
        config = config.model_copy(update={"name": section.name, "exist_ok": section.exist_ok})
    pairs = load("fashionrec.embedder.training.pairs", what="training an encoder", packages=EMBEDDER_PACKAGES)
    with (
        session.out.stages() as report_stage
    ):  # the bar starts with the first crop, after the message about the detector
        crops, dataset = pairs.training_pairs(
            table,
            partial(_product_crops, session, pairs.SIDE),
            session.config.build.category_columns,
            progress=partial(report_stage, "cropping", "photos"),
        )
    session.out.say(f"training {init or 'a small CLIP'} on {plural(len(crops), 'garment')} of {table}")
    with session.out.progress("epoch") as tick:
        run: Run = module.train_embedder(
            crops,
            config,
            session.runs,
            init=init,
            dataset=dataset,
            log=session.out.say,
            progress=epoch_progress(tick),
        )
    return run


def _product_crops(session: Session, side: int, photos: Sequence[tuple[int, Path, str | None]]) -> Any:
    """Return crops of products as `build-index` cuts them, for an encoder of ``side`` pixels."""
    from fashionrec.cli.models import model_choice
    from fashionrec.garments import FinderSettings, GarmentFinder

    config = session.config
    finder = GarmentFinder.open(
        model_choice(session).detector(None) if config.build.detect else None,
        FinderSettings.of_build(config, side),
        threads=config.project.threads,
        device=config.project.device,
    )
    return finder.product_crops(photos, timeout=config.build.photo_timeout, workers=config.build.workers)


def _apply_to_encoder(session: Session, table: str, given: Sequence[str]) -> None:
    """Apply the options of `train` or `finetune` to the training of an encoder.

    Raises :class:`ConfigError` for those that only apply to detectors.
    """
    pairs = [text.partition(".")[2].partition("=") for text in given]
    for key, _, _ in pairs:
        if key in _DETECTOR_SETTINGS:
            raise ConfigError(
                f"{key} does not apply: {table} trains an encoder, not a detector", hint=_DETECTOR_SETTINGS[key]
            )
    session.suggest([f"train_embedder.{key}={value}" for key, _, value in pairs if key in _SHARED_SETTINGS])


def _judge(session: Session) -> Any:
    """Decide on a finetune with the one evaluator, from bundles, as they will be served."""

    from fashionrec.cli.models import model_choice, open_detector
    from fashionrec.evaluation.detection.evaluator import match_detector
    from fashionrec.evaluation.detection.judgement import judge

    def match(weights: Path, data: Path, split: str) -> Any:
        detector = open_detector(session, model_choice(session).detector_of(weights))
        with session.out.progress("evaluating", "photos") as tick:
            return match_detector(detector, data, split, session.config.evaluate, session.config.images, progress=tick)

    return partial(judge, match=match, config=session.config.finetune)


def _is_table(path: Path) -> bool:
    from fashionrec.products.records import is_table

    return is_table(path)


def _run_document(run: "Run") -> dict[str, Any]:
    return {
        "path": str(run.path),
        "kind": run.kind,
        "verb": run.verb,
        "name": run.name,
        "status": run.status,
        "promoted": run.promoted,
        "seconds": round(run.seconds, 2),
        "weights": {which: str(run.weights_path(which)) for which in run.weights},
        "metrics": run.metrics,
        "dataset": run.dataset,
        "notes": run.notes,
    }


def _print_run(session: Session, document: dict[str, Any]) -> None:
    out = session.out
    comparison = Path(document["path"]) / "comparison.md"
    if comparison.is_file():
        out.block(comparison.read_text(encoding="utf-8").rstrip())
    else:
        for key, value in document["metrics"].items():
            if isinstance(value, (int, float)):
                out.line(f"  {key:14} {value:.4f}" if isinstance(value, float) else f"  {key:14} {value}")
    out.line(f"run: {document['path']} ({document['status']}, {document['seconds']:.0f} s)")
