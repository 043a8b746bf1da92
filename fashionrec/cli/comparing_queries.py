"""query with two catalogues: both answers, what they share, and what moved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.cli.session import Session
from fashionrec.errors import UsageError

if TYPE_CHECKING:
    from fashionrec.search.result import QueryResult


def compare_catalogues(
    session: Session, question: Any, first: Path, second: Path, html: Path | None, open_: bool
) -> None:
    """Ask two catalogues the same question. ``question`` is what `query` understood of its command line."""
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.render.side_by_side import compare_page, pairs

    answers: list[tuple[QueryResult, QueryResult]] = []
    failures: list[UsageError] = []
    short: bool = question.is_short
    with (
        Catalogue.open(first, session.config, at_once=short) as a,
        Catalogue.open(second, session.config, at_once=short) as b,
    ):
        for one, other in zip(question.ask(session, a), question.ask(session, b), strict=True):
            wrong = next((answer for answer in (one, other) if isinstance(answer, UsageError)), None)
            if wrong is not None:
                failures.append(wrong)
                session.out.warn(str(wrong))
            else:
                answers.append((one, other))
        if not answers:
            raise failures[0]
        if html is not None:
            html.write_text(compare_page((a, b), answers), encoding="utf-8", errors="backslashreplace")
    compared = [[pair.to_dict() for pair in pairs(*both)] for both in answers]
    document = {
        "catalogues": [str(first), str(second)],
        "questions": [
            {"answers": [answer.to_dict() for answer in both], "garments": garments}
            for both, garments in zip(answers, compared, strict=True)
        ],
    }

    def human() -> None:
        for both, garments in zip(answers, compared, strict=True):
            session.out.line(both[0].photo or both[0].text or "the photo")
            for garment in garments:
                share = f"overlap@10 {100 * garment['overlap_at_10']:.0f} %"
                session.out.line(f"  {garment['garment']}: {share}")
                rows = [
                    (product, *("-" if r is None else r for r in ranks)) for product, ranks in garment["ranks"].items()
                ]
                session.out.table(("product", first.name, second.name), rows, right=(1, 2))

    session.out.result(document, human)
    if html is not None:
        session.out.say(f"page: {html}")
        if open_:
            import webbrowser

            webbrowser.open(html.resolve().as_uri())
