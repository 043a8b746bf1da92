"""Captions of somebody else's catalogue or project, taken into this project's file because the user says so.

Only what was asked of a server is taken, and each answer is read again as if the server had just given it: the same schema,
lengths, languages and values. What does not pass is counted by its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.cache import CaptionCache, Place, is_place
from fashionrec.captioner.job.caches import CACHE, GROUP, project_cache
from fashionrec.captioner.providers import make_captioner, shared_captioners
from fashionrec.captioner.schema import InvalidAnswer, parse
from fashionrec.captioner.spool import Arrived, read_signed
from fashionrec.common.batches import batched
from fashionrec.common.files import locked
from fashionrec.common.folder import Folder
from fashionrec.errors import CatalogueError
from fashionrec.types import Box

if TYPE_CHECKING:
    from fashionrec.captioner.base import Captioner
    from fashionrec.captioner.outcome import Outcome
    from fashionrec.config import Config

_LONGEST_NAME = 200  # characters of a model's name
_MOST_TOKENS = 1 << 40  # of one answer; a larger count is nonsense

#: A caption and its garment, the reason why it is refused, None for what is no caption.
Found = tuple[Place, "Outcome"] | str | None


def import_captions(source: Path, config: Config) -> dict[str, Any]:
    """Record the captions of ``source`` in the project's file: a catalogue, a project's data folder, or a captions.sqlite.

    Returns ``files`` (those that were read), ``imported``, ``known`` (garments that have a caption here), ``other``
    (outcomes that are no captions) and ``refused``, by reason. Answers that a killed run had left in a catalogue are in the
    project's file then, and are removed from it. Raises :class:`CatalogueError` where there is nothing to read.
    """
    folder = Folder(source if source.is_dir() else source.parent, "captions", CatalogueError)
    captioners = [make_captioner(name, config.captioner) for name in shared_captioners()]
    spools = {one.spool_file: one for one in captioners if one.spool_file is not None}
    names = (CACHE, *spools) if source.is_dir() else (source.name,)
    files = [name for name in names if folder.kind(name) is not None]
    project = project_cache(config).resolve()
    if not files or (folder.root / files[0]).resolve() == project:
        raise CatalogueError(
            f"{source} has no captions to import", hint=f"give a catalogue, or a file {CACHE}, of another project"
        )
    project.parent.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    with CaptionCache(project, busy=True) as cache:
        for name in files:
            with ExitStack() as stack:
                if name in spools:
                    with suppress(PermissionError):  # then it stays where it is
                        stack.enter_context(locked(folder.root / ".captions.lock", f"is captioning {folder.root}"))
                path = folder.path(name)
                found = _spool(path, spools[name]) if name in spools else _cache(path, captioners)
                for group in batched(found, GROUP):
                    _record(cache, group, counts, refused)
                if name in spools:
                    folder.remove(name, ignore_errors=True)
    return {
        "files": [str(folder.root / name) for name in files],
        "imported": counts["imported"],
        "known": counts["known"],
        "other": counts["other"],
        "refused": dict(sorted(refused.items())),
    }


def _record(cache: CaptionCache, group: list[Found], counts: Counter[str], refused: Counter[str]) -> None:
    entries = []
    for found in group:
        if found is None:
            counts["other"] += 1
        elif isinstance(found, str):
            refused[found] += 1
        elif (known := cache.find(*found[0], found[1].captioner)) is not None and known.state == "done":
            counts["known"] += 1
        else:
            counts["imported"] += 1
            entries.append((*found[0], found[1]))
    cache.put_many(entries)


def _cache(path: Path, captioners: Sequence[Captioner]) -> Iterator[Found]:
    with CaptionCache(path, write=False) as cache:
        for captioner in captioners:
            for row in cache.rows(captioner.name):
                yield _row(row, captioner)


def _row(row: dict[str, Any], captioner: Captioner) -> Found:
    if row["state"] != "done":
        return None
    box = (row["x1"], row["y1"], row["x2"], row["y2"])
    if not is_place(row["photo_sha256"], row["class_name"] or None, box):
        return "garment"
    place = Place(row["photo_sha256"], row["class_name"] or None, Box(*map(float, box)))
    text = row["raw"] if isinstance(row["raw"], str) else ""
    usage = {key: count if _is_count(count := row[key]) else 0 for key in ("input_tokens", "output_tokens")}
    read = captioner.read_text
    return _checked(
        place, row["model"], captioner, lambda model: read(text, place.class_name, model=model, usage=usage)
    )


def _spool(path: Path, captioner: Captioner) -> Iterator[Found]:
    for arrived, _ in read_signed(path):
        yield "line" if arrived is None else _arrived(arrived, captioner)


def _arrived(arrived: Arrived, captioner: Captioner) -> Found:
    read, place = captioner.read_answer, arrived.place
    return _checked(place, arrived.model, captioner, lambda model: read(arrived.body, place.class_name, model=model))


def _checked(place: Place, model: object, captioner: Captioner, read: Callable[[str], Outcome]) -> Found:
    """A caption as the captioner reads it from the answer; else why it is refused."""
    if not isinstance(model, str) or not model.isprintable() or not 0 < len(model) <= _LONGEST_NAME:
        return "model"
    outcome = read(model)
    if outcome.description is not None:
        return place, outcome
    try:
        if outcome.state == "invalid":
            parse(outcome.raw or "", place.class_name, captioner.vocabulary)
    except InvalidAnswer as error:
        return error.code
    return outcome.state


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST_TOKENS
