"""Pascal VOC: an XML file per photo. ``Annotations/``, ``JPEGImages/``, ``ImageSets/Main``; or
photos and XML files together.

Corners count pixels from 1, both inclusive, so a box over the whole image is ``1, 1, width,
height``. Ours are edges from 0: ``x1 = xmin - 1``, ``x2 = xmax``, and the same for y.
(http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf) Many tools write edges from 0
instead. A source with a box that starts below 1 must be theirs: then ``x1 = xmin``. The two rules
differ by one pixel at the left and upper edge.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fashionrec.common.documents import read_bytes
from fashionrec.common.extras import load
from fashionrec.common.reach import WORDS, Reach, Refusal, refusals_error
from fashionrec.common.text import plural
from fashionrec.dataset.source import RawBox, Source, SourceImage
from fashionrec.dataset.sources.layout import (
    Photos,
    copies_of,
    count_notes,
    failure,
    key_of,
    posix,
    refusals,
    some,
    split_of_file,
    split_of_folders,
)
from fashionrec.errors import DataError

#: Folders of XML files, and of the photos next to them.
XML_FOLDERS = frozenset({"annotations", "annotation", "xmls", "xml", "labels"})
PHOTO_FOLDERS = ("jpegimages", "images", "image", "imgs", "photos", "")

#: Notes per counter: the noun, and the rest.
_COUNTED = {
    "foreign": ("XML file", "skipped: not VOC annotations"),
    "twice": ("XML file", "skipped: another one belongs to the same photo"),
    "renamed": ("XML file", "with the name of another photo inside; the file's own name counts"),
    "difficult": ("difficult object", "kept"),
}


@dataclass(frozen=True)
class VocFile:
    """The content of one XML file. Corners are as written."""

    filename: str
    size: tuple[int, int] | None
    boxes: tuple[RawBox, ...]
    problems: tuple[str, ...]
    difficult: int = 0


def read(where: Path, label: str, *, follow_links: bool | None = None) -> Source:
    """Read a folder with VOC files at any depth. Raises :class:`DataError`.

    Boxes marked difficult or truncated are garments and kept. A photo's own name decides which XML
    file belongs to it, before the ``filename`` inside. A photo whose XML file is damaged, or a
    link, is in ``failed``: it is not known to be empty. So are other links and special files.
    """
    if not where.is_dir():
        raise DataError(f"{where} is not a folder", hint="voc:PATH needs a folder, or an archive of one")
    reach = Reach(where, follow_links)
    refused: list[Refusal] = []
    files = list(reach.files(where, refused, (".xml",)))
    photos = _Photos(reach, refused)
    splits, notes = _image_sets(reach)
    counts: Counter[str] = Counter()
    failed: list[dict[str, str]] = []
    parsed: list[tuple[Path, VocFile]] = []
    used: set[Path | None] = set()
    for one in [one for one in dict.fromkeys(refused) if one.name.lower().endswith(".xml")]:
        refused = [other for other in refused if other != one]
        xml = where / one.name
        path = photos.find(xml, "")
        used |= {path, xml.with_suffix("")}
        failed.append(failure(key_of(path or xml, where), one.reason, f"{xml.name} {WORDS[one.reason]}"))
    for xml in files:
        try:
            voc = parse_voc(read_bytes(xml, _MAX_BYTES))
        except ValueError as error:
            path = photos.find(xml, "")
            used |= {path, xml.with_suffix("")}
            failed.append(failure(key_of(path or xml, where), "broken-label-file", f"{xml.name}: {error}"))
            continue
        if voc is None:
            counts["foreign"] += 1
            continue
        parsed.append((xml, voc))
    places = [photos.find(xml, voc.filename) for xml, voc in parsed]
    if not any(places):  # an unknown layout: match by name, if only one photo has it
        places = [photos.alone(voc.filename) for _, voc in parsed]
    found: dict[str, tuple[Path, VocFile, str | None]] = {}
    for (xml, voc), path in zip(parsed, places, strict=True):
        used |= {path, xml.with_suffix("")}
        if path is None and photos.is_refused(xml, voc.filename):
            continue
        if path is None:
            told = f"it names {voc.filename or 'a photo'!r}, which does not exist"
            failed.append(failure(key_of(xml, where), "orphan-label", told))
            continue
        key = key_of(path, where)
        if key in found:
            counts["twice"] += 1
            continue
        counts["boxes"] += len(voc.boxes)
        counts["difficult"] += voc.difficult
        counts["renamed"] += bool(voc.filename) and posix(voc.filename).stem != path.stem
        listed = splits.get(xml.with_suffix("")) or split_of_folders(xml.relative_to(where).parts[:-1])
        found[key] = (path, voc, listed or split_of_folders(PurePosixPath(key).parts[:-1]))
    if not found and refused:
        raise refusals_error(where, refused)
    if not found:
        raise DataError(f"no VOC annotations at {where}", hint="give a folder with XML files that contain <annotation>")
    origin = 0 if any(0 <= edge < 1 for _, voc, _ in found.values() for box in voc.boxes for edge in box[1:3]) else 1
    if origin == 0:
        notes.append("boxes start at 0, so corners are edges counted from 0, not pixels counted from 1 as in VOC")
    images = [
        SourceImage(
            key,
            path,
            tuple(box._replace(x1=box.x1 - origin, y1=box.y1 - origin) for box in voc.boxes),
            split=split,
            group=copies_of(path.name),
            size=voc.size,
            problems=voc.problems,
        )
        for key, (path, voc, split) in found.items()
    ]
    for key, path in photos.paths.items():
        if path not in used:
            name = photos.listed(path, splits)
            used.add(name)
            split = splits[name] if name else split_of_folders(PurePosixPath(key).parts[:-1])
            images.append(SourceImage(key, path, labelled=False, split=split, group=copies_of(path.name)))
    failed += [
        failure(key_of(name, where), "missing", "listed in ImageSets, but missing")
        for name in splits
        if name not in used
    ]
    failed += refusals(refused)
    names = tuple(sorted({box.label for _, voc, _ in found.values() for box in voc.boxes}))
    return Source(
        label, tuple(images), names=names, failed=tuple(failed), notes=(*notes, *count_notes(counts, _COUNTED))
    )


#: Bytes of the annotations of one photo: ten times what 10,000 objects take.
_MAX_BYTES = 32 << 20


def parse_voc(data: bytes) -> VocFile | None:
    """Parse one XML file; None for XML of another kind.

    Raises :class:`ValueError`. Document types and entities are refused.
    """
    defused: Any = load("defusedxml.ElementTree", what="reading VOC", packages=("defusedxml",))
    try:
        tree = defused.fromstring(data, forbid_dtd=True)
    except (defused.ParseError, LookupError) as error:
        raise ValueError(str(error)) from None
    except ValueError as error:  # defusedxml's own errors are wordy ValueErrors
        raise ValueError(f"it has a document type or entities ({type(error).__name__})") from None
    if tree.tag != "annotation":
        return None
    boxes, problems, difficult = [], [], 0
    for number, found in enumerate(tree.findall("object"), start=1):
        name = _text(found.find("name"))
        corners = _corners(found)
        if not name or corners is None:
            problems.append(f"object {number} has no {'valid box' if name else 'name'}")
            continue
        boxes.append(RawBox(name, *corners))
        difficult += _text(found.find("difficult")) == "1"
    return VocFile(_text(tree.find("filename")), _size(tree.find("size")), tuple(boxes), tuple(problems), difficult)


def _corners(found: Any) -> tuple[float, float, float, float] | None:
    """Return the object's own bndbox; otherwise the bounding box of its polygon."""
    bndbox = found.find("bndbox")
    if bndbox is not None:
        x1, y1, x2, y2 = (_number(bndbox.find(name)) for name in ("xmin", "ymin", "xmax", "ymax"))
        return None if x1 is None or y1 is None or x2 is None or y2 is None else (x1, y1, x2, y2)
    polygon = found.find("polygon")
    points = list(polygon.iter()) if polygon is not None else []
    xs = [value for point in points if re.fullmatch(r"x\d*", point.tag) and (value := _number(point)) is not None]
    ys = [value for point in points if re.fullmatch(r"y\d*", point.tag) and (value := _number(point)) is not None]
    return (min(xs), min(ys), max(xs), max(ys)) if xs and len(xs) == len(ys) else None


def _size(found: Any) -> tuple[int, int] | None:
    width, height = (_number(found.find(name)) if found is not None else None for name in ("width", "height"))
    return (int(width), int(height)) if width and height and width > 0 and height > 0 else None


def _number(found: Any) -> float | None:
    try:
        value = float(_text(found))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _text(found: Any) -> str:
    return (found.text or "").strip() if found is not None else ""


class _Photos(Photos):
    """Photos of XML files: by their own names, next to them or in the matching folder."""

    def __init__(self, reach: Reach, refused: list[Refusal]) -> None:
        super().__init__(reach, refused)
        self.stems: dict[tuple[str, str], list[Path]] = {}
        for key, path in self.paths.items():
            self.stems.setdefault((PurePosixPath(key).parent.as_posix().lower(), path.stem), []).append(path)

    def find(self, xml: Path, filename: str) -> Path | None:
        wanted = posix(filename)
        folders = list(self._folders(xml))
        for stem in (xml.stem, wanted.stem):
            for folder in folders:
                same = self.stems.get((folder, stem), ())
                if same:
                    return next((path for path in same if path.name == wanted.name), same[0])
        return None

    def is_refused(self, xml: Path, filename: str) -> bool:
        """Return whether the photo of an XML file exists but may not be read, which is reported for
        the photo.
        """
        stems = {PurePosixPath(name).stem for name in self.refused if not name.lower().endswith(".xml")}
        return bool(stems & {xml.stem, posix(filename).stem})

    def _folders(self, xml: Path) -> Iterator[str]:
        """Return the photo folders of an XML file: ``Annotations/sub`` matches ``JPEGImages/sub``;
        lower case, relative to the root.
        """
        parts = [part.lower() for part in xml.relative_to(self.reach.root).parts[:-1]]
        yield "/".join(parts) or "."
        for n in reversed(range(len(parts))):
            if parts[n] in XML_FOLDERS:
                for name in PHOTO_FOLDERS:
                    yield "/".join(filter(None, [*parts[:n], name, *parts[n + 1 :]])) or "."

    def listed(self, path: Path, splits: Mapping[Path, str]) -> Path | None:
        """Return the entry in an ImageSets list of a photo without an XML file."""
        for n, part in enumerate(path.parts):
            if part.lower() in PHOTO_FOLDERS:
                name = Path(*path.parts[:n], "Annotations", *path.parts[n + 1 :]).with_suffix("")
                if name in splits:
                    return name
        return None


def _image_sets(reach: Reach) -> tuple[dict[Path, str], list[str]]:
    """Return splits from ``ImageSets/Main/{train,val,test}.txt``, by the path of each photo's XML
    file without ``.xml``.
    """
    found: dict[Path, str] = {}
    twice = []
    for path in reach.files(reach.root, [], (".txt",)):
        split = split_of_file(path.stem) if re.fullmatch("[A-Za-z]+", path.stem) else None
        if path.parent.name != "Main" or path.parent.parent.name != "ImageSets" or split is None:
            continue
        folder = path.parent.parent.parent / "Annotations"
        for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            name = re.sub(r"\s+-?[01]$", "", line.strip())
            if name and found.setdefault(folder / name, split) != split:
                twice.append(name)
    return found, [
        f"{plural(len(twice), 'photo')} listed in two splits; the first counts: {some(twice)}"
    ] if twice else []
