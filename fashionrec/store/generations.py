"""Generations: immutable versions of a catalogue, one writer at a time, switched atomically.

A reader holds a shared lock on the manifest of its generation. Garbage collection takes an
exclusive one first, so generations in use are never removed; locks are released when a process
dies.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

from fashionrec.common.documents import DocumentError, read_json
from fashionrec.common.files import dump_json, locked, sha256_file
from fashionrec.common.folder import TEMPORARY, Folder, Kind
from fashionrec.common.system import has_locks, lock
from fashionrec.config.captioners import BATCH_FOLDERS, SPOOL_FILES
from fashionrec.errors import CatalogueError, WriteError
from fashionrec.store.manifest import FileEntry, Manifest
from fashionrec.store.rows import AGAIN, DamagedRow

FORMAT = "fashionrec-catalogue"
FORMAT_VERSION = 3
#: Version 2 had no parts in its items file (:mod:`parts`).
READ_VERSIONS = (2, 3)
POINTER = "catalogue.json"
MANIFEST = "manifest.json"
ITEMS = "items.sqlite"
CHANGES = "changes.sqlite"  # the delta on items of an earlier generation
REPORT = "report.json"
THUMBNAILS = "thumbnails.bin"
#: SQLite's messages for full, failing or read-only disks; others are about the content of the file.
DISK_ERRORS = ("disk is full", "disk I/O", "unable to open", "readonly database", "is locked")
KEEP = 2  # generations kept by a commit: the served one and its parent
#: Folders with subfolders shared by generations, and the names that writers of every version gave
#: those.
SHARED = {
    "segments": re.compile(r"\d{6}(-\d{3})?-(image|images|caption|captions)"),
    "indexes": re.compile(r"\d{6}"),
    "bundles": re.compile(r"(detector|embedder)-[0-9a-f]{16}|\.bundle-\w{8}"),
}

#: Entries at the top of a catalogue.
_FOLDERS = ("generations", *SHARED, "work", *BATCH_FOLDERS.values())
_FILES = (
    POINTER,
    REPORT,
    "report.html",
    "builds.jsonl",
    "measured.json",
    ".lock",
    ".captions.lock",
    *SPOOL_FILES.values(),
)
_KINDS: dict[str, Kind] = {**dict.fromkeys(_FOLDERS, "folder"), **dict.fromkeys(_FILES, "file")}

_NAME = re.compile(r"\d{6}")


class Generation(NamedTuple):
    """A version of a catalogue as described by its manifest; ``files`` are relative to ``root``."""

    root: Path
    name: str
    manifest: Manifest

    @property
    def folder(self) -> Path:
        return self.root / "generations" / self.name

    @property
    def items_path(self) -> Path:
        return self.folder / ITEMS

    @property
    def changes_path(self) -> Path | None:
        """The delta, if there is one."""
        return self.folder / CHANGES if f"generations/{self.name}/{CHANGES}" in self.manifest.files else None

    def bundle_path(self, kind: str) -> Path | None:
        """Return the folder of the bundle of a kind (detector or embedder); None without one."""
        entry = self.manifest.bundles.get(kind)
        return folder_of(self.root).path(entry.path) if entry else None

    def check_pointer(self) -> None:
        """Raise :class:`CatalogueError` if the pointer differs in any byte from the one written."""
        stored = (self.root / POINTER).read_bytes()
        if stored not in [_pointer(self.root, self.name, version).encode() for version in READ_VERSIONS]:
            raise CatalogueError(f"catalogue {self.root} is damaged: {POINTER} has changed", hint=AGAIN)

    def check(self, *, contents: bool = False, below: str = "") -> None:
        """Check that every file ``below`` a folder has its size and, with ``contents``, its sha256.

        Check the content of a file before copying from it: the copy would get a valid checksum of
        damaged data.

        Raises:
            CatalogueError: A file is missing or has changed.
        """
        folder = folder_of(self.root)
        for name, entry in self.manifest.files.items():
            if not name.startswith(below):
                continue
            path = folder.path(name)
            if not path.is_file():
                raise CatalogueError(f"catalogue {self.root} is incomplete: {name} is missing", hint=AGAIN)
            size = path.stat().st_size
            if size != entry.size:
                raise CatalogueError(
                    f"catalogue {self.root} is damaged: {name} has {size} bytes, not {entry.size}", hint=AGAIN
                )
            if contents and sha256_file(path) != entry.sha256:
                raise CatalogueError(f"catalogue {self.root} is damaged: the content of {name} has changed", hint=AGAIN)


def folder_of(root: Path) -> Folder:
    """Return the catalogue at ``root`` as an untrusted folder, for reading and writing."""
    return Folder(root, "catalogue", CatalogueError)


def check_entries(root: Path) -> None:
    """Refuse a catalogue with a link, a special file, or files and folders swapped."""
    folder_of(root).check(_KINDS)


def is_catalogue(path: Path) -> bool:
    """Return whether a folder claims to be a catalogue (it may still be damaged)."""
    return os.path.lexists(path / POINTER)


def read_current(root: Path) -> Generation:
    """Return the served generation.

    Raises:
        CatalogueError: There is none, or it is damaged or of an unsupported version.
    """
    if not root.exists():
        raise CatalogueError(
            f"no catalogue at {root}", hint="create one with `fashionrec build-index PHOTOS --index DIR`"
        )
    if not is_catalogue(root):
        raise CatalogueError(
            f"{root} is not a catalogue: {POINTER} is missing",
            hint="create one with `fashionrec build-index PHOTOS --index DIR`",
        )
    check_entries(root)
    pointer = _read_json(root, POINTER)
    if pointer.get("format") != FORMAT:
        raise CatalogueError(f"{root / POINTER} is not the pointer of a catalogue", hint=AGAIN)
    if pointer.get("format_version") not in READ_VERSIONS:
        raise CatalogueError(
            f"{root} is a catalogue of format {pointer.get('format_version')}; this fashionrec reads {FORMAT_VERSION}",
            hint="rebuild it with this version, or query it with the one that made it",
        )
    return read_generation(root, str(pointer.get("generation")), pointer.get("manifest_sha256"))


def read_generation(root: Path, name: str, manifest_sha256: str | None = None) -> Generation:
    """Return a generation by name, with its manifest validated.

    With ``manifest_sha256``, the manifest's hash is compared, too.
    """
    if not _NAME.fullmatch(name):
        raise CatalogueError(f"{root / POINTER} is damaged: invalid generation {name!r}", hint=AGAIN)
    path = root / "generations" / name / MANIFEST
    document = _read_json(root, f"generations/{name}/{MANIFEST}")
    if manifest_sha256 is not None and sha256_file(path) != manifest_sha256:
        raise CatalogueError(f"catalogue {root} is damaged: {path.relative_to(root)} has changed", hint=AGAIN)
    try:
        return Generation(root, name, Manifest.from_dict(document, name))
    except ValueError as error:
        raise CatalogueError(f"catalogue {root} is damaged: {path.relative_to(root)} {error}", hint=AGAIN) from None


def hold(generation: Generation) -> IO[bytes]:
    """Keep a generation from being removed while the returned file is open.

    Raises :class:`CatalogueError` if it is already gone: read the pointer again.
    """
    path = generation.folder / MANIFEST
    try:
        file = folder_of(generation.root).open(f"generations/{generation.name}/{MANIFEST}")
    except OSError:
        raise CatalogueError(f"catalogue is incomplete: {path} is missing", hint=AGAIN) from None
    if not lock(file, shared=True) or not path.exists():  # being removed, or removed between opening and locking
        file.close()
        raise CatalogueError(f"catalogue {generation.root}: generation {generation.name} has been removed", hint=AGAIN)
    return file


def list_generations(root: Path) -> list[Generation]:
    """Return every complete generation, oldest first, including the served one."""
    found = []
    for name in _generation_names(root):
        try:
            found.append(read_generation(root, name))
        except CatalogueError:
            continue
    return found


def _generation_names(root: Path) -> list[str]:
    entries = folder_of(root).entries("generations")
    names = [entry.name.removeprefix("generations/") for entry in entries if entry.kind == "folder"]
    return [name for name in names if _NAME.fullmatch(name)]


@contextmanager
def writer_lock(root: Path) -> Iterator[None]:
    """Lock the catalogue for writing.

    Disk errors in the block become one :class:`WriteError`. Nothing is written to a folder with a
    link or a special file.

    Raises:
        Busy: Another process is writing (raised at once, without waiting).
        CatalogueError: The folder has a link or a special file.
    """
    if root.is_symlink() and not root.exists():
        raise CatalogueError(f"{root} is a broken link", hint="delete it, or choose another folder")
    folder = folder_of(root)
    check_entries(root)  # before the lock file is created
    with map_disk_errors(root), locked(root / ".lock", f"is writing {root}"):
        check_entries(root)
        inside = [f"generations/{name}" for name in _generation_names(root)]
        for entry in [entry for name in ("", *inside) for entry in folder.entries(name)]:
            if entry.kind == "file" and TEMPORARY.match(entry.name.rpartition("/")[2]):
                folder.remove(entry.name)  # left by a killed writer
        yield


@contextmanager
def map_disk_errors(root: Path) -> Iterator[None]:
    """Map disk errors in the block to one :class:`WriteError`.

    A damaged SQLite file becomes a :class:`CatalogueError`.
    """
    try:
        yield
    except (DamagedRow, DocumentError) as error:
        raise CatalogueError(f"catalogue {root} is damaged: {error}", hint=AGAIN) from error
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, sqlite3.Error) and not any(word in str(error) for word in DISK_ERRORS):
            raise CatalogueError(f"catalogue {root} is damaged: {error}", hint=AGAIN) from error
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise WriteError(
            f"cannot write to {root}: {reason}",
            hint="the served version is unchanged; free space or repair the disk, then run this again to resume",
        ) from error


def next_name(root: Path) -> str:
    """Return the name of the next generation: one past every existing folder."""
    names = [entry.name.removeprefix("generations/") for entry in folder_of(root).entries("generations")]
    return f"{max((int(name) for name in names if _NAME.fullmatch(name)), default=0) + 1:06d}"


def begin(root: Path) -> tuple[str, Path]:
    """Create the empty folder of the next generation; return its name and path.

    Nothing refers to it before its commit.
    """
    name = next_name(root)
    return name, folder_of(root).make_folder(f"generations/{name}")


def shared_files(root: Path, manifest: Manifest) -> list[Path]:
    """Return the files outside its own folder that a generation needs, as absolute paths."""
    inside = folder_of(root)
    files = []
    for name in manifest.shared_folders:
        here = [root / entry.name for entry in inside.entries(name) if entry.kind == "file"]
        if not here:
            raise CatalogueError(f"catalogue {root} is incomplete: {name} is missing", hint=AGAIN)
        files += here
    return files


def commit(root: Path, name: str, manifest: Manifest, own: Iterable[str | Path] = (ITEMS, REPORT)) -> Generation:
    """Make generation ``name`` the served one.

    Its files are synced, its manifest written, the pointer switched and garbage collected. The
    caller holds :func:`writer_lock`. ``own`` are the files in its own folder; the others follow
    from the manifest. Files listed in an earlier manifest are not hashed again. Readers see the
    complete old generation until the switch, then the complete new one.
    """
    previous = read_current(root) if is_catalogue(root) else None
    known = previous.manifest.files if previous else {}
    entries = {}
    inside = folder_of(root)
    folders = {"", "generations", f"generations/{name}"}
    for path in [*shared_files(root, manifest), *(root / "generations" / name / file for file in own)]:
        relative = path.relative_to(root).as_posix()
        if previous and relative not in known and (same := _same_file(path, previous)):
            known = {**known, relative: known[same]}
        size = path.stat().st_size
        if relative in known:  # immutable since an earlier generation
            if known[relative].size != size:
                raise CatalogueError(
                    f"catalogue {root} is damaged: {relative} has {size} bytes, not {known[relative].size}",
                    hint=AGAIN,
                )
            entries[relative] = known[relative]
        else:
            inside.sync(relative)
            above = relative.rpartition("/")[0]
            folders |= {above, above.rpartition("/")[0]}
            entries[relative] = FileEntry(size, sha256_file(path))
    for folder in sorted(folders):
        inside.sync(folder)
    parent = previous.name if previous else None
    document = replace(manifest, generation=name, parent=parent, files=entries).to_dict()
    inside.write(f"generations/{name}/{MANIFEST}", dump_json(document))
    _serve(root, name)
    tidy(root)
    return read_current(root)


def _same_file(path: Path, previous: Generation) -> str | None:
    """Return the entry of the previous generation's file that a new one is a hard link to."""
    name = f"generations/{previous.name}/{path.name}"
    before = previous.folder / path.name
    return name if name in previous.manifest.files and before.is_file() and path.samefile(before) else None


def roll_back(root: Path, to: str | None = None) -> Generation:
    """Serve an earlier generation (or, after a rollback, a later one); by default the parent.

    The caller holds :func:`writer_lock`. Nothing is removed until the next commit.

    Raises:
        CatalogueError: The generation is missing or incomplete.
    """
    served = read_current(root)
    name = to or served.manifest.parent
    there = [generation.name for generation in list_generations(root) if generation.name != served.name]
    if name is None or name not in there:
        missing = "is already served" if name == served.name else "does not exist"
        what = f"generation {name} {missing}" if name else f"generation {served.name} has no predecessor"
        raise CatalogueError(f"{root}: {what}", hint=f"there are {', '.join(there)}" if there else "it is the only one")
    read_generation(root, name).check()
    _serve(root, name)
    return read_current(root)


def tidy(root: Path, *, whole: bool = True) -> None:
    """Remove unused data and leftovers of killed processes; what cannot be removed now stays."""
    with suppress(OSError, CatalogueError):
        collect_garbage(root, whole=whole)


def collect_garbage(root: Path, *, whole: bool = True) -> list[str]:
    """Remove unused generations, and the segments, indexes and bundles that only they needed.

    The served one and its ancestors are kept, ``KEEP`` in all, and any that a reader has locked;
    without ``whole``, every one that could be served. Only folders with names that fashionrec gives
    are removed. Returns the names of the removed generations.
    """
    inside = folder_of(root)
    kept = _needed(root) | (set() if whole else {generation.name for generation in list_generations(root)})
    kept |= {name for name in _generation_names(root) if name not in kept and _is_read(inside, name)}
    shared: set[str] = set()
    for name in kept:
        shared |= {file.rpartition("/")[0] for file in read_generation(root, name).manifest.files}
    gone = [name for name in _generation_names(root) if name not in kept]
    for name in gone:
        inside.remove(f"generations/{name}", ignore_errors=True)
    for parent, pattern in SHARED.items():
        for entry in inside.entries(parent):
            if entry.kind == "folder" and entry.name not in shared and pattern.fullmatch(entry.name[len(parent) + 1 :]):
                inside.remove(entry.name, ignore_errors=True)
    return gone


def _needed(root: Path) -> set[str]:
    kept: set[str] = set()
    generation: Generation | None = read_current(root)
    while generation is not None and len(kept) < KEEP:
        kept.add(generation.name)
        parent = generation.manifest.parent
        try:
            generation = read_generation(root, parent) if parent else None
        except CatalogueError:
            generation = None
    return kept


def _is_read(inside: Folder, name: str) -> bool:
    """Return whether a reader has locked the generation; if not, remove its manifest.

    The manifest is removed under the lock. A folder without a manifest is not a generation, so an
    interrupted removal leaves none that could be served.
    """
    manifest = f"generations/{name}/{MANIFEST}"
    try:
        file = inside.open(manifest)
    except FileNotFoundError:
        return False
    with file:
        if not lock(file, shared=False):
            return True
        if has_locks():
            inside.remove(manifest)
            return False
    try:
        inside.remove(manifest)
    except PermissionError:  # a reader has it open
        return True
    return False


def _serve(root: Path, name: str) -> None:
    folder_of(root).write(POINTER, _pointer(root, name))


def _pointer(root: Path, name: str, version: int = FORMAT_VERSION) -> str:
    return dump_json(
        {
            "format": FORMAT,
            "format_version": version,
            "generation": name,
            "manifest_sha256": sha256_file(root / "generations" / name / MANIFEST),
        }
    )


def _read_json(root: Path, name: str) -> dict[str, Any]:
    path = root / name
    try:
        with folder_of(root).open(name) as file:
            value = read_json(file)
    except FileNotFoundError:
        raise CatalogueError(f"catalogue is incomplete: {path} is missing", hint=AGAIN) from None
    except (OSError, ValueError) as error:
        raise CatalogueError(f"catalogue is damaged: {path}: {error}", hint=AGAIN) from None
    if not isinstance(value, dict):
        raise CatalogueError(f"catalogue is damaged: {path} is not a JSON object", hint=AGAIN)
    return value
