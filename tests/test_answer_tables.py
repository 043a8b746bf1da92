"""Answers as tables: in a terminal, as CSV and in Excel's format; what each cell holds, and in what
order.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import Result, two_halves

from fashionrec import Catalogue
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.cli.answers import print_result
from fashionrec.cli.index import print_report
from fashionrec.cli.reindex import print_index
from fashionrec.cli.session import Session
from fashionrec.search.render.pictures import save_garments
from fashionrec.search.result import GarmentAnswer, QueryResult
from fashionrec.types import Box, Garment

Cli = Callable[..., Result]

ROWS: list[dict[str, Any]] = [
    {
        "image": "p/red.png",
        "product_id": "r1",
        "category": "top",
        "title": "Red top",
        "brand": "A",
        "price": 39000,
        "currency": "KRW",
        "url": "https://shop.example/r1",
    },
    {"image": "p/pink.png", "product_id": "r2", "category": "top", "price": 12.5, "url": "javascript:x"},
    {"image": "p/blue.png", "product_id": "b1", "category": "pants", "title": "Blue", "url": "https://e.example/" + "x" * 2100},
]  # fmt: skip
COLUMNS = (
    "question garment garment_class rank score product_id item_id class_name title brand price caption url image match"
    " currency"
)


@pytest.fixture
def shop(cli: Cli, tmp_path: Path, build: Callable[..., BuildReport]) -> Path:
    for name, left, right in (
        ("red", "#ff0000", "white"),
        ("pink", "#ff3030", "white"),
        ("blue", "white", "#0000ff"),
    ):
        two_halves(tmp_path / "p" / f"{name}.png", left, right)
    two_halves(tmp_path / "q.png", "#ff0000", "#0000ff")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert build(tmp_path / "t.jsonl", tmp_path / "c").failures == []
    return tmp_path / "c"


def lines(done: Result) -> list[str]:
    """Return what was printed, with the figures of time as T."""
    assert done.code == 0, done.err
    return [re.sub(r"^\d+ ms \(.*\)$", "T", line) for line in done.out.splitlines()]


def scores(document: Any, garment: int = 0) -> list[str]:
    return [f"{hit['score']:.3f}" for hit in document["garments"][garment]["hits"]]


def test_the_table_of_a_terminal(cli: Cli, shop: Path) -> None:
    asked = ("query", "q.png", "--index", "c", "-k", "2")
    told = cli(*asked, "--json").document
    a, b = scores(told)
    c, d = scores(told, 1)
    sure = [garment["confidence"] for garment in told["garments"]]
    assert lines(cli(*asked)) == [
        f"2 garments: top {sure[0]:.2f}, pants {sure[1]:.2f}",
        "",
        "top",
        "#  score  product  class    price  title    link",
        f"1  {a}  r1       top    ₩39,000  Red top  https://shop.example/r1",
        f"2  {b}  r2       top      12.50           javascript:x",
        "",
        "pants",
        "#   score  product  class  price  title  link",
        f"1   {c}  b1       pants         Blue   {ROWS[2]['url'][:2000]}…",
        f"2  {d}  r2       top    12.50         javascript:x",
        "",
        "T",
    ]


def test_what_a_score_is_made_of(cli: Cli, shop: Path) -> None:
    asked = ("query", "q.png", "--index", "c", "-k", "2", "--explain", "--garment", "pants")
    hits = cli(*asked, "--json").document["garments"][0]["hits"]
    assert hits[1]["parts"]["class"] == -0.03
    table = lines(cli(*asked))
    assert table[0].startswith("2 garments: top "), "what was seen is told, asked about or not"
    assert table[3].split() == ["#", "score", "product", "class", "price", "title", "parts", "link"]
    assert f"image {hits[0]['parts']['image']:+.3f}  " in table[4]
    assert f"image {hits[1]['parts']['image']:+.3f} class -0.030  " in table[5]
    assert hits[1]["score"] == pytest.approx(hits[1]["parts"]["image"] - 0.03, abs=1e-5)


def test_each_photo_of_several_is_named(cli: Cli, shop: Path) -> None:
    table = lines(cli("query", "p", "--index", "c", "-k", "1"))
    assert [line.split(" 0.")[0] for line in table if ".png:" in line] == [
        "p/blue.png: 1 garment: pants",
        "p/pink.png: 1 garment: top",
        "p/red.png: 1 garment: top",
    ]
    assert [line.split()[2] for line in table if line.startswith("1 ")] == ["b1", "r2", "r1"]


def test_other_questions_have_other_headings(cli: Cli, shop: Path, tmp_path: Path) -> None:
    two_halves(tmp_path / "grey.png", "grey", "grey")
    assert lines(cli("query", "--text", "red", "--index", "c"))[:2] == ["", "red"]
    assert lines(cli("query", "--like", "r1", "--index", "c"))[:2] == ["", "like r1"]
    assert lines(cli("query", "grey.png", "--index", "c"))[:3] == ["asked with the whole photo", "", "whole photo"]
    assert lines(cli("query", "q.png", "--box", "0,0,60,90", "--index", "c"))[:3] == [
        "asked with the box",
        "",
        "the box",
    ]
    nothing = lines(cli("query", "--text", "red", "--index", "c", "--min-score", "2"))
    assert nothing == ["", "red", "  nothing found", "", "T"]
    assert nothing == lines(cli("query", "--text", "red", "--index", "c", "--min-score", "2", "--diversity", "0.5"))


def test_captions_stand_where_a_title_is_missing_and_beside_the_garment(cli: Cli, shop: Path) -> None:
    assert cli("caption", "--index", "c", "--captioner", "local").code == 0
    asked = ("query", "q.png", "--index", "c", "-k", "2", "--caption")
    told = cli(*asked, "--json").document
    garment, other = told["garments"]
    table = lines(cli(*asked))
    assert table[1] == f"{told['outfit']['en']} / {told['outfit']['ko']}"
    assert table[3] == f"top: {garment['caption']}"
    assert garment["caption"] == "A red top"
    assert "Red top" in table[5]
    assert garment["hits"][1]["caption"] in table[6]
    rows = list(csv.DictReader(io.StringIO(cli(*asked, "--csv", "-").out)))
    assert [row["caption"] for row in rows] == [hit["caption"] for one in (garment, other) for hit in one["hits"]]


def test_csv_has_every_hit_in_order(cli: Cli, shop: Path, tmp_path: Path) -> None:
    asked = ("query", "q.png", "p/red.png", "--index", "c", "-k", "2")
    answers = cli(*asked, "--json").document["answers"]
    printed = cli(*asked, "--csv", "-")
    assert cli(*asked, "--csv", "a.csv").out == ""
    assert (tmp_path / "a.csv").read_bytes().decode("utf-8-sig").replace("\r\n", "\n") == printed.out.replace(
        "\r\n", "\n"
    )
    assert (tmp_path / "a.csv").read_bytes().count(b"\r\n") == 7
    assert (tmp_path / "a.csv").read_bytes().startswith(b"\xef\xbb\xbf"), "by which Excel knows UTF-8"
    rows = list(csv.reader(io.StringIO(printed.out)))
    assert rows[0] == COLUMNS.split()
    expected = [
        [
            answer["photo"],
            str(garment["index"]),
            garment["class_name"],
            str(hit["rank"]),
            str(hit["score"]),
            hit["product_id"],
            hit["item_id"],
            hit["class_name"],
            hit["metadata"].get("title", ""),
            hit["metadata"].get("brand", ""),
            {"r1": "39000", "r2": "12.5", "b1": ""}[hit["product_id"]],
            "",
            hit["metadata"].get("url", ""),
            hit["image"],
            "",
            hit["metadata"].get("currency", ""),
        ]
        for answer in answers
        for garment in answer["garments"]
        for hit in garment["hits"]
    ]
    assert rows[1:] == expected
    assert len(expected) == 6


def sheet(path: Path) -> tuple[list[dict[str, str]], dict[str, str]]:
    """The cells of a workbook's first sheet by column, row by row, and its links by cell."""
    main = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    linked = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
    with zipfile.ZipFile(path) as book:
        strings = [
            "".join(part.text or "" for part in one.iter(f"{main}t"))
            for one in ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
        ]
        document = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
        targets = {
            one.attrib["Id"]: one.attrib["Target"]
            for one in ElementTree.fromstring(book.read("xl/worksheets/_rels/sheet1.xml.rels"))
        }
    rows = []
    for row in document.iter(f"{main}row"):
        cells = {}
        for cell in row:
            value = cell.find(f"{main}v")
            text = "" if value is None else value.text or ""
            cells[re.sub(r"\d", "", cell.attrib["r"])] = strings[int(text)] if cell.attrib.get("t") == "s" else text
        rows.append(cells)
    return rows, {one.attrib["ref"]: targets[one.attrib[linked]] for one in document.iter(f"{main}hyperlink")}


def test_excel_has_every_hit_with_its_picture_numbers_and_links(cli: Cli, shop: Path, tmp_path: Path) -> None:
    asked = ("query", "q.png", "--index", "c", "-k", "2")
    told = cli(*asked, "--json").document
    assert cli(*asked, "--xlsx", "a.xlsx").code == 0
    rows, links = sheet(tmp_path / "a.xlsx")
    assert list(rows[0].values()) == ["picture", *(name.replace("_", " ") for name in COLUMNS.split())]
    hits = [hit for garment in told["garments"] for hit in garment["hits"]]
    assert [row["G"] for row in rows[1:]] == [hit["product_id"] for hit in hits] == ["r1", "r2", "b1", "r2"]
    assert [float(row["F"]) for row in rows[1:]] == [hit["score"] for hit in hits]
    assert [row["E"] for row in rows[1:]] == ["1", "2", "1", "2"]
    assert [row.get("N") for row in rows[1:]] == [hit["metadata"]["url"] for hit in hits]
    assert links == {"N2": "https://shop.example/r1"}, "neither what is no web page, nor what is too long for Excel"
    with zipfile.ZipFile(tmp_path / "a.xlsx") as book:
        assert len([name for name in book.namelist() if name.startswith("xl/media/")]) == 3
        (pane,) = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml")).iterfind(".//{*}pane")
    assert (pane.get("xSplit"), pane.get("ySplit"), pane.get("topLeftCell"), pane.get("state")) == (
        None, "1", "A2", "frozen",
    ), "the header stays in view"  # fmt: skip


def test_crops_are_what_was_asked_about(cli: Cli, shop: Path, tmp_path: Path) -> None:
    from PIL import Image

    done = cli("query", "q.png", "p/blue.png", "--index", "c", "--save-crops", "crops", "-q", "--set", "crop.margin=0")
    assert done.code == 0
    assert sorted(path.name for path in (tmp_path / "crops").iterdir()) == [
        "000-q-0-top.jpg",
        "000-q-1-pants.jpg",
        "001-blue-0-pants.jpg",
    ]
    for name, red in (("000-q-0-top", True), ("000-q-1-pants", False)):
        with Image.open(tmp_path / "crops" / f"{name}.jpg") as crop:
            r, _, b = crop.convert("RGB").getpixel((crop.width // 2, crop.height // 2))  # type: ignore[misc]
            assert (r > b) is red
    assert "3 crops in more" in cli("query", "q.png", "p/blue.png", "--index", "c", "--save-crops", "more").err


def test_the_file_of_a_crop_has_a_name_without_hidden_characters(shop: Path, tmp_path: Path) -> None:
    garments = [
        GarmentAnswer(Garment(n, name, 0.9, Box(0, 0, 9, 9)), (), ()) for n, name in enumerate(["skirt&pants", None])
    ]
    photo = (tmp_path / "q.png").read_bytes()
    answers = [
        QueryResult("q/a\x07b.png", 9, 9, garments, source=photo),
        QueryResult(None, 9, 9, garments[:1], source=photo),
    ]
    with Catalogue.open(shop) as catalogue:
        assert (
            save_garments(catalogue, [*answers, QueryResult(None, None, None, text="words")], tmp_path / "crops") == 3
        )
    names = sorted(path.name for path in (tmp_path / "crops").iterdir())
    assert names == ["000-a-b-0-skirt-pants.jpg", "000-a-b-1-whole.jpg", "001-photo-0-skirt-pants.jpg"]


def test_a_catalogue_as_tables(cli: Cli, shop: Path, tmp_path: Path) -> None:
    assert cli("catalogue", "remove", "b1", "--index", "c").code == 0
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "catalogue.json").write_text("{")
    shown = cli("catalogue", "show", "c", "--json").document
    listed = cli("catalogue", "list", ".", "--json").document["catalogues"]
    assert [one["path"] for one in listed] == ["broken", "c"]
    assert listed[1]["counts"] == shown["counts"]
    assert listed[1]["bytes"] == shown["bytes"] > 1000
    assert [(one["name"], one["products"], one["served"]) for one in shown["generations"]] == [
        ("000001", 3, ""),
        ("000002", 2, "served"),
    ]
    head, broken, row = lines(cli("catalogue", "list", "."))
    assert re.split("  +", head) == [
        "catalogue",
        "generation",
        "products",
        "items",
        "index",
        "MB",
        "encoder",
        "created (UTC)",
    ]
    assert broken.split() == ["broken", "damaged", *listed[0]["error"].split()]
    for name in ("products", "items", "MB"):  # numbers end where their headings end
        assert row[: head.index(name) + len(name)][-1].isdigit()
        assert row[head.index(name) + len(name)] == " "
    created = shown["created"][:16].replace("T", " ")
    assert row.split() == [
        "c", "000002", "2", "2", "flat", f"{shown['bytes'] / 1e6:.1f}", "tiny-embedder", *created.split()
    ]  # fmt: skip
    told = lines(cli("catalogue", "show", "c"))
    assert told[0] == f"c: generation 000002, {shown['bytes'] / 1e6:.1f} MB"
    assert [line.split() for line in told[1:6]] == [
        ["photos", "2"],
        ["garments", "2"],
        ["items", "2"],
        ["worn_with", "0"],
        ["products", "2"],
    ]
    table = [line.split() for line in told[told.index("") + 1 :]]
    assert table[0] == ["generation", "created", "(UTC)", "by", "products"]
    assert [(row[0], row[-2:]) for row in table[1:]] == [("000001", ["build", "3"]), ("000002", ["2", "served"])]
    assert cli("catalogue", "list", "p").out == "no catalogues in p\n"


def test_a_product_as_a_table(cli: Cli, shop: Path, tmp_path: Path) -> None:
    two_halves(tmp_path / "p" / "look.png", "#ff0000", "#0000ff")
    rows = [*ROWS, {"image": "p/look.png", "product_id": "r1", "category": "top"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("build-index", "t.jsonl", "--index", "c").code == 0
    told = lines(cli("catalogue", "show", "c", "--product", "r1"))
    items = cli("catalogue", "show", "c", "--product", "r1", "--json").document["items"]
    assert told[0] == "r1"
    assert [" ".join(line.split()) for line in told[1:7]] == [
        "category top",
        "title Red top",
        "brand A",
        "price 39000",
        "currency KRW",
        "url https://shop.example/r1",
    ]
    assert [" ".join(line.split()) for line in told[8:]] == [
        "item class photo caption",
        *(
            " ".join(
                [item["item_id"], item["class_name"], *(["worn with it"] if item["worn_with"] else []), item["image"]]
            )
            for item in items
        ),
    ]
    assert sorted((item["image"], item["class_name"], item["worn_with"]) for item in items) == [
        ("p/look.png", "pants", True),
        ("p/look.png", "top", False),
        ("p/red.png", "top", False),
    ]
    unknown = cli("catalogue", "show", "c", "--product", "zz")
    assert (unknown.code, "has no product 'zz'" in unknown.err) == (2, True)


def test_what_a_change_did(cli: Cli, shop: Path, tmp_path: Path) -> None:
    unknown = [f"x{n}" for n in range(10)]
    done = cli("catalogue", "remove", "r2", *unknown, "--index", "c")
    told = lines(done)
    assert told[0].startswith("2 items of 2 products from 2 photos in ")
    assert told[0].endswith(" s: 0 embedded, 2 unchanged, 0 resumed")
    assert told[1] == "rows: 0 added, 0 changed, 0 replaced, 1 removed, 2 kept"
    assert told[-2:] == ["report: c/report.html", f"10 products not in the catalogue: {', '.join(unknown)}"]
    assert done.err.splitlines()[-2:] == [
        "next: fashionrec query PHOTO --index c",
        "      fashionrec catalogue rollback c",
    ]
    assert lines(cli("catalogue", "rollback", "c", "--to", "000001")) == [
        "c: now serving generation 000001 (3 products), not 000002"
    ]
    assert lines(cli("catalogue", "rollback", "c", "--to", "000002")) == [
        "c: now serving generation 000002 (2 products), not 000001"
    ]
    many = cli("catalogue", "remove", "r1", *(f"y{n:02d}" for n in range(12)), "--index", "c").out.splitlines()[-1]
    assert many == f"12 products not in the catalogue: {', '.join(f'y{n:02d}' for n in range(10))} ..."
    undone = cli("catalogue", "rollback", "c")
    assert lines(undone) == ["c: now serving generation 000002 (2 products), not 000003"]
    assert undone.err == "next: fashionrec catalogue rollback c --to 000003   (to undo this)\n"
    files = cli("catalogue", "verify", "c", "--json").document["files"]
    assert lines(cli("catalogue", "verify", "c")) == [f"c: {files} files verified"]
    assert lines(cli("catalogue", "export", "e", "--index", "c")) == ["e: 2 items, 2 image vectors, 0 caption vectors"]
    assert lines(cli("catalogue", "import", "e", "--index", "d")) == ["d: 2 items of 2 products"]
    two_halves(tmp_path / "n.png", "#ff0000", "black")
    assert lines(cli("catalogue", "add", "n.png", "--index", "c"))[1] == (
        "rows: 1 added, 0 changed, 0 replaced, 0 removed, 2 kept"
    )


def test_what_changes_nothing_removes_nothing(cli: Cli, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "price.csv").write_text("product_id,price\nr2,5\n")
    update = ("catalogue", "update", "price.csv", "--index", "c")
    assert cli(*update).code == 0
    assert cli("catalogue", "rollback", "c").code == 0
    (tmp_path / "same.csv").write_text("product_id,price\nr2,12.5\n")
    same = cli("catalogue", "update", "same.csv", "--index", "c")
    assert same.out.startswith("no changes: still serving generation 000001\n")
    assert same.err == "next: fashionrec query PHOTO --index c\n"
    assert lines(cli("catalogue", "rollback", "c", "--to", "000002")) == [
        "c: now serving generation 000002 (3 products), not 000001"
    ]
    assert cli(*update).out.startswith("no changes: still serving generation 000002")


def test_quiet_changes_say_what_was_lost_alone(cli: Cli, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "price.csv").write_text("product_id,price\nr2,5\n")
    (tmp_path / "more.csv").write_text("product_id,price\nr2,6\nzz,5\n")
    (tmp_path / "rows.csv").write_text("image,product_id\np/red.png,r7\np/none.png,r8\np/pink.png,r9\n")
    for words in (
        ("catalogue", "update", "price.csv", "--index", "c"),
        ("catalogue", "rollback", "c"),
        ("catalogue", "verify", "c"),
        ("catalogue", "compact", "c"),
        ("catalogue", "reindex", "c"),
        ("catalogue", "export", "e", "--index", "c"),
        ("catalogue", "import", "e", "--index", "d"),
    ):
        done = cli(*words, "--quiet")
        assert (done.code, done.out, done.err) == (0, "", "")
    done = cli("catalogue", "update", "more.csv", "--index", "c", "--quiet")
    assert (done.out, done.err) == ("", "warning: 1 product not in the catalogue: zz\n")
    done = cli("catalogue", "add", "rows.csv", "--index", "c", "--quiet", "--set", "build.max_failures=0.5")
    assert (done.code, done.out) == (0, "")
    assert re.fullmatch(r"warning: 1 of 3 rows failed, first: .*none\.png.*; see c/report\.json\n", done.err)


def test_times_of_stages_that_take_any(capsys: pytest.CaptureFixture[str]) -> None:
    seen = [Garment(0, "top", 0.876, Box(0, 0, 9, 9)), Garment(1, "pants", None, Box(0, 0, 9, 9))]
    times = {"load": 12.4, "detect": 0.49, "embed": 0.5, "search": 1.51}
    result = QueryResult("a.jpg", 9, 9, [], source="a.jpg", seen=seen, timings_ms=times)
    print_result(Session(), result, explain=False, named=True)
    print_result(Session(), result, explain=False, named=False)
    shown = ["2 garments: top 0.88", "", "15 ms (load 12, embed 0, search 2)"]
    assert capsys.readouterr().out.splitlines() == ["a.jpg: " + shown[0], *shown[1:], *shown]


def test_indexes_that_were_tried(capsys: pytest.CaptureFixture[str]) -> None:
    entry: dict[str, Any] = {
        "tried": [
            {"kind": "flat", "memory": 3 << 20, "recall_at_10": 1.0, "latency_ms_p50": 2.345, "latency_ms_p95": 4.0},
            {"kind": "ivf", "memory": 1 << 19, "build_seconds": 1.26, "rejected": "too large"},
        ],
        "reason": "exact",
        "vectors": 12_345,
        "dtype": "float16",
        "recall_at_10": 0.98765,
        "latency_ms_p50": 2.345,
        "latency_ms_p95": 4.0,
    }
    told = [
        "index: exact",
        "12,345 vectors (float16), recall@10 0.988, 2.35 ms a query (95 %: 4.00)",
    ]
    print_index(Session(), entry)
    assert capsys.readouterr().out.splitlines() == [
        "tried  MiB  recall@10  p50 ms  p95 ms  made in s",
        "flat   3.0     1.0000    2.35    4.00             taken",
        "ivf    0.5                                   1.3  too large",
        *told,
    ]
    print_index(Session(), {**entry, "tried": [], "float16_recall_at_10": 0.99996})
    assert capsys.readouterr().out.splitlines() == [*told, "recall@10 of float16 against float32: 1.0000"]


def test_what_a_build_tells_where_there_is_something(capsys: pytest.CaptureFixture[str]) -> None:
    failures = [{"image": "" if n == 1 else f"{n}.jpg", "message": f"m{n}"} for n in range(6)]
    entries = dict.fromkeys(("added", "changed", "replaced", "removed", "kept", "photos_removed"), 0)
    report: dict[str, Any] = {
        "unchanged": False, "generation": "000001", "items": 4, "products": 3, "photos": 2, "total_seconds": 1.26,
        "embedded": 2, "reused": 1, "resumed": 5, "entries": entries, "crops_reused": 0, "without_detection": 0,
        "index": {"kind": "flat", "vectors": 4, "recall_at_10": 0.98765, "latency_ms_p50": 0.126},
        "failed": 0, "failure_reasons": {}, "failures": [], "page": "c/report.html",
    }  # fmt: skip
    plain = [
        "4 items of 3 products from 2 photos in 1.3 s: 2 embedded, 1 unchanged, 5 resumed",
        "index: flat, 4 vectors, recall@10 0.988, 0.13 ms a query",
        "report: c/report.html",
    ]
    print_report(Session(), report)
    assert capsys.readouterr().out.splitlines() == plain
    for what in ("changed", "replaced", "removed", "kept"):
        print_report(Session(), report | {"entries": entries | {what: 2, "photos_removed": 7}})
        counts = ", ".join(f"{2 if name == what else 0} {name}" for name in entries if name != "photos_removed")
        assert capsys.readouterr().out.splitlines() == [plain[0], f"rows: {counts}", *plain[1:]]
    some = {"unchanged": True, "crops_reused": 3, "without_detection": 2, "failed": 6, "failures": failures}
    print_report(Session(), report | some | {"failure_reasons": {"missing": 4, "not-an-image": 2}})
    assert capsys.readouterr().out.splitlines() == [
        "no changes: still serving generation 000001",
        plain[0],
        "3 vectors kept from identical crops",
        "2 photos without a detected garment, indexed whole",
        plain[1],
        "6 rows failed: 4 missing, 2 not-an-image",
        *(f"  {one['image'] or '(no image)'}: {one['message']}" for one in failures[:5]),
        plain[2],
    ]


@pytest.mark.parametrize("option", ["--csv", "--xlsx", "--html"])
def test_an_output_that_cannot_be_written(cli: Cli, shop: Path, option: str) -> None:
    if option == "--xlsx":
        pytest.importorskip("xlsxwriter")
    out = "p/" + 300 * "x"
    done = cli("query", "q.png", "--index", "c", option, out, "--quiet")
    assert done.code == 1
    assert done.err.splitlines()[-2] == f"error: {out}: File name too long"
    assert "should not happen" not in done.err


def test_a_row_that_names_another_photo_of_a_product(cli: Cli, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("product_id,image,price\nr2,other.jpg,5\n")
    done = cli("catalogue", "update", "t.csv", "--index", "c")
    assert done.code == 2
    assert "but none with the image that its record names" in done.err


def test_a_column_of_all_items_that_none_has_yet_finds_nothing(cli: Cli, shop: Path) -> None:
    found = cli("query", "q.png", "--index", "c", "--where", "confidence > 2 or class_name = 'hat'", "--json")
    assert (found.code, [hit for garment in found.document["garments"] for hit in garment["hits"]]) == (0, [])
