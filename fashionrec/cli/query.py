"""query: the answer for photos, words, or items of the catalogue."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fashionrec.cli.answers import document, print_answer, write_files
from fashionrec.cli.session import Session, command
from fashionrec.common.text import shell_word
from fashionrec.errors import CatalogueError, UsageError
from fashionrec.search import BATCH

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import QueryConfig
    from fashionrec.search.photo import Describe
    from fashionrec.search.result import GarmentAnswer, QueryResult
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
    merge: Annotated[
        bool, typer.Option("--merge", help="One list for all photos and words, by reciprocal rank fusion.")
    ] = False,
    translate: Annotated[
        bool, typer.Option("--translate", help="Korean words into English by OpenAI (sends the words).")
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
    settings |= {"caption": _captioner(session, caption, captioner), "translate": "openai" if translate else None}
    session.override("query", settings)
    question = _Question.of(session, photos or [], text or [], like or [], unlike or [], box, merge)
    if merge and goes_with:
        raise UsageError("--goes-with is asked of one garment, not of --merge")
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
    from fashionrec.catalogue.catalogue import Catalogue

    answers: list[QueryResult] = []
    failures: list[tuple[str, UsageError]] = []
    root = find_catalogue(session, index[0] if index else None)
    with Catalogue.open(root, session.config, at_once=question.is_short) as catalogue:
        question.begin(catalogue)
        worn: list[list[GarmentAnswer]] = []
        for answer in question.ask(session, catalogue):
            if isinstance(answer, UsageError):
                failures.append((str(answer), answer))
                if not question.single:
                    session.out.warn(str(answer))
                continue
            answers.append(answer)
            if goes_with:
                from fashionrec.search.outfits import goes_with as recommend

                worn.append(recommend(catalogue, answer, session.config.query))
            for note in answer.notes:
                session.out.say(note)
            if jsonl:
                session.out.json_line(document(answer, worn, explain))
        if failures and not answers:
            raise failures[0][1]
        if not jsonl and csv is None:
            documents = [document(answer, worn[n : n + 1], explain) for n, answer in enumerate(answers)]
            failed = [{"error": words, "reason": getattr(error, "reason", "usage")} for words, error in failures]
            whole = documents[0] if question.single else {"answers": documents, "failures": failed}

            def human() -> None:
                for n, answer in enumerate(answers):
                    print_answer(session, answer, worn[n : n + 1], explain, named=not question.single)

            session.out.result(whole, human)
        write_files(session, catalogue, answers, worn, csv, xlsx, html, save_crops)
    if html is not None:
        session.out.say(f"page: {html}")
        if open_:
            import webbrowser

            webbrowser.open(html.resolve().as_uri())
    else:
        session.out.next(f"fashionrec query {question.words} --index {shell_word(catalogue.root)} --html answer.html")


class _Question:
    """What is asked: photos, words, or items."""

    def __init__(
        self,
        sources: list[Source],
        words: list[Words],
        like: list[str],
        unlike: list[str],
        box: Box | None,
        many: bool,
        merge: bool,
    ) -> None:
        self.sources, self.asked_words, self.like, self.unlike, self.box = sources, words, like, unlike, box
        self.single, self.merge = merge or not many, merge
        named = [shell_word(Path(source)) if isinstance(source, str) else "-" for source in sources[:1]]
        likes = (f"--like {shell_word(one)}" for one in like)
        self.words = " ".join([*named, *likes, *(f"--text {shell_word(_short(one.text))}" for one in words[:1])])

    @classmethod
    def of(
        cls,
        session: Session,
        photos: list[str],
        texts: list[str],
        like: list[str],
        unlike: list[str],
        box: str | None,
        merge: bool,
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
        weight = session.config.query.words_weight if (photos or like) and not merge else 1.0
        words = [parse_words(text, weight) for text in texts]
        if session.config.query.translate == "openai" and words:
            words = _by_openai(session, words)
        if merge and any(one.weight < 0 for one in words):
            raise UsageError("--merge takes lists of what is wanted", hint="without --merge words lead a photo away")
        if not photos and not like and all(one.weight < 0 for one in words):
            raise UsageError("there is nothing that is wanted, only what is not", hint='add --text "..."')
        sources, many = _sources(photos)
        return cls(sources, words, like, unlike, _box(box), many, merge)

    @property
    def is_short(self) -> bool:
        """Whether models that are open at once are worth more than those that answer faster."""
        return len(self.sources) <= BATCH

    def begin(self, catalogue: Catalogue) -> None:
        """Have the models opened that will be asked, before anything else is imported."""
        if self.sources:
            catalogue.begin("image", detect=self.box is None)
        elif self.asked_words and not self.like:
            catalogue.begin("text")

    def ask(self, session: Session, catalogue: Catalogue) -> Iterator[QueryResult | UsageError]:
        """Answers, and errors as values."""
        settings = query_settings(session, catalogue)
        if not self.merge:
            yield from self._each(session, catalogue, settings, self.asked_words)
            return
        from fashionrec.search.merging import deeper, merged

        found = list(self._each(session, catalogue, deeper(settings), []))
        if self.asked_words:
            from fashionrec.search.text import search_text

            found += [search_text(catalogue, [one], deeper(settings)) for one in self.asked_words]
        yield from (one for one in found if isinstance(one, UsageError))
        if answers := [one for one in found if not isinstance(one, UsageError)]:
            yield merged(answers, settings)

    def _each(
        self, session: Session, catalogue: Catalogue, settings: QueryConfig, words: list[Words]
    ) -> Iterator[QueryResult | UsageError]:
        if self.sources:
            from fashionrec.search.photo import search_photos

            yield from search_photos(
                catalogue,
                self.sources,
                settings,
                _describe(session, catalogue),
                box=self.box,
                words=words,
                once=self.is_short,
            )
        elif self.like:
            from fashionrec.search.like import search_like

            yield search_like(catalogue, self.like, settings, unlike=self.unlike, words=words)
        elif words:
            from fashionrec.search.text import search_text

            yield search_text(catalogue, words, settings)


def query_settings(session: Session, catalogue: Catalogue) -> QueryConfig:
    """The settings of a query: the weight of captions is the one measured for the catalogue, where nobody set another."""
    settings = session.config.query
    weight = catalogue.measured.caption_weight
    if weight is None or session.is_set("query.caption_weight"):
        return settings
    return settings.model_copy(update={"caption_weight": weight})


def _by_openai(session: Session, words: list[Words]) -> list[Words]:
    from fashionrec.captioner.openai.translate import translator
    from fashionrec.search.words import translated

    config = session.config.captioner
    return translated(words, translator(config), f"{config.model}, which was sent it")


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
            from fashionrec.photos.images import find_photos

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


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


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


def run_query(session: Session, catalogue: Catalogue, photo: str | None, text: str | None = None) -> QueryResult:
    """The answer of one open catalogue to a photo or a text, by the session's settings."""
    settings = query_settings(session, catalogue)
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
