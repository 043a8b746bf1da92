"""The command ``query``: search with photos, texts, or items of the catalogue."""

import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fashionrec.cli.answers import print_answer, show_page, write_files
from fashionrec.cli.captioners import query_describer
from fashionrec.cli.session import Command, Context, Session
from fashionrec.common.text import shell_word
from fashionrec.config.captioners import CAPTIONERS, ENCODER, TRANSLATORS
from fashionrec.errors import UsageError

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.answer import Answer
    from fashionrec.search.query import Query
    from fashionrec.search.search import Outcome

Source = str | bytes
#: Options as they appear in the errors of a query.
_OPTION = re.compile("`(text|like|unlike|box|goes_with|merge)`")


def mount(app: typer.Typer) -> None:
    app.command("query", cls=Command, help="Search a catalogue by photo, text or item.")(query)


_Photos = Annotated[
    list[str] | None, typer.Argument(metavar="PHOTO...", help="Photos, folders of photos, or - for standard input.")
]
_Text = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help='Text, alone or with a photo: "in red", "floral:-0.4"; repeatable.'),
]
_Like = Annotated[list[str] | None, typer.Option(metavar="ID", help="Item or product to look for; repeatable.")]
_Unlike = Annotated[list[str] | None, typer.Option(metavar="ID", help="Item or product to avoid; repeatable.")]
_Index = Annotated[
    list[str] | None, typer.Option(metavar="FOLDER", help="Catalogue folder; give it twice to compare two.")
]
_K = Annotated[int | None, typer.Option("-k", "--k", min=1, metavar="N", help="Hits per garment.")]
_Garment = Annotated[
    str | None, typer.Option(metavar="GARMENT", help="Garment to search for: a class, a number, or all.")
]
_Box = Annotated[str | None, typer.Option(metavar="X1,Y1,X2,Y2", help="Box of the garment, in pixels.")]
_Where = Annotated[
    str | None, typer.Option(metavar="FILTER", help="Only items that match: \"price < 50000 and brand in ('A', 'B')\".")
]
_MinScore = Annotated[float | None, typer.Option(metavar="SCORE", help="Drop hits below this score.")]
_Diversity = Annotated[
    float | None, typer.Option(min=0, max=1, metavar="SHARE", help="Diversity of the hits: 0 none, 1 maximum.")
]
_GoesWith = Annotated[bool, typer.Option("--goes-with", help="Also recommend what to wear with it.")]
_Merge = Annotated[bool, typer.Option("--merge", help="Fuse the hits of all photos and texts into one list.")]
_Translate = Annotated[
    bool, typer.Option("--translate", help=f"Translate the Korean of --text with {TRANSLATORS[0]} (sends the text).")
]
_Caption = Annotated[
    bool | None, typer.Option("--caption/--no-caption", help="Caption the garments, and include captions in the score.")
]
_Captioner = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help=f"Caption with {' or '.join(CAPTIONERS)} (all but {ENCODER} send crops to a server)."
    ),
]
_Explain = Annotated[bool, typer.Option("--explain", help="Show what each score consists of.")]
_Jsonl = Annotated[bool, typer.Option("--jsonl", help="Print one JSON document per photo and line.")]
_Csv = Annotated[Path | None, typer.Option(metavar="FILE", help="Write hits as CSV; - for standard output.")]
_Xlsx = Annotated[Path | None, typer.Option(metavar="FILE", help="Write hits for Excel, with pictures.")]
_Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a self-contained HTML page with pictures.")]
_Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]
_SaveCrops = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Save crops of the detected garments.")]


def query(
    context: Context,
    photos: _Photos = None,
    text: _Text = None,
    like: _Like = None,
    unlike: _Unlike = None,
    index: _Index = None,
    k: _K = None,
    garment: _Garment = None,
    box: _Box = None,
    where: _Where = None,
    min_score: _MinScore = None,
    diversity: _Diversity = None,
    goes_with: _GoesWith = False,
    merge: _Merge = False,
    translate: _Translate = False,
    caption: _Caption = None,
    captioner: _Captioner = None,
    explain: _Explain = False,
    jsonl: _Jsonl = False,
    csv: _Csv = None,
    xlsx: _Xlsx = None,
    html: _Html = None,
    open_: _Open = False,
    save_crops: _SaveCrops = None,
) -> None:
    session = context.session
    settings = {"k": k, "garment": garment, "where": where, "min_score": min_score, "diversity": diversity}
    settings |= {"caption": _caption_setting(session, caption, captioner), "translate": _translator(translate, text)}
    session.override("query", settings)
    request = _parse_query(session, photos or [], text or [], like or [], unlike or [], box, goes_with, merge)
    _check_outputs(request, {"csv": csv, "xlsx": xlsx, "html": html}, save_crops, open_)
    if len(index or []) > 2:
        raise UsageError("at most two catalogues can be compared", hint="--index A --index B compares two")
    if index and len(index) == 2:
        from fashionrec.cli.comparing_queries import compare_catalogues

        if csv or xlsx or jsonl or save_crops:
            raise UsageError(
                "two catalogues can only be compared as text, --json or --html",
                hint="query one of them for other outputs",
            )
        compare_catalogues(session, request, ask, Path(index[0]), Path(index[1]), html, open_)
        return
    from fashionrec.catalogue.catalogue import Catalogue

    root = session.find_catalogue(index[0] if index else None)
    with Catalogue.open(root, session.resolved, at_once=request.is_short) as catalogue:
        keep = not jsonl or any((csv, xlsx, html, save_crops))
        answer = ask(session, catalogue, request, partial(_report, session, request, jsonl, explain), keep=keep)
        if not jsonl and csv is None:
            session.out.result(answer.to_dict(explain=explain), lambda: print_answer(session, answer, explain))
        write_files(session, answer, csv, xlsx, html, save_crops)
    if html is not None:
        show_page(session, html, open_)
    else:
        session.out.next(
            f"fashionrec query {_repeat_options(request)} --index {shell_word(catalogue.root)} --html answer.html"
        )


def _check_outputs(request: "Query", files: dict[str, Path | None], save_crops: Path | None, open_: bool) -> None:
    """Refuse outputs that cannot be written or would overwrite a query photo, before the search."""
    for option, path in files.items():
        if path is None or str(path) == "-":
            continue
        if not path.parent.is_dir():
            raise UsageError(f"no such folder: {path.parent}")
        if path.is_dir():
            raise UsageError(
                f"{path} is a folder", hint=f"name a file: --{option} {shell_word(path / f'answer.{option}')}"
            )
        photos = [Path(photo) for photo in request.sources if isinstance(photo, (str, Path))]
        if path.exists() and any(photo.exists() and path.samefile(photo) for photo in photos):
            raise UsageError(f"{path} is one of the query photos", hint=f"choose another file for --{option}")
    if save_crops is not None and save_crops.exists() and not save_crops.is_dir():
        raise UsageError(f"not a folder: {save_crops}", hint="--save-crops takes a folder")
    if open_ and files["html"] is None:
        raise UsageError("--open needs --html FILE", hint="fashionrec query photo.jpg --html answer.html --open")


def _report(session: Session, request: "Query", jsonl: bool, explain: bool, outcome: "Outcome") -> None:
    """Report the outcome of one photo or text as soon as it is known."""
    if isinstance(outcome, UsageError):
        if len(request.sources) > 1:
            session.out.warn(str(outcome))
        return
    for note in outcome.notes:
        session.out.say(note)
    if jsonl:
        session.out.json_line(outcome.to_dict(explain=explain))


def _parse_query(
    session: Session,
    photos: list[str],
    texts: list[str],
    like: list[str],
    unlike: list[str],
    box: str | None,
    goes_with: bool,
    merge: bool,
) -> "Query":
    """Return the query of the command line; options that are settings stay in the session."""
    from dataclasses import replace

    from fashionrec.search.query import Query
    from fashionrec.search.words import translate_words

    sources, is_list = _sources(photos)
    settings = session.config.query
    try:
        request = Query(
            sources if is_list else sources[0] if sources else None,
            text=texts,
            like=like,
            unlike=unlike,
            box=box,
            goes_with=goes_with,
            merge=merge,
            garment=settings.garment,
            where=settings.where,
            words_weight=settings.words_weight,
        )
    except UsageError as error:
        raise _with_option_names(error) from None
    if settings.translate != "none" and request.text:
        words = translate_words(request.words, settings.translate, session.config.captioner)
        return replace(request, text=tuple(words))
    return request


def _with_option_names(error: UsageError) -> UsageError:
    """Return the error with options as on the command line: ``--goes-with``, not `goes_with`."""

    def option(match: re.Match[str]) -> str:
        return "--" + match[1].replace("_", "-")

    error.args = (_OPTION.sub(option, str(error)),)
    error.hint = _OPTION.sub(option, error.hint)
    return error


def ask(
    session: Session,
    catalogue: "Catalogue",
    query: "Query",
    report: "Callable[[Outcome], None] | None" = None,
    *,
    keep: bool = True,
) -> "Answer":
    """Answer a query on an open catalogue with the session's settings."""
    from fashionrec.search.search import search

    describe = query_describer(session, catalogue)
    return search(catalogue, query, describe=describe, report=report, once=catalogue.at_once, keep=keep)


def _repeat_options(query: "Query") -> str:
    """Return the beginning of a command line that repeats the query."""
    photos = [shell_word(Path(source)) if isinstance(source, str) else "-" for source in query.sources[:1]]
    likes = [f"--like {shell_word(name)}" for name in query.like]
    return " ".join([*photos, *likes, *(f"--text {shell_word(_truncate(words.text))}" for words in query.words[:1])])


def _sources(photos: Sequence[str]) -> tuple[list[Source], bool]:
    """Return the photos, as names or bytes, and whether there may be several.

    With several photos the document is a list.
    """
    sources: list[Source] = []
    is_list = len(photos) > 1
    for name in photos:
        if name == "-":
            piped = _standard_input()
            is_list |= len(piped) > 1
            sources += piped
        elif Path(name).is_dir():
            from fashionrec.photos.images import find_photos

            paths = [str(path) for path in find_photos(Path(name))]
            if not paths:
                raise UsageError(
                    f"no photos in {name}", hint="it should hold .jpg, .png, .webp ... files, at any depth"
                )
            is_list = True
            sources += paths
        else:
            sources.append(name)
    return sources, is_list


def _standard_input() -> list[Source]:
    """Return one photo, or the names of photos, one per line."""
    data = _read_standard_input()
    if not data:
        raise UsageError("standard input is empty", hint="cat photo.jpg | fashionrec query -")
    from fashionrec.products.records import split_list

    try:
        lines = split_list(data.decode("utf-8"))
    except UnicodeDecodeError:
        return [data]
    if lines and all(len(line) < 4096 and "\0" not in line for line in lines):
        return list(lines)
    return [data]


def _read_standard_input() -> bytes:
    return sys.stdin.buffer.read()


def _truncate(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _translator(translate: bool, texts: list[str] | None) -> str | None:
    """Return the setting ``query.translate`` by the options; None leaves it unchanged."""
    if translate and not texts:
        raise UsageError(
            "--translate needs a --text to translate", hint='fashionrec query --text "빨간 원피스" --translate'
        )
    return TRANSLATORS[0] if translate else None


def _caption_setting(session: Session, caption: bool | None, captioner: str | None) -> str | None:
    """Return the setting ``query.caption`` by the options; None leaves it unchanged."""
    if caption is False:
        if captioner is not None:
            raise UsageError("--no-caption and --captioner cannot be combined")
        return "none"
    if captioner is not None or caption is None:
        return captioner
    configured: str = session.config.query.caption
    return ENCODER if configured == "none" else configured
