"""Image-based fashion search: detect garments, caption and embed them, find similar products.

Public names are imported lazily, so that importing the package loads nothing heavy:

>>> from fashionrec import Catalogue
>>> with Catalogue.open("data/catalogue") as catalogue:            # doctest: +SKIP
...     answer = catalogue.search("photo.jpg", k=10)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fashionrec.detector.detect import Detector as Detector
    from fashionrec.embedder.embed import Embedder as Embedder
    from fashionrec.errors import FashionrecError as FashionrecError
    from fashionrec.models.bundle import Bundle as Bundle
    from fashionrec.search.answer import Answer as Answer
    from fashionrec.search.facade import Catalogue as Catalogue
    from fashionrec.search.query import Query as Query
    from fashionrec.types import Box as Box
    from fashionrec.types import Garment as Garment
    from fashionrec.types import Hit as Hit

__version__ = "0.1.0"

_PUBLIC = {
    "Catalogue": "fashionrec.search.facade",
    "Query": "fashionrec.search.query",
    "Answer": "fashionrec.search.answer",
    "Detector": "fashionrec.detector.detect",
    "Embedder": "fashionrec.embedder.embed",
    "Bundle": "fashionrec.models.bundle",
    "Box": "fashionrec.types",
    "Garment": "fashionrec.types",
    "Hit": "fashionrec.types",
    "FashionrecError": "fashionrec.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
