"""Save the crops of query garments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fashionrec.common.text import plain_name
from fashionrec.photos.images import encode_photo

if TYPE_CHECKING:
    from fashionrec.catalogue.catalogue import Catalogue
    from fashionrec.search.result import QueryResult


def save_garments(catalogue: Catalogue, answers: Sequence[QueryResult], folder: Path) -> int:
    """Write each query garment as a JPEG without metadata of its photo; return how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for number, answer in enumerate(answers):
        if answer.source is None:
            continue
        photo = catalogue.finder.read(answer.source, whole=True)
        stem = plain_name(Path(answer.photo).stem) if answer.photo else "photo"
        for found in answer.garments:
            kind = (found.garment.class_name or "whole").replace("&", "-")
            path = folder / f"{number:03d}-{stem}-{found.garment.index}-{kind}.jpg"
            path.write_bytes(encode_photo(catalogue.finder.crop(photo, found.garment), 92))
            count += 1
    return count
