"""``fashionrec.Catalogue``: a searchable catalogue, as the library exports it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fashionrec.catalogue.catalogue import Catalogue as OpenCatalogue
from fashionrec.config import Config, Resolved, load_config

if TYPE_CHECKING:
    from fashionrec.captioner.job.photos import Describe
    from fashionrec.photos.images import PhotoSource
    from fashionrec.search.answer import Answer
    from fashionrec.search.query import Query
    from fashionrec.search.words import Words


class Catalogue(OpenCatalogue):
    """One generation of a catalogue, open for searching.

    Extends :class:`fashionrec.catalogue.catalogue.Catalogue` by search.
    """

    @classmethod
    def open(cls, path: str | Path, config: Config | Resolved | None = None, *, at_once: bool = False) -> Self:
        """Open a catalogue folder. Without ``config``, settings come from the environment and the
        defaults.
        """
        return super().open(path, load_config() if config is None else config, at_once=at_once)

    def search(
        self,
        photos: PhotoSource | Sequence[PhotoSource] | None = None,
        k: int | None = None,
        garment: str | int | None = None,
        *,
        text: str | Words | Sequence[str | Words] = (),
        like: str | Sequence[str] = (),
        unlike: str | Sequence[str] = (),
        box: Sequence[float] | str | None = None,
        goes_with: bool = False,
        merge: bool = False,
        where: str | None = None,
        min_score: float | None = None,
        diversity: float | None = None,
        same_class: float | None = None,
        caption: str | None = None,
        caption_weight: float | None = None,
        lexical_weight: float | None = None,
        words_weight: float | None = None,
        fusion: str | None = None,
        hide_unavailable: bool | None = None,
        translate: str | None = None,
        describe: Describe | None = None,
        photo: PhotoSource | None = None,
    ) -> Answer:
        """Search by photo, text or item of the catalogue.

        Takes every option of ``fashionrec query``, described in
        :class:`fashionrec.search.query.Query`. Photos are paths, bytes, PIL images or arrays (uint8
        [height, width, 3], RGB), one or a list; ``box`` is x1, y1, x2, y2 in pixels of the upright
        photo; ids are of items or products. Options that are None come from the settings.
        ``caption`` and ``translate`` name who captions garments and translates texts: all but the
        catalogue's own encoder (``local``) receive them; ``describe`` is a function of your own
        (:data:`fashionrec.captioner.job.photos.Describe`). ``photo`` is the old name of ``photos``,
        until 0.3.

        Returns an :class:`fashionrec.search.answer.Answer`: ``garments`` with their hits, for
        several photos ``results`` with the garments of each. Thread-safe.

        Raises :class:`UsageError` for invalid queries (:class:`ImageError`: an unreadable photo;
        among several photos these are ``failures`` of the answer, unless all fail),
        :class:`CatalogueError` if it is closed.
        """
        from fashionrec.search.query import Query
        from fashionrec.search.search import search

        if photo is not None:
            warnings.warn("use photos instead of photo", DeprecationWarning, stacklevel=2)
            photos = photo
        query = Query(
            photos,
            text=text,
            like=like,
            unlike=unlike,
            box=box,
            goes_with=goes_with,
            merge=merge,
            k=k,
            garment=garment,
            where=where,
            min_score=min_score,
            diversity=diversity,
            same_class=same_class,
            caption=caption,
            caption_weight=caption_weight,
            lexical_weight=lexical_weight,
            words_weight=words_weight,
            fusion=fusion,
            hide_unavailable=hide_unavailable,
        )
        self.check_open()
        return search(self, self._translate(query, translate), describe=describe)

    def search_text(self, text: str, k: int | None = None) -> Answer:
        """Search by text only: :meth:`search` with ``text``."""
        return self.search(text=text, k=k)

    def _translate(self, query: Query, name: str | None) -> Query:
        from fashionrec.search.query import check_option
        from fashionrec.search.words import translate_words

        settings = self.config.query
        name = settings.translate if name is None else check_option("translate", name)
        if name == "none" or not query.text:
            return query
        words = replace(query, words_weight=query.settings(settings).words_weight).words
        return replace(query, text=tuple(translate_words(words, name, self.config.captioner)))
