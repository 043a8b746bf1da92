"""Render an answer as one self-contained page: the photo with its boxes, and a row of thumbnails
per garment.

The page makes no network requests.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from fashionrec.common.pages import COLOURS, OTHER_COLOUR, draw_label, environment, jpeg_uri
from fashionrec.common.text import visible
from fashionrec.search.result import GarmentAnswer, QueryResult
from fashionrec.types import Garment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fashionrec.catalogue.catalogue import Catalogue

_PHOTO_SIDE = 900
_SYMBOLS = {"KRW": "₩", "USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}


def answer_page(catalogue: Catalogue, results: Sequence[QueryResult]) -> str:
    """Return the page of one or several results as HTML."""
    template = environment().get_template("answer.html")
    return template.render(
        sections=[answer_view(catalogue, result) for result in results],
        title=results[0].title if len(results) == 1 else f"{len(results)} questions",
        catalogue=catalogue.root.name,
        counts=catalogue.counts,
    )


def answer_view(catalogue: Catalogue, answer: QueryResult) -> dict[str, Any]:
    """Return the template data of one result: pictures as data URIs, text as text."""
    photo = None
    if answer.source is not None:
        pixels = catalogue.finder.read(answer.source, whole=True).pixels
        photo = data_uri(draw_boxes(pixels, answer.seen))
    garments = [_garment_view(catalogue, found) for found in answer.garments]
    garments += [
        {
            **_garment_view(catalogue, found),
            "name": f"goes with the {found.garment.class_name}",
            "confidence": None,
            "caption": None,
        }
        for found in answer.goes_with or ()
    ]
    return {
        "photo": photo,
        "name": answer.title if answer.photo else None,
        "text": answer.text,
        "garments": garments,
        "notes": answer.notes,
        "total_ms": sum(answer.timings_ms.values()),
    }


def _garment_view(catalogue: Catalogue, found: GarmentAnswer) -> dict[str, Any]:
    return {
        "name": found.garment.name,
        "confidence": found.garment.confidence,
        "caption": found.garment.caption,
        "colour": COLOURS.get(found.garment.class_name or "", OTHER_COLOUR),
        "hits": [
            {
                "rank": hit.rank,
                "score": hit.score,
                "match": hit.match,
                "picture": jpeg_uri(catalogue.thumbnail(stored)),
                "product_id": hit.item.product_id,
                "title": hit.item.metadata.get("title") or hit.item.product_id,
                "caption": hit.item.caption,
                "brand": hit.item.metadata.get("brand"),
                "price": price(hit.item.metadata),
                "url": safe_url(hit.item.metadata.get("url")),
                "class_name": hit.item.class_name,
            }
            for hit, stored in zip(found.hits, found.stored, strict=True)
        ],
    }


def draw_boxes(pixels: Image.Image, garments: Sequence[Garment]) -> Image.Image:
    """Draw the garments' boxes and numbers on a copy of the photo of at most 900 pixels."""
    small = pixels.copy()
    small.thumbnail((_PHOTO_SIDE, _PHOTO_SIDE), Image.Resampling.LANCZOS)
    scale = small.width / pixels.width
    draw = ImageDraw.Draw(small)
    line = max(2, round(max(small.size) / 220))
    for garment in garments:
        if garment.whole_photo:
            continue
        colour = COLOURS.get(garment.class_name or "", OTHER_COLOUR)
        x1, y1, x2, y2 = (value * scale for value in garment.box)
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=line)
        draw_label(draw, x1, y1, f"{garment.index} {garment.class_name or '?'}", colour, line)
    return small


def data_uri(pixels: Image.Image) -> str:
    out = io.BytesIO()
    pixels.save(out, "JPEG", quality=88)
    return jpeg_uri(out.getvalue())


def price(metadata: dict[str, Any]) -> str:
    """Format a product's price for shoppers: ₩39,000. Empty without a price."""
    value = metadata.get("price")
    if value is None or isinstance(value, bool):
        return ""
    if not isinstance(value, (int, float)):
        return str(value)
    currency = str(metadata.get("currency") or "").upper()
    amount = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
    symbol = _SYMBOLS.get(currency)
    return f"{symbol}{amount}" if symbol else f"{amount} {currency}".strip()


def safe_url(url: object) -> str | None:
    """Return a link that is safe in a page: http and https only, without invisible characters."""
    text = str(url or "").strip()
    return text if text.lower().startswith(("https://", "http://")) and visible(text) == text else None
