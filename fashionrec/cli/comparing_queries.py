"""query with two catalogues: both answers, what they share, and what moved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fashionrec.cli.answers import show_page
from fashionrec.cli.session import Session
from fashionrec.errors import UsageError
from fashionrec.search.result import QueryResult

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.answer import Answer
    from fashionrec.search.query import Query


def compare_catalogues(
    session: Session,
    query: Query,
    ask: Callable[[Session, Catalogue, Query], Answer],
    first: Path,
    second: Path,
    html: Path | None,
    open_: bool,
) -> None:
    """Ask two catalogues the same."""
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.render.side_by_side import compare_page, pairs

    answers: list[tuple[QueryResult, QueryResult]] = []
    with (
        Catalogue.open(first, session.config, at_once=query.is_short) as a,
        Catalogue.open(second, session.config, at_once=query.is_short) as b,
    ):
        outcomes = [ask(session, catalogue, query).outcomes for catalogue in (a, b)]
        failures: list[UsageError] = []
        for one, other in zip(*outcomes, strict=True):
            if isinstance(one, QueryResult) and isinstance(other, QueryResult):
                answers.append((one, other))
            else:
                failures += [outcome for outcome in (one, other) if isinstance(outcome, UsageError)][:1]
                session.out.warn(str(failures[-1]))
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
        show_page(session, html, open_)
