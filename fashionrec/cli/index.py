"""build-index, and what a catalogue is asked about itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.session import Session, command
from fashionrec.errors import Refused

if TYPE_CHECKING:
    from fashionrec.build_report import BuildReport


def mount(app: typer.Typer) -> None:
    command(app, "build-index", help="Make or refresh a catalogue from photos and product data.")(build_index)
    catalogue = typer.Typer(help="Look into a catalogue.", no_args_is_help=True, rich_markup_mode=None)
    command(catalogue, "show", help="What a catalogue holds and what it was built with.")(show)
    command(catalogue, "verify", help="Hash every file of a catalogue against its manifest.")(verify)
    app.add_typer(catalogue, name="catalogue")


def build_index(
    session: Session,
    photos: Annotated[str, typer.Argument(help="A folder of photos, or a CSV, JSONL or Parquet table.")],
    index: Annotated[str | None, typer.Option(help="The catalogue's folder.")] = None,
    detector: Annotated[str | None, typer.Option(help="A bundle, a run, a best.pt, or none.")] = None,
    embedder: Annotated[str | None, typer.Option(help="A bundle, a Hugging Face id, or a transformers folder.")] = None,
    max_delete: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of products that may go before it refuses.")
    ] = None,
) -> None:
    report = run_build(session, photos, index, detector, embedder, max_delete)
    session.out.result(report, lambda: _print_report(session, report))
    session.out.next(f"fashionrec query PHOTO --index {report['index_path']}")
    if report["refused"]:
        raise Refused(
            f"{report['failed']} of {report['rows']} rows failed, more than build.max_failures allows;"
            " the catalogue was built without them",
            hint=f"see failures in {report['report']}",
        )


def run_build(
    session: Session,
    photos: str,
    index: str | None = None,
    detector: str | None = None,
    embedder: str | None = None,
    max_delete: float | None = None,
) -> dict[str, Any]:
    """Build and report. The keys are those of :class:`fashionrec.build.BuildReport`, and where things are."""
    from fashionrec.build import build_catalogue
    from fashionrec.cli import models
    from fashionrec.dataset.products import read_products
    from fashionrec.store.generations import is_catalogue, read_current

    root = Path(index or session.config.query.index or session.data / "catalogue")
    session.out.say(f"catalogue: {root}")
    rows = read_products(Path(photos))
    current = read_current(root) if is_catalogue(root) else None
    found = None
    if session.config.build.detect:
        found = models.detector_bundle(
            session, detector, catalogue=current.bundle_path("detector") if current else None
        )
    encoder = models.embedder_bundle(session, embedder, catalogue=current.bundle_path("embedder") if current else None)
    with session.out.progress("building", "photos") as tick:
        report: BuildReport = build_catalogue(
            rows,
            root,
            detector_bundle=found,
            embedder_bundle=encoder,
            config=session.config,
            source=photos,
            max_delete=max_delete,
            progress=tick,
        )
    document = report.to_dict()
    document["index_path"] = str(root)
    document["report"] = str(root / "generations" / report.generation / "report.json")
    document["refused"] = document["failed"] > session.config.build.max_failures * len(rows)
    if session.config.build.caption != "none":
        from fashionrec.cli.captions import run_caption_catalogue

        document["captions"] = run_caption_catalogue(session, root, session.config.build.caption)
    return document


def _print_report(session: Session, report: dict[str, Any]) -> None:
    out = session.out
    out.line(
        f"{report['items']} items of {report['products']} products from {report['photos']} photos"
        f" in {report['total_seconds']:.1f} s: {report['embedded']} embedded, {report['reused']} as before,"
        f" {report['resumed']} from an unfinished build"
    )
    if report["without_detection"]:
        out.line(f"{report['without_detection']} photos without a detection, indexed whole")
    index = report["index"]
    out.line(
        f"index: {index['kind']}, {index['vectors']} vectors, recall@10 {index['recall_at_10']:.3f},"
        f" {index['latency_ms_p50']:.2f} ms a query"
    )
    if report["failed"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report["failure_reasons"].items())
        out.line(f"{report['failed']} rows failed: {reasons}")
        for failure in report["failures"][:5]:
            out.line(f"  {failure['image'] or '(no image)'}: {failure['message']}")
    out.line(f"report: {report['report']}")


def show(
    session: Session,
    index: Annotated[str | None, typer.Argument(help="The catalogue's folder.")] = None,
) -> None:
    from fashionrec.catalogue import Catalogue
    from fashionrec.cli.query import find_catalogue

    with Catalogue.open(find_catalogue(session, index), session.config) as catalogue:
        manifest = catalogue.generation.manifest
    keys = ("generation", "created", "photos_from", "counts", "index", "bundles", "settings", "versions")
    document = {"path": str(catalogue.root), **{key: manifest[key] for key in keys}}
    document["bytes"] = sum(entry["size"] for entry in manifest["files"].values())

    def human() -> None:
        session.out.line(f"{catalogue.root}: generation {document['generation']}, {document['bytes'] >> 20} MiB")
        for name, count in document["counts"].items():
            session.out.line(f"  {name:10} {count}")
        for kind, entry in document["bundles"].items():
            session.out.line(f"  {kind:10} {entry['name']} ({entry['fingerprint'][:16]})")
        index_entry = document["index"]
        session.out.line(f"  index      {index_entry['kind']}, {index_entry['vectors']} vectors")

    session.out.result(document, human)
    session.out.next(f"fashionrec query PHOTO --index {catalogue.root}")


def verify(
    session: Session,
    index: Annotated[str | None, typer.Argument(help="The catalogue's folder.")] = None,
) -> None:
    from fashionrec.bundle import Bundle
    from fashionrec.catalogue import Catalogue
    from fashionrec.cli.query import find_catalogue

    with Catalogue.open(find_catalogue(session, index), session.config) as catalogue:
        catalogue.generation.check(contents=True)
        for kind in catalogue.generation.manifest["bundles"]:
            path = catalogue.generation.bundle_path(kind)
            if path is not None:
                Bundle.open(path, kind, verify=True)
        files = len(catalogue.generation.manifest["files"])
    document = {"path": str(catalogue.root), "files": files, "ok": True}
    session.out.result(
        document, lambda: session.out.line(f"{catalogue.root}: all {files} files are as they were written")
    )
    session.out.next(f"fashionrec query PHOTO --index {catalogue.root}")
