"""A new generation of a catalogue with all captions recorded so far."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fashionrec.captioner.cache import Place
from fashionrec.captioner.job.caches import GROUP
from fashionrec.captioner.job.garments import Recaption
from fashionrec.captioner.schema import attributes, embedding_text, lexical_text, shortened
from fashionrec.captioner.vocabulary import vocabulary_of
from fashionrec.catalogue.catalogue import Catalogue
from fashionrec.common.batches import batched
from fashionrec.errors import Busy
from fashionrec.store import generations
from fashionrec.store.content import CaptionRow
from fashionrec.store.manifest import SegmentEntry
from fashionrec.store.writer import GenerationWriter

if TYPE_CHECKING:
    from fashionrec.captioner.base import Captioner
    from fashionrec.captioner.job.caches import Caches, Entry
    from fashionrec.captioner.schema import Description
    from fashionrec.config import Config

_WAIT = 60.0  # seconds to wait for another writer; after that the captions are left to the next run


def publish(
    root: Path,
    config: Config,
    caches: Caches,
    captioner: Captioner,
    *,
    recaptions: Sequence[Recaption] = (),
) -> dict[str, int]:
    """Publish a generation with every recorded caption by ``captioner`` that the current one lacks.

    A caption that the current generation has is replaced if one of ``recaptions`` covers its
    garment.

    Returns the number of captions (``published``), and how many texts were cut for the text tower,
    by how many tokens (``texts_cut``, ``tokens_cut``). Raises :class:`Busy` if another process
    writes.
    """
    with _writer(root), Catalogue.open(root, config) as catalogue:
        selections = [(recaption.numbers(catalogue), recaption.since) for recaption in recaptions]

        def find() -> Iterator[tuple[int, Description, Entry]]:
            for garment in catalogue.items.garments():
                since = None
                if captioner.keeps(garment.captioner):
                    moments = [
                        moment or ""
                        for numbers, moment in selections
                        if numbers is None or garment.garment_no in numbers
                    ]
                    if not moments:
                        continue
                    since = min(moments)
                place = Place(garment.photo, garment.class_name, garment.box)
                outcome = caches.find(place, captioner.name, model=captioner.only_model, since=since)
                if outcome is not None and outcome.description is not None:
                    yield garment.garment_no, outcome.description, (*place, outcome)

        described: dict[int, tuple[Description, str]] = {}
        for group in batched(find(), GROUP):
            described |= {number: (description, entry[3].captioner) for number, description, entry in group}
            caches.complete(entry for _, _, entry in group)
        cut = _write_generation(catalogue, described) if described else {"texts_cut": 0, "tokens_cut": 0}
    return {"published": len(described), **cut}


@contextmanager
def _writer(root: Path) -> Iterator[None]:
    """Hold the catalogue's writer lock, waiting for a running build to end."""
    until = time.monotonic() + _WAIT
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(generations.writer_lock(root))
                break
            except Busy as busy:
                if time.monotonic() > until:
                    hint = "the captions are recorded: run `fashionrec caption` again later to publish them"
                    raise Busy(str(busy), hint=hint) from None
            time.sleep(0.5)
        yield


def _write_generation(catalogue: Catalogue, described: dict[int, tuple[Description, str]]) -> dict[str, int]:
    """Write the current generation plus captions and a segment of their text vectors.

    Returns the counts of cut texts and tokens.
    """
    words = vocabulary_of(catalogue.config.captioner)
    numbers = sorted(described)
    full_texts = [embedding_text(described[number][0], words, most=None) for number in numbers]
    texts, cut = shortened(full_texts, catalogue.embedder.count_cut)
    vectors = np.ascontiguousarray(catalogue.embedder.embed_texts(texts), dtype=np.float32)
    entry = SegmentEntry("caption", len(texts), int(vectors.shape[1]), catalogue.embedder.fingerprint)
    cut_report = {"texts_cut": sum(tokens > 0 for tokens in cut), "tokens_cut": sum(cut)}
    with GenerationWriter(catalogue.root, catalogue.config.index, catalogue.generation) as writer:
        segment = writer.write_segment("caption", vectors, entry)
        for row, (number, text) in enumerate(zip(numbers, texts, strict=True)):
            caption = CaptionRow(
                caption_en=described[number][0].caption_en,
                caption_ko=described[number][0].caption_ko,
                attributes=attributes(described[number][0]),
                embedding_text=text,
                captioner=described[number][1],
                segment=segment,
                row=row,
                words=lexical_text(described[number][0], words),
            )
            writer.items.add_caption(number, caption)
        writer.items.reword(numbers)
        writer.commit("caption", {"generation": writer.name, "captions": len(texts), **cut_report})
    return cut_report
