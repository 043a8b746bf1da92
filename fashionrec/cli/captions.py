"""The command ``caption``: caption the garments of photos, or of a catalogue."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fashionrec.cli.captioners import open_captioner, run_caption_catalogue
from fashionrec.cli.session import Command, Context, Session
from fashionrec.common.text import plural, shell_word
from fashionrec.config.captioners import CAPTIONERS
from fashionrec.errors import CaptionError, Refused, UsageError

_RETRY = ("failed", "refused", "filtered", "truncated", "invalid")


def mount(app: typer.Typer) -> None:
    app.command("caption", cls=Command, help="Caption the garments of photos, or of a catalogue.")(caption)


_Photos = Annotated[list[str] | None, typer.Argument(metavar="PHOTO...", help="Photos to caption.")]
_Index = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Catalogue folder; without photos, all its garments are captioned.")
]
_Captioner = Annotated[str | None, typer.Option(metavar="NAME", help=f"auto, {', '.join(CAPTIONERS)}.")]
_Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Maximum number of garments to caption.")]
_OnlyMissing = Annotated[
    bool, typer.Option("--only-missing", help="Only garments that have no caption record (the default).")
]
_Retry = Annotated[
    str | None, typer.Option(metavar="STATES", help="Retry garments recorded as failed, refused, filtered ...")
]
_Recaption = Annotated[
    str | None, typer.Option(metavar="WHAT", help="Caption (and pay) again: all, or classes, products or items.")
]
_MaxCost = Annotated[float | None, typer.Option(min=0, metavar="USD", help="Stop before spending more than this.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be sent and its cost; send nothing.")]
_Batch = Annotated[bool, typer.Option("--batch", help="Use the provider's batch API: half the price, within a day.")]
_Resume = Annotated[bool, typer.Option("--resume", help="With --batch: collect finished answers and continue.")]
_Wait = Annotated[bool, typer.Option("--wait", help="With --batch: wait for all answers.")]
_DiscardUnsent = Annotated[
    bool,
    typer.Option("--discard-unsent", help="With --batch: drop parts that you did not plan; they cost nothing."),
]
_ImportCaptions = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Import valid captions from another catalogue or project."),
]
_Status = Annotated[bool, typer.Option("--status", help="Show how many garments have a caption, and what failed.")]


def caption(
    context: Context,
    photos: _Photos = None,
    index: _Index = None,
    captioner: _Captioner = None,
    limit: _Limit = None,
    only_missing: _OnlyMissing = False,
    retry: _Retry = None,
    recaption: _Recaption = None,
    max_cost: _MaxCost = None,
    dry_run: _DryRun = False,
    batch: _Batch = False,
    resume: _Resume = False,
    wait: _Wait = False,
    discard_unsent: _DiscardUnsent = False,
    import_captions: _ImportCaptions = None,
    status: _Status = False,
) -> None:
    session = context.session
    session.override("captioner", {"kind": captioner, "max_cost": max_cost})
    if import_captions is not None:
        if photos or index is not None:
            raise UsageError("--import-captions takes no photos and no --index: it imports for all catalogues")
        _import(session, Path(import_captions))
        return
    if not photos and index is None:
        raise UsageError("give photos, or a catalogue with --index")
    if photos and (batch or status or recaption or retry or dry_run or max_cost is not None):
        raise UsageError("with photos, only --index, --captioner and --limit are allowed")
    if (resume or wait or discard_unsent) and not batch:
        raise UsageError(
            "--resume, --wait and --discard-unsent need --batch",
            hint="fashionrec caption --index C --batch --resume",
        )
    if only_missing and (recaption or retry):
        raise UsageError("--only-missing cannot be combined with --recaption or --retry")
    if photos:
        _caption_photos(session, photos[:limit], index)
    elif status:
        _show_status(session, Path(index or ""))
    else:
        document = run_caption_catalogue(
            session,
            Path(index or ""),
            session.config.captioner.kind,
            limit,
            again=_states(retry),
            recaption=recaption,
            dry_run=dry_run,
            batch=("resume" if resume else "submit") if batch else None,
            discard_unsent=discard_unsent,
            wait=wait,
        )
        _report(session, document, index)


def _caption_photos(session: Session, photos: Sequence[str], index: str | None) -> None:
    from fashionrec.captioner.job import caption_photos
    from fashionrec.catalogue.catalogue import Catalogue

    captioner = open_captioner(session, session.config.captioner.kind)
    with Catalogue.open(session.find_catalogue(index), session.config) as catalogue:
        documents, failed = caption_photos(catalogue, captioner, photos)
    session.out.result({"photos": documents}, lambda: _print_photos(session, documents))
    session.out.next("fashionrec query PHOTO --caption")
    if failed:
        raise CaptionError(f"{plural(failed, 'caption')} failed")


def _report(session: Session, document: dict[str, Any], index: str | None) -> None:
    """Print the result of captioning a catalogue. Raises the error that qualifies it, if any."""
    session.out.done(document, lambda: _print_catalogue(session, document))
    _suggest(session, document, index)
    if document["failed"]:
        raise CaptionError(
            f"{plural(document['failed'], 'caption')} failed",
            hint="failures are recorded; retry with --retry failed (or refused, filtered, truncated, invalid)",
        )
    if document["stopped"]:
        raise Refused(
            f"stopped at the limit of US$ {session.config.captioner.max_cost:g}: {plural(document['left'], 'garment')} left",
            hint="finished captions are saved; continue with a higher --max-cost",
        )


def _import(session: Session, source: Path) -> None:
    from fashionrec.captioner.job import import_captions

    document = import_captions(source, session.config)
    refused = sum(document["refused"].values())

    def human() -> None:
        session.out.line(
            f"{plural(document['imported'], 'caption')} imported, {document['known']} already known,"
            f" {document['other']} other records" + (f", {refused} rejected" if refused else "")
        )
        for reason, count in document["refused"].items():
            session.out.line(f"  rejected ({reason}): {count}")

    session.out.result(document, human)
    session.out.next("fashionrec caption --index CATALOGUE")
    if refused:
        raise Refused(
            f"{plural(refused, 'caption')} of {source} rejected: a server could not have returned them",
            hint="all others were imported",
        )


def _states(text: str | None) -> frozenset[str]:
    states = frozenset(word.strip() for word in (text or "").split(",") if word.strip())
    if text is not None and (not states or states - set(_RETRY)):
        raise UsageError(f"{text!r} is not a state that can be retried", hint=f"--retry {','.join(_RETRY)}")
    return states


def _print_photos(session: Session, documents: Sequence[dict[str, Any]]) -> None:
    for document in documents:
        session.out.line(document["photo"] + (f": {document['error']}" if document["error"] else ""))
        for garment in document["garments"]:
            name = garment["class_name"] or "whole photo"
            if garment["state"] == "done":
                session.out.line(f"  {garment['index']} {name}: {garment['caption_en']} / {garment['caption_ko']}")
            else:
                session.out.line(f"  {garment['index']} {name}: {garment['state']} ({garment['error']})")
        if document.get("outfit"):
            session.out.line(f"  outfit: {document['outfit']['en']} / {document['outfit']['ko']}")


def _print_catalogue(session: Session, document: dict[str, Any]) -> None:
    if document["dry_run"]:
        session.out.line("nothing was sent (--dry-run)")
        return
    session.out.line(
        f"{plural(document['made'], 'new caption')}, {document['kept']} kept, {document['reused']} from the cache,"
        f" {document['failed']} failed" + (f", {document['left']} left" if document["left"] else "")
    )
    for state, count in document["states"].items():
        if state != "done":
            session.out.line(f"  {state}: {count}")
    if document["usage"]["input_tokens"]:
        cost = document["cost_usd"]
        price = f", US$ {cost:.4f}" if cost is not None else ", this model has no price in the settings"
        session.out.line(
            f"  {document['usage']['input_tokens']} tokens in, {document['usage']['output_tokens']} out{price}"
        )
    if document["texts_cut"]:
        session.out.line(
            f"  {plural(document['texts_cut'], 'text')} exceeded the text encoder's limit:"
            f" {plural(document['tokens_cut'], 'token')} dropped"
        )
    for line in document.get("batches", ()):
        session.out.line(f"  batch {line['batch_id'] or '-'}: {line['state']}, {plural(line['requests'], 'garment')}")


def _suggest(session: Session, document: dict[str, Any], index: str | None) -> None:
    if document["dry_run"]:
        session.out.next(f"fashionrec caption --index {shell_word(index)}")
    elif document.get("pending"):
        session.out.next(f"fashionrec caption --index {shell_word(index)} --batch --resume")
    else:
        session.out.next(f'fashionrec query --text "a striped top" --index {shell_word(index)}')


def _show_status(session: Session, root: Path) -> None:
    from fashionrec.captioner.job import status
    from fashionrec.captioner.job.batches import pending_batches

    document = status(root, session.config) | {"batches": pending_batches(root)}

    def human() -> None:
        session.out.line(f"{plural(document['garments'], 'garment')}, {document['without']} without a caption")
        for name, count in document["captioned"].items():
            session.out.line(f"  captioned by {name:7} {count}")
        for name, count in document["states"].items():
            session.out.line(f"  recorded: {name:18} {count}")
        for batch in document["batches"]:
            session.out.line(
                f"  batch {batch['batch_id'] or '-'}: {batch['state']}, {plural(batch['requests'], 'garment')}"
            )

    session.out.result(document, human)
