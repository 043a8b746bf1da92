"""fetch-dataset: one source or several, by their names on the command line, to one dataset folder."""

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
from fashionrec.dataset.archives import opened
from fashionrec.dataset.prepare.prepare import prepare
from fashionrec.dataset.prepare.whole import must_be_free
from fashionrec.dataset.source import Source
from fashionrec.dataset.sources import LOCAL, read_local, split_spec
from fashionrec.errors import DataError, UsageError

#: Called with what is being done (drawing, downloading, preparing), in what unit, how much is done, and how much there is.
Progress = Callable[[str, str, int, int], None]

#: What a drawn world has beside its labelled photos.
_WORLD = ("catalogue", "queries", "outfits", "world.json")

#: What a staging folder holds, by the pattern of its name. Nothing else is removed from it.
_FILES = re.compile(rf"request|feed\d+\.begun|photos/[0-9a-f]{{2}}/[^/]+|copies/[^/]+|{TEMPORARY.pattern}")
_NO_WORK = re.compile(r"request|feed\d+\.begun")
_FOLDERS = re.compile(r"photos(/[0-9a-f]{2})?|copies|whole|world\d+|\.archive-\w+")


def fetch_dataset(
    specs: Sequence[str], out: Path, config: Config, *, store: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Make the dataset ``out`` of sources such as ``coco:PATH``; returns what its dataset.json holds, and its ``path``.

    ``store`` keeps what was downloaded: versions of Roboflow, photos of feeds. What a killed call left unfinished beside
    ``out`` is taken up by the next, and gone at the end. Raises :class:`DataError`, :class:`Busy` where another process is
    making ``out``, and what the sources raise.
    """
    kinds = [split_spec(spec) for spec in specs]
    request = fingerprint({"specs": list(specs), "settings": _asked(config, [kind for kind, _ in kinds])})
    staging = out.parent / f".{out.name}.staging"
    with locked(out.parent / f".{out.name}.lock", f"is making {out}"):
        _check_staging(staging)
        document = _finished(out, staging, request)
        if document is not None:
            _clear(staging)
            return {"path": str(out), **document}
        must_be_free(out)
        _take_up(staging, request)
        whole = staging / "whole"
        try:
            Folder(staging).make_folder("whole")
            with ExitStack() as stack:
                sources = [
                    _source(kind, rest, n, staging, config, store, stack, progress)
                    for n, (kind, rest) in enumerate(kinds)
                ]
                document = prepare(
                    sources, whole, staging, config, request=request, progress=_told(progress, "preparing")
                )
                worlds = [n for n, (kind, _) in enumerate(kinds) if kind == "synthetic"]
                if worlds:
                    _move_world(staging / f"world{worlds[0]}", whole)
            _put(whole, out)
        except UsageError:
            _keep_what_cost_time(staging)
            raise
        _clear(staging)
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
        folder = stack.enter_context(opened(path, staging, config.dataset))
        follow = config.dataset.follow_links or None
        return read_local(kind, folder, f"{kind}:{path.name}", follow_links=follow if folder == path else False)
    if kind == "feed":
        from fashionrec.dataset.sources.feed import read as read_feed

        # photos of earlier calls are asked for once more, by ETag and date; those of a call that was killed are not
        begun, place = f"feed{number}.begun", Folder(staging)
        refresh = place.kind(begun) is None
        place.open(begun, "ab").close()
        cache = _kept_in(store, "feeds", Path(rest).name)
        return read_feed(Path(rest), cache, config, _told(progress, "downloading"), refresh=refresh)
    if kind == "roboflow":
        from fashionrec.dataset.sources.roboflow import read as read_roboflow

        kept = _kept_in(store, "roboflow")
        return read_roboflow(rest, kept, config, _told(progress, "downloading", "bytes"))
    return _drawn(staging / f"world{number}", config, _told(progress, "drawing"))


def _drawn(folder: Path, config: Config, progress: Callable[[int, int], None] | None) -> Source:
    """A drawn world as a source; one that a killed call had not finished is drawn anew, and is the same."""
    from fashionrec.dataset.synthetic import WorldSettings, draw_world

    if not (folder / "world.json").is_file():
        Folder(folder.parent).remove(folder.name)
        settings = config.synthetic.model_dump()
        settings["class_weights"] = tuple(settings["class_weights"])
        draw_world(folder, WorldSettings(**settings), progress)
    return read_local("yolo", folder, "synthetic")


def _kept_in(store: Path, *names: str) -> Path:
    """A folder below ``store`` (which may be a link itself) of what was downloaded. Raises :class:`DataError` for a link."""
    if not store.exists():
        return store.joinpath(*names)
    return Folder(store, "the data folder").path("/".join(names), "folder")


def _move_world(world: Path, whole: Path) -> None:
    for name in _WORLD:
        if (world / name).exists():
            system.rename(world / name, whole / name)


def _asked(config: Config, kinds: Sequence[str]) -> dict[str, Any]:
    """The settings that decide what the dataset holds."""
    asked: dict[str, Any] = {"dataset": config.dataset.model_dump(exclude={"workers"})}
    asked |= {"images": config.images.model_dump()}
    for kind in ("synthetic", "feed", "roboflow"):
        if kind in kinds:
            asked[kind] = getattr(config, kind).model_dump()
    return asked


def _check_staging(staging: Path) -> None:
    """Raise :class:`DataError` for a staging folder that a command of ours did not leave, before anything is changed there."""
    above = Folder(staging.parent, "the folder")
    if above.kind(staging.name) is None:
        return
    above.path(staging.name, "folder")
    folder = Folder(staging, "the staging folder")
    for entry in folder.walk():
        wanted = "file" if _FILES.fullmatch(entry.name) else "folder" if _FOLDERS.fullmatch(entry.name) else entry.kind
        if entry.kind not in ("file", "folder") or entry.kind != wanted:
            raise folder.refusal(entry.name)
    entries = [entry.name for entry in folder.entries()]
    if "request" not in entries and not all(TEMPORARY.match(name) for name in entries):
        raise DataError(
            f"{staging} is not a staging folder of fetch-dataset: it has no request",
            hint="remove it, or choose another --out",
        )


def _finished(out: Path, staging: Path, request: str) -> dict[str, Any] | None:
    """What dataset.json holds, where ``out`` is whole and of this request, and its maker was killed while clearing up."""
    if not staging.is_dir() or out.is_symlink():
        return None
    try:
        document: dict[str, Any] = read_json(Folder(out).path("dataset.json", "file"))
    except (OSError, ValueError, DataError):
        return None
    return document if document.get("request") == request else None


def _take_up(staging: Path, request: str) -> None:
    """The staging folder of this request. What another request left there is kept where it is addressed by content."""
    staging.mkdir(exist_ok=True)
    folder = Folder(staging, "the staging folder")
    same = folder.kind("request") == "file" and folder.read("request") == request.encode()
    # archives are of a killed call: ours is the only one here
    _clear(staging, keep=r"request|photos" if not same else r"(?!whole|\.archive-).*")
    if not same:
        folder.write("request", request)


def _clear(staging: Path, keep: str = "(?!)") -> None:
    """Remove what is ours in the staging folder but what ``keep`` matches, and the folder if it is empty then."""
    folder = Folder(staging)
    entries = [entry.name for entry in folder.entries()]
    # the request goes last: without it the rest would belong to nobody
    for name in sorted(entries, key=lambda name: name == "request"):
        if (_FILES.fullmatch(name) or _FOLDERS.fullmatch(name)) and not re.fullmatch(keep, name):
            folder.remove(name)
    if keep == "(?!)":
        with suppress(OSError):  # it holds what is not ours
            staging.rmdir()


def _keep_what_cost_time(staging: Path) -> None:
    """After wrong use: prepared photos and drawn worlds stay for the next call; where there are none, nothing does."""
    folder = Folder(staging)
    folder.remove("whole")
    if all(entry.kind == "folder" or _NO_WORK.fullmatch(entry.name) for entry in folder.walk()):
        _clear(staging)


def _put(whole: Path, out: Path) -> None:
    for path in sorted(whole.glob("*")):
        if path.is_file():
            system.sync_file(path)
    if out.exists():
        out.rmdir()
    system.replace(whole, out)
    system.sync_folder(out.parent)


def _told(progress: Progress | None, what: str, unit: str = "photos") -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, unit, done, total)
