"""Photos alone, at any depth of a folder: nothing is known of what they show."""

from __future__ import annotations

from pathlib import Path

from fashionrec.dataset.source import Source, SourceImage
from fashionrec.dataset.sources.layout import copies_of, key_of
from fashionrec.errors import DataError
from fashionrec.images import find_photos


def read(where: Path, label: str) -> Source:
    """All photos below a folder. Raises :class:`DataError` where there is none."""
    if not where.is_dir():
        raise DataError(f"{where} is not a folder", hint="folder:PATH takes a folder of photos, or an archive of one")
    images = tuple(
        SourceImage(key_of(path, where), path, labelled=False, group=copies_of(path.name))
        for path in find_photos(where)
    )
    if not images:
        raise DataError(f"there are no photos in {where}")
    return Source(label, images, has_labels=False)
