"""query: an answer as a table in the terminal, as a document, and as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.cli.session import Session

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.result import GarmentAnswer, QueryResult


def document(answer: QueryResult, worn: Sequence[list[GarmentAnswer]], explain: bool) -> dict[str, Any]:
    found = answer.to_dict(explain=explain)
    if worn:
        from fashionrec.search.result import garment_document

        found["goes_with"] = [garment_document(one, explain) for one in worn[-1]]
    return found


def write_files(
    session: Session,
    catalogue: Catalogue,
    answers: Sequence[QueryResult],
    worn: Sequence[list[GarmentAnswer]],
    csv: Path | None,
    xlsx: Path | None,
    html: Path | None,
    save_crops: Path | None,
) -> None:
    if csv is not None:
        from fashionrec.search.render.tables import write_csv

        if str(csv) == "-":
            session.out.csv(lambda shown: write_csv(answers, shown))
        else:
            text = write_csv(answers)
            csv.write_text(text, encoding="utf-8-sig", newline="")  # Excel reads UTF-8 where a mark says so
            session.out.say(f"table: {csv}")
    if xlsx is not None:
        from fashionrec.search.render.tables import write_xlsx

        write_xlsx(xlsx, catalogue, answers)
        session.out.say(f"table: {xlsx}")
    if html is not None:
        from fashionrec.search.render.page import answer_page

        html.write_text(answer_page(catalogue, answers, worn), encoding="utf-8", errors="backslashreplace")
    if save_crops is not None:
        from fashionrec.search.render.pictures import save_garments

        session.out.say(f"{save_garments(catalogue, answers, save_crops)} crops in {save_crops}")


def print_answer(
    session: Session, answer: QueryResult, worn: Sequence[list[GarmentAnswer]], explain: bool, named: bool
) -> None:
    out = session.out
    if answer.source is not None:
        seen = ", ".join(
            f"{g.class_name} {g.confidence:.2f}" for g in answer.seen if g.class_name and g.confidence is not None
        )
        count = len(answer.seen)
        if not seen:
            seen = f"asked with {'the whole photo' if answer.seen[0].whole_photo else answer.seen[0].name}"
        else:
            seen = f"{count} garment{'s' if count != 1 else ''}: {seen}"
        out.line(f"{answer.photo}: {seen}" if named else seen)
        if answer.outfit:
            out.line(f"{answer.outfit['en']} / {answer.outfit['ko']}")
    for found in answer.garments:
        garment = found.garment
        out.line()
        title = answer.text if answer.source is None else garment.name
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
    from fashionrec.search.render.page import price

    if not found.hits:
        session.out.line("  nothing found")
        return
    calibrated = any(hit.match is not None for hit in found.hits)
    rows = [
        (
            hit.rank,
            f"{hit.score:.3f}",
            *([hit.match] if calibrated else []),
            hit.item.product_id,
            hit.item.class_name or "-",
            price(hit.item.metadata),
            hit.item.metadata.get("title") or hit.item.caption or "",
            *([" ".join(f"{name} {value:+.3f}" for name, value in hit.parts.items())] if explain else []),
            hit.item.metadata.get("url") or hit.item.image,
        )
        for hit in found.hits
    ]
    matched = ["match"] if calibrated else []
    columns = ("#", "score", *matched, "product", "class", "price", "title", *(["parts"] if explain else []), "link")
    right = [n for n, name in enumerate(columns) if name in ("#", "score", "match", "price")]
    session.out.table(columns, rows, right=right)
