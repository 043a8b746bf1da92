"""``evaluate --captions``: accuracy of captions, and their gain in search."""

from __future__ import annotations

from typing import Any

from fashionrec.cli.scores import print_ways
from fashionrec.cli.session import Session
from fashionrec.common.text import shell_word
from fashionrec.config.captioners import ENCODER


def evaluate_captions_of(session: Session, index: str | None, truth: Any, queries: Any) -> None:
    """Print the accuracy per field of every captioner.

    With ``queries``, also compare search with and without captions.
    """
    from fashionrec.captioner.job import describer
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.evaluation.captions import evaluate_captions
    from fashionrec.evaluation.retrieval.ways import compare_ways

    root = session.find_catalogue(index)
    with Catalogue.open(root, session.config) as catalogue:
        document: dict[str, Any] = {"index": str(catalogue.root), **evaluate_captions(catalogue, session.config, truth)}
        if queries is not None:
            with session.out.progress("asking", "queries") as tick:
                document["search"] = compare_ways(catalogue, queries, describer(catalogue), progress=tick)
    session.out.result(document, lambda: _print(session, document))
    if queries is None:
        session.out.next(f"fashionrec evaluate --captions --queries QUERIES.csv --index {shell_word(root)}")
    else:
        session.out.next(f"fashionrec caption --index {shell_word(root)}")


def _print(session: Session, document: dict[str, Any]) -> None:
    out = session.out
    for captioner, fields in document["captioners"].items():
        if fields:
            out.line(f"{captioner}, compared with product data:")
            _table(session, fields)
    for captioner, fields in document["agreement"].items():
        if fields:
            out.line(f"{ENCODER}, against {captioner}:")
            _table(session, fields)
    if "search" in document:
        print_ways(session, document["search"])


def _table(session: Session, fields: dict[str, dict[str, Any]]) -> None:
    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    rows = [
        [
            field,
            values["garments"],
            *(share(values[key]) for key in ("told", "right_of_told", "right", "majority", "kappa")),
            ", ".join(f"{true} as {wrong} {times}x" for true, wrong, times in values["mistakes"][:2]),
        ]
        for field, values in fields.items()
    ]
    heads = ("field", "n", "told", "accuracy", "right", "majority", "kappa", "most frequent confusion")
    session.out.table(heads, rows, right=(1, 2, 3, 4, 5, 6))
