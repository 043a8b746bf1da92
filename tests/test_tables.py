"""Tables for spreadsheets: in none of them does a cell of somebody else's words begin a formula."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from conftest import TINY, Result, two_halves
from systems import posix_only

from fashionrec.evaluation.detection.report import table_lines
from fashionrec.evaluation.detection.selection import selection_markdown

Cli = Callable[..., Result]
MODELS = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")
FORMULAS = (
    '=HYPERLINK("https://evil.example","x")', "+1+cmd|' /C calc'!A0", "-3+cmd", "@SUM(A1:A9)", "\t=1", "\r=1", "\n=1", "  =1",
    "＝1+1", "＋1", "－1", "＠x", "\u200b=1", "\ufeff=1", "a\n=1", "a\r=1", "a;=1", "-٣",
)  # fmt: skip


def computed(cells: list[str]) -> list[str]:
    """Cells, or what another program would take for cells, that a spreadsheet computes."""
    hidden = re.compile(r"^[\s\u200b-\u200f\u2060\ufeff\x00-\x1f]+")
    parts = [hidden.sub("", part) for cell in cells for part in re.split("[;\t\r\n]", cell)]
    signs = [part for part in parts if part and unicodedata.normalize("NFKC", part[0]) in "=+-@"]
    return [part for part in signs if not re.fullmatch(r"[+-]?\d+(\.\d+)?(e[+-]\d+)?", part)]


def cells_of(data: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data, newline=""), strict=True))


@pytest.fixture
def shop(cli: Cli, photos: Path, tmp_path: Path) -> Path:
    names = sorted(path.name for path in photos.iterdir())
    rows = [
        {"image": f"photos/{names[n % len(names)]}", "product_id": f"{formula} {n}", "title": formula, "brand": formula,
         "price": -3.5 if n % 2 else formula, "url": formula}
        for n, formula in enumerate(FORMULAS)
    ]  # fmt: skip
    (tmp_path / "shop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("build-index", "shop.jsonl", "--index", "c", *MODELS, "--quiet").code == 0
    return tmp_path / "c"


def test_answers_as_csv(cli: Cli, shop: Path, tmp_path: Path) -> None:
    asked = ("query", "photos/red-blue.jpg", "--index", "c", "-k", "50", "--garment", "top")
    assert cli(*asked, "--csv", "a.csv").code == 0
    written = (tmp_path / "a.csv").read_bytes().decode("utf-8-sig")
    printed = cli(*asked, "--csv", "-").out
    for data in (written, printed):
        head, *rows = cells_of(data)
        assert {len(row) for row in rows} == {len(head)}
        assert len(rows) == len(FORMULAS)
        assert computed([cell for row in rows for cell in row]) == []
        scores = [float(row[head.index("score")]) for row in rows]
        assert any(score < 0 for score in scores)  # numbers stay numbers
        assert "-3.5" in [row[head.index("price")] for row in rows]
    titles = {row[head.index("title")] for row in cells_of(written)[1:]}
    assert {title.replace("'", "") for title in titles} == {formula.replace("'", "") for formula in FORMULAS}


def test_answers_as_a_workbook(cli: Cli, shop: Path, tmp_path: Path) -> None:
    done = cli("query", "photos/red-blue.jpg", "--index", "c", "-k", "50", "--garment", "top", "--xlsx", "a.xlsx")
    assert done.code == 0, done.err
    with zipfile.ZipFile(tmp_path / "a.xlsx") as book:
        for name in book.namelist():
            if name.endswith((".xml", ".rels")):
                ElementTree.fromstring(book.read(name))
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
        texts = book.read("xl/sharedStrings.xml").decode()
    assert "<f>" not in sheet
    assert "<hyperlink " not in sheet
    assert "=HYPERLINK" in texts  # as a text


def test_links_of_a_workbook(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """A link with control characters would make a file that Excel calls damaged; one that is too
    long would be lost.
    """
    urls = ("https://e.org/\x1b]0;x\x07", "https://e.org/\ufffe", "https://e.org/?" + "a" * 3000, "https://e.org/\u202eb",
            "javascript:alert(1)", "https://e.org/?q=1&b=\"<2>#x")  # fmt: skip
    rows = [{"image": "photos/green.jpg", "product_id": f"p{n}", "url": url} for n, url in enumerate(urls)]
    (tmp_path / "shop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("build-index", "shop.jsonl", "--index", "c", *MODELS, "--quiet").code == 0
    done = cli("query", "photos/green.jpg", "--index", "c", "--xlsx", "a.xlsx", "--html", "a.html", "--quiet")
    assert done.err == ""
    with zipfile.ZipFile(tmp_path / "a.xlsx") as book:
        for name in book.namelist():
            if name.endswith((".xml", ".rels")):
                ElementTree.fromstring(book.read(name))
        assert book.read("xl/worksheets/sheet1.xml").decode().count("<hyperlink ") == 1
        texts = book.read("xl/sharedStrings.xml").decode()
    assert "a" * 3000 in texts
    page = (tmp_path / "a.html").read_text()
    assert set(re.findall('href="(http[^"]*)"', page)) == {
        "https://e.org/?" + "a" * 3000,
        "https://e.org/?q=1&amp;b=&#34;&lt;2&gt;#x",
    }


@posix_only("names of any characters")
def test_problems_of_a_dataset(cli: Cli, tmp_path: Path) -> None:
    files = [formula for formula in FORMULAS if "/" not in formula]
    for n, formula in enumerate(files):
        two_halves(tmp_path / "d/train/images" / f"{formula}.jpg", "red", "white", (120 + n, 90))
        label = tmp_path / "d/train/labels" / f"{formula}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text(f"0 0.25 0.5 0.4 0.9\n1 0.7 0.5 0.2 0.2\n{formula}\n")
    document = {"train": "train/images", "val": "train/images", "names": ["top", '=HYPERLINK("https://evil.example")']}
    (tmp_path / "d/data.yaml").write_text(yaml.safe_dump(document))
    done = cli("fetch-dataset", "yolo:d", "--out", "o", "--set", "dataset.unknown_class=drop")
    assert done.code in (0, 3), done.err
    (table,) = tmp_path.glob("o*/problems.csv")
    head, *rows = cells_of(table.read_bytes().decode())
    assert head == ["source", "image", "problem", "action", "detail"]
    assert {len(row) for row in rows} == {5}
    assert len(rows) >= 2 * len(files)
    assert computed([cell for row in rows for cell in row]) == []
    boxes = cells_of((tmp_path / "o/annotations.csv").read_bytes().decode())
    assert {len(row) for row in boxes} == {10}
    assert computed([cell for row in boxes for cell in row]) == []


@pytest.mark.train
def test_epochs_of_a_run_that_goes_on(tmp_path: Path) -> None:
    """The table may have come with the run; its figures are kept to the letter."""
    pytest.importorskip("torch")
    from fashionrec.detector.training.resume import write_rows

    table = tmp_path / "results.csv"
    honest = "                  epoch,      loss\n1,-0.25\n2,1e-05\n"
    table.write_text(honest)
    write_rows(table, 2)
    assert table.read_text() == honest
    table.write_text("epoch,=cmd()\n1,@SUM(A1)\n2,-3+cmd\n")
    write_rows(table, 2)
    assert table.read_text() == "epoch,'=cmd()\n1,'@SUM(A1)\n2,'-3+cmd\n"


EVIL_NAME = "a|b\\|c\n<img src=https://evil.example>[x](javascript:1)`"


def test_markdown_tables() -> None:
    figures = {"end_to_end": {"1": 1.0}, "network": {"1": 1.0}}
    row = {"model": EVIL_NAME, "imgsz": 64, "fps": figures, "map50_95": 0.5, "map50": 0.5, "parameters": 1, "gflops": 1.0,
           "file_bytes": 1, "memory_bytes": None, "how": "taken"}  # fmt: skip
    failed = {"model": EVIL_NAME, "failed": EVIL_NAME}
    machine = {"provider": "CPU", "onnxruntime": "1", "cores": 1, "system": "x"}
    document = {"models": [row, failed], "photos": 1, "split": EVIL_NAME, "data": EVIL_NAME, "machine": machine}
    text = selection_markdown(document) + "\n".join(table_lines(("class", "n"), [[EVIL_NAME, "1"]]))
    assert "<img" not in text
    assert not re.search(r"(?<!\\)[\[`]", text)
    for line in text.splitlines():
        if line.startswith("| ") and "---" not in line:
            bars = len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))
            assert bars == (3 if line.startswith("| class") or line.endswith("| 1 |") else 11), line
    assert "skirt&pants" in table_lines(("skirt&pants",), [])[0]


def test_a_csv_file_acts_on_no_terminal() -> None:
    """Whoever looks at the file with cat or less sees what is hidden in it; letters, tabs and lines
    of a cell stay.
    """
    import io

    from fashionrec.common.text import TableWriter

    file = io.StringIO()
    TableWriter(file).writerow(["\x1b]52;c;aGk=\x07title", "\u202egnp.exe", "\x9b2J", "네이비 셔츠\t두 줄\n아래", 5])
    assert file.getvalue() == '\\x1b]52;c;aGk=\\x07title,\\u202egnp.exe,\\x9b2J,"네이비 셔츠\t두 줄\n아래",5\n'
