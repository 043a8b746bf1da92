"""Catalogues that somebody forged, with right hashes: a clear refusal or a right answer, and
nothing from outside them.
"""

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import forge_runner
import numpy as np
import pytest
from conftest import TINY, Result, two_halves
from systems import posix_only
from test_index import clustered, configured, put

from fashionrec.catalogue.build.report import BuildReport
from fashionrec.errors import CatalogueError
from fashionrec.store.approximate import INDEX, open_index
from fashionrec.store.generations import read_current
from fashionrec.store.index import make_index
from fashionrec.store.journal import Journal
from fashionrec.store.seen import SeenFiles

HERE = Path(__file__).parent
pytestmark = posix_only("fork")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue with all that one may have, beside its photos. Trials work on copies of it."""
    folder = tmp_path_factory.mktemp("whole")
    photos = Path(shutil.copytree(TINY / "photos", folder / "photos"))
    two_halves(photos / "new.jpg", "red", "black")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("FASHIONREC_BUILD__WORKERS", "1")
        forge_runner.make(photos, folder / "catalogue")
    return folder / "catalogue"


def forged(root: Path, tmp_path: Path, *which: object) -> dict[str, Any]:
    words = [sys.executable, str(HERE / "forge_runner.py"), str(root), str(root.parent / "photos" / "red-blue.jpg")]
    words += [str(tmp_path / "scratch"), *map(str, which)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert not document.get("wrong"), done.stdout[-8000:]
    return document


def test_some_forged_catalogues(whole: Path, tmp_path: Path) -> None:
    document = forged(whole, tmp_path, "--count", 10)
    assert document["trials"] == 10
    assert document["refused"] >= 4


@pytest.mark.release(seconds=1200)
@pytest.mark.timeout(7200)
def test_five_hundred_forged_catalogues(whole: Path, tmp_path: Path) -> None:
    assert forged(whole, tmp_path, "--count", 500, "--seed", 1000)["trials"] == 500


def _edges(native: Any, change: Callable[[np.ndarray], None]) -> None:
    edges = faiss.vector_to_array(native.hnsw.neighbors)
    change(edges)
    faiss.copy_array_to_vector(edges, native.hnsw.neighbors)


def _offsets(native: Any) -> None:
    offsets = faiss.vector_to_array(native.hnsw.offsets)
    offsets[5:-1] += 1_000_000
    faiss.copy_array_to_vector(offsets, native.hnsw.offsets)


def _centroids(native: Any, count: int, dim: int) -> None:
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(np.ones((count, dim), np.float32))
    quantizer.this.disown()
    native.quantizer = quantizer


FORGED: dict[tuple[str, str], Callable[[Any], None]] = {
    ("hnsw", "none"): lambda native: None,
    ("hnsw", "edge"): lambda native: _edges(native, lambda edges: edges.__setitem__(slice(0, 99), 2**30)),
    ("hnsw", "negative edge"): lambda native: _edges(native, lambda edges: edges.__setitem__(7, -(2**30))),
    ("hnsw", "offsets"): _offsets,
    ("hnsw", "entry"): lambda native: setattr(native.hnsw, "entry_point", 2**30),
    ("hnsw", "level"): lambda native: setattr(native.hnsw, "max_level", 40),
    ("ivf", "none"): lambda native: None,
    ("ivf", "more centroids"): lambda native: _centroids(native, native.nlist + 5, native.d),
    ("ivf", "short centroids"): lambda native: _centroids(native, native.nlist, native.d // 2),
    ("ivf", "code size"): lambda native: setattr(native.invlists, "code_size", 3),
}


@pytest.mark.parametrize(("kind", "forgery"), FORGED)
def test_an_index_whose_parts_do_not_fit_is_refused(tmp_path: Path, kind: str, forgery: str) -> None:
    """FAISS follows what an index says unchecked: a forged one, with right hashes, would read any
    memory.
    """
    table = put(tmp_path, {"a": clustered(1500)})
    entry = make_index(tmp_path, "1", table, settings=configured(type=kind))
    path = tmp_path / entry.path / INDEX
    native = faiss.read_index(str(path))
    FORGED[kind, forgery](native)
    faiss.write_index(native, str(path))
    data = path.read_bytes()
    head = {"bytes": entry.head["bytes"], "sha256": hashlib.sha256(data[: entry.head["bytes"]]).hexdigest()}
    entry = entry._replace(bytes=len(data), head=head)
    if forgery == "none":
        assert open_index(tmp_path, entry, table) is not None
        return
    with pytest.raises(CatalogueError, match="damaged"):
        open_index(tmp_path, entry, table)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE garments SET x1 = 'far'", "a row has str in column"),
        ("UPDATE garments SET x2 = 9e999", "a row has inf in column"),
        ("UPDATE entries SET metadata = '[1]'", "not a JSON object"),
        ("UPDATE captions SET attributes = '{\"a\": {}}'", "damaged"),
        ("UPDATE garments SET segment = '../../x'", "damaged"),
        ("UPDATE garments SET thumb_size = 50000000000", "no thumbnail of 50000000000"),
        ("UPDATE items SET product_id = x'ff'", "a row has bytes in column"),
    ],
)
def test_rows_of_other_kinds_are_refused(
    catalogue: Path, photos: Path, tmp_path: Path, cli: Callable[..., Result], statement: str, said: str
) -> None:
    with sqlite3.connect(read_current(catalogue).items_path) as db:
        db.execute(statement)
    db.close()
    forge_runner.reseal(catalogue)
    outcomes = [
        cli("query", photos / "red-blue.jpg", "--index", catalogue, "--html", tmp_path / "page.html"),
        cli("catalogue", "export", tmp_path / "out", "--index", catalogue),
        cli("catalogue", "compact", catalogue),
    ]
    assert all(done.code in (0, 2) and "should not happen" not in done.err for done in outcomes)
    if "captions" not in statement:  # this catalogue has none
        assert any(said in done.err for done in outcomes), [done.err for done in outcomes]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("thumbnail", 10**9),
        ("conf", "x"),
        ("max_garments", 10**12),
        ("crop", {"margin": -1}),
        ("detect", 1),
        ("crop", None),
    ],
)
def test_settings_beyond_their_bounds_are_refused(
    catalogue: Path, photos: Path, cli: Callable[..., Result], key: str, value: object
) -> None:
    path = read_current(catalogue).folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"][key] = value
    path.write_text(json.dumps(manifest))
    forge_runner.reseal(catalogue)
    for words in (("catalogue", "verify", catalogue), ("query", photos / "red-blue.jpg", "--index", catalogue)):
        done = cli(*words)
        assert (done.code, key in done.err) == (2, True), done.err


@pytest.mark.parametrize("name", ["seen.sqlite", "journal.sqlite"])
def test_a_work_file_that_cannot_be_written_is_made_anew(
    name: str, photos: Path, build: Callable[..., BuildReport], tmp_path: Path
) -> None:
    """Byte 18 of its header says that only a newer SQLite may write a file; the build needs nothing
    that is in it.
    """
    root = tmp_path / "catalogue"
    (root / "work").mkdir(parents=True)
    path = root / "work" / name
    (SeenFiles(path) if name == "seen.sqlite" else Journal(path, "key")).close()
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\x09")
    with pytest.raises(sqlite3.Error), sqlite3.connect(path) as db:
        db.execute("CREATE TABLE x (y)")
    assert build(photos, root).items > 0


def test_forgeries_that_once_ended_in_a_bug(whole: Path, tmp_path: Path) -> None:
    """Items without a garment under a filter, counts and figures that a manifest leaves out."""
    assert forged(whole, tmp_path, "--only", 1017, 1325, 1385, 1450, 1452)["trials"] == 5
