"""HTML pages: templates with escaping, one colour per class, embedded pictures."""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL import ImageDraw

#: One colour per class, for boxes and headings; dark enough for white text.
COLOURS = {"dress": "#b4236b", "pants": "#1f5fbf", "skirt&pants": "#6b46c1", "skirt": "#b45309", "top": "#0f766e"}
OTHER_COLOUR = "#374151"


@cache
def environment() -> Environment:
    """Return the package's template environment, with escaping; templates are compiled once."""
    from jinja2 import Environment, PackageLoader

    return Environment(
        loader=PackageLoader("fashionrec", "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )


def render(template: str, **values: Any) -> str:
    """Render one of the package's templates to HTML."""
    return environment().get_template(template).render(**values)


def jpeg_uri(jpeg: bytes) -> str:
    """Return a JPEG as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def draw_label(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, colour: str, line: int) -> None:
    """Draw white text on a filled box with its upper left corner at ``x, y``.

    The box fits lines of ``line`` pixels.
    """
    left, top, right, bottom = draw.textbbox((0, 0), text, font_size=6 * line)
    draw.rectangle((x, y, x + right - left + 4 * line, y + bottom - top + 4 * line), fill=colour)
    draw.text((x + 2 * line - left, y + 2 * line - top), text, fill="white", font_size=6 * line)
