"""``query`` with two catalogues: both answers, common hits, and changes of rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fashionrec.cli.answers import show_page
from fashionrec.cli.session import Session

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
    """Run one query on two catalogues and print the comparison."""
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.render.side_by_side import compare_page, comparison, paired

    with (
        Catalogue.open(first, session.resolved, at_once=query.is_short) as a,
        Catalogue.open(second, session.resolved, at_once=query.is_short) as b,
    ):
        answers, failures = paired(*(ask(session, catalogue, query) for catalogue in (a, b)))
        for failure in failures:
            session.out.warn(str(failure))
        if not answers:
            raise failures[0]
        if html is not None:
            html.write_text(compare_page((a, b), answers), encoding="utf-8", errors="backslashreplace")
    document = comparison((first, second), answers)

    def human() -> None:
        for (answer, _), question in zip(answers, document["questions"], strict=True):
            session.out.line(answer.photo or answer.text or "the photo")
            for garment in question["garments"]:
                share = f"overlap@10 {100 * garment['overlap_at_10']:.0f} %"
                session.out.line(f"  {garment['garment']}: {share}")
                rows = [
                    (product, *("-" if r is None else r for r in ranks)) for product, ranks in garment["ranks"].items()
                ]
                session.out.table(("product", first.name, second.name), rows, right=(1, 2))

    session.out.result(document, human)
    if html is not None:
        show_page(session, html, open_)
