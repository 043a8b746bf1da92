"""fetch-dataset: one source or several, by their names on the command line, to one dataset folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fashionrec.common.documents import read_json
from fashionrec.config import Config
from fashionrec.dataset.archives import opened
from fashionrec.dataset.prepare import prepare
from fashionrec.dataset.source import Source
from fashionrec.dataset.sources import LOCAL, read_local, split_spec
from fashionrec.errors import DataError, UsageError
from fashionrec.files import fingerprint, fsync_file, locked

#: Called with what is being done (drawing, downloading, preparing), in what unit, how much is done, and how much there is.
Progress = Callable[[str, str, int, int], None]

#: What a drawn world has beside its labelled photos.
_WORLD = ("catalogue", "queries", "outfits", "world.json")


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
        document = _finished(out, staging, request)
        if document is not None:
            shutil.rmtree(staging)
            return {"path": str(out), **document}
        _must_be_free(out)
        _take_up(staging, request)
        whole = staging / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        try:
            whole.mkdir()
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
        shutil.rmtree(staging)
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
        return read_local(kind, folder, f"{kind}:{path.name}")
    if kind == "feed":
        from fashionrec.dataset.sources.feed import read as read_feed

        # photos of earlier calls are asked for once more, by ETag and date; those of a call that was killed are not
        begun = staging / f"feed{number}.begun"
        refresh = not begun.exists()
        begun.touch()
        cache = store / "feeds" / Path(rest).name
        return read_feed(Path(rest), cache, config, _told(progress, "downloading"), refresh=refresh)
    if kind == "roboflow":
        from fashionrec.dataset.sources.roboflow import read as read_roboflow

        return read_roboflow(rest, store / "roboflow", config, _told(progress, "downloading", "bytes"))
    return _drawn(staging / f"world{number}", config, _told(progress, "drawing"))


def _drawn(folder: Path, config: Config, progress: Callable[[int, int], None] | None) -> Source:
    """A drawn world as a source; one that a killed call had not finished is drawn anew, and is the same."""
    from fashionrec.dataset.synthetic import WorldSettings, draw_world

    if not (folder / "world.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        settings = config.synthetic.model_dump()
        settings["class_weights"] = tuple(settings["class_weights"])
        draw_world(folder, WorldSettings(**settings), progress)
    return read_local("yolo", folder, "synthetic")


def _move_world(world: Path, whole: Path) -> None:
    for name in _WORLD:
        if (world / name).exists():
            (world / name).rename(whole / name)


def _asked(config: Config, kinds: Sequence[str]) -> dict[str, Any]:
    """The settings that decide what the dataset holds."""
    asked: dict[str, Any] = {"dataset": config.dataset.model_dump(exclude={"workers"})}
    asked |= {"images": config.images.model_dump()}
    for kind in ("synthetic", "feed", "roboflow"):
        if kind in kinds:
            asked[kind] = getattr(config, kind).model_dump()
    return asked


def _finished(out: Path, staging: Path, request: str) -> dict[str, Any] | None:
    """What dataset.json holds, where ``out`` is whole and of this request, and its maker was killed while clearing up."""
    if not staging.is_dir():
        return None
    try:
        document: dict[str, Any] = read_json(out / "dataset.json")
    except (OSError, ValueError):
        return None
    return document if document.get("request") == request else None


def _must_be_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty folder", hint="choose another --out, or remove it")


def _request_of(staging: Path) -> str | None:
    try:
        return (staging / "request").read_text(encoding="utf-8")
    except OSError:
        return None


def _take_up(staging: Path, request: str) -> None:
    """The staging folder of this request. What another request left there is kept where it is addressed by content."""
    staging.mkdir(exist_ok=True)
    if _request_of(staging) != request:
        for entry in staging.iterdir():
            if entry.name != "photos":
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()
        (staging / "request").write_text(request, encoding="utf-8")
    for entry in staging.glob(".archive-*"):
        shutil.rmtree(entry, ignore_errors=True)  # of a killed call: ours is the only one here


def _keep_what_cost_time(staging: Path) -> None:
    """After wrong use: prepared photos and drawn worlds stay for the next call; where there are none, nothing does."""
    shutil.rmtree(staging / "whole", ignore_errors=True)
    if not any(path.is_file() for path in staging.rglob("*") if path.name != "request" and path.suffix != ".begun"):
        shutil.rmtree(staging, ignore_errors=True)


def _put(whole: Path, out: Path) -> None:
    for path in sorted(whole.glob("*")):
        if path.is_file():
            fsync_file(path)
    if out.exists():
        out.rmdir()
    whole.replace(out)
    fsync_file(out.parent)


def _told(progress: Progress | None, what: str, unit: str = "photos") -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, unit, done, total)
