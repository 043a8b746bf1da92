"""runs list, show, compare, promote and demote: what each line and cell says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conftest import Result
from test_runs import finished

Cli = Callable[..., Result]


def rows(done: Result) -> list[list[str]]:
    assert done.code == 0, done.err
    return [line.split() for line in done.out.splitlines()]


def test_which_run_is_used_which_was_promoted_and_which_failed(cli: Cli, tmp_path: Path) -> None:
    assert cli("runs", "list").out == "no runs under runs\n"
    made = [
        finished(tmp_path / "runs/train", "a", 0.25, created="2026-01-01T10:00:00+00:00"),
        finished(tmp_path / "runs/train", "b", 0.5, created="2026-01-02T10:30:00+00:00"),
        finished(
            tmp_path / "runs/train", "c", created="2026-01-03T10:00:00+00:00", status="failed", promoted=False, epochs=1
        ),
    ]
    assert [run.promoted for run in made] == [True, True, False]
    table = rows(cli("runs", "list"))
    assert table[0] == ["run", "kind", "state", "epochs", "metric", "value", "created", "(UTC)"]
    assert sorted(table[1:]) == [
        ["train/a", "detector", "done", "3/3", "map50_95", "0.250", "promoted", "2026-01-01", "10:00"],
        ["train/b", "detector", "done", "3/3", "map50_95", "0.500", "used", "2026-01-02", "10:30"],
        ["train/c", "detector", "failed", "1/3", "map50_95", "0.500", "2026-01-03", "10:00"],
    ]
    assert "fashionrec train --resume" in cli("runs", "list").err
    told = {run["name"]: run for run in cli("runs", "list", "--json").document["runs"]}
    assert {name: (run["used"], run["promoted"], run["epochs"], run["epochs_asked"]) for name, run in told.items()} == {
        "a": (False, True, 3, 3),
        "b": (True, True, 3, 3),
        "c": (False, False, 1, 3),
    }
    assert told["a"]["seconds"] == 12.5
    assert told["a"]["metrics"] == {"map50": 0.9, "map50_95": 0.25}


def test_one_run_in_full(cli: Cli, tmp_path: Path) -> None:
    finished(tmp_path / "runs/train", "a", 0.123456)
    lines = [" ".join(line.split()) for line in cli("runs", "show", "a").out.splitlines()]
    assert lines[:5] == ["path runs/train/a", "kind detector", "state done", "promoted True", "used True"]
    assert "epochs 3/3" in lines
    assert "seconds 12.5" in lines
    assert lines.index("metrics:") < lines.index("dataset:") < lines.index("config:") < lines.index("weights:")
    assert "map50_95: 0.1235" in lines
    assert cli("runs", "show", "a").out.splitlines()[lines.index("nested:") + 1] == "      a: 1"


def test_two_runs_side_by_side(cli: Cli, tmp_path: Path) -> None:
    finished(tmp_path / "runs/train", "a", 0.25)
    other = finished(tmp_path / "runs/train", "b", 0.5)
    other.config["train"]["lr0"] = 0.02
    other.save()
    table = rows(cli("runs", "compare", "a", "b"))
    assert table[0] == ["metric", "train/a", "train/b", "difference"]
    assert ["map50_95", "0.250", "0.500", "+0.250"] in table
    assert ["map50", "0.900", "0.900", "+0.000"] in table
    assert "trained on: the same data" in cli("runs", "compare", "a", "b").out
    assert ["setting", "train/a", "train/b"] in table
    assert [row for row in table if row[1:] == ["0.01", "0.02"]] == [["lr0", "0.01", "0.02"]]
    other.dataset = {"path": "data.yaml", "fingerprint": "g", "valid": "v"}
    other.save()
    assert "trained on: different data" in cli("runs", "compare", "a", "b").out
    other.dataset = {}
    other.save()
    assert "trained on: not recorded for both data" in cli("runs", "compare", "a", "b").out


def test_what_is_used_after_a_change_of_mind(cli: Cli, tmp_path: Path) -> None:
    finished(tmp_path / "runs/train", "a", created="2026-01-01T10:00:00+00:00")
    finished(tmp_path / "runs/train", "b", created="2026-01-02T10:00:00+00:00")
    assert cli("runs", "demote", "b").out.splitlines() == [
        "runs/train/b is no longer promoted",
        "default detector: runs/train/a",
    ]
    told = cli("runs", "demote", "a", "--json").document
    assert told == {"run": "runs/train/a", "promoted": False, "used": None}
    assert cli("runs", "promote", "a").out.splitlines() == [
        "runs/train/a is promoted",
        "default detector: runs/train/a",
    ]
    forced = cli("runs", "promote", "b", "--force")
    assert (forced.code, "--force needs a reason" in forced.err) == (2, True)
