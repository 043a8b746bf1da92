"""A folder of photos without labels, at any depth."""

from __future__ import annotations

from pathlib import Path

from fashionrec.common.reach import Reach, Refusal, refusals_error
from fashionrec.dataset.source import Source, SourceImage
from fashionrec.dataset.sources.layout import copies_of, key_of, refusals
from fashionrec.errors import DataError
from fashionrec.photos.images import SUFFIXES


def read(where: Path, label: str, *, follow_links: bool | None = None) -> Source:
    """Read all photos below a folder; links and special files are in ``failed``.

    Raises:
        DataError: The path is not a folder, or it contains no photo.
    """
    if not where.is_dir():
        raise DataError(f"{where} is not a folder", hint="folder:PATH needs a folder of photos, or an archive of one")
    refused: list[Refusal] = []
    images = tuple(
        SourceImage(key_of(path, where), path, labelled=False, group=copies_of(path.name))
        for path in Reach(where, follow_links).files(where, refused, SUFFIXES)
    )
    if not images:
        raise refusals_error(where, refused) if refused else DataError(f"no photos in {where}")
    return Source(label, images, has_labels=False, failed=tuple(refusals(refused)))
