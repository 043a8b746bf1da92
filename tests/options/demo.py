"""Rows of demo, with a chain of stages that are none: the real one trains for minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from fashionrec.cli.demo import Chain, mount
from fashionrec.cli.main import make_app
from options.table import World, row


class Finished(Chain):
    """A chain whose work is done."""

    def run(self) -> dict[str, Any]:
        return {"page": "runs/demo/report.html"}


@row("demo", "--open", "--json")
def a_report(world: World) -> None:
    app = make_app("doctor")
    mount(app, Finished)
    opened: list[str] = []
    world.patch.setattr(typer, "launch", opened.append)
    assert world.json("demo", app=app) == {"page": "runs/demo/report.html"}
    assert opened == []
    world.json("demo", "--open", app=app)
    assert opened == ["runs/demo/report.html"]
    assert not Path("runs").exists()
