"""caption: describe the garments of photos, or of a catalogue; and the same for a query's garments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.session import Session, command
from fashionrec.common.text import shell_word
from fashionrec.errors import CaptionError, ImageError, Refused, UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fashionrec.captioner.openai.remote import OpenAICaptioner
    from fashionrec.captioner.outcome import Outcome
    from fashionrec.captioner.schema import Said
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.photo import Describe
    from fashionrec.types import Garment

_RETRY = ("failed", "refused", "filtered", "truncated", "invalid")


def mount(app: typer.Typer) -> None:
    command(app, "caption", help="Describe the garments of photos, or of a catalogue (--index).")(caption)


def caption(
    session: Session,
    photos: Annotated[list[str] | None, typer.Argument(help="Photos to describe.")] = None,
    index: Annotated[
        str | None, typer.Option(help="A catalogue: with no photos, all its garments are described.")
    ] = None,
    captioner: Annotated[str | None, typer.Option(help="auto, local, or openai.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Describe at most so many garments.")] = None,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Only garments that nothing is recorded of (the default).")
    ] = False,
    retry: Annotated[
        str | None, typer.Option(metavar="STATES", help="Ask again what is recorded as failed, refused, filtered ...")
    ] = None,
    recaption: Annotated[
        str | None, typer.Option(metavar="WHAT", help="Ask (and pay) anew: all, or classes, products or items.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, metavar="USD", help="Stop before more is spent.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked and cost; ask nothing.")] = False,
    batch: Annotated[
        bool, typer.Option("--batch", help="By OpenAI's Batch API: half the price, within a day.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="With --batch: collect what has come, and go on.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="With --batch: until all answers are there.")] = False,
    discard_unsent: Annotated[
        bool,
        typer.Option("--discard-unsent", help="With --batch: give up parts that you did not plan; nothing was paid."),
    ] = False,
    import_captions: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Take captions of another catalogue or project that pass all checks."),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="How many garments have a caption, and what failed.")
    ] = False,
) -> None:
    session.override("captioner", {"kind": captioner, "max_cost": max_cost})
    if import_captions is not None:
        if photos or index is not None:
            raise UsageError(
                "--import-captions takes no photos and no --index: what it imports is there for all catalogues"
            )
        _import(session, Path(import_captions))
        return
    if not photos and index is None:
        raise UsageError("give photos, or a catalogue with --index")
    if photos and (batch or status or recaption or retry or dry_run or max_cost is not None):
        raise UsageError("photos by themselves take no other options than --index, --captioner and --limit")
    if (resume or wait or discard_unsent) and not batch:
        raise UsageError(
            "--resume, --wait and --discard-unsent belong to --batch",
            hint="fashionrec caption --index C --batch --resume",
        )
    if only_missing and (recaption or retry):
        raise UsageError("--only-missing contradicts --recaption and --retry")
    if photos:
        documents, failed = _caption_photos(session, photos[:limit], index)
        session.out.result({"photos": documents}, lambda: _print_photos(session, documents))
        session.out.next("fashionrec query PHOTO --caption")
    elif status:
        _show_status(session, Path(index or ""))
        return
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
        failed = document["failed"]
        session.out.result(document, lambda: _print_catalogue(session, document))
        _suggest(session, document, index)
    if failed:
        raise CaptionError(
            f"{failed} captions could not be had",
            hint="they are recorded; ask again with --retry failed (or refused, filtered, truncated, invalid)"
            if not photos
            else "",
        )
    if not photos and document["stopped"]:
        raise Refused(
            f"stopped at the limit of US$ {session.config.captioner.max_cost:g}: {document['left']} garments are left",
            hint="what was described is kept and served; a higher --max-cost goes on",
        )


def _import(session: Session, source: Path) -> None:
    from fashionrec.captioner.job import import_captions

    document = import_captions(source, session.config)
    refused = sum(document["refused"].values())

    def human() -> None:
        session.out.line(
            f"{document['imported']} captions imported, {document['known']} garments had one,"
            f" {document['other']} records are no captions" + (f", {refused} refused" if refused else "")
        )
        for reason, count in document["refused"].items():
            session.out.line(f"  refused ({reason}): {count}")

    session.out.result(document, human)
    session.out.next("fashionrec caption --index CATALOGUE")
    if refused:
        raise Refused(
            f"{refused} captions of {source} were refused: they are not what a server's answer may be",
            hint="the others are imported",
        )


def choose_kind(kind: str) -> str:
    """``openai`` or ``local``: ``auto`` is openai where its key is set."""
    if kind == "auto":
        return "openai" if os.environ.get("OPENAI_API_KEY") else "local"
    return kind


def describe_with(session: Session, catalogue: Catalogue, kind: str) -> Describe:
    """A function that describes a query's garments. Only ``openai`` sends anything anywhere, and it must be asked for.

    What a customer asks with is recorded nowhere.
    """
    chosen = "local" if kind == "auto" else kind
    if chosen == "openai":
        session.out.say(f"captions by {_who(session, chosen)}")
        remote = _remote(session, ask=False)

    def describe(
        crops: Sequence[Image.Image], vectors: np.ndarray, class_names: Sequence[str | None]
    ) -> list[Said | None]:
        from fashionrec.captioner.schema import Said, attributes, embedding_text
        from fashionrec.captioner.vocabulary import vocabulary_of

        words = vocabulary_of(session.config.captioner)
        if chosen == "local":
            from fashionrec.captioner.job import local_captioner

            outcomes = local_captioner(catalogue, session.config).describe_vectors(vectors, class_names)
        else:
            found = dict(remote.describe(crops, class_names))
            outcomes = [found[n] for n in range(len(crops))]
        return [
            None
            if (said := outcome.description) is None
            else Said(said.caption_en, embedding_text(said, words), attributes(said))
            for outcome in outcomes
        ]

    return describe


def run_caption_catalogue(
    session: Session,
    root: Path,
    kind: str,
    limit: int | None = None,
    *,
    again: frozenset[str] = frozenset(),
    recaption: str | None = None,
    dry_run: bool = False,
    batch: str | None = None,
    discard_unsent: bool = False,
    wait: bool = False,
) -> dict[str, Any]:
    """Describe the garments of a catalogue that have no caption yet, and serve a new generation with them.

    ``batch`` is ``submit`` or ``resume`` where OpenAI's Batch API is to do it.
    """
    from fashionrec.captioner.job import Recaption, caption_catalogue

    chosen = choose_kind(kind)
    session.out.say(f"captions by {_who(session, chosen)}")
    anew = Recaption.parse(recaption) if recaption is not None else None
    remote = _remote(session, ask=not dry_run) if chosen == "openai" else None
    if batch is not None:
        if remote is None:
            raise UsageError("--batch is OpenAI's: the local captioner needs none", hint="--captioner openai")
        from fashionrec.captioner.job.batches import caption_in_batches

        with session.out.progress("batches", "garments") as tick:
            return caption_in_batches(
                root,
                session.config,
                remote,
                limit=limit,
                again=again,
                recaption=anew,
                dry_run=dry_run,
                resume=batch == "resume",
                discard_unsent=discard_unsent,
                wait=wait,
                progress=tick,
                say=session.out.say,
            )
    with session.out.progress("captioning", "garments") as tick:
        return caption_catalogue(
            root,
            session.config,
            remote=remote,
            limit=limit,
            again=again,
            recaption=anew,
            dry_run=dry_run,
            progress=tick,
            say=session.out.say,
        )


def _remote(session: Session, *, ask: bool) -> OpenAICaptioner:
    """The remote captioner, after a word about how long its model lives; with ``ask`` the server is asked for that."""
    from datetime import date

    from fashionrec.captioner.openai.remote import OpenAICaptioner
    from fashionrec.captioner.openai.retirement import ask_shutdown, shutdown_notice

    settings = session.config.captioner
    remote = OpenAICaptioner(settings)
    notice = shutdown_notice(settings, date.today(), ask_shutdown(settings) if ask else None)
    if notice:
        session.out.warn(notice)
    return remote


def _who(session: Session, kind: str) -> str:
    if kind == "local":
        return "the local captioner (class and attributes by the catalogue's own encoder; nothing is sent anywhere)"
    server = session.config.captioner.base_url or "OpenAI"
    return f"{session.config.captioner.model} at {server} (the crops are sent there)"


def _states(text: str | None) -> frozenset[str]:
    states = frozenset(word.strip() for word in (text or "").split(",") if word.strip())
    if text is not None and (not states or states - set(_RETRY)):
        raise UsageError(f"{text!r} is not a state to ask again", hint=f"--retry {','.join(_RETRY)}")
    return states


def _caption_photos(session: Session, photos: Sequence[str], index: str | None) -> tuple[list[dict[str, Any]], int]:
    """Describe each garment of each photo; detector and encoder are the catalogue's."""
    from fashionrec.captioner.job import local_captioner
    from fashionrec.captioner.outfit import outfit
    from fashionrec.captioner.schema import attributes
    from fashionrec.captioner.vocabulary import vocabulary_of
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.cli.query import find_catalogue

    kind = choose_kind(session.config.captioner.kind)
    session.out.say(f"captions by {_who(session, kind)}")
    remote = _remote(session, ask=True) if kind == "openai" else None
    documents: list[dict[str, Any]] = []
    failed = 0
    with Catalogue.open(find_catalogue(session, index), session.config) as catalogue:
        local = local_captioner(catalogue, session.config)
        for name in photos:
            (found,) = catalogue.finder.find([name], whole=True)
            if isinstance(found, ImageError):
                documents.append({"photo": name, "error": str(found), "reason": found.reason, "garments": []})
                failed += 1
                continue
            garments = found.garments or found.whole().garments
            crops = catalogue.finder.cut(found, garments)
            if remote is None:
                vectors = catalogue.embedder.embed_images(crops)
                outcomes = local.describe_vectors(vectors, [garment.class_name for garment in garments])
            else:
                outcomes = _described(session, remote, found.photo.sha256, garments, crops)
            rows: list[dict[str, Any]] = []
            for garment, outcome in zip(garments, outcomes, strict=True):
                described = outcome.description
                failed += described is None
                rows.append(
                    {
                        "index": garment.index,
                        "class_name": garment.class_name,
                        "box": [round(float(value), 2) for value in garment.box],
                        "state": outcome.state,
                        "captioner": outcome.captioner,
                        "model": outcome.model,
                        "caption_en": described.caption_en if described else None,
                        "caption_ko": described.caption_ko if described else None,
                        "attributes": attributes(described) if described else {},
                        "error": outcome.error,
                    }
                )
            together = outfit([row["attributes"] for row in rows], vocabulary_of(session.config.captioner))
            documents.append(
                {
                    "photo": name,
                    "error": None,
                    "reason": None,
                    "garments": rows,
                    "outfit": together._asdict() if together else None,
                }
            )
    return documents, failed


def _described(
    session: Session, remote: OpenAICaptioner, sha256: str, garments: Sequence[Garment], crops: Sequence[Image.Image]
) -> list[Outcome]:
    """Outcomes of a photo's garments: those known from before, and the others asked for and recorded."""
    from contextlib import closing

    from fashionrec.captioner.cache import Place
    from fashionrec.captioner.job.caches import Caches, Recorder, project_cache
    from fashionrec.captioner.openai.remote import Job

    places = [Place(sha256, garment.class_name, garment.box) for garment in garments]
    with Caches(None, project_cache(session.config)) as caches:
        found = [caches.find(place, "openai") for place in places]
        jobs = [
            Job(n, garments[n].class_name, lambda n=n: crops[n])  # type: ignore[misc]
            for n, known in enumerate(found)
            if known is None
        ]
        if jobs:
            recorder = Recorder(caches, remote, lambda job: places[int(str(job.key))])
            try:
                with closing(remote.stream(jobs, most=len(jobs))) as groups:
                    for group in groups:
                        for came, outcome in recorder.take(group):
                            found[int(str(came.job.key))] = outcome
            finally:
                recorder.finish()
    return [outcome for outcome in found if outcome is not None]


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
        session.out.line("nothing was asked (--dry-run)")
        return
    session.out.line(
        f"{document['made']} captions made, {document['kept']} kept from before, {document['reused']} taken from the cache,"
        f" {document['failed']} failed" + (f", {document['left']} left" if document["left"] else "")
    )
    for state, count in document["states"].items():
        if state != "done":
            session.out.line(f"  {state}: {count}")
    if document["usage"]["input_tokens"]:
        cost = document["cost_usd"]
        price = f", US$ {cost:.4f}" if cost is not None else ", no price is set for this model"
        session.out.line(
            f"  {document['usage']['input_tokens']} tokens in, {document['usage']['output_tokens']} out{price}"
        )
    if document["texts_cut"]:
        session.out.line(
            f"  {document['texts_cut']} texts were longer than the text tower reads: {document['tokens_cut']} tokens left out"
        )
    for line in document.get("batches", ()):
        session.out.line(f"  batch {line['batch_id'] or '-'}: {line['state']}, {line['requests']} garments")


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
        session.out.line(f"{document['garments']} garments, {document['without']} without a caption")
        for name, count in document["captioned"].items():
            session.out.line(f"  captioned by {name:7} {count}")
        for name, count in document["states"].items():
            session.out.line(f"  recorded: {name:18} {count}")
        for one in document["batches"]:
            session.out.line(f"  batch {one['batch_id'] or '-'}: {one['state']}, {one['requests']} garments")

    session.out.result(document, human)
