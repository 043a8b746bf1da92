"""Search by photo: every garment in it, or one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.errors import ImageError, UsageError
from fashionrec.garments import PhotoGarments
from fashionrec.search import BATCH
from fashionrec.search.embedded import EmbeddedQuery
from fashionrec.search.query import resolve_garment
from fashionrec.search.ranking import rank_all
from fashionrec.search.result import QueryResult
from fashionrec.search.words import Words, add_translation_notes, shift_vector
from fashionrec.types import Box, Garment

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.captioner.job.photos import Describe
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.config import QueryConfig
    from fashionrec.embedder.embed import Embedder
    from fashionrec.garments import GarmentFinder
    from fashionrec.photos.images import Photo, PhotoSource


def search_photos(
    catalogue: Catalogue,
    sources: Iterable[PhotoSource],
    settings: QueryConfig,
    describe: Describe | None = None,
    *,
    box: Box | None = None,
    words: Sequence[Words] = (),
    once: bool = False,
) -> Iterator[QueryResult | UsageError]:
    """Detect, embed and search the garments of each photo; several photos are processed together.

    Without a detection, the whole photo is the garment; ``box``, in pixels of the upright photo,
    replaces detection. ``words`` adjust the query ("in red", "floral:-0.4"). ``describe`` captions
    the garments, which are then searched by caption too. Failures (an unreadable photo, a missing
    garment) are returned as errors. ``once`` says that no other photos follow, so that the
    detector's memory is freed before the encoder needs its own.
    """
    source = iter(sources)
    catalogue.begin("image", detect=box is None)
    while part := list(islice(source, BATCH)):
        yield from _answers(catalogue, part, settings, describe, box, words, once)


@dataclass
class _Asked:
    """A photo in progress."""

    answer: QueryResult
    photo: Photo
    chosen: list[Garment]
    crops: list[Image.Image]


def _answers(
    catalogue: Catalogue,
    sources: Sequence[PhotoSource],
    settings: QueryConfig,
    describe: Describe | None,
    box: Box | None,
    words: Sequence[Words],
    once: bool,
) -> Iterator[QueryResult | UsageError]:
    outcomes: list[_Asked | UsageError] = []
    for source in sources:
        answer = QueryResult(
            photo=str(source) if isinstance(source, (str, os.PathLike)) else None,
            width=None,
            height=None,
            source=source,
        )
        try:
            with answer.timed("load"):
                # captioning needs full resolution
                photo = catalogue.finder.read(source, whole=describe is not None)
        except ImageError as error:
            outcomes.append(error)
            continue
        answer.width, answer.height = photo.width, photo.height
        outcomes.append(_Asked(answer, photo, [], []))
    asked = [one for one in outcomes if isinstance(one, _Asked)]
    with _shared(asked, "load"):
        finder, embedder = catalogue.finder, catalogue.embedder
    looked = box is None and finder.detector is not None
    with _shared(asked, "detect"):
        found = finder.detect([one.photo for one in asked]) if looked else [[] for _ in asked]
    if once:
        catalogue.unload_detector()
    for one, garments in zip(asked, found, strict=True):
        try:
            _choose(one, finder, garments, settings, box, looked)
        except UsageError as error:
            outcomes[outcomes.index(one)] = error
    asked = [one for one in outcomes if isinstance(one, _Asked)]
    with _shared(asked, "embed"):
        for one in asked:
            assert one.answer.source is not None
            one.crops = finder.cut(PhotoGarments(one.answer.source, one.photo, one.answer.seen), one.chosen)
        catalogue.begin_vectors()
        vectors = embedder.embed_images([crop for one in asked for crop in one.crops])
        asked_with = (
            np.stack([shift_vector(vector, words, embedder) for vector in vectors])
            if words and len(vectors)
            else vectors
        )
    done = 0
    for outcome in outcomes:
        if isinstance(outcome, UsageError):
            yield outcome
            continue
        rows = slice(done, done + len(outcome.crops))
        done = rows.stop
        add_translation_notes(outcome.answer, words)
        texts = _described(outcome, vectors[rows], describe, embedder) if describe else [None] * len(outcome.chosen)
        queries = map(EmbeddedQuery, outcome.chosen, asked_with[rows], texts)
        rank_all(catalogue, queries, settings, outcome.answer)
        yield outcome.answer


def _choose(
    one: _Asked, finder: GarmentFinder, found: Sequence[Garment], settings: QueryConfig, box: Box | None, looked: bool
) -> None:
    """Return the detected garments, and those selected by the query."""
    photo, answer = one.photo, one.answer
    if box is not None:
        answer.seen = [Garment(0, None, None, _inside(box, photo.width, photo.height))]
    else:
        answer.seen = finder.or_whole(photo, found)
    if looked and not found:
        answer.notes.append("no garment detected: searching with the whole photo")
    one.chosen = choose_garments(answer.seen, settings.garment)


def _described(one: _Asked, vectors: np.ndarray, describe: Describe, embedder: Embedder) -> list[np.ndarray | None]:
    """Return the caption vectors of the garments; None for those without a caption."""
    from fashionrec.captioner.outfit import outfit

    texts: list[np.ndarray | None] = [None] * len(one.chosen)
    with one.answer.timed("caption"):
        described = describe(one.crops, vectors, [garment.class_name for garment in one.chosen])
        for n, said in enumerate(described):
            if said is not None:
                one.chosen[n] = replace(one.chosen[n], caption=said.shown)
                texts[n] = embedder.embed_texts([said.text])[0]
        worn = outfit([said.attributes for said in described if said is not None])
        one.answer.outfit = worn._asdict() if worn else None
        if any(said is None for said in described):
            one.answer.notes.append("some garments could not be captioned: they are searched by image only")
    return texts


@contextmanager
def _shared(asked: Sequence[_Asked], stage: str) -> Iterator[None]:
    """Divide the time of shared work equally among several photos."""
    start = time.perf_counter()
    yield
    for one in asked:
        one.answer.timings_ms[stage] += (time.perf_counter() - start) * 1000 / len(asked)


def _inside(box: Box, width: int, height: int) -> Box:
    """Clip a box to the photo. Raises :class:`UsageError` if it is empty or outside."""
    inside = box.clip(width, height)
    if box.width <= 0 or box.height <= 0 or inside.area <= 0:
        raise UsageError(
            f"the box {','.join(f'{value:g}' for value in box)} is empty or outside the photo",
            hint=f"--box X1,Y1,X2,Y2 in pixels; the photo is {width} x {height}",
        )
    return inside


def choose_garments(garments: Sequence[Garment], which: str) -> list[Garment]:
    """Return the garments selected by ``all``, a class name (its most confident one), or a number.
    Raises :class:`UsageError`.
    """
    wanted = resolve_garment(which)
    if wanted is None:
        return list(garments)
    for garment in sorted(garments, key=lambda g: -(g.confidence or 0)):
        if wanted in (garment.index, garment.class_name):
            return [garment]
    seen = ", ".join(f"{g.index}: {g.name}" for g in garments)
    what = wanted if isinstance(wanted, str) else f"garment {which}"
    raise UsageError(f"no {what} found in the photo", hint=f"it has {seen}")
