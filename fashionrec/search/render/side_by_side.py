"""Compare the answers of two catalogues to one query (last week's and this week's, or two
encoders): common hits and moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.pages import environment
from fashionrec.errors import UsageError
from fashionrec.search.render.page import answer_view

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.answer import Answer
    from fashionrec.search.result import GarmentAnswer, QueryResult

DEPTH = 10


@dataclass(frozen=True)
class Pair:
    """The hits of two catalogues for one garment (None: not detected in one), by product.

    ``overlap`` is the share of the first ten products in both (of as many as the longer list has,
    at most ten); ``moves`` maps a product to its ranks in the first and second, None if missing.
    """

    garment: str
    first: GarmentAnswer | None
    second: GarmentAnswer | None
    overlap: float
    moves: dict[str, tuple[int | None, int | None]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "garment": self.garment,
            "overlap_at_10": round(self.overlap, 4),
            "ranks": {product: list(ranks) for product, ranks in self.moves.items()},
        }


def paired(first: Answer, second: Answer) -> tuple[list[tuple[QueryResult, QueryResult]], list[UsageError]]:
    """Pair the results of two catalogues for each photo or text; also return the first error of
    each that only one could answer.
    """
    if first.query.merge:  # one result each, though it may be of different photos
        errors = {str(error): error for error in (*first.failures, *second.failures)}
        return [(first.results[0], second.results[0])], list(errors.values())
    answers, failures = [], []
    for one, other in zip(first.outcomes, second.outcomes, strict=True):
        if isinstance(one, UsageError):
            failures.append(one)
        elif isinstance(other, UsageError):
            failures.append(other)
        else:
            answers.append((one, other))
    return answers, failures


def comparison(catalogues: Sequence[Path], answers: Sequence[tuple[QueryResult, QueryResult]]) -> dict[str, Any]:
    """Return both catalogues' answers, and how the garments' hits differ, as a document."""
    return {
        "catalogues": [str(path) for path in catalogues],
        "questions": [
            {
                "answers": [answer.to_dict() for answer in both],
                "garments": [pair.to_dict() for pair in pairs(*both)],
            }
            for both in answers
        ],
    }


def pairs(first: QueryResult, second: QueryResult) -> list[Pair]:
    """Pair the garments of two results by the highest IoU."""
    left = list(second.garments)
    found = []
    for one in first.garments:
        best = max(left, key=lambda other: _fit(one, other), default=None)
        if best is not None and _fit(one, best) > 0.3:
            left = [other for other in left if other is not best]
            found.append(_pair(one, best))
        else:
            found.append(_pair(one, None))
    return found + [_pair(None, one) for one in left]


def compare_page(catalogues: Sequence[Catalogue], answers: Sequence[tuple[QueryResult, QueryResult]]) -> str:
    """Return both catalogues' answers side by side as one self-contained page."""
    names = [catalogue.root.name for catalogue in catalogues]
    if names[0] == names[1]:
        names = [str(catalogue.root) for catalogue in catalogues]
    sections = []
    for both in answers:
        views = [answer_view(catalogue, answer) for catalogue, answer in zip(catalogues, both, strict=True)]
        sections.append({"views": views, "pairs": [_view(pair) for pair in pairs(*both)]})
    template = environment().get_template("side_by_side.html")
    return template.render(title=f"{names[0]} and {names[1]}", names=names, sections=sections, depth=DEPTH)


def _fit(one: GarmentAnswer, other: GarmentAnswer) -> float:
    if one.garment.box.area == other.garment.box.area == 0:  # texts have no box
        return 1.0
    return one.garment.box.iou(other.garment.box)


def _pair(first: GarmentAnswer | None, second: GarmentAnswer | None) -> Pair:
    ranks = [{hit.item.product_id: hit.rank for hit in found.hits} if found else {} for found in (first, second)]
    top = [{product for product, rank in one.items() if rank <= DEPTH} for one in ranks]
    most = max(len(top[0]), len(top[1]))
    overlap = len(top[0] & top[1]) / most if most else 1.0
    moves = {product: (ranks[0].get(product), ranks[1].get(product)) for product in [*ranks[0], *ranks[1]]}
    known = first or second
    assert known is not None
    return Pair(known.garment.name, first, second, overlap, moves)


def _view(pair: Pair) -> dict[str, Any]:
    rows = []
    for product, (before, after) in pair.moves.items():
        change = (
            "" if before == after else "new" if before is None else "gone" if after is None else f"{before - after:+d}"
        )
        rows.append({"product": product, "before": before, "after": after, "change": change})
    return {"garment": pair.garment, "overlap": pair.overlap, "rows": rows}
