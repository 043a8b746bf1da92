"""The command ``compare``: train or load several detectors, and print a table to choose from."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fashionrec.cli.evaluating import run_evaluate_detector
from fashionrec.cli.models import model_choice, train_detector
from fashionrec.cli.options import Epochs, ImageSize, Split
from fashionrec.cli.session import Command, Context, Session, require
from fashionrec.common.text import plural, shell_word
from fashionrec.errors import Refused


def mount(app: typer.Typer) -> None:
    app.command("compare", cls=Command, help="Train or load several detectors and compare them.")(compare)


def compare(
    context: Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Models, and settings as key=value.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="Model name (efficientdet_d3), YAML, checkpoint, run or bundle; more may follow."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="data.yaml of a YOLO dataset.")] = None,
    split: Split = None,
    epochs: Epochs = None,
    imgsz: ImageSize = None,
    batch: Annotated[int | None, typer.Option(min=1, metavar="N", help="Images per batch.")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="Device for training: cpu, 0, or 0,1.")] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the report, a folder under runs/compare.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder of the report, instead of --name.")] = None,
) -> None:
    from fashionrec.evaluation.detection.compare import report_folder

    session = context.session
    names = [*(models or []), *session.assign("compare", words or [])]
    flags = {"data": data, "split": split, "epochs": epochs, "imgsz": imgsz, "batch": batch, "device": device}
    session.override("compare", {**flags, "models": names or None})
    config = session.config.compare
    hint = "fashionrec compare --models yolov8n.yaml efficientdet_d0 --data DIR/data.yaml"
    require({"--models": config.models, "--data": config.data}, hint=hint)
    folder = out or report_folder(session.runs, name)
    document = run_compare(session, folder)
    session.out.result(document, lambda: _print(session, document, folder))
    failed = [row["model"] for row in document["models"] if "failed" in row]
    if failed:
        raise Refused(
            f"{len(failed)} of {plural(len(document['models']), 'model')} could not be compared: {', '.join(failed)}",
            hint=f"reasons and results: {folder / 'comparison.html'}",
        )
    best = max(document["models"], key=lambda row: float(row["map50_95"]))
    session.out.next(f"fashionrec build-index PHOTOS --detector {shell_word(best['bundle'])}")


def run_compare(session: Session, folder: Path) -> dict[str, Any]:
    """Compare models by the section ``compare``; write ``comparison.*`` into ``folder``."""
    from fashionrec.evaluation.detection.compare import Comparison

    train, evaluate = partial(train_detector, session), partial(run_evaluate_detector, session)
    return Comparison(model_choice(session), train, evaluate).run(folder)


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
