"""Tables and arrays of an export: as pandas and numpy write them, and few rows of them in memory at
a time.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fashionrec.catalogue.exchange import export_catalogue, import_catalogue
from fashionrec.catalogue.exchange_files import (
    SparseColumn,
    StagedGarments,
    VectorFile,
    VectorRows,
    write_header,
    write_rows,
)
from fashionrec.config import Config
from fashionrec.errors import CatalogueError, DataError
from fashionrec.products.parquet import stream_parquet
from fashionrec.store.segments import open_vectors, write_vectors
from fashionrec.store.vectors import VectorStore

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")

#: What is missing in which rows of two; and the type that pandas finds for the column.
SPARSE = {
    "every": [1, 2],
    "some": [None, 2],
    "later": ["", None],
    "none": [None, None],
    "bytes": [b"\xff\xd8", b""],
    "truth": [True, False],
}


def told(rows: list[dict[str, Any]]) -> dict[str, SparseColumn]:
    """Return, of every column that may be empty what the rows hold in all."""
    examples: dict[str, Any] = {"every": 7, "some": 7, "later": "x", "none": "x"}
    has = {name: [row[name] is not None for row in rows] for name in examples}
    return {name: SparseColumn(example, any(has[name]), all(has[name])) for name, example in examples.items()}


@pytest.mark.parametrize("count", [0, 1, 2, 5, 1024])
def test_rows_of_one_group_are_written_as_pandas_writes_them(tmp_path: Path, count: int) -> None:
    rows = [{name: values[n % 2] for name, values in SPARSE.items()} for n in range(count)]
    pandas.DataFrame(rows).to_parquet(tmp_path / "pandas.parquet", index=False)
    write_rows(tmp_path / "ours.parquet", iter(rows), told(rows))
    assert (tmp_path / "ours.parquet").read_bytes() == (tmp_path / "pandas.parquet").read_bytes()


def test_what_the_first_rows_do_not_have_is_there(tmp_path: Path) -> None:
    """All that may be missing is missing in the first group, and there in the last row alone."""
    rows: list[dict[str, Any]] = [{"n": n, "every": n, "some": None, "later": None, "none": None} for n in range(2500)]
    rows[-1] |= {"some": 3, "later": "다"}
    pandas.DataFrame(rows).to_parquet(tmp_path / "pandas.parquet", index=False)
    write_rows(tmp_path / "ours.parquet", iter(rows), told(rows))
    one, two = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("pandas", "ours"))
    assert one.equals(two)
    assert one.schema.equals(two.schema, check_metadata=True)
    assert list(stream_parquet(tmp_path / "ours.parquet")) == list(stream_parquet(tmp_path / "pandas.parquet")) == rows
    few = list(stream_parquet(tmp_path / "ours.parquet", ["n", "gone"]))
    assert few == [{"n": n} for n in range(2500)]


class Row(dict[str, Any]):
    alive = 0

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        Row.alive += 1

    def __del__(self) -> None:
        Row.alive -= 1


def test_few_rows_are_in_memory_at_a_time(tmp_path: Path) -> None:
    most = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal most
        for n in range(6000):
            most = max(most, Row.alive)
            yield Row({"n": n, "data": bytes([n % 251]) * 200})

    gc.disable()
    try:
        write_rows(tmp_path / "t.parquet", rows())
    finally:
        gc.enable()
    assert most <= 2 * 1024
    assert pyarrow.parquet.ParquetFile(tmp_path / "t.parquet").metadata.num_rows == 6000


def test_a_longer_table_takes_no_more_memory_to_read(tmp_path: Path) -> None:
    rng, most = np.random.default_rng(0), {}
    for count in (5_000, 20_000):
        path = tmp_path / f"{count}.parquet"
        write_rows(path, ({"n": n, "data": rng.bytes(500)} for n in range(count)))
        before, most[count] = pyarrow.total_allocated_bytes(), 0
        for n, row in enumerate(stream_parquet(path)):
            assert row["n"] == n
            if n % 500 == 0:
                most[count] = max(most[count], pyarrow.total_allocated_bytes() - before)
        assert n == count - 1
    assert most[20_000] < 1.2 * most[5_000]


STREAM = """
import re, sys
from pathlib import Path
from fashionrec.products.parquet import stream_parquet

peak = 0
for n, _ in enumerate(stream_parquet(Path(sys.argv[1]))):
    if n % 1000 == 0:
        peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
print(peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_the_process_takes_no_more_memory_for_a_longer_table(tmp_path: Path) -> None:
    """Arrow kept buffers of row groups it had read, which its own count of allocated bytes does not
    show.
    """
    rng, peak = np.random.default_rng(0), []
    for count in (5_000, 60_000):
        path = tmp_path / f"{count}.parquet"
        texts = [f"c{m}" for m in range(8)]
        write_rows(
            path,
            (
                {"n": n, "id": f"{n:064x}", "data": rng.bytes(500), **{text: f"{text} {n}" for text in texts}}
                for n in range(count)
            ),
        )
        done = subprocess.run([sys.executable, "-c", STREAM, path], capture_output=True, text=True, check=True)
        peak.append(int(done.stdout))
    assert peak[1] < 1.25 * peak[0]


def test_what_arrow_cannot_read_is_a_value_error(tmp_path: Path) -> None:
    write_rows(tmp_path / "t.parquet", [{"n": n, "text": f"text {n}"} for n in range(3000)])
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[:4] + bytes(2000) + whole[2004:])
    with pytest.raises(ValueError, match=r"\w"):
        list(stream_parquet(tmp_path / "t.parquet"))
    with pytest.raises(FileNotFoundError):
        list(stream_parquet(tmp_path / "none.parquet"))


def unit(count: int, dim: int = 4) -> np.ndarray:
    vectors = np.random.default_rng(3).normal(size=(count, dim)).astype(np.float32)
    normed: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normed


@pytest.mark.parametrize("count", [0, 1, 1024, 2500])
def test_an_array_is_read_row_by_row(tmp_path: Path, count: int) -> None:
    vectors = unit(count)
    with (tmp_path / "v.npy").open("wb") as file:
        write_header(file, count, 4)
        file.write(vectors.data)
    np.save(tmp_path / "numpy.npy", vectors)
    assert (tmp_path / "v.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    array = VectorFile(tmp_path / "v.npy", count)
    assert (array.count, array.dim) == (count, 4)
    for row in {0, count // 2, count - 1} if count else ():
        assert array[row].tolist() == vectors[row].tolist()


def test_the_last_vector_is_looked_at_too(tmp_path: Path) -> None:
    vectors = unit(1025)
    vectors[-1] *= 2
    np.save(tmp_path / "v.npy", vectors)
    with pytest.raises(DataError, match="not all vectors have unit length"):
        VectorFile(tmp_path / "v.npy", 1025)


def test_rows_of_an_array_come_in_the_order_in_which_they_are_asked_for(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a", unit(3))
    write_vectors(tmp_path / "b", unit(2))
    store = VectorStore([(name, open_vectors(tmp_path / name, count=n, dim=4)) for name, n in (("a", 3), ("b", 2))])
    rows = VectorRows(store)
    assert [rows.row(place) for place in (("b", 1), ("a", 2), ("b", 1), ("a", 0), ("a", 2))] == [0, 1, 0, 2, 1]
    assert list(rows.positions) == [4, 2, 0]
    with pytest.raises(CatalogueError, match="there is no vector 2 of 'b'"):
        rows.row(("b", 2))


def garment(photo: str, position: Any, name: str) -> dict[str, Any]:
    item: dict[str, Any] = dict.fromkeys(StagedGarments.COLUMNS)
    return item | {"photo": photo, "position": position, "class_name": name, "confidence": 0.1, "thumbnail": b"\xff"}


def test_garments_are_staged_by_photo(tmp_path: Path) -> None:
    with StagedGarments(tmp_path / "garments.sqlite") as staged:
        for item in (garment("b", 1, "x"), garment("a", 2, "y"), garment("b", 0.0, "z"), garment("b", 1, "late")):
            staged.add(item)
        old = garment("c", 0, "old")
        del old["caption_words"]
        staged.add(old)
        assert staged.of_photo("b") == [garment("b", 0, "z"), garment("b", 1, "x")]
        assert staged.of_photo("c") == [garment("c", 0, "old")]
        assert staged.of_photo("d") == []
        del old["confidence"]
        with pytest.raises(KeyError, match="confidence"):
            staged.add(old)
    assert list(tmp_path.iterdir()) == []


def test_items_in_any_order_make_the_same_catalogue(catalogue: Path, tmp_path: Path, config: Config) -> None:
    """The garments of a photo may be far apart: nothing but the items' own order is
    another then.
    """
    out = tmp_path / "out"
    export_catalogue(catalogue, out, config)
    items = pandas.read_parquet(out / "items.parquet")
    items.iloc[::-1].to_parquet(out / "items.parquet", index=False)
    import_catalogue(out, tmp_path / "made", config)
    export_catalogue(tmp_path / "made", tmp_path / "again", config)
    assert (tmp_path / "again" / "entries.parquet").read_bytes() == (out / "entries.parquet").read_bytes()
    again = pandas.read_parquet(tmp_path / "again" / "items.parquet")
    assert again["item_id"].tolist() == items["item_id"].tolist()[::-1]
    told = [column for column in items.columns if column != "image_vector"]
    assert again.iloc[::-1].reset_index(drop=True)[told].equals(items[told])
    one, two = (np.load(folder / "image_vectors.npy") for folder in (out, tmp_path / "again"))
    assert np.array_equal(one[items["image_vector"]][::-1], two[again["image_vector"]])


def test_an_import_leaves_nothing_beside_the_catalogue(catalogue: Path, tmp_path: Path, config: Config) -> None:
    export_catalogue(catalogue, tmp_path / "out", config)
    import_catalogue(tmp_path / "out", tmp_path / "made", config)
    assert list((tmp_path / "made").rglob("garments*")) == []
