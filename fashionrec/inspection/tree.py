"""Check files and folders by name, kind and first bytes."""

from __future__ import annotations

import os
import re
import stat
from pathlib import PurePosixPath
from typing import IO

from fashionrec.common.folder import Entry, Folder
from fashionrec.common.system import WINDOWS
from fashionrec.common.text import visible
from fashionrec.config.captioners import BATCH_FOLDERS, SPOOL_FILES
from fashionrec.errors import FashionrecError
from fashionrec.inspection import models, pickles
from fashionrec.inspection.databases import check_database
from fashionrec.inspection.pickles import Budget, UnreadablePickle
from fashionrec.inspection.report import Report

#: Maximum number of entries: a dataset of 500,000 photos has a million.
MAX_ENTRIES = 2_000_000
_SHOWN = 5  # names listed per finding

_PROGRAMS = frozenset(
    ".py .pyc .pyw .sh .bash .zsh .bat .cmd .ps1 .vbs .js .jar .exe .com .scr .msi .dll .so .dylib .pyd .desktop .lnk"
    " .app .command .ipynb .php .pl .rb .reg".split()
)
_MAGIC = (b"\x7fELF", b"MZ", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"#!")
#: Hidden files of fashionrec itself, of file managers and of version control.
_KNOWN_HIDDEN = re.compile(
    rf"({'|'.join(map(re.escape, SPOOL_FILES.values()))}).*"
    r"|\.(lock|captions\.lock|measured\.json|gitignore|gitattributes|gitkeep|DS_Store)|\._.+"
    r"|\..+\.[0-9a-f]+\.tmp"
)
#: Pickles that trainers save next to weights, and that no command opens.
_TRAINER_STATE = re.compile(r"training_args\.bin|(optimizer|scheduler|scaler)\.pt|rng_state.*\.pth")
_ENGINES = (".engine", ".plan", ".trt")


def inspect_tree(folder: Folder, report: Report, budget: Budget, *, max_entries: int = MAX_ENTRIES) -> list[Entry]:
    """Check every entry of the folder, up to ``max_entries``; return the files."""
    files: list[Entry] = []
    links: dict[tuple[int, int], list[int]] = {}  # files with several names: how many in all, and how many here
    names: dict[tuple[int, int], str] = {}
    if _anyone_writes(folder.root.stat().st_mode):
        _writable(report, ".")
    try:
        for n, entry in enumerate(folder.walk()):
            if n >= max_entries:
                report.add(".", "size", f"more than {max_entries:,} entries", refused=True)
                break
            _check_name(entry.name, report)
            if entry.kind == "folder":
                if _anyone_writes((folder.root / entry.name).lstat().st_mode):
                    _writable(report, entry.name)
            elif entry.kind == "file":
                files.append(entry)
                report.files += 1
                report.bytes += entry.size
                state = _check_file(folder, entry, report, budget)
                if state is not None and state.st_nlink > 1:
                    key = state.st_dev, state.st_ino
                    links.setdefault(key, [state.st_nlink, 0])[1] += 1
                    names.setdefault(key, entry.name)
            else:
                _check_special(folder, entry, report)
    except FashionrecError as error:
        report.add(".", "size", str(error), "walking it might never end", refused=True)
    for key, (all_names, here) in links.items():
        if all_names > here:
            report.add(names[key], "hard-link", f"the same file as {all_names - here} outside this folder")
    return files


def _check_special(folder: Folder, entry: Entry, report: Report) -> None:
    refused = report.kind in ("catalogue", "bundle", "run", "export")
    if entry.kind == "link":
        try:
            target = str((folder.root / entry.name).readlink())[:200]
        except OSError:
            target = "?"
        report.add(entry.name, "link", f"a link to {target}", refused=refused)
    else:
        report.add(entry.name, "special-file", "a pipe, socket or device", refused=refused)


def _check_name(name: str, report: Report) -> None:
    own = name.rsplit("/", 1)[-1]
    if visible(own) != own:
        report.add(name, "name", "a name with control or invisible characters")
    if own == ".env":
        report.add(name, "environment", "settings for the environment")
    elif own.startswith(".") and not _KNOWN_HIDDEN.fullmatch(own):
        report.add(name, "hidden", "a hidden file or folder")
    if own in BATCH_FOLDERS.values():
        report.add(name, "caption-batch", "requests to a captioning service")
    elif own.startswith(tuple(SPOOL_FILES.values())):
        report.add(name, "caption-spool", "received captions")


def _check_file(folder: Folder, entry: Entry, report: Report, budget: Budget) -> os.stat_result | None:
    try:
        with folder.open(entry.name) as file:
            state = os.fstat(file.fileno())
            head = file.read(4096)
            file.seek(0)
            _check_mode(entry.name, state.st_mode, head, report)
            _check_content(folder, entry, head, file, report, budget)
            return state
    except (OSError, FashionrecError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        report.add(entry.name, "unreadable", f"unreadable: {reason}", refused=True)
    return None


def _check_mode(name: str, mode: int, head: bytes, report: Report) -> None:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _PROGRAMS or head.startswith(_MAGIC):
        report.add(name, "program", "a program or script")
    elif not WINDOWS and mode & 0o111:
        report.add(name, "executable", "a file with executable permission")
    if mode & (stat.S_ISUID | stat.S_ISGID):
        report.add(name, "executable", "it would run as its owner (setuid)", "it runs with its owner's rights")
    if _anyone_writes(mode):
        _writable(report, name)


def _check_content(folder: Folder, entry: Entry, head: bytes, file: IO[bytes], report: Report, budget: Budget) -> None:
    name, suffix = entry.name, PurePosixPath(entry.name).suffix.lower()
    if head.startswith(b"SQLite format 3\0") or (suffix == ".sqlite" and head):
        check_database(folder, name, report)
    elif suffix == ".onnx":
        models.check_onnx(folder, name, report)
    elif suffix in _ENGINES:
        report.add(name, "engine", "an engine compiled for a GPU")
    elif suffix in (".yaml", ".yml"):
        models.check_yaml(name, file, report)
    elif suffix == ".json":
        models.check_json(name, file, report)
    elif head.startswith(pickles.ARRAY):
        if pickles.holds_objects(file):
            _pickle(name, [pickles.OBJECTS], report)
    elif head.startswith(b"PK\x03\x04"):
        _check_archive(name, suffix, file, report, budget)
    elif pickles.is_pickle(head) or pickles.may_be_pickle(head, suffix):
        try:
            _pickle(name, pickles.foreign_globals(file, budget), report)
        except UnreadablePickle as error:
            if pickles.is_pickle(head) or budget.instructions < 0:
                _unreadable(name, error, report)


def _check_archive(name: str, suffix: str, file: IO[bytes], report: Report, budget: Budget) -> None:
    if suffix in (".xlsx", ".docx", ".zip", ".jar", ".whl"):
        return  # no command loads these as weights
    try:
        foreign, programs = pickles.archive_globals(file, budget)
    except UnreadablePickle as error:
        _unreadable(name, error, report)
        return
    _pickle(name, foreign, report)
    if programs:
        report.add(name, "torchscript", f"a torch.jit program ({programs[0]})", refused=_loads(name, report))


def _pickle(name: str, foreign: list[str], report: Report) -> None:
    if name.lower().endswith(".cache"):
        what = f"a pickle; it names {_listed(foreign)}" if foreign else "a pickle"
        report.add(name, "pickle", what, "ultralytics unpickles it when it opens the dataset")
    elif foreign:
        report.add(name, "pickle", f"a pickle that names {_listed(foreign)}", refused=_loads(name, report))


def _unreadable(name: str, error: Exception, report: Report) -> None:
    what = f"a pickle that cannot be read to the end: {error}"
    report.add(name, "pickle", what, "the functions it calls are unknown", refused=_loads(name, report))


def _loads(name: str, report: Report) -> bool:
    """Return whether a command that is given the folder loads this pickle (or refuses to)."""
    own = name.lower().rsplit("/", 1)[-1]
    other = own.endswith((".cache", ".npy", ".npz")) or _TRAINER_STATE.fullmatch(own)
    return report.kind in ("run", "unknown") and not other


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _anyone_writes(mode: int) -> bool:
    return not WINDOWS and bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def _writable(report: Report, name: str) -> None:
    report.add(name, "writable", "every user of this machine may change it")
