"""Generations: immutable states of a catalogue, one writer at a time, one atomic switch between them."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashionrec.errors import CatalogueError
from fashionrec.files import dump_json, fsync_file, locked, sha256_file, write_atomic

FORMAT = "fashionrec-catalogue"
FORMAT_VERSION = 1
POINTER = "catalogue.json"
MANIFEST = "manifest.json"
ITEMS = "items.sqlite"
REPORT = "report.json"
THUMBNAILS = "thumbnails.bin"
KEEP = 2  # generations left behind by a commit: the served one and the one before

_NAME = re.compile(r"^\d{6}$")
_AGAIN = "copy the catalogue again, or build it again with `fashionrec build-index`"


@dataclass(frozen=True)
class Generation:
    """One state of a catalogue as its manifest describes it. Paths in ``files`` are relative to ``root``."""

    root: Path
    name: str
    manifest: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.root / "generations" / self.name

    @property
    def items_path(self) -> Path:
        return self.folder / ITEMS

    @property
    def segments(self) -> dict[str, dict[str, Any]]:
        """Segment name to ``{"kind": "image" | "caption", "count", "dim", "embedder"}``."""
        return dict(self.manifest["segments"])

    def bundle_path(self, kind: str) -> Path | None:
        """Folder of the detector's or embedder's bundle; None where the catalogue has none of that kind."""
        entry = self.manifest["bundles"].get(kind)
        return self.root / entry["path"] if entry else None

    def check(self, *, contents: bool = False) -> None:
        """Every file is there with its size (and, with ``contents``, its sha256). Raises :class:`CatalogueError`."""
        for name, entry in self.manifest["files"].items():
            path = self.root / name
            if not path.is_file():
                raise CatalogueError(f"catalogue {self.root} is incomplete: {name} is missing", hint=_AGAIN)
            size = path.stat().st_size
            if size != entry["size"]:
                raise CatalogueError(
                    f"catalogue {self.root} is damaged: {name} has {size} bytes, not {entry['size']}", hint=_AGAIN
                )
            if contents and sha256_file(path) != entry["sha256"]:
                raise CatalogueError(
                    f"catalogue {self.root} is damaged: the content of {name} has changed", hint=_AGAIN
                )


def is_catalogue(path: Path) -> bool:
    """Whether a folder claims to be a catalogue (it may still be damaged)."""
    return (path / POINTER).is_file()


def read_current(root: Path) -> Generation:
    """The generation that is served. Raises :class:`CatalogueError` where there is none, or a damaged or foreign one."""
    if not root.exists():
        raise CatalogueError(
            f"no catalogue at {root}", hint="make one with `fashionrec build-index PHOTOS --index DIR`"
        )
    if not is_catalogue(root):
        raise CatalogueError(
            f"{root} is not a catalogue: it has no {POINTER}",
            hint="make one with `fashionrec build-index PHOTOS --index DIR`",
        )
    pointer = _read_json(root / POINTER)
    if pointer.get("format") != FORMAT:
        raise CatalogueError(f"{root / POINTER} is not a catalogue's", hint=_AGAIN)
    if pointer.get("format_version") != FORMAT_VERSION:
        raise CatalogueError(
            f"{root} is a catalogue of format {pointer.get('format_version')}; this fashionrec reads {FORMAT_VERSION}",
            hint="build it again with this version, or query it with the one that made it",
        )
    return read_generation(root, str(pointer.get("generation")), pointer.get("manifest_sha256"))


def read_generation(root: Path, name: str, manifest_sha256: str | None = None) -> Generation:
    """One generation by name, its manifest checked for shape (and against ``manifest_sha256`` where given)."""
    if not _NAME.match(name):
        raise CatalogueError(f"{root / POINTER} is damaged: no generation {name!r}", hint=_AGAIN)
    path = root / "generations" / name / MANIFEST
    manifest = _read_json(path)
    if manifest_sha256 is not None and sha256_file(path) != manifest_sha256:
        raise CatalogueError(f"catalogue {root} is damaged: {path.relative_to(root)} has changed", hint=_AGAIN)
    for key, kind in (("files", dict), ("segments", dict), ("bundles", dict), ("counts", dict), ("settings", dict)):
        if not isinstance(manifest.get(key), kind):
            raise CatalogueError(f"catalogue {root} is damaged: {path.relative_to(root)} has no {key}", hint=_AGAIN)
    return Generation(root, name, manifest)


def writer_lock(root: Path) -> AbstractContextManager[None]:
    """Hold the catalogue for writing. Raises :class:`Busy` at once if another process does; a dead one does not."""
    return locked(root / ".lock", f"is writing {root}")


def next_name(root: Path) -> str:
    """The name of the generation that a writer may make now: one past every folder that is there."""
    names = [p.name for p in (root / "generations").glob("*") if _NAME.match(p.name)]
    return f"{max((int(name) for name in names), default=0) + 1:06d}"


def commit(root: Path, name: str, manifest: dict[str, Any], files: list[Path]) -> Generation:
    """Make generation ``name`` the served one: sync its files, write its manifest, switch the pointer, tidy up.

    ``files`` are all files the generation needs, absolute; those that an earlier manifest lists are not hashed again.
    Until the pointer is switched a reader sees the old generation whole; afterwards the new one whole.
    """
    known = _known_files(root)
    entries = {}
    folders = set()
    for path in sorted(files):
        relative = path.relative_to(root).as_posix()
        size = path.stat().st_size
        if known.get(relative, {}).get("size") == size:
            entries[relative] = known[relative]
        else:
            fsync_file(path)
            folders.add(path.parent)
            entries[relative] = {"size": size, "sha256": sha256_file(path)}
    for folder in folders:
        fsync_file(folder)
        fsync_file(folder.parent)
    target = root / "generations" / name / MANIFEST
    write_atomic(target, dump_json({**manifest, "generation": name, "files": entries}))
    fsync_file(target.parent.parent)
    pointer = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "generation": name,
        "manifest_sha256": sha256_file(target),
    }
    write_atomic(root / POINTER, dump_json(pointer))
    collect_garbage(root)
    return read_current(root)


def collect_garbage(root: Path) -> None:
    """Remove generations before the last two, and segments and bundles that neither of those needs."""
    served = read_current(root).name
    names = sorted(p.name for p in (root / "generations").iterdir() if _NAME.match(p.name))
    whole = [name for name in names if name <= served and (root / "generations" / name / MANIFEST).is_file()]
    kept = whole[-KEEP:]
    needed: set[str] = set()
    for name in kept:
        needed |= {Path(file).parent.as_posix() for file in read_generation(root, name).manifest["files"]}
    for name in names:
        if name not in kept:
            shutil.rmtree(root / "generations" / name, ignore_errors=True)
    for parent in ("segments", "bundles"):
        for folder in (root / parent).glob("*"):
            if folder.relative_to(root).as_posix() not in needed:
                shutil.rmtree(folder, ignore_errors=True)


def _known_files(root: Path) -> dict[str, Any]:
    try:
        return dict(read_current(root).manifest["files"])
    except CatalogueError:
        return {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CatalogueError(f"catalogue is incomplete: {path} is missing", hint=_AGAIN) from None
    except (OSError, ValueError) as error:
        raise CatalogueError(f"catalogue is damaged: {path}: {error}", hint=_AGAIN) from None
    if not isinstance(value, dict):
        raise CatalogueError(f"catalogue is damaged: {path} is not a table", hint=_AGAIN)
    return value
