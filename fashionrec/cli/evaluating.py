"""evaluate: a detector on labelled photos, or a catalogue on photos whose product is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fashionrec.cli.session import Session, command
from fashionrec.errors import DataError, UsageError


def mount(app: typer.Typer) -> None:
    command(app, "evaluate", help="Measure a detector (--weights, --data) or a search (--index, --queries).")(evaluate)


def evaluate(
    session: Session,
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings.")] = None,
    weights: Annotated[str | None, typer.Option(help="A detector: a bundle, a run, or a best.pt.")] = None,
    data: Annotated[Path | None, typer.Option(help="data.yaml of a YOLO dataset.")] = None,
    split: Annotated[str | None, typer.Option(help="train, valid or test.")] = None,
    index: Annotated[str | None, typer.Option(help="A catalogue.")] = None,
    queries: Annotated[Path | None, typer.Option(help="A table with image and product_id.")] = None,
) -> None:
    words = session.assign("evaluate", settings or [])
    if words:
        raise UsageError(
            f"what is {words[0]!r}?", hint="name what to evaluate with --weights and --data, or --index and --queries"
        )
    session.override("evaluate", {"split": split})
    if weights is not None and data is not None and queries is None:
        report = run_evaluate_detector(session, weights, data)
        session.out.result(report, lambda: _print_detection(session, report))
        session.out.next(f"fashionrec build-index PHOTOS --detector {weights}")
    elif queries is not None and weights is None and data is None:
        report = run_evaluate_search(session, index, queries)
        session.out.result(report, lambda: _print_search(session, report))
        session.out.next(f"fashionrec query PHOTO --index {report['index']} --html answer.html")
    else:
        raise UsageError(
            "say what to evaluate",
            hint="a detector: --weights best.pt --data data.yaml; a search: --index DIR --queries FILE",
        )


def run_evaluate_detector(session: Session, weights: str, data: Path, split: str | None = None) -> dict[str, Any]:
    """mAP and its kin of a detector on one split of a dataset."""
    from fashionrec.cli.models import detector_from
    from fashionrec.detector.detect import Detector
    from fashionrec.evaluation.detection import evaluate_detector
    from fashionrec.yolo_data import declared

    config = session.config
    detector = Detector(
        detector_from(session, Path(weights)),
        conf=config.detector.conf,
        iou=config.detector.iou,
        max_garments=config.detector.max_garments,
        threads=config.project.threads,
        device=config.project.device,
    )
    theirs = declared(data).get("pixels", {})
    if theirs and theirs != detector.pixels.to_dict():
        session.out.warn(
            f"{data} was prepared with {theirs}, the detector's own photos with {detector.pixels.to_dict() or 'nothing'}:"
            " the figures are not those of its use"
        )
    with session.out.progress("evaluating", "photos") as tick:
        report = evaluate_detector(detector, data, split or config.evaluate.split, config.evaluate, progress=tick)
    return {"weights": weights, "data": str(data), "split": split or config.evaluate.split, **report.to_dict()}


def run_evaluate_search(
    session: Session, index: str | None, queries: Path, *, baseline: bool = False
) -> dict[str, Any]:
    """Recall and its kin of a catalogue; with ``baseline`` those of a colour histogram beside it."""
    from fashionrec.catalogue import Catalogue
    from fashionrec.cli.query import find_catalogue
    from fashionrec.dataset.products import is_table, read_products
    from fashionrec.evaluation.retrieval import evaluate_search, histogram_baseline, queries_from

    if not is_table(queries):
        raise DataError(
            f"{queries} is not a table", hint="a CSV, JSONL or Parquet file with the columns image and product_id"
        )
    rows = read_products(queries)
    asked = queries_from(rows, session.config.build.category_columns)
    with Catalogue.open(find_catalogue(session, index), session.config) as catalogue:
        with session.out.progress("asking", "queries") as tick:
            report = evaluate_search(catalogue, asked, progress=tick)
        if baseline:
            report["colour_histogram"] = histogram_baseline(catalogue, asked)
    return {"index": str(catalogue.root), "queries_from": str(queries), **report}


def _print_detection(session: Session, report: dict[str, Any]) -> None:
    out = session.out
    rows: list[list[object]] = [["all", report["boxes"], *_four(report)]]
    rows += [[name, values.get("boxes", ""), *_four(values)] for name, values in report["per_class"].items()]
    out.table(("class", "boxes", "mAP50", "mAP50-95", "precision", "recall"), rows, right=(1, 2, 3, 4, 5))
    out.line(f"{report['images']} photos of {report['data']}, split {report['split']}")


def _four(values: dict[str, Any]) -> list[str]:
    return [f"{values[key]:.3f}" for key in ("map50", "map50_95", "precision", "recall")]


def _print_search(session: Session, report: dict[str, Any]) -> None:
    keys = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "ndcg_at_10")
    named = [("crop", report["crop"]), ("whole photo", report["whole"])]
    named += [(f"crop, {name}", values) for name, values in report["by_class"].items()]
    if "colour_histogram" in report:
        named.append(("colour histogram", report["colour_histogram"]))
    rows = [[name, values["queries"], *(f"{values[key]:.3f}" for key in keys)] for name, values in named]
    session.out.table(("query", "n", "R@1", "R@5", "R@10", "MRR", "nDCG@10"), rows, right=(1, 2, 3, 4, 5, 6))
    if report["not_in_catalogue"]:
        session.out.line(f"{report['not_in_catalogue']} queries left out: their product is not in the catalogue")
    if report["failures"]:
        session.out.line(f"{len(report['failures'])} query photos cannot be read")
