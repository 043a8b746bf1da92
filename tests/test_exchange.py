"""An export of a catalogue, changed in one place: the line that an import tells, and nothing made
of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashionrec.catalogue.exchange import export_catalogue, import_catalogue
from fashionrec.config import Config
from fashionrec.errors import CatalogueError, DataError
from fashionrec.store.items import ItemReader

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
AGAIN = "export it again"
LENGTH = "{out}/image_vectors.npy: not all vectors have unit length"


def document(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def act(out: Path) -> None:
        value = json.loads((out / "export.json").read_text())
        value = change(value) or value
        (out / "export.json").write_text(json.dumps(value))

    return act


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda out: np.save(out / f"{name}.npy", change(np.load(out / f"{name}.npy")))


def items(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def act(out: Path) -> None:
        table = pandas.read_parquet(out / "items.parquet")
        change(table)
        table.to_parquet(out / "items.parquet", index=False)

    return act


def text(content: str) -> Callable[[Path], None]:
    def act(out: Path) -> None:
        (out / "export.json").write_text(content)

    return act


def set_first(column: str, value: Any) -> Callable[[Path], None]:
    def change(table: Any) -> None:
        values = list(table[column])
        values[0] = value
        table[column] = values

    return items(change)


FAULTS: list[tuple[Callable[[Path], Any], str, str]] = [
    (
        lambda out: (out / "export.json").unlink(),
        "{out} is not an export: it has no export.json",
        "fashionrec catalogue export",
    ),
    (text("{"), "{out}/export.json is damaged: ", AGAIN),
    (text("[]"), "{out}/export.json is not the document of an export", "fashionrec catalogue export"),
    (
        document(lambda one: one | {"format": "x"}),
        "{out}/export.json is not the document of an export",
        "fashionrec catalogue export",
    ),
    (document(lambda one: one | {"format_version": 2}), "{out} is an export of format 2, not 1", ""),
    (document(lambda one: one | {"bundles": {}}), "{out} does not name its models", AGAIN),
    (
        document(lambda one: one | {"bundles": one["bundles"] | {"captioner": "x"}}),
        *("{out} does not name its models", AGAIN),
    ),
    (
        document(lambda one: one | {"bundles": one["bundles"] | {"embedder": "x"}}),
        *("the bundles in {out} are not the ones it was made with", ""),
    ),
    (document(lambda one: one.pop("photos_from") and None), "{out} cannot be imported: KeyError('photos_from')", AGAIN),
    (
        text("") and (lambda out: (out / "image_vectors.npy").unlink()),
        "{out}/image_vectors.npy is not an array of vectors: ",
        AGAIN,
    ),
    (
        array("image_vectors", lambda one: one[:-1]),
        "{out}/image_vectors.npy holds float32 (7, 48), not float32 of 8 rows",
        "",
    ),
    (
        array("image_vectors", lambda one: one[0]),
        "{out}/image_vectors.npy holds float32 (48,), not float32 of 8 rows",
        "",
    ),
    (
        array("image_vectors", lambda one: one.astype(np.float64)),
        *("{out}/image_vectors.npy holds float64 (8, 48), not float32 of 8 rows", ""),
    ),
    (
        array("image_vectors", lambda one: one * np.float32(1.0011)),
        LENGTH,
        "",
    ),
    (
        array("image_vectors", lambda one: one * np.float32(0.9989)),
        LENGTH,
        "",
    ),
    (
        array("image_vectors", lambda one: one[:, :16] / np.linalg.norm(one[:, :16], axis=1, keepdims=True)),
        *("vectors in {out} have length 16, the encoder's 48", ""),
    ),
    (set_first("image_vector", 8), "item {item!r} has no vector: row 8 of 8", ""),
    (set_first("image_vector", -1), "item {item!r} has no vector: row -1 of 8", ""),
    (set_first("thumbnail", b"GIF89a"), "the thumbnail of item {item!r} is not a JPEG", ""),
    (set_first("product_id", "nobody"), "{out} cannot be imported: KeyError(", AGAIN),
]


def test_each_fault_of_an_export_is_one_line(catalogue: Path, tmp_path: Path, config: Config) -> None:
    whole, made = tmp_path / "whole", tmp_path / "made"
    export_catalogue(catalogue, whole, config)
    first = pandas.read_parquet(whole / "items.parquet")["item_id"][0]
    for n, (plant, message, hint) in enumerate(FAULTS):
        out = tmp_path / f"out{n}"  # its arrays are mapped for as long as the error is there
        shutil.copytree(whole, out)
        plant(out)
        with pytest.raises(DataError) as caught:
            import_catalogue(out, made, config)
        told = message.format(out=out, item=first)
        assert str(caught.value).startswith(told)
        assert told.endswith((" ", "(")) or str(caught.value) == told
        assert caught.value.hint == hint
        assert not made.exists()


def test_an_export_is_made_of_everything_and_read_back(catalogue: Path, tmp_path: Path, config: Config) -> None:
    out, made = tmp_path / "out", tmp_path / "made"
    out.mkdir()  # an empty folder is taken
    told = export_catalogue(catalogue, out, config)
    assert told == json.loads((out / "export.json").read_text())
    assert list(told) == [
        *("format", "format_version", "generation", "photos_from", "settings", "bundles", "counts", "vectors"),
    ]
    assert (told["format"], told["format_version"], told["generation"]) == ("fashionrec-export", 1, "000001")
    assert told["vectors"] == {"images": 8, "captions": 0}
    assert sorted(path.name for path in out.iterdir()) == [
        *("bundles", "caption_vectors.npy", "entries.parquet", "export.json", "image_vectors.npy", "items.parquet"),
    ]
    assert np.load(out / "caption_vectors.npy").shape == (0, 0)
    # vectors may be a thousandth longer or shorter, as half floats make them
    np.save(out / "image_vectors.npy", np.load(out / "image_vectors.npy") * np.float32(1.0009))
    made.mkdir()
    counts = import_catalogue(out, made, config)
    assert counts == told["counts"]
    (before,), (after,) = (list(root.glob("generations/*/items.sqlite")) for root in (catalogue, made))
    one, two = (list(ItemReader(path).everything()) for path in (before, after))
    assert [stored.item for stored in one] == [stored.item for stored in two]
    assert ItemReader(before).text_search("red") == ItemReader(after).text_search("red")
    for act, kind, root in (
        (lambda: export_catalogue(catalogue, out, config), DataError, out),
        (lambda: import_catalogue(out, made, config), CatalogueError, made),
    ):
        with pytest.raises(kind) as caught:
            act()
        assert str(caught.value) == f"{root} is not empty"
        assert caught.value.hint == "choose another folder"  # type: ignore[attr-defined]
