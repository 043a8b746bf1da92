"""Import of captions from an untrusted catalogue or project, at the user's request.

Only captions that a server made are imported, and each answer is validated as if the server had
just sent it: schema, lengths, languages and values. Rejected ones are counted by reason.
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
from fashionrec.captioner.spool import SpooledAnswer, read_signed
from fashionrec.common.batches import batched
from fashionrec.common.files import locked
from fashionrec.common.folder import Folder
from fashionrec.errors import CatalogueError
from fashionrec.types import Box

if TYPE_CHECKING:
    from fashionrec.captioner.base import Captioner
    from fashionrec.captioner.outcome import Outcome
    from fashionrec.config import Config

_MAX_MODEL_NAME = 200  # characters
_MAX_TOKENS = 1 << 40  # of one answer; larger counts are invalid

#: A garment and its caption, the reason for a rejection, or None for an outcome without a caption.
_Checked = tuple[Place, "Outcome"] | str | None


def import_captions(source: Path, config: Config) -> dict[str, Any]:
    """Import captions into the project's file.

    Answers that a killed run left in a catalogue are removed from it once they are imported.

    Args:
        source: A catalogue, a project's data folder, or a captions.sqlite.
        config: The settings of this project.

    Returns ``files`` (the files read), ``imported``, ``known`` (garments that already have a
    caption here), ``other`` (outcomes without a caption) and ``refused``, by reason. Raises
    :class:`CatalogueError` if there is nothing to import.
    """
    folder = Folder(source if source.is_dir() else source.parent, "captions", CatalogueError)
    captioners = [make_captioner(name, config.captioner) for name in shared_captioners()]
    spools = {captioner.spool_file: captioner for captioner in captioners if captioner.spool_file is not None}
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
                    with suppress(PermissionError):  # without a lock in a read-only folder, which keeps its file
                        stack.enter_context(locked(folder.root / ".captions.lock", f"is captioning {folder.root}"))
                path = folder.path(name)
                checked = _spool(path, spools[name]) if name in spools else _cache(path, captioners)
                for group in batched(checked, GROUP):
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


def _record(cache: CaptionCache, group: list[_Checked], counts: Counter[str], refused: Counter[str]) -> None:
    entries = []
    for checked in group:
        if checked is None:
            counts["other"] += 1
        elif isinstance(checked, str):
            refused[checked] += 1
        elif (recorded := cache.find(*checked[0], checked[1].captioner)) is not None and recorded.state == "done":
            counts["known"] += 1
        else:
            counts["imported"] += 1
            entries.append((*checked[0], checked[1]))
    cache.put_many(entries)


def _cache(path: Path, captioners: Sequence[Captioner]) -> Iterator[_Checked]:
    with CaptionCache(path, write=False) as cache:
        for captioner in captioners:
            for row in cache.rows(captioner.name):
                yield _row(row, captioner)


def _row(row: dict[str, Any], captioner: Captioner) -> _Checked:
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


def _spool(path: Path, captioner: Captioner) -> Iterator[_Checked]:
    for arrived, _ in read_signed(path):
        yield "line" if arrived is None else _arrived(arrived, captioner)


def _arrived(arrived: SpooledAnswer, captioner: Captioner) -> _Checked:
    read, place = captioner.read_answer, arrived.place
    return _checked(place, arrived.model, captioner, lambda model: read(arrived.body, place.class_name, model=model))


def _checked(place: Place, model: object, captioner: Captioner, read: Callable[[str], Outcome]) -> _Checked:
    """Return a garment and its caption as the captioner reads it, or the reason for a rejection."""
    if not isinstance(model, str) or not model.isprintable() or not 0 < len(model) <= _MAX_MODEL_NAME:
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
    return type(value) is int and 0 <= value < _MAX_TOKENS
