"""An audit as one self-contained page: counts, charts, and findings with annotated photos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from itertools import pairwise
from typing import Any

from PIL import Image, ImageDraw

from fashionrec.common.pages import COLOURS, OTHER_COLOUR, jpeg_uri, render
from fashionrec.config import ImagesConfig
from fashionrec.dataset.audit.charts import bars, grid, histogram
from fashionrec.dataset.audit.findings import KINDS, Finding, Mark
from fashionrec.dataset.audit.run import Audit
from fashionrec.dataset.audit.shapes import ASPECTS, PIXELS, SIDES
from fashionrec.errors import ImageError
from fashionrec.photos.images import encode_jpeg, read_photo

_SIDE = 240  # pixels of a thumbnail
_MAX_NAMED = 500  # findings of a kind that are listed below the thumbnails
_MAX_PHOTOS = 3  # photos shown of a finding
#: Photos with these findings are not opened again: one that crashed a decoder would crash the page.
_UNREADABLE = frozenset(
    ("empty-file", "not-an-image", "truncated", "too-large-image", "unreadable-image", "missing-image")
)


def audit_page(audit: Audit, limits: ImagesConfig, thumbnails: int) -> str:
    """Return the page as HTML, with photos for at most ``thumbnails`` findings of each kind."""
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in audit.findings:
        by_kind[finding.kind].append(finding)
    unreadable = frozenset(key for kind in _UNREADABLE for finding in by_kind.get(kind, ()) for key in finding.images)
    sections = [_section(audit, kind, by_kind[kind], limits, thumbnails, unreadable) for kind in audit.counts_by_kind]
    document = audit.to_dict()
    return render(
        "audit.html",
        title=f"Audit of {audit.root.resolve().name}",
        audit=document,
        table=audit.table,
        splits=list(document["splits"]),
        min_images=audit.min_images,
        sections=sections,
        charts=_charts(audit),
        quantiles=audit.shapes.quantiles,
        errors=sum(len(part["findings"]) for part in sections if part["severity"] == "error"),
        warnings=sum(len(part["findings"]) for part in sections if part["severity"] == "warning"),
    )


def draw_marks(pixels: Image.Image, marks: Sequence[Mark], side: int) -> Image.Image:
    """Return a thumbnail of at most ``side`` pixels with boxes in the colours of their classes."""
    small = pixels.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    draw = ImageDraw.Draw(small)
    right, bottom = small.width - 1, small.height - 1
    for mark in marks:
        colour = next((COLOURS[word] for word in mark.name.split() if word in COLOURS), OTHER_COLOUR)
        x1, y1, x2, y2 = mark.x1 * right, mark.y1 * bottom, mark.x2 * right, mark.y2 * bottom
        if x2 - x1 < 8 or y2 - y1 < 8:  # a box too small to see gets a circle
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            for radius, rim in ((14, "white"), (13, colour), (12, colour), (11, "white")):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=rim)
        for grow, rim in ((-1, "white"), (0, colour), (1, colour), (2, "white")):
            if x2 - x1 > 2 * grow and y2 - y1 > 2 * grow:
                draw.rectangle((x1 + grow, y1 + grow, x2 - grow, y2 - grow), outline=rim)
    return small


def _section(
    audit: Audit, kind: str, findings: Sequence[Finding], limits: ImagesConfig, thumbnails: int, unreadable: Set[str]
) -> dict[str, Any]:
    description = KINDS[kind]
    cards = [_card(audit, finding, limits, unreadable) for finding in findings[:thumbnails]]
    rest = [
        f"{' | '.join(finding.images)}: {finding.text}" if finding.images else finding.text
        for finding in findings[thumbnails : thumbnails + _MAX_NAMED]
    ]
    return {
        "kind": kind,
        "severity": description.severity,
        "heading": description.title,
        "advice": description.advice,
        "breaks": kind in audit.broken,
        "findings": findings,
        "plain": not any(card["pictures"] for card in cards),
        "cards": cards,
        "rest": rest,
        "unnamed": max(0, len(findings) - thumbnails - _MAX_NAMED),
    }


def _card(audit: Audit, finding: Finding, limits: ImagesConfig, unreadable: Set[str]) -> dict[str, Any]:
    pictures = []
    for n, key in enumerate(finding.images[:_MAX_PHOTOS]):
        if key in unreadable or key not in audit.photos:
            continue
        try:
            pixels = read_photo(audit.root / key, limits).pixels
        except ImageError:
            continue
        small = draw_marks(pixels, [mark for mark in finding.marks if mark.image == n], _SIDE)
        pictures.append({"uri": jpeg_uri(encode_jpeg(small, _SIDE, 80)), "name": key})
    tags = {
        mark.name: next((COLOURS[w] for w in mark.name.split() if w in COLOURS), OTHER_COLOUR) for mark in finding.marks
    }
    return {
        "pictures": pictures,
        "names": finding.images,
        "text": finding.text,
        "split": finding.split,
        "line": finding.line,
        "tags": list(tags.items()) if pictures else [],
    }


def _charts(audit: Audit) -> list[dict[str, Any]]:
    classes = audit.table["all"]["classes"]
    per_class = {name: counts["images"] for name, counts in classes.items()}
    sides = [f"{100 * low:.0f}-{100 * high:.0f} %" for low, high in pairwise(SIDES)]
    aspects = [f"{low:.2f}-{high:.2f}" for low, high in pairwise(ASPECTS)]
    pixels = [f"{low}-{high} px" if high < 1 << 30 else f"{low} px or more" for low, high in pairwise(PIXELS)]
    shapes = audit.shapes
    return [
        bars("Photos per class", per_class, COLOURS, OTHER_COLOUR, goal=audit.min_images),
        histogram("Box size (square root of its fraction of the photo)", shapes.sides, sides, ("0", "50 %", "100 %")),
        histogram("Box shape (width over height)", shapes.aspects, aspects, ("1:16", "1:1", "16:1")),
        histogram("Photo size (long side)", shapes.pixels, pixels, ("64", "640 to 1024", "4096")),
        grid("Box centres", shapes.places),
    ]
