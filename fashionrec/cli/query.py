"""query: the answer for photos, words, or items of the catalogue."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.session import Session, command
from fashionrec.errors import CatalogueError, UsageError

if TYPE_CHECKING:
    from fashionrec.catalogue import Catalogue
    from fashionrec.search.answer import Answer, GarmentAnswer
    from fashionrec.search.photo import Describe
    from fashionrec.search.words import Words
    from fashionrec.types import Box

Source = str | bytes


def mount(app: typer.Typer) -> None:
    command(app, "query", help="Search a catalogue for what looks like the garments in a photo, or fits a text.")(query)


def query(
    session: Session,
    photos: Annotated[
        list[str] | None, typer.Argument(metavar="[PHOTO]...", help="Photos, folders of photos, or - (standard input).")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help='Words, alone or beside a photo: "in red", "floral:-0.4"; repeatable.')
    ] = None,
    like: Annotated[list[str] | None, typer.Option(help="An item or product of the catalogue; repeatable.")] = None,
    unlike: Annotated[list[str] | None, typer.Option(help="One that it should not look like; repeatable.")] = None,
    index: Annotated[list[str] | None, typer.Option(help="The catalogue's folder; two are compared.")] = None,
    k: Annotated[int | None, typer.Option("-k", "--k", min=1, help="Products per garment.")] = None,
    garment: Annotated[str | None, typer.Option(help="Which garment: a class, a number, or all.")] = None,
    box: Annotated[str | None, typer.Option(metavar="X1,Y1,X2,Y2", help="The garment by hand, in pixels.")] = None,
    where: Annotated[
        str | None, typer.Option(help="Only items that fit: \"price < 50000 and brand in ('A', 'B')\".")
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Least score of a hit.")] = None,
    diversity: Annotated[
        float | None, typer.Option(min=0, max=1, help="Unlike each other: 0 not at all, 1 most.")
    ] = None,
    goes_with: Annotated[
        bool, typer.Option("--goes-with", help="What is worn with it, beside what looks like it.")
    ] = False,
    caption: Annotated[
        bool | None, typer.Option("--caption/--no-caption", help="Describe the garments, and fuse that text.")
    ] = None,
    captioner: Annotated[
        str | None, typer.Option(help="Who describes them: local, or openai (sends the crops).")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="What each score is made of.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON document a line, for each photo.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the hits as CSV; - for standard output.")] = None,
    xlsx: Annotated[Path | None, typer.Option(help="Write the hits for Excel, with pictures.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures, complete in one file.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    save_crops: Annotated[Path | None, typer.Option(help="Save the garments that were found into a folder.")] = None,
) -> None:
    settings = {"k": k, "garment": garment, "where": where, "min_score": min_score, "diversity": diversity}
    session.override("query", {**settings, "caption": _captioner(session, caption, captioner)})
    question = _Question.of(session, photos or [], text or [], like or [], unlike or [], box)
    for path in (csv, xlsx, html):
        if path is not None and str(path) != "-" and not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent} to write {path.name} into")
    if open_ and html is None:
        raise UsageError("--open needs --html FILE", hint="fashionrec query photo.jpg --html answer.html --open")
    if len(index or []) > 2:
        raise UsageError("more than two catalogues are given", hint="--index A --index B compares two")
    if index and len(index) == 2:
        from fashionrec.cli.comparing_queries import compare_catalogues

        compare_catalogues(session, question, Path(index[0]), Path(index[1]), html, open_)
        return
    from fashionrec.catalogue import Catalogue

    answers: list[Answer] = []
    failures: list[tuple[str, UsageError]] = []
    with Catalogue.open(find_catalogue(session, index[0] if index else None), session.config) as catalogue:
        worn: list[list[GarmentAnswer]] = []
        for answer in question.ask(session, catalogue):
            if isinstance(answer, UsageError):
                failures.append((str(answer), answer))
                session.out.warn(str(answer))
                continue
            answers.append(answer)
            if goes_with:
                from fashionrec.search.outfits import goes_with as recommend

                worn.append(recommend(catalogue, answer, session.config.query))
            for note in answer.notes:
                session.out.say(note)
            if jsonl:
                session.out.line(json.dumps(_document(answer, worn, explain), ensure_ascii=False, allow_nan=False))
        if failures and not answers:
            raise failures[0][1]
        if not jsonl and csv is None:
            documents = [_document(answer, worn[n : n + 1], explain) for n, answer in enumerate(answers)]
            failed = [{"error": words, "reason": getattr(error, "reason", "usage")} for words, error in failures]
            document = documents[0] if question.single else {"answers": documents, "failures": failed}

            def human() -> None:
                for n, answer in enumerate(answers):
                    _print_answer(session, answer, worn[n : n + 1], explain, named=not question.single)

            session.out.result(document, human)
        _write_files(session, catalogue, answers, worn, csv, xlsx, html, save_crops)
    if html is not None:
        session.out.say(f"page: {html}")
        if open_:
            import webbrowser

            webbrowser.open(html.resolve().as_uri())
    else:
        session.out.next(f"fashionrec query {question.words} --index {catalogue.root} --html answer.html")


class _Question:
    """What is asked: photos, words, or items."""

    def __init__(
        self, sources: list[Source], words: list[Words], like: list[str], unlike: list[str], box: Box | None, many: bool
    ) -> None:
        self.sources, self.asked_words, self.like, self.unlike, self.box = sources, words, like, unlike, box
        self.single = not many
        named = [source if isinstance(source, str) else "-" for source in sources[:1]]
        self.words = " ".join(
            [*named, *(f"--like {one}" for one in like), *(f'--text "{one.text}"' for one in words[:1])]
        )

    @classmethod
    def of(
        cls, session: Session, photos: list[str], texts: list[str], like: list[str], unlike: list[str], box: str | None
    ) -> _Question:
        from fashionrec.search.words import parse_words

        if not (photos or texts or like):
            raise UsageError(
                "give a photo or --text, or --like", hint='fashionrec query photo.jpg, or --text "a red dress"'
            )
        if photos and (like or unlike):
            raise UsageError("--like and --unlike are asked without a photo")
        if unlike and not like:
            raise UsageError("--unlike needs --like")
        if box and not photos:
            raise UsageError("--box needs a photo")
        weight = session.config.query.words_weight if photos or like else 1.0
        words = [parse_words(text, weight) for text in texts]
        if not photos and not like and all(one.weight < 0 for one in words):
            raise UsageError("there is nothing that is wanted, only what is not", hint='add --text "..."')
        sources, many = _sources(photos)
        return cls(sources, words, like, unlike, _box(box), many)

    def ask(self, session: Session, catalogue: Catalogue) -> Any:
        """Answers, and errors as values."""
        settings = session.config.query
        if self.sources:
            from fashionrec.search.photo import search_photos

            yield from search_photos(
                catalogue,
                self.sources,
                settings,
                _describe(session, catalogue),
                box=self.box,
                words=self.asked_words,
            )
        elif self.like:
            from fashionrec.search.like import search_like

            yield search_like(catalogue, self.like, settings, unlike=self.unlike, words=self.asked_words)
        else:
            from fashionrec.search.text import search_text

            yield search_text(catalogue, self.asked_words, settings)


def _sources(photos: Sequence[str]) -> tuple[list[Source], bool]:
    """Photos by name or as bytes, and whether they may be several (then the document is a list)."""
    found: list[Source] = []
    many = len(photos) > 1
    for name in photos:
        if name == "-":
            given = _standard_input()
            many |= len(given) > 1
            found += given
        elif Path(name).is_dir():
            from fashionrec.images import find_photos

            inside = [str(path) for path in find_photos(Path(name))]
            if not inside:
                raise UsageError(
                    f"no photos in {name}", hint="it should hold .jpg, .png, .webp ... files, at any depth"
                )
            many = True
            found += inside
        else:
            found.append(name)
    return found, many


def _standard_input() -> list[Source]:
    """One photo, or the names of photos, one a line."""
    data = _read_standard_input()
    if not data:
        raise UsageError("standard input is empty", hint="cat photo.jpg | fashionrec query -")
    try:
        lines = [line.strip() for line in data.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        return [data]
    if lines and all(len(line) < 4096 and "\0" not in line for line in lines):
        return list(lines)
    return [data]


def _read_standard_input() -> bytes:
    return sys.stdin.buffer.read()


def _box(text: str | None) -> Box | None:
    if text is None:
        return None
    from fashionrec.types import Box

    try:
        values = [float(part) for part in text.replace(" ", "").split(",")]
    except ValueError:
        values = []
    if len(values) != 4 or not all(abs(value) < 1e9 for value in values):
        raise UsageError(f"{text!r} is not a box", hint="--box x1,y1,x2,y2 in pixels of the upright photo")
    return Box(*values)


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


def _document(answer: Answer, worn: Sequence[list[GarmentAnswer]], explain: bool) -> dict[str, Any]:
    document = answer.to_dict(explain=explain)
    if worn:
        from fashionrec.search.answer import garment_document

        document["goes_with"] = [garment_document(found, explain) for found in worn[-1]]
    return document


def _write_files(
    session: Session,
    catalogue: Catalogue,
    answers: Sequence[Answer],
    worn: Sequence[list[GarmentAnswer]],
    csv: Path | None,
    xlsx: Path | None,
    html: Path | None,
    save_crops: Path | None,
) -> None:
    if csv is not None:
        from fashionrec.search.outputs import write_csv

        text = write_csv(answers)
        if str(csv) == "-":
            session.out.line(text.rstrip("\r\n"))
        else:
            csv.write_text(text, encoding="utf-8-sig", newline="")  # Excel reads UTF-8 where a mark says so
            session.out.say(f"table: {csv}")
    if xlsx is not None:
        from fashionrec.search.outputs import write_xlsx

        write_xlsx(xlsx, catalogue, answers)
        session.out.say(f"table: {xlsx}")
    if html is not None:
        from fashionrec.search.page import answer_page

        html.write_text(answer_page(catalogue, answers, worn), encoding="utf-8")
    if save_crops is not None:
        from fashionrec.search.pictures import save_garments

        session.out.say(f"{save_garments(catalogue, answers, save_crops)} crops in {save_crops}")


def _print_answer(
    session: Session, answer: Answer, worn: Sequence[list[GarmentAnswer]], explain: bool, named: bool
) -> None:
    out = session.out
    if answer.source is not None:
        seen = ", ".join(
            f"{g.class_name} {g.confidence:.2f}" for g in answer.seen if g.class_name and g.confidence is not None
        )
        count = len(answer.seen)
        name = f"{answer.photo}: " if named else ""
        out.line(name + (f"{count} garment{'s' if count != 1 else ''}: {seen}" if seen else "the whole photo"))
        if answer.outfit:
            out.line(f"{answer.outfit['en']} / {answer.outfit['ko']}")
    for found in answer.garments:
        garment = found.garment
        out.line()
        title = answer.text if answer.source is None else (garment.class_name or "whole photo")
        out.line(f"{title}" + (f": {garment.caption}" if garment.caption else ""))
        _print_hits(session, found, explain)
    for found in worn[-1] if worn else []:
        out.line()
        out.line(f"goes with the {found.garment.class_name}")
        _print_hits(session, found, explain)
    total = sum(answer.timings_ms.values())
    stages = ", ".join(f"{stage} {ms:.0f}" for stage, ms in answer.timings_ms.items() if ms >= 0.5)
    out.line()
    out.line(f"{total:.0f} ms ({stages})")


def _print_hits(session: Session, found: GarmentAnswer, explain: bool) -> None:
    from fashionrec.search.page import price

    if not found.hits:
        session.out.line("  nothing found")
        return
    rows = [
        (
            hit.rank,
            f"{hit.score:.3f}",
            hit.item.product_id,
            hit.item.class_name or "-",
            price(hit.item.metadata),
            hit.item.metadata.get("title") or hit.item.caption or "",
            *([" ".join(f"{name} {value:+.3f}" for name, value in hit.parts.items())] if explain else []),
            hit.item.metadata.get("url") or hit.item.image,
        )
        for hit in found.hits
    ]
    columns = ("#", "score", "product", "class", "price", "title", *(["parts"] if explain else []), "link")
    session.out.table(columns, rows, right=(0, 1, 4))
