"""fetch-dataset: from a source to a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fashionrec.cli.session import Session, command
from fashionrec.errors import DataError


def mount(app: typer.Typer) -> None:
    command(app, "fetch-dataset", help="Make a dataset folder: from Roboflow, from a YOLO dataset, or drawn.")(
        fetch_dataset
    )


def fetch_dataset(
    session: Session,
    source: Annotated[str, typer.Argument(help="synthetic, yolo:PATH, or roboflow:WORKSPACE/PROJECT/VERSION.")],
    out: Annotated[Path | None, typer.Option(help="The dataset's folder; it must not hold anything yet.")] = None,
    images: Annotated[int | None, typer.Option(help="synthetic: labelled photos, over train, valid and test.")] = None,
    products: Annotated[int | None, typer.Option(help="synthetic: products of the catalogue.")] = None,
    seed: Annotated[int | None, typer.Option(help="synthetic: another seed is another world.")] = None,
) -> None:
    session.override("synthetic", {"images": images, "products": products, "seed": seed})
    document = run_fetch(session, source, out)

    def human() -> None:
        for name, count in document["counts"].items():
            session.out.line(f"  {name:14} {count}")
        for name, count in document.get("dropped", {}).items():
            session.out.line(f"  dropped: {count} {name}")
        session.out.line(f"dataset: {document['path']}")

    session.out.result(document, human)
    session.out.next(
        f"fashionrec train data={document['path']}/data.yaml model=yolov8l.pt",
        *([f"fashionrec build-index {document['products']} --index DIR"] if document.get("products") else []),
    )


def run_fetch(session: Session, source: str, out: Path | None = None) -> dict[str, Any]:
    """Make the dataset; returns its path, counts and fingerprint."""
    kind, _, rest = source.partition(":")
    if kind not in ("synthetic", "yolo", "roboflow"):
        raise DataError(
            f"no source is called {source!r}", hint="synthetic, yolo:PATH, or roboflow:WORKSPACE/PROJECT/VERSION"
        )
    target = out or session.data / (kind if kind == "synthetic" else Path(rest).name or kind)
    session.out.say(f"dataset: {target}")
    with session.out.progress("drawing" if kind == "synthetic" else "reading", "photos") as tick:
        if kind == "synthetic":
            return _synthetic(session, target, tick)
        from fashionrec.dataset.prepare import prepare_yolo

        if kind == "yolo":
            return prepare_yolo(
                Path(rest), target, label=f"yolo:{Path(rest).name}", limits=session.config.images, progress=tick
            )
        from fashionrec.dataset.roboflow import downloaded

        with downloaded(rest, target.parent) as folder:
            return prepare_yolo(folder, target, label=source, limits=session.config.images, progress=tick)


def _synthetic(session: Session, target: Path, tick: Any) -> dict[str, Any]:
    from fashionrec.dataset.prepare import describe_dataset, whole_or_not
    from fashionrec.dataset.synthetic import WorldSettings, draw_world

    settings = session.config.synthetic.model_dump()
    settings["class_weights"] = tuple(settings["class_weights"])
    with whole_or_not(target) as folder:
        draw_world(folder, WorldSettings(**settings), tick)
        document = describe_dataset(folder, source="synthetic", settings=session.config.synthetic.model_dump())
    document["path"] = str(target)
    if (target / "catalogue" / "products.csv").is_file():
        document["products"] = str(target / "catalogue" / "products.csv")
    return document
