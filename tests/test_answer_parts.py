"""Pages, workbooks and pictures of answers, of values made by hand: what the templates are given,
and how a workbook looks.
"""

from __future__ import annotations

import base64
import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

from PIL import Image
from test_search_values import BOX, found, result

from fashionrec.search.render.page import answer_page, answer_view, data_uri
from fashionrec.search.render.pictures import save_garments
from fashionrec.search.render.side_by_side import compare_page
from fashionrec.search.render.tables import COLUMNS, write_xlsx
from fashionrec.search.result import GarmentAnswer, QueryResult

METADATA = {"title": "Red", "brand": "B", "price": 5, "currency": "USD", "url": "https://a.test/1"}


class Shop:
    """A catalogue as far as answers show it: thumbnails of a red pixel, photos that are as they are
    given.
    """

    def __init__(self, root: str = "shops/c") -> None:
        self.root, self.counts = Path(root), {"products": 7, "garments": 9}
        self.finder = self

    def thumbnail(self, stored: Any) -> bytes:
        out = io.BytesIO()
        Image.new("RGB", (1, 1), "red").save(out, "JPEG")
        return out.getvalue()

    def read(self, source: Any, *, whole: bool = False) -> Any:
        assert whole
        return SimpleNamespace(pixels=source)

    def crop(self, photo: Any, garment: Any) -> Image.Image:
        return photo.pixels.crop(tuple(map(int, garment.box)))  # type: ignore[no-any-return]


SHOP: Any = Shop()


def described(answer: GarmentAnswer, **item: Any) -> GarmentAnswer:
    """The same with data of its first item, and a caption of the garment."""
    hit = replace(answer.hits[0], item=replace(answer.hits[0].item, **item))
    return replace(
        answer, garment=replace(answer.garment, caption="A top", confidence=0.9), hits=(hit, *answer.hits[1:])
    )


def test_what_a_template_is_given_of_an_answer() -> None:
    photo = Image.new("RGB", (40, 30), "white")
    top = described(found("top", "x", "y"), metadata=METADATA, caption="A red top")
    with_it = described(found("pants", "z"))
    answer = result("a b.jpg", top, source=photo, notes=["n"], goes_with=[with_it])
    answer.timings_ms.update(load=1.5, search=2.0)
    uri = "data:image/jpeg;base64," + base64.b64encode(SHOP.thumbnail(None)).decode()
    plain = {
        "rank": 1, "score": 0.9, "match": 51, "picture": uri, "product_id": "z", "title": "z", "caption": None, "brand": None,
        "price": "", "url": None, "class_name": "pants",
    }  # fmt: skip
    own = {
        "product_id": "x", "title": "Red", "caption": "A red top", "brand": "B", "price": "$5", "url": "https://a.test/1",
        "class_name": "top",
    }  # fmt: skip
    other = {"rank": 2, "score": 0.8, "match": 52, "product_id": "y", "title": "y", "class_name": "top"}
    view = answer_view(SHOP, answer)
    assert view.pop("photo") == data_uri(photo)
    assert view == {
        "name": "a b.jpg",
        "text": None,
        "garments": [
            {
                "name": "top",
                "confidence": 0.9,
                "caption": "A top",
                "colour": "#0f766e",
                "hits": [plain | own, plain | other],
            },
            {"name": "goes with the pants", "confidence": None, "caption": None, "colour": "#1f5fbf", "hits": [plain]},
        ],
        "notes": ["n"],
        "total_ms": 3.5,
    }
    words = answer_view(SHOP, QueryResult(None, None, None, [found(None)], text="red"))
    assert (words["photo"], words["name"], words["text"]) == (None, None, "red")
    assert words["garments"][0]["colour"] == "#374151"


def test_a_picture_on_a_page_is_a_jpeg_of_quality_88() -> None:
    pixels = Image.radial_gradient("L").convert("RGB")
    out = io.BytesIO()
    pixels.save(out, "JPEG", quality=88)
    assert data_uri(pixels) == "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def test_the_title_of_a_page_is_the_question_or_their_number() -> None:
    one = QueryResult(None, None, None, text="red")
    for results, title in (([one], "red"), ([one, one], "2 questions"), ([], "0 questions")):
        assert re.findall("<h1>(.*?)</h1>", answer_page(SHOP, results)) == [title]


def test_catalogues_of_one_name_are_told_apart_by_their_folders() -> None:
    for first, second, title in (("x/c", "y/c", "x/c and y/c"), ("x/one", "y/two", "one and two")):
        pair: Any = (Shop(first), Shop(second))
        assert re.findall("<h1>(.*?)</h1>", compare_page(pair, [])) == [title]


def test_garments_are_saved_into_any_folder_again_and_again(tmp_path: Path) -> None:
    answer = result("a.jpg", found("top", box=BOX), source=Image.new("RGB", (9, 9), "red"))
    folder = tmp_path / "some" / "where"
    for _ in range(2):
        assert save_garments(SHOP, [answer, answer], folder) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["000-a-0-top.jpg", "001-a-0-top.jpg"]


# -- workbooks

SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


class Workbook:
    """Record of how a workbook with one sheet looks: its columns, rows, filter, links, and the
    format of each cell.
    """

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as book:
            self.sheets = re.findall('<sheet name="(.*?)"', book.read("xl/workbook.xml").decode())
            sheet, styles = (
                ElementTree.fromstring(book.read(f"xl/{name}.xml")) for name in ("worksheets/sheet1", "styles")
            )
        numbers = {one.get("numFmtId"): one.get("formatCode") for one in styles.iter(f"{SHEET}numFmt")}
        fonts = [
            {part.tag.removeprefix(SHEET): part.get("rgb") for part in font}
            for font in styles.find(f"{SHEET}fonts") or ()
        ]
        self.formats = []
        for one in styles.find(f"{SHEET}cellXfs") or ():
            font, align = fonts[int(one.get("fontId", 0))], one.find(f"{SHEET}alignment")
            look = {name: font.get(name) or True for name in ("b", "u") if name in font}
            look |= {"color": font["color"]} if font.get("color") else {}
            look |= {"number": numbers[one.get("numFmtId")]} if one.get("numFmtId") in numbers else {}
            self.formats.append(look | (dict(align.attrib) if align is not None else {}))
        self.widths = [
            (int(one.get("min", 0)), int(one.get("max", 0)), round(float(one.get("width", 0)), 1))
            for one in sheet.iter(f"{SHEET}col")
        ]
        self.heights = [float(row.get("ht", 0)) for row in sheet.iter(f"{SHEET}row")]
        self.looks = {str(cell.get("r")): self.formats[int(cell.get("s", 0))] for cell in sheet.iter(f"{SHEET}c")}
        self.filters = [one.get("ref") for one in sheet.iter(f"{SHEET}autoFilter")]
        self.links = [one.get("ref") for one in sheet.iter(f"{SHEET}hyperlink")]


def test_how_a_workbook_looks(tmp_path: Path) -> None:
    longest = "https://a.test/" + "x" * (2079 - len("https://a.test/"))
    answers = [
        result("a.jpg", described(found("top", "x", "y"), metadata=METADATA | {"url": longest})),
        result("b.jpg", described(found("top", "z"), metadata=METADATA | {"url": longest + "x"})),
    ]
    write_xlsx(tmp_path / "a.xlsx", SHOP, answers)
    book = Workbook(tmp_path / "a.xlsx")
    wide = {"question": 24, "title": 36, "caption": 36, "url": 30, "match": 8}
    widths = [96 / 7, *(wide.get(name, 14) for name in COLUMNS)]
    assert book.sheets == ["hits"]
    told = [width for first, last, width in book.widths for _ in range(first, last + 1)]
    assert [round(width) for width in told] == [round(width + 0.7) for width in widths]
    assert book.heights == [0.0, 72.0, 72.0, 72.0], "96 pixels are 72 points"
    assert book.filters == ["A1:Q4"]
    assert book.links == ["N2"], "Excel takes no longer one"
    top, bold = {"vertical": "top"}, {"b": True}
    wrapped = top | {"wrapText": "1"}
    number, link = top | {"number": "0.000"}, top | {"u": True, "color": "FF1F5FBF"}
    letters = "ABCDEFGHIJKLMNOPQ"
    assert [book.looks[f"{letter}1"] for letter in letters] == [bold] * 17
    looks = {**dict.fromkeys(letters[1:], wrapped), "F": number}
    assert {letter: book.looks[f"{letter}2"] for letter in letters[1:]} == looks | {"N": link}
    assert {letter: book.looks[f"{letter}4"] for letter in letters[1:]} == looks
    write_xlsx(tmp_path / "none.xlsx", SHOP, [])
    assert Workbook(tmp_path / "none.xlsx").filters == ["A1:Q2"]
