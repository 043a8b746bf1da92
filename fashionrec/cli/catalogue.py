"""catalogue: look into one, change it in place, go back, tidy up, take it elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.index import finished, print_report
from fashionrec.cli.query import find_catalogue
from fashionrec.cli.reindex import reindex
from fashionrec.cli.session import Command, Context, Session
from fashionrec.common.text import shell_word
from fashionrec.errors import Refused, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fashionrec.catalogue.build.report import BuildReport
    from fashionrec.store.generations import Generation
    from fashionrec.store.items import StoredItem

_Index = Annotated[str | None, typer.Argument(metavar="CATALOGUE", help="The catalogue's folder.")]
_To = Annotated[str | None, typer.Option("--index", help="The catalogue's folder.")]


def mount(app: typer.Typer) -> None:
    family = typer.Typer(
        help="Look into a catalogue, change it, go back, tidy up.", no_args_is_help=True, rich_markup_mode=None
    )
    family.command("list", cls=Command, help="The catalogues in a folder.")(list_)
    family.command(
        "show", cls=Command, help="What a catalogue holds and what it was built with, or one product of it."
    )(show)
    family.command("add", cls=Command, help="Add photos or products; what is there stays.")(add)
    family.command("remove", cls=Command, help="Take products away.")(remove)
    family.command(
        "update", cls=Command, help="Give products other data (price, stock ...) without a look at their photos."
    )(update)
    family.command("verify", cls=Command, help="Hash every file of a catalogue against its manifest.")(verify)
    family.command("rollback", cls=Command, help="Serve the generation before.")(rollback)
    about = "Another index over the same vectors; nothing is embedded again."
    family.command("reindex", cls=Command, help=about)(reindex)
    family.command("compact", cls=Command, help="Leave out what nothing refers to any more.")(compact)
    family.command("export", cls=Command, help="Write it as Parquet tables and npy arrays.")(export)
    family.command("import", cls=Command, help="Make a catalogue of an export.")(import_)
    app.add_typer(family, name="catalogue")


def list_(
    context: Context,
    folder: Annotated[Path | None, typer.Argument(help="Where to look; the data folder by default.")] = None,
) -> None:
    session = context.session
    from fashionrec.errors import CatalogueError
    from fashionrec.store.generations import is_catalogue, read_current

    where = folder or session.data
    found: list[dict[str, Any]] = []
    for path in [where, *sorted(where.glob("*"))]:
        if not is_catalogue(path):
            continue
        try:
            current = read_current(path)
        except CatalogueError as error:
            found.append({"path": str(path), "error": str(error)})
            continue
        manifest = current.manifest
        found.append(
            {
                "path": str(path),
                "generation": current.name,
                "created": manifest.created,
                "counts": dict(manifest.counts),
                "models": {kind: entry.name for kind, entry in manifest.bundles.items()},
                "index": manifest.index.kind if manifest.index else None,
                "bytes": manifest.size,
            }
        )

    def human() -> None:
        if not found:
            session.out.line(f"no catalogues in {where}")
            return
        rows = [
            (one["path"], "damaged", "", "", "", "", "", one["error"])
            if "error" in one
            else (
                one["path"],
                one["generation"],
                one["counts"]["products"],
                one["counts"]["items"],
                one["index"],
                f"{one['bytes'] / 1e6:.1f}",
                one["models"].get("embedder", ""),
                str(one["created"])[:16].replace("T", " "),
            )
            for one in found
        ]
        columns = ("catalogue", "generation", "products", "items", "index", "MB", "encoder", "created (UTC)")
        session.out.table(columns, rows, right=(2, 3, 5))

    session.out.result({"catalogues": found}, human)
    if found:
        session.out.next(f"fashionrec query PHOTO --index {shell_word(found[0]['path'])}")
    else:
        session.out.next("fashionrec build-index PHOTOS")


def show(
    context: Context,
    index: _Index = None,
    product: Annotated[str | None, typer.Option(help="One product, by its id.")] = None,
) -> None:
    session = context.session
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.store.generations import list_generations

    with Catalogue.open(find_catalogue(session, index), session.config) as catalogue:
        if product is not None:
            _show_product(session, catalogue, product)
            return
        manifest = catalogue.generation.manifest
        generations = [_generation(one, catalogue.generation) for one in list_generations(catalogue.root)]
    stored = manifest.to_dict()
    keys = ("generation", "created", "photos_from", "counts", "index", "bundles", "settings", "versions")
    document = {"path": str(catalogue.root), **{key: stored[key] for key in keys}}
    document |= {"bytes": manifest.size, "generations": generations}

    def human() -> None:
        session.out.line(f"{catalogue.root}: generation {manifest.generation}, {manifest.size >> 20} MiB")
        for name, count in manifest.counts.items():
            session.out.line(f"  {name:10} {count}")
        for kind, bundle in manifest.bundles.items():
            session.out.line(f"  {kind:10} {bundle.name} ({bundle.fingerprint[:16]})")
        if (found := manifest.index) is not None:
            session.out.line(
                f"  index      {found.kind}, {found.vectors} vectors, recall@10 {found.recall_at_10:.3f},"
                f" {found.latency_ms_p50:.2f} ms a query"
            )
        if len(generations) > 1:
            session.out.line()
            rows = [
                (one["name"], one["created"][:16].replace("T", " "), one["made_by"], one["products"], one["served"])
                for one in generations
            ]
            session.out.table(("generation", "created (UTC)", "by", "products", ""), rows, right=(3,))

    session.out.result(document, human)
    session.out.next(f"fashionrec query PHOTO --index {shell_word(catalogue.root)}")


def _generation(one: "Generation", served: "Generation") -> dict[str, Any]:
    return {
        "name": one.name,
        "created": one.manifest.created,
        "made_by": one.manifest.made_by,
        "products": one.manifest.counts.get("products"),
        "served": "served" if one.name == served.name else "",
    }


def _outfits(session: Session, items: "Sequence[StoredItem]") -> dict[str, dict[str, str]]:
    """One sentence for each photo of a product that shows several garments with captions."""
    from fashionrec.captioner.outfit import outfit
    from fashionrec.captioner.vocabulary import vocabulary_of

    shown: dict[str, list[dict[str, Any]]] = {}
    for stored in items:
        shown.setdefault(stored.item.image, []).append(stored.item.attributes)
    words = vocabulary_of(session.config.captioner)
    said = {image: outfit(garments, words) for image, garments in shown.items()}
    return {image: found._asdict() for image, found in said.items() if found is not None}


def _show_product(session: Session, catalogue: Any, product: str) -> None:
    from fashionrec.errors import DataError

    items = catalogue.items.of_product(product)
    if not items:
        raise DataError(f"{catalogue.root} has no product {product!r}", hint="ids are those of the column product_id")
    worn = _outfits(session, items)
    document = {
        "product_id": product,
        "metadata": items[0].item.metadata,
        "outfits": worn,
        "items": [
            {
                "item_id": stored.item.item_id,
                "image": stored.item.image,
                "class_name": stored.item.class_name,
                "confidence": stored.item.confidence,
                "box": list(stored.item.box),
                "whole_photo": stored.whole_photo,
                "worn_with": stored.worn_with,
                "captions": stored.captions,
                "attributes": stored.item.attributes,
            }
            for stored in items
        ],
    }

    def human() -> None:
        session.out.line(product)
        for key, value in document["metadata"].items():
            session.out.line(f"  {key:14} {value}")
        session.out.line()
        rows = [
            (
                stored.item.item_id,
                stored.item.class_name or "whole photo",
                "worn with it" if stored.worn_with else "",
                stored.item.image,
                stored.item.caption or "",
            )
            for stored in items
        ]
        session.out.table(("item", "class", "", "photo", "caption"), rows)
        for image, said in worn.items():
            session.out.line(f"{image}: {said['en']} / {said['ko']}")

    session.out.result(document, human)
    ends = " --" if product.startswith("-") else ""  # of the options
    session.out.next(f"fashionrec catalogue remove --index {shell_word(catalogue.root)}{ends} {shell_word(product)}")


def add(
    context: Context,
    photos: Annotated[str, typer.Argument(help="A photo, a folder of photos, or a CSV, JSONL or Parquet table.")],
    index: _To = None,
) -> None:
    session = context.session
    from fashionrec.catalogue.edit import add_products
    from fashionrec.products.tables import read_products

    root = find_catalogue(session, index)
    rows = read_products(Path(photos), photo=True)
    with session.out.progress("adding", "photos") as tick:
        report = add_products(root, rows, session.config, source=photos, progress=tick)
    _tell(session, root, report)


def remove(
    context: Context,
    products: Annotated[list[str] | None, typer.Argument(help="Ids of products.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="More ids: one a line, or a table with the column product_id.")
    ] = None,
    index: _To = None,
) -> None:
    session = context.session
    from fashionrec.catalogue.edit import remove_products
    from fashionrec.products.tables import read_ids

    ids = [*(products or []), *(read_ids(file) if file else [])]
    if not ids:
        raise UsageError("no product is named", hint="give ids, or --file with one id a line")
    root = find_catalogue(session, index)
    report, unknown = remove_products(root, ids, session.config)
    _tell(session, root, report, unknown)


def update(
    context: Context,
    table: Annotated[
        Path, typer.Argument(help="A CSV, JSONL or Parquet table: product_id, and the columns that change.")
    ],
    index: _To = None,
) -> None:
    session = context.session
    from fashionrec.catalogue.edit import update_products
    from fashionrec.products.records import read_table

    root = find_catalogue(session, index)
    report, unknown = update_products(root, read_table(table).records, session.config)
    _tell(session, root, report, unknown)


def _tell(session: Session, root: Path, report: "BuildReport", unknown: list[str] | None = None) -> None:
    document = finished(session, root, report)
    if unknown is not None:
        document["unknown"] = unknown

    def human() -> None:
        print_report(session, document)
        if unknown:
            some = ", ".join(unknown[:10]) + (" ..." if len(unknown) > 10 else "")
            session.out.line(f"{len(unknown)} products are not in the catalogue: {some}")

    session.out.result(document, human)
    session.out.next(
        f"fashionrec query PHOTO --index {shell_word(root)}", f"fashionrec catalogue rollback {shell_word(root)}"
    )
    if document["refused"]:
        raise Refused(
            f"{document['failed']} of {document['rows']} rows failed, more than build.max_failures allows;"
            " the catalogue was changed without them",
            hint=f"see failures in {document['report']}",
        )


def verify(context: Context, index: _Index = None) -> None:
    session = context.session
    from fashionrec.catalogue.catalogue import verify_catalogue

    root = find_catalogue(session, index)
    files = verify_catalogue(root)
    document = {"path": str(root), "files": files, "ok": True}
    session.out.result(document, lambda: session.out.line(f"{root}: all {files} files are as they were written"))
    session.out.next(f"fashionrec query PHOTO --index {shell_word(root)}")


def rollback(
    context: Context,
    index: _Index = None,
    to: Annotated[str | None, typer.Option(help="A generation by name; the one before by default.")] = None,
) -> None:
    session = context.session
    from fashionrec.store.generations import read_current, roll_back, writer_lock

    root = find_catalogue(session, index)
    before = read_current(root)  # before the lock, which would make the folder
    with writer_lock(root):
        after = roll_back(root, to)
    document = {"path": str(root), "from": before.name, "generation": after.name, "counts": dict(after.manifest.counts)}
    session.out.result(
        document,
        lambda: session.out.line(
            f"{root}: generation {after.name} is served now ({after.manifest.counts['products']} products), not {before.name}"
        ),
    )
    session.out.next(
        f"fashionrec catalogue rollback {shell_word(root)} --to {shell_word(before.name)}   (to undo this)"
    )


def compact(context: Context, index: _Index = None) -> None:
    session = context.session
    from fashionrec.catalogue.edit import compact_catalogue

    root = find_catalogue(session, index)
    figures = compact_catalogue(root, session.config)
    document = {"path": str(root), **figures}
    session.out.result(
        document,
        lambda: session.out.line(
            f"{root}: {figures['bytes_before'] / 1e6:.1f} MB in {figures['segments_before']} segments became"
            f" {figures['bytes_after'] / 1e6:.1f} MB in {figures['segments_after']}"
        ),
    )
    session.out.next(f"fashionrec catalogue verify {shell_word(root)}")


def export(
    context: Context,
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    index: _To = None,
) -> None:
    session = context.session
    from fashionrec.catalogue.exchange import export_catalogue

    root = find_catalogue(session, index)
    document = export_catalogue(root, out, session.config)
    session.out.result(
        {"path": str(root), "out": str(out), **document},
        lambda: session.out.line(
            f"{out}: {document['counts']['items']} items, {document['vectors']['images']} image vectors,"
            f" {document['vectors']['captions']} caption vectors"
        ),
    )
    session.out.next(f"fashionrec catalogue import {shell_word(out)} --index NEW")


def import_(
    context: Context,
    source: Annotated[Path, typer.Argument(help="A folder that `catalogue export` wrote.")],
    index: Annotated[str, typer.Option(help="The new catalogue's folder.")],
) -> None:
    session = context.session
    from fashionrec.catalogue.exchange import import_catalogue

    counts = import_catalogue(source, Path(index), session.config)
    session.out.result(
        {"path": index, "counts": counts},
        lambda: session.out.line(f"{index}: {counts['items']} items of {counts['products']} products"),
    )
    session.out.next(f"fashionrec query PHOTO --index {shell_word(index)}")
