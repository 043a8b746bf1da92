"""Captions of somebody else's catalogue or project, taken into this project's file because the user says so.

Only what was asked of a server is taken, and each answer is read again as if the server had just given it: the same schema,
lengths, languages and values. What does not pass is counted by its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.cache import CaptionCache, Place, is_place
from fashionrec.captioner.job.caches import CACHE, SPOOL, batched, project_cache
from fashionrec.captioner.openai.wire import read_answer
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.schema import InvalidAnswer, parse
from fashionrec.captioner.spool import read_signed
from fashionrec.captioner.vocabulary import vocabulary_of
from fashionrec.common.files import locked
from fashionrec.common.folder import Folder
from fashionrec.errors import CatalogueError
from fashionrec.types import Box

if TYPE_CHECKING:
    from fashionrec.captioner.vocabulary import Vocabulary
    from fashionrec.config import Config

_LONGEST_NAME = 200  # characters of a model's name


def import_captions(source: Path, config: Config) -> dict[str, Any]:
    """Record the captions of ``source`` in the project's file: a catalogue, a project's data folder, or a captions.sqlite.

    Returns ``files`` (those that were read), ``imported``, ``known`` (garments that have a caption here), ``other``
    (outcomes that are no captions) and ``refused``, by reason. Answers that a killed run had left in a catalogue are in the
    project's file then, and are removed from it. Raises :class:`CatalogueError` where there is nothing to read.
    """
    folder = Folder(source if source.is_dir() else source.parent, "captions", CatalogueError)
    names = (CACHE, SPOOL) if source.is_dir() else (source.name,)
    files = [name for name in names if folder.kind(name) is not None]
    project = project_cache(config).resolve()
    if not files or (folder.root / files[0]).resolve() == project:
        raise CatalogueError(
            f"{source} has no captions to import", hint=f"give a catalogue, or a file {CACHE}, of another project"
        )
    project.parent.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    words = vocabulary_of(config.captioner)
    with CaptionCache(project, busy=True) as cache:
        for name in files:
            with ExitStack() as stack:
                if name == SPOOL:
                    with suppress(PermissionError):  # then it stays where it is
                        stack.enter_context(locked(folder.root / ".captions.lock", f"is captioning {folder.root}"))
                read = _spool if name == SPOOL else _cache
                for group in batched(read(folder.path(name), words)):
                    _record(cache, group, counts, refused)
                if name == SPOOL:
                    folder.remove(name, ignore_errors=True)
    return {
        "files": [str(folder.root / name) for name in files],
        "imported": counts["imported"],
        "known": counts["known"],
        "other": counts["other"],
        "refused": dict(sorted(refused.items())),
    }


def _record(
    cache: CaptionCache,
    group: list[tuple[Place, Outcome] | str | None],
    counts: Counter[str],
    refused: Counter[str],
) -> None:
    entries = []
    for found in group:
        if found is None:
            counts["other"] += 1
        elif isinstance(found, str):
            refused[found] += 1
        elif (known := cache.find(*found[0], "openai")) is not None and known.state == "done":
            counts["known"] += 1
        else:
            counts["imported"] += 1
            entries.append((*found[0], found[1]))
    cache.put_many(entries)


def _cache(path: Path, words: Vocabulary) -> Iterator[tuple[Place, Outcome] | str | None]:
    """What the rows of a file are: a caption and its garment, the reason why it is refused, None for no caption."""
    with CaptionCache(path, write=False) as cache:
        for row in cache.rows("openai"):
            if row["state"] != "done":
                yield None
                continue
            box = (row["x1"], row["y1"], row["x2"], row["y2"])
            if not is_place(row["photo_sha256"], row["class_name"] or None, box):
                yield "garment"
                continue
            place = Place(row["photo_sha256"], row["class_name"] or None, Box(*map(float, box)))
            usage = {"prompt_tokens": row["input_tokens"], "completion_tokens": row["output_tokens"]}
            message = {"content": row["raw"]}
            body = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
            yield _checked(place, body, row["model"], words)


def _spool(path: Path, words: Vocabulary) -> Iterator[tuple[Place, Outcome] | str | None]:
    for arrived, _ in read_signed(path):
        yield "line" if arrived is None else _checked(arrived.place, arrived.body, arrived.model, words)


def _checked(place: Place, body: Any, model: object, words: Vocabulary) -> tuple[Place, Outcome] | str:
    """A caption as the server's answer makes it; else why it is refused."""
    if not isinstance(model, str) or not model.isprintable() or not 0 < len(model) <= _LONGEST_NAME:
        return "model"
    outcome = read_answer(body, model=model, class_name=place.class_name, vocabulary=words)
    if outcome.description is not None:
        return place, outcome
    try:
        if outcome.state == "invalid":
            parse(outcome.raw or "", place.class_name, words)
    except InvalidAnswer as error:
        return error.code
    return outcome.state
