"""Captions against the truth, field by field: how often a captioner tells, and how often it is right when it does.

The truth is what the products' own data say (in the drawn world: all of it), or another captioner's word. A captioner that learnt
from the same data is asked with what it learnt from other products.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.base import Job
from fashionrec.captioner.job.known import CatalogueSource, Known, attribute_columns, known_garments, vectors_of
from fashionrec.captioner.providers import make_captioner
from fashionrec.captioner.vocabulary import UNKNOWN, Vocabulary, vocabulary_of
from fashionrec.config.captioners import ENCODER
from fashionrec.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import Config

#: Mistakes that are named for each field.
_NAMED = 3


@dataclass(frozen=True)
class Pair:
    """One garment in one field: what is true (or another says) and what was told; ``unknown`` where nothing was."""

    class_name: str
    truth: str
    told: str


def score(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Of one field: ``garments`` with a truth; ``told``, the share of them of which something is told; ``right_of_told``;
    ``right`` of all; ``majority``, how often the class's most frequent value is true; ``kappa``, Cohen's, of those told;
    ``mistakes``, the most frequent, as [true, told, times]."""
    told = [pair for pair in pairs if pair.told != UNKNOWN]
    right = sum(pair.truth == pair.told for pair in told)
    by_class: dict[str, Counter[str]] = {}
    for pair in pairs:
        by_class.setdefault(pair.class_name, Counter())[pair.truth] += 1
    majority = sum(max(counts.values()) for counts in by_class.values())
    mistakes = Counter((pair.truth, pair.told) for pair in told if pair.truth != pair.told)
    return {
        "garments": len(pairs),
        "told": round(len(told) / len(pairs), 4) if pairs else None,
        "right_of_told": round(right / len(told), 4) if told else None,
        "right": round(right / len(pairs), 4) if pairs else None,
        "majority": round(majority / len(pairs), 4) if pairs else None,
        "kappa": _kappa(told),
        "mistakes": [[truth, wrong, times] for (truth, wrong), times in mistakes.most_common(_NAMED)],
    }


def _kappa(told: Sequence[Pair]) -> float | None:
    """Agreement beyond chance (Cohen 1960), within -1..1; None where chance explains all."""
    if not told:
        return None
    count = len(told)
    one, other = Counter(pair.truth for pair in told), Counter(pair.told for pair in told)
    chance = sum(one[value] * other[value] for value in one) / count**2
    agreed = sum(pair.truth == pair.told for pair in told) / count
    return None if chance >= 1.0 else round((agreed - chance) / (1 - chance), 4)


def against_truth(
    garments: Sequence[Known], told: Sequence[Mapping[str, str] | None], vocabulary: Vocabulary
) -> dict[str, dict[str, Any]]:
    """Scores of each field of which anything is known. ``told`` are attributes, None where a garment has no caption: those are
    left out."""
    truths = [
        None if attributes is None else _normal(one.values, one.stored.item.class_name, vocabulary)
        for one, attributes in zip(garments, told, strict=True)
    ]
    return against_another(garments, truths, told, vocabulary)


def against_another(
    garments: Sequence[Known],
    truths: Sequence[Mapping[str, str] | None],
    told: Sequence[Mapping[str, str] | None],
    vocabulary: Vocabulary,
) -> dict[str, dict[str, Any]]:
    """Scores of each field as :func:`against_truth`, with what another captioner tells as ``truths``."""
    found: dict[str, dict[str, Any]] = {}
    for field in vocabulary.fields_of(None):
        pairs = [
            Pair(one.stored.item.class_name or "", truth[field], said.get(field) or UNKNOWN)
            for one, truth, said in zip(garments, truths, told, strict=True)
            if truth is not None and said is not None and truth.get(field, UNKNOWN) != UNKNOWN
        ]
        if pairs:
            found[field] = score(pairs)
    return found


def _normal(values: Mapping[str, str], class_name: str | None, vocabulary: Vocabulary) -> dict[str, str]:
    """Allowed values for the words of a product's data; what is none of them is left out."""
    found = {field: vocabulary.find(field, word, class_name) for field, word in values.items()}
    return {field: value for field, value in found.items() if value is not None}


def told_by_catalogue(catalogue: Catalogue, garments: Sequence[Known]) -> dict[str, list[dict[str, str] | None]]:
    """The attributes that the captions of a catalogue tell, by captioner; None where a garment has no caption by it."""
    captions = catalogue.items.attributes_told()
    found: dict[str, list[dict[str, str] | None]] = {}
    for n, one in enumerate(garments):
        if one.stored.garment_no in captions:
            captioner, told = captions[one.stored.garment_no]
            found.setdefault(captioner, [None] * len(garments))[n] = told
    return found


def told_by_encoder(catalogue: Catalogue, garments: Sequence[Known], config: Config) -> list[dict[str, str] | None]:
    """What the catalogue's own encoder tells of each, with what it learnt from every second product about the others."""
    from fashionrec.captioner.schema import attributes

    unbound = make_captioner(ENCODER, config.captioner)
    names = {name: n % 2 for n, name in enumerate(dict.fromkeys(one.stored.item.product_id for one in garments))}
    halves = [[n for n, one in enumerate(garments) if names[one.stored.item.product_id] == half] for half in (0, 1)]
    told: list[dict[str, str] | None] = [None] * len(garments)
    vectors = vectors_of(catalogue, garments)
    for mine, others in (halves, halves[::-1]):
        source = CatalogueSource(catalogue, unbound.vocabulary, [garments[n] for n in others])
        jobs = [Job(n, garments[n].stored.item.class_name, _no_picture, partial(vectors.__getitem__, n)) for n in mine]
        for group in unbound.bind(source).describe(jobs):
            for job, outcome, _ in group:
                assert isinstance(job.key, int)
                told[job.key] = None if outcome.description is None else attributes(outcome.description)
    return told


def _no_picture() -> Image.Image:
    raise AssertionError("an encoder's captions are of vectors")


def evaluate_captions(catalogue: Catalogue, config: Config, truth: Iterable[Any] | None = None) -> dict[str, Any]:
    """Scores by captioner: of the catalogue's captions and of its encoder's, against the products' own data and ``truth``, rows
    of products that tell more; and of the two against each other, where the first are not the encoder's own.

    Raises :class:`DataError` where nothing is known to measure with.
    """
    vocabulary = vocabulary_of(config.captioner)
    garments = known_garments(catalogue, vocabulary)
    if truth is not None:
        fields = set(vocabulary.fields_of(None))
        more = {row.product_id: attribute_columns(row.metadata, fields) for row in truth}
        garments = [Known(one.stored, {**one.values, **more.get(one.stored.item.product_id, {})}) for one in garments]
    encoder = told_by_encoder(catalogue, garments, config)
    document: dict[str, Any] = {"garments": len(garments), "captioners": {}, "agreement": {}}
    for captioner, recorded in told_by_catalogue(catalogue, garments).items():
        if captioner != ENCODER:  # its own is asked anew, so that it is judged on what it has not learnt from
            document["captioners"][captioner] = against_truth(garments, recorded, vocabulary)
            document["agreement"][captioner] = against_another(garments, recorded, encoder, vocabulary)
    document["captioners"][ENCODER] = against_truth(garments, encoder, vocabulary)
    if not any(document["captioners"].values()) and not any(document["agreement"].values()):
        raise DataError(
            f"nothing tells the attributes of the garments of {catalogue.root}",
            hint="columns such as color or pattern in the products' table, --truth TABLE, or captions by another captioner",
        )
    return document
