"""Compare captions with the truth, field by field: coverage and accuracy.

The truth is product data (complete for synthetic data), or another captioner. A captioner that
learned from the same data is judged with what it learned from other products.
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

#: Confusions listed per field.
_NAMED = 3


@dataclass(frozen=True)
class Pair:
    """One garment in one field: the true value (or another captioner's) and the predicted one;
    ``unknown`` without a prediction.
    """

    class_name: str
    truth: str
    told: str


def score(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Score one field.

    ``garments`` with a true value; ``told``, the share with a prediction; ``right_of_told``, their
    accuracy; ``right`` of all; ``majority``, the accuracy of the class's most frequent value;
    ``kappa``, Cohen's, of those predicted; ``mistakes``, the most frequent, as [true, predicted,
    count].
    """
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
    """Return the agreement beyond chance (Cohen 1960), -1..1; None if chance explains
    everything.
    """
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
    """Score each field with known values. ``told`` are attributes; garments without a caption
    (None) are skipped.
    """
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
    """Score each field like :func:`against_truth`, with another captioner's attributes as
    ``truths``.
    """
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
    """Map words of product data to allowed values; skip those that do not match."""
    found = {field: vocabulary.find(field, word, class_name) for field, word in values.items()}
    return {field: value for field, value in found.items() if value is not None}


def told_by_catalogue(catalogue: Catalogue, garments: Sequence[Known]) -> dict[str, list[dict[str, str] | None]]:
    """Return the attributes from the captions of a catalogue, by captioner; None for garments
    without a caption by it.
    """
    captions = catalogue.items.attributes_told()
    found: dict[str, list[dict[str, str] | None]] = {}
    for n, one in enumerate(garments):
        if one.stored.garment_no in captions:
            captioner, told = captions[one.stored.garment_no]
            found.setdefault(captioner, [None] * len(garments))[n] = told
    return found


def told_by_encoder(catalogue: Catalogue, garments: Sequence[Known], config: Config) -> list[dict[str, str] | None]:
    """Return the predictions of the catalogue's own encoder, learned from every second product
    about the others.
    """
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
    raise AssertionError("captions by an encoder need vectors")


def evaluate_captions(catalogue: Catalogue, config: Config, truth: Iterable[Any] | None = None) -> dict[str, Any]:
    """Score the captions of a catalogue and of its encoder, by captioner.

    They are compared with product data and ``truth`` (rows of products with further attributes),
    and with each other if the captions are not the encoder's own. Raises :class:`DataError` if
    there is nothing to compare with.
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
        if captioner != ENCODER:  # its own is predicted again, so that it is judged on products it has not learned from
            document["captioners"][captioner] = against_truth(garments, recorded, vocabulary)
            document["agreement"][captioner] = against_another(garments, recorded, encoder, vocabulary)
    document["captioners"][ENCODER] = against_truth(garments, encoder, vocabulary)
    if not any(document["captioners"].values()) and not any(document["agreement"].values()):
        raise DataError(
            f"no true attributes are known for the garments of {catalogue.root}",
            hint="add columns such as color or pattern to the product table, --truth TABLE, or captions by another captioner",
        )
    return document
