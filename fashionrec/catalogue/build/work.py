"""Process the photos of a build with its models and settings, and write the results into a journal.

This knows no rows and no generation: a build does all of its photos here, and another worker could
do a part of them with its own journal.
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


#: Minimum seconds between two commits of the journal: each writes and syncs some pages besides new
#: data.
_COMMIT_EVERY = 2.0


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the result for a photo: models and settings."""

    detector: Bundle | None
    embedder: Bundle
    config: Config

    @cached_property
    def settings(self) -> CatalogueSettings:
        """The settings as the catalogue stores them, with the :attr:`key`."""
        settings = CatalogueSettings.of_config(self.config, detect=self.detector is not None)
        models = [None if self.detector is None else self.detector.fingerprint, self.embedder.fingerprint]
        return settings._replace(build_key=fingerprint({"settings": settings.to_dict(), "models": models}))

    @property
    def key(self) -> str:
        """Equal for recipes that give the same results for every photo."""
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
    """Process photos (sha256 and path) and record the results; return the unusable ones.

    Finished photos are committed every ``build.checkpoint`` photos, but at most every two seconds
    (by ``clock``): a kill costs what was finished since, and what was in progress.

    The sha256 is that of :func:`fashionrec.photos.images.photo_digest`. ``known`` and ``seconds``
    are those of :func:`find_garments` (``seconds`` a ``Counter``); ``progress`` is called with
    photos done, garments found and unusable photos after each batch.
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
