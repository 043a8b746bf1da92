"""The fetch-dataset command: read one or more sources into one dataset folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from fashionrec.common import system
from fashionrec.common.documents import read_json
from fashionrec.common.files import fingerprint, locked
from fashionrec.common.folder import TEMPORARY, Folder
from fashionrec.config import Config
from fashionrec.dataset.archives import open_archive
from fashionrec.dataset.prepare.prepare import prepare
from fashionrec.dataset.prepare.whole import must_be_free
from fashionrec.dataset.source import Source
from fashionrec.dataset.sources import LOCAL, read_local, split_spec
from fashionrec.errors import DataError, UsageError

#: Called with the step (drawing, downloading, preparing), the unit, the amount done and the total.
Progress = Callable[[str, str, int, int], None]

#: The parts of a synthetic world that are not labelled photos.
_WORLD = ("catalogue", "queries", "outfits", "world.json")

#: Name patterns of the content of a staging folder. Nothing else is removed from it.
_FILES = re.compile(rf"request|feed\d+\.begun|photos/[0-9a-f]{{2}}/[^/]+|copies/[^/]+|{TEMPORARY.pattern}")
_WORKLESS_FILES = re.compile(r"request|feed\d+\.begun")
_FOLDERS = re.compile(r"photos(/[0-9a-f]{2})?|copies|whole|world\d+|\.archive-\w+")


def fetch_dataset(
    specs: Sequence[str], out: Path, config: Config, *, store: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Create the dataset ``out`` from sources such as ``coco:PATH``.

    An interrupted call leaves a staging folder next to ``out``; the next call resumes it and
    removes it at the end.

    Args:
        store: The folder of downloads (Roboflow versions, photos of feeds), which are reused.

    Returns:
        The content of dataset.json, and its ``path``.

    Raises:
        DataError: A source or ``out`` is unusable.
        Busy: Another process is making ``out``.
    """
    kinds = [split_spec(spec) for spec in specs]
    request = fingerprint({"specs": list(specs), "settings": _request_settings(config, [kind for kind, _ in kinds])})
    staging = out.parent / f".{out.name}.staging"
    with locked(out.parent / f".{out.name}.lock", f"is making {out}"):
        _check_staging(staging)
        document = _finished_document(out, staging, request)
        if document is not None:
            _clear_staging(staging)
            return {"path": str(out), **document}
        must_be_free(out)
        _begin_staging(staging, request)
        built = staging / "whole"
        try:
            Folder(staging).make_folder("whole")
            with ExitStack() as stack:
                sources = [
                    _source(kind, rest, n, staging, config, store, stack, progress)
                    for n, (kind, rest) in enumerate(kinds)
                ]
                document = prepare(
                    sources, built, staging, config, request=request, progress=_step_progress(progress, "preparing")
                )
                worlds = [n for n, (kind, _) in enumerate(kinds) if kind == "synthetic"]
                if worlds:
                    _move_world(staging / f"world{worlds[0]}", built)
            _publish(built, out)
        except UsageError:
            _keep_staged_work(staging)
            raise
        _clear_staging(staging)
    return {"path": str(out), **document}


def _source(
    kind: str,
    rest: str,
    number: int,
    staging: Path,
    config: Config,
    store: Path,
    stack: ExitStack,
    progress: Progress | None,
) -> Source:
    if kind in LOCAL:
        path = Path(rest)
        folder = stack.enter_context(open_archive(path, staging, config.dataset))
        follow = config.dataset.follow_links or None
        return read_local(kind, folder, f"{kind}:{path.name}", follow_links=follow if folder == path else False)
    if kind == "feed":
        from fashionrec.dataset.sources.feed import read as read_feed

        # photos of earlier calls are requested again (by ETag), unless a call was interrupted
        marker, staged = f"feed{number}.begun", Folder(staging)
        refresh = staged.kind(marker) is None
        staged.open(marker, "ab").close()
        cache = _download_folder(store, "feeds", Path(rest).name)
        return read_feed(Path(rest), cache, config, _step_progress(progress, "downloading"), refresh=refresh)
    if kind == "roboflow":
        from fashionrec.dataset.sources.roboflow import read as read_roboflow

        downloads = _download_folder(store, "roboflow")
        return read_roboflow(rest, downloads, config, _step_progress(progress, "downloading", "bytes"))
    return _synthetic_source(staging / f"world{number}", config, _step_progress(progress, "drawing"))


def _synthetic_source(folder: Path, config: Config, progress: Callable[[int, int], None] | None) -> Source:
    """Return a synthetic world as a source.

    An unfinished one is drawn again, with the same result.
    """
    from fashionrec.dataset.synthetic import WorldSettings, draw_world

    if not (folder / "world.json").is_file():
        Folder(folder.parent).remove(folder.name)
        settings = config.synthetic.model_dump()
        settings["class_weights"] = tuple(settings["class_weights"])
        draw_world(folder, WorldSettings(**settings), progress)
    return read_local("yolo", folder, "synthetic")


def _download_folder(store: Path, *names: str) -> Path:
    """Return a folder below ``store`` (which may be a symbolic link).

    Raises :class:`DataError` for a link below it.
    """
    if not store.exists():
        return store.joinpath(*names)
    return Folder(store, "the data folder").path("/".join(names), "folder")


def _move_world(world: Path, built: Path) -> None:
    for name in _WORLD:
        if (world / name).exists():
            system.rename(world / name, built / name)


def _request_settings(config: Config, kinds: Sequence[str]) -> dict[str, Any]:
    """Return the settings that determine the content of the dataset."""
    settings: dict[str, Any] = {"dataset": config.dataset.model_dump(exclude={"workers"})}
    settings |= {"images": config.images.model_dump()}
    for kind in ("synthetic", "feed", "roboflow"):
        if kind in kinds:
            settings[kind] = getattr(config, kind).model_dump()
    return settings


def _check_staging(staging: Path) -> None:
    """Raise :class:`DataError` for a staging folder that fetch-dataset did not write."""
    parent = Folder(staging.parent, "the folder")
    if parent.kind(staging.name) is None:
        return
    parent.path(staging.name, "folder")
    folder = Folder(staging, "the staging folder")
    for entry in folder.walk():
        expected = (
            "file" if _FILES.fullmatch(entry.name) else "folder" if _FOLDERS.fullmatch(entry.name) else entry.kind
        )
        if entry.kind not in ("file", "folder") or entry.kind != expected:
            raise folder.refusal(entry.name)
    entries = [entry.name for entry in folder.entries()]
    if "request" not in entries and not all(TEMPORARY.match(name) for name in entries):
        raise DataError(
            f"{staging} is not a staging folder of fetch-dataset: its file 'request' is missing",
            hint="remove it, or choose another --out",
        )


def _finished_document(out: Path, staging: Path, request: str) -> dict[str, Any] | None:
    """Return dataset.json if ``out`` is complete and only the staging folder is left to remove."""
    if not staging.is_dir() or out.is_symlink():
        return None
    try:
        document: dict[str, Any] = read_json(Folder(out).path("dataset.json", "file"))
    except (OSError, ValueError, DataError):
        return None
    return document if document.get("request") == request else None


def _begin_staging(staging: Path, request: str) -> None:
    """Make the staging folder of this request.

    Of another request it keeps only what is addressed by content.
    """
    staging.mkdir(exist_ok=True)
    folder = Folder(staging, "the staging folder")
    is_same = folder.kind("request") == "file" and folder.read("request") == request.encode()
    # unpacked archives are leftovers of an interrupted call: this call has unpacked none yet
    _clear_staging(staging, keep=r"request|photos" if not is_same else r"(?!whole|\.archive-).*")
    if not is_same:
        folder.write("request", request)


def _clear_staging(staging: Path, keep: str = "(?!)") -> None:
    """Remove our files except those matching ``keep``, and the folder if nothing is kept."""
    folder = Folder(staging)
    entries = [entry.name for entry in folder.entries()]
    # the request is removed last: without it the folder would not be recognized as ours
    for name in sorted(entries, key=lambda name: name == "request"):
        if (_FILES.fullmatch(name) or _FOLDERS.fullmatch(name)) and not re.fullmatch(keep, name):
            folder.remove(name)
    if keep == "(?!)":
        with suppress(OSError):  # it contains files that are not ours
            staging.rmdir()


def _keep_staged_work(staging: Path) -> None:
    """Remove all but prepared photos and synthetic worlds; without those, remove everything."""
    folder = Folder(staging)
    folder.remove("whole")
    if all(entry.kind == "folder" or _WORKLESS_FILES.fullmatch(entry.name) for entry in folder.walk()):
        _clear_staging(staging)


def _publish(built: Path, out: Path) -> None:
    for path in sorted(built.glob("*")):
        if path.is_file():
            system.sync_file(path)
    if out.exists():
        out.rmdir()
    system.replace(built, out)
    system.sync_folder(out.parent)


def _step_progress(progress: Progress | None, what: str, unit: str = "photos") -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, unit, done, total)
