"""Small inputs, large work: each is refused in one line, in bounded time and memory; what is
honest, and larger, passes.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TINY, Result
from PIL import Image

import fashionrec
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.common.documents import DocumentError, parse_json, parse_yaml
from fashionrec.config import Config, load_config
from fashionrec.dataset.audit.run import audit_dataset
from fashionrec.errors import DataError, FashionrecError, ImageError
from fashionrec.labels.data_yaml import read_data_yaml
from fashionrec.labels.label_lines import read_labels
from fashionrec.photos.images import read_thumbnail
from fashionrec.products.parquet import read_parquet

#: About ten times what the command takes for an honest input of that kind, on a busy machine.
SECONDS, MEBIBYTES = 30.0, 800


#: Linux counts what a process held before it became the command: this is far less than a process
#: with many tests holds.
_LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
print(process.returncode, usage.ru_maxrss)
"""


@dataclass(frozen=True)
class Ended:
    code: int
    err: str
    seconds: float
    peak: int  # MiB


def run(*words: object) -> Ended:
    """Run a command in a process of its own, and measure it."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(fashionrec.__file__).parent.parent),
        "FASHIONREC_DATASET__WORKERS": "1",
    }
    start = time.monotonic()
    command = [sys.executable, "-m", "fashionrec", *map(str, words)]
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, *command], capture_output=True, text=True, env=environment, check=True
    )
    code, peak = map(int, done.stdout.split())
    return Ended(code, done.stderr, time.monotonic() - start, peak >> 10)


def one_line(err: str) -> bool:
    return err.count("error: ") == 1 and "Traceback" not in err and len(err.splitlines()) <= 3


def refused(ended: Ended, *words: str) -> None:
    """Exit 2, one line and perhaps a hint, within the limits."""
    assert ended.code == 2, ended.err[-2000:]
    assert one_line(ended.err), ended.err[-2000:]
    assert all(word in ended.err for word in words), ended.err
    assert ended.seconds < SECONDS
    assert ended.peak < MEBIBYTES


#: 368 bytes that stand for 9 ** 9 values.
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP = {
    "flow": "[" * 100_000,
    "lines": "".join(" " * n + "a:\n" for n in range(1_000)),
    "dashes": "- " * 100_000,
    "keys": "? " * 100_000,
}
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs wait4")
@pytest.mark.parametrize("text", [BOMB, DEEP["flow"], DEEP["dashes"]], ids=["aliases", "flow", "dashes"])
def test_settings_that_explode(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    refused(run("config", "show", "--config", path), "bomb.yaml", "line")


@pytest.mark.parametrize(
    "text",
    [
        *(
            BOMB,
            MERGES,
            *DEEP.values(),
            "&a [*a, *a]",
            "&a {b: *a}",
            "1" * 5_000,
            "0x" + "f" * 100_000,
            ":".join(["10"] * 50_000),
        ),
        *(
            "2001-99-99",
            "!!int x",
            "!!binary aGk=",
            "!!python/name:os.system",
            "a: 1\na: 2",
            "? [a]\n: b",
            " " * (5 << 20),
            "a: *b",
        ),
    ],
    ids=lambda text: text[:12].strip().replace("\n", " "),
)
def test_yaml_is_refused_with_a_reason(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(DocumentError):
        parse_yaml(text)
    assert time.monotonic() - start < SECONDS / 3


def test_honest_yaml_passes() -> None:
    anchors = "base: &base {epochs: 3, tags: [a, b]}\n" + "".join(f"r{n}: {{<<: *base, lr: {n}}}\n" for n in range(500))
    assert parse_yaml(anchors)["r7"] == {"epochs": 3, "tags": ["a", "b"], "lr": 7}
    assert len(parse_yaml("names:\n" + "".join(f"  {n}: class {n}\n" for n in range(20_000)))["names"]) == 20_000
    assert parse_yaml("[" * 50 + "]" * 50)
    assert parse_yaml("day: 2027-01-14\nvalue: 0x1F\nnan: .nan")["value"] == 31
    assert parse_yaml("text: '" + "[" * 2_000 + "*a " * 100 + "'")["text"].startswith("[[")


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000 + "]" * 100_000, '{"a":' * 500 + "1" + "}" * 500, "1" * 5_000, '"\\ud800"', '{"a": "\\uDC00"}', "{"],
    ids=["deep", "objects", "digits", "surrogate", "low surrogate", "torn"],
)
def test_json_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(DocumentError):
        parse_json(text)


def test_honest_json_passes() -> None:
    value = {"rows": [{"box": [1.5, 2], "text": "[[{{ 😀"}] * 10_000, "big": 10**30}
    assert parse_json(json.dumps(value)) == value
    assert parse_json("[" * 90 + "]" * 90)


@pytest.mark.parametrize("name", ["data.yaml", "dataset.json", "run.json", "bundle.json", "catalogue.json"])
def test_a_folder_whose_document_is_a_bomb(name: str, tmp_path: Path, cli: Callable[..., Result]) -> None:
    """Each reader refuses in an error of its own kind, which names the file."""
    from fashionrec.labels.data_yaml import declared
    from fashionrec.models.bundle import Bundle
    from fashionrec.models.runs import read_run
    from fashionrec.store.generations import read_current

    readers: dict[str, Callable[[Path], object]] = {
        "data.yaml": read_data_yaml,
        "dataset.json": declared,
        "run.json": read_run,
        "bundle.json": lambda folder: Bundle.open(folder, "detector"),
        "catalogue.json": read_current,
    }
    for text in ("[" * 200_000, '{"format": ' + "1" * 5_000 + "}", "[" * 2_000 + "]" * 2_000):
        (tmp_path / name).write_text(text)
        with pytest.raises(FashionrecError, match=name.partition(".")[0]):
            readers[name](tmp_path)


def dataset(root: Path, label: str) -> Path:
    """A YOLO data set of one photo."""
    for folder in ("images", "labels"):
        (root / "train" / folder).mkdir(parents=True)
    Image.effect_noise((640, 640), 80).convert("RGB").save(root / "train" / "images" / "a.jpg")
    (root / "train" / "labels" / "a.txt").write_text(label)
    (root / "data.yaml").write_text("train: train/images\nval: train/images\nnames: [top, pants]\n")
    return root


def boxes(count: int) -> str:
    """Overlapping boxes, no two of them the same."""
    return "".join(f"0 {0.3 + n % 97 / 300:.6f} {0.3 + n // 97 / 25_000:.6f} 0.4 0.4\n" for n in range(count))


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs wait4")
def test_eight_thousand_boxes_in_one_photo(tmp_path: Path) -> None:
    dataset(tmp_path / "yolo", boxes(8_000))
    ended = run(
        "fetch-dataset", f"yolo:{tmp_path / 'yolo'}", "--out", tmp_path / "out", "--set", "dataset.max_ratio=1000"
    )
    assert ended.code == 0, ended.err
    assert ended.seconds < SECONDS
    ended = run("dataset", "audit", tmp_path / "yolo")
    assert ended.code in (0, 3), ended.err
    assert ended.seconds < SECONDS
    assert ended.peak < MEBIBYTES


@pytest.mark.parametrize(
    "label",
    [boxes(10_001), "0 0.5 0.5 0.1 0.1\n" * 1_000_000, "0 " + "0.5 " * 500_000, "\n" * 1_000_000, " " * (17 << 20)],
    ids=["one too many", "a million", "one long line", "blank lines", "too many bytes"],
)
def test_a_label_file_that_is_far_too_large(
    tmp_path: Path, label: str, cli: Callable[..., Result], config: Config
) -> None:
    root = dataset(tmp_path / "yolo", label)
    start = time.monotonic()
    done = cli("fetch-dataset", f"yolo:{root}", "--out", tmp_path / "out")
    assert (done.code, one_line(done.err)) == (2, True), done.err
    assert "a.txt" in done.err
    with pytest.raises(DataError, match=r"a\.txt"):
        read_labels(root / "train" / "images" / "a.jpg")
    assert "too-many-boxes" in {finding.kind for finding in audit_dataset(root, config).findings}
    assert time.monotonic() - start < SECONDS


def test_a_crowd_and_its_outlines_pass(tmp_path: Path) -> None:
    outline = "1 " + " ".join(f"{0.2 + n % 7 / 10:.4f}" for n in range(10_000)) + "\n"
    root = dataset(tmp_path / "yolo", boxes(900) + outline * 10)
    assert read_labels(root / "train" / "images" / "a.jpg").shape == (910, 5)


@pytest.mark.parametrize("number", ["1e308", "99999999999", "1000001"])
def test_a_class_with_an_endless_number(tmp_path: Path, number: str, cli: Callable[..., Result]) -> None:
    root = dataset(tmp_path / "yolo", f"{number} 0.5 0.5 0.4 0.4\n0 0.5 0.5 0.4 0.4\n")
    with pytest.raises(DataError, match="line 1 is not a valid box: class"):
        read_labels(root / "train" / "images" / "a.jpg")


def parquet(path: Path, kind: str) -> Path:
    import numpy as np
    import pyarrow as arrow
    import pyarrow.parquet as writer

    long = "x" * 1_000_000
    column = {
        "numbers": lambda: arrow.array(np.zeros(40_000_000, np.int64)),
        "one text": lambda: arrow.DictionaryArray.from_arrays(arrow.array([0] * 5_000, arrow.int32()), [long]),
        "lists": lambda: arrow.array([[long] * 20] * 20),
        "structs": lambda: arrow.array([{"a": {"b": long}}] * 300),
        "long": lambda: arrow.array([long * 200]),
    }[kind]()
    writer.write_table(arrow.table({"image": column}), path, compression="zstd")
    return path


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs wait4")
def test_a_small_parquet_table_of_gigabytes(tmp_path: Path) -> None:
    table = parquet(tmp_path / "products.parquet", "numbers")
    assert table.stat().st_size < 250_000
    refused(run("build-index", table, "--index", tmp_path / "index", "--embedder", TINY), "products.parquet", "rows")


@pytest.mark.parametrize("kind", ["numbers", "one text", "lists", "structs", "long"])
def test_parquet_tables_that_inflate(tmp_path: Path, kind: str) -> None:
    table = parquet(tmp_path / "products.parquet", kind)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"products\.parquet"):
        read_parquet(table)
    assert time.monotonic() - start < SECONDS / 3


def test_honest_parquet_passes(tmp_path: Path) -> None:
    """Columns of one value in each row, and lists, compress well."""
    import pandas

    frame = pandas.DataFrame(
        {
            "image": [f"photos/{n}.jpg" for n in range(50_000)],
            "brand": ["a brand"] * 50_000,
            "stock": [1, None] * 25_000,
            "sizes": [["S", "M", "L"]] * 50_000,
        }
    )
    frame.to_parquet(tmp_path / "p.parquet")
    pandas.testing.assert_frame_equal(read_parquet(tmp_path / "p.parquet"), pandas.read_parquet(tmp_path / "p.parquet"))


def test_a_line_of_json_without_an_end(tmp_path: Path, cli: Callable[..., Result]) -> None:
    table = tmp_path / "products.jsonl"
    table.write_text('{"image": "a.jpg"}\n{"image": "' + "a" * (9 << 20) + '"}\n')
    done = cli("build-index", table, "--index", tmp_path / "index", "--embedder", TINY)
    assert done.code == 2
    assert "products.jsonl cannot be read: line 2 is longer than 8 MiB" in done.err


@pytest.mark.parametrize(
    "row", ["[" * 100_000, '{"image": ' * 300 + "1" + "}" * 300, '{"image": "a.jpg", "n": ' + "1" * 5_000 + "}"]
)
def test_a_row_of_json_that_explodes(tmp_path: Path, row: str, cli: Callable[..., Result]) -> None:
    table = tmp_path / "products.jsonl"
    table.write_text(f'{{"image": "a.jpg"}}\n{row}\n')
    done = cli("build-index", table, "--index", tmp_path / "index", "--embedder", TINY)
    assert (done.code, "products.jsonl cannot be read: line 2" in done.err) == (2, True)


@pytest.mark.parametrize("format", ["EPS", "PNG", "TIFF", "GIF", "PDF"])
def test_a_thumbnail_is_a_jpeg(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow opens EPS by starting Ghostscript."""
    monkeypatch.setattr("subprocess.check_call", lambda *_: pytest.fail("a process was started"))
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, format)
    with pytest.raises(ImageError, match="not a readable JPEG"):
        read_thumbnail(out.getvalue())


def test_a_thumbnail_of_a_thousand_million_pixels() -> None:
    out = io.BytesIO()
    Image.new("L", (5_000, 16)).save(out, "JPEG")
    with pytest.raises(ImageError, match="5000 x 16 pixels"):
        read_thumbnail(out.getvalue())
    out = io.BytesIO()
    Image.new("RGB", (512, 400)).save(out, "JPEG")
    assert read_thumbnail(out.getvalue()).size == (512, 400)


def test_a_catalogue_gives_out_jpegs_only(photos: Path, build: Callable[..., BuildReport], tmp_path: Path) -> None:
    from fashionrec import Catalogue
    from fashionrec.errors import CatalogueError

    build(photos, tmp_path / "index")
    with Catalogue.open(tmp_path / "index") as catalogue:
        stored = next(iter(catalogue.items.everything()))
        assert catalogue.thumbnail(stored).startswith(b"\xff\xd8\xff")
        path = next(tmp_path.glob("index/segments/*/thumbnails.bin"))
        path.write_bytes(b"%!PS-Adobe" + path.read_bytes()[10:])
        first = next(one for one in catalogue.items.everything() if one.thumb[1] == 0)
        with pytest.raises(CatalogueError, match="no JPEG"):
            catalogue.thumbnail(first)


def test_annotations_with_entities_or_without_an_end(tmp_path: Path) -> None:
    from fashionrec.dataset.sources.voc import parse_voc

    entities = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>'
    with pytest.raises(ValueError, match="entities"):
        parse_voc(entities.encode())
    assert parse_voc(b"<annotation>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</annotation>") is not None


@pytest.mark.parametrize("assignment", ["build.thumbnail=100000", "query.k=0", "train.imgsz=-1"])
def test_settings_have_bounds(assignment: str) -> None:
    with pytest.raises(FashionrecError, match=assignment.partition("=")[0]):
        load_config(sets=[assignment], env={})
