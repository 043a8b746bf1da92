"""Resume a training that was stopped or killed, in its folder, after its last complete epoch.

ultralytics can resume from a ``last.pt``, with its optimizer, learning rate, averaged weights and
best score. This adds what a kill leaves between two files: a row of ``results.csv`` whose epoch was
not saved, a ``best.pt`` older than the best epoch, a training that only lacks the final validation,
or has no checkpoint yet.
"""

from __future__ import annotations

import csv
import datetime
import io
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashionrec.common.files import temporary_beside, write_atomic
from fashionrec.common.folder import Folder
from fashionrec.common.system import put
from fashionrec.common.text import TableWriter, shell_word
from fashionrec.config import TrainConfig
from fashionrec.config.yolo_options import YOLO_OPTIONS
from fashionrec.detector.training.trainer import PREVIOUS
from fashionrec.detector.training.whole import TORN, check_file, what_it_is
from fashionrec.errors import ConfigError, DataError, FashionrecError
from fashionrec.models.runs import Run, is_run, list_runs, read_run, remove_leftovers

#: Settings that may change on resume; the rest affect training.
MAY_CHANGE = frozenset(
    "name exist_ok resume data device workers batch patience cache plots val save_period loggers".split()
)


@dataclass(frozen=True)
class Point:
    """The point of resumption: ``epochs`` are done; ``finish`` if only the final validation is
    missing.
    """

    epochs: int
    finish: bool = False


def recalled(config: TrainConfig, runs: Path, given: Collection[str]) -> TrainConfig:
    """Return the settings of the run to resume: by the name in ``config``, otherwise the newest
    unfinished one; explicitly ``given`` ones override.

    Raises :class:`ConfigError` if there is no such run.
    """
    run = unfinished(runs / "train", config.name)
    asked = config.model_dump()
    kept = dict(run.config.get("train", {}))
    for key in {"model", "pretrained", "distill_model"} - set(given):
        if "://" in str(kept.get(key)):
            raise ConfigError(
                f"run {run.path} would download {key}={kept[key]}",
                hint=f"if that is right, repeat it: {key}={kept[key]}",
            )
    settings = asked | kept | {key: asked[key] for key in given}
    return TrainConfig.model_validate(settings | {"name": run.name, "resume": True})


def unfinished(parent: Path, name: str | None) -> Run:
    """Return the run of that name below ``parent``, or the newest that was stopped or killed.

    Raises :class:`ConfigError` if there is none, or it is finished.
    """
    if name is None:
        refused: list[FashionrecError] = []
        runs = [
            run for run in list_runs(parent.parent, refused) if run.path.parent == parent and run.kind == "detector"
        ]
        found = next((run for run in runs if run.state in ("killed", "failed")), None)
        if found is None and refused:
            raise refused[0]
        if found is None:
            raise ConfigError(f"no unfinished run in {parent}", hint="`fashionrec runs list` shows all runs")
        return found
    if parent.is_dir():
        Folder(parent.parent, "the folder of runs").path(f"{parent.name}/{name}", "folder")
    if not is_run(parent / name):
        raise ConfigError(f"nothing to resume in {parent / name}", hint="start it again without resume")
    run = read_run(parent / name)
    if run.kind != "detector":
        raise ConfigError(f"run {run.path} trains an encoder, which cannot be resumed", hint="start it again")
    if run.status == "done":
        raise ConfigError(
            f"run {run.path} is already finished",
            hint="continue from it: " + shell_word(f"model={run.weights_path('best')}"),
        )
    return run


def same_settings(run: Run, config: TrainConfig, fingerprint: str) -> None:
    """Raise :class:`ConfigError` or :class:`DataError` if a run would resume with other settings or
    data.
    """
    before, asked = dict(run.config.get("train", {})), config.model_dump()
    for key in {**before, **asked} if before else ():
        if key in MAY_CHANGE or (key not in before and key not in YOLO_OPTIONS) or before.get(key) == asked.get(key):
            continue
        was, now = (f"{key}={part[key]}" if key in part else f"no {key}" for part in (before, asked))
        raise ConfigError(
            f"run {run.path} began with {was} and cannot be resumed with {now}",
            hint="keep that setting, or start a new run: " + shell_word(f"model={run.path / 'weights' / 'last.pt'}"),
        )
    if run.dataset.get("fingerprint", fingerprint) != fingerprint:
        raise DataError(f"{config.data} is not the data of run {run.path}", hint="restore the data, or start a new run")


def recover(run: Run, patience: int) -> Point | None:
    """Restore a run's folder to the end of its last complete epoch; return None if there is none,
    so that it starts again.

    Checkpoints older than the run (of one that it replaced) are ignored.
    """
    weights = run.path / "weights"
    remove_leftovers(run)
    last, best = weights / "last.pt", weights / "best.pt"
    found = _checkpoint(last, run)
    for other in (weights / PREVIOUS, best):
        if found is None and (found := _checkpoint(other, run)) is not None:
            _copy(other, last)
    if found is None:
        return None
    if found["epoch"] < 0:  # stripped of its optimizer: only the final validation is missing
        if _checkpoint(best, run) is None:
            _copy(last, best)
        return Point(max(run.epochs, 1), finish=True)
    known = _checkpoint(best, run)
    epochs = int(found["epoch"]) + 1
    is_best = found["best_fitness"] == (found["train_metrics"] or {}).get("fitness")
    if known is None or (is_best and known["epoch"] != found["epoch"]):
        _copy(last, best)
    write_rows(run.path / "results.csv", epochs)
    best_epoch = int((found.get("stopper") or {}).get("best_epoch", 0))
    stopped = bool(patience and best_epoch and epochs - best_epoch >= patience)
    return Point(epochs, finish=stopped or epochs >= int(found["train_args"]["epochs"]))


def write_rows(results: Path, epochs: int) -> None:
    """Keep one complete row of a ``results.csv`` for each of the first ``epochs``, the last among
    duplicates.
    """
    if not results.is_file():
        return
    header, *rows = list(csv.reader(io.StringIO(results.read_text(encoding="utf-8")))) or [[]]
    whole = [row for row in rows if len(row) == len(header) and row[0].strip().isdigit()]
    kept = {int(row[0]): row for row in whole if int(row[0]) <= epochs}
    lines = [header, *(kept[epoch] for epoch in sorted(kept))]
    table = io.StringIO()
    TableWriter(table).writerows(lines)
    write_atomic(results, table.getvalue())


def _checkpoint(path: Path, run: Run) -> dict[str, Any] | None:
    """Return a checkpoint of this run, or None if it is missing, incomplete, or older than the run.

    Raises :class:`ModelError` for one that no crash explains: with code in it, or a Git LFS
    pointer.
    """
    from fashionrec.detector.training.pickles import ForeignCode, load_pickle

    if path.is_file() and what_it_is(path) not in TORN:
        check_file(path)
    try:
        found = load_pickle(path)
        written = datetime.datetime.fromisoformat(found["date"])
        plain = isinstance(found["epoch"], int) and isinstance(found["train_args"], dict)
        plain = plain and all(isinstance(found.get(key) or {}, dict) for key in ("train_metrics", "stopper"))
        if plain and written >= datetime.datetime.fromisoformat(run.created):
            return dict(found)
    except ForeignCode:
        raise
    except Exception:  # an incomplete pickle or zip may raise anything
        return None
    return None


def _copy(source: Path, target: Path) -> None:
    temporary = temporary_beside(target)
    shutil.copyfile(source, temporary)
    put(temporary, target)
