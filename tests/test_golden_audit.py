"""Every finding of an audit with its words and numbers, the page that shows them, and what a
detector says against labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from golden import Golden, words_of
from PIL import Image, ImageColor
from planted import PLANTS, SETTINGS, write

from fashionrec.common.pages import COLOURS, OTHER_COLOUR
from fashionrec.config import Config, load_config
from fashionrec.dataset.audit.boxes import BoxRules, GoodBox
from fashionrec.dataset.audit.charts import bars, grid, histogram
from fashionrec.dataset.audit.disagree import disagreements
from fashionrec.dataset.audit.findings import KINDS, Mark
from fashionrec.dataset.audit.inspect import Inspected, Rules, inspect
from fashionrec.dataset.audit.lines import read_lines
from fashionrec.dataset.audit.listing import Entry
from fashionrec.dataset.audit.page import audit_page, draw_marks
from fashionrec.dataset.audit.run import audit_dataset
from fashionrec.dataset.audit.shapes import measure
from fashionrec.types import Box, Garment


def settings(*more: str) -> Config:
    return load_config(env={}, sets=[*SETTINGS, *more]).config


def test_every_finding_whole(tmp_path: Path, golden: Golden) -> None:
    root = tmp_path / "data"
    root.mkdir()
    write(root, PLANTS)
    audit = audit_dataset(root, settings())
    document = audit.to_dict()
    for finding in document["findings"]:  # by the JPEG decoder at hand
        if "bits" in finding["numbers"]:
            assert 0 <= finding["numbers"].pop("bits") <= 32
            finding["text"] = re.sub(r"\d+ of 256", "N of 256", finding["text"])
    assert document.pop("path") == str(root)
    golden.document("audit-every-finding", document)
    page = tmp_path / "page.html"
    page.write_text(audit_page(audit, settings().images, 0), encoding="utf-8")
    golden.text("audit-page", words_of(page).replace(str(root), "ROOT"), {r"\b\d+ of 256": "N of 256"})


def test_kinds_the_worst_first(golden: Golden) -> None:
    golden.document("audit-kinds", {kind: list(words) for kind, words in KINDS.items()})


def photo(size: tuple[int, int] | None, *boxes: tuple[int, Box]) -> Inspected:
    good = tuple(GoodBox(number, box, n, n + 1) for n, (number, box) in enumerate(boxes))
    return Inspected(size=size, boxes=good)


def test_shapes_by_hand() -> None:
    quarter, slit = Box(0, 0, 0.5, 0.5), Box(0.9, 0, 1, 0.5)
    shapes = measure([photo((100, 50), (0, quarter), (1, slit)), photo(None, (0, quarter)), photo((4096, 64))])
    assert [n for n, count in enumerate(shapes.sides) if count] == [4, 10]  # roots of .05 and of .25, in twentieths
    # .5 x 100 over .5 x 50 is 2; .1 x 100 over .5 x 50 is .4
    assert [n for n, count in enumerate(shapes.aspects) if count] == [5, 10]
    assert [n for n, count in enumerate(shapes.pixels) if count] == [1, 12]
    assert [(y, x) for y, row in enumerate(shapes.places) for x, count in enumerate(row) if count] == [(3, 3), (3, 11)]
    assert {name: np.allclose(values, expected, atol=1e-4) for (name, values), expected in zip(
        shapes.quantiles.items(), ((0.06, 0.15, 0.24), (0.48, 1.2, 1.92)), strict=True,
    )} == {"area": True, "aspect": True}  # fmt: skip
    document = shapes.to_dict()
    assert document["side"]["edges"] == [round(n * 0.05, 2) for n in range(21)]
    assert document["aspect"]["edges"][::4] == [0.0625, 0.25, 1.0, 4.0, 16.0]
    assert document["photo_pixels"]["edges"] == [0, 64, 128, 256, 384, 512, 640, 800, 1024, 1280, 1600, 2048, 4096]
    assert (len(document["aspect"]["counts"]), len(document["photo_pixels"]["counts"]), len(document["centres"])) == (
        16,
        13,
        12,
    )
    nothing = measure([photo(None)])
    assert (sum(nothing.sides), sum(nothing.pixels), nothing.quantiles["area"]) == (0, 0, (0.0, 0.0, 0.0))


def test_small_boxes_are_circled_and_each_has_the_colour_of_its_class() -> None:
    drawn = draw_marks(Image.new("RGB", (480, 320), "black"), [Mark(0, "label: skirt", 0.5, 0.5, 0.5, 0.5)], 240)
    assert drawn.size == (240, 160)
    colour, white, black = ImageColor.getrgb(COLOURS["skirt"]), (255, 255, 255), (0, 0, 0)
    rings = {n: drawn.getpixel((n, 80)) for n in range(240)}
    shown = {n: pixel for n, pixel in rings.items() if pixel != black}
    circle = [white, colour, colour, white]
    assert shown == dict(zip((105, 106, 107, 108), circle, strict=True)) | dict.fromkeys((118, 119, 120), white) | dict(
        zip((130, 131, 132, 133), circle, strict=True)
    )
    other = draw_marks(Image.new("RGB", (100, 100), "black"), [Mark(0, "hat .9", 0.2, 0.2, 0.8, 0.8)], 240)
    line = [other.getpixel((n, 50)) for n in range(15, 30)]
    rim = ImageColor.getrgb(OTHER_COLOUR)
    assert [pixel for pixel in line if pixel != black] == [white, rim, rim, white]


def test_lines_of_a_label_file() -> None:
    data = "\ufeff1 .5 .5 .2 .4\n\n7 .5 .5 1 1\n0 x\n0 .1 .2 .5 .4 .3 1\n".encode()
    boxes, problems = read_lines(data, {0, 1})
    assert [tuple(round(value, 6) for value in box) for box in boxes] == [
        (1, 1, 0.4, 0.3, 0.6, 0.7),
        (5, 0, 0.1, 0.2, 0.5, 1),
    ]
    assert [(problem.kind, problem.text, problem.line, problem.numbers) for problem in problems] == [
        ("unknown-class", "line 3: class 7", 3, {"class_id": 7}),
        ("broken-label-line", "line 4: '0 x'", 4, {}),
        ("polygon", "line 5 is a polygon of 3 points", 5, {"points": 3}),
    ]
    for wrong, text in (
        (b"0 .5\xff", "byte 4 of the label file is not UTF-8"),
        (b"0\0", "the label file contains zero bytes"),
    ):
        boxes, (problem,) = read_lines(wrong, {0})
        assert (boxes, problem.kind, problem.text, problem.line) == ([], "label-encoding", text, None)


def test_a_detector_against_the_labels(tmp_path: Path, config: Config) -> None:
    """By hand: of 100 x 200 pixels; the detector is asked for two photos at a time, and not for one
    that cannot be read.
    """
    names = {0: "tops", 1: "hat", 2: "skirt"}
    left, right, low = Box(0, 0, 0.5, 0.5), Box(0.5, 0, 1, 0.5), Box(0.25, 0.75, 0.75, 1)
    seen = [
        photo((100, 200), (0, left), (1, right), (2, low)),
        photo(None),
        photo((100, 200), (2, Box(0.75, 0.75, 1, 1))),
        photo((100, 200)),
    ]
    entries = [Entry("train", tmp_path / f"{n}.png", f"{n}.png", None) for n in range(4)]
    for n in (0, 2):
        Image.new("RGB", (100, 200)).save(tmp_path / f"{n}.png")
    answers = {
        0: [
            Garment(0, "pants", 0.6, Box(0, 0, 50, 50)), Garment(0, "dress", 0.75, Box(50, 0, 100, 90)), Garment(0,
            "top", 0.59, Box(0, 0, 3, 3)),
            Garment(0, "skirt", 0.1, Box(25, 150, 75, 175)),
        ],
        2: [Garment(0, "top", 0.6, Box(10, 20, 30, 60)), Garment(0, "top", None, Box(0, 0, 100, 200), whole_photo=True)],
    }  # fmt: skip
    asked: list[int] = []

    def detect(photos: Sequence[Image.Image]) -> list[list[Garment]]:
        asked.append(len(photos))
        return [answers[0], answers[2]][sum(asked[:-1]) : sum(asked)]

    ticks: list[tuple[int, int]] = []
    found = disagreements(
        entries, seen, names, detect, 0.6, config.images, batch=2, progress=lambda *at: ticks.append(at)
    )
    assert (asked, ticks) == ([2, 0], [(2, 3), (3, 3)])
    assert [(one.kind, one.text, one.images, one.box, one.line, dict(one.numbers)) for one in found] == [
        (
            "class-disagreement", "labelled hat; dress, 75 % confidence", ("0.png",), 1, 2,
            {"confidence": 0.75, "detected": "dress", "labelled": "hat"},
        ),
        (
            "class-disagreement", "labelled tops; pants, 60 % confidence", ("0.png",), 0, 1,
            {"confidence": 0.6, "detected": "pants", "labelled": "tops"},
        ),
        ("missing-label", "top, 60 % confidence", ("2.png",), None, None, {"confidence": 0.6, "detected": "top"}),
        ("unseen-label", "skirt, 6.2 % of the photo", ("2.png",), 0, 1, {"labelled": "skirt", "share": 0.0625}),
    ]  # fmt: skip
    assert [one.marks for one in found] == [
        (Mark(0, "dress 0.75", 0.5, 0, 1, 0.45), Mark(0, "label: hat", *right)),
        (Mark(0, "pants 0.60", 0, 0, 0.5, 0.25), Mark(0, "label: tops", *left)),
        (Mark(0, "top 0.60", 0.1, 0.1, 0.3, 0.3),),
        (Mark(0, "label: skirt", 0.75, 0.75, 1, 1),),
    ]


def test_charts_to_a_tenth_of_a_unit() -> None:
    """Sevenths: 188 units for bars of 3 beside a goal of 7, 150 high; 320 wide for seven columns;
    150 for three cells.
    """
    chart = bars("t", {"a": 1, "b": 2, "c": 3, "d": 0, "e": 1, "f": 2, "g": 1}, {"b": "red"}, "grey", goal=7)
    assert [(row["y"], row["width"], row["height"], row["colour"]) for row in chart["rows"]] == [
        (round(n * 150 / 7 + 3, 1), round(value * 188 / 7, 1), 15.4, "red" if n == 1 else "grey")
        for n, value in enumerate((1, 2, 3, 0, 1, 2, 1))
    ]
    assert [row["width"] for row in chart["rows"][:4]] == [26.9, 53.7, 80.6, 0.0]
    assert [row["y"] for row in chart["rows"][:3]] == [3.0, 24.4, 45.9]
    assert (chart["form"], chart["title"], chart["x"], chart["goal"]) == ("bars", "t", 84, 272.0)
    columns = histogram("t", [1, 2, 7, 0, 3, 1, 1], list("abcdefg"), ["x"])
    assert [(one["x"], one["width"], one["height"]) for one in columns["columns"]] == [
        (0.5, 44.7, 20.9), (46.2, 44.7, 41.7), (91.9, 44.7, 146.0), (137.6, 44.7, 0), (183.4, 44.7, 62.6), (229.1, 44.7, 20.9),
        (274.8, 44.7, 20.9),
    ]  # fmt: skip
    assert (columns["form"], columns["title"]) == ("histogram", "t")
    cells = grid("t", [[1, 0, 7], [2, 3, 4], [5, 6, 0]])
    assert [(one["x"], one["y"], one["share"]) for one in cells["cells"]] == [
        (0.0, 0.0, 0.177), (50.0, 0.0, 0.03), (100.0, 0.0, 1.0), (0.0, 50.0, 0.314), (50.0, 50.0, 0.451), (100.0, 50.0, 0.589),
        (0.0, 100.0, 0.726), (50.0, 100.0, 0.863), (100.0, 100.0, 0.03),
    ]  # fmt: skip
    assert ({one["side"] for one in cells["cells"]}, cells["form"], cells["title"]) == ({49.5}, "grid", "t")
    assert bars("t", {"a": 0}, {}, "grey")["rows"][0]["height"] == 144.0
    assert histogram("t", [0], ["a"], [])["columns"][0]["width"] == 319.0
    assert grid("t", [[1]])["cells"][0]["side"] == 149.5


def test_suffixes_that_name_another_format(tmp_path: Path) -> None:
    config = settings()
    boxes = BoxRules(0.0, 1.0, 100.0, 1.0, 1.0, 0.0)
    rules = Rules({0: "top"}, boxes, 1, config.images)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    right = {
        "JPEG": (".jpg", ".jpeg", ".jpe", ".JFIF"), "PNG": (".png", ".apng"), "WEBP": (".webp",), "BMP": (".bmp",),
        "TIFF": (".tif", ".tiff"),
        "PPM": (".ppm",),
    }  # fmt: skip
    for kind, suffixes in right.items():
        for suffix in (
            ".jpg",
            ".jpeg",
            ".jpe",
            ".JFIF",
            ".png",
            ".apng",
            ".webp",
            ".bmp",
            ".tif",
            ".tiff",
            ".gif",
            ".ppm",
        ):
            path = tmp_path / f"a{suffix}"
            noise.save(path, kind)
            told = [(one.kind, one.text, one.numbers) for one in inspect((path, None, rules)).problems]
            wrong = suffix not in suffixes and suffix != ".ppm"  # any format may lie in a .ppm
            expected = [("wrong-suffix", f"{suffix}, but the file is {kind}", {"format": kind})]
            assert told == (expected if wrong else []), (kind, suffix)
