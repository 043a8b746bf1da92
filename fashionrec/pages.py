"""What every page of ours is made with: templates that escape, one colour a class, pictures inside the page."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

#: One colour per class, for boxes and headings; dark enough for white text.
COLOURS = {"dress": "#b4236b", "pants": "#1f5fbf", "skirt&pants": "#6b46c1", "skirt": "#b45309", "top": "#0f766e"}
OTHER_COLOUR = "#374151"


def environment() -> Environment:
    """Templates of the package; everything put into them is escaped."""
    from jinja2 import Environment, PackageLoader

    return Environment(
        loader=PackageLoader("fashionrec", "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )


def jpeg_uri(jpeg: bytes) -> str:
    """A JPEG as a link that needs no request."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
