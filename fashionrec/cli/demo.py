"""The command ``demo``: the whole chain on synthetic data.

It calls the functions of the other commands with the settings of ``configs/demo.yaml``.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from fashionrec.cli.output import Output
from fashionrec.cli.session import Command, Context, Session
from fashionrec.common.documents import read_json
from fashionrec.common.folder import Folder, is_link
from fashionrec.common.text import shell_word
from fashionrec.config.captioners import ENCODER
from fashionrec.errors import DataError

MARKER = ".fashionrec-demo"
#: Names that a demo creates in its folder.
_OWN_FILES = re.compile(r"catalogue|train|finetune|bundles|report\.(html|json)|\.?(world|second)(\.lock|\.staging)?")

#: Figures of an evaluation and of a build that the report shows.
_DETECTOR_FIGURES = ("map50", "map50_95", "precision", "recall", "per_class", "images", "boxes")
_BUILD_FIGURES = ("photos", "items", "products", "failed", "photos_per_second", "index")


class MakeChain(Protocol):
    """A factory of chains: takes settings files, single settings, and the output."""

    def __call__(self, files: list[str], sets: list[str], out: Output) -> "Chain": ...


def mount(app: typer.Typer, make_chain: MakeChain | None = None) -> None:
    """Mount the command; ``make_chain`` creates what it runs, :class:`Chain` by default."""

    def demo(
        context: Context,
        open_: Annotated[bool, typer.Option("--open", help="Open the report in the browser when done.")] = False,
    ) -> None:
        session = context.session
        show(session, (make_chain or Chain)(session.files, session.sets, session.out), open_)

    app.command("demo", cls=Command, help="Run the whole chain on synthetic data: no key, no GPU.")(demo)


def show(session: Session, chain: "Chain", open_: bool) -> None:
    """Run the chain, and print its report or open it in the browser."""
    report = chain.run()
    session.out.result(report, lambda: _print(session.out, report))
    query = chain.example_query
    session.out.next(
        f"fashionrec query YOUR_PHOTO.jpg --index {shell_word(chain.catalogue)} --html answer.html",
        f"fashionrec query {shell_word(Path(query))} --index {shell_word(chain.catalogue)}",
        f'fashionrec query --text "a red striped dress" --index {shell_word(chain.catalogue)}',
        f"open {shell_word(Path(report['page']))}",
    )
    if open_:
        typer.launch(report["page"])


class Commands:
    """The functions of the other commands."""

    def __init__(self) -> None:
        from fashionrec.cli.captioners import run_caption_catalogue
        from fashionrec.cli.data import run_fetch
        from fashionrec.cli.evaluating import run_evaluate_detector, run_evaluate_search
        from fashionrec.cli.index import run_build
        from fashionrec.cli.models import model_choice
        from fashionrec.cli.training import run_finetune, run_train

        self.fetch, self.train, self.finetune = run_fetch, run_train, run_finetune
        self.build, self.caption, self.model_choice = run_build, run_caption_catalogue, model_choice
        self.evaluate_detector, self.evaluate_search = run_evaluate_detector, run_evaluate_search


class Chain:
    """The stages of the demo: each calls a command's function with the settings of demo.yaml."""

    def __init__(
        self, files: list[str], sets: list[str], out: Output, commands: Callable[[], Commands] = Commands
    ) -> None:
        self.out, self._commands = out, commands
        self._files, self._sets = ["demo", *files], sets
        self.root = Path(self.session().config.project.runs)
        self.catalogue = self.root / "catalogue"
        self.world, self.second = self.root / "world", self.root / "second"
        self.seconds: dict[str, float] = {}
        self.example_query = ""

    def session(self, **overrides: dict[str, Any]) -> Session:
        """Return a session like the command's that shows progress but prints no results."""
        session = Session(self._files, self._sets, Output(quiet=self.out.quiet, debug=self.out.debug))
        for section, values in overrides.items():
            session.override(section, values)
        return session

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        self.out.say()
        self.out.say(f"[{len(self.seconds) + 1}/9] {title}")
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        self.out.say(f"      {self.seconds[name]:.1f} s")

    def run(self) -> dict[str, Any]:
        from fashionrec.common.extras import need

        need("torch", "ultralytics", "transformers", "onnx", what="the demo, which trains its own models,")
        self.clear()
        begin, commands = time.perf_counter(), self._commands()
        settings = self.session().config
        data, new = str(self.world / "data.yaml"), str(self.second / "data.yaml")
        products, queries = self.world / "catalogue" / "products.csv", self.world / "queries" / "queries.csv"
        with self.stage("world", "generating images of clothes, and a second batch of street photos"):
            world = commands.fetch(self.session(), "synthetic", out=self.world)
            second = settings.demo.second.model_dump() | {"products": 0, "outfits": 0, "queries": 0}
            commands.fetch(self.session(synthetic=second), "synthetic", out=self.second)
        with self.stage("train", "training a small YOLOv8 from scratch"):
            trained = commands.train(self.session(train={"data": data, "name": "detector"}))
        with self.stage("finetune", "fine-tuning it on the second batch without forgetting the first"):
            weights = trained["weights"]["best"]
            values = {"weights": weights, "data": new, "replay": data, "name": "detector"}
            tuned = commands.finetune(self.session(finetune=values))
        promoted = tuned if tuned["promoted"] else trained
        if not tuned["promoted"]:
            self.out.say("      the fine-tuned detector was rejected; the first one stays in use")
        final = promoted["weights"].get("best_ft") or promoted["weights"]["best"]
        with self.stage("export_detector", "exporting the detector to a bundle, and measuring it on held-out photos"):
            bundle = commands.model_choice(self.session()).detector_of(Path(final))
            detection = commands.evaluate_detector(self.session(), str(bundle.path), Path(data), "test")
        with self.stage("train_embedder", "training a small CLIP on the catalogue's photos and captions"):
            clip = commands.train(
                self.session(train={"data": str(products), "name": "encoder"}, detector={"source": str(bundle.path)})
            )
        with self.stage("export_embedder", "exporting the CLIP to a bundle"):
            encoder = commands.model_choice(self.session()).embedder_of(clip["weights"]["best"])
        with self.stage("build", "building the catalogue: detect, crop, embed, index"):
            models = str(bundle.path), str(encoder.path)
            build = commands.build(self.session(), str(products), str(self.catalogue), *models)
        with self.stage("caption", "captioning its garments in English and Korean"):
            captions = commands.caption(self.session(), self.catalogue, ENCODER)
        with self.stage("search", "searching with held-out photos"):
            search = commands.evaluate_search(self.session(), str(self.catalogue), queries, baseline=True)
        report = {
            "detector": _detector_figures(detection, settings.train.model, tuned),
            "search": search,
            "captions": captions,
            "catalogue": {key: build[key] for key in _BUILD_FIGURES},
            "world": world["counts"],
        }
        start = time.perf_counter()
        examples = self.examples(queries, settings.demo.examples)
        self.seconds["report"] = time.perf_counter() - start
        self.seconds["total"] = time.perf_counter() - begin
        report["seconds"] = {name: round(value, 2) for name, value in self.seconds.items()}
        return self.write(report, examples, tuned)

    def clear(self) -> None:
        """Remove the results of an earlier demo, and nothing else."""
        if is_link(self.root):
            raise DataError(f"{self.root} is a link", hint="use the folder it leads to: --set project.runs=DIR")
        self.root.mkdir(parents=True, exist_ok=True)
        folder = Folder(self.root, "the demo's folder")
        entries = [entry.name for entry in folder.entries()]
        if entries and not folder.path(MARKER, "file").exists():
            raise DataError(
                f"{self.root} is not empty and not an earlier demo", hint="move it, or --set project.runs=DIR"
            )
        folder.check()
        for name in entries:
            if _OWN_FILES.fullmatch(name):
                folder.remove(name)
        folder.write(MARKER, "written by `fashionrec demo`, which may replace what it made in this folder\n")

    def examples(self, queries: Path, count: int) -> list[dict[str, Any]]:
        """Return views of example queries for the page.

        They are held-out photos, the first of each class in turn, and two texts.
        """
        from fashionrec.catalogue.catalogue import Catalogue
        from fashionrec.cli.query import ask
        from fashionrec.products.tables import read_products
        from fashionrec.search.query import Query
        from fashionrec.search.render.page import answer_view

        rows = read_products(queries)
        by_class: dict[str, list[Any]] = {}
        for row in rows:
            by_class.setdefault(str(row.metadata.get("category")), []).append(row)
        example_rows = [group[n] for n in range(count) for group in by_class.values() if n < len(group)][:count]
        self.example_query = str(example_rows[0].path) if example_rows else "PHOTO.jpg"
        views = []
        session = self.session(query={"k": 8, "caption": ENCODER})
        with Catalogue.open(self.catalogue, session.resolved) as catalogue:
            for row in example_rows:
                view = answer_view(catalogue, ask(session, catalogue, Query(row.path)).results[0])
                for garment in view["garments"]:
                    for hit in garment["hits"]:
                        hit["right"] = hit["product_id"] == row.product_id
                is_hit = any(hit["right"] for garment in view["garments"] for hit in garment["hits"])
                view["heading"] = (
                    "The frame marks the product in this photo."
                    if is_hit
                    else "The product in this photo is not among the hits."
                )
                views.append(view)
            for text in ("a red striped dress", "네이비 체크 스커트"):
                views.append(answer_view(catalogue, ask(session, catalogue, Query(text=text)).results[0]))
        return views

    def write(self, report: dict[str, Any], examples: list[dict[str, Any]], tuned: dict[str, Any]) -> dict[str, Any]:
        """Write the report as a page and as JSON; return it with the page's path."""
        from fashionrec.common.files import dump_json, write_atomic
        from fashionrec.common.pages import environment

        page = self.root / "report.html"
        comparison = Path(tuned["path"]) / "comparison.json"
        template = environment().get_template("demo.html")
        text = template.render(
            title="Demo report",
            report=report,
            sections=examples,
            catalogue=str(self.catalogue),
            comparison=_comparison(comparison),
        )
        write_atomic(page, text)
        report["page"] = str(page)
        write_atomic(self.root / "report.json", dump_json(report))
        return report


def _detector_figures(detection: dict[str, Any], model: str, tuned: dict[str, Any]) -> dict[str, Any]:
    figures = {key: detection[key] for key in _DETECTOR_FIGURES}
    return figures | {"model": model, "finetune": {"promoted": tuned["promoted"], **tuned["notes"]}}


def _comparison(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None


def _print(out: Output, report: dict[str, Any]) -> None:
    detector, search = report["detector"], report["search"]
    baseline = search["colour_histogram"]
    out.line()
    rows = [
        ("detector mAP50, unseen photos", f"{detector['map50']:.3f}"),
        ("detector mAP50-95", f"{detector['map50_95']:.3f}"),
        (
            "search recall@1, unseen views",
            f"{search['recall_at_1']:.3f} (colour histogram {baseline['recall_at_1']:.3f})",
        ),
        ("search recall@10", f"{search['recall_at_10']:.3f} (colour histogram {baseline['recall_at_10']:.3f})"),
        ("search MRR", f"{search['mrr']:.3f} (colour histogram {baseline['mrr']:.3f})"),
        ("total seconds", f"{report['seconds']['total']:.0f}"),
    ]
    out.table(("what", "measured"), rows)
    out.line()
    out.line(f"report: {report['page']}")
