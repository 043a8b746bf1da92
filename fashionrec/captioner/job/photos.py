"""Captions of single photos, and of query photos. Captions of query photos are never recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.base import Job
from fashionrec.captioner.cache import Place
from fashionrec.captioner.job.caches import Caches, Recorder, project_cache
from fashionrec.captioner.job.known import CatalogueSource
from fashionrec.captioner.outfit import outfit
from fashionrec.captioner.providers import make_captioner
from fashionrec.captioner.schema import QueryDescription, attributes, embedding_text
from fashionrec.config.captioners import ENCODER
from fashionrec.errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fashionrec.captioner.base import Captioner
    from fashionrec.captioner.outcome import Outcome
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.types import Garment

#: Describes garments: takes crops, their image vectors (float32 [n, d]) and classes, returns one
#: description or None per garment.
Describe = Callable[
    [Sequence["Image.Image"], "np.ndarray", Sequence["str | None"]], Sequence["QueryDescription | None"]
]


def describer(catalogue: Catalogue, captioner: Captioner | str = ENCODER) -> Describe:
    """Return a function that describes a query's garments.

    ``captioner`` defaults to the catalogue's own encoder, as does ``auto``.
    """
    if isinstance(captioner, str):
        captioner = make_captioner(ENCODER if captioner == "auto" else captioner, catalogue.config.captioner)
    bound = captioner.bind(CatalogueSource(catalogue, captioner.vocabulary))

    def describe(
        crops: Sequence[Image.Image], vectors: np.ndarray, class_names: Sequence[str | None]
    ) -> list[QueryDescription | None]:
        descriptions: list[QueryDescription | None] = [None] * len(crops)
        jobs = [
            Job(n, class_names[n], partial(crops.__getitem__, n), partial(vectors.__getitem__, n))
            for n in range(len(crops))
        ]
        for n, outcome in _outcomes(bound, jobs):
            if (description := outcome.description) is not None:
                descriptions[n] = QueryDescription(
                    description.caption_en, embedding_text(description, bound.vocabulary), attributes(description)
                )
        return descriptions

    return describe


def caption_photos(
    catalogue: Catalogue, captioner: Captioner, photos: Iterable[str]
) -> tuple[list[dict[str, Any]], int]:
    """Describe each garment of each photo, with the catalogue's detector and encoder.

    Returns a document per photo, and the number of photos and garments without a caption.
    """
    bound = captioner.bind(CatalogueSource(catalogue, captioner.vocabulary))
    documents: list[dict[str, Any]] = []
    failed = 0
    for name in photos:
        (photo,) = catalogue.finder.find([name], whole=True)
        if isinstance(photo, ImageError):
            documents.append({"photo": name, "error": str(photo), "reason": photo.reason, "garments": []})
            failed += 1
            continue
        garments = photo.garments or photo.whole().garments
        crops = catalogue.finder.cut(photo, garments)
        places = [Place(photo.photo.sha256, garment.class_name, garment.box) for garment in garments]
        outcomes = _described(catalogue, bound, places, crops)
        rows = [_row(garment, outcome) for garment, outcome in zip(garments, outcomes, strict=True)]
        failed += sum(outcome.description is None for outcome in outcomes)
        combined = outfit([row["attributes"] for row in rows], bound.vocabulary)
        described = {"garments": rows, "outfit": combined._asdict() if combined else None}
        documents.append({"photo": name, "error": None, "reason": None, **described})
    return documents, failed


def _described(
    catalogue: Catalogue, captioner: Captioner, places: Sequence[Place], crops: Sequence[Image.Image]
) -> list[Outcome]:
    """Return the outcomes of a photo's garments: recorded ones, and new ones, which it records."""
    vectors = cache(lambda: catalogue.embedder.embed_images(crops))
    with Caches(None, None if captioner.from_encoder else project_cache(catalogue.config)) as caches:
        outcomes = [caches.find(place, captioner.name) for place in places]
        jobs = [
            Job(n, places[n].class_name, partial(crops.__getitem__, n), lambda n=n: vectors()[n])  # type: ignore[misc]
            for n, outcome in enumerate(outcomes)
            if outcome is None
        ]
        recorder = Recorder(caches, captioner, lambda job: places[int(str(job.key))])
        try:
            for n, outcome in _outcomes(captioner, jobs, recorder):
                outcomes[n] = outcome
        finally:
            recorder.finish()
    return [outcome for outcome in outcomes if outcome is not None]


def _outcomes(captioner: Captioner, jobs: Sequence[Job], recorder: Recorder | None = None) -> list[tuple[int, Outcome]]:
    """Return the outcomes of jobs whose keys are their positions; record them as they arrive."""
    outcomes: list[tuple[int, Outcome]] = []
    if jobs:
        with closing(captioner.describe(jobs, most=len(jobs))) as groups:
            for group in groups:
                if recorder is not None:
                    recorder.take(group)
                outcomes += [(int(str(described.job.key)), described.outcome) for described in group]
    return outcomes


def _row(garment: Garment, outcome: Outcome) -> dict[str, Any]:
    description = outcome.description
    return {
        "index": garment.index,
        "class_name": garment.class_name,
        "box": [round(float(value), 2) for value in garment.box],
        "state": outcome.state,
        "captioner": outcome.captioner,
        "model": outcome.model,
        "caption_en": description.caption_en if description else None,
        "caption_ko": description.caption_ko if description else None,
        "attributes": attributes(description) if description else {},
        "error": outcome.error,
    }
