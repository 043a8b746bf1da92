"""A run: one training, as a folder with its weights and ``run.json``.

::

    runs/train/NAME/
      weights/best.pt, last.pt     (an encoder: weights/best/, a folder in the transformers format)
      run.json                     what made it: verb, resolved settings, dataset fingerprint, versions, seed, metrics
      ... plots and tables of the trainer

``status`` is running, done or failed. The process that trains holds the folder's lock for as long as ``status`` is running, so
that a run whose process was killed is told from one that goes on, and no two processes write into one folder. ``promoted`` says
that the run may be used where no model is named.
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
from fashionrec.common.text import shell_word
from fashionrec.errors import Busy, ConfigError, DataError, FashionrecError, Refused

FORMAT = "fashionrec-run"
FORMAT_VERSION = 1
RECORD = "run.json"
#: Folders below project.runs that hold runs.
VERBS = ("train", "finetune")
#: Packages whose versions a run records, where they are installed.
PACKAGES = "fashionrec ultralytics torch torchvision transformers onnx onnxruntime numpy Pillow".split()
_LOCK = ".lock"
_LEFTOVER = re.compile(r"weights/\..+\.(?:pt|safetensors)(?:\.(?:copy|[0-9a-f]+))?\.tmp")
#: Seconds to wait for a run's lock: the data loaders of a process that was killed live on for a moment, and hold it.
LOCK_WAIT = 15.0


@dataclass
class Run:
    """One run and what is written of it. ``weights`` maps ``best``, ``last``, ``best_ft`` ... to paths in the folder.

    ``epochs`` were trained, in ``seconds``, those before a kill among them; ``promotions`` is what people decided by hand.
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
        """``status``, or ``killed`` where it says running and no process trains it any more."""
        return "killed" if self.status == "running" and not _is_held(self.path) else self.status

    def weights_path(self, which: str = "best") -> Path:
        """The file or folder of one of the run's weights. Raises :class:`DataError` if it has none of that name."""
        if which not in self.weights:
            raise DataError(f"run {self.path} has no {which} weights, only {', '.join(self.weights) or 'none'}")
        return run_folder(self.path).path(self.weights[which])

    @property
    def best(self) -> Path:
        """The weights to use: of a finetune those that were mixed with what it started from."""
        return self.weights_path("best_ft" if "best_ft" in self.weights else "best")

    def save(self, *, wait: float = LOCK_WAIT) -> None:
        """Write ``run.json`` atomically; hold the run while it is running, let it go when it is not.

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
    """The folder of a run, which may come from somebody else."""
    return Folder(path, "run", DataError)


def is_run(path: Path) -> bool:
    """Whether a folder seems to be a run. Whether it may be read, :func:`read_run` says."""
    return os.path.lexists(path / RECORD)


def check_weights(path: Path) -> None:
    """Raise :class:`DataError` for weights, named by their own path, of a run that :func:`read_run` would refuse for a link."""
    folder = path.parent.parent
    if path.parent.name == "weights" and is_run(folder):
        run_folder(folder).check()


def remove_leftovers(run: Run) -> None:
    """Remove the temporaries that a killed training left among the weights, by the names that ours have or had."""
    folder = run_folder(run.path)
    for entry in folder.entries("weights"):
        if _LEFTOVER.fullmatch(entry.name) and entry.kind == "file":
            folder.remove(entry.name)


def start_run(
    parent: Path, name: str | None, *, kind: str, verb: str, exist_ok: bool = False, wait: float = LOCK_WAIT
) -> Run:
    """Make the folder of a new run below ``parent``; without a name the next free of train, train2, ...

    Raises :class:`ConfigError` if a run of that name is there and ``exist_ok`` is not set, :class:`Busy` if another process
    still trains it after ``wait`` seconds, and :class:`DataError` if it, or what is in it, is a link or a special file.
    (``parent.parent``, project.runs, may be a link.)
    """
    if name is not None and (Path(name).name != name or name in ("", ".", "..")):
        raise ConfigError(f"{name!r} cannot be a run's name", hint="a name, not a path; the parent is project.runs")
    path = free_place(parent, verb) if name is None else parent / name
    parent.parent.mkdir(parents=True, exist_ok=True)
    runs = Folder(parent.parent, "the folder of runs")
    if runs.path(parent.name, "folder").exists():
        runs.path(f"{parent.name}/{path.name}", "folder")
    run_folder(path).check({"weights": "folder", RECORD: "file", _LOCK: "file"})
    if _taken(path) and not exist_ok:
        raise ConfigError(
            f"there is a run {path} already", hint="choose another name=, or set exist_ok=true or resume=true"
        )
    runs.make_folder(f"{parent.name}/{path.name}/weights", exist_ok=True)
    run = Run(path=path, kind=kind, verb=verb, created=now(), versions=installed_versions())
    run.save(wait=wait)
    return run


def free_place(parent: Path, name: str) -> Path:
    """The first of ``name``, ``name2``, ... that is not there."""
    numbered = (parent / f"{name}{n if n > 1 else ''}" for n in itertools.count(1))
    return next(path for path in numbered if not os.path.lexists(path))


def read_run(path: Path) -> Run:
    """Read the run in a folder. Raises :class:`DataError` where there is none, or a damaged or foreign one, or one with a link or
    a special file anywhere in it."""
    folder = run_folder(path)
    try:
        folder.check({"weights": "folder", RECORD: "file", _LOCK: "file"})
        record = read_json(folder.path(RECORD, "file"))
    except FileNotFoundError:
        raise DataError(f"no run at {path}: it has no {RECORD}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path / RECORD} is damaged: {error}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path / RECORD} is not a run of this version's format")
    known = {key: record[key] for key in Run.__dataclass_fields__ if key in record}
    for key, value in known.items():
        if not isinstance(value, _TYPES[str(Run.__dataclass_fields__[key].type).partition("[")[0]]):
            raise DataError(f"{path / RECORD} is damaged: {key} is {type(value).__name__}")
    if not {"kind", "verb"} <= known.keys() or not all(
        isinstance(name, str) for name in known.get("weights", {}).values()
    ):
        raise DataError(f"{path / RECORD} is damaged: it does not say what was trained")
    return Run(path=path, **known)


#: What JSON has for the types of a run's fields.
_TYPES: dict[str, Any] = {"str": str, "bool": bool, "int": int, "float": (int, float), "dict": dict, "list": list}


def list_runs(runs: Path, refused: list[FashionrecError] | None = None) -> list[Run]:
    """All readable runs below ``runs`` (train, finetune, ...), newest first. Why others are not read is added to ``refused``."""
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
    """The folders of runs below ``runs``, sorted; with an error where such a folder, or that of a verb, is a link."""
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
    """The run at a path, or of a name (``garments``, ``finetune/garments``) below ``runs``.

    Raises :class:`DataError` for a name that no run has, for one that several have, and what :func:`read_run` raises.
    """
    places = dict(_places(runs))
    found = [path for path in places if named in (path.name, f"{path.parent.name}/{path.name}")]
    if not found and is_run(Path(named)):
        return read_run(Path(named))
    if len(found) > 1:
        ways = [shell_word(f"{path.parent.name}/{path.name}") for path in found]
        raise DataError(f"{len(found)} runs are named {named}", hint=f"say which: {', '.join(ways)}")
    if not found:
        from fashionrec.config import nearest

        hint = nearest(named, [path.name for path in places]) or "`fashionrec runs list` names them"
        raise DataError(f"no run {named} under {runs}", hint=hint)
    if error := places[found[0]]:
        raise error
    return read_run(found[0])


def newest_promoted(runs: Path, kind: str, refused: list[FashionrecError] | None = None) -> Run | None:
    """The finished run of a kind that is used where none is named: the one promoted last, or None.

    A training is promoted when it begins to exist, by hand at the time of the command. ``refused``: as in :func:`list_runs`.
    """
    found = list_runs(runs, refused)
    promoted = [run for run in found if run.kind == kind and run.promoted and run.status == "done"]
    return max(promoted, key=_promoted_at, default=None)


def promote(run: Run, *, why: str = "", force: bool = False) -> None:
    """Have a run used where no model is named, and record when and why.

    Raises :class:`ConfigError` for a run that is not finished, and :class:`Refused` for a finetune that was refused, without
    ``force``.
    """
    if run.state != "done":
        raise ConfigError(f"run {run.path} is not finished, but {run.state}", hint="only a finished run can be used")
    decision = run.notes.get("decision", {})
    if decision.get("promoted") is False and not force:
        reasons = "; ".join(decision.get("reasons", [])) or "it did not get better"
        raise Refused(f"run {run.path} was refused: {reasons}", hint="overrule it with --force --why TEXT")
    _decide(run, True, why, force)


def demote(run: Run, *, why: str = "") -> None:
    """Have a run no longer used where no model is named, and record when and why."""
    if not run.promoted:
        raise ConfigError(f"run {run.path} is not promoted")
    _decide(run, False, why, False)


def now() -> str:
    """The time in UTC, ISO 8601, to the microsecond."""
    return datetime.datetime.now(datetime.UTC).isoformat()


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, those that are installed."""
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
    """Whether a folder holds more than a kill leaves that came before the run's record."""
    return path.exists() and any(entry.name != _LOCK for entry in run_folder(path).walk() if entry.kind != "folder")


def lock_handles(path: Path) -> tuple[int, ...]:
    """File descriptors that let a child process, which inherits them, hold a run of this process for as long as it lives."""
    context = getattr(_HELD.get(path.resolve()), "_context", None)
    handle = getattr(context, "lock_file_fd", None)
    return () if handle is None or WINDOWS else (handle,)


#: The locks of the runs that this process trains, by the folder's real path.
_HELD: dict[Path, Any] = {}


def _hold(path: Path, wait: float) -> None:
    if path.resolve() in _HELD:
        return
    lock = _lock(path, wait)
    if lock is None:
        raise Busy(f"another process is training {path}", hint="wait for it to end, then run this again")
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
    except OSError:  # a folder that cannot be written, as on a backup: nobody trains there
        return False
    if lock is None:
        return True
    lock.release()
    return False


def _lock(path: Path, wait: float) -> Any:
    """The folder's lock, held; None if another process still holds it after ``wait`` seconds."""
    from filelock import FileLock, Timeout

    lock = FileLock(run_folder(path).path(_LOCK, "file"), timeout=wait, thread_local=False)
    try:
        lock.acquire(poll_interval=0.1)
    except Timeout:
        return None
    return lock
