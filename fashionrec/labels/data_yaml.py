"""The ``data.yaml`` of a YOLO dataset: class names and splits.

A split is a folder of images, or a ``.txt`` file that lists them.
https://docs.ultralytics.com/datasets/detect
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fashionrec.common.documents import DocumentError, read_json, read_yaml
from fashionrec.common.files import write_atomic
from fashionrec.common.reach import Reach, Refusal, refusals_error
from fashionrec.common.text import plural
from fashionrec.errors import DataError
from fashionrec.labels.label_lines import NAME_FILES, label_path
from fashionrec.photos.images import SUFFIXES

DATA_YAML = "data.yaml"
#: Keys of each split in data.yaml; ultralytics says val, Roboflow and our folders say valid.
SPLIT_KEYS = {"train": ("train",), "valid": ("val", "valid"), "test": ("test",)}


class Listed(NamedTuple):
    """An entry of a split: a ``photo`` that may be read, or what is ``refused``; neither if it is
    missing.

    ``path`` is where it was looked for; ``line`` (from 1) and ``text`` are its line in the list
    ``source``. A missing ``source`` has no line.
    """

    path: Path
    photo: Path | None = None
    refused: Refusal | None = None
    source: Path | None = None
    line: int = 0
    text: str = ""


@dataclass(frozen=True)
class YoloData:
    """A dataset: class names by id, and the folders or lists of each split.

    ``refused`` are folders and lists that may not be read: links, and names that lead out of the
    folder of the ``data.yaml``. ``reach`` decides that. ``document`` is the parsed YAML.
    """

    path: Path
    names: dict[int, str]
    splits: dict[str, tuple[Path, ...]]
    reach: Reach = field(compare=False)
    refused: Mapping[str, tuple[Refusal, ...]] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def listed(self, split: str, *, any_list: bool = False, moved: bool = False) -> Iterator[Listed]:
        """Yield all entries of a split, in order. Lists end in ``.txt``, or are any file
        (``any_list``).

        ``moved`` also looks for a listed photo below the dataset's folder, by the longest existing
        tail of its path: lists made elsewhere name folders of that machine.
        """
        yield from (Listed(Path(refusal.name), refused=refusal) for refusal in self.refused.get(split, ()))
        for source in self.splits[split]:
            if source.is_dir():
                refused: list[Refusal] = []
                yield from (Listed(path, path) for path in self.reach.files(source, refused, SUFFIXES))
                yield from (Listed(Path(refusal.name), refused=refusal) for refusal in refused)
            elif source.is_file() and (any_list or source.suffix.lower() == ".txt"):
                for number, line in _lines(source):
                    yield self._locate(source, number, line, moved)
            else:
                yield Listed(source)

    def _locate(self, source: Path, number: int, line: str, moved: bool) -> Listed:
        path, root = source.parent / line, self.path.parent
        candidates = [path]
        if moved:
            parts = Path(line).parts
            candidates += [root / line, *(root.joinpath(*parts[n:]) for n in range(1, len(parts)))]
        place = self.reach.find(*candidates)
        if place is None and self.reach.is_outside(path):
            place = Refusal(line, "outside")
        if isinstance(place, Refusal):
            return Listed(path, None, place, source, number, line)
        return Listed(path, place, None, source, number, line)

    def images(self, split: str) -> list[Path]:
        """Return the images of a split, sorted.

        Raises :class:`DataError` if the split is missing or empty, or one of its images or label
        files is a link, a special file, or outside the dataset's folder. A listed image may be
        missing.
        """
        if split not in self.splits:
            raise DataError(
                f"{self.path} has no {split} split", hint=f"it has {', '.join(self.splits)}: choose one with --split"
            )
        images: list[Path] = []
        refused: list[Refusal] = []
        for listed in self.listed(split):
            if listed.refused or (listed.line and not listed.photo and self.reach.leads_out(listed.path)):
                refused.append(listed.refused or Refusal(listed.text, "outside"))
            elif listed.photo or listed.line:
                images.append(listed.photo or listed.path)
            else:
                raise DataError(f"the {split} split of {self.path} is missing: {listed.path}")
        refused += self.refused_labels(images)
        if refused:
            raise refusals_error(f"the {split} split of {self.path}", refused)
        if not images:
            raise DataError(f"the {split} split of {self.path} has no images")
        return sorted(images)

    def refused_labels(self, images: Iterable[Path]) -> list[Refusal]:
        """Yield the label files of images that may not be read."""
        found: list[Refusal] = []
        folders: dict[str, tuple[Path, Refusal | None, dict[str, Refusal]]] = {}
        for image in images:
            above, name = os.path.split(image)
            if above not in folders:
                folder = label_path(image).parent
                refused = self.reach.check(folder)
                listed = [] if refused else self.reach.names(folder)[1]
                folders[above] = folder, refused, {one.name.rpartition("/")[2]: one for one in listed}
            folder, refused, known = folders[above]
            if not refused and not known:
                continue
            label = f"{Path(name).stem}.txt"
            if not refused:
                found += [known[label]] if label in known else []
            elif refused.reason != "outside" or (folder / label).exists():
                found.append(Refusal(self.reach.name(folder / label), refused.reason))
        return found


def find_data_yaml(where: Path, follow_links: bool | None = None) -> Path | None:
    """Return the file that describes the dataset in a folder: ``data.yaml``, another common name,
    or the only YAML with splits.

    None if there is none, or several. The path of a YAML file is returned unchanged.
    """
    if where.suffix.lower() in (".yaml", ".yml"):
        return where
    reach = Reach(where, follow_links)
    for name in (DATA_YAML, "data.yml", "dataset.yaml"):
        if reach.described(where / name).is_file():
            return where / name
    names = [name for name in reach.names(where)[0] if name.lower().endswith((".yaml", ".yml"))]
    others = [path for path in (where / name for name in names) if _has_splits(path, follow_links)]
    return others[0] if len(others) == 1 else None


def _has_splits(path: Path, follow_links: bool | None) -> bool:
    try:
        return bool(read_data_yaml(path, follow_links).splits)
    except DataError:
        return False


def data_yaml_of(path: Path) -> Path:
    """Return the ``data.yaml`` of a dataset given by its folder or that file.

    A link to a folder is not treated as a folder: it is refused as a link when it is read.
    """
    return path / DATA_YAML if path.is_dir() and path.suffix.lower() not in (".yaml", ".yml") else path


def read_names(reach: Reach) -> dict[int, str]:
    """Return class names by id from a ``classes.txt`` or similar, for datasets without data.yaml;
    empty if there is none.
    """
    for name in NAME_FILES:
        path = reach.described(reach.root / name)
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return {number: line.strip() for number, line in enumerate(lines) if line.strip()}
    return {}


def read_data_yaml(path: Path, follow_links: bool | None = None) -> YoloData:
    """Read a dataset's ``data.yaml``. Raises :class:`DataError` if it is missing, invalid, or a
    link that is not followed.

    Everything it names must lie in its own folder, or in a sibling folder of images and labels
    named by its ``path`` (``../garments``), unless links are followed
    (:class:`~fashionrec.common.reach.Reach`). ``follow_links=False`` is for unpacked archives: only
    their own folder.
    """
    path = data_yaml_of(path)
    reach = Reach(path.parent, follow_links)
    try:
        document = read_yaml(reach.described(path))
    except FileNotFoundError:
        raise DataError(
            f"no such dataset: {path}", hint="give data=DIR/data.yaml; create one with `fashionrec fetch-dataset`"
        ) from None
    except (OSError, DocumentError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not isinstance(document, dict) or "names" not in document:
        raise DataError(f"{path} is not a YOLO dataset: names is missing")
    root = path.parent / str(document.get("path") or "")
    named = {
        split: [str(part) for part in (value if isinstance(value, list) else [value])]
        for split, keys in SPLIT_KEYS.items()
        if (value := next((document[key] for key in keys if document.get(key)), None)) is not None
    }
    if follow_links is not False and not reach.follow_links and (beside := _beside(path.parent, root, named.values())):
        reach, root = Reach(beside, False), beside
    splits: dict[str, tuple[Path, ...]] = {}
    refused: dict[str, tuple[Refusal, ...]] = {}
    elsewhere = "path" in document and reach.is_outside(root)  # that is meant, not a folder of the same name here
    for split, parts in named.items():
        places = [
            Refusal(str(root / part), "outside") if elsewhere else _locate(reach, root, path.parent, part)
            for part in parts
        ]
        splits[split] = tuple(place for place in places if isinstance(place, Path))
        refused[split] = tuple(place for place in places if isinstance(place, Refusal))
    return YoloData(path, _names(document["names"], path), splits, reach, refused, document)


def _lines(source: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line in a list of images that is not blank."""
    text = source.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip().replace("\\", "/")


def _names(names: Any, path: Path) -> dict[int, str]:
    try:
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not a YOLO dataset: invalid names ({error})") from None


def write_own_yaml(data: YoloData, folder: Path, extra: Mapping[str, Sequence[Path]] | None = None) -> Path:
    """Write the data that ultralytics may read into ``folder``: lists of photos and a ``data.yaml``
    with three keys.

    The original data.yaml is never passed on: ultralytics executes ``download:`` if photos are
    missing. ``extra`` are photos of other datasets, by split. Raises :class:`DataError` for a photo
    that is missing, or that a list cannot name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"path": str(folder.absolute())}
    for split, key in (("train", "train"), ("valid", "val"), ("test", "test")):
        photos = [*(data.images(split) if split in data.splits else []), *(extra or {}).get(split, [])]
        if not photos:
            continue
        paths = [str(photo.absolute()) for photo in photos]
        for path in paths:
            if path.splitlines() != [path] or path != path.strip():
                raise DataError(f"{data.path} has a photo whose name a list cannot contain: {path!r}", hint="rename it")
        if missing := [path for path in paths if not os.path.isfile(path)]:  # noqa: PTH113 - a million of them
            raise DataError(
                f"{len(missing)} of {plural(len(paths), 'photo')} of {data.path} missing, first: {missing[0]}"
            )
        listing = folder.absolute() / f"{split}.txt"
        write_atomic(listing, "".join(f"{path}\n" for path in paths))
        document[key] = str(listing)
    document.setdefault("train", document.get("val"))
    document.setdefault("val", document["train"])
    document["names"] = data.names
    target = folder.absolute() / DATA_YAML
    write_atomic(target, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return target


def declared(path: Path) -> dict[str, Any]:
    """Return what a dataset of fashionrec states in the ``dataset.json`` next to its data.yaml;
    empty without one.

    Raises :class:`DataError` if that file is damaged, or a link that is not followed.
    """
    file = data_yaml_of(path).parent / "dataset.json"
    try:
        document = read_json(Reach(file.parent).described(file))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise DataError(f"{file} is not a dataset description")
    return document


def dataset_fingerprint(path: Path, splits: Sequence[str] | None = None) -> str:
    """Return the sha256 over class names and, for each image in order, its name, size in bytes and
    labels; of ``splits``, or of all.

    Pixels are not hashed, which would take minutes: an image replaced by another of the same size
    is not noticed.
    """
    data = read_data_yaml(path)
    digest = hashlib.sha256(repr(sorted(data.names.items())).encode())
    for split in data.splits if splits is None else splits:
        for image in data.images(split):
            labels = label_path(image)
            text = labels.read_bytes() if labels.is_file() else b""
            try:
                size = image.stat().st_size
            except OSError:
                raise DataError(f"a photo of {path} is missing: {image}") from None
            digest.update(f"{split}/{image.name}:{size}\n".encode() + text)
    return digest.hexdigest()


def _beside(folder: Path, root: Path, named: Iterable[Sequence[str]]) -> Path | None:
    """Return the sibling folder that a yaml's ``path`` names, if it is a dataset: images with a
    folder of labels.
    """
    above = Reach(folder.absolute().parent, False)
    place = above.inside(root)
    if place is None or place.parent != above.root or not Reach(folder, False).leads_out(root) or above.check(place):
        return None
    reach = Reach(place, False)
    for images in (reach.inside(place / part) for parts in named for part in parts):
        if images is not None and "images" in images.relative_to(place).parts:
            labels = label_path(images / "x").parent
            if reach.check(labels) is None and labels.is_dir():
                return place
    return None


def _locate(reach: Reach, root: Path, beside: Path, part: str) -> Path | Refusal:
    """Resolve a part of a split. Roboflow writes ``../train/images`` for folders next to the yaml:
    both readings are tried.
    """
    candidates = [root / part, beside / part, beside / part.removeprefix("../")]
    found = reach.find(*candidates)
    if found is not None:
        return found
    if reach.is_outside(candidates[0]):
        return Refusal(str(candidates[0]), "outside")
    if reach.follow_links:
        return candidates[0]
    inside = [place for path in candidates if (place := reach.inside(path)) is not None]
    return inside[0] if inside else Refusal(part, "outside")
