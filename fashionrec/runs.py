"""A run: one training, as a folder with its weights and ``run.json``.

::

    runs/train/NAME/
      weights/best.pt, last.pt     (an encoder: weights/best/, a folder in the transformers format)
      run.json                     what made it: verb, resolved settings, dataset fingerprint, versions, seed, metrics
      ... plots and tables of the trainer

``status`` is running, done or failed; ``promoted`` says that it may be used where no model is named.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fashionrec.errors import ConfigError, DataError
from fashionrec.files import dump_json, write_atomic

FORMAT = "fashionrec-run"
FORMAT_VERSION = 1
RECORD = "run.json"
#: Packages whose versions a run records, where they are installed.
PACKAGES = (
    "fashionrec",
    "ultralytics",
    "torch",
    "torchvision",
    "transformers",
    "onnx",
    "onnxruntime",
    "numpy",
    "Pillow",
)


@dataclass
class Run:
    """One run and what is written of it. ``weights`` maps ``best``, ``last``, ``best_ft`` ... to paths in the folder."""

    path: Path
    kind: str  # detector | embedder
    verb: str  # train | finetune
    status: str = "running"
    promoted: bool = False
    created: str = ""
    seconds: float = 0.0
    seed: int = 0
    device: str = ""
    weights: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name

    def weights_path(self, which: str = "best") -> Path:
        """The file or folder of one of the run's weights. Raises :class:`DataError` if it has none of that name."""
        if which not in self.weights:
            raise DataError(f"run {self.path} has no {which} weights, only {', '.join(self.weights) or 'none'}")
        return self.path / self.weights[which]

    def save(self) -> None:
        """Write ``run.json`` atomically."""
        record = {"format": FORMAT, "format_version": FORMAT_VERSION, "name": self.name}
        record |= {key: value for key, value in vars(self).items() if key != "path"}
        write_atomic(self.path / RECORD, dump_json(record))


def start_run(parent: Path, name: str | None, *, kind: str, verb: str, exist_ok: bool = False) -> Run:
    """Make the folder of a new run below ``parent``; without a name the next free of train, train2, ...

    Raises :class:`ConfigError` if a run of that name is there and ``exist_ok`` is not set.
    """
    if name is not None and (Path(name).name != name or name in ("", ".", "..")):
        raise ConfigError(f"{name!r} cannot be a run's name", hint="a name, not a path; the parent is project.runs")
    if name is None:
        count = 1
        while (parent / f"{verb}{'' if count == 1 else count}").exists():
            count += 1
        path = parent / f"{verb}{'' if count == 1 else count}"
    else:
        path = parent / name
    if path.exists() and not exist_ok:
        raise ConfigError(
            f"there is a run {path} already", hint="choose another name=, or set exist_ok=true or resume=true"
        )
    (path / "weights").mkdir(parents=True, exist_ok=True)
    run = Run(path=path, kind=kind, verb=verb, created=now(), versions=installed_versions())
    run.save()
    return run


def read_run(path: Path) -> Run:
    """Read the run in a folder. Raises :class:`DataError` where there is none, or a damaged or foreign one."""
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no run at {path}: it has no {RECORD}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path / RECORD} is damaged: {error}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path / RECORD} is not a run of this version's format")
    known = {key: record[key] for key in Run.__dataclass_fields__ if key in record}
    return Run(path=path, **known)


def list_runs(runs: Path) -> list[Run]:
    """All readable runs below ``runs`` (train, finetune, ...), newest first."""
    found = []
    for record in runs.glob(f"*/*/{RECORD}"):
        try:
            found.append(read_run(record.parent))
        except DataError:
            continue
    return sorted(found, key=lambda run: (run.created, run.name), reverse=True)


def newest_promoted(runs: Path, kind: str) -> Run | None:
    """The newest finished run of a kind that may be used, or None."""
    return next((r for r in list_runs(runs) if r.kind == kind and r.promoted and r.status == "done"), None)


def now() -> str:
    """The time in UTC, ISO 8601, to the microsecond."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, those that are installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
