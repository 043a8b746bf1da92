"""The commands ``catalogue ...``: inspect, change, roll back, compact, export and import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli.index import finished, print_report, refuse_lost, unknown_products, warn_lost
from fashionrec.cli.options import CatalogueArgument, CatalogueOption
from fashionrec.cli.reindex import index_line, reindex
from fashionrec.cli.session import Command, Context, Group, Session
from fashionrec.common.text import plural, shell_word
from fashionrec.errors import UsageError

if TYPE_CHECKING:
    from fashionrec.catalogue.build.report import BuildReport


def mount(app: typer.Typer) -> None:
    family = typer.Typer(cls=Group, help="Inspect, change, roll back or copy a catalogue.", no_args_is_help=True)
    family.command("list", cls=Command, help="List the catalogues in a folder.")(list_)
    family.command("show", cls=Command, help="Show what a catalogue contains, or one product of it.")(show)
    family.command("add", cls=Command, help="Add photos or products; keep everything else.")(add)
    family.command("remove", cls=Command, help="Remove products.")(remove)
    family.command("update", cls=Command, help="Change product data (price, stock ...); reads no photos.")(update)
    family.command("verify", cls=Command, help="Compare the hash of every file with the manifest.")(verify)
    family.command("rollback", cls=Command, help="Serve the previous generation.")(rollback)
    family.command("reindex", cls=Command, help="Build another index over the same vectors.")(reindex)
    family.command("compact", cls=Command, help="Remove unused data.")(compact)
    family.command("export", cls=Command, help="Export as Parquet tables and npy arrays.")(export)
    family.command("import", cls=Command, help="Create a catalogue from an export.")(import_)
    app.add_typer(family, name="catalogue")


def list_(
    context: Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Folder to search; default: the data folder.")
    ] = None,
) -> None:
    from fashionrec.catalogue.overview import list_catalogues

    session = context.session
    where = folder or session.data
    catalogues = list_catalogues(where)

    def human() -> None:
        if not catalogues:
            session.out.line(f"no catalogues in {where}")
            return
        rows = [
            (entry["path"], "damaged", "", "", "", "", "", entry["error"])
            if "error" in entry
            else (
                entry["path"],
                entry["generation"],
                entry["counts"]["products"],
                entry["counts"]["items"],
                entry["index"],
                f"{entry['bytes'] / 1e6:.1f}",
                entry["models"].get("embedder", ""),
                entry["created"][:16].replace("T", " "),
            )
            for entry in catalogues
        ]
        columns = ("catalogue", "generation", "products", "items", "index", "MB", "encoder", "created (UTC)")
        session.out.table(columns, rows, right=(2, 3, 5))

    session.out.result({"catalogues": catalogues}, human)
    if catalogues:
        session.out.next(f"fashionrec query PHOTO --index {shell_word(catalogues[0]['path'])}")
    else:
        session.out.next("fashionrec build-index PHOTOS")


def show(
    context: Context,
    index: CatalogueArgument = None,
    product: Annotated[str | None, typer.Option(metavar="ID", help="Show one product.")] = None,
) -> None:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.catalogue.overview import describe_catalogue, describe_product

    session = context.session
    with Catalogue.open(session.find_catalogue(index), session.config) as catalogue:
        document = describe_catalogue(catalogue) if product is None else describe_product(catalogue, product)
    if product is None:
        session.out.result(document, lambda: _print_catalogue(session, document))
        session.out.next(f"fashionrec query PHOTO --index {shell_word(catalogue.root)}")
    else:
        session.out.result(document, lambda: _print_product(session, document))
        ends = " --" if product.startswith("-") else ""  # of the options
        session.out.next(
            f"fashionrec catalogue remove --index {shell_word(catalogue.root)}{ends} {shell_word(product)}"
        )


def _print_catalogue(session: Session, document: dict[str, Any]) -> None:
    out = session.out
    out.line(f"{document['path']}: generation {document['generation']}, {document['bytes'] / 1e6:.1f} MB")
    for name, count in document["counts"].items():
        out.line(f"  {name:10} {count}")
    for kind, bundle in document["bundles"].items():
        out.line(f"  {kind:10} {bundle['name']} ({bundle['fingerprint'][:16]})")
    if (index := document["index"]) is not None:
        out.line(f"  index      {index_line(index)}")
    if len(document["generations"]) > 1:
        out.line()
        rows = [
            (
                generation["name"],
                generation["created"][:16].replace("T", " "),
                generation["made_by"],
                generation["products"],
                generation["served"],
            )
            for generation in document["generations"]
        ]
        out.table(("generation", "created (UTC)", "by", "products", ""), rows, right=(3,))


def _print_product(session: Session, document: dict[str, Any]) -> None:
    out = session.out
    out.line(document["product_id"])
    for key, value in document["metadata"].items():
        out.line(f"  {key:14} {value}")
    out.line()
    rows = [
        (
            item["item_id"],
            item["class_name"] or "whole photo",
            "worn with it" if item["worn_with"] else "",
            item["image"],
            item["captions"].get("ko") or item["captions"].get("en") or "",
        )
        for item in document["items"]
    ]
    out.table(("item", "class", "", "photo", "caption"), rows)
    for image, worn in document["outfits"].items():
        out.line(f"{image}: {worn['en']} / {worn['ko']}")


def add(
    context: Context,
    photos: Annotated[
        str, typer.Argument(metavar="PHOTOS", help="Photo, folder of photos, or CSV, JSONL or Parquet table.")
    ],
    index: CatalogueOption = None,
) -> None:
    from fashionrec.catalogue.edit import add_products
    from fashionrec.products.tables import read_products

    session = context.session
    root = session.find_catalogue(index)
    rows = read_products(Path(photos), photo=True)
    with session.out.progress("adding", "photos") as tick:
        report = add_products(root, rows, session.config, source=photos, progress=tick)
    _report_change(session, root, report, given=len(rows))


def remove(
    context: Context,
    products: Annotated[list[str] | None, typer.Argument(metavar="PRODUCT_ID...", help="Products to remove.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with ids: one per line, or a table with a column product_id."),
    ] = None,
    index: CatalogueOption = None,
) -> None:
    from fashionrec.catalogue.edit import remove_products
    from fashionrec.products.tables import read_ids

    session = context.session
    ids = [*(products or []), *(read_ids(file) if file else [])]
    if not ids:
        raise UsageError("no product given", hint="name product ids, or --file with one id per line")
    root = session.find_catalogue(index)
    report, unknown = remove_products(root, ids, session.config)
    _report_change(session, root, report, unknown)


def update(
    context: Context,
    table: Annotated[
        Path,
        typer.Argument(metavar="TABLE", help="CSV, JSONL or Parquet table with product_id and the columns to change."),
    ],
    index: CatalogueOption = None,
) -> None:
    from fashionrec.catalogue.edit import update_products
    from fashionrec.products.records import read_table

    session = context.session
    root = session.find_catalogue(index)
    report, unknown = update_products(root, read_table(table).records, session.config)
    _report_change(session, root, report, unknown)


def _report_change(
    session: Session, root: Path, report: "BuildReport", unknown: list[str] | None = None, *, given: int | None = None
) -> None:
    document = finished(session, root, report, given)
    if unknown is not None:
        document["unknown"] = unknown

    def human() -> None:
        print_report(session, document)
        if unknown:
            session.out.line(unknown_products(unknown))

    session.out.done(document, human)
    warn_lost(session, document, unknown or (), given)
    undo = () if document["unchanged"] else (f"fashionrec catalogue rollback {shell_word(root)}",)
    session.out.next(f"fashionrec query PHOTO --index {shell_word(root)}", *undo)
    refuse_lost(document, "changed", given)


def verify(context: Context, index: CatalogueArgument = None) -> None:
    from fashionrec.catalogue.catalogue import verify_catalogue

    session = context.session
    root = session.find_catalogue(index)
    files = verify_catalogue(root)
    document = {"path": str(root), "files": files, "ok": True}
    session.out.done(document, lambda: session.out.line(f"{root}: {plural(files, 'file')} verified"))
    session.out.next(f"fashionrec query PHOTO --index {shell_word(root)}")


def rollback(
    context: Context,
    index: CatalogueArgument = None,
    to: Annotated[
        str | None, typer.Option(metavar="GENERATION", help="Generation to serve; default: the previous one.")
    ] = None,
) -> None:
    from fashionrec.store.generations import read_current, roll_back, writer_lock

    session = context.session
    root = session.find_catalogue(index)
    before = read_current(root)  # before the lock, which would create the folder
    with writer_lock(root):
        after = roll_back(root, to)
    document = {"path": str(root), "from": before.name, "generation": after.name, "counts": dict(after.manifest.counts)}
    session.out.done(
        document,
        lambda: session.out.line(
            f"{root}: now serving generation {after.name}"
            f" ({plural(after.manifest.counts['products'], 'product')}), not {before.name}"
        ),
    )
    session.out.next(
        f"fashionrec catalogue rollback {shell_word(root)} --to {shell_word(before.name)}   (to undo this)"
    )


def compact(context: Context, index: CatalogueArgument = None) -> None:
    from fashionrec.catalogue.edit import compact_catalogue

    session = context.session
    root = session.find_catalogue(index)
    figures = compact_catalogue(root, session.config)
    document = {"path": str(root), **figures}
    session.out.done(
        document,
        lambda: session.out.line(
            f"{root}: {figures['bytes_before'] / 1e6:.1f} MB in {plural(figures['segments_before'], 'segment')} became"
            f" {figures['bytes_after'] / 1e6:.1f} MB in {figures['segments_after']}"
        ),
    )
    session.out.next(f"fashionrec catalogue verify {shell_word(root)}")


def export(
    context: Context,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to create.")],
    index: CatalogueOption = None,
) -> None:
    from fashionrec.catalogue.exchange import export_catalogue

    session = context.session
    root = session.find_catalogue(index)
    document = export_catalogue(root, out, session.config)
    session.out.done(
        {"path": str(root), "out": str(out), **document},
        lambda: session.out.line(
            f"{out}: {plural(document['counts']['items'], 'item')}, {plural(document['vectors']['images'], 'image vector')},"
            f" {plural(document['vectors']['captions'], 'caption vector')}"
        ),
    )
    session.out.next(f"fashionrec catalogue import {shell_word(out)} --index NEW")


def import_(
    context: Context,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder written by `catalogue export`.")],
    index: Annotated[str, typer.Option(metavar="FOLDER", help="Folder of the new catalogue.")],
) -> None:
    from fashionrec.catalogue.exchange import import_catalogue

    session = context.session
    counts = import_catalogue(source, Path(index), session.config)
    session.out.done(
        {"path": index, "counts": counts},
        lambda: session.out.line(
            f"{index}: {plural(counts['items'], 'item')} of {plural(counts['products'], 'product')}"
        ),
    )
    session.out.next(f"fashionrec query PHOTO --index {shell_word(index)}")
