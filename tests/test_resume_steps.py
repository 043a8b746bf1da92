"""Test which training is gone on with, by which settings, and from where: records and checkpoints
made by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from PIL import Image

from fashionrec.config import TrainConfig, load_config
from fashionrec.dataset.prepare.prepare import write_data_yaml
from fashionrec.errors import ConfigError, DataError, FashionrecError, ModelError
from fashionrec.models.runs import Run, start_run

torch = pytest.importorskip("torch")
pytest.importorskip("ultralytics")
pytestmark = pytest.mark.train

from fashionrec.detector.training.resume import (  # noqa: E402
    Point,
    recalled,
    recover,
    same_settings,
    unfinished,
    write_rows,
)


def settings(*words: str) -> TrainConfig:
    return load_config(sets=["train.name=r", *(f"train.{word}" for word in words)], env={}).config.train


def recorded(runs: Path, name: str = "r", *, status: str = "failed", **values: Any) -> Run:
    run = start_run(runs / "train", name, kind="detector", verb="train")
    vars(run).update({"status": status, "config": {"train": settings().model_dump()}, **values})
    run.save()
    return run


def refused(error: type[FashionrecError], *given: Any) -> tuple[str, str]:
    function, *arguments = given
    with pytest.raises(error) as caught:
        function(*arguments)
    return str(caught.value), caught.value.hint


# --- which run


def test_a_run_by_its_name(tmp_path: Path) -> None:
    parent = tmp_path / "runs" / "train"
    assert refused(ConfigError, unfinished, parent, "r") == (
        f"nothing to resume in {parent / 'r'}",
        "start it again without resume",
    )
    run = recorded(tmp_path / "runs")
    assert unfinished(parent, "r") == run
    encoder = recorded(tmp_path / "runs", "e", kind="embedder")
    assert refused(ConfigError, unfinished, parent, "e") == (
        f"run {encoder.path} trains an encoder, which cannot be resumed",
        "start it again",
    )
    done = recorded(tmp_path / "runs", "d", status="done", weights={"best": "weights/best.pt"})
    assert refused(ConfigError, unfinished, parent, "d") == (
        f"run {done.path} is already finished",
        f"continue from it: model={done.path / 'weights' / 'best.pt'}",
    )
    (parent / "elsewhere").symlink_to(run.path)
    with pytest.raises(FashionrecError, match="elsewhere"):
        unfinished(parent, "elsewhere")


def test_without_a_name_the_newest_detector_that_did_not_end(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert refused(ConfigError, unfinished, runs / "train", None) == (
        f"no unfinished run in {runs / 'train'}",
        "`fashionrec runs list` shows all runs",
    )
    for n, (name, status, kind) in enumerate(
        (("old", "failed", "detector"), ("new", "failed", "detector"), ("ended", "done", "detector"))
    ):
        recorded(runs, name, status=status, kind=kind, created=f"2026-01-0{n + 1}T00:00:00+00:00")
    recorded(runs, "encoder", kind="embedder", created="2026-02-01T00:00:00+00:00")
    other = start_run(runs / "finetune", "f", kind="detector", verb="finetune")
    other.status = "failed"
    other.save()
    assert unfinished(runs / "train", None).name == "new"
    killed = recorded(runs, "killed", created="2026-03-01T00:00:00+00:00")
    record = killed.path / "run.json"
    record.write_text(record.read_text().replace('"failed"', '"running"'))
    assert unfinished(runs / "train", None).name == "killed"


def test_a_run_that_cannot_be_read_is_told_where_there_is_no_other(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    broken = recorded(runs, "broken")
    (broken.path / "run.json").write_text("{}")
    with pytest.raises(DataError, match="broken"):
        unfinished(runs / "train", None)
    recorded(runs, "whole")
    assert unfinished(runs / "train", None).name == "whole"


# --- by which settings


def test_the_settings_of_a_run_are_recalled_and_those_given_anew_win(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    before = settings("model=mine.pt", "epochs=7", "lr0=0.5", "degrees=5").model_dump()
    recorded(runs, config={"train": before | {"name": "other", "resume": False}})
    asked = settings("epochs=9", "seed=4", "resume=true")
    found = recalled(asked.model_copy(update={"name": None}), runs, ("epochs",))
    assert found.model_dump() == before | {"name": "r", "resume": True, "epochs": 9}


def test_what_the_command_line_says_comes_before_what_a_run_began_with(
    tmp_path: Path, cli: Callable[..., Result]
) -> None:
    for folder in ("d/train", "d/valid"):
        for part in ("images", "labels"):
            (tmp_path / folder / part).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "images" / "a.png")
        (tmp_path / folder / "labels" / "a.txt").write_text("1 .5 .5 .5 .5\n")
    write_data_yaml(tmp_path / "d", ["train", "valid"])
    before = settings("epochs=10", "data=gone/data.yaml", "model=yolo11n.yaml").model_dump()
    recorded(tmp_path / "runs", config={"train": before}, dataset={"fingerprint": "of other photos"})
    done = cli("train", "resume=true", "name=r", "epochs=20", "patience=5", "data=d/data.yaml")
    assert done.code == 2
    assert "resuming r: training yolo11n.yaml on d/data.yaml\n" in done.err
    assert "began with epochs=10 and cannot be resumed with epochs=20\n" in done.err


@pytest.mark.parametrize("key", ["model", "pretrained", "distill_model"])
def test_what_a_run_would_fetch_must_be_named_again(key: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run = recorded(runs, config={"train": settings(f"{key}=https://host/x.pt").model_dump()})
    assert refused(ConfigError, recalled, settings(), runs, ("data",)) == (
        f"run {run.path} would download {key}=https://host/x.pt",
        f"if that is right, repeat it: {key}=https://host/x.pt",
    )
    again = settings(f"{key}=https://host/x.pt")
    assert recalled(again, runs, (key,)).model_dump()[key] == "https://host/x.pt"


def test_only_what_teaches_nothing_may_be_another_setting(tmp_path: Path) -> None:
    run = recorded(tmp_path / "runs", config={"train": settings("mosaic=0.5").model_dump()})
    free = ("name=x", "exist_ok=true", "resume=true", "data=e", "device=0", "workers=3", "batch=3", "patience=1")
    free += ("cache=ram", "plots=false", "val=false", "save_period=2", "loggers=wandb")
    same_settings(run, settings("mosaic=0.5", *free), "f")
    last = f"keep that setting, or start a new run: model={run.path / 'weights' / 'last.pt'}"
    for words, said in (
        (("mosaic=0.5", "lr0=0.25"), "began with lr0=0.01 and cannot be resumed with lr0=0.25"),
        (("mosaic=0.5", "degrees=5"), "began with no degrees and cannot be resumed with degrees=5"),
        ((), "began with mosaic=0.5 and cannot be resumed with no mosaic"),
    ):
        assert refused(ConfigError, same_settings, run, settings(*words), "f") == (f"run {run.path} {said}", last)
    run.config = {"train": {key: value for key, value in settings().model_dump().items() if key != "balance"}}
    same_settings(run, settings("balance=loss"), "f")  # of a version that did not know it
    run.config = {}
    same_settings(run, settings("lr0=0.25"), "f")


def test_the_data_must_be_the_same(tmp_path: Path) -> None:
    run = recorded(tmp_path / "runs")
    same_settings(run, settings(), "any")
    run.dataset = {"fingerprint": "a"}
    same_settings(run, settings(), "a")
    assert refused(DataError, same_settings, run, settings("data=d"), "b") == (
        f"d is not the data of run {run.path}",
        "restore the data, or start a new run",
    )


# --- from where


def checkpoint(path: Path, **changes: Any) -> None:
    values = {"date": "2999-01-01T00:00:00+00:00", "epoch": 1, "train_args": {"epochs": 9}, "best_fitness": 0.5}
    torch.save({**values, "train_metrics": {"fitness": 0.25}, "stopper": None, **changes}, path)


def weights(run: Run) -> dict[str, int]:
    from fashionrec.detector.training.pickles import load_pickle

    return {path.name: load_pickle(path)["epoch"] for path in sorted((run.path / "weights").iterdir())}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return recorded(tmp_path / "runs")


def test_the_last_checkpoint_that_is_whole(run: Run) -> None:
    folder = run.path / "weights"
    assert recover(run, 0) is None
    checkpoint(folder / "best.pt", epoch=2)
    assert recover(run, 0) == Point(3)
    assert weights(run) == {"best.pt": 2, "last.pt": 2}
    (folder / "last.pt").write_bytes(b"")
    checkpoint(folder / "previous.pt", epoch=4)
    assert recover(run, 0) == Point(5)
    assert weights(run) == {"best.pt": 2, "last.pt": 4, "previous.pt": 4}
    checkpoint(folder / "last.pt", epoch=5)
    assert recover(run, 0) == Point(6)
    assert weights(run)["last.pt"] == 5
    for changes in (
        {"date": "2000-01-01T00:00:00+00:00"},
        {"date": None},
        {"epoch": 5.0},
        {"train_args": None},
        {"train_metrics": [1]},
        {"stopper": "x"},
    ):
        checkpoint(folder / "last.pt", **{"epoch": 5, **changes})
        assert recover(run, 0) == Point(5), changes
    checkpoint(folder / "last.pt", epoch=7, date=run.created)  # as old as the run
    assert recover(run, 0) == Point(8)


def test_a_checkpoint_that_no_crash_leaves_is_refused(run: Run) -> None:
    (run.path / "weights" / "last.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    checkpoint(run.path / "weights" / "best.pt")
    with pytest.raises(ModelError, match="Git LFS pointer"):
        recover(run, 0)
    torch.save({"date": os.system}, run.path / "weights" / "last.pt")
    with pytest.raises(ModelError, match="contains code"):
        recover(run, 0)


def test_the_best_checkpoint_is_the_last_one_where_that_was_the_best(run: Run) -> None:
    folder = run.path / "weights"
    for last, best, expected in (
        ({"train_metrics": {"fitness": 0.5}}, {"epoch": 0}, 1),
        ({"train_metrics": {"fitness": 0.25}}, {"epoch": 0}, 0),
        ({"train_metrics": None}, {"epoch": 0}, 0),
        ({"train_metrics": {"fitness": 0.25}}, None, 1),
    ):
        checkpoint(folder / "last.pt", **last)
        (folder / "best.pt").unlink(missing_ok=True)
        if best:
            checkpoint(folder / "best.pt", **best)
        assert recover(run, 0) == Point(2)
        assert weights(run) == {"best.pt": expected, "last.pt": 1}


@pytest.mark.parametrize(
    ("stopper", "patience", "finish"),
    [
        (None, 1, False),
        ({}, 1, False),
        ({"best_epoch": 0}, 1, False),
        ({"best_epoch": 3}, 3, True),
        ({"best_epoch": 4}, 3, False),
        ({"best_epoch": 3}, 0, False),
    ],
)
def test_patience_may_have_ended_before(stopper: Any, patience: int, finish: bool, run: Run) -> None:
    checkpoint(run.path / "weights" / "last.pt", epoch=5, stopper=stopper)
    assert recover(run, patience) == Point(6, finish)


def test_what_all_epochs_were_trained_of_only_ends(run: Run) -> None:
    folder = run.path / "weights"
    for epoch, finish in ((7, False), (8, True), (9, True)):
        checkpoint(folder / "last.pt", epoch=epoch)
        assert recover(run, 0) == Point(epoch + 1, finish)
    (folder / "best.pt").unlink()
    checkpoint(folder / "last.pt", epoch=-1)  # stripped
    assert recover(run, 0) == Point(1, True)
    assert weights(run) == {"best.pt": -1, "last.pt": -1}
    checkpoint(folder / "best.pt", epoch=3)
    run.epochs = 4
    assert recover(run, 0) == Point(4, True)
    assert weights(run) == {"best.pt": 3, "last.pt": -1}


def test_leftovers_go_and_rows_end_where_the_checkpoint_does(run: Run) -> None:
    checkpoint(run.path / "weights" / "last.pt")
    results = run.path / "results.csv"
    results.write_text("epoch,loss\n1,5\n2,4\n3,3\n")
    recover(run, 0)
    assert results.read_text().splitlines() == ["epoch,loss", "1,5", "2,4"]


def test_rows_of_a_table_that_was_written_twice_or_torn(tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    write_rows(results, 3)
    assert not results.exists()
    results.write_text("epoch,loss\n2,9\n1,8\n 2 ,7\nx,6\n3,5\n3,4,4\n4,3\n2\n")
    write_rows(results, 3)
    assert results.read_text().splitlines() == ["epoch,loss", "1,8", " 2 ,7", "3,5"]
    results.write_text("")
    write_rows(results, 3)
    assert results.read_text().strip() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]
