"""The manifest: what is read is what was written, and what is no manifest is said in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fashionrec.catalogue.edit import as_built
from fashionrec.config import Config
from fashionrec.errors import CatalogueError
from fashionrec.store import generations
from fashionrec.store.manifest import CatalogueSettings, IndexEntry, Manifest, SegmentEntry

APPROXIMATE = {
    "kind": "ivf",
    "path": "indexes/000001",
    "covers": [["000001-image", 3]],
    "parameters": {"lists": 8, "effort": 4, "candidates": 40, "depth": 20, "left_out": 10},
    "bytes": 100,
    "build_seconds": 0.5,
    "head": {"bytes": 10, "sha256": "00"},
    "recall_at_10": 0.99,
    "latency_ms_p50": 0.1,
    "latency_ms_p95": 0.2,
    "vectors": 3,
    "reason": "ivf: the least memory",
    "tried": [{"kind": "ivf"}],
    "text_recall_at_10": None,
    "text": False,
    "float16_recall_at_10": 0.98,
    "dtype": "float16",
    "over": [["000001-image", 3]],
    "settings": {"depth": 20},
    "recall_at_19": 0.97,
}


def document_of(root: Path) -> dict[str, Any]:
    document = json.loads((generations.read_current(root).folder / generations.MANIFEST).read_text())
    assert isinstance(document, dict)
    return document


def test_a_manifest_is_written_as_it_was_read(catalogue: Path) -> None:
    document = document_of(catalogue)
    again = generations.read_current(catalogue).manifest.to_dict()
    assert json.dumps(again) == json.dumps(document)  # the order too
    document |= {"index": APPROXIMATE, "made_by": "reindex"}
    document["files"]["indexes/000001/index.faiss"] = {"size": 1, "sha256": "0" * 64}
    next(iter(document["segments"].values()))["float16_recall_at_10"] = 0.98
    assert Manifest.from_dict(document, "000001").to_dict() == document


def test_the_size_is_of_all_files(catalogue: Path) -> None:
    manifest = generations.read_current(catalogue).manifest
    assert manifest.size == sum((catalogue / name).stat().st_size for name in manifest.files)


def test_a_manifest_of_an_earlier_version_is_read(catalogue: Path) -> None:
    document = document_of(catalogue)
    for key in ("created", "made_by", "versions", "photos_from", "parent"):
        del document[key]
    document["index"] = {"type": "flat", "vectors": 8, "recall_at_10": 1.0, "latency_ms_p50": None}
    manifest = Manifest.from_dict(document, "000001")
    assert (manifest.created, manifest.parent) == ("", None)
    assert manifest.index == IndexEntry(vectors=8, extra={"type": "flat"})
    del document["index"]
    assert Manifest.from_dict(document, "000001").index is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"covers": [["a"]]}, "covers"),
        ({"covers": [["a", -1]]}, "covers"),
        ({"over": "everything"}, "over"),
        ({"parameters": []}, "parameters"),
        ({"head": 7}, "head"),
        ({"tried": ["ivf"]}, "tried"),
        ({"text": 1}, "text"),
        ({"settings": None}, "settings"),
        ({"text_recall_at_10": "good"}, "text_recall_at_10"),
        ({"bytes": True}, "bytes"),
        ({"kind": 5}, "kind"),
    ],
)
def test_an_index_that_is_said_wrongly_is_refused(catalogue: Path, change: dict[str, Any], told: str) -> None:
    document = document_of(catalogue)
    document["files"]["indexes/000001/index.faiss"] = {"size": 1, "sha256": "0" * 64}
    document["index"] = {**APPROXIMATE, **change}
    with pytest.raises(ValueError, match=f"has an index with the invalid {told} = "):
        Manifest.from_dict(document, "000001")


@pytest.mark.parametrize("missing", ["conf", "rectangular", "thumbnail", "crop"])
def test_a_catalogue_that_does_not_say_how_it_was_built_takes_no_more(
    catalogue: Path, config: Config, missing: str
) -> None:
    served = generations.read_current(catalogue)
    assert as_built(served, config) == config.model_copy(
        update={"crop": served.manifest.settings.crop}
    )  # built with the same
    settings = served.manifest.settings._replace(**{missing: None})
    unsaid = served._replace(manifest=replace(served.manifest, settings=settings))
    assert missing not in unsaid.manifest.to_dict()["settings"]
    with pytest.raises(CatalogueError, match=rf"lacks a build setting \({missing}\)"):
        as_built(unsaid, config)


def test_the_settings_of_a_build_are_those_of_the_next(config: Config) -> None:
    other = config.model_copy(
        update={
            "crop": config.crop.model_copy(update={"pad": 7}),
            "detector": config.detector.model_copy(update={"conf": 0.9, "max_garments": 3}),
            "images": config.images.model_copy(update={"scaled_decoding": "never"}),
            "build": config.build.model_copy(update={"thumbnail": 300, "whole_photo": False, "detect": False}),
        }
    )
    stored = CatalogueSettings.of_config(other, detect=False)
    assert CatalogueSettings.from_dict(json.loads(json.dumps(stored.to_dict()))) == stored
    assert stored.update(config) == other
    assert stored.missing == ["build_key"]


def test_a_segment_says_its_recall_only_where_it_was_measured() -> None:
    assert "float16_recall_at_10" not in SegmentEntry("image", 1, 2, "e").to_dict()
    assert SegmentEntry("image", 1, 2, "e", 0.9).to_dict()["float16_recall_at_10"] == 0.9
