"""A manifest by hand: what each part may say, up to its bounds, and the one line about what it may
not.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fashionrec.config import CropConfig
from fashionrec.store.manifest import (
    BundleEntry,
    CatalogueSettings,
    FileEntry,
    IndexEntry,
    Manifest,
    SegmentEntry,
)

HASH = "0123456789abcdef" * 4
CROP = {"margin": 0.1, "square": True, "pad": 255}
SETTINGS: dict[str, Any] = {
    "detect": True,
    "conf": 0.25,
    "iou": 0.5,
    "max_garments": 5,
    "rectangular": False,
    "scaled_decoding": "auto",
    "whole_photo": True,
    "thumbnail": 256,
    "crop": CROP,
    "build_key": "key",
}
INDEX: dict[str, Any] = {
    "kind": "ivf",
    "path": "indexes/000001",
    "covers": [["000001-image", 3]],
    "parameters": {"lists": 8},
    "bytes": 100,
    "head": {"bytes": 10},
    "tried": [{"kind": "ivf"}],
    "text": False,
    "over": [["000001-image", 3]],
    "settings": {"depth": 20},
}
FILES = (
    *("generations/000002/items.sqlite", "segments/000001-image/vectors.faiss", "bundles/embedder-0/bundle.json"),
    "indexes/000001/index.faiss",
)
DOCUMENT: dict[str, Any] = {
    "created": "2026-01-01T00:00:00+00:00",
    "made_by": "build-index",
    "versions": {"fashionrec": "1"},
    "photos_from": "photos",
    "bundles": {"embedder": {"path": "bundles/embedder-0", "name": "tiny", "fingerprint": "f"}},
    "segments": {"000001-image": {"kind": "image", "count": 3, "dim": 4, "embedder": "f", "float16_recall_at_10": 0.9}},
    "counts": {"photos": 3, "garments": 3, "items": 3, "products": 2},
    "settings": SETTINGS,
    "index": INDEX,
    "generation": "000002",
    "parent": "000001",
    "files": {file: {"size": n, "sha256": HASH} for n, file in enumerate(FILES)},
}
SEGMENT, MODEL, FILE = ("segments", "000001-image"), ("bundles", "embedder"), ("files", FILES[0])
GONE = object()


def changed(*path: Any) -> dict[str, Any]:
    """The document above with a value (the last argument) at a place of it;

    ``GONE`` takes it away.
    """
    document = copy.deepcopy(DOCUMENT)
    *keys, last, value = path
    place = document
    for key in keys:
        place = place[key]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return document


def test_what_a_manifest_says() -> None:
    read = Manifest.from_dict(DOCUMENT, "000002")
    assert read == Manifest(
        created="2026-01-01T00:00:00+00:00",
        made_by="build-index",
        versions={"fashionrec": "1"},
        photos_from="photos",
        bundles={"embedder": BundleEntry("bundles/embedder-0", "tiny", "f")},
        segments={"000001-image": SegmentEntry("image", 3, 4, "f", 0.9)},
        counts={"photos": 3, "garments": 3, "items": 3, "products": 2},
        settings=CatalogueSettings(
            True, 0.25, 0.5, 5, False, "auto", True, 256, CropConfig.model_validate(CROP), "key"
        ),
        index=IndexEntry(
            **{key: value for key, value in INDEX.items() if key not in ("covers", "over")},
            covers=(("000001-image", 3),),
            over=(("000001-image", 3),),
        ),
        generation="000002",
        parent="000001",
        files={file: FileEntry(n, HASH) for n, file in enumerate(FILES)},
    )
    assert read.size == 0 + 1 + 2 + 3
    assert read.shared_folders == ["segments/000001-image", "bundles/embedder-0", "indexes/000001"]
    assert Manifest().shared_folders == Manifest(index=IndexEntry()).shared_folders == []
    assert Manifest.from_dict(read.to_dict(), "000002") == read


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (("files", GONE), "has no files"),
        (("segments", []), "has no segments"),
        (("bundles", None), "has no bundles"),
        (("counts", GONE), "has no counts"),
        (("settings", 3), "has no settings"),
        (("files", "../x", {"size": 1, "sha256": HASH}), "has an invalid entry of the file '../x'"),
        (("files", "x" * 300, {"size": 1, "sha256": HASH}), f"has an invalid entry of the file {'x' * 100!r}"),
        ((*FILE, [1]), f"has an invalid entry of the file {FILES[0]!r}"),
        ((*FILE, "size", -1), f"has an invalid entry of the file {FILES[0]!r}"),
        ((*FILE, "size", 1 << 48), f"has an invalid entry of the file {FILES[0]!r}"),
        ((*FILE, "size", True), f"has an invalid entry of the file {FILES[0]!r}"),
        ((*FILE, "size", 1.0), f"has an invalid entry of the file {FILES[0]!r}"),
        ((*FILE, "sha256", HASH[1:]), f"has no sha256 of {FILES[0]}"),
        ((*FILE, "sha256", HASH.upper()), f"has no sha256 of {FILES[0]}"),
        ((*FILE, "sha256", 7), f"has no sha256 of {FILES[0]}"),
        ((*FILE, "sha256", GONE), f"has no sha256 of {FILES[0]}"),
        (("segments", "a/b", {}), "has an invalid entry of the segment 'a/b'"),
        (("segments", "..", {}), "has an invalid entry of the segment '..'"),
        ((*SEGMENT, []), "has an invalid entry of the segment '000001-image'"),
        ((*SEGMENT, "kind", "text"), "does not give the kind of the segment 000001-image"),
        ((*SEGMENT, "embedder", 5), "does not give the kind of the segment 000001-image"),
        ((*SEGMENT, "dim", 0), "has the segment 000001-image with count 3 and dim 0"),
        ((*SEGMENT, "dim", 65537), "has the segment 000001-image with count 3 and dim 65537"),
        ((*SEGMENT, "dim", "4"), "has the segment 000001-image with count 3 and dim '4'"),
        ((*SEGMENT, "count", -1), "has the segment 000001-image with count -1 and dim 4"),
        ((*SEGMENT, "count", None), "has the segment 000001-image with count None and dim 4"),
        ((*SEGMENT, "float16_recall_at_10", "good"), "has an invalid recall of the segment 000001-image"),
        ((*SEGMENT, "float16_recall_at_10", True), "has an invalid recall of the segment 000001-image"),
        (("bundles", "captioner", {}), "has an invalid entry of the bundle 'captioner'"),
        ((*MODEL, "x"), "has an invalid entry of the bundle 'embedder'"),
        ((*MODEL, "path", GONE), "does not give the path of the embedder"),
        ((*MODEL, "name", 1), "does not give the path of the embedder"),
        ((*MODEL, "fingerprint", None), "does not give the path of the embedder"),
        ((*MODEL, "path", "work/x"), "has the embedder at the invalid path 'work/x'"),
        ((*MODEL, "path", "bundles/../x"), "has the embedder at the invalid path 'bundles/../x'"),
        (("counts", "photos", -1), "has invalid counts"),
        (("counts", "photos", "3"), "has invalid counts"),
        (("counts", "items", GONE), "lacks counts of photos, garments, items and products"),
        (("parent", "1"), "has the invalid parent '1'"),
        (("parent", "0000010"), "has the invalid parent '0000010'"),
        (("parent", 1), "has the invalid parent 1"),
        (("index", ["ivf"]), "has an invalid entry of the index"),
        (("index", "path", "work/1"), "has the index at the invalid path 'work/1'"),
        (("index", "path", "indexes/../x"), "has the index at the invalid path 'indexes/../x'"),
        (("index", "path", 7), "has the index at the invalid path 7"),
        (("created", 5), "has a created that is not text"),
        (("made_by", None), "has a made_by that is not text"),
        (("photos_from", ["a"]), "has a photos_from that is not text"),
        *((("files", file, GONE), f"does not list {file}") for file in FILES),
        (("settings", "crop", "pad", 256), "has an invalid setting crop: "),
        (("settings", "crop", None), "has an invalid setting crop: "),
    ],
)
def test_what_no_manifest_says(place: tuple[Any, ...], told: str) -> None:
    with pytest.raises(ValueError, match=r"has|lacks|does") as caught:
        Manifest.from_dict(changed(*place), "000002")
    assert str(caught.value).startswith(told) if told.endswith(": ") else str(caught.value) == told


@pytest.mark.parametrize(
    "place",
    [
        (*FILE, "size", (1 << 48) - 1),
        (*SEGMENT, "dim", 1),
        (*SEGMENT, "dim", 65536),
        (*SEGMENT, "count", 0),
        (*SEGMENT, "kind", "caption"),
        (*SEGMENT, "float16_recall_at_10", None),
        (*SEGMENT, "float16_recall_at_10", GONE),
        ("counts", {}),
        ("counts", "captions", 0),
        ("parent", None),
        ("index", None),
        ("index", {}),
        ("index", "path", None),
        ("created", GONE),
        ("bundles", "detector", {"path": "bundles/embedder-0", "name": "", "fingerprint": ""}),
        ("settings", {}),
        ("other", "of a later version"),
    ],
)
def test_what_a_manifest_may_say(place: tuple[Any, ...]) -> None:
    Manifest.from_dict(changed(*place), "000002")


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        ("detect", [True, False], [1, "yes", None]),
        ("whole_photo", [True, False], [0, None]),
        ("rectangular", [True, False], ["no", None]),
        ("conf", [0, 1, 0.5], [-0.01, 1.01, True, "0.5", None]),
        ("iou", [0, 1.0], [-1, 2, False, None]),
        ("max_garments", [1, 100_000], [0, 100_001, 1.5, True, None]),
        ("thumbnail", [16, 4096], [15, 4097, 64.0, None]),
        ("scaled_decoding", ["auto", "never"], ["always", True, None]),
        ("build_key", ["", "key"], [7, None]),
    ],
)
def test_the_bounds_of_settings(key: str, right: list[Any], wrong: list[Any]) -> None:
    for value in right:
        found = getattr(CatalogueSettings.from_dict({**SETTINGS, key: value}), key)
        assert (found, type(found)) == (value, type(value))
    for value in wrong:
        with pytest.raises(ValueError, match="has the invalid setting") as caught:
            CatalogueSettings.from_dict({**SETTINGS, key: value})
        assert str(caught.value) == f"has the invalid setting {key} = {value!r}"
    unsaid = CatalogueSettings.from_dict({name: value for name, value in SETTINGS.items() if name != key})
    assert unsaid.missing == [key]
    assert key not in unsaid.to_dict()


COVERS = [[["a", 0]], [], [["a", 1], ["b", 2]]]
NO_COVERS = [None, {}, "a", [["a"]], [["a", 1, 2]], [["a", -1]], [[1, 1]], [("a", 1)], [["a", 1], 2], [["a", True]]]


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        *(
            (key, [None, 0, 0.5, 10**15 - 1, -1], ["1", True, 1e15, -(10**15), [], float("inf"), float("nan")])
            for key in ("recall_at_10", "text_recall_at_10", "float16_recall_at_10", "latency_ms_p50")
        ),
        *((key, [None, 7], ["1", False]) for key in ("latency_ms_p95", "build_seconds", "bytes", "vectors")),
        *((key, ["", "x"], [1, None, True]) for key in ("kind", "reason", "dtype")),
        *((key, [{}, {"a": 1}], [[], None, "x"]) for key in ("parameters", "head", "settings")),
        ("covers", COVERS, NO_COVERS),
        ("over", COVERS, NO_COVERS),
        ("tried", [[], [{}], [{"kind": "ivf"}]], [{}, None, ["ivf"], [{}, 1]]),
        ("text", [None, True, False], [1, "yes"]),
    ],
)
def test_the_bounds_of_an_index(key: str, right: list[Any], wrong: list[Any]) -> None:
    for value in right:
        found = getattr(IndexEntry.from_dict({**INDEX, key: value}), key)
        if key in ("covers", "over"):
            assert found == tuple(map(tuple, value))
        else:
            assert found == (getattr(IndexEntry(), key) if value is None else value)
    for value in wrong:
        with pytest.raises(ValueError, match="has an index with the invalid") as caught:
            IndexEntry.from_dict({**INDEX, key: value})
        assert str(caught.value) == f"has an index with the invalid {key} = {value!r}"


def test_what_an_entry_of_an_index_leaves_out() -> None:
    assert IndexEntry().to_dict() == {
        "kind": "flat",
        "path": None,
        "covers": [],
        "parameters": {},
        "bytes": 0,
        "build_seconds": 0.0,
        "recall_at_10": 1.0,
        "latency_ms_p50": 0.0,
        "latency_ms_p95": 0.0,
        "vectors": 0,
        "reason": "",
        "tried": (),
        "dtype": "",
        "over": [],
        "settings": {},
    }
    full = IndexEntry(
        path="indexes/1", head={"bytes": 1}, text=False, float16_recall_at_10=0.5, extra={"recall_at_99": 0.9}
    ).to_dict()
    assert {key: full[key] for key in ("head", "text", "text_recall_at_10", "float16_recall_at_10")} == {
        "head": {"bytes": 1},
        "text": False,
        "text_recall_at_10": None,
        "float16_recall_at_10": 0.5,
    }
    assert full["recall_at_99"] == 0.9
    assert IndexEntry.from_dict({"recall_at_99": 0.9, "later": 1}).extra == {"recall_at_99": 0.9, "later": 1}
