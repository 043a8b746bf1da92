"""Runs and demos of somebody else: one with a link or a special file in it is refused by name, and
nothing is changed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from foreign import Cli, every_plant, put, refused, state
from test_cli_dataset import make_yolo

from fashionrec.cli.demo import MARKER, Chain
from fashionrec.cli.output import Output
from fashionrec.errors import DataError
from fashionrec.models.runs import newest_promoted, read_run, start_run
from tests.conftest import TINY


def make_run(tmp_path: Path, name: str = "r1") -> Path:
    run = start_run(tmp_path / "runs/train", name, kind="detector", verb="train")
    for weights in ("best.pt", "last.pt"):
        (run.path / "weights" / weights).write_bytes(b"weights")
    (run.path / "results.csv").write_text("epoch\n1\n")
    run.weights = {"best": "weights/best.pt", "last": "weights/last.pt"}
    run.metrics, run.config = {"map50_95": 0.5}, {"train": {"epochs": 1}}
    run.status, run.promoted = "done", True
    run.save()
    return run.path


RUN_NAMES = ["run.json", ".lock", "weights", "weights/best.pt", "results.csv", "train.log", "weights/.last.pt.copy.tmp"]


@every_plant
@pytest.mark.parametrize("name", RUN_NAMES)
def test_a_run_with_a_link_in_it_is_refused_by_every_command(
    name: str, plant: str, cli: Cli, tmp_path: Path, outside: Path
) -> None:
    path, other = make_run(tmp_path), make_run(tmp_path, "r2")
    make_yolo(tmp_path / "src", 4)
    put(path / name, plant, outside)
    before = state(tmp_path / "runs")
    data = tmp_path / "src/data.yaml"
    for words in (
        ("runs", "show", "r1"),
        ("runs", "show", path),
        ("runs", "promote", "r1"),
        ("runs", "demote", "r1"),
        ("runs", "compare", "r1", "r2"),
        ("evaluate", "--weights", path, "--data", data),
        ("export", path, "--out", "bundle"),
        ("export", path / "weights/last.pt", "--out", "bundle"),
        ("finetune", "--weights", path, "--data", data),
        ("finetune", "--weights", path / "weights/last.pt", "--data", data),
    ):
        if name == "weights" and "last.pt" in str(words):
            continue  # there is none
        refused(cli(*words), name)
        assert state(tmp_path / "runs") == before, words
    done = cli("runs", "list", "--json")
    assert [run["name"] for run in done.document["runs"]] == ["r2"]
    assert name in done.document["refused"][0]
    assert f"{path.name}: {name}" in cli("runs", "list").err
    found = newest_promoted(tmp_path / "runs", "detector")
    assert found is not None
    assert found.path.resolve() == other
    assert state(tmp_path / "runs") == before


@pytest.mark.train
@every_plant
@pytest.mark.parametrize("name", ["train", "train/r1", *(f"train/r1/{name}" for name in RUN_NAMES)])
def test_no_training_begins_in_a_run_with_a_link(
    name: str, plant: str, cli: Cli, tmp_path: Path, outside: Path
) -> None:
    make_run(tmp_path)
    put(tmp_path / "runs" / name, plant, outside)
    before = state(tmp_path / "runs")
    with pytest.raises(DataError, match=Path(name).name):
        start_run(tmp_path / "runs/train", "r1", kind="detector", verb="train", exist_ok=True)
    done = cli("train", "resume=true", "name=r1", "data=src/data.yaml")
    assert done.code == 2
    assert Path(name).name in done.err
    assert state(tmp_path / "runs") == before


def test_the_folder_of_runs_may_be_a_link_itself_but_not_a_run_in_it(cli: Cli, tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "runs").rename(tmp_path / "big-disk")
    (tmp_path / "runs").symlink_to("big-disk")
    assert cli("runs", "show", "r1").code == 0
    assert cli("runs", "demote", "r1").code == 0
    assert start_run(tmp_path / "runs/train", "r2", kind="detector", verb="train").path.is_dir()
    (tmp_path / "runs/train/r3").symlink_to("r1")
    refused(cli("runs", "show", "r3"), "r3")
    assert cli("runs", "show", tmp_path / "runs/train/r3").code == 0, "reached through a link by the user"
    assert "train/r3" in cli("runs", "list").err


@pytest.mark.parametrize("weights", ["../../../outside/secret.jpg", "{outside}/secret.jpg", "", 7, ["best"]])
def test_weights_that_a_record_names_elsewhere_are_refused(
    weights: object, cli: Cli, tmp_path: Path, outside: Path
) -> None:
    path = make_run(tmp_path)
    record = json.loads((path / "run.json").read_text())
    record["weights"]["best"] = weights.format(outside=outside) if isinstance(weights, str) else weights
    (path / "run.json").write_text(json.dumps(record))
    done = cli("export", path, "--out", "bundle")
    assert done.code == 2
    assert "is not a name inside it" in done.err or "is damaged" in done.err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("field", "value"), [("weights", []), ("kind", None), ("promoted", "yes"), ("metrics", 3), ("promotions", {})]
)
def test_a_record_of_other_types_is_refused(field: str, value: object, cli: Cli, tmp_path: Path) -> None:
    path = make_run(tmp_path)
    record = json.loads((path / "run.json").read_text())
    record[field] = value
    (path / "run.json").write_text(json.dumps(record))
    refused(cli("runs", "show", "r1"), "run.json")


def test_a_report_of_compare_does_not_follow_links(cli: Cli, tmp_path: Path, outside: Path) -> None:
    make_yolo(tmp_path / "src", 4)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/compare").symlink_to(outside)
    refused(cli("compare", TINY / "detector", "--data", "src", "--split", "train", "--name", "c"), "compare")


# --- the demo ---


@every_plant
@pytest.mark.parametrize("name", ["", MARKER, "world", "train", "report.html", "unknown"])
def test_a_link_in_an_earlier_demo_is_refused(name: str, plant: str, tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "demo"
    root.mkdir()
    (root / MARKER).write_text("written by `fashionrec demo`")
    put(root / name if name else root, plant, outside)
    before = state(tmp_path)
    chain = Chain([], [f"project.runs={root}"], Output(quiet=True))
    if name or plant in ("file", "relative", "folder", "missing", "loop"):
        with pytest.raises(DataError, match=name or "demo"):
            chain.clear()
        assert state(tmp_path) == before


def test_a_demo_removes_what_it_made_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    for name in ("world/data.yaml", "train/detector/run.json", "report.html", MARKER, "notes.txt", "mine/thesis.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    Chain([], [f"project.runs={root}"], Output(quiet=True)).clear()
    assert sorted(path.name for path in root.iterdir()) == [MARKER, "mine", "notes.txt"]


def test_runs_of_older_versions_open(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    for name in ("versions", "promotions", "device"):  # were not there in every version
        record = json.loads((path / "run.json").read_text())
        del record[name]
        (path / "run.json").write_text(json.dumps(record))
    assert read_run(path).weights_path("best") == path / "weights/best.pt"
