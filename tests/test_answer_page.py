"""The page of an answer as a browser shows it: where boxes are drawn, links, counts, order and
values.
"""

from __future__ import annotations

import base64
import io
import json
import re
import webbrowser
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, two_halves
from PIL import Image

from fashionrec.catalogue.build.report import BuildReport

Cli = Callable[..., Result]

TOP, PANTS, NO_CLASS = (0x0F, 0x76, 0x6E), (0x1F, 0x5F, 0xBF), (0x37, 0x41, 0x51)
RED, BLUE, GREY = (255, 0, 0), (0, 0, 255), (208, 208, 208)
ROWS: list[dict[str, Any]] = [
    {
        "image": "p/red.png",
        "product_id": "r1",
        "category": "top",
        "title": "Red <top>",
        "brand": "A&B",
        "price": 39000,
        "currency": "KRW",
        "url": "https://shop.example/r1?a=1&b=2",
    },
    {"image": "p/pink.png", "product_id": "r2", "category": "top", "price": 12.5, "currency": "USD"},
    {"image": "p/rose.png", "product_id": "r3", "category": "top", "title": "Rose", "brand": "C", "url": "ftp://x/y"},
    {"image": "p/blue.png", "product_id": "b1", "category": "pants", "title": "Blue"},
]


class Page(HTMLParser):
    """The sections of a page: each with its picture, its notes, and garments with their hits."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[dict[str, Any]] = []
        self._in: list[tuple[str, str]] = []
        self.cells: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attributes}
        kind = named.get("class", "")
        if tag == "section":
            self.sections.append({"picture": None, "words": "", "garments": []})
        elif tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th") and self.cells:
            self.cells[-1].append("")
        elif not self.sections:
            pass
        elif kind == "garment":
            self.garments.append({"name": "", "colour": "", "sure": "", "hits": [], "text": ""})
        elif kind == "tag":
            self.garments[-1]["colour"] = named["style"].removeprefix("--c: ")
        elif tag == "li":
            self.garments[-1]["hits"].append({"text": [], "link": None})
        elif tag == "a" and any(one == "li" for one, _ in self._in):
            self.garments[-1]["hits"][-1]["link"] = named["href"]
        elif tag == "img":
            if any(one == "li" for one, _ in self._in):
                self.garments[-1]["hits"][-1]["picture"] = named["src"]
            else:
                self.sections[-1]["picture"] = named["src"]
        if tag not in ("img", "meta", "link", "br"):
            self._in.append((tag, kind))

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if not text or not self._in:
            return
        if any(tag == "table" for tag, _ in self._in):
            self.cells[-1][-1] += text
        elif any(tag == "li" for tag, _ in self._in):
            self.garments[-1]["hits"][-1]["text"].append(text)
        elif self._in[-1] == ("span", "tag"):
            self.garments[-1]["name"] = text
        elif self._in[-1] == ("span", "soft"):
            self.garments[-1]["sure"] = text
        elif self._in[-1] == ("p", "words"):
            self.sections[-1]["words"] = text
        elif any(kind == "garment" for _, kind in self._in):
            self.garments[-1]["text"] += text

    @property
    def garments(self) -> list[dict[str, Any]]:
        return self.sections[-1]["garments"]  # type: ignore[no-any-return]


def picture(uri: str) -> Image.Image:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def shown(image: Image.Image, x: int, y: int, *palette: tuple[int, int, int]) -> tuple[int, int, int]:
    """The colour of a palette that is nearest to a pixel's."""
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return min(palette, key=lambda one: sum((a - b) ** 2 for a, b in zip(found, one, strict=True)))


@pytest.fixture
def shop(tmp_path: Path, build: Callable[..., BuildReport]) -> Path:
    for name, left, right in (("red", "#ff0000", "white"), ("pink", "#ff3030", "white"), ("rose", "#ff5050", "white")):
        two_halves(tmp_path / "p" / f"{name}.png", left, right)
    two_halves(tmp_path / "p" / "blue.png", "white", "#0000ff")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert build(tmp_path / "t.jsonl", tmp_path / "c").failures == []
    return tmp_path / "c"


def page(cli: Cli, folder: Path, *words: object) -> Page:
    done = cli("query", *words, "--index", "c", "--html", "a.html", "--json")
    assert done.code == 0, done.err
    return Page((folder / "a.html").read_text(encoding="utf-8"))


def test_a_box_by_hand_is_drawn_where_it_lies_in_the_smaller_picture(cli: Cli, shop: Path, tmp_path: Path) -> None:
    """By hand: of 1800 x 900 pixels half are shown each way: the box 400,100,1400,700 is
    200,50,700,350, four pixels wide.
    """
    Image.new("RGB", (1800, 900), GREY).save(tmp_path / "q.jpg")
    (section,) = page(cli, tmp_path, "q.jpg", "--box", "400,100,1400,700").sections
    drawn = picture(section["picture"])
    assert drawn.size == (900, 450)

    def dark(x: int, y: int) -> bool:
        return shown(drawn, x, y, GREY, NO_CLASS) == NO_CLASS

    assert [x for x in range(900) if dark(x, 300)] == [*range(200, 204), *range(696, 700)]
    assert [y for y in range(450) if dark(650, y)] == [*range(50, 54), *range(346, 350)]
    assert dark(206, 70), "the label's ground begins in the box's corner"
    assert not dark(190, 60)
    assert not dark(450, 200), "the inside of the box stays free"


def test_detected_garments_are_framed_in_the_colours_of_their_classes(cli: Cli, shop: Path, tmp_path: Path) -> None:
    """The halves of a photo of 400 x 200 pixels: small enough to be shown as it is."""
    two_halves(tmp_path / "q.png", "#ff0000", "#0000ff", (400, 200))
    (section,) = page(cli, tmp_path, "q.png").sections
    drawn = picture(section["picture"])
    assert drawn.size == (400, 200)
    palette = (TOP, PANTS, RED, BLUE)
    for x, wanted in ((0, TOP), (100, RED), (199, TOP), (200, PANTS), (300, BLUE), (399, PANTS)):
        assert shown(drawn, x, 150, *palette) == wanted, x
    assert [shown(drawn, 100, y, *palette) for y in (0, 100, 199)] == [TOP, RED, TOP]
    assert [shown(drawn, 330, y, *palette) for y in (0, 100, 199)] == [PANTS, BLUE, PANTS]
    white = [
        sum(shown(drawn, x, y, TOP, PANTS, RED, BLUE, (255, 255, 255)) == (255, 255, 255) for y in range(3, 15))
        for x in range(400)
    ]
    assert any(white[4:40]), "the top's name stands in its corner"
    assert any(white[204:240])
    assert not any(white[80:200]), "and nowhere else"
    assert [(one["name"], one["colour"]) for one in section["garments"]] == [("top", "#0f766e"), ("pants", "#1f5fbf")]
    (section,) = page(cli, tmp_path, "q.png", "--garment", "pants").sections
    assert [one["name"] for one in section["garments"]] == ["pants"]
    assert shown(picture(section["picture"]), 0, 150, *palette) == TOP, "what was seen is framed, asked about or not"


def test_a_small_photo_is_not_enlarged_and_a_whole_one_not_framed(cli: Cli, shop: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), GREY).save(tmp_path / "q.png")
    (section,) = page(cli, tmp_path, "q.png").sections
    drawn = picture(section["picture"])
    assert drawn.size == (64, 48)
    assert all(abs(low - 208) < 3 and abs(high - 208) < 3 for low, high in drawn.getextrema())
    (garment,) = section["garments"]
    assert (garment["name"], garment["colour"], garment["sure"]) == ("whole photo", "#374151", "")


def test_hits_stand_in_order_with_their_figures_names_prices_and_links(cli: Cli, shop: Path, tmp_path: Path) -> None:
    two_halves(tmp_path / "q.png", "#ff0000", "#0000ff")
    done = cli("query", "q.png", "--index", "c", "--html", "a.html", "--json", "-k", "3")
    (section,) = Page((tmp_path / "a.html").read_text(encoding="utf-8")).sections
    assert len(section["garments"]) == len(done.document["garments"]) == 2
    for garment, told in zip(section["garments"], done.document["garments"], strict=True):
        assert garment["sure"] == f"{told['confidence'] * 100:.0f} % sure"
        assert [hit["text"][:2] for hit in garment["hits"]] == [
            [str(hit["rank"]), f"{hit['score']:.3f}"] for hit in told["hits"]
        ]
        assert len(garment["hits"]) == 3
    r1, r2, r3 = section["garments"][0]["hits"]
    assert r1["text"][2:] == ["Red <top>", "₩39,000 · A&B"]
    assert r1["link"] == "https://shop.example/r1?a=1&b=2"
    assert (r2["text"][2:], r2["link"]) == (["r2", "$12.50"], None)
    assert (r3["text"][2:], r3["link"]) == (["Rose", "C"], None), "a link that is no web page is none"
    assert section["garments"][1]["hits"][0]["text"][2:] == ["Blue"]
    for hit, colour in ((r1, RED), (section["garments"][1]["hits"][0], BLUE)):
        thumbnail = picture(hit["picture"])
        assert shown(thumbnail, thumbnail.width // 2, thumbnail.height // 2, RED, BLUE, (255, 255, 255)) == colour


def test_each_question_has_a_section_in_the_order_asked(cli: Cli, shop: Path, tmp_path: Path) -> None:
    two_halves(tmp_path / "z.png", "#ff0000", "white")
    two_halves(tmp_path / "a.png", "white", "#0000ff")
    asked = page(cli, tmp_path, "z.png", "a.png")
    assert [[one["name"] for one in section["garments"]] for section in asked.sections] == [["top"], ["pants"]]
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert re.findall("<h1>(.*?)</h1>", text) == ["2 questions"]
    assert "What in c looks most like it: 4 products, 4 garments searched." in text
    page(cli, tmp_path, "z.png")
    assert "<h1>z.png</h1>" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_words_are_shown_as_words_and_nothing_found_is_said(cli: Cli, shop: Path, tmp_path: Path) -> None:
    (section,) = page(cli, tmp_path, "--text", "red & <b>").sections
    assert section["picture"] is None
    assert section["words"] == "“red & <b>”"
    (section,) = page(cli, tmp_path, "--text", "red", "--min-score", "1.5").sections
    assert section["garments"][0]["hits"] == []
    assert section["garments"][0]["text"] == "Nothing found."
    (section,) = page(cli, tmp_path, "--text", "red", "--min-score", "-1").sections
    assert len(section["garments"][0]["hits"]) == 4
    assert section["garments"][0]["text"] == ""


def test_a_page_is_opened_where_that_is_asked(
    cli: Cli, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    asked = ("query", "--text", "red", "--index", "c", "--html", "a.html")
    assert [cli(*asked).code, cli(*asked, "--index", "c").code, opened] == [0, 0, []]
    assert cli(*asked, "--open").err == "page: a.html\n"
    assert opened == [(tmp_path / "a.html").as_uri()]
    assert cli(*asked, "--index", "c", "--open").code == 0
    assert opened == [(tmp_path / "a.html").as_uri()] * 2


def test_what_goes_with_it_follows_the_garments(cli: Cli, tmp_path: Path, build: Callable[..., BuildReport]) -> None:
    two_halves(tmp_path / "p" / "look.png", "#d00000", "#0000c0")
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "p/look.png", "product_id": "x", "category": "pants"}))
    build(tmp_path / "t.jsonl", tmp_path / "c")
    two_halves(tmp_path / "q.png", "#d00000", "white")
    (section,) = page(cli, tmp_path, "q.png", "--goes-with").sections
    assert [(one["name"], one["sure"] != "") for one in section["garments"]] == [
        ("top", True),
        ("goes with the top", False),
    ]
    assert section["garments"][1]["hits"][0]["text"][2:] == ["x"]


def test_two_catalogues_are_compared_product_by_product(
    cli: Cli, tmp_path: Path, build: Callable[..., BuildReport]
) -> None:
    """The first holds a, b, c in this order, the second c, b, d, e: two of four are in both, b
    stays where it is.
    """
    colours = {"near": "#ff0000", "next": "#ff3030", "far": "#ff6060", "last": "#ff9090"}
    for name, colour in colours.items():
        two_halves(tmp_path / "p" / f"{name}.png", colour, "white")
    for catalogue, ids in (("one", "abc"), ("two", "cbde")):
        rows = [
            {"image": f"p/{photo}.png", "product_id": product, "category": "top"}
            for photo, product in zip(colours, ids, strict=False)
        ]
        (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        build(tmp_path / "t.jsonl", tmp_path / catalogue)
    asked = ("query", "p/near.png", "--index", "one", "--index", "two", "--garment", "top")
    done = cli(*asked, "--json", "--html", "a.html")
    assert done.code == 0, done.err
    (told,) = done.document["questions"][0]["garments"]
    assert told["overlap_at_10"] == 0.5
    assert told["ranks"] == {"a": [1, None], "b": [2, 2], "c": [3, 1], "d": [None, 3], "e": [None, 4]}
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<h1>one and two</h1>" in text
    assert "top: overlap@10 50 %" in text
    compared = Page(text)
    assert compared.cells == [
        ["product", "one", "two", "change"],
        ["a", "1", "-", "gone"],
        ["b", "2", "2", ""],
        ["c", "3", "1", "+2"],
        ["d", "-", "3", "new"],
        ["e", "-", "4", "new"],
    ]
    hits = [[hit["text"][2] for hit in section["garments"][0]["hits"]] for section in compared.sections]
    assert hits == [["a", "b", "c"], ["c", "b", "d", "e"]]
    assert cli(*asked).out.splitlines() == [
        "p/near.png",
        "  top: overlap@10 50 %",
        "product  one  two",
        "a          1    -",
        "b          2    2",
        "c          3    1",
        "d          -    3",
        "e          -    4",
    ]
