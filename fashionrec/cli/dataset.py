"""The commands ``dataset audit`` and ``dataset export``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.session import Command, Context, Group, Session, require
from fashionrec.common.text import plural, shell_word
from fashionrec.errors import FashionrecError, Refused, UsageError

if TYPE_CHECKING:
    from fashionrec.dataset.audit.disagree import Detections
    from fashionrec.dataset.audit.findings import Finding
    from fashionrec.dataset.audit.run import Audit

_UNSEEN_CONF = 0.05  # a label that a detector does not confirm even at this confidence counts as missed


def mount(app: typer.Typer) -> None:
    family = typer.Typer(cls=Group, help="Audit a dataset, or export it to other formats.", no_args_is_help=True)
    family.command("audit", cls=Command, help="Report what is in a dataset and what is wrong with it.")(audit)
    family.command("export", cls=Command, help="Export a dataset to COCO, Pascal VOC or Roboflow.")(export)
    app.add_typer(family, name="dataset")


def audit(
    context: Context,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Dataset folder, or its data.yaml.")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page with thumbnails of the findings.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 on any finding that audit.allow does not name.")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Detector (bundle, run or best.pt): list labels it contradicts.")
    ] = None,
) -> None:
    session = context.session
    result = run_audit(session, data, weights)
    if html:
        from fashionrec.common.files import write_atomic
        from fashionrec.dataset.audit.page import audit_page

        html.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(html, audit_page(result, session.config.images, session.config.audit.thumbnails))
    session.out.result(result.to_dict(), lambda: _print(session, result, html))
    if strict and result.broken:
        counts = result.counts_by_kind
        raise Refused(
            f"{sum(counts[kind] for kind in result.broken)} findings that --strict does not let pass:"
            f" {', '.join(f'{counts[kind]} {kind}' for kind in result.broken)}",
            hint="fix them, or add accepted findings to audit.allow",
        )
    if html is None and result.findings:
        session.out.next(f"fashionrec dataset audit {shell_word(data)} --html audit.html")
    elif not result.broken:
        session.out.next(f"fashionrec train {shell_word(f'data={result.root}/data.yaml')} model=yolov8l.pt")
    else:
        session.out.next(f"fashionrec fetch-dataset {shell_word(f'yolo:{data}')} --out DIR")


def export(
    context: Context,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Dataset folder, or its data.yaml.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help="coco, voc, or roboflow.")],
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="coco, voc: output folder.")] = None,
    target: Annotated[
        str | None, typer.Option(metavar="WORKSPACE/PROJECT", help="roboflow: project to upload to.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="MODEL", help="roboflow: detector that selects doubtful photos.")
    ] = None,
    strategy: Annotated[
        str, typer.Option(metavar="NAME", help="roboflow: select by uncertain, disagree, or auto.")
    ] = "auto",
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="roboflow: maximum number of photos.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="roboflow: show what would be sent; send nothing.")
    ] = False,
) -> None:
    session = context.session
    if to in ("coco", "voc"):
        hint = f"fashionrec dataset export {shell_word(data)} --to {shell_word(to)} --out DIR"
        require({"--out": out}, hint=hint)
        _export_format(session, data, to, out or Path())
    elif to == "roboflow":
        hint = "--target WORKSPACE/PROJECT --weights best.pt; --dry-run shows what would be sent"
        require({"--target": target, "--weights": weights}, hint=hint)
        session.override("roboflow", {"limit": limit})
        _export_roboflow(session, data, target or "", weights or "", strategy, dry_run)
    else:
        raise UsageError(f"unknown export format {to!r}", hint="--to coco, voc, or roboflow")


def _export_format(session: Session, data: Path, to: str, out: Path) -> None:
    from fashionrec.dataset.exports.formats import export_coco, export_voc

    with session.out.progress("writing", "photos") as tick:
        document = (export_coco if to == "coco" else export_voc)(data, out, session.config.images, tick)

    def human() -> None:
        for name, count in document["counts"].items():
            session.out.line(f"  {name:14} {count}")
        session.out.line(f"{to}: {out}")

    session.out.result(document, human)
    session.out.next(f"fashionrec fetch-dataset {shell_word(f'{to}:{out}')} --out DIR   (and back)")


def _export_roboflow(session: Session, data: Path, target: str, weights: str, strategy: str, dry_run: bool) -> None:
    from fashionrec.dataset.roboflow.upload import plan_doubtful, upload

    if strategy not in ("auto", "uncertain", "disagree"):
        raise UsageError(f"unknown strategy {strategy!r}", hint="auto, uncertain, or disagree")
    config, store = session.config, session.data / "roboflow"
    detect, model = _detections(session, weights), Path(weights).stem
    with session.out.progress("looking", "photos") as tick:
        planned, document = plan_doubtful(
            data,
            detect,
            target,
            store,
            config,
            model=model,
            strategy=strategy,  # type: ignore[arg-type]
            progress=tick,
        )
    session.out.say(
        f"{plural(len(planned.photos), 'photo')} ({planned.bytes / 1e6:.1f} MB)"
        f" with {plural(planned.boxes, 'box', 'boxes')} as batch"
        f" {planned.batch!r} to {planned.target} at {planned.host}"
    )
    if not dry_run and planned.photos:
        with session.out.progress("uploading", "photos") as tick:
            report = upload(planned, store, config, progress=tick)
        document["sent"] = {**report.counts, "rows": list(report.rows)}
    session.out.result(document, lambda: _print_batch(session, document, dry_run))
    if dry_run:
        session.out.next("the same command without --dry-run")
    else:
        session.out.next(
            "label the batch there, generate a version, then: fashionrec fetch-dataset roboflow:W/P/VERSION"
        )
    if document["sent"] and document["sent"]["failed"]:
        raise FashionrecError(
            f"{plural(document['sent']['failed'], 'photo')} rejected by Roboflow",
            hint="run the command again: accepted photos are not sent twice",
        )


def _print_batch(session: Session, document: dict[str, Any], dry_run: bool) -> None:
    for row in document["photos"]:
        session.out.line(f"  {row['image']}  {plural(row['boxes'], 'box', 'boxes')}  {row['why']}")
    if sent := document["sent"]:
        session.out.line(", ".join(f"{sent[state]} {state}" for state in sent if state != "rows"))
    elif dry_run:
        session.out.line("nothing was sent (--dry-run)")


def run_audit(session: Session, data: Path, weights: str | None = None) -> "Audit":
    """Audit a dataset with the session's settings, and with a detector if ``weights`` names one."""
    from fashionrec.dataset.audit.run import audit_dataset

    detections = _detections(session, weights) if weights else None
    with session.out.progress("looking", "photos") as tick:
        return audit_dataset(data, session.config, detections=detections, progress=tick, detect_progress=tick)


def _detections(session: Session, weights: str) -> "Detections":
    from fashionrec.cli.models import model_choice, open_detector

    bundle = model_choice(session).detector_of(Path(weights))
    detector = open_detector(session, bundle, conf=_UNSEEN_CONF, max_garments=session.config.evaluate.max_det)
    return detector.detect


def _print(session: Session, result: "Audit", html: Path | None) -> None:
    out, everything = session.out, result.table["all"]
    splits = [split for split in result.table if split != "all"]
    columns = [
        "class",
        *(f"{split} {what}" for split in splits for what in ("photos", "boxes")),
        "photos",
        "boxes",
        "missing",
    ]
    rows: list[list[object]] = []
    for name, counts in everything["classes"].items():
        cells = [result.table[split]["classes"][name][what] for split in splits for what in ("images", "boxes")]
        missing = max(0, result.min_images - counts["images"])
        rows.append([name, *cells, counts["images"], counts["boxes"], missing or "-"])
    for label, key in (("background", "backgrounds"), ("unreadable", "unreadable")):
        cells = [cell for split in splits for cell in (result.table[split][key], "")]
        rows.append([label, *cells, everything[key], "", ""])
    cells = [result.table[split][what] for split in splits for what in ("images", "boxes")]
    rows.append(["all", *cells, everything["images"], everything["boxes"], ""])
    out.table(columns, rows, right=range(1, len(columns)))
    if result.findings:
        out.line()
        firsts = {finding.kind: finding for finding in reversed(result.findings)}
        lines = [
            (firsts[kind].severity, count, kind, "stops" if kind in result.broken else "", _example(firsts[kind]))
            for kind, count in result.counts_by_kind.items()
        ]
        out.table(("severity", "number", "finding", "--strict", "for example"), lines, right=(1,))
    else:
        out.line("no problems found")
    if html:
        out.line(f"page: {html}")


def _example(finding: "Finding") -> str:
    where = " = ".join(finding.images[:2])
    text = f"{where}: {finding.text}" if where else finding.text
    return text if len(text) <= 110 else text[:109] + "…"
