"""Print figures of a search as tables."""

from __future__ import annotations

from typing import Any

from fashionrec.cli.session import Session


def print_scores(session: Session, groups: list[tuple[str, dict[str, Any]]]) -> None:
    """Print one row of retrieval figures for each name."""
    keys = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "ndcg_at_10")
    rows = [[name, values["queries"], *(f"{values[key]:.3f}" for key in keys)] for name, values in groups]
    session.out.table(("query", "n", "R@1", "R@5", "R@10", "MRR", "nDCG@10"), rows, right=(1, 2, 3, 4, 5, 6))


def print_ways(session: Session, document: dict[str, Any]) -> None:
    """Print the table of ways to query, and the best caption weight."""
    print_scores(session, list(document["ways"].items()))
    if document["caption_weight"] is not None:
        session.out.line(f"best caption weight on the tuning half: {document['caption_weight']:g}")
