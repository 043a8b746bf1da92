"""Print or write an answer of ``query``: a table in the terminal, a document, or files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fashionrec.cli.session import Session

if TYPE_CHECKING:
    from fashionrec.search.answer import Answer
    from fashionrec.search.result import GarmentAnswer, QueryResult


def write_files(
    session: Session,
    answer: Answer,
    csv: Path | None,
    xlsx: Path | None,
    html: Path | None,
    save_crops: Path | None,
) -> None:
    if csv is not None:
        from fashionrec.search.render.tables import write_csv

        if str(csv) == "-":
            session.out.csv(lambda shown: write_csv(answer.results, shown))
        else:
            text = write_csv(answer.results)
            csv.write_text(text, encoding="utf-8-sig", newline="")  # Excel only detects UTF-8 by this mark
            session.out.say(f"table: {csv}")
    if xlsx is not None:
        from fashionrec.search.render.tables import write_xlsx

        write_xlsx(xlsx, answer.catalogue, answer.results)
        session.out.say(f"table: {xlsx}")
    if html is not None:
        html.write_text(answer.to_html(), encoding="utf-8", errors="backslashreplace")
    if save_crops is not None:
        from fashionrec.search.render.pictures import save_garments

        session.out.say(f"{save_garments(answer.catalogue, answer.results, save_crops)} crops in {save_crops}")


def show_page(session: Session, html: Path, open_: bool) -> None:
    """Print where the page was written, and open it in the browser if requested."""
    session.out.say(f"page: {html}")
    if open_:
        import webbrowser

        webbrowser.open(html.resolve().as_uri())


def print_answer(session: Session, answer: Answer, explain: bool) -> None:
    """Print the results of all photos and texts."""
    for result in answer.results:
        print_result(session, result, explain, named=not answer.query.is_single)


def print_result(session: Session, result: QueryResult, explain: bool, named: bool) -> None:
    out = session.out
    if result.source is not None:
        summary = ", ".join(
            f"{g.class_name} {g.confidence:.2f}" for g in result.seen if g.class_name and g.confidence is not None
        )
        count = len(result.seen)
        if not summary:
            summary = f"asked with {'the whole photo' if result.seen[0].whole_photo else result.seen[0].name}"
        else:
            summary = f"{count} garment{'s' if count != 1 else ''}: {summary}"
        out.line(f"{result.photo}: {summary}" if named else summary)
        if result.outfit:
            out.line(f"{result.outfit['en']} / {result.outfit['ko']}")
    for answer in result.garments:
        garment = answer.garment
        out.line()
        title = result.text if result.source is None else garment.name
        out.line(f"{title}" + (f": {garment.caption}" if garment.caption else ""))
        _print_hits(session, answer, explain)
    for answer in result.goes_with or []:
        out.line()
        out.line(f"goes with the {answer.garment.class_name}")
        _print_hits(session, answer, explain)
    total = sum(result.timings_ms.values())
    stages = ", ".join(f"{stage} {ms:.0f}" for stage, ms in result.timings_ms.items() if ms >= 0.5)
    out.line()
    out.line(f"{total:.0f} ms ({stages})")


def _print_hits(session: Session, answer: GarmentAnswer, explain: bool) -> None:
    from fashionrec.search.render.page import price

    if not answer.hits:
        session.out.line("  nothing found")
        return
    has_match = answer.hits[0].match is not None  # every hit has one, or none has
    rows = [
        (
            hit.rank,
            f"{hit.score:.3f}",
            *([hit.match] if has_match else []),
            hit.item.product_id,
            hit.item.class_name or "-",
            price(hit.item.metadata),
            hit.item.metadata.get("title") or hit.item.caption or "",
            *([" ".join(f"{name} {value:+.3f}" for name, value in hit.parts.items())] if explain else []),
            hit.item.metadata.get("url") or hit.item.image,
        )
        for hit in answer.hits
    ]
    match_column = ["match"] if has_match else []
    columns = (
        "#",
        "score",
        *match_column,
        "product",
        "class",
        "price",
        "title",
        *(["parts"] if explain else []),
        "link",
    )
    right = [n for n, name in enumerate(columns) if name in ("#", "score", "match", "price")]
    session.out.table(columns, rows, right=right)
