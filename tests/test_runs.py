"""Runs: found by name, told from killed ones, compared where that means something, and promoted by
hand on the record.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, keeps_its_contract
from systems import posix_only

from fashionrec.errors import Busy, ConfigError, DataError, FashionrecError
from fashionrec.evaluation.detection.run_comparison import compare_runs
from fashionrec.models.runs import (
    Run,
    check_weights,
    find_run,
    list_runs,
    lock_handles,
    newest_promoted,
    read_run,
    remove_leftovers,
    start_run,
)

CLASSES = ("dress", "top")


def finished(parent: Path, name: str, map50_95: float = 0.5, **changes: Any) -> Run:
    """A finished training, as it lies on the disk."""
    verb = parent.name
    run = start_run(parent, name, kind="detector", verb=verb)
    run.config = {verb: {"epochs": 3, "lr0": 0.01, "name": name, "nested": {"a": 1}}}
    run.dataset = {"path": "data.yaml", "fingerprint": "f", "valid": "v"}
    run.epochs, run.seconds = 3, 12.5
    run.weights = {"best": "weights/best.pt", "last": "weights/last.pt"}
    per_class = {label: {"map50": map50_95, "map50_95": map50_95} for label in CLASSES}
    run.metrics = {"map50": 0.9, "map50_95": map50_95, "split": "valid", "per_class": per_class}
    run.status, run.promoted = "done", True
    for key, value in changes.items():
        setattr(run, key, value)
    run.save()
    return read_run(run.path)


@contextmanager
def other_process(folder: Path, name: str) -> Iterator[None]:
    """Another process trains the run ``runs/train/NAME``, until it is killed."""
    script = (
        "import pathlib, sys\nfrom fashionrec.models.runs import start_run\n"
        f"start_run(pathlib.Path('runs/train'), {name!r}, kind='detector', verb='train')\n"
        "print('started', flush=True)\nsys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "started\n"
        yield
    finally:
        other.kill()
        other.wait()


def test_a_run_whose_process_is_gone_is_killed(tmp_path: Path, cli: Callable[..., Result]) -> None:
    with other_process(tmp_path, "k"):
        assert cli("runs", "list", "--json").document["runs"][0]["state"] == "running"
    done = cli("runs", "list")
    assert "killed" in done.out
    assert "fashionrec train --resume" in done.err
    assert cli("runs", "promote", "k").code == 2


def test_a_run_stays_held_while_a_process_that_it_started_works(tmp_path: Path) -> None:
    """Like production: the processes of several GPUs do when the one that began the run
    is killed.
    """
    script = (
        "import os, pathlib, signal, subprocess, sys\nfrom fashionrec.models.runs import lock_handles, start_run\n"
        "run = start_run(pathlib.Path('runs/train'), 'k', kind='detector', verb='train')\n"
        "child = subprocess.Popen(['sleep', '60'], pass_fds=lock_handles(run.path), stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
    run = read_run(tmp_path / "runs" / "train" / "k")
    assert run.state == "running"
    os.kill(int(done.stdout), 9)
    for _ in range(100):
        if run.state == "killed":
            break
    assert run.state == "killed"


def test_two_processes_do_not_write_into_one_run(tmp_path: Path) -> None:
    with other_process(tmp_path, "a"):
        assert read_run(tmp_path / "runs" / "train" / "a").state == "running"
        with pytest.raises(Busy):
            start_run(tmp_path / "runs" / "train", "a", kind="detector", verb="train", exist_ok=True, wait=0.2)


def test_a_folder_that_a_kill_left_without_a_record_is_taken(tmp_path: Path) -> None:
    (tmp_path / "train" / "a" / "weights").mkdir(parents=True)
    (tmp_path / "train" / "a" / ".lock").touch()
    assert start_run(tmp_path / "train", "a", kind="detector", verb="train").state == "running"
    (tmp_path / "train" / "b").mkdir()
    (tmp_path / "train" / "b" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="already"):
        start_run(tmp_path / "train", "b", kind="detector", verb="train")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", "a/"])
def test_a_path_is_no_name_of_a_run(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        start_run(tmp_path / "runs" / "train", name, kind="detector", verb="train")
    assert str(caught.value) == f"invalid run name {name!r}"
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_name_has_the_next_that_is_free(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "train2").symlink_to("gone")
    made = [start_run(tmp_path / "train", None, kind="detector", verb="train") for _ in range(2)]
    assert [run.path for run in made] == [tmp_path / "train" / "train", tmp_path / "train" / "train3"]
    assert [(run.path / "weights").is_dir() for run in made] == [True, True]


@pytest.mark.parametrize(
    ("name", "target", "told"),
    [
        ("train", "elsewhere", "the folder of runs {root}: train is a link (to elsewhere)"),
        ("train", None, "the folder of runs {root}: train is a file, not a folder"),
        ("train/a", "../elsewhere", "the folder of runs {root}: train/a is a link (to ../elsewhere)"),
        ("train/a", None, "the folder of runs {root}: train/a is a file, not a folder"),
        ("train/a/weights", "../../elsewhere", "run {root}/train/a: weights is a link (to ../../elsewhere)"),
        ("train/a/weights", None, "run {root}/train/a: weights is a file, not a folder"),
        ("train/a/run.json", "", "run {root}/train/a: run.json is a folder, not a file"),
        ("train/a/.lock", "", "run {root}/train/a: .lock is a folder, not a file"),
    ],
)
def test_a_run_is_made_in_folders_of_its_own(name: str, target: str | None, told: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    if target is None:
        (tmp_path / name).write_text("")
    elif target:
        (tmp_path / name).symlink_to(target)
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError) as caught:
        start_run(tmp_path / "train", "a", kind="detector", verb="train", exist_ok=True)
    assert str(caught.value) == told.format(root=tmp_path)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_weights_of_a_run_with_a_link_in_it_are_refused_by_their_own_path_too(tmp_path: Path) -> None:
    run = finished(tmp_path / "train", "a")
    (run.path / "weights" / "best.pt").write_bytes(b"w")
    check_weights(run.weights_path())
    (run.path / "link").symlink_to("gone")
    with pytest.raises(DataError, match=rf"run {run.path}: link is a link"):
        check_weights(run.path / "weights" / "best.pt")
    check_weights(run.path / "best.pt")  # not among its weights
    run.weights["best_ft"] = "weights/ft.pt"
    assert run.weights_path("best_ft") == run.path / "weights" / "ft.pt"
    with pytest.raises(DataError, match="has no other weights, only best, last, best_ft"):
        run.weights_path("other")


def test_what_a_killed_training_left_among_the_weights_is_removed(tmp_path: Path) -> None:
    run = finished(tmp_path / "train", "a")
    gone = [".best.pt.tmp", ".best.pt.copy.tmp", ".model.safetensors.0af9.tmp"]
    kept = ["best.pt", "best.pt.tmp", ".best.pt.xyz.tmp", ".best.onnx.tmp", ".best.pt"]
    for name in (*gone, *kept):
        (run.path / "weights" / name).write_text("")
    (run.path / "weights" / ".folder.pt.tmp").mkdir()
    remove_leftovers(run)
    assert {path.name for path in (run.path / "weights").iterdir()} == {*kept, ".folder.pt.tmp"}


def test_a_run_is_found_by_path_or_name(tmp_path: Path) -> None:
    for verb, name in (("train", "garments"), ("train", "both"), ("finetune", "both")):
        finished(tmp_path / verb, name)
    assert find_run(tmp_path, "garments").path == tmp_path / "train" / "garments"
    assert find_run(tmp_path, str(tmp_path / "train" / "both")).verb == "train"
    assert find_run(tmp_path, "finetune/both").verb == "finetune"
    with pytest.raises(DataError, match="2 runs named both") as caught:
        find_run(tmp_path, "both")
    assert caught.value.hint == "say which: finetune/both, train/both"
    with pytest.raises(DataError) as caught:
        find_run(tmp_path, "garmets")
    assert caught.value.hint == "did you mean garments?"


def test_the_one_promoted_last_is_used(tmp_path: Path, cli: Callable[..., Result]) -> None:
    for name in ("a", "b"):
        finished(tmp_path / "runs" / "train", name)
    assert newest_promoted(tmp_path / "runs", "detector") == read_run(tmp_path / "runs" / "train" / "b")
    done = cli("runs", "promote", "a", "--why", "better on skirts", "--json")
    assert done.document == {"run": "runs/train/a", "promoted": True, "used": "runs/train/a"}
    (entry,) = read_run(tmp_path / "runs" / "train" / "a").promotions
    assert entry["at"] > read_run(tmp_path / "runs" / "train" / "b").created
    assert (entry["why"], entry["forced"], entry["promoted"]) == ("better on skirts", False, True)
    finished(tmp_path / "runs" / "train", "c")  # a later training is later than the choice
    assert newest_promoted(tmp_path / "runs", "detector") == read_run(tmp_path / "runs" / "train" / "c")
    assert cli("runs", "demote", "c", "--why", "too slow", "--json").document["used"] == "runs/train/a"
    assert [entry["promoted"] for entry in read_run(tmp_path / "runs" / "train" / "c").promotions] == [False]
    assert cli("runs", "demote", "c").code == 2
    assert newest_promoted(tmp_path / "runs", "embedder") is None


def test_a_refused_finetune_needs_force_and_a_reason(tmp_path: Path, cli: Callable[..., Result]) -> None:
    notes = {"decision": {"promoted": False, "reasons": ["the old test set lost 7.1 points"]}}
    run = finished(tmp_path / "runs" / "finetune", "ft", promoted=False, notes=notes)
    before = (run.path / "run.json").read_bytes()
    refused = cli("runs", "promote", "ft")
    assert refused.code == 3
    assert "the old test set lost 7.1 points" in refused.err
    assert cli("runs", "promote", "ft", "--force").code == 2
    assert (run.path / "run.json").read_bytes() == before
    assert cli("runs", "promote", "ft", "--force", "--why", "skirts matter more").code == 0
    record = json.loads((run.path / "run.json").read_text())
    assert record["promoted"] is True
    assert record["promotions"][0]["forced"] is True
    assert record["promotions"][0]["why"] == "skirts matter more"
    assert record["notes"]["decision"]["promoted"] is False  # what was measured stays


def test_metrics_are_compared_and_settings_that_differ_named(tmp_path: Path) -> None:
    a = finished(tmp_path / "train", "a", 0.50)
    b = finished(tmp_path / "train", "b", 0.56)
    b.config["train"]["lr0"] = 0.02
    b.config["train"]["mosaic"] = 0.5
    b.config["train"]["nested"]["a"] = 2
    found = compare_runs(a, b)
    assert (found.why_not, found.same_data) == ("", True)
    rows = {row.name: (row.a, row.b, row.difference) for row in found.metrics}
    assert rows["map50_95"] == (0.50, 0.56, pytest.approx(0.06))
    assert {row.name for row in found.per_class} == {f"{c}, {m}" for c in CLASSES for m in ("map50", "map50_95")}
    assert found.settings == {"lr0": (0.01, 0.02), "nested.a": (1, 2), "mosaic": (None, 0.5)}
    assert found.versions == {}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dataset": {"fingerprint": "f", "valid": "other"}}, "measured on different photos or labels"),
        ({"dataset": {}}, "not recorded"),
        ({"kind": "embedder"}, "is a detector"),
        ({"status": "failed"}, "not finished"),
        ({"metrics": {"map50_95": 0.6, "split": "test"}}, "measured on different splits"),
        ({"verb": "finetune", "dataset": {"new": {"fingerprint": "v"}}}, "or in different ways"),
    ],
)
def test_metrics_of_other_tests_are_not_compared(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    a, b = finished(tmp_path / "train", "a"), finished(tmp_path / "train", "b", 0.9, **change)
    found = compare_runs(a, b)
    assert why in found.why_not
    assert all(row.difference is None for row in [*found.metrics, *found.per_class])
    assert found.to_dict()["comparable"] is False


def test_only_numbers_are_compared_and_each_metric_that_either_has(tmp_path: Path) -> None:
    a, b = finished(tmp_path / "train", "a"), finished(tmp_path / "train", "b")
    a.metrics = {"split": "valid", "best": True, "map50": 0.5, "per_class": {"top": {"note": "x", "map50": 0.25}}}
    b.metrics = {"epoch": 7, "split": "valid", "map50": 0.75, "per_class": {"dress": {"map50": 1}}}
    found = compare_runs(a, b)
    assert found.why_not == ""
    assert [tuple(vars(row).values()) for row in found.metrics] == [
        ("map50", 0.5, 0.75, 0.25),
        ("epoch", None, 7.0, None),
    ]
    assert [tuple(vars(row).values()) for row in found.per_class] == [
        ("dress, map50", None, 1.0, None),
        ("top, map50", 0.25, None, None),
    ]
    document = found.to_dict()
    assert (document["comparable"], document["why_not"], document["same_data"]) == (True, "", True)
    assert document["metrics"][0] == {"name": "map50", "a": 0.5, "b": 0.75, "difference": 0.25}


def test_more_training_data_does_not_forbid_the_comparison(tmp_path: Path) -> None:
    a = finished(tmp_path / "train", "a", 0.5)
    b = finished(tmp_path / "train", "b", 0.6, dataset={"fingerprint": "more", "valid": "v"})
    assert compare_runs(a, b).why_not == ""
    assert compare_runs(a, b).same_data is False


def test_trainings_of_an_encoder_on_one_table_are_compared(tmp_path: Path) -> None:
    metrics = {"held_out_recall_at_1": 0.5, "held_out_photos": 8}
    about = {"kind": "embedder", "dataset": {"path": "p.csv", "fingerprint": "t", "rows": 40}, "metrics": metrics}
    a, b = finished(tmp_path / "train", "a", **about), finished(tmp_path / "train", "b", **about)
    assert compare_runs(a, b).why_not == ""
    assert compare_runs(a, b).metrics[0].difference == 0.0
    b.dataset = {"path": "q.csv", "fingerprint": "u", "rows": 40}
    assert compare_runs(a, b).why_not == "measured on different photos or labels"


def test_finetunes_on_one_new_test_set_are_compared(tmp_path: Path) -> None:
    dataset = {"new": {"fingerprint": "n"}, "old": {"fingerprint": "o"}}
    a, b = (finished(tmp_path / "finetune", name, value, dataset=dataset) for name, value in (("a", 0.5), ("b", 0.7)))
    assert compare_runs(a, b).why_not == ""


def test_the_command_line_and_its_contracts(tmp_path: Path, cli: Callable[..., Result]) -> None:
    assert cli("runs", "list").out == "no runs under runs\n"
    finished(tmp_path / "runs" / "train", "a", 0.5)
    finished(tmp_path / "runs" / "train", "b", 0.6, dataset={"fingerprint": "f", "valid": "other"})
    listed = cli("runs", "list", "--json").document
    assert [run["name"] for run in listed["runs"]] == ["b", "a"]
    keeps_its_contract("runs-list", listed)
    shown = cli("runs", "show", "a", "--json").document
    assert shown["metrics"]["per_class"]["top"] == {"map50": 0.5, "map50_95": 0.5}
    assert (shown["state"], shown["config"]["train"]["lr0"], shown["path"]) == ("done", 0.01, "runs/train/a")
    compared = cli("runs", "compare", "a", "b", "--json").document
    assert compared["comparable"] is False
    keeps_its_contract("runs-compare", compared)
    human = cli("runs", "compare", "a", "b")
    assert human.out.startswith("metrics cannot be compared: measured on different photos or labels\n")
    assert "fashionrec evaluate --weights runs/train/a" in human.err
    assert "lr0: 0.01" in cli("runs", "show", "runs/train/a").out
    assert cli("runs", "show", "none").code == 2


def test_runs_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    finished(tmp_path / "train", "a")
    (tmp_path / "train" / "b").mkdir()
    (tmp_path / "train" / "b" / "run.json").write_text("{")
    (tmp_path / "c").mkdir()
    (tmp_path / "train" / "c").symlink_to("a")
    (tmp_path / "train" / "notes").symlink_to("../c")  # no run, and none of ours
    (tmp_path / "finetune").symlink_to("train")
    (tmp_path / "other").symlink_to("train")
    refused: list[FashionrecError] = []
    assert [run.name for run in list_runs(tmp_path, refused)] == ["a"]
    links = [str(error).split(": ", 1)[1] for error in refused]
    assert (links[0], links[2], len(links)) == ("finetune is a link (to train)", "train/c is a link (to a)", 3)
    assert str(tmp_path / "train" / "b") in str(refused[1])


@posix_only("locks of open files")
def test_a_child_may_hold_the_run_of_this_process(tmp_path: Path) -> None:
    run = start_run(tmp_path / "train", "a", kind="detector", verb="train")
    (handle,) = lock_handles(run.path)
    assert os.path.samestat(os.fstat(handle), (run.path / ".lock").stat())
    assert lock_handles(tmp_path / "train" / "b") == ()


def test_nobody_trains_in_a_folder_whose_lock_cannot_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like production: on a backup that ."""
    with other_process(tmp_path, "k"):
        pass

    def refuse(path: str, *given: Any, **named: Any) -> int:
        if Path(path).name == ".lock":
            raise PermissionError(13, "Permission denied")
        return plain(path, *given, **named)

    plain = os.open
    run = read_run(tmp_path / "runs" / "train" / "k")
    monkeypatch.setattr(os, "open", refuse)
    assert run.state == "killed"
