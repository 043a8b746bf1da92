"""query: the answer for a photo or for words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fashionrec.cli.session import Session, command
from fashionrec.errors import CatalogueError, UsageError

if TYPE_CHECKING:
    from fashionrec.catalogue import Catalogue
    from fashionrec.search.answer import Answer
    from fashionrec.search.photo import Describe


def mount(app: typer.Typer) -> None:
    command(app, "query", help="Search a catalogue for what looks like the garments in a photo, or fits a text.")(query)


def query(
    session: Session,
    photo: Annotated[str | None, typer.Argument(help="The photo.")] = None,
    text: Annotated[str | None, typer.Option(help="Search by words instead.")] = None,
    index: Annotated[str | None, typer.Option(help="The catalogue's folder.")] = None,
    k: Annotated[int | None, typer.Option("-k", "--k", min=1, help="Products per garment.")] = None,
    garment: Annotated[str | None, typer.Option(help="Which garment: a class, a number, or all.")] = None,
    caption: Annotated[
        bool | None, typer.Option("--caption/--no-caption", help="Describe the garments, and fuse that text.")
    ] = None,
    captioner: Annotated[
        str | None, typer.Option(help="Who describes them: local, or openai (sends the crops).")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures, complete in one file.")] = None,
) -> None:
    session.override("query", {"k": k, "garment": garment, "caption": _captioner(session, caption, captioner)})
    if (photo is None) == (text is None):
        raise UsageError(
            "give a photo or --text, one of them", hint='fashionrec query photo.jpg, or --text "a red dress"'
        )
    if html is not None and not html.parent.is_dir():
        raise UsageError(f"there is no folder {html.parent} to write {html.name} into")
    from fashionrec.catalogue import Catalogue

    with Catalogue.open(find_catalogue(session, index), session.config) as catalogue:
        answer = run_query(session, catalogue, photo, text)
        if html is not None:
            from fashionrec.search.page import answer_page

            html.write_text(answer_page(catalogue, answer), encoding="utf-8")
    for note in answer.notes:
        session.out.say(note)
    session.out.result(answer.to_dict(), lambda: _print_answer(session, answer))
    if html is not None:
        session.out.say(f"page: {html}")
    else:
        question = f'--text "{text}"' if photo is None else photo
        session.out.next(f"fashionrec query {question} --index {catalogue.root} --html answer.html")


def _captioner(session: Session, caption: bool | None, captioner: str | None) -> str | None:
    """The setting ``query.caption`` as the options say it; None leaves it as it is."""
    if caption is False:
        if captioner is not None:
            raise UsageError("--no-caption and --captioner contradict each other")
        return "none"
    if captioner is not None or caption is None:
        return captioner
    configured: str = session.config.query.caption
    return "local" if configured == "none" else configured


def run_query(session: Session, catalogue: Catalogue, photo: str | None, text: str | None = None) -> Answer:
    """The answer of one open catalogue to a photo or a text, by the session's settings."""
    settings = session.config.query
    if photo is None:
        from fashionrec.search.text import search_text

        return search_text(catalogue, text or "", settings)
    from fashionrec.search.photo import search_photo

    return search_photo(catalogue, photo, settings, _describe(session, catalogue))


def _describe(session: Session, catalogue: Catalogue) -> Describe | None:
    kind = session.config.query.caption
    if kind == "none":
        return None
    from fashionrec.cli.captions import describe_with

    return describe_with(session, catalogue, kind)


def find_catalogue(session: Session, index: str | None) -> Path:
    """The catalogue meant: the one named, else the setting or FASHIONREC_INDEX, else the only one under the data folder.

    Says which on stderr. Raises :class:`CatalogueError` where there is none, or more than one.
    """
    from fashionrec.store.generations import is_catalogue

    if index is not None:
        return Path(index)
    if session.config.query.index is not None:
        origin = session.resolved.origins.get("query.index", "default")
        session.out.say(f"catalogue: {session.config.query.index} ({origin})")
        return Path(session.config.query.index)
    found = [path for path in sorted(session.data.glob("*")) if is_catalogue(path)]
    if not found:
        raise CatalogueError(
            f"no catalogue is named, and there is none under {session.data}",
            hint="name one with --index, or make one with `fashionrec build-index PHOTOS`",
        )
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise CatalogueError(f"there are {len(found)} catalogues: {names}", hint="name one with --index")
    session.out.say(f"catalogue: {found[0]} (the only one under {session.data})")
    return found[0]


def _print_answer(session: Session, answer: Answer) -> None:
    from fashionrec.search.page import price

    out = session.out
    if answer.photo is not None:
        seen = ", ".join(
            f"{g.class_name} {g.confidence:.2f}" for g in answer.seen if g.class_name and g.confidence is not None
        )
        count = len(answer.seen)
        out.line(f"{count} garment{'s' if count != 1 else ''}: {seen}" if seen else "the whole photo")
    for found in answer.garments:
        garment = found.garment
        out.line()
        title = answer.text if answer.photo is None else (garment.class_name or "whole photo")
        out.line(f"{title}" + (f": {garment.caption}" if garment.caption else ""))
        if not found.hits:
            out.line("  nothing found")
            continue
        rows = [
            (
                hit.rank,
                f"{hit.score:.3f}",
                hit.item.product_id,
                hit.item.class_name or "-",
                price(hit.item.metadata),
                hit.item.metadata.get("title") or hit.item.caption or "",
                hit.item.metadata.get("url") or hit.item.image,
            )
            for hit in found.hits
        ]
        out.table(("#", "score", "product", "class", "price", "title", "link"), rows, right=(0, 1, 4))
    total = sum(answer.timings_ms.values())
    stages = ", ".join(f"{stage} {ms:.0f}" for stage, ms in answer.timings_ms.items() if ms >= 0.5)
    out.line()
    out.line(f"{total:.0f} ms ({stages})")
