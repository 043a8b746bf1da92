"""Captions of photos: of those given by themselves, and of those that a customer asks with.

What a customer asks with is recorded nowhere.
"""

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
from fashionrec.captioner.schema import Said, attributes, embedding_text
from fashionrec.config.captioners import ENCODER
from fashionrec.errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from fashionrec.captioner.base import Captioner
    from fashionrec.captioner.outcome import Outcome
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.types import Garment

#: Describes garments: crops, their image vectors (float32 [n, d]) and classes in; what is said of each, or None, out.
Describe = Callable[[Sequence["Image.Image"], "np.ndarray", Sequence["str | None"]], Sequence["Said | None"]]


def describer(catalogue: Catalogue, captioner: Captioner | str = ENCODER) -> Describe:
    """A function that describes a query's garments, by default by the catalogue's own encoder, as ``auto`` does too."""
    if isinstance(captioner, str):
        captioner = make_captioner(ENCODER if captioner == "auto" else captioner, catalogue.config.captioner)
    bound = captioner.bind(CatalogueSource(catalogue, captioner.vocabulary))

    def describe(
        crops: Sequence[Image.Image], vectors: np.ndarray, class_names: Sequence[str | None]
    ) -> list[Said | None]:
        said: list[Said | None] = [None] * len(crops)
        jobs = [
            Job(n, class_names[n], partial(crops.__getitem__, n), partial(vectors.__getitem__, n))
            for n in range(len(crops))
        ]
        for n, outcome in _outcomes(bound, jobs):
            if (found := outcome.description) is not None:
                said[n] = Said(found.caption_en, embedding_text(found, bound.vocabulary), attributes(found))
        return said

    return describe


def caption_photos(
    catalogue: Catalogue, captioner: Captioner, photos: Iterable[str]
) -> tuple[list[dict[str, Any]], int]:
    """Describe each garment of each photo; detector and encoder are the catalogue's.

    Returns a document for each photo, and how many photos or garments have no caption.
    """
    bound = captioner.bind(CatalogueSource(catalogue, captioner.vocabulary))
    documents: list[dict[str, Any]] = []
    failed = 0
    for name in photos:
        (found,) = catalogue.finder.find([name], whole=True)
        if isinstance(found, ImageError):
            documents.append({"photo": name, "error": str(found), "reason": found.reason, "garments": []})
            failed += 1
            continue
        garments = found.garments or found.whole().garments
        crops = catalogue.finder.cut(found, garments)
        places = [Place(found.photo.sha256, garment.class_name, garment.box) for garment in garments]
        outcomes = _described(catalogue, bound, places, crops)
        rows = [_row(garment, outcome) for garment, outcome in zip(garments, outcomes, strict=True)]
        failed += sum(outcome.description is None for outcome in outcomes)
        together = outfit([row["attributes"] for row in rows], bound.vocabulary)
        whole = {"garments": rows, "outfit": together._asdict() if together else None}
        documents.append({"photo": name, "error": None, "reason": None, **whole})
    return documents, failed


def _described(
    catalogue: Catalogue, captioner: Captioner, places: Sequence[Place], crops: Sequence[Image.Image]
) -> list[Outcome]:
    """The outcomes of a photo's garments: known ones, and the others, which are recorded."""
    vectors = cache(lambda: catalogue.embedder.embed_images(crops))
    with Caches(None, None if captioner.from_encoder else project_cache(catalogue.config)) as caches:
        found = [caches.find(place, captioner.name) for place in places]
        jobs = [
            Job(n, places[n].class_name, partial(crops.__getitem__, n), lambda n=n: vectors()[n])  # type: ignore[misc]
            for n, known in enumerate(found)
            if known is None
        ]
        recorder = Recorder(caches, captioner, lambda job: places[int(str(job.key))])
        try:
            for n, outcome in _outcomes(captioner, jobs, recorder):
                found[n] = outcome
        finally:
            recorder.finish()
    return [outcome for outcome in found if outcome is not None]


def _outcomes(captioner: Captioner, jobs: Sequence[Job], recorder: Recorder | None = None) -> list[tuple[int, Outcome]]:
    """The outcomes of jobs whose keys are their positions, recorded as they come."""
    outcomes: list[tuple[int, Outcome]] = []
    if jobs:
        with closing(captioner.describe(jobs, most=len(jobs))) as groups:
            for group in groups:
                if recorder is not None:
                    recorder.take(group)
                outcomes += [(int(str(one.job.key)), one.outcome) for one in group]
    return outcomes


def _row(garment: Garment, outcome: Outcome) -> dict[str, Any]:
    described = outcome.description
    return {
        "index": garment.index,
        "class_name": garment.class_name,
        "box": [round(float(value), 2) for value in garment.box],
        "state": outcome.state,
        "captioner": outcome.captioner,
        "model": outcome.model,
        "caption_en": described.caption_en if described else None,
        "caption_ko": described.caption_ko if described else None,
        "attributes": attributes(described) if described else {},
        "error": outcome.error,
    }
