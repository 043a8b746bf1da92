"""The demo's command: what it prints of a chain that was run, and what a stage says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from fashionrec.cli import demo
from fashionrec.cli.output import Output

REPORT: dict[str, Any] = {
    "detector": {"map50": 0.7504, "map50_95": 0.4},
    "search": {
        "recall_at_1": 0.5,
        "recall_at_10": 0.9,
        "mrr": 0.625,
        "colour_histogram": {"recall_at_1": 0.125, "recall_at_10": 0.25, "mrr": 0.2},
    },
    "seconds": {"world": 9.0, "total": 61.4},
    "page": "runs/my demo/report.html",
}


class Ready(demo.Chain):
    """A chain that was run before."""

    def run(self) -> dict[str, Any]:
        self.example_query = "runs/demo/world/queries/a b.jpg"
        return REPORT


def test_the_report_of_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    demo.mount(app, Ready)
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    done = CliRunner().invoke(app, ["demo", "--set", "project.runs=runs/demo"])
    assert done.exit_code == 0, done.output
    assert [re.split(r"  +", line) for line in done.stdout.splitlines()] == [
        [""],
        ["what", "measured"],
        ["detector mAP50, unseen photos", "0.750"],
        ["detector mAP50-95", "0.400"],
        ["search recall@1, unseen views", "0.500 (colour histogram 0.125)"],
        ["search recall@10", "0.900 (colour histogram 0.250)"],
        ["search MRR", "0.625 (colour histogram 0.200)"],
        ["seconds in all", "61"],
        [""],
        ["report: runs/my demo/report.html"],
    ]
    assert done.stderr.splitlines() == [
        "next: fashionrec query PHOTO.jpg --index runs/demo/catalogue --html answer.html   (a photo of your own)",
        "      fashionrec query 'runs/demo/world/queries/a b.jpg' --index runs/demo/catalogue",
        '      fashionrec query --text "a red striped dress" --index runs/demo/catalogue',
        "      open 'runs/my demo/report.html'",
    ]
    assert opened == []
    assert CliRunner().invoke(app, ["demo", "--open", "--quiet"]).exit_code == 0
    assert opened == ["runs/my demo/report.html"]


def test_a_stage_is_counted_and_timed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    chain = demo.Chain([], [f"project.runs={tmp_path}"], Output())
    assert (chain.root, chain.catalogue, chain.world, chain.second) == (
        tmp_path,
        tmp_path / "catalogue",
        tmp_path / "world",
        tmp_path / "second",
    )
    for name in ("world", "train"):
        with chain.stage(name, f"making the {name}"):
            pass
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "[" in line] == ["[1/9] making the world", "[2/9] making the train"]
    assert [line for line in lines if re.fullmatch(r" {6}\d\.\d s", line)] == lines[2::3]
    assert list(chain.seconds) == ["world", "train"]
    assert all(0 <= seconds < 60 for seconds in chain.seconds.values())
    settings = chain.session(train={"epochs": 7}).config
    assert (settings.train.epochs, settings.project.runs) == (7, str(tmp_path))
