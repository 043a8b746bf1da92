"""The typed manifest of a generation, ``manifest.json``, parsed and validated once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from fashionrec.common.folder import is_name
from fashionrec.config import Config, CropConfig

_NAME = re.compile(r"\d{6}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_DIM = 1 << 16
_FIGURES = (
    *("recall_at_10", "text_recall_at_10", "float16_recall_at_10", "latency_ms_p50", "latency_ms_p95"),
    *("build_seconds", "bytes", "vectors"),
)


class FileEntry(NamedTuple):
    """A file of a generation; its name is relative to the catalogue."""

    size: int
    sha256: str


class BundleEntry(NamedTuple):
    """A model's bundle; ``path`` is relative to the catalogue."""

    path: str
    name: str
    fingerprint: str


@dataclass(frozen=True)
class SegmentEntry:
    """A segment: ``count`` vectors of length ``dim``, of a ``kind`` ("image" or "caption").

    ``embedder`` is the fingerprint of the encoder. ``float16_recall_at_10`` compares half floats
    with the original vectors; None for float32.
    """

    kind: str
    count: int
    dim: int
    embedder: str
    float16_recall_at_10: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value is not None}


class CatalogueSettings(NamedTuple):
    """Settings that a catalogue was built with, for crops and garments; None if not recorded.

    Edits of the catalogue use them. Queries are decoded, padded and cropped with them, but use
    present thresholds (:meth:`fashionrec.garments.FinderSettings.of_catalogue`). ``build_key`` is
    the fingerprint of these and the models.
    """

    detect: bool | None = None
    conf: float | None = None
    iou: float | None = None
    max_garments: int | None = None
    rectangular: bool | None = None
    scaled_decoding: str | None = None
    whole_photo: bool | None = None
    thumbnail: int | None = None
    crop: CropConfig | None = None
    build_key: str | None = None

    @property
    def missing(self) -> list[str]:
        """The names of settings that are not recorded."""
        return [name for name, value in self._asdict().items() if value is None]

    def to_dict(self) -> dict[str, Any]:
        document = {key: value for key, value in self._asdict().items() if value is not None}
        return document | ({"crop": self.crop.model_dump()} if self.crop else {})

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> CatalogueSettings:
        """Parse them. Raises ``ValueError`` for values out of bounds."""
        for wrong in _wrong_settings(document):
            raise ValueError(wrong)
        values = {name: document.get(name) for name in cls._fields}
        return cls(**values | {"crop": CropConfig.model_validate(document["crop"]) if "crop" in document else None})

    @classmethod
    def of_config(cls, config: Config, *, detect: bool) -> CatalogueSettings:
        """Return the settings of a build with ``config``."""
        found = config.detector
        return cls(
            *(detect, found.conf, found.iou, found.max_garments, found.rectangular, config.images.scaled_decoding),
            *(config.build.whole_photo, config.build.thumbnail, config.crop),
        )

    def update(self, config: Config) -> Config:
        """Return ``config`` with these settings in place of its own."""
        detector = {key: getattr(self, key) for key in ("conf", "iou", "max_garments", "rectangular")}
        build = {key: getattr(self, key) for key in ("detect", "whole_photo", "thumbnail")}
        return config.model_copy(
            update={
                "images": config.images.model_copy(update={"scaled_decoding": self.scaled_decoding}),
                "detector": config.detector.model_copy(update=detector),
                "build": config.build.model_copy(update=build),
                "crop": self.crop,
            }
        )


class IndexEntry(NamedTuple):
    """The index over image vectors, as built and measured; ``path`` None: exact search.

    ``covers`` are the segments and their counts in the order of the index. ``head`` is how many
    bytes at the file's beginning must not change, and their sha256. ``text`` says whether queries
    of the text encoder may use the index too (None for exact search), ``over`` which segments
    existed. ``extra`` has further figures, such as ``recall_at_99``.

    ``measured_on`` is the number of vectors of each kind when the index was chosen and measured,
    and ``since`` how many were added later, with the ``recall_at_10`` of those measured as they
    came. Both are empty if the figures cover everything.
    """

    kind: str = "flat"
    path: str | None = None
    covers: tuple[tuple[str, int], ...] = ()
    parameters: Mapping[str, Any] = {}
    bytes: int = 0
    build_seconds: float = 0.0
    head: Mapping[str, Any] = {}
    recall_at_10: float = 1.0
    latency_ms_p50: float = 0.0
    latency_ms_p95: float = 0.0
    vectors: int = 0
    reason: str = ""
    tried: Sequence[Mapping[str, Any]] = ()
    text_recall_at_10: float | None = None
    text: bool | None = None
    float16_recall_at_10: float | None = None
    dtype: str = ""
    over: tuple[tuple[str, int], ...] = ()
    settings: Mapping[str, Any] = {}
    measured_on: Mapping[str, int] = {}
    since: Mapping[str, float] = {}
    extra: Mapping[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return the document, without fields that exact search does not use."""
        document = {**self._asdict(), **self.extra}
        document |= {key: [list(pair) for pair in document[key]] for key in ("covers", "over")}
        del document["extra"]
        if self.float16_recall_at_10 is None:
            del document["float16_recall_at_10"]
        if self.path is None:
            del document["head"]
        if self.text is None:
            del document["text"], document["text_recall_at_10"]
        if not self.measured_on:
            del document["measured_on"], document["since"]
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> IndexEntry:
        """Parse an entry. Raises ``ValueError`` for invalid values."""
        for wrong in _wrong_index(document):
            raise ValueError(wrong)
        known = set(cls._fields) - {"extra"}
        values = {key: value for key, value in document.items() if key in known and value is not None}
        pairs = {
            key: tuple((str(name), int(count)) for name, count in document.get(key, ())) for key in ("covers", "over")
        }
        return cls(**values | pairs, extra={key: value for key, value in document.items() if key not in known})


@dataclass(frozen=True)
class Manifest:
    """The content and origin of a generation: see :mod:`fashionrec.store`.

    ``generation``, ``parent`` (the generation this one is based on, and that a rollback goes to)
    and ``files`` are filled in by its commit.
    """

    created: str = ""
    made_by: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)
    photos_from: str = ""
    bundles: Mapping[str, BundleEntry] = field(default_factory=dict)
    segments: Mapping[str, SegmentEntry] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    settings: CatalogueSettings = field(default_factory=CatalogueSettings)
    index: IndexEntry | None = None
    generation: str = ""
    parent: str | None = None
    files: Mapping[str, FileEntry] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files that the generation needs."""
        return sum(entry.size for entry in self.files.values())

    @property
    def shared_folders(self) -> list[str]:
        """Folders outside its own that the generation needs: of segments, bundles and its index."""
        folders = [f"segments/{name}" for name in self.segments]
        folders += [entry.path for entry in self.bundles.values()]
        if self.index and self.index.path:
            folders.append(self.index.path)
        return folders

    def to_dict(self) -> dict[str, Any]:
        """Return the document, with keys in the order of the file."""
        return {
            **vars(self),
            "bundles": {kind: entry._asdict() for kind, entry in self.bundles.items()},
            "segments": {name: entry.to_dict() for name, entry in self.segments.items()},
            "settings": self.settings.to_dict(),
            "index": self.index.to_dict() if self.index else None,
            "files": {name: entry._asdict() for name, entry in self.files.items()},
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], generation: str) -> Manifest:
        """Parse the manifest of a generation. Raises ``ValueError`` for invalid ones."""
        for wrong in _problems(document, generation):
            raise ValueError(wrong)
        index = document.get("index")
        parts = {
            "bundles": {
                kind: BundleEntry(entry["path"], entry["name"], entry["fingerprint"])
                for kind, entry in document["bundles"].items()
            },
            "segments": {
                name: SegmentEntry(*(entry.get(field.name) for field in fields(SegmentEntry)))
                for name, entry in document["segments"].items()
            },
            "files": {name: FileEntry(entry["size"], entry["sha256"]) for name, entry in document["files"].items()},
            "settings": CatalogueSettings.from_dict(document["settings"]),
            "index": IndexEntry.from_dict(index) if index else None,
        }
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in document.items() if key in known} | parts)


def _problems(manifest: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield what is invalid in a manifest before anything relies on it."""
    for key in ("files", "segments", "bundles", "counts", "settings"):
        if not isinstance(manifest.get(key), dict):
            yield f"has no {key}"
    files, parent, index = manifest["files"], manifest.get("parent"), manifest.get("index")
    for file, entry in files.items():
        if not (is_name(file) and isinstance(entry, dict) and _is_count(entry.get("size"))):
            yield f"has an invalid entry of the file {file[:100]!r}"
        if not (isinstance(entry.get("sha256"), str) and _SHA256.fullmatch(entry["sha256"])):
            yield f"has no sha256 of {file}"
    needed = [f"generations/{name}/items.sqlite"]
    for segment, entry in manifest["segments"].items():
        if not (is_name(segment) and "/" not in segment and isinstance(entry, dict)):
            yield f"has an invalid entry of the segment {segment[:100]!r}"
        if entry.get("kind") not in ("image", "caption") or not isinstance(entry.get("embedder"), str):
            yield f"does not give the kind of the segment {segment}"
        if not (_is_count(entry.get("count")) and _is_count(entry.get("dim")) and 0 < entry["dim"] <= _MOST_DIM):
            yield f"has the segment {segment} with count {entry.get('count')!r} and dim {entry.get('dim')!r}"
        if not (entry.get("float16_recall_at_10") is None or _is_number(entry["float16_recall_at_10"])):
            yield f"has an invalid recall of the segment {segment}"
        needed.append(f"segments/{segment}/vectors.faiss")
    for kind, entry in manifest["bundles"].items():
        if kind not in ("detector", "embedder") or not isinstance(entry, dict):
            yield f"has an invalid entry of the bundle {kind[:100]!r}"
        if not all(isinstance(entry.get(key), str) for key in ("path", "name", "fingerprint")):
            yield f"does not give the path of the {kind}"
        if not (is_name(entry["path"]) and entry["path"].startswith("bundles/")):
            yield f"has the {kind} at the invalid path {entry['path'][:100]!r}"
        needed.append(f"{entry['path']}/bundle.json")
    if not all(isinstance(key, str) and _is_count(count) for key, count in manifest["counts"].items()):
        yield "has invalid counts"
    if manifest["counts"] and not {"photos", "garments", "items", "products"} <= manifest["counts"].keys():
        yield "lacks counts of photos, garments, items and products"
    if not (parent is None or (isinstance(parent, str) and _NAME.fullmatch(parent))):
        yield f"has the invalid parent {parent!r}"
    if not (index is None or isinstance(index, dict)):
        yield "has an invalid entry of the index"
    if index and index.get("path") is not None:
        where = index["path"]
        if not (isinstance(where, str) and is_name(where) and where.startswith("indexes/")):
            yield f"has the index at the invalid path {where!r:.100}"
        needed.append(f"{where}/index.faiss")
    for key in ("created", "made_by", "photos_from"):
        if not isinstance(manifest.get(key, ""), str):
            yield f"has a {key} that is not text"
    for file in needed:
        if file not in files:
            yield f"does not list {file}"


def _wrong_settings(settings: Mapping[str, Any]) -> Iterator[str]:
    checks: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(("detect", "whole_photo", "rectangular"), lambda value: isinstance(value, bool)),
        **dict.fromkeys(("conf", "iou"), lambda value: _is_number(value) and 0 <= value <= 1),
        "max_garments": lambda value: _is_count(value) and 1 <= value <= 100_000,
        "thumbnail": lambda value: _is_count(value) and 16 <= value <= 4096,
        "scaled_decoding": lambda value: value in ("auto", "never"),
        "build_key": lambda value: isinstance(value, str),
    }
    for key, check in checks.items():
        if key in settings and not check(settings[key]):
            yield f"has the invalid setting {key} = {settings[key]!r:.60}"
    try:
        if "crop" in settings:
            CropConfig.model_validate(settings["crop"])
    except ValueError as error:
        yield f"has an invalid setting crop: {error}"


def _wrong_index(index: Mapping[str, Any]) -> Iterator[str]:
    checks: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(_FIGURES, lambda value: value is None or _is_number(value)),
        **dict.fromkeys(("kind", "reason", "dtype"), lambda value: isinstance(value, str)),
        **dict.fromkeys(("parameters", "head", "settings"), lambda value: isinstance(value, dict)),
        **dict.fromkeys(("covers", "over"), lambda value: isinstance(value, list) and all(map(_is_cover, value))),
        **dict.fromkeys(
            ("measured_on", "since"),
            lambda value: isinstance(value, dict) and all(_is_number(one) and one >= 0 for one in value.values()),
        ),
        "tried": lambda value: isinstance(value, list) and all(isinstance(one, dict) for one in value),
        "text": lambda value: value is None or isinstance(value, bool),
    }
    for key, check in checks.items():
        if key in index and not check(index[key]):
            yield f"has an index with the invalid {key} = {index[key]!r:.60}"


def _is_cover(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _is_count(value[1])


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48
