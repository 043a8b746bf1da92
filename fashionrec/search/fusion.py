"""Several opinions of the same items made one score: pictures, captions, words; or several lists, one.

``by_weights`` mixes what they say (cosines, and relevance 0..1). ``by_ranks`` is reciprocal rank fusion (Cormack, Clarke and
Büttcher, SIGIR 2009): only the order within each opinion counts, so that opinions on different scales need no common one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

#: The constant of the paper: how much less the first ranks stand out.
DAMPING = 60

#: The weight of an opinion, and what it says of each item.
Opinion = tuple[float, Mapping[int, float]]
Parts = dict[int, dict[str, float]]


def by_weights(
    pictures: Mapping[int, float],
    weight: float,
    others: Mapping[str, Opinion],
    held_back: Collection[int],
    penalty: float,
) -> Parts:
    """The summands of each item's score. An item of which an opinion says nothing has its weight given to the picture.

    Those ``held_back`` (of another class) lose ``penalty``.
    """
    found: Parts = {}
    for item, cosine in pictures.items():
        said = {name: (share, values[item]) for name, (share, values) in others.items() if item in values}
        own = weight - sum(share for name, (share, _) in said.items() if name != "words")
        parts = {"image": own * cosine, **{name: share * value for name, (share, value) in said.items()}}
        if item in held_back:
            parts["class"] = -penalty
        found[item] = parts
    return found


def by_ranks(
    pictures: Mapping[int, float],
    weight: float,
    others: Mapping[str, Opinion],
    held_back: Collection[int],
    penalty: float,
) -> Parts:
    """The same from ranks, with the same weights; what is first in every list scores 1. The picture of an item that is
    ``held_back`` is ranked as if its cosine were less by ``penalty``; of what an opinion says 0 or nothing, it adds nothing."""
    image = {item: cosine - (penalty if item in held_back else 0.0) for item, cosine in pictures.items()}
    captions = sum(share for name, (share, _) in others.items() if name != "words")
    opinions: dict[str, Opinion] = {"image": (weight - captions, image), **others}
    found: Parts = {item: {} for item in pictures}
    for name, (share, values) in opinions.items():
        for item, rank in ranks(values, keep_nothing=name == "words").items():
            found[item][name] = share * (DAMPING + 1) / (DAMPING + rank)
    return found


def ranks(values: Mapping[int, float], keep_nothing: bool = False) -> dict[int, int]:
    """Ranks from 1, the greatest value first and equal ones by number; with ``keep_nothing`` those of 0 have none."""
    order = sorted((-value, item) for item, value in values.items() if value > 0 or not keep_nothing)
    return {item: rank for rank, (_, item) in enumerate(order, start=1)}


def fused_lists(lists: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    """Several ranked lists (of product ids, each once) as one, best first; what is first in all of them scores 1."""
    scores: dict[str, float] = {}
    for one in lists:
        for rank, name in enumerate(one, start=1):
            scores[name] = scores.get(name, 0.0) + (DAMPING + 1) / (DAMPING + rank) / len(lists)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
