"""The demo's command: what it prints of a chain that was run, and what a stage says."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from golden import Golden, words_of
from systems import posix_only
from typer.testing import CliRunner

from fashionrec.cli import demo
from fashionrec.cli.output import Output
from fashionrec.cli.session import Session
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
        ["total seconds", "61"],
        [""],
        ["report: runs/my demo/report.html"],
    ]
    assert done.stderr.splitlines() == [
        "next: fashionrec query YOUR_PHOTO.jpg --index runs/demo/catalogue --html answer.html",
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
        "use the folder it leads to: --set project.runs=DIR",
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
        "The frame marks the product in this photo.",
        "The product in this photo is not among the hits.",
        *(None, None),
    ]
    framed = [
        [hit["product_id"] for one in view["garments"] for hit in one["hits"] if hit["right"]] for view in views[:2]
    ]
    assert framed == [["green.jpg"], []]
    assert all(one["caption"] for view in views[:2] for one in view["garments"])


class Recorded:
    """Commands that note what they are called with, and answer as if all had been done."""

    def __init__(self, promoted: bool) -> None:
        self.promoted, self.calls = promoted, list[tuple[Any, ...]]()

    def fetch(self, session: Session, source: str, *, out: Path) -> dict[str, Any]:
        drawn = session.config.synthetic
        self.calls.append(("fetch", source, out.name, drawn.style, drawn.products, drawn.outfits, drawn.queries))
        return {"counts": {"photos": 7}}

    def train(self, session: Session) -> dict[str, Any]:
        train, detector = session.config.train, session.config.detector
        self.calls.append(("train", train.data, train.name, detector.source))
        return {"weights": {"best": f"{train.name}/best"}}

    def finetune(self, session: Session) -> dict[str, Any]:
        tune = session.config.finetune
        self.calls.append(("finetune", tune.weights, tune.data, tune.replay, tune.name))
        weights = {"best_ft": "tuned/best_ft", "best": "tuned/best"}
        return {"promoted": self.promoted, "weights": weights, "notes": {"epochs": 3}, "path": "tuned"}

    def model_choice(self, session: Session) -> Any:
        def bundle(source: Path | str) -> Any:
            self.calls.append(("export", str(source)))
            return SimpleNamespace(path=Path("bundles", str(source)))

        return SimpleNamespace(detector_of=bundle, embedder_of=bundle)

    def evaluate_detector(self, session: Session, *given: object) -> dict[str, Any]:
        self.calls.append(("evaluate_detector", *given))
        return dict.fromkeys(("map50", "map50_95", "precision", "recall", "per_class", "images", "boxes", "more"), 0.5)

    def build(self, session: Session, *given: object) -> dict[str, Any]:
        self.calls.append(("build", *given))
        return dict.fromkeys(("photos", "items", "products", "failed", "photos_per_second", "index", "more"), 4)

    def caption(self, session: Session, *given: object) -> dict[str, Any]:
        self.calls.append(("caption", *given))
        return {"made": 6}

    def evaluate_search(self, session: Session, *given: object, baseline: bool) -> dict[str, Any]:
        self.calls.append(("evaluate_search", *given, baseline))
        return {"queries": 8}


def test_the_stages_are_the_commands_own_functions() -> None:
    """Each takes what the chain gives it, as :class:`Recorded` does."""
    commands = demo.Commands()
    made = {name: getattr(commands, name) for name in vars(commands)}
    assert {name: function.__name__ for name, function in made.items()} == {
        "fetch": "run_fetch", "train": "run_train", "finetune": "run_finetune", "model_choice": "model_choice",
        "evaluate_detector": "run_evaluate_detector", "build": "run_build", "caption": "run_caption_catalogue",
        "evaluate_search": "run_evaluate_search",
    }  # fmt: skip
    session = Session()
    inspect.signature(commands.fetch).bind(session, "synthetic", out=Path("w"))
    inspect.signature(commands.evaluate_detector).bind(session, "bundle", Path("data.yaml"), "test")
    inspect.signature(commands.build).bind(session, "products.csv", "catalogue", "detector", "embedder")
    inspect.signature(commands.caption).bind(session, Path("catalogue"), "local")
    inspect.signature(commands.evaluate_search).bind(session, "catalogue", Path("queries.csv"), baseline=True)


class WithoutPage(demo.Chain):
    def examples(self, queries: Path, count: int) -> list[dict[str, Any]]:
        return [{"queries": queries, "count": count}]

    def write(self, report: dict[str, Any], examples: list[dict[str, Any]], tuned: dict[str, Any]) -> dict[str, Any]:
        return report | {"examples": examples, "tuned": tuned["path"]}


@pytest.mark.train
@pytest.mark.parametrize("promoted", [True, False])
def test_what_each_stage_is_given_of_those_before(
    promoted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("torch", "ultralytics", "transformers", "onnx"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    commands: Any = Recorded(promoted)
    chain = WithoutPage([], [f"project.runs={tmp_path}"], Output(), lambda: commands)
    report = chain.run()
    old, new = str(tmp_path / "world" / "data.yaml"), str(tmp_path / "second" / "data.yaml")
    products = str(tmp_path / "world" / "catalogue" / "products.csv")
    queries, catalogue = tmp_path / "world" / "queries" / "queries.csv", tmp_path / "catalogue"
    weights = "tuned/best_ft" if promoted else "detector/best"
    detector, encoder = str(Path("bundles", weights)), str(Path("bundles/encoder/best"))
    plain = chain.session().config
    drawn, shipped = plain.synthetic, plain.detector.source
    assert commands.calls == [
        ("fetch", "synthetic", "world", "studio", drawn.products, drawn.outfits, drawn.queries),
        ("fetch", "synthetic", "second", "street", 0, 0, 0),
        ("train", old, "detector", shipped),
        ("finetune", "detector/best", new, old, "detector"),
        ("export", str(Path(weights))),
        ("evaluate_detector", detector, Path(old), "test"),
        ("train", products, "encoder", detector),
        ("export", "encoder/best"),
        ("build", products, str(catalogue), detector, encoder),
        ("caption", catalogue, "local"),
        ("evaluate_search", str(catalogue), queries, True),
    ]
    names = "world train finetune export_detector train_embedder export_embedder build caption search report total"
    assert list(report.pop("seconds")) == names.split()
    figures = dict.fromkeys(("map50", "map50_95", "precision", "recall", "per_class", "images", "boxes"), 0.5)
    assert report == {
        "detector": {**figures, "model": plain.train.model, "finetune": {"promoted": promoted, "epochs": 3}},
        "search": {"queries": 8},
        "captions": {"made": 6},
        "catalogue": dict.fromkeys(("photos", "items", "products", "failed", "photos_per_second", "index"), 4),
        "world": {"photos": 7},
        "examples": [{"queries": queries, "count": plain.demo.examples}],
        "tuned": "tuned",
    }
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if re.match(r"\[\d/9\] ", line)]) == 9
    refused = "      the fine-tuned detector was rejected; the first one stays in use"
    assert said.count(refused) == (0 if promoted else 1)


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
