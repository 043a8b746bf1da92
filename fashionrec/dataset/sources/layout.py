"""Names of splits and copies, photos by name, and format detection, shared by the readers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from fashionrec.common.folder import is_link
from fashionrec.common.reach import WORDS, Reach, Refusal
from fashionrec.common.text import plural
from fashionrec.labels.label_lines import begins_with_a_box
from fashionrec.photos.images import SUFFIXES

_SPLITS = {"train": "train", "training": "train", "val": "valid", "valid": "valid", "validation": "valid"}
_SPLITS |= {"test": "test", "testing": "test"}
_FOLDER = re.compile(r"([a-z]+)[_-]?(\d+|images?|imgs?|photos?|labels?|annotations?|set|data)?")
_MAX_FILES = 5000  # that are read to guess a format
_SHOWN = 3


def split_of_folders(parts: Iterable[str]) -> str | None:
    """Return the split that the last folder of a path names: ``train``, ``valid``, ``test`` or
    None.

    Understands names such as ``train2017``, ``val`` and ``test_images``.
    """
    for part in reversed(list(parts)):
        match = _FOLDER.fullmatch(part.lower())
        if match and match[1] in _SPLITS:
            return _SPLITS[match[1]]
    return None


def split_of_file(stem: str) -> str | None:
    """Return the only split in a file's name, as in ``instances_val2017``, else None."""
    splits = {_SPLITS[word] for word in re.findall("[a-z]+", stem.lower()) if word in _SPLITS}
    return splits.pop() if len(splits) == 1 else None


def copies_of(name: str) -> str | None:
    """Return the name that a photo shares with its augmented copies, None for other names.

    It is ``a_jpg`` for Roboflow's ``a_jpg.rf.0f3e.jpg``.
    """
    stem, separator, _ = name.rpartition(".rf.")
    return stem if separator and stem else None


def key_of(path: Path, root: Path) -> str:
    """Return a photo's path relative to its source, with ``/``; links are not resolved."""
    return os.path.relpath(path, root).replace(os.sep, "/")


class Photos:
    """Photos below a folder, by relative path and by name; unreadable ones are added to
    ``refused``.
    """

    def __init__(self, reach: Reach, refused: list[Refusal]) -> None:
        self.reach = reach
        self.paths = {key_of(path, reach.root): path for path in reach.files(reach.root, refused, SUFFIXES)}
        self.refused = {refusal.name.rpartition("/")[2]: refusal for refusal in refused}
        self.names: dict[str, list[Path]] = {}
        for path in self.paths.values():
            self.names.setdefault(path.name, []).append(path)

    def alone(self, name: str) -> Path | None:
        """Return the photo with this name in any folder, None unless there is exactly one."""
        paths = self.names.get(posix(name).name, ())
        return paths[0] if len(paths) == 1 else None


def posix(name: str) -> PurePosixPath:
    """Return a path that may have been written on Windows, with ``/``."""
    return PurePosixPath(name.replace("\\", "/"))


def failure(key: str, reason: str, message: str) -> dict[str, str]:
    """Return a row of an unavailable photo or file.

    Args:
        key: Its name.
        reason: A stable word, by which failures are counted.
        message: The details.
    """
    return {"key": key, "reason": reason, "message": message}


def refusals(refused: Iterable[Refusal]) -> list[dict[str, str]]:
    """Return failure rows of refused names, each name once."""
    return [failure(name, reason, WORDS[reason]) for name, reason in dict.fromkeys(refused)]


def count_notes(counts: Mapping[str, int], notes: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return a note per counter that is not 0; ``notes`` has the noun and the rest of each."""
    return [f"{plural(counts[kind], noun)} {rest}" for kind, (noun, rest) in notes.items() if counts.get(kind)]


def some(names: Sequence[str]) -> str:
    """Return the first few of many names, for a note."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def guess(where: Path, *, most: int = _MAX_FILES) -> str | None:
    """Guess the format by the names and first bytes of at most ``most`` files.

    Returns:
        ``yolo``, ``coco``, ``voc``, ``folder`` or None.
    """
    if where.is_file():
        return None if is_link(where) else _kind_of_file(where)
    photos = texts = False
    reach = Reach(where)
    for number, path in enumerate(reach.files(where, [])):
        if number >= most:
            break
        kind = _kind_of_file(path)
        if kind:
            return kind
        photos |= path.suffix.lower() in SUFFIXES
        texts |= path.suffix.lower() == ".txt" and begins_with_a_box(path)
    if texts and photos:
        return "yolo"
    return "folder" if photos or next(reach.files(where, [], SUFFIXES), None) else None


def _kind_of_file(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix not in (".yaml", ".yml", ".json", ".xml"):
        return None
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - (1 << 16)))
            text = head + file.read()
    except OSError:
        return None
    if suffix in (".yaml", ".yml"):
        return "yolo" if re.search(rb"(?m)^\s*names\s*:", text) else None
    if suffix == ".json":
        return "coco" if sum(word in text for word in (b'"images"', b'"annotations"', b'"categories"')) >= 2 else None
    return "voc" if b"<annotation" in text and (b"<object" in text or b"<size" in text) else None
