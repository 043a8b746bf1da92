"""``fashionrec.Catalogue``: a catalogue that can be asked, as the library hands it out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from fashionrec.catalogue.catalogue import Catalogue as OpenCatalogue
from fashionrec.config import Config, load_config

if TYPE_CHECKING:
    from fashionrec.search.result import QueryResult


class Catalogue(OpenCatalogue):
    """One generation of a catalogue, open to be asked: what :class:`fashionrec.catalogue.catalogue.Catalogue` is, and search."""

    @classmethod
    def open(cls, path: str | Path, config: Config | None = None, *, at_once: bool = False) -> Self:
        """Open a catalogue folder, by the settings of the environment and the defaults where ``config`` is not given."""
        return super().open(path, config if config is not None else load_config().config, at_once=at_once)

    def search(self, photo: str | Path | bytes, k: int | None = None, garment: str | None = None) -> QueryResult:
        """What looks like the garments of a photo: see :func:`fashionrec.search.photo.search_photo`."""
        from fashionrec.search.photo import search_photo

        self.check_open()
        query = self.config.query
        changed = query.model_copy(update={"k": k or query.k, "garment": garment or query.garment})
        return search_photo(self, photo, changed)

    def search_text(self, text: str, k: int | None = None) -> QueryResult:
        """What fits a description: see :func:`fashionrec.search.text.search_text`."""
        from fashionrec.search.text import search_text

        self.check_open()
        return search_text(self, text, self.config.query.model_copy(update={"k": k or self.config.query.k}))
