"""The command ``build-index``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.options import IndexType, MaxLatency, MaxMemory
from fashionrec.cli.reindex import index_line, override_index
from fashionrec.cli.session import Command, Context, Session
from fashionrec.common.text import plural, shell_word
from fashionrec.errors import Refused

if TYPE_CHECKING:
    from fashionrec.catalogue.build.report import BuildReport


def mount(app: typer.Typer) -> None:
    about = "Build or update a catalogue from photos and product data."
    app.command("build-index", cls=Command, help=about)(build_index)


def build_index(
    context: Context,
    photos: Annotated[str, typer.Argument(metavar="PHOTOS", help="Folder of photos, or CSV, JSONL or Parquet table.")],
    index: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder of the catalogue.")] = None,
    detector: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Bundle, run, best.pt, or none (index whole photos).")
    ] = None,
    embedder: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Bundle, run, transformers folder, or Hugging Face id.")
    ] = None,
    max_delete: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SHARE", help="Largest share of products that the build may remove."),
    ] = None,
    index_type: IndexType = None,
    max_memory: MaxMemory = None,
    max_latency_ms: MaxLatency = None,
    rehash: Annotated[
        bool | None,
        typer.Option("--rehash/--no-rehash", help="Hash every photo again, ignoring modification times."),
    ] = None,
) -> None:
    session = context.session
    override_index(session, index_type, max_memory, max_latency_ms)
    session.override("build", {"rehash": rehash})
    report = run_build(session, photos, index, detector, embedder, max_delete)
    session.out.done(report, lambda: print_report(session, report))
    warn_lost(session, report)
    session.out.next(f"fashionrec query PHOTO --index {shell_word(report['index_path'])}")
    refuse_lost(report, "built")


def run_build(
    session: Session,
    photos: str,
    index: str | None = None,
    detector: str | None = None,
    embedder: str | None = None,
    max_delete: float | None = None,
) -> dict[str, Any]:
    """Build a catalogue; return the report.

    Keys are those of :class:`fashionrec.catalogue.build.build.BuildReport`, plus paths.
    """
    from fashionrec.catalogue.build.build import build_catalogue
    from fashionrec.cli.models import model_choice
    from fashionrec.cli.precision import serving_precision
    from fashionrec.products.tables import read_products
    from fashionrec.store.generations import is_catalogue, read_current

    root = Path(index or session.config.query.index or session.data / "catalogue")
    session.out.say(f"catalogue: {root}")
    rows = read_products(Path(photos))
    current = read_current(root) if is_catalogue(root) else None
    choice, detector_bundle = model_choice(session), None
    if session.config.build.detect:
        detector_bundle = choice.detector(detector, catalogue=current.bundle_path("detector") if current else None)
    encoder = choice.embedder(embedder, catalogue=current.bundle_path("embedder") if current else None)
    detector_bundle, encoder = serving_precision(session, detector_bundle, encoder, rows, current=current)
    with session.out.progress("building", "photos") as tick:
        report: BuildReport = build_catalogue(
            rows,
            root,
            detector_bundle=detector_bundle,
            embedder_bundle=encoder,
            config=session.config,
            source=photos,
            max_delete=max_delete,
            progress=tick,
            log=session.out.say,
        )
    document = finished(session, root, report)
    if session.config.build.caption != "none":
        from fashionrec.cli.captioners import run_caption_catalogue

        document["captions"] = run_caption_catalogue(session, root, session.config.build.caption)
    return document


def finished(session: Session, root: Path, report: "BuildReport", given: int | None = None) -> dict[str, Any]:
    """Return a report with paths, after checking whether too many of the ``given`` rows failed."""
    document = report.to_dict()
    document["index_path"] = str(root)
    document["report"] = str(root / "report.json")
    document["page"] = str(root / "report.html")
    document["refused"] = document["failed"] > session.config.build.max_failures * (
        report.rows if given is None else given
    )
    return document


def refuse_lost(report: dict[str, Any], done: str, given: int | None = None) -> None:
    """Raise :class:`Refused` if more rows failed than the settings allow.

    ``done`` says what was done nevertheless.
    """
    if report["refused"]:
        raise Refused(
            f"{report['failed']} of {plural(given or report['rows'], 'row')} failed, more than build.max_failures allows;"
            f" the catalogue was {done} without them",
            hint=f"see failures in {report['report']}",
        )


def warn_lost(session: Session, report: dict[str, Any], unknown: Sequence[str] = (), given: int | None = None) -> None:
    """Warn about lost rows under ``--quiet``: nothing is lost silently."""
    if not session.out.quiet:
        return  # the report shows it
    if report["failed"] and not report["refused"]:
        first = report["failures"][0]
        session.out.warn(
            f"{report['failed']} of {plural(given or report['rows'], 'row')} failed,"
            f" first: {first['message']}; see {report['report']}"
        )
    if unknown:
        session.out.warn(unknown_products(unknown))


def unknown_products(ids: Sequence[str]) -> str:
    """Describe products that a change named but the catalogue lacks, the first ones by id."""
    listed = ", ".join(ids[:10]) + (" ..." if len(ids) > 10 else "")
    return f"{plural(len(ids), 'product')} not in the catalogue: {listed}"


def print_report(session: Session, report: dict[str, Any]) -> None:
    out = session.out
    if report["unchanged"]:
        out.line(f"no changes: still serving generation {report['generation']}")
    out.line(
        f"{plural(report['items'], 'item')} of {plural(report['products'], 'product')} from {plural(report['photos'], 'photo')}"
        f" in {report['total_seconds']:.1f} s: {report['embedded']} embedded, {report['reused']} unchanged,"
        f" {report['resumed']} resumed"
    )
    entries = report["entries"]
    if any(entries[what] for what in ("changed", "replaced", "removed", "kept")):
        out.line("rows: " + ", ".join(f"{count} {what}" for what, count in entries.items() if what != "photos_removed"))
    if report["crops_reused"]:
        out.line(f"{plural(report['crops_reused'], 'vector')} kept from identical crops")
    if report["without_detection"]:
        out.line(f"{plural(report['without_detection'], 'photo')} without a detected garment, indexed whole")
    out.line(f"index: {index_line(report['index'])}")
    if report["failed"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report["failure_reasons"].items())
        out.line(f"{plural(report['failed'], 'row')} failed: {reasons}")
        for failure in report["failures"][:5]:
            out.line(f"  {failure['image'] or '(no image)'}: {failure['message']}")
    out.line(f"report: {report['page']}")
