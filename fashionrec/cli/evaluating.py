"""The command ``evaluate``: measure a detector on labelled photos, or a search on known queries."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.options import Split
from fashionrec.cli.scores import print_scores, print_ways
from fashionrec.cli.session import Command, Context, Session, require
from fashionrec.common.files import provisional_folder
from fashionrec.common.text import plural, shell_word
from fashionrec.errors import DataError, UsageError

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.evaluation.detection.mistakes import PhotoMistakes
    from fashionrec.evaluation.detection.report import DetectionReport


_EXAMPLES = (
    "a detector: --weights best.pt --data data.yaml; a search: --index DIR with --queries, --texts or --outfits FILE"
)


def mount(app: typer.Typer) -> None:
    app.command("evaluate", cls=Command, help="Measure a detector or a search.")(evaluate)


_Settings = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Settings of the section evaluate.")
]
_Weights = Annotated[str | None, typer.Option(metavar="MODEL", help="Detector: a bundle, a run, or a best.pt.")]
_Data = Annotated[Path | None, typer.Option(metavar="FILE", help="data.yaml of a YOLO dataset.")]
_Index = Annotated[str | None, typer.Option(metavar="FOLDER", help="Catalogue folder.")]
_Queries = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Table of query photos, with the columns image and product_id.")
]
_Ways = Annotated[bool, typer.Option("--ways", help="Compare whole photos, crops, captions and mixes as queries.")]
_Captions = Annotated[bool, typer.Option("--captions", help="Measure the captions of a catalogue, field by field.")]
_Truth = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="With --captions: table of products with true attributes (color, pattern ...)."),
]
_Texts = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Table of products and texts: compare full-text, embedding and mixed search."),
]
_Apply = Annotated[bool, typer.Option("--apply", help="With --ways: store the best caption weight in the catalogue.")]
_Outfits = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Table of outfits (image, product_id, category): measure recommendations."),
]
_Html = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write an HTML page: figures, curves, and the worst photos of a detector."),
]


def evaluate(
    context: Context,
    settings: _Settings = None,
    weights: _Weights = None,
    data: _Data = None,
    split: Split = None,
    index: _Index = None,
    queries: _Queries = None,
    ways: _Ways = False,
    captions: _Captions = False,
    truth: _Truth = None,
    texts: _Texts = None,
    apply: _Apply = False,
    outfits: _Outfits = None,
    html: _Html = None,
) -> None:
    session = context.session
    words = session.assign("evaluate", settings or [])
    if words:
        raise UsageError(f"unexpected argument {words[0]!r}", hint=_EXAMPLES)
    session.override("evaluate", {"split": split})
    if apply and not ways:
        raise UsageError("--apply needs --ways", hint="fashionrec evaluate --index DIR --queries FILE --ways --apply")
    if weights is not None or data is not None:
        if queries is not None:
            raise UsageError("--queries cannot be combined with --weights or --data", hint=_EXAMPLES)
        require({"--weights": weights, "--data": data}, hint=_EXAMPLES)
        _evaluate_detector(session, weights or "", data or Path(), html)
    elif captions:
        _evaluate_captions(session, index, truth, queries)
    elif outfits is not None:
        _evaluate_outfits(session, index, outfits)
    elif texts is not None:
        _evaluate_texts(session, index, texts)
    elif queries is None:
        search = ways or index is not None
        raise UsageError(f"Missing: {'--queries' if search else '--data or --queries'}", hint=_EXAMPLES)
    elif ways:
        _evaluate_ways(session, index, queries, apply)
    elif html is not None:
        raise UsageError("--html is only for detectors", hint="for a search: fashionrec query PHOTO --html answer.html")
    else:
        report = run_evaluate_search(session, index, queries)
        session.out.result(report, lambda: _print_search(session, report))
        session.out.next(f"fashionrec query PHOTO --index {shell_word(report['index'])} --html answer.html")


def run_evaluate_detector(session: Session, weights: str, data: Path, split: str | None = None) -> dict[str, Any]:
    """Measure a detector on one split of a dataset: mAP and other figures, and its worst photos."""
    split = split or session.config.evaluate.split
    return _document(weights, data, split, *_measure(session, weights, data, split))


def _evaluate_detector(session: Session, weights: str, data: Path, html: Path | None) -> None:
    split = session.config.evaluate.split
    with provisional_folder(html.parent) if html else nullcontext():  # fail before minutes of work, not after
        report, worst = _measure(session, weights, data, split)
    if html is not None:
        from fashionrec.common.files import write_atomic
        from fashionrec.evaluation.detection.page import detection_page

        about = {"title": f"Evaluation of {Path(weights).name}", "weights": weights, "data": str(data), "split": split}
        write_atomic(html, detection_page(report, worst, session.config.images, about))
    document = _document(weights, data, split, report, worst)
    session.out.result(document, lambda: _print_detection(session, report, data, split))
    if html is not None:
        session.out.say(f"page: {html}")
        session.out.next(f"fashionrec build-index PHOTOS --detector {shell_word(weights)}")
    else:
        session.out.next(
            f"fashionrec evaluate --weights {shell_word(weights)} --data {shell_word(data)} --split {shell_word(split)}"
            " --html evaluation.html"
        )


def _measure(
    session: Session, weights: str, data: Path, split: str
) -> "tuple[DetectionReport, Sequence[PhotoMistakes]]":
    from fashionrec.cli.models import model_choice, open_detector
    from fashionrec.evaluation.detection.evaluator import match_detector, other_preparation
    from fashionrec.evaluation.detection.mistakes import find_mistakes, worst
    from fashionrec.evaluation.detection.report import detection_report

    config, detector = session.config, open_detector(session, model_choice(session).detector_of(Path(weights)))
    if differs := other_preparation(detector, data):
        session.out.warn(f"{differs}: figures differ from those in use")
    with session.out.progress("evaluating", "photos") as tick:
        matches = match_detector(detector, data, split, config.evaluate, config.images, progress=tick)
    return detection_report(matches), worst(find_mistakes(matches), config.evaluate.worst)


def _document(
    weights: str, data: Path, split: str, report: "DetectionReport", worst: "Sequence[PhotoMistakes]"
) -> dict[str, Any]:
    about = {"weights": weights, "data": str(data), "split": split}
    return {**about, **report.to_dict(), "worst": [photo.to_dict() for photo in worst]}


def _evaluate_texts(session: Session, index: str | None, texts: Path) -> None:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.evaluation.retrieval.texts import compare_texts, texts_from

    entries = texts_from(_table_rows(texts, need_image=False))
    root = session.find_catalogue(index)
    with Catalogue.open(root, session.config) as catalogue, session.out.progress("asking", "texts") as tick:
        results = compare_texts(catalogue, entries, progress=tick)
        _store_measurement(session, catalogue, "match_text", results["calibration"])
    document = {"index": str(catalogue.root), "texts_from": str(texts), **results}

    def human() -> None:
        print_scores(session, list(document["ways"].items()))
        for language, weight in document["lexical_weight"].items():
            share, lost = document["verbatim"][language], document["not_understood"][language]
            session.out.line(
                f"{language}: best weight of words {weight:g}; {100 * share:.0f} % of the texts occur in their product's"
                f" data; {lost} did not reach the encoder"
            )

    session.out.result(document, human)
    session.out.next(f'fashionrec query --text "..." --index {shell_word(document["index"])}')


def _store_measurement(session: Session, catalogue: "Catalogue", name: str, entry: Mapping[str, Any] | None) -> None:
    """Store measured results in the catalogue, if there are any and the folder is writable."""
    from fashionrec.store.measured import write_measured

    if entry is None:
        return
    try:
        write_measured(catalogue.root, name, catalogue.generation.name, catalogue.embedder_bundle.fingerprint, entry)
    except OSError as error:
        session.out.warn(f"results cannot be stored in {catalogue.root}: {error.strerror}")


def _evaluate_ways(session: Session, index: str | None, queries: Path, apply: bool) -> None:
    from fashionrec.captioner.job import describer
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.evaluation.retrieval.retrieval import queries_from
    from fashionrec.evaluation.retrieval.ways import compare_ways

    known_queries = queries_from(_table_rows(queries), session.config.build.category_columns)
    root = session.find_catalogue(index)
    with Catalogue.open(root, session.config) as catalogue, session.out.progress("asking", "queries") as tick:
        results = compare_ways(catalogue, known_queries, describer(catalogue), progress=tick)
        if apply and results["caption_weight"] is None:
            raise DataError(
                f"{catalogue.root} has no captions to weigh",
                hint=f"fashionrec caption --index {shell_word(catalogue.root)}",
            )
        if apply:
            _store_measurement(session, catalogue, "caption_weight", {"value": results["caption_weight"]})
    document = {"index": str(catalogue.root), "queries_from": str(queries), **results}

    session.out.result(document, lambda: print_ways(session, document))
    if document["caption_weight"] is not None:
        command = f"fashionrec evaluate --index {shell_word(document['index'])} --queries {shell_word(queries)} --ways --apply"
        session.out.next(
            f"fashionrec query PHOTO --index {shell_word(document['index'])} --caption" if apply else command
        )
    else:
        session.out.next(f"fashionrec caption --index {shell_word(document['index'])}")


def _evaluate_captions(session: Session, index: str | None, truth: Path | None, queries: Path | None) -> None:
    from fashionrec.cli.evaluating_captions import evaluate_captions_of
    from fashionrec.evaluation.retrieval.retrieval import queries_from

    known_queries = (
        None if queries is None else queries_from(_table_rows(queries), session.config.build.category_columns)
    )
    evaluate_captions_of(session, index, None if truth is None else _table_rows(truth), known_queries)


def _evaluate_outfits(session: Session, index: str | None, outfits: Path) -> None:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.evaluation.retrieval.outfits import evaluate_outfits, looks_from

    looks = looks_from(_table_rows(outfits), session.config.build.category_columns)
    root = session.find_catalogue(index)
    with Catalogue.open(root, session.config) as catalogue, session.out.progress("asking", "looks") as tick:
        results = evaluate_outfits(catalogue, looks, progress=tick)
    document = {"index": str(catalogue.root), "outfits_from": str(outfits), **results}

    def human() -> None:
        methods = {"goes with, tuned": "goes_with", "goes with, as configured": "as_set", "popularity": "popularity"}
        print_scores(session, [(f"{name} (judged half)", document[key]) for name, key in methods.items()])
        chosen = " and ".join(f"query.goes_with.{key} {value:g}" for key, value in document["chosen"].items())
        session.out.line(f"chosen on the other half: {chosen}")
        if document["not_seen"]:
            session.out.line(f"{plural(document['not_seen'], 'garment')} missed by the detector")

    session.out.result(document, human)
    session.out.next(f"fashionrec query PHOTO --goes-with --index {shell_word(document['index'])}")


def _table_rows(path: Path, *, need_image: bool = True) -> Any:
    from fashionrec.products.tables import read_products

    return read_products(path, folder=False, need_image=need_image)


def run_evaluate_search(
    session: Session, index: str | None, queries: Path, *, baseline: bool = False
) -> dict[str, Any]:
    """Measure recall and other figures of a catalogue.

    ``baseline`` adds those of a colour histogram.
    """
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.evaluation.retrieval.retrieval import evaluate_search, histogram_baseline, queries_from

    known_queries = queries_from(_table_rows(queries), session.config.build.category_columns)
    with Catalogue.open(session.find_catalogue(index), session.config) as catalogue:
        with session.out.progress("asking", "queries") as tick:
            report = evaluate_search(catalogue, known_queries, progress=tick)
        _store_measurement(session, catalogue, "match_photo", report["calibration"])
        if baseline:
            report["colour_histogram"] = histogram_baseline(catalogue, known_queries)
    return {"index": str(catalogue.root), "queries_from": str(queries), **report}


def _print_detection(session: Session, report: "DetectionReport", data: Path, split: str) -> None:
    from fashionrec.evaluation.detection.report import METRICS, figure

    out, everything = session.out, vars(report)
    rows = [
        [name, values["boxes"], *(figure(values[key]) for key in METRICS)]
        for name, values in {"all": everything, **report.per_class}.items()
    ]
    out.table(("class", "boxes", "mAP50", "mAP50-95", "P", "R", "F1"), rows, right=(1, 2, 3, 4, 5, 6))
    coco_metrics = {"AP": "coco_ap", "AP50": "coco_ap50", "AP75": "coco_ap75", "AR100": "coco_ar100"}
    sizes = [
        f"{name} {figure(v['coco_ap'])} ({plural(int(v['boxes'] or 0), 'box', 'boxes')})"
        for name, v in report.by_size.items()
    ]
    out.line("COCO: " + ", ".join(f"{name} {figure(everything[key])}" for name, key in coco_metrics.items()))
    out.line("COCO AP by size: " + ", ".join(sizes))
    out.line(f"at confidence {report.confidence:.3f}: {report.mistakes_line()}")
    if pairs := report.confusion.confused(3):
        out.line("most confused: " + ", ".join(f"{true} taken for {predicted} {n}x" for true, predicted, n, _ in pairs))
    out.line(f"{plural(report.images, 'photo')} of {data}, split {split}")


def _print_search(session: Session, report: dict[str, Any]) -> None:
    groups = [("crop", report["crop"]), ("whole photo", report["whole"])]
    groups += [(f"crop, {name}", values) for name, values in report["by_class"].items()]
    print_scores(session, groups)
    if report["calibration"]:
        calibration = report["calibration"]
        session.out.line(
            f"matches are calibrated on {calibration['hits']} hits, {calibration['right']} of them right: off by"
            f" {100 * calibration['calibration_error']:.1f} points on the held-out half"
        )
    if report["not_in_catalogue"]:
        session.out.line(
            f"{plural(report['not_in_catalogue'], 'query', 'queries')} skipped: the product is not in the catalogue"
        )
    if report["failures"]:
        session.out.line(f"{plural(len(report['failures']), 'query photo')} could not be read")
