"""What the formats on disk have in common: names of splits, names of copies, and what a folder seems to hold."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from fashionrec.common.folder import is_link
from fashionrec.common.reach import WORDS, Reach, Refusal
from fashionrec.labels.label_lines import begins_with_a_box
from fashionrec.photos.images import SUFFIXES

_WORDS = {"train": "train", "training": "train", "val": "valid", "valid": "valid", "validation": "valid"}
_WORDS |= {"test": "test", "testing": "test"}
_FOLDER = re.compile(r"([a-z]+)[_-]?(\d+|images?|imgs?|photos?|labels?|annotations?|set|data)?")
_LOOKED_AT = 5000  # files, when guessing a format
_SHOWN = 3


def split_of_folders(parts: Iterable[str]) -> str | None:
    """The split that the nearest folder on a way names (``train2017``, ``val``, ``test_images``), ``train | valid | test``."""
    for part in reversed(list(parts)):
        found = _FOLDER.fullmatch(part.lower())
        if found and found[1] in _WORDS:
            return _WORDS[found[1]]
    return None


def split_of_file(stem: str) -> str | None:
    """The one split that a file's name speaks of, as in ``instances_val2017``; None where it names none, or several."""
    found = {_WORDS[word] for word in re.findall("[a-z]+", stem.lower()) if word in _WORDS}
    return found.pop() if len(found) == 1 else None


def copies_of(name: str) -> str | None:
    """What names a photo and its copies alike: ``a_jpg`` for Roboflow's ``a_jpg.rf.0f3e.jpg``; None for other names."""
    stem, mark, _ = name.rpartition(".rf.")
    return stem if mark and stem else None


def key_of(path: Path, root: Path) -> str:
    """A photo's path relative to its source, with ``/``. Nothing is resolved: a link keeps its own name."""
    return os.path.relpath(path, root).replace(os.sep, "/")


class Photos:
    """Photos below a folder, by relative path and by name; what may not be read is added to ``refused``."""

    def __init__(self, reach: Reach, refused: list[Refusal]) -> None:
        self.reach = reach
        self.paths = {key_of(path, reach.root): path for path in reach.files(reach.root, refused, SUFFIXES)}
        self.refused = {one.name.rpartition("/")[2]: one for one in refused}
        self.names: dict[str, list[Path]] = {}
        for path in self.paths.values():
            self.names.setdefault(path.name, []).append(path)

    def alone(self, name: str) -> Path | None:
        """The only photo that has this name, in whatever folder."""
        same = self.names.get(posix(name).name, ())
        return same[0] if len(same) == 1 else None


def posix(name: str) -> PurePosixPath:
    """A name that was written on any system."""
    return PurePosixPath(name.replace("\\", "/"))


def failure(key: str, reason: str, message: str) -> dict[str, str]:
    """A row of what could not be had: ``reason`` is a stable word that is counted, ``message`` says what of this one."""
    return {"key": key, "reason": reason, "message": message}


def refusals(refused: Iterable[Refusal]) -> list[dict[str, str]]:
    """Rows of what may not be read, each name once."""
    return [failure(one.name, one.reason, WORDS[one.reason]) for one in dict.fromkeys(refused)]


def counted(counts: Mapping[str, int], words: Mapping[str, str]) -> list[str]:
    """A note for each kind that was counted: how many, and in words what."""
    return [f"{counts[kind]} {text}" for kind, text in words.items() if counts.get(kind)]


def some(names: Sequence[str]) -> str:
    """The first few of many names, for a note."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def guess(where: Path, *, most: int = _LOOKED_AT) -> str | None:
    """``yolo``, ``coco``, ``voc`` or ``folder`` by the names and first bytes of the first ``most`` files; else None."""
    if where.is_file():
        return None if is_link(where) else _kind_of_file(where)
    photos = texts = False
    reach = Reach(where)
    for n, path in enumerate(reach.files(where, [])):
        if n >= most:
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
