"""Merge several queries into one list by reciprocal rank fusion: photos of one garment, or photos
and texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fashionrec.search.fusion import fuse_lists, reciprocal
from fashionrec.search.result import STAGES, GarmentAnswer, QueryResult
from fashionrec.store.items import StoredItem
from fashionrec.types import Box, Garment, Hit

if TYPE_CHECKING:
    from fashionrec.config import QueryConfig

#: Hits per query to fuse, as a multiple of those wanted, and at least.
_DEEPER, _LEAST = 2, 20


def merge_settings(settings: QueryConfig) -> QueryConfig:
    """Return settings for each of the queries to merge."""
    return settings.model_copy(update={"k": max(_LEAST, settings.k * _DEEPER)})


def merge_results(answers: Sequence[QueryResult], settings: QueryConfig) -> QueryResult:
    """Merge answers: the ``settings.k`` products that rank highest over all garments and texts.

    A score is the mean of ``61 / (60 + rank)`` over the lists, so that the first in all of them
    scores 1; the ``parts`` of a hit are the shares of the lists. The item shown is the one most
    similar to its query.
    """
    lists = [(_name(answer, found), found) for answer in answers for found in answer.garments]
    order = fuse_lists([[hit.item.product_id for hit in found.hits] for _, found in lists])
    best: dict[str, tuple[float, Hit, StoredItem]] = {}
    parts: dict[str, dict[str, float]] = {}
    for number, (name, found) in enumerate(lists, start=1):
        for hit, stored in zip(found.hits, found.stored, strict=True):
            product = hit.item.product_id
            gain = reciprocal(hit.rank) / len(lists)
            parts.setdefault(product, {})[f"{number}: {name}"] = gain
            if product not in best or hit.score > best[product][0]:
                best[product] = hit.score, hit, stored
    classes = {found.garment.class_name for _, found in lists}
    garment = Garment(0, classes.pop() if len(classes) == 1 else None, None, Box(0, 0, 0, 0))
    chosen = [(score, *best[product][1:], parts[product]) for product, score in order[: settings.k]]
    hits = tuple(
        replace(hit, rank=rank, score=score, parts=of, match=None)
        for rank, (score, hit, _, of) in enumerate(chosen, start=1)
    )
    answer = QueryResult(
        photo=None, width=None, height=None, text="; ".join(dict.fromkeys(answer.title for answer in answers))
    )
    answer.garments.append(GarmentAnswer(garment, hits, tuple(stored for _, _, stored, _ in chosen)))
    for stage in STAGES:
        answer.timings_ms[stage] = sum(one.timings_ms[stage] for one in answers)
    answer.notes = list(dict.fromkeys(note for one in answers for note in one.notes))
    return answer


def _name(answer: QueryResult, found: GarmentAnswer) -> str:
    name = found.garment.class_name
    return f"{answer.title}, {name}" if name and answer.source is not None else answer.title
