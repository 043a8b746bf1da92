"""A cache of downloaded photos: files named by their content, and a journal of their URLs.

::

    photos/ab/abcdef....jpg   the bytes as received; the name is their sha256
    journal.jsonl             a line per complete photo; the last line of a URL counts
    partial/                  unfinished downloads; emptied by the next run

A file is moved into place before its line is written, so a kill loses only unfinished downloads. A
line of the journal is trusted only if the file's hash matches it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fashionrec.common.documents import parse_json
from fashionrec.common.files import locked, sha256_file
from fashionrec.common.folder import Folder
from fashionrec.common.system import replace

_JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Fetched:
    """A photo on disk. ``url`` is the requested URL, ``final_url`` the one after redirects.

    ``how`` is ``new``, ``kept`` (reused from an earlier run without a request), or ``unchanged``
    (confirmed by the server).
    """

    url: str
    path: Path
    sha256: str
    size: int
    final_url: str
    etag: str | None = None
    last_modified: str | None = None
    how: str = "new"


class PhotoCache:
    """A photo cache, opened by :func:`open_cache`. Only :meth:`part` is thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._inside = Folder(folder, "cannot write to the photo cache")
        self._inside.check({"photos": "folder", "partial": "folder", _JOURNAL: "file"})
        self._lines = self._read_journal()
        self._empty_partial()
        self._inside.make_folder("partial", exist_ok=True)
        self._file: IO[bytes] | None = None

    def known(self, url: str) -> Fetched | None:
        """Return the photo that an earlier run fetched from a URL, if its file is unchanged."""
        line = self._lines.get(url)
        if line is None:
            return None
        path = self._place(line["sha256"], line["suffix"])
        try:
            is_intact = path.stat().st_size == line["size"] and sha256_file(path) == line["sha256"]
        except OSError:
            return None
        fields = ("sha256", "size", "final_url", "etag", "last_modified")
        return Fetched(url, path, how="kept", **{name: line[name] for name in fields}) if is_intact else None

    def part(self, number: int) -> Path:
        """Return the path of an unfinished download."""
        return self.folder / "partial" / f"{number}.part"

    def keep(self, part: Path, suffix: str, url: str, **fields: Any) -> Fetched:
        """Move a finished download into place and record it with fields of :class:`Fetched`."""
        path = self._place(fields["sha256"], suffix)
        self._inside.make_folder(f"photos/{fields['sha256'][:2]}", exist_ok=True)
        replace(part, path)
        self._write({"url": url, "suffix": suffix, **fields})
        return Fetched(url, path, **fields)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._empty_partial()
        with suppress(OSError):  # it may hold files that are not ours
            (self.folder / "partial").rmdir()

    def _empty_partial(self) -> None:
        for entry in self._inside.entries("partial"):
            if re.fullmatch(r"\d+\.part", Path(entry.name).name):
                self._inside.remove(entry.name, ignore_errors=True)

    def _place(self, sha256: str, suffix: str) -> Path:
        return self.folder / "photos" / sha256[:2] / f"{sha256}{suffix}"

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            self._file = self._inside.open(_JOURNAL, "ab")
        self._file.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())
        self._file.flush()
        self._lines[line["url"]] = line

    def _read_journal(self) -> dict[str, dict[str, Any]]:
        """Return the last valid line per URL; rewrite the journal if it has any other line."""
        try:
            text = self._inside.read(_JOURNAL).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return {}
        lines: dict[str, dict[str, Any]] = {}
        is_clean = text.endswith("\n") or not text
        for raw in text.splitlines():
            try:
                line = parse_json(raw)
                is_valid = all(isinstance(line[key], str) for key in ("url", "sha256", "suffix", "final_url"))
                is_valid = is_valid and isinstance(line["size"], int) and {"etag", "last_modified"} <= line.keys()
                is_valid = is_valid and len(line["sha256"]) == 64 and line["sha256"].isalnum()
                is_valid = is_valid and line["suffix"][:1] == "." and line["suffix"][1:].isalnum()
            except (ValueError, KeyError, TypeError, AttributeError):
                is_valid = False
            is_clean = is_clean and is_valid and line["url"] not in lines
            if is_valid:
                lines[line["url"]] = line
        if not is_clean:
            valid_lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in lines.values())
            self._inside.write(_JOURNAL, "".join(valid_lines))
        return lines


def image_suffix(head: bytes) -> str | None:
    """Return the file suffix for a photo's first 64 bytes, None if it is no web format."""
    return next((suffix for suffix, magic in _MAGIC if re.match(magic, head, re.DOTALL)), None)


_MAGIC = (
    (".jpg", rb"\xff\xd8\xff"),
    (".png", rb"\x89PNG\r\n\x1a\n"),
    (".webp", rb"RIFF....WEBP"),
    (".avif", rb".{4}ftyp.{0,24}avi[fs]"),
    (".gif", rb"GIF8[79]a"),
    (".bmp", rb"BM.{12}"),
    (".tif", rb"II\*\0|MM\0\*"),
)


@contextmanager
def open_cache(folder: Path) -> Iterator[PhotoCache]:
    """Lock a cache for writing. Raises :class:`Busy` at once if another process uses it."""
    with locked(folder / ".lock", f"downloads into {folder}"):
        cache = PhotoCache(folder)
        try:
            yield cache
        finally:
            cache.close()
