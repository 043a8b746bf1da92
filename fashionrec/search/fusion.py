"""Combine several signals per item into one score, or several ranked lists into one.

``by_weights`` mixes the signals' values (cosines, and relevance 0..1). ``by_ranks`` is reciprocal
rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009), which only uses the order within each
signal, so that scales need not match.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence

from fashionrec.config.fusions import FUSIONS

#: The paper's constant k: higher values flatten the influence of first ranks.
RRF_K = 60

#: The weight of a signal, and its value per item.
Signal = tuple[float, Mapping[int, float]]
#: The summands of each item's score, by signal.
Parts = dict[int, dict[str, float]]
#: Takes image cosines, the total weight of images and captions, the other signals, the items of
#: another class, and their penalty. Only called with other signals; images alone keep their cosine.
Fusion = Callable[[Mapping[int, float], float, Mapping[str, Signal], Collection[int], float], Parts]


def by_weights(
    images: Mapping[int, float],
    weight: float,
    signals: Mapping[str, Signal],
    penalised: Collection[int],
    penalty: float,
) -> Parts:
    """Sum the weighted signals of each item; returns the summands.

    ``images`` are the cosines of the pictures; captions and picture share ``weight``. A missing
    signal's weight falls back to the picture. Items ``penalised`` (of another class) lose
    ``penalty``.
    """
    fused: Parts = {}
    for item, cosine in images.items():
        parts = {"image": weight * cosine}
        if signals:
            known = {name: (share, values[item]) for name, (share, values) in signals.items() if item in values}
            own = weight - sum(share for name, (share, _) in known.items() if name != "words")
            parts = {"image": own * cosine, **{name: share * value for name, (share, value) in known.items()}}
        if item in penalised:
            parts["class"] = -penalty
        fused[item] = parts
    return fused


def by_ranks(
    images: Mapping[int, float],
    weight: float,
    signals: Mapping[str, Signal],
    penalised: Collection[int],
    penalty: float,
) -> Parts:
    """Sum the weighted reciprocal ranks of each item; what is first in every list scores 1.

    The picture of a ``penalised`` item is ranked as if its cosine were less by ``penalty``. A
    signal that is missing for an item, or words whose relevance is 0, add nothing.
    """
    image = {item: cosine - (penalty if item in penalised else 0.0) for item, cosine in images.items()}
    captions = sum(share for name, (share, _) in signals.items() if name != "words")
    fused: Parts = {item: {} for item in images}
    for name, (share, values) in {"image": (weight - captions, image), **signals}.items():
        for item, rank in ranks(values, positive=name == "words").items():
            fused[item][name] = reciprocal(rank, share)
    return fused


def fusion_of(name: str, registry: Mapping[str, str] = FUSIONS) -> Fusion:
    """Return the fusion that the setting ``query.fusion`` names."""
    module, _, function = registry[name].partition(":")
    found: Fusion = getattr(importlib.import_module(module, __package__), function)
    return found


def reciprocal(rank: int, share: float = 1.0) -> float:
    """The part of ``share`` that a rank from 1 is worth: all of it for the first."""
    return share * (RRF_K + 1) / (RRF_K + rank)


def ranks(values: Mapping[int, float], positive: bool = False) -> dict[int, int]:
    """Ranks from 1, the greatest value first and equal ones by number; with ``positive`` values of
    0 have none.
    """
    order = sorted((-value, item) for item, value in values.items() if value > 0 or not positive)
    return {item: rank for rank, (_, item) in enumerate(order, start=1)}


def fuse_lists(lists: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    """Fuse ranked lists (of product ids, each once) into one, best first; what is first in all of
    them scores 1.
    """
    scores: dict[str, float] = {}
    for names in lists:
        for rank, name in enumerate(names, start=1):
            scores[name] = scores.get(name, 0.0) + reciprocal(rank) / len(lists)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
