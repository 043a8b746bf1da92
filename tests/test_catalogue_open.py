"""Opening a catalogue: the line about one whose manifest, bundles and vectors do not belong
together, and what is kept open.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, get_type_hints

import pytest

import fashionrec
from fashionrec.catalogue.catalogue import Catalogue, verify_catalogue
from fashionrec.catalogue.edit import update_products
from fashionrec.catalogue.reindex import reindex_catalogue
from fashionrec.common.files import dump_json, sha256_file
from fashionrec.config import Config, Resolved, load_config
from fashionrec.errors import CatalogueError
from fashionrec.store.generations import Generation, read_current

AGAIN = "go back (`fashionrec catalogue rollback`), get another copy, or build the catalogue again in another folder"


def rewrite(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as a forger would: with the right hash of it in the pointer."""
    path = read_current(root).folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(dump_json(document))
    pointer = json.loads((root / "catalogue.json").read_text())
    (root / "catalogue.json").write_text(dump_json({**pointer, "manifest_sha256": sha256_file(path)}))


def refused(act: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(CatalogueError) as caught:
        act()
    return str(caught.value), caught.value.hint


@pytest.mark.parametrize("key", ["crop", "thumbnail"])
def test_a_manifest_that_does_not_say_how_garments_were_cut(catalogue: Path, config: Config, key: str) -> None:
    rewrite(catalogue, lambda document: document["settings"].pop(key))
    told = f"catalogue {catalogue} is damaged: its manifest has no setting {key}"
    assert refused(lambda: Catalogue.open(catalogue, config)) == (told, AGAIN)


@pytest.mark.parametrize("kind", ["embedder", "detector"])
def test_bundles_that_are_others(catalogue: Path, config: Config, kind: str) -> None:
    found = read_current(catalogue).manifest.bundles[kind]
    rewrite(catalogue, lambda document: document["bundles"][kind].update(fingerprint="0123456789abcdef"))
    told = f"the {kind} in {catalogue} ({found.fingerprint[:12]}) is not the one the catalogue was built with (0123456789ab)"
    hint = "restore the right bundle, or rebuild with `fashionrec build-index`"
    assert refused(lambda: Catalogue.open(catalogue, config)) == (told, hint)
    rewrite(catalogue, lambda document: document["bundles"][kind].update(fingerprint=found.fingerprint))
    Catalogue.open(catalogue, config).close()
    record = catalogue / found.path / "bundle.json"
    text = record.read_text()
    record.write_text(text.replace('"name"', '"nome"', 1))
    told = f"catalogue {catalogue} is damaged: {record} is damaged: name is None"
    assert refused(lambda: Catalogue.open(catalogue, config))[0] == told
    record.write_text(text)
    for act in (verify_catalogue, lambda root: Catalogue.open(root, config).close()):
        act(catalogue)


def test_vectors_of_another_encoder(catalogue: Path, config: Config) -> None:
    embedder = read_current(catalogue).manifest.bundles["embedder"].fingerprint
    rewrite(catalogue, lambda document: document["segments"]["000001-image"].update(embedder="0123456789abcdef"))
    about = f"the vectors in {catalogue}/segments/000001-image are of another encoder"
    told = (f"{about} (0123456789ab, not {embedder[:12]})", "rebuild the catalogue with `fashionrec build-index`")
    assert refused(lambda: Catalogue.open(catalogue, config)) == told


def test_a_catalogue_without_an_encoder_or_a_detector(catalogue: Path, config: Config) -> None:
    rewrite(catalogue, lambda document: document["bundles"].pop("detector"))
    with Catalogue.open(catalogue, config) as opened:
        assert opened.detector_bundle is None
        opened.begin("text", detect=True)
    rewrite(catalogue, lambda document: document["bundles"].pop("embedder"))
    for act in (
        lambda: Catalogue.open(catalogue, config).close(),
        lambda: update_products(catalogue, [{"product_id": "green.jpg", "price": 1}], config),
    ):
        assert refused(act)[0] == f"catalogue {catalogue} has no embedder"


def test_a_generation_that_a_writer_replaces_meanwhile_is_opened_in_its_new_state(
    catalogue: Path, config: Config
) -> None:
    served = read_current(catalogue).name
    tried: list[str] = []

    class Overtaken(Catalogue):
        """Between the pointer and the files, another generation is served and the one before
        removed.
        """

        def __init__(self, generation: Generation, config: Config | Resolved, at_once: bool = False) -> None:
            tried.append(generation.name)
            if len(tried) == 1:
                reindex_catalogue(catalogue, load_config(env={}).config)
                shutil.rmtree(generation.folder)
            super().__init__(generation, config, at_once)

    with Overtaken.open(catalogue, config) as opened:
        assert tried == [served, opened.generation.name]
        assert opened.generation == read_current(catalogue)
        assert opened.generation.name != served


def test_what_is_open_is_made_once_and_closed(catalogue: Path, config: Config) -> None:
    generation = read_current(catalogue)
    opened = Catalogue.open(str(catalogue), config)
    assert (opened.root, opened.generation, opened.at_once, opened.closed) == (catalogue, generation, False, False)
    assert opened.counts == generation.manifest.counts
    opened.counts["photos"] = 0
    assert opened.counts == generation.manifest.counts
    assert (opened.crop, opened.settings) == (generation.manifest.settings.crop, generation.manifest.settings)
    assert not opened.newer()
    opened.check_open()
    made: list[Catalogue] = []

    def make(given: Catalogue) -> int:
        made.append(given)
        return len(made)

    assert [opened.memoize(make), opened.memoize(make), opened.memoize(lambda one: 7)] == [1, 1, 7]
    assert made == [opened]
    for _ in range(2):
        opened.begin_vectors()
    assert opened.images is opened.images
    assert (len(opened.images), len(opened.captions)) == (generation.manifest.counts["garments"], 0)
    opened.close()
    assert opened.closed
    told = (f"catalogue {catalogue} is closed", "open it again with Catalogue.open")
    assert refused(opened.check_open) == told
    with Catalogue.open(catalogue, config, at_once=True) as other:
        assert (other.at_once, other.embedder_bundle.at_once) == (True, True)
        stored = next(iter(other.items.everything()))
        assert other.thumbnail(stored).startswith(b"\xff\xd8\xff")
    assert other.closed
    with Catalogue.open(catalogue, config) as later:
        assert not later.embedder_bundle.at_once
        assert later.embedder_bundle.cache is None
    changed = config.model_copy(update={"project": config.project.model_copy(update={"cache": "x", "threads": 3})})
    with Catalogue.open(catalogue, changed) as cached:
        assert cached.embedder_bundle.cache == Path("x")
        assert cached.images.threads == 3


def test_what_is_memoized_may_wait_for_another_thread(catalogue: Path, config: Config) -> None:
    """A filter's columns are made of the vectors, which another thread may be about to open."""

    def make(given: Catalogue) -> int:
        other = threading.Thread(target=lambda: given.images, daemon=True)
        other.start()
        other.join(10)
        assert not other.is_alive(), "the other thread waits for this one"
        return len(given.images)

    with Catalogue.open(catalogue, config) as opened:
        assert opened.memoize(make) == len(opened.images)


def test_within_with_a_catalogue_is_of_its_own_type() -> None:
    """``with fashionrec.Catalogue.open(...) as catalogue`` can be searched, to a type
    checker, too.
    """
    assert get_type_hints(fashionrec.Catalogue.__enter__)["return"] is Self


def test_every_file_is_verified(catalogue: Path) -> None:
    generation = read_current(catalogue)
    assert verify_catalogue(str(catalogue)) == len(generation.manifest.files)
    for name in generation.manifest.files:
        path = catalogue / name
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        told = f"catalogue {catalogue} is damaged: the content of {name} has changed"
        assert refused(lambda: verify_catalogue(catalogue)) == (told, AGAIN)
        path.write_bytes(data)
    with (catalogue / "catalogue.json").open("a") as file:
        file.write(" ")
    told = f"catalogue {catalogue} is damaged: catalogue.json has changed"
    assert refused(lambda: verify_catalogue(catalogue))[0] == told
