"""A photo as the question: every garment in it, or one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.errors import UsageError
from fashionrec.search.answer import Answer
from fashionrec.search.ranking import rank
from fashionrec.search.words import Words, moved, tell
from fashionrec.types import CLASS_NAMES, Box, Garment, resolve_class

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.catalogue import Catalogue
    from fashionrec.config import QueryConfig

#: Describes crops: pictures, their image vectors and classes in, one text (or None) each out: (shown, to be embedded).
Describe = Callable[[Sequence["Image.Image"], np.ndarray, Sequence["str | None"]], Sequence["tuple[str, str] | None"]]


def search_photo(
    catalogue: Catalogue,
    source: str | Path | bytes,
    settings: QueryConfig,
    describe: Describe | None = None,
    *,
    detect: bool = True,
    box: Box | None = None,
    words: Sequence[Words] = (),
) -> Answer:
    """Find the garments of a photo, embed each, and search for each.

    Where nothing is detected (or ``detect`` is false) the whole photo is the one garment; ``box``, in pixels of the upright
    photo, is the one garment where it is given. ``words`` move what is asked for ("in red", "floral:-0.4"). ``describe``
    captions the garments, and that text is then searched and fused too. Raises :class:`ImageError` for a photo that cannot be read,
    :class:`UsageError` for a garment that is not there.
    """
    answer = Answer(photo=None if isinstance(source, bytes) else str(source), width=None, height=None)
    with answer.timed("load"):
        photo = catalogue.read_photo(source, whole=describe is not None)  # what is described is looked at closely
        answer.width, answer.height = photo.width, photo.height
        detector = catalogue.detector if detect and box is None else None
        embedder = catalogue.embedder
        catalogue.images  # noqa: B018  (opened here, so that its time is counted as loading)
    with answer.timed("detect"):
        garments = detector.detect([photo.pixels])[0] if detector is not None else []
        garments = [replace(garment, box=photo.in_full(garment.box)) for garment in garments]
    if box is not None:
        garments = [Garment(0, None, None, _inside(box, photo.width, photo.height))]
    if not garments:
        if detector is not None:
            answer.notes.append("no garment was detected: the whole photo is searched for")
        garments = [Garment(0, None, None, Box(0, 0, photo.width, photo.height), whole_photo=True)]
    answer.seen = garments
    chosen = choose_garments(garments, settings.garment)
    with answer.timed("embed"):
        if not all(photo.shows(garment.box, catalogue.crop, catalogue.crop_side) for garment in garments):
            photo = catalogue.read_photo(source)
        crops = [photo.crop(garment.box, catalogue.crop) for garment in chosen]
        vectors = embedder.embed_images(crops)
        if words:
            asked_with = [moved(vector, words, embedder) for vector in vectors]
            tell(answer, words)
        else:
            asked_with = list(vectors)
    texts: list[np.ndarray | None] = [None] * len(chosen)
    if describe is not None:
        with answer.timed("caption"):
            described = describe(crops, vectors, [garment.class_name for garment in chosen])
            for n, words in enumerate(described):
                if words is not None:
                    chosen[n] = replace(chosen[n], caption=words[0])
                    texts[n] = embedder.embed_texts([words[1]])[0]
            if any(words is None for words in described):
                answer.notes.append("some garments could not be described: they are searched for by picture alone")
    with answer.timed("search"):
        for garment, vector, text in zip(chosen, asked_with, texts, strict=True):
            answer.garments.append(rank(catalogue, garment, vector, settings, text_query=text))
    return answer


def _inside(box: Box, width: int, height: int) -> Box:
    """A box by hand, cut to the photo. Raises :class:`UsageError` where it is empty, or not in the photo."""
    inside = box.clip(width, height)
    if box.width <= 0 or box.height <= 0 or inside.area <= 0:
        raise UsageError(
            f"the box {','.join(f'{value:g}' for value in box)} holds nothing of the photo",
            hint=f"--box x1,y1,x2,y2 in pixels; the photo is {width} x {height}",
        )
    return inside


def choose_garments(garments: Sequence[Garment], which: str) -> list[Garment]:
    """The garments meant by ``all``, a class name (its most confident one), or a number. Raises :class:`UsageError`."""
    if which == "all":
        return list(garments)
    seen = ", ".join(f"{g.index}: {g.class_name or 'whole photo'}" for g in garments)
    if which.isdigit():
        for garment in garments:
            if garment.index == int(which):
                return [garment]
        raise UsageError(f"there is no garment {which} in the photo", hint=f"it has {seen}")
    wanted = resolve_class(which)
    if wanted is None:
        raise UsageError(f"no garment is called {which!r}", hint=f"one of {', '.join(CLASS_NAMES)}, a number, or all")
    for garment in sorted(garments, key=lambda g: -(g.confidence or 0)):
        if garment.class_name == wanted:
            return [garment]
    raise UsageError(f"there is no {wanted} in the photo", hint=f"it has {seen}")
