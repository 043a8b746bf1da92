"""A run: one training, as a folder with its weights and ``run.json``.

::

    runs/train/NAME/
      weights/best.pt, last.pt     (encoder: weights/best/, in the transformers format)
      run.json                     verb, settings, dataset fingerprint, versions, seed, metrics
      ... plots and tables of the trainer

``status`` is running, done or failed. The process that trains holds the folder's lock while
``status`` is running, so that killed runs can be distinguished from running ones, and no two
processes write into one folder. ``promoted`` says that the run may be used by default.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import itertools
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fashionrec.common.documents import read_json
from fashionrec.common.files import dump_json
from fashionrec.common.folder import Folder
from fashionrec.common.system import WINDOWS
from fashionrec.common.text import plural, shell_word
from fashionrec.errors import Busy, ConfigError, DataError, FashionrecError, Refused

FORMAT = "fashionrec-run"
FORMAT_VERSION = 1
RECORD = "run.json"
#: Folders below project.runs that contain runs.
VERBS = ("train", "finetune")
#: Packages whose versions are recorded if installed.
PACKAGES = "fashionrec ultralytics torch torchvision transformers onnx onnxruntime numpy Pillow".split()
_LOCK = ".lock"
_LEFTOVER = re.compile(r"weights/\..+\.(?:pt|safetensors)(?:\.(?:copy|[0-9a-f]+))?\.tmp")
#: Seconds to wait for a run's lock: data loaders of a killed process hold it for a moment.
LOCK_WAIT = 15.0


@dataclass
class Run:
    """A run and its record. ``weights`` maps ``best``, ``last``, ``best_ft`` ... to paths in the
    folder.

    ``epochs`` were trained in ``seconds``, including those before a kill; ``promotions`` are
    decisions made by hand.
    """

    path: Path
    kind: str  # detector | embedder
    verb: str  # train | finetune
    status: str = "running"
    promoted: bool = False
    created: str = ""
    seconds: float = 0.0
    epochs: int = 0
    seed: int = 0
    device: str = ""
    weights: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    promotions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def state(self) -> str:
        """``status``, or ``killed`` if it says running but no process trains it."""
        return "killed" if self.status == "running" and not _is_held(self.path) else self.status

    def weights_path(self, which: str = "best") -> Path:
        """Return the file or folder of one of the run's weights. Raises :class:`DataError` if there
        is none of that name.
        """
        if which not in self.weights:
            raise DataError(f"run {self.path} has no {which} weights, only {', '.join(self.weights) or 'none'}")
        return run_folder(self.path).path(self.weights[which])

    @property
    def best(self) -> Path:
        """The weights to use: for a finetune the interpolated ones."""
        return self.weights_path("best_ft" if "best_ft" in self.weights else "best")

    def save(self, *, wait: float = LOCK_WAIT) -> None:
        """Write ``run.json`` atomically; hold the run's lock while it is running, and release it
        otherwise.

        Raises :class:`Busy` if another process still trains it after ``wait`` seconds.
        """
        if self.status == "running":
            _hold(self.path, wait)
        record = {"format": FORMAT, "format_version": FORMAT_VERSION, "name": self.name}
        record |= {key: value for key, value in vars(self).items() if key != "path"}
        run_folder(self.path).write(RECORD, dump_json(record))
        if self.status != "running":
            _let_go(self.path)


def run_folder(path: Path) -> Folder:
    """Return the folder of a run, which may be untrusted."""
    return Folder(path, "run", DataError)


def is_run(path: Path) -> bool:
    """Return whether a folder seems to be a run. :func:`read_run` decides whether it
    may be read.
    """
    return os.path.lexists(path / RECORD)


def check_weights(path: Path) -> None:
    """Raise :class:`DataError` for weights, given by path, of a run that :func:`read_run` would
    refuse for a link.
    """
    folder = path.parent.parent
    if path.parent.name == "weights" and is_run(folder):
        run_folder(folder).check()


def remove_leftovers(run: Run) -> None:
    """Remove temporary files that a killed training left among the weights, by our own names."""
    folder = run_folder(run.path)
    for entry in folder.entries("weights"):
        if _LEFTOVER.fullmatch(entry.name) and entry.kind == "file":
            folder.remove(entry.name)


def start_run(
    parent: Path, name: str | None, *, kind: str, verb: str, exist_ok: bool = False, wait: float = LOCK_WAIT
) -> Run:
    """Create the folder of a new run below ``parent``; without a name the next free of train,
    train2, ...

    Raises :class:`ConfigError` if a run of that name exists and ``exist_ok`` is not set,
    :class:`Busy` if another process still trains it after ``wait`` seconds, and :class:`DataError`
    if it, or its content, is a link or a special file. (``parent.parent``, project.runs, may be a
    link.)
    """
    if name is not None and (Path(name).name != name or name in ("", ".", "..")):
        raise ConfigError(
            f"invalid run name {name!r}", hint="give a name, not a path; the parent folder is project.runs"
        )
    path = free_place(parent, verb) if name is None else parent / name
    parent.parent.mkdir(parents=True, exist_ok=True)
    runs = Folder(parent.parent, "the folder of runs")
    if runs.path(parent.name, "folder").exists():
        runs.path(f"{parent.name}/{path.name}", "folder")
    run_folder(path).check({"weights": "folder", RECORD: "file", _LOCK: "file"})
    if _taken(path) and not exist_ok:
        raise ConfigError(
            f"run {path} already exists", hint="choose another name=, or set exist_ok=true or resume=true"
        )
    runs.make_folder(f"{parent.name}/{path.name}/weights", exist_ok=True)
    run = Run(path=path, kind=kind, verb=verb, created=now(), versions=installed_versions())
    run.save(wait=wait)
    return run


def free_place(parent: Path, name: str) -> Path:
    """Return the first unused path of ``name``, ``name2``, ..."""
    numbered = (parent / f"{name}{n if n > 1 else ''}" for n in itertools.count(1))
    return next(path for path in numbered if not os.path.lexists(path))


def read_run(path: Path) -> Run:
    """Read the run in a folder.

    Raises :class:`DataError` if there is none, or it is damaged or incompatible, or contains a link
    or a special file.
    """
    folder = run_folder(path)
    try:
        folder.check({"weights": "folder", RECORD: "file", _LOCK: "file"})
        record = read_json(folder.path(RECORD, "file"))
    except FileNotFoundError:
        raise DataError(f"no run at {path}: {RECORD} is missing") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path / RECORD} is damaged: {error}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path / RECORD} has an incompatible format")
    known = {key: record[key] for key in Run.__dataclass_fields__ if key in record}
    for key, value in known.items():
        if not isinstance(value, _TYPES[str(Run.__dataclass_fields__[key].type).partition("[")[0]]):
            raise DataError(f"{path / RECORD} is damaged: {key} is {type(value).__name__}")
    if not {"kind", "verb"} <= known.keys() or not all(
        isinstance(name, str) for name in known.get("weights", {}).values()
    ):
        raise DataError(f"{path / RECORD} is damaged: it does not say what was trained")
    return Run(path=path, **known)


#: JSON types of a run's fields.
_TYPES: dict[str, Any] = {"str": str, "bool": bool, "int": int, "float": (int, float), "dict": dict, "list": list}


def list_runs(runs: Path, refused: list[FashionrecError] | None = None) -> list[Run]:
    """Return all readable runs below ``runs`` (train, finetune, ...), newest first; add errors of
    others to ``refused``.
    """
    found, errors = [], []
    for path, error in _places(runs):
        try:
            if error:
                raise error
            found.append(read_run(path))
        except DataError as reason:
            errors.append(reason)
    if refused is not None:
        refused += errors
    return sorted(found, key=lambda run: (run.created, run.name), reverse=True)


def _places(runs: Path) -> Iterator[tuple[Path, FashionrecError | None]]:
    """Return the folders of runs below ``runs``, sorted; with an error if such a folder, or its
    parent, is a link.
    """
    folder = Folder(runs, "the folder of runs")
    for verb in folder.entries() if runs.is_dir() else ():
        if verb.kind == "link" and verb.name in VERBS:
            yield runs / verb.name, folder.refusal(verb.name)
        for entry in folder.entries(verb.name) if verb.kind == "folder" else ():
            path = runs / entry.name
            if entry.kind == "folder" and is_run(path):
                yield path, None
            elif entry.kind == "link" and (path / RECORD).exists():
                yield path, folder.refusal(entry.name)


def find_run(runs: Path, named: str) -> Run:
    """Return the run at a path, or with a name (``garments``, ``finetune/garments``) below
    ``runs``.

    Raises :class:`DataError` for an unknown or ambiguous name, and the errors of :func:`read_run`.
    """
    places = dict(_places(runs))
    found = [path for path in places if named in (path.name, f"{path.parent.name}/{path.name}")]
    if not found and is_run(Path(named)):
        return read_run(Path(named))
    if len(found) > 1:
        ways = [shell_word(f"{path.parent.name}/{path.name}") for path in found]
        raise DataError(f"{plural(len(found), 'run')} named {named}", hint=f"say which: {', '.join(ways)}")
    if not found:
        from fashionrec.config import nearest

        hint = nearest(named, [path.name for path in places]) or "`fashionrec runs list` lists them"
        raise DataError(f"no run {named} in {runs}", hint=hint)
    if error := places[found[0]]:
        raise error
    return read_run(found[0])


def newest_promoted(runs: Path, kind: str, refused: list[FashionrecError] | None = None) -> Run | None:
    """Return the finished run of a kind that is used by default: the last promoted one, or None.

    A training is promoted when it is created, a run promoted by hand at that time. ``refused``: as
    in :func:`list_runs`.
    """
    found = list_runs(runs, refused)
    promoted = [run for run in found if run.kind == kind and run.promoted and run.status == "done"]
    return max(promoted, key=_promoted_at, default=None)


def promote(run: Run, *, why: str = "", force: bool = False) -> None:
    """Use a run by default, and record when and why.

    Raises :class:`ConfigError` for an unfinished run, and :class:`Refused` for a rejected finetune
    without ``force``.
    """
    if run.state != "done":
        raise ConfigError(f"run {run.path} is not finished ({run.state})", hint="only finished runs can be used")
    decision = run.notes.get("decision", {})
    if decision.get("promoted") is False and not force:
        reasons = "; ".join(decision.get("reasons", [])) or "it did not improve"
        raise Refused(f"run {run.path} was rejected: {reasons}", hint="override with --force --why TEXT")
    _decide(run, True, why, force)


def demote(run: Run, *, why: str = "") -> None:
    """Stop using a run by default, and record when and why."""
    if not run.promoted:
        raise ConfigError(f"run {run.path} is not promoted")
    _decide(run, False, why, False)


def now() -> str:
    """Return the time in UTC, ISO 8601, to the microsecond."""
    return datetime.datetime.now(datetime.UTC).isoformat()


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of relevant packages, if installed."""
    found = {package: version for package in PACKAGES if (version := _version(package))}
    return {"python": platform.python_version(), **found}


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _decide(run: Run, promoted: bool, why: str, forced: bool) -> None:
    run.promoted = promoted
    run.promotions.append({"at": now(), "promoted": promoted, "why": why, "forced": forced})
    run.save()


def _promoted_at(run: Run) -> tuple[str, str]:
    by_hand = [str(entry["at"]) for entry in run.promotions if entry.get("promoted")]
    return max([run.created, *by_hand]), run.created


def _taken(path: Path) -> bool:
    """Return whether a folder contains more than a kill leaves before the run's record
    is written.
    """
    return path.exists() and any(entry.name != _LOCK for entry in run_folder(path).walk() if entry.kind != "folder")


def lock_handles(path: Path) -> tuple[int, ...]:
    """Return file descriptors that let a child process hold a run's lock for as long as
    it lives.
    """
    context = getattr(_HELD.get(path.resolve()), "_context", None)
    handle = getattr(context, "lock_file_fd", None)
    return () if handle is None or WINDOWS else (handle,)


#: Locks of the runs that this process trains, by the folder's real path.
_HELD: dict[Path, Any] = {}


def _hold(path: Path, wait: float) -> None:
    if path.resolve() in _HELD:
        return
    lock = _lock(path, wait)
    if lock is None:
        raise Busy(f"another process is training {path}", hint="wait for it to end, then try again")
    _HELD[path.resolve()] = lock


def _let_go(path: Path) -> None:
    lock = _HELD.pop(path.resolve(), None)
    if lock is not None:
        lock.release()


def _is_held(path: Path) -> bool:
    if path.resolve() in _HELD:
        return True
    if run_folder(path).kind(_LOCK) != "file":
        return False
    try:
        lock = _lock(path, 0.0)
    except OSError:  # a read-only folder, such as a backup: nobody trains there
        return False
    if lock is None:
        return True
    lock.release()
    return False


def _lock(path: Path, wait: float) -> Any:
    """Return the folder's lock, held; None if another process still holds it after ``wait``
    seconds.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(run_folder(path).path(_LOCK, "file"), timeout=wait, thread_local=False)
    try:
        lock.acquire(poll_interval=0.1)
    except Timeout:
        return None
    return lock
