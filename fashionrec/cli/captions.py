"""caption: describe the garments of photos, or of a catalogue; and the same for a query's garments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.session import Session, command
from fashionrec.errors import CaptionError, ImageError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fashionrec.catalogue import Catalogue
    from fashionrec.search.photo import Describe


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
) -> None:
    session.override("captioner", {"kind": captioner})
    if not photos and index is None:
        raise UsageError("give photos, or a catalogue with --index")
    if photos:
        documents, failed = _caption_photos(session, photos, index)
        session.out.result({"photos": documents}, lambda: _print_photos(session, documents))
        session.out.next("fashionrec query PHOTO --caption")
    else:
        document = run_caption_catalogue(session, Path(index or ""), session.config.captioner.kind, limit)
        failed = document["failed"]
        session.out.result(document, lambda: _print_catalogue(session, document))
        session.out.next(f'fashionrec query --text "a striped top" --index {index}')
    if failed:
        raise CaptionError(
            f"{failed} captions could not be had", hint="they are recorded as failures; run it again to retry"
        )


def choose_kind(kind: str) -> str:
    """``openai`` or ``local``: ``auto`` is openai where its key is set."""
    if kind == "auto":
        return "openai" if os.environ.get("OPENAI_API_KEY") else "local"
    return kind


def describe_with(session: Session, catalogue: Catalogue, kind: str) -> Describe:
    """A function that describes a query's garments. Only ``openai`` sends anything anywhere, and it must be asked for."""
    chosen = "local" if kind == "auto" else kind
    if chosen == "openai":
        session.out.say(f"captions by {_who(session, chosen)}")

    def describe(
        crops: Sequence[Image.Image], vectors: np.ndarray, class_names: Sequence[str | None]
    ) -> list[tuple[str, str] | None]:
        from fashionrec.captioner.schema import embedding_text

        if chosen == "local":
            from fashionrec.captioning import local_captioner

            outcomes = local_captioner(catalogue, session.config).describe_vectors(vectors, class_names)
        else:
            from fashionrec.captioner.remote import OpenAICaptioner

            found = dict(OpenAICaptioner(session.config.captioner).describe(crops, class_names))
            outcomes = [found[n] for n in range(len(crops))]
        return [
            None
            if outcome.description is None
            else (outcome.description.caption_en, embedding_text(outcome.description))
            for outcome in outcomes
        ]

    return describe


def run_caption_catalogue(session: Session, root: Path, kind: str, limit: int | None = None) -> dict[str, Any]:
    """Describe the garments of a catalogue that have no caption yet, and serve a new generation with them."""
    from fashionrec.captioning import caption_catalogue

    chosen = choose_kind(kind)
    session.out.say(f"captions by {_who(session, chosen)}")
    remote = None
    if chosen == "openai":
        from fashionrec.captioner.remote import OpenAICaptioner

        remote = OpenAICaptioner(session.config.captioner)
    with session.out.progress("captioning", "garments") as tick:
        report = caption_catalogue(root, session.config, remote=remote, limit=limit, progress=tick)
    return report


def _who(session: Session, kind: str) -> str:
    if kind == "local":
        return "the local captioner (class and attributes by the catalogue's own encoder; nothing is sent anywhere)"
    server = session.config.captioner.base_url or "OpenAI"
    return f"{session.config.captioner.model} at {server} (the crops are sent there)"


def _caption_photos(session: Session, photos: Sequence[str], index: str | None) -> tuple[list[dict[str, Any]], int]:
    """Describe each garment of each photo; detector and encoder are the catalogue's."""
    from fashionrec.captioner.schema import attributes
    from fashionrec.captioning import local_captioner
    from fashionrec.catalogue import Catalogue
    from fashionrec.cli.query import find_catalogue
    from fashionrec.images import crop_garment
    from fashionrec.types import Box, Garment

    kind = choose_kind(session.config.captioner.kind)
    session.out.say(f"captions by {_who(session, kind)}")
    documents: list[dict[str, Any]] = []
    failed = 0
    with Catalogue.open(find_catalogue(session, index), session.config) as catalogue:
        local = local_captioner(catalogue, session.config)
        for name in photos:
            try:
                photo = catalogue.read_photo(name)
            except ImageError as error:
                documents.append({"photo": name, "error": str(error), "reason": error.reason, "garments": []})
                failed += 1
                continue
            garments = catalogue.detector.detect([photo.pixels])[0] if catalogue.detector else []
            garments = garments or [Garment(0, None, None, Box(0, 0, photo.width, photo.height), whole_photo=True)]
            crops = [crop_garment(photo.pixels, garment.box, catalogue.crop) for garment in garments]
            names = [garment.class_name for garment in garments]
            if kind == "local":
                vectors = catalogue.embedder.embed_images(crops)
                outcomes = local.describe_vectors(vectors, names)
            else:
                from fashionrec.captioner.remote import OpenAICaptioner

                found = dict(OpenAICaptioner(session.config.captioner).describe(crops, names))
                outcomes = [found[n] for n in range(len(crops))]
            rows = []
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
            documents.append({"photo": name, "error": None, "reason": None, "garments": rows})
    return documents, failed


def _print_photos(session: Session, documents: Sequence[dict[str, Any]]) -> None:
    for document in documents:
        session.out.line(document["photo"] + (f": {document['error']}" if document["error"] else ""))
        for garment in document["garments"]:
            name = garment["class_name"] or "whole photo"
            if garment["state"] == "done":
                session.out.line(f"  {garment['index']} {name}: {garment['caption_en']} / {garment['caption_ko']}")
            else:
                session.out.line(f"  {garment['index']} {name}: {garment['state']} ({garment['error']})")


def _print_catalogue(session: Session, document: dict[str, Any]) -> None:
    session.out.line(
        f"{document['made']} captions made, {document['kept']} kept from before, {document['reused']} taken from the cache,"
        f" {document['failed']} failed"
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
