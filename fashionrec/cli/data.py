"""The command ``fetch-dataset``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fashionrec.cli.session import Command, Context, Session
from fashionrec.common.text import plural, shell_word
from fashionrec.errors import ConfigError, Refused

_SOURCES = "synthetic, yolo:PATH, coco:PATH, voc:PATH, folder:PATH, feed:FILE, roboflow:WORKSPACE/PROJECT/VERSION."


def mount(app: typer.Typer) -> None:
    app.command(
        "fetch-dataset",
        cls=Command,
        help="Create a dataset from one or more sources.",
    )(fetch_dataset)


def fetch_dataset(
    context: Context,
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help=f"{_SOURCES} Several are merged into one dataset.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the new dataset; must be empty.")
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="THEIRS=OURS", help='Map a class of the source, as in "t-shirt=top"; repeatable.'
        ),
    ] = None,
    counts: Annotated[
        str | None, typer.Option(metavar="TRAIN,VALID,TEST", help="Number of photos in each split.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(metavar="N", help="synthetic: number of labelled photos in all splits.")
    ] = None,
    products: Annotated[int | None, typer.Option(metavar="N", help="synthetic: number of catalogue products.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="synthetic: random seed.")] = None,
) -> None:
    session = context.session
    session.override("synthetic", {"images": images, "products": products, "seed": seed})
    session.override("dataset", {"counts": _parse_counts(counts), "map": _parse_mapping(session, map_ or [])})
    document = run_fetch(session, *sources, out=out)
    session.out.result(document, lambda: _print(session, document))
    session.out.next(*_next(document))
    requested, failed = (sum(source[key] for source in _feeds(document)) for key in ("photos", "failed"))
    if failed > session.config.feed.max_failures * requested:
        raise Refused(
            f"{failed} of {plural(requested, 'photo')} could not be downloaded,"
            " more than feed.max_failures allows; the dataset is without them",
            hint=f"see {document['path']}/problems.csv",
        )


def run_fetch(session: Session, *sources: str, out: Path | None = None) -> dict[str, Any]:
    """Create the dataset; return its path, counts, fingerprint, and what was dropped or fixed."""
    from fashionrec.dataset.fetch import fetch_dataset as create_dataset
    from fashionrec.dataset.sources import split_spec

    kind, rest = split_spec(sources[0])
    target = out or session.data / (Path(rest).name.partition(".")[0] if rest else kind)
    session.out.say(f"dataset: {target}")
    with session.out.stages() as tick:
        document = create_dataset(sources, target, session.config, store=session.data, progress=tick)
    products = target / "catalogue" / "products.csv"
    if not products.is_file():
        products = target / "products.jsonl"
    if products.is_file():
        document["products"] = str(products)
    return document


def _print(session: Session, document: dict[str, Any]) -> None:
    out = session.out
    labelled = any(name in document["counts"] for name in ("train", "valid", "test"))
    for name, count in document["counts"].items():
        if count or labelled:
            out.line(f"  {name:14} {count}")
    for action in ("dropped", "fixed", "kept"):
        for kind, count in document[action].items():
            out.line(f"  {action}: {count} {kind}")
    for source in document["sources"]:
        for note in source["notes"]:
            out.line(f"  {source['label']}: {note}")
    if any(document[action] for action in ("dropped", "fixed", "kept")):
        out.line(f"full list: {document['path']}/problems.csv")
    out.line(f"dataset: {document['path']}")


def _next(document: dict[str, Any]) -> list[str]:
    path, table = Path(document["path"]), document.get("products")
    commands = []
    if "train" in document["counts"]:
        commands += [
            f"fashionrec train {shell_word(f'data={path}/data.yaml')} model=yolov8l.pt",
            f"fashionrec dataset audit {shell_word(path)}",
        ]
    if table:
        commands.append(f"fashionrec build-index {shell_word(Path(table))} --index DIR")
    return commands or [f"fashionrec build-index {shell_word(path / 'unlabelled/images')} --index DIR"]


def _feeds(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [source for source in document["sources"] if source["label"].startswith("feed:")]


def _parse_counts(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = text.replace("/", ",").split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise ConfigError(
            f"--counts needs 3 numbers: TRAIN,VALID,TEST; got {text}", hint="for example --counts 4177,400,200"
        )
    return [int(part) for part in parts]


def _parse_mapping(session: Session, pairs: list[str]) -> dict[str, str | None] | None:
    if not pairs:
        return None
    mapping = dict(session.config.dataset.map)
    for pair in pairs:
        theirs, sign, ours = pair.rpartition("=")
        if not sign or not theirs.strip():
            raise ConfigError(
                f"--map needs THEIRS=OURS; got {pair}", hint='--map "t-shirt=top", or "shoe=null" to drop it'
            )
        mapping[theirs.strip()] = None if ours.strip().lower() in ("", "null", "none") else ours.strip()
    return mapping
