"""Test what `query` answers, value by value: documents, tables, pages and files."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Result
from golden import Golden, words_of
from golden_world import MODELS
from PIL import Image

Cli = Callable[..., Result]

QUESTIONS: dict[str, tuple[object, ...]] = {
    # every garment of a photo, what each score is made of, and another class held back by more than
    # usual
    "photo": ("asked/look.bmp", "-k", 5, "--explain", "--set", "query.same_class=0.2"),
    "photo-tall": ("asked/portrait.bmp", "-k", 2),
    "photo-whole": ("asked/plain.bmp", "-k", 3, "--explain"),
    "photo-one-garment": ("asked/look.bmp", "--garment", "pants", "-k", 4, "--min-score", 0.5),
    "photo-box": ("asked/look.bmp", "--box", "12.5,8,71,60", "-k", 2, "--explain"),
    "photo-words": ("asked/sky.bmp", "--text", "red:0.6", "--text", "green:-0.4", "-k", 4, "--explain"),
    "photo-diverse": ("asked/sky.bmp", "-k", 4, "--diversity", 0.7, "--explain"),
    "photo-where": ("asked/look.bmp", "--garment", "0", "--where", "price >= 15000 and brand in ('Hanbok', 'Miro')"),
    "photo-sold-out": ("asked/look.bmp", "--garment", "skirt", "-k", 2, "--set", "query.hide_unavailable=false"),
    "photo-nothing": ("asked/look.bmp", "--min-score", 2),
    "photo-goes-with": ("asked/sky.bmp", "-k", 2, "--goes-with", "--explain"),
    "photos": ("asked/sky.bmp", "asked/missing.bmp", "asked/plain.bmp", "photos/torn.bmp", "-k", 2),
    "text": ("--text", "red shirt", "-k", 4, "--explain", "--set", "query.lexical_weight=0.6"),
    "text-korean": ("--text", "빨간 셔츠", "-k", 4, "--explain"),
    "text-ranks": (
        *("--text", "파란 바지", "-k", 4, "--explain"),
        *("--set", "query.fusion=rrf", "--set", "query.lexical_weight=0.7"),
    ),
    "texts": ("--text", "green dress", "--text", "blue:0.5", "--text", "red:-0.4", "-k", 3, "--explain"),
    "like": ("--like", "T1", "--like", "D1", "--unlike", "T2", "-k", 3, "--explain"),
    "merge": ("asked/sky.bmp", "asked/portrait.bmp", "--text", "blue", "--merge", "-k", 4, "--explain"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_document(name: str, cli: Cli, world: Path, golden: Golden) -> None:
    done = cli("query", *QUESTIONS[name], "--index", "catalogue", "--json", "--quiet")
    assert done.code == 0, done.err
    golden.document(f"query-{name}", done.document)


def test_a_line_for_each_photo(cli: Cli, world: Path, golden: Golden) -> None:
    done = cli("query", "asked", "--index", "catalogue", "-k", 1, "--jsonl", "--quiet")
    assert done.code == 0, done.err
    lines = [Result(0, line, "").document for line in done.out.splitlines()]
    golden.document("query-jsonl", lines)


def test_two_catalogues(cli: Cli, own_world: Path, golden: Golden) -> None:
    lines = (own_world / "products.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (own_world / "few.csv").write_text("".join(lines[n] for n in (0, 1, 5, 8, 12, 13)), encoding="utf-8")
    assert cli("build-index", "few.csv", "--index", "few", *MODELS, "--quiet").code == 0
    two = (
        "query",
        "asked/look.bmp",
        "--index",
        "catalogue",
        "--index",
        "few",
        "-k",
        4,
        "--garment",
        "pants",
        "--quiet",
    )
    golden.document("query-two-catalogues", cli(*two, "--json").document)
    golden.text("query-two-catalogues", cli(*two).out)


@pytest.mark.parametrize("name", ["photo", "photo-nothing", "photo-goes-with", "photos", "text-korean"])
def test_the_table(name: str, cli: Cli, world: Path, golden: Golden) -> None:
    done = cli("query", *QUESTIONS[name], "--index", "catalogue")
    assert done.code == 0, done.err
    masks = {r"\b\d+ ms \([a-z\d, ]*\)": "<milliseconds>"}
    golden.text(f"query-{name}", f"{done.out}--- stderr\n{done.err}", masks)


def test_csv_and_excel(cli: Cli, world: Path, tmp_path: Path, golden: Golden) -> None:
    book = tmp_path / "hits.xlsx"
    asked = ("query", "asked/look.bmp", "asked/portrait.bmp", "--index", "catalogue", "-k", 3, "--quiet")
    done = cli(*asked, "--csv", "-", "--xlsx", book)
    assert done.code == 0, done.err
    rows = list(csv.reader(io.StringIO(done.out, newline="")))
    golden.document("query-csv", [_number_last(row) for row in rows])
    assert cli(*asked, "--csv", tmp_path / "hits.csv").out == ""
    # a mark by which Excel knows UTF-8, and RFC 4180's line ends (which the runner makes plain ones
    # on stdout)
    assert (tmp_path / "hits.csv").read_bytes() == b"\xef\xbb\xbf" + done.out.replace("\n", "\r\n").encode()
    golden.document("query-xlsx", _cells(book))


def _number_last(row: list[str]) -> list[object]:
    """A row whose score, a float of the machine, is compared as a number."""
    return [float(cell) if n == 4 and cell != "score" else cell for n, cell in enumerate(row)]


def _cells(book: Path) -> dict[str, object]:
    """The cells, links and pictures of a workbook's only sheet, as Excel will read them."""
    space = {"m": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
    with zipfile.ZipFile(book) as archive:
        strings = [
            "".join(part.text or "" for part in one.iter(f"{{{space['m']}}}t"))
            for one in ElementTree.fromstring(archive.read("xl/sharedStrings.xml")).findall("m:si", space)
        ]
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
        links = ElementTree.fromstring(archive.read("xl/worksheets/_rels/sheet1.xml.rels"))
        pictures = sum(name.startswith("xl/media/") for name in archive.namelist())
    cells: list[dict[str, object]] = []
    for row in sheet.findall("m:sheetData/m:row", space):
        found: dict[str, object] = {}
        for cell in row.findall("m:c", space):
            text = cell.findtext("m:v", "", space)
            kind = cell.get("t")
            found[str(cell.get("r"))] = (
                strings[int(text)] if kind == "s" else f"picture {cell.get('vm')}" if kind == "e" else float(text)
            )
        cells.append(found)
    places = {one.get("ref"): None for one in sheet.findall("m:hyperlinks/m:hyperlink", space)}
    targets = sorted({str(one.get("Target")) for one in links if str(one.get("Type")).endswith("/hyperlink")})
    return {"rows": cells, "links": list(places), "targets": targets, "pictures": pictures}


def test_the_page(cli: Cli, world: Path, tmp_path: Path, golden: Golden) -> None:
    done = cli("query", "asked/look.bmp", "--index", "catalogue", "-k", 2, "--goes-with", "--html", tmp_path / "a.html")
    assert done.code == 0, done.err
    golden.text("query-page", words_of(tmp_path / "a.html"), {r"\b\d+ ms\b": "<milliseconds>"})


def test_saved_crops(cli: Cli, world: Path, tmp_path: Path, golden: Golden) -> None:
    done = cli("query", "asked", "--index", "catalogue", "-k", 1, "--quiet", "--save-crops", tmp_path / "crops")
    assert done.code == 0, done.err
    found = {}
    for path in sorted((tmp_path / "crops").iterdir()):
        with Image.open(path) as crop:
            middle = crop.convert("RGB").getpixel((crop.width // 2, crop.height // 2))
            # a JPEG's colours are right within some steps
            found[path.name] = {"size": crop.size, "middle": [round(c / 8) * 8 for c in middle]}  # type: ignore[union-attr]
    golden.document("query-crops", found)
