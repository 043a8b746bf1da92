"""Test what a catalogue says of itself and leaves on the disk, value by value, from its first build
to its export.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result
from golden import Golden, words_of
from golden_world import LENIENT, PRODUCTS, photo
from PIL import Image

Cli = Callable[..., Result]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_build(world: Path, golden: Golden) -> None:
    built = read(world / "build.json")
    golden.document("catalogue-build", built)
    slow, fast = (built["embedded"] / (built["total_seconds"] + off) for off in (0.0005, -0.0005))  # both are rounded
    assert slow - 0.005 <= built["photos_per_second"] <= fast + 0.005
    assert 0 < built["total_seconds"] < 300  # of this build, not since the machine began
    told = ("index_path", "report", "page", "refused")  # by the command line alone
    written = read(world / "catalogue" / "report.json")
    assert written == {key: value for key, value in built.items() if key not in told}


def test_what_a_build_leaves_on_the_disk(world: Path, golden: Golden) -> None:
    root = world / "catalogue"
    golden.document("catalogue-pointer", read(root / "catalogue.json"))
    manifest = read(root / "generations" / "000001" / "manifest.json")
    golden.document("catalogue-manifest", manifest)
    for name, entry in manifest["files"].items():
        data = (root / name).read_bytes()
        assert entry == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}, name
    lines = [json.loads(line) for line in (root / "builds.jsonl").read_text(encoding="utf-8").splitlines()]
    golden.document("catalogue-log", lines)
    of_the_machine = {
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC": "<date>",
        r"\d+\.\d a second": "<number> a second",
        r"\d+\.\d(?=\nseconds\n| s that passed)": "<number>",
        r"(?m)^(hash|read|detect|embed|write|index)\n\d+\.\d+\n\d+ %$": r"\1\n<number>\n<share>",
        r"(?<=latency ms p[59][05]\n)[\d.]+": "<number>",
        r"(?<=build seconds\n)[\d.]+": "<number>",
    }
    golden.text("catalogue-report-page", words_of(root / "report.html"), of_the_machine)


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_looking_into_it(options: tuple[str, ...], cli: Cli, world: Path, golden: Golden) -> None:
    of_the_machine = {
        r"\d+\.\d\d ms a query": "<number> ms a query",
        r"\d{4}-\d\d-\d\d \d\d:\d\d": "<date>",
        r"\d+\.\d(?=  tiny-embedder)": "<MB>",
        r"\d+\.\d MB": "<MB>",
    }
    asked: dict[str, tuple[object, ...]] = {
        "show": ("show", "catalogue"),
        "show-product": ("show", "catalogue", "--product", "P1"),
        "list": ("list", "."),
        "verify": ("verify", "catalogue"),
    }
    for name, words in asked.items():
        done = cli("catalogue", *words, *options)
        assert done.code == 0, done.err
        if options:
            masks = {"$.bytes": "<count>", "$.catalogues.[].bytes": "<count>"}
            golden.document(f"catalogue-{name}", done.document, masks)
        else:
            golden.text(f"catalogue-{name}", f"{done.out}--- stderr\n{done.err}", of_the_machine)


def changed(root: Path) -> None:
    """The table a week later: another price, another title, a product gone, one added, a photo
    replaced.
    """
    table = PRODUCTS.replace("39000,KRW,in_stock,2025-03-01", "35000,KRW,out_of_stock,2025-03-01")
    table = table.replace("Moss dress", "Moss gown")
    table = "".join(line for line in table.splitlines(keepends=True) if ",S1," not in line and "torn" not in line)
    table += "photos/new.bmp,T9,top,New tee,Aster,19.99,USD,in_stock,,,M\n"
    (root / "products.csv").write_text(table, encoding="utf-8")
    photo(root / "photos" / "new.bmp", {"a": "rose/red"})
    photo(root / "photos" / "jeans.bmp", {"b": "navy"}, (150, 100))


def test_its_life(cli: Cli, own_world: Path, golden: Golden) -> None:
    """Each command finds what the one before it left."""
    of_the_machine = {
        r"\d+\.\d s:": "<number> s:",
        r"\d+\.\d MB": "<MB>",
        r"\d+\.\d\d ms a query": "<number> ms a query",
        r"\d{4}-\d\d-\d\d \d\d:\d\d": "<date>",
    }

    def step(name: str, *words: object, code: int = 0, text: bool = False) -> None:
        done = cli(*words, *([] if text else ["--quiet", "--json"]))
        assert done.code == code, done.err
        if text:
            golden.text(f"catalogue-{name}", done.out, of_the_machine)
        else:
            masks = {"bytes_before": "<count>", "bytes_after": "<count>"}
            golden.document(f"catalogue-{name}", done.document, masks)

    build = ("build-index", "products.csv", "--index", "catalogue", *LENIENT)
    changed(own_world)
    step("build-changed", *build, "--max-delete", 0.5)
    step("build-unchanged", *build, text=True)
    step("rollback", "catalogue", "rollback", "catalogue")
    step("rollback-to", "catalogue", "rollback", "catalogue", "--to", "000002")
    rows = "product_id,price,availability\nT1,29900,in_stock\nD1,,sold out\nNONE,5,in_stock\n"
    (own_world / "prices.csv").write_text(rows, encoding="utf-8")
    step("update", "catalogue", "update", "prices.csv", "--index", "catalogue")
    photo(own_world / "more" / "belt.bmp", {"a": "mustard", "c": "sky"})
    photo(own_world / "more" / "deep" / "scarf.bmp", {"d": "green"}, (140, 100))
    step("add", "catalogue", "add", "more", "--index", "catalogue")
    step("remove", "catalogue", "remove", "D2", "P2", "NONE", "--index", "catalogue")
    step("compact", "catalogue", "compact", "catalogue")
    step("reindex", "catalogue", "reindex", "catalogue", "--index-type", "hnsw", "--set", "index.exact_below=0")
    step("history", "catalogue", "show", "catalogue", text=True)
    step("list-after", "query", "--like", "T1", "--index", "catalogue", "-k", 4)


def test_an_export_and_its_import(cli: Cli, own_world: Path, golden: Golden) -> None:
    pandas = pytest.importorskip("pandas")
    done = cli("catalogue", "export", "exported", "--index", "catalogue", "--json", "--quiet")
    assert done.code == 0, done.err
    golden.document("catalogue-export", done.document)
    out = own_world / "exported"
    assert read(out / "export.json") == {key: v for key, v in done.document.items() if key not in ("path", "out")}
    tables = {}
    for name in ("entries", "items"):
        frame = pandas.read_parquet(out / f"{name}.parquet").astype(object)
        tables[name] = frame.where(frame.notna(), None).to_dict("records")
    for row in tables["entries"] + tables["items"]:
        row["metadata"] = json.loads(row["metadata"])
    for item in tables["items"]:
        with Image.open(io.BytesIO(item["thumbnail"])) as picture:
            item["thumbnail"] = [picture.format, *picture.size]
    golden.document("catalogue-export-entries", tables["entries"])
    golden.document("catalogue-export-items", tables["items"])
    vectors = np.load(out / "image_vectors.npy")
    assert (vectors.dtype, vectors.shape) == (np.float32, (14, 48))
    golden.document("catalogue-export-vectors", [[round(float(one), 5) for one in row] for row in vectors])

    done = cli("catalogue", "import", "exported", "--index", "again", "--json", "--quiet")
    assert done.code == 0, done.err
    golden.document("catalogue-import", done.document)
    question = ("query", "asked/look.bmp", "-k", 5, "--explain", "--json", "--quiet")
    before, after = (cli(*question, "--index", name).document for name in ("catalogue", "again"))
    assert before["garments"] == after["garments"]
