"""Read the thumbnails of a catalogue: concatenated JPEG files, one file per segment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from fashionrec.errors import CatalogueError
from fashionrec.store.generations import THUMBNAILS, folder_of

#: More bytes than any thumbnail of a build (512 px at most, quality 85).
_LARGEST = 16 << 20
_JPEG = b"\xff\xd8\xff"


class Thumbnails:
    """The thumbnails of the catalogue at ``root``.

    A context manager that keeps files open; not thread-safe.
    """

    def __init__(self, root: Path) -> None:
        self._folder = folder_of(root)
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> Thumbnails:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def read(self, segment: str, offset: int, size: int) -> bytes:
        """Return the bytes of one thumbnail.

        Raises:
            CatalogueError: They are not in the segment's file.
        """
        name = f"segments/{segment}/{THUMBNAILS}"
        if segment not in self._files:
            try:
                self._files[segment] = self._folder.open(name)
            except OSError as error:
                raise CatalogueError(f"catalogue is damaged: {self._folder.root / name}: {error.strerror}") from None
        file = self._files[segment]
        whole = os.fstat(file.fileno()).st_size
        if not (offset >= 0 and 0 < size <= _LARGEST and offset + size <= whole):
            raise CatalogueError(
                f"catalogue is damaged: {self._folder.root / name} has {whole} bytes,"
                f" and no thumbnail of {size} at {offset}"
            )
        file.seek(offset)
        data = file.read(size)
        if not data.startswith(_JPEG):
            raise CatalogueError(
                f"catalogue is damaged: {self._folder.root / name}: no JPEG of {size} bytes at {offset}"
            )
        return data
