"""Captions for a catalogue: ask for what is missing, record every outcome, serve a new generation with the texts.

Outcomes go to ``captions.sqlite`` at once, so nothing that was asked (and paid) for is asked again, whatever happens to
the generation that was to hold it.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fashionrec.captioner.cache import CaptionCache
from fashionrec.captioner.local import LocalCaptioner
from fashionrec.captioner.schema import attributes, embedding_text
from fashionrec.captioner.vocabulary import load_vocabulary
from fashionrec.catalogue import Catalogue
from fashionrec.config import Config
from fashionrec.errors import ImageError
from fashionrec.files import dump_json, write_atomic
from fashionrec.images import crop_garment, read_photo
from fashionrec.runs import now
from fashionrec.store import generations
from fashionrec.store.index import make_index
from fashionrec.store.item_writer import copy_with_captions
from fashionrec.store.items import CaptionRow, ItemReader, StoredItem
from fashionrec.store.vectors import VECTORS, write_vectors

if TYPE_CHECKING:
    from fashionrec.captioner.outcome import Outcome
    from fashionrec.captioner.remote import OpenAICaptioner

CACHE = "captions.sqlite"
_BATCH = 64


def caption_catalogue(
    root: Path,
    config: Config,
    *,
    remote: OpenAICaptioner | None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Describe the garments of products that have no caption, by ``remote``, else by the local captioner.

    A caption made by the local captioner is replaced by a remote one, never the other way round. Returns counts: made,
    kept (there before), reused (from the cache), failed, states, usage, cost. Raises :class:`Busy`, and
    :class:`CaptionError` where no caption at all can be had (a wrong key, an unknown model).
    """
    kind = "local" if remote is None else "openai"
    report: dict[str, Any] = {"captioner": kind, "made": 0, "kept": 0, "reused": 0, "failed": 0}
    states: Counter[str] = Counter()
    usage = Counter({"input_tokens": 0, "output_tokens": 0})
    fresh: dict[int, Outcome] = {}
    generations.read_current(root)  # before the lock, which would make the folder
    with generations.writer_lock(root), Catalogue.open(root, config) as catalogue:
        cache = CaptionCache(root / CACHE)
        # what an encoder says of a garment is its own; what an API said holds whatever model said it
        model = catalogue.embedder.fingerprint if remote is None else None
        try:
            todo: list[StoredItem] = []
            for stored in _one_per_garment(catalogue):
                before = catalogue.items.caption(stored.photo, _position(catalogue, stored))
                if before is not None and (before.captioner == kind or kind == "local"):
                    report["kept"] += 1
                    continue
                known = cache.find(stored.photo, stored.item.class_name, stored.item.box, kind, model=model)
                if known is not None:
                    report["reused"] += 1
                    states[known.state] += 1
                    if known.description is not None:
                        fresh[stored.garment_no] = known
                    continue
                todo.append(stored)
            todo = todo[:limit]
            report["asked"] = len(todo)
            done = 0
            for part in _describe(catalogue, todo, remote, config):
                cache.put_many([(s.photo, s.item.class_name, s.item.box, outcome) for s, outcome in part])
                done += len(part)
                if progress:
                    progress(done, len(todo))
                for stored, outcome in part:
                    states[outcome.state] += 1
                    usage.update(outcome.usage)
                    if outcome.description is None:
                        report["failed"] += 1
                    else:
                        report["made"] += 1
                        fresh[stored.garment_no] = outcome
        finally:
            cache.close()
            if fresh:
                _write_generation(catalogue, fresh)
    report |= {"states": dict(states), "usage": dict(usage), "cost_usd": _cost(config, usage) if remote else 0.0}
    return report


def local_captioner(catalogue: Catalogue, config: Config) -> LocalCaptioner:
    """The captioner of a catalogue's own encoder, telling only what the products' own data tells of (all, where it is mute).

    An encoder guesses values that it never saw; the columns that are attributes, and the values in them, say what it saw.
    """
    words: dict[str, set[str]] = {}
    fields = set(load_vocabulary().fields_of(None))
    for stored in catalogue.items.everything():
        for name, value in stored.item.metadata.items():
            if name in fields and isinstance(value, str):
                words.setdefault(name, set()).add(value)
    return LocalCaptioner(
        catalogue.embedder.embed_texts,
        unknown_below=config.captioner.unknown_below,
        logit_scale=catalogue.embedder.logit_scale,
        vocabulary=words or None,
        model=catalogue.embedder.fingerprint,
    )


def _one_per_garment(catalogue: Catalogue) -> Iterator[StoredItem]:
    seen = set()
    for stored in catalogue.items.everything():
        if stored.garment_no not in seen:
            seen.add(stored.garment_no)
            yield stored


def _position(catalogue: Catalogue, stored: StoredItem) -> int:
    photo = catalogue.items.photo(stored.photo)
    assert photo is not None
    return next(g.position for g in photo.garments if (g.segment, g.row) == stored.image_at)


def _describe(
    catalogue: Catalogue, todo: Sequence[StoredItem], remote: OpenAICaptioner | None, config: Config
) -> Iterator[list[tuple[StoredItem, Outcome]]]:
    """Outcomes in groups to record at once: paid ones each as it comes, local ones by the batch."""
    if remote is not None:
        for start in range(0, len(todo), _BATCH):
            part = todo[start : start + _BATCH]
            crops = [_crop(catalogue, stored, config) for stored in part]
            for n, outcome in remote.describe(crops, [stored.item.class_name for stored in part]):
                yield [(part[n], outcome)]
        return
    captioner = local_captioner(catalogue, config)
    for start in range(0, len(todo), _BATCH):
        part = todo[start : start + _BATCH]
        vectors = catalogue.images.fetch([catalogue.images.position(*stored.image_at) for stored in part])
        outcomes = captioner.describe_vectors(vectors, [stored.item.class_name for stored in part])
        yield list(zip(part, outcomes, strict=True))


def _crop(catalogue: Catalogue, stored: StoredItem, config: Config) -> Image.Image:
    """The garment at full size where its photo is still at hand and unchanged, else its thumbnail."""
    try:
        photo = read_photo(Path(stored.base) / stored.item.image, config.images)
        if photo.sha256 == stored.photo:
            return crop_garment(photo.pixels, stored.item.box, catalogue.crop)
    except ImageError:
        pass
    with Image.open(io.BytesIO(catalogue.thumbnail(stored))) as thumbnail:
        return thumbnail.convert("RGB")


def _write_generation(catalogue: Catalogue, fresh: dict[int, Outcome]) -> None:
    """The generation served now, with new captions and a segment of their texts' vectors."""
    old, root = catalogue.generation, catalogue.root
    name, folder = generations.begin(root)
    segment = f"{name}-caption"
    (root / "segments" / segment).mkdir(parents=True)
    rows, texts = {}, []
    for row, (garment_no, outcome) in enumerate(sorted(fresh.items())):
        described = outcome.description
        assert described is not None
        texts.append(embedding_text(described))
        rows[garment_no] = CaptionRow(
            caption_en=described.caption_en,
            caption_ko=described.caption_ko,
            attributes=attributes(described),
            embedding_text=texts[-1],
            captioner=outcome.captioner,
            segment=segment,
            row=row,
        )
    vectors = np.ascontiguousarray(catalogue.embedder.embed_texts(texts), dtype=np.float32)
    written = write_vectors(root / "segments" / segment / VECTORS, vectors, dtype=catalogue.config.index.vectors)
    used = copy_with_captions(old.items_path, folder / generations.ITEMS, rows)
    segments = {key: value for key, value in old.segments.items() if value["kind"] == "image" or key in used}
    entry: dict[str, Any] = {"kind": "caption", "count": len(texts), "dim": int(vectors.shape[1])}
    if written.float16_recall_at_10 is not None:
        entry["float16_recall_at_10"] = written.float16_recall_at_10
    segments[segment] = {**entry, "embedder": catalogue.embedder.fingerprint}
    write_atomic(folder / generations.REPORT, dump_json({"generation": name, "captions": len(rows)}))
    reader = ItemReader(folder / generations.ITEMS)
    counts = reader.counts()
    reader.close()
    index = make_index(
        root, name, segments, settings=catalogue.config.index, previous=old.manifest.get("index")
    )  # texts to measure it with may be new
    changed = {"created": now(), "made_by": "caption", "segments": segments, "counts": counts, "index": index}
    manifest = {**old.manifest, **changed}
    generations.commit(root, name, manifest)


def _cost(config: Config, usage: Counter[str]) -> float | None:
    """US$ by the price table; None where the model has no price."""
    model = config.captioner.models.get(config.captioner.model)
    if model is None or model.input_price is None or model.output_price is None:
        return None
    return (usage["input_tokens"] * model.input_price + usage["output_tokens"] * model.output_price) / 1e6
