"""Rows of the commands of `runs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fashionrec.models.runs import start_run
from options.table import World, row


def finished(name: str, map50_95: float, **changes: Any) -> Path:
    """A finished training, as it lies on the disk."""
    run = start_run(Path("runs/train"), name, kind="detector", verb="train")
    run.config = {"train": {"epochs": 3, "name": name}}
    run.dataset = {"path": "data.yaml", "fingerprint": "f", "valid": "v"}
    run.weights = {"best": "weights/best.pt"}
    run.metrics = {"map50_95": map50_95, "split": "valid"}
    run.status, run.promoted = "done", True
    for key, value in changes.items():
        setattr(run, key, value)
    run.save()
    return run.path


def promotions(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((path / "run.json").read_text())["promotions"]
    return found


@row("runs list", "--json")
@row("runs show", "RUN", "--json")
@row("runs compare", "A", "B", "--json")
def what_is_there(world: World) -> None:
    finished("one", 0.25)
    finished("two", 0.5)
    assert {one["name"] for one in world.json("runs", "list")["runs"]} == {"one", "two"}
    assert world.json("runs", "show", "one")["metrics"]["map50_95"] == 0.25
    both = world.json("runs", "compare", "two", "one")
    assert (both["a"]["name"], both["b"]["name"]) == ("two", "one")


@row("runs promote", "RUN", "--force", "--why", "--json")
@row("runs demote", "RUN", "--why", "--json")
def which_is_used(world: World) -> None:
    one, two = finished("one", 0.25), finished("two", 0.5)
    demoted = world.json("runs", "demote", "two", "--why", "too slow")
    assert (demoted["run"], demoted["promoted"], demoted["used"]) == (str(two), False, str(one))
    assert promotions(two)[-1]["why"] == "too slow"
    promoted = world.json("runs", "promote", "two", "--why", "quick enough")
    assert (promoted["promoted"], promoted["used"]) == (True, str(two))
    assert promotions(two)[-1]["why"] == "quick enough"
    refused = finished("three", 0.1, verb="finetune", promoted=False, notes={"decision": {"promoted": False}})
    world.run("runs", "promote", "three", "--why", "all the same", code=3)
    world.run("runs", "promote", "three", "--force", "--why", "all the same")
    assert promotions(refused)[-1]["why"] == "all the same"
