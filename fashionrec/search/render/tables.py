"""Render answers as tables: CSV, and Excel with pictures in cells. Formulas are escaped."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.text import TableWriter, encodable
from fashionrec.search.render.page import safe_url

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.result import GarmentAnswer, QueryResult
    from fashionrec.store.items import StoredItem
    from fashionrec.types import Hit

COLUMNS = (
    "question", "garment", "garment_class", "rank", "score", "product_id", "item_id", "class_name", "title", "brand",
    "price", "caption", "url", "image", "match", "currency",
)  # fmt: skip
_CELL = 96  # pixels of a picture in a cell
_LONGEST_LINK, _MOST_LINKS = 2079, 65_530  # Excel's limits; text has none


def rows_of(answers: Iterable[QueryResult]) -> Iterator[tuple[dict[str, Any], StoredItem]]:
    """Return one row per hit, with :data:`COLUMNS`, and its item."""
    for answer in answers:
        for found in answer.garments:
            for hit, stored in zip(found.hits, found.stored, strict=True):
                yield _row(answer, found, hit), stored


def write_csv(answers: Sequence[QueryResult], shown: Callable[[str], str] = str) -> str:
    """Return all hits as CSV (RFC 4180) with a header. Numbers are plain; texts that a spreadsheet
    would evaluate get an apostrophe.

    ``shown`` is applied to each text if the table goes to a terminal.
    """
    out = io.StringIO()
    writer = TableWriter(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row, _ in rows_of(answers):
        writer.writerow(shown(cell) if isinstance(cell, str) else cell for cell in map(row.get, COLUMNS))
    return out.getvalue()


def write_xlsx(path: Path, catalogue: Catalogue, answers: Sequence[QueryResult]) -> None:
    """Write all hits as an Excel workbook, with item thumbnails and query photos in cells."""
    import xlsxwriter

    path.open("wb").close()  # so that system errors are an ``OSError``, not one of xlsxwriter's own
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet("hits")
        bold, wrap = book.add_format({"bold": True}), book.add_format({"text_wrap": True, "valign": "top"})
        link = book.add_format({"font_color": "#1f5fbf", "underline": 1, "valign": "top"})
        number = book.add_format({"num_format": "0.000", "valign": "top"})
        names = ("picture", *COLUMNS)
        for n, name in enumerate(names):
            sheet.write_string(0, n, name.replace("_", " "), bold)
        sheet.freeze_panes(1, 0)
        sheet.set_column(0, 0, _CELL / 7)
        for n, name in enumerate(COLUMNS, start=1):
            sheet.set_column(n, n, {"title": 36, "caption": 36, "url": 30, "question": 24, "match": 8}.get(name, 14))
        last = 0
        for last, (row, stored) in enumerate(rows_of(answers), start=1):
            sheet.set_row_pixels(last, _CELL)
            sheet.embed_image(
                last, 0, "item.jpg", {"image_data": io.BytesIO(catalogue.thumbnail(stored)), "description": ""}
            )
            for n, name in enumerate(COLUMNS, start=1):
                value = row[name]
                url = safe_url(value) if name == "url" else None
                if url and len(url) <= _LONGEST_LINK and last <= _MOST_LINKS:
                    sheet.write_url(last, n, url, link, string=url)
                elif isinstance(value, (int, float)):
                    sheet.write_number(last, n, value, number if isinstance(value, float) else wrap)
                elif value is not None:
                    sheet.write_string(last, n, encodable(str(value)), wrap)
        sheet.autofilter(0, 0, max(last, 1), len(names) - 1)


def _row(answer: QueryResult, found: GarmentAnswer, hit: Hit) -> dict[str, Any]:
    item = hit.item
    return {
        "question": answer.photo or answer.text or "",
        "garment": found.garment.index,
        "garment_class": found.garment.class_name or "",
        "rank": hit.rank,
        "score": round(hit.score, 6),
        "product_id": item.product_id,
        "item_id": item.item_id,
        "class_name": item.class_name or "",
        "title": item.metadata.get("title", ""),
        "brand": item.metadata.get("brand", ""),
        "price": _plain(item.metadata.get("price", "")),
        "caption": item.caption or "",
        "url": item.metadata.get("url", ""),
        "image": item.image,
        "match": hit.match,
        "currency": item.metadata.get("currency", ""),
    }


def _plain(price: Any) -> Any:
    """Return a price for a cell: 39000 if a table with and without cents was read as 39000.0."""
    return int(price) if isinstance(price, float) and price.is_integer() else price
