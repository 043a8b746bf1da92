"""Test what a user sees of an evaluation: the terminal, the JSON, Markdown, and a page that needs
no network.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Result, two_halves
from PIL import Image, ImageDraw

from fashionrec.common.pages import draw_label
from fashionrec.config import Config
from fashionrec.evaluation.detection.mistake_pictures import KIND_COLOURS, RIGHT_COLOUR, draw_mistakes
from fashionrec.evaluation.detection.mistakes import KINDS, Mistake, PhotoMistakes
from fashionrec.evaluation.detection.page import detection_page

Cli = Callable[..., Result]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Photos that the tiny detector understands (red is a top, blue is pants), the last three
    labelled wrongly: a class that is not so, a garment that is not there, one that has no label.
    """
    photos = [
        ("red", "blue", "1 .25 .5 .5 1\n0 .75 .5 .5 1\n"),
        ("red", "blue", "1 .25 .5 .5 1\n0 .75 .5 .5 1\n"),
        ("red", "white", "0 .25 .5 .5 1\n"),
        ("white", "blue", "1 .25 .5 .5 1\n0 .75 .5 .5 1\n"),
        ("red", "white", ""),
    ]
    for n, (left, right, labels) in enumerate(photos):
        two_halves(tmp_path / "d" / "test" / "images" / f"photo{n}.png", left, right)
        (tmp_path / "d" / "test" / "labels").mkdir(exist_ok=True)
        (tmp_path / "d" / "test" / "labels" / f"photo{n}.txt").write_text(labels)
    (tmp_path / "d" / "data.yaml").write_text("test: test/images\nnames: [pants, top]\n")
    return tmp_path / "d" / "data.yaml"


def evaluate(cli: Cli, labelled: Path, *more: object) -> Result:
    return cli("evaluate", "--weights", TINY / "detector", "--data", labelled, "--split", "test", *more)


def test_the_terminal_says_it_in_few_lines(cli: Cli, labelled: Path) -> None:
    done = evaluate(cli, labelled)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split() == ["class", "boxes", "mAP50", "mAP50-95", "P", "R", "F1"]
    assert [line.split()[:2] for line in lines[1:4]] == [["all", "7"], ["pants", "4"], ["top", "3"]]
    assert re.fullmatch(r"COCO: AP 0\.\d{3}, AP50 0\.\d{3}, AP75 0\.\d{3}, AR100 0\.\d{3}", lines[4])
    assert re.fullmatch(r"COCO AP by size: small – \(0 boxes\), medium 0\.\d{3} \(7 boxes\), large – .*", lines[5])
    assert "1 missed, 1 false, 1 wrong class, 0 badly placed, 0 double" in lines[6]
    assert lines[7] == "most confused: pants taken for top 1x"
    assert len(lines) == 9
    assert "--html evaluation.html" in done.err


def test_photos_prepared_otherwise_than_the_detectors_own_are_warned_of(cli: Cli, labelled: Path) -> None:
    assert "warning" not in evaluate(cli, labelled).err
    (labelled.parent / "dataset.json").write_text(json.dumps({"pixels": {"resize": "letterbox", "imgsz": 64}}))
    (warning,) = [line for line in evaluate(cli, labelled).err.splitlines() if line.startswith("warning: ")]
    assert warning.startswith(f"warning: {labelled} was prepared with ")
    assert warning.endswith(", the detector's training photos with nothing: figures differ from those in use")


def test_settings_of_the_command_reach_the_photos(cli: Cli, labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("images: {max_pixels: 1}\n")
    for given in (("--set", "images.max_pixels=1"), ("--config", tmp_path / "small.yaml")):
        done = evaluate(cli, labelled, *given)
        assert done.code == 2
        assert "pixels" in done.err


def test_the_json_has_what_the_page_has(cli: Cli, labelled: Path) -> None:
    document = evaluate(cli, labelled, "--json").document
    assert document["confusion"]["classes"] == ["pants", "top", "background"]
    assert document["confusion"]["counts"] == [[3, 0, 0], [1, 2, 1], [0, 1, 0]]
    assert document["confusion"]["confidence"] == document["confidence"]
    assert {name: len(curve) for name, curve in document["curves"].items()} == {"pants": 101, "top": 101}
    assert np.mean(document["curves"]["pants"]) == pytest.approx(
        0.75, abs=0.01
    )  # three of four are found, first and right
    assert document["by_size"]["small"]["coco_ap"] is document["coco_ap_small"] is None
    assert document["coco_ap_medium"] == document["coco_ap"]  # 60 x 90 pixels
    assert document["by_size"]["medium"]["boxes"] == 7
    assert [Path(photo["photo"]).name for photo in document["worst"]] == ["photo2.png", "photo3.png", "photo4.png"]
    kinds = [[mistake["kind"] for mistake in photo["mistakes"]] for photo in document["worst"]]
    assert kinds == [["wrong_class"], ["missed"], ["false"]]
    fewer = evaluate(cli, labelled, "--json", "--set", "evaluate.worst=1").document
    assert len(fewer["worst"]) == 1
    assert fewer["mistakes"] == document["mistakes"]


class _Page(HTMLParser):
    """Links that a browser would follow, pictures, texts, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.pictures.append(values["src"] or "")
        self.links += [values[key] or "" for key in ("href", "src", "xlink:href") if key in values]
        if tag not in ("meta", "img", "br", "input", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))


def test_the_page_is_complete_in_itself(cli: Cli, labelled: Path, tmp_path: Path) -> None:
    done = evaluate(cli, labelled, "--html", tmp_path / "deep" / "page.html")
    assert done.code == 0, done.err
    assert "page: " in done.err
    text = (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert "width=device-width" in text
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert not re.search(r"url\(|@import|<script|https?:", text)
    assert len(page.pictures) == 3
    for uri in page.pictures:
        picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert max(picture.size) == 640  # a small photo too, or nobody could read what is drawn
    assert text.count("<polyline") == 2
    for words in ("pants taken for top once (25 %).", "top missed", "photo3.png", "32² to 96² pixels"):
        assert any(words in one for one in page.texts), words
    counts = re.findall(r'<td class="[^"]*" style="--s: [^"]*" title="[^"]*">(\d+)</td>', text)
    assert counts == ["3", "0", "0", "1", "2", "1", "0", "1"]


def test_no_pictures_where_none_are_asked_for(cli: Cli, labelled: Path, tmp_path: Path) -> None:
    assert evaluate(cli, labelled, "--html", tmp_path / "page.html", "--set", "evaluate.worst=0").code == 0
    assert not _Page((tmp_path / "page.html").read_text(encoding="utf-8")).pictures


def test_a_page_of_a_search_is_asked_for_elsewhere(cli: Cli) -> None:
    done = cli("evaluate", "--index", "c", "--queries", "q.csv", "--html", "page.html")
    assert done.code == 2
    assert "--html is only for detectors" in done.err


def test_names_and_photos_that_are_gone_do_no_harm(labelled: Path, config: Config) -> None:
    from fashionrec.detector.detect import Detector
    from fashionrec.evaluation.detection.evaluator import match_detector
    from fashionrec.evaluation.detection.mistakes import find_mistakes
    from fashionrec.evaluation.detection.report import detection_report

    labelled.write_text("test: test/images\nnames: [pants, '<script>x</script>']\n")
    detector = Detector.open(TINY / "detector", config.detector)
    detector.labels = {n: "<script>x</script>" if name == "top" else name for n, name in detector.labels.items()}
    matches = match_detector(detector, labelled, "test", config.evaluate, config.images)
    about = {"title": "t", "weights": "w", "data": "d", "split": "test"}
    worst = [PhotoMistakes(labelled.parent / "gone.png", find_mistakes(matches)[2].mistakes, [])]
    text = detection_page(detection_report(matches), worst, config.images, about)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "gone.png" in text


def test_markdown(labelled: Path, config: Config) -> None:
    from fashionrec.detector.detect import Detector
    from fashionrec.evaluation.detection.evaluator import evaluate_detector

    detector = Detector.open(TINY / "detector", config.detector)
    report = evaluate_detector(detector, labelled, "test", config.evaluate, config.images)
    text = report.to_markdown()
    assert f"| pants | 4 | {report.per_class['pants']['map50']:.3f} |" in text
    assert "| small | 0 | – | – | – | – |" in text
    assert "| top | 1 | 2 | 1 |" in text
    assert "Mistakes, at confidence" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [5, 6, 5]
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_is_drawn_where_it_is(kind: str) -> None:
    """Coloured lines at the edges of its boxes and nowhere else; a photo is enlarged or made
    smaller to the same side.
    """
    true, found = (20.0, 20.0, 60.0, 60.0), (30.0, 24.0, 70.0, 64.0)
    mistake = Mistake(
        kind,
        "top",
        "dress",
        0.5,
        0.5,
        true_box=() if kind == "false" else true,
        found_box=() if kind == "missed" else found,
    )
    photo = PhotoMistakes(None, [mistake], [(72.0, 72.0, 92.0, 92.0)])
    picture = np.asarray(draw_mistakes(Image.new("RGB", (100, 100), "black"), photo, 400)).astype(int)

    def near(x: int, y: int, colour: str) -> bool:
        wanted = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)])
        patch = picture[4 * y - 12 : 4 * y + 13, 4 * x - 12 : 4 * x + 13]
        return bool((abs(patch - wanted).sum(axis=2) < 12).any())

    assert near(92, 82, RIGHT_COLOUR)
    assert near(70, 44, KIND_COLOURS[kind]) is (kind != "missed")
    assert near(20, 44, KIND_COLOURS[kind]) is (kind not in ("false", "double"))
    assert not near(46, 44, KIND_COLOURS[kind])


def test_numbers_stay_in_the_picture_and_apart() -> None:
    """By hand: of a box in a corner, and of boxes that begin at one place; a number takes 18 x 18
    pixels here.
    """

    def drawn(*boxes: tuple[float, float, float, float]) -> np.ndarray:
        mistakes = [Mistake("false", "background", "top", 0.9, found_box=box) for box in boxes]
        photo = PhotoMistakes(None, mistakes, [])
        picture = np.asarray(draw_mistakes(Image.new("RGB", (100, 100), "black"), photo, 400)).astype(int)
        colour = KIND_COLOURS["false"]
        return np.abs(picture - [int(colour[n : n + 2], 16) for n in (1, 3, 5)]).sum(axis=2) < 12

    corner = drawn((99.0, 99.0, 100.0, 100.0))
    assert corner[384:394, 384:394].any()
    assert not corner[:380].any()
    assert not corner[:, :380].any()
    one, two = drawn((10.0, 10.0, 90.0, 90.0)), drawn((10.0, 10.0, 90.0, 90.0), (10.0, 10.0, 90.0, 90.0))
    assert one[45:55, 45:55].any()
    assert not one[62:72, 45:55].any()
    assert two[62:72, 45:55].any()


def test_a_photo_full_of_mistakes_is_still_drawn() -> None:
    many = [Mistake("false", "background", "top", 0.9, found_box=(0.0, 0.0, 5.0 + n, 400.0)) for n in range(300)]
    picture = draw_mistakes(Image.new("RGB", (3000, 40), "white"), PhotoMistakes(None, many, []), 640)
    assert picture.size == (640, 9)


def test_mistakes_are_numbered_from_one_and_the_worst_two_dozen_are_drawn() -> None:
    places = [(60.0 * (n % 5) + 5, 60.0 * (n // 5) + 5) for n in range(25)]
    boxes = [(x, y, x + 40, y + 40) for x, y in places]
    mistakes = [Mistake("false", "background", "top", 0.9, found_box=box) for box in boxes]
    drawn = draw_mistakes(Image.new("RGB", (300, 300), "black"), PhotoMistakes(None, mistakes, []), 600)
    line = 600 // 210
    for number in (1, 24):
        x, y = (2 * corner for corner in places[number - 1])
        alone = Image.new("RGB", drawn.size, "black")
        draw_label(ImageDraw.Draw(alone), x, y, str(number), KIND_COLOURS["false"], line)
        inside = (int(x) + 2, int(y) + 2, int(x) + 5 * line, int(y) + 7 * line)
        assert drawn.crop(inside).tobytes() == alone.crop(inside).tobytes()
    assert not np.asarray(drawn.crop((485, 485, 600, 600))).any(), "of the twenty-fifth nothing is drawn"


@pytest.mark.parametrize(("size", "shown"), [((3000, 1), (640, 1)), ((1, 3000), (1, 640)), ((64, 32), (640, 320))])
def test_a_thin_photo_stays_a_picture(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert draw_mistakes(Image.new("RGB", size), PhotoMistakes(None, [], []), 640).size == shown
