"""The work of a build: what photos give, by the models and settings of a build, written into a journal.

It knows no rows and no generation: a build does all of its photos here, and another worker could do a part of them into a
journal of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fashionrec.catalogue.build.pipeline import Known, find_garments, open_models
from fashionrec.common.files import fingerprint
from fashionrec.errors import ImageError
from fashionrec.store.manifest import CatalogueSettings

if TYPE_CHECKING:
    from fashionrec.config import Config
    from fashionrec.models.bundle import Bundle
    from fashionrec.store.journal import FoundPhoto, Journal


#: Seconds between two commits of the journal at least: each writes and syncs some pages beside what is new.
_COMMIT_EVERY = 2.0


@dataclass(frozen=True)
class Recipe:
    """All that decides what a photo gives: the models and the settings."""

    detector: Bundle | None
    embedder: Bundle
    config: Config

    @cached_property
    def settings(self) -> CatalogueSettings:
        """The settings as the catalogue remembers them, with the :attr:`key`."""
        settings = CatalogueSettings.of_config(self.config, detect=self.detector is not None)
        models = [None if self.detector is None else self.detector.fingerprint, self.embedder.fingerprint]
        return settings._replace(build_key=fingerprint({"settings": settings.to_dict(), "models": models}))

    @property
    def key(self) -> str:
        """The same for recipes by which every photo gives the same."""
        assert self.settings.build_key is not None
        return self.settings.build_key


def work_on(
    photos: Sequence[tuple[str, Path]],
    recipe: Recipe,
    journal: Journal,
    *,
    known: Known,
    seconds: MutableMapping[str, float],
    progress: Callable[[int, int, int], None],
    log: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, ImageError]:
    """Work on photos (sha256 and path) and record what they give; returns those that cannot be used.

    Finished photos are committed as soon as there are ``build.checkpoint`` of them, but not more often
    than every two seconds (by ``clock``): a kill costs what was finished since, and what was under way.

    The sha256 is that of :func:`fashionrec.photos.images.photo_digest`. ``known`` and ``seconds``
    are those of :func:`find_garments` (``seconds`` a ``Counter``); ``progress`` is told
    photos done, garments found and photos that cannot be used, after each batch.
    """
    models = open_models(recipe.detector, recipe.embedder, recipe.config, photos=len(photos), log=log)
    finished: list[FoundPhoto] = []
    bad: dict[str, ImageError] = {}
    done = garments = 0
    due = 0.0
    for part in find_garments(photos, models, recipe.config, known=known, seconds=seconds):
        for digest, outcome in part:
            if isinstance(outcome, ImageError):
                bad[digest] = outcome
            else:
                finished.append(outcome)
                garments += len(outcome.garments)
        done += len(part)
        if len(finished) >= recipe.config.build.checkpoint and clock() >= due:
            journal.put(finished)
            finished, due = [], clock() + _COMMIT_EVERY
        progress(done, garments, len(bad))
    journal.put(finished)
    return bad
