"""The demo's command: what it prints of a chain that was run, and what a stage says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from golden import Golden, words_of
from systems import posix_only
from typer.testing import CliRunner

from fashionrec.cli import demo
from fashionrec.cli.output import Output
from fashionrec.errors import DataError

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


@posix_only("links")
def test_what_is_no_earlier_demo_is_not_replaced(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    chain = demo.Chain([], [f"project.runs={root}"], Output(quiet=True))
    chain.clear()
    for name in ("world/a", "catalogue/b", "report.html", "mine/c", "report.txt"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    chain.clear()
    assert sorted(path.name for path in root.rglob("*")) == [demo.MARKER, "c", "mine", "report.txt"]
    (root / demo.MARKER).unlink()
    with pytest.raises(DataError) as caught:
        chain.clear()
    assert str(caught.value) == f"{root} is not empty and not an earlier demo"
    assert caught.value.hint == "move it, or --set project.runs=DIR"
    root.rename(tmp_path / "moved")
    root.symlink_to(tmp_path / "moved")
    with pytest.raises(DataError) as caught:
        chain.clear()
    assert (str(caught.value), caught.value.hint) == (
        f"{root} is a link",
        "name the folder that it leads to: --set project.runs=DIR",
    )


def test_examples_are_of_each_class_in_turn(build: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    chain = demo.Chain([], [f"project.runs={tmp_path / 'demo'}"], Output(quiet=True))
    build(photos, chain.catalogue)
    queries = tmp_path / "queries.csv"
    asked = ("green.jpg,green.jpg,dress", "red-white.jpg,red-white.jpg,dress", "red-blue.jpg,another,top")
    queries.write_text("image,product_id,category\n" + "".join(f"photos/{row}\n" for row in asked), encoding="utf-8")
    views = chain.examples(queries, 2)
    assert chain.example_query == str(photos / "green.jpg")
    assert [view["name"] and Path(view["name"]).name for view in views] == ["green.jpg", "red-blue.jpg", None, None]
    assert [view["text"] for view in views] == [None, None, "a red striped dress", "네이비 체크 스커트"]
    assert [view.get("heading") for view in views] == [
        "The product in this photo is framed.",
        "The product in this photo is not among these.",
        *(None, None),
    ]
    framed = [
        [hit["product_id"] for one in view["garments"] for hit in one["hits"] if hit["right"]] for view in views[:2]
    ]
    assert framed == [["green.jpg"], []]
    assert all(one["caption"] for view in views[:2] for one in view["garments"])


def test_the_page_of_a_report(tmp_path: Path, golden: Golden) -> None:
    def figures(start: float) -> dict[str, float]:
        names = ("queries", "recall_at_1", "recall_at_5", "recall_at_10", "mrr", "ndcg_at_10")
        return {name: start + n / 100 for n, name in enumerate(names)}

    detector = {"map50": 0.81, "map50_95": 0.52, "precision": 0.73, "recall": 0.64, "boxes": 9, "images": 5}
    report: dict[str, Any] = {
        "detector": {
            **detector,
            "per_class": {"top": {**detector, "boxes": 4, "map50": 0.91}},
            "model": "small.yaml",
            "finetune": {"promoted": True, "decision": {"reasons": ["better on both"]}},
        },
        "search": {
            **figures(1),
            "crop": figures(2),
            "whole": figures(3),
            "colour_histogram": figures(4),
            "by_class": {"skirt": figures(5)},
        },
        "catalogue": {"products": 7},
        "seconds": {"train_embedder": 3.0, "total": 61.4},
    }
    section = {"photo": None, "name": None, "text": "red", "garments": [], "notes": [], "total_ms": 0.5}
    chain = demo.Chain([], [f"project.runs={tmp_path / 'my demo'}"], Output(quiet=True))
    chain.root.mkdir()
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    row = {"test_set": "old", "metric": "map50", "before": 0.5, "after": 0.625, "difference": 0.125}
    (tuned / "comparison.json").write_text(json.dumps({"rows": [row]}))
    made = chain.write(report, [section | {"heading": "What is framed"}], {"path": str(tuned)})
    assert made["page"] == str(chain.root / "report.html")
    assert json.loads((chain.root / "report.json").read_text(encoding="utf-8")) == made
    golden.text("demo-page", words_of(chain.root / "report.html").replace(str(tmp_path), "<here>"))
