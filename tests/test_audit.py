"""The audit: every planted fault is found, nothing else is; the command, its page, its
exit code.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import two_halves
from PIL import Image, ImageColor
from planted import PLANTS, SETTINGS, Expected, photo, write
from systems import posix_only
from typer.testing import CliRunner

from fashionrec.cli import dataset as dataset_commands
from fashionrec.common.pages import COLOURS
from fashionrec.config import Config, load_config
from fashionrec.dataset.audit.charts import bars, grid, histogram
from fashionrec.dataset.audit.classes import check_classes
from fashionrec.dataset.audit.findings import KINDS, Finding, Mark
from fashionrec.dataset.audit.listing import list_dataset
from fashionrec.dataset.audit.page import audit_page, draw_marks
from fashionrec.dataset.audit.run import Audit, audit_dataset
from fashionrec.errors import ConfigError, DataError
from fashionrec.types import CLASS_NAMES, Box, Garment

#: Kinds that need a dataset, or a detector, of their own.
ALONE = {
    "missing-split",
    "empty-split",
    "no-test-split",
    "class-names",
    "class-count",
    "imbalance",
    "class-not-in-split",
    "link",  # these three in test_foreign_links
    "outside-dataset",
    "special-file",
}
DETECTOR = {"missing-label", "class-disagreement", "unseen-label"}


@lru_cache
def settings(*more: str) -> Config:
    return load_config(env={}, sets=[*SETTINGS, *more]).config


def found(audit: Audit) -> Counter[Expected]:
    return Counter((finding.kind, finding.images) for finding in audit.findings)


def test_a_clean_dataset_has_no_findings_but_its_rare_class(tmp_path: Path) -> None:
    write(tmp_path)
    assert found(audit_dataset(tmp_path, settings())) == Counter([("few-images", ())])
    assert found(audit_dataset(tmp_path, settings("audit.min_images=4"))) == Counter()


def test_every_planted_fault_is_found_and_nothing_else(tmp_path: Path) -> None:
    expected = write(tmp_path, PLANTS)
    assert len(PLANTS) >= 40
    assert found(audit_dataset(tmp_path, settings())) == Counter(expected)


def test_other_processes_find_the_same(tmp_path: Path) -> None:
    write(tmp_path, PLANTS)
    config = settings("dataset.workers=2")
    here, there = audit_dataset(tmp_path, settings()), audit_dataset(tmp_path, config)
    assert here.to_dict() == there.to_dict()


def test_every_kind_of_finding_is_planted_somewhere() -> None:
    assert {plant.name for plant in PLANTS} | ALONE | DETECTOR == set(KINDS)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_fault_that_is_mended_is_found_no_more(plant: Any, tmp_path: Path) -> None:
    neighbours = [other for other in PLANTS[::8] if other.name != plant.name]
    expected = write(tmp_path, [plant, *neighbours], mended=[plant.name])
    if plant.name != "few-images" and not any(other.name == "few-images" for other in neighbours):
        expected.append(("few-images", ()))
    audit = audit_dataset(tmp_path, settings())
    assert found(audit) == Counter(expected)
    assert plant.name not in audit.counts_by_kind


# --- the dataset as a whole ---


def kinds_of(folder: Path, *more: str) -> dict[str, int]:
    return audit_dataset(folder, settings("audit.min_images=4", *more)).counts_by_kind


def rewrite(folder: Path, old: str, new: str) -> None:
    path = folder / "data.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_split_that_is_not_named(tmp_path: Path) -> None:
    write(tmp_path)
    rewrite(tmp_path, "val: [valid/images, valid-more.txt]\n", "")
    assert kinds_of(tmp_path, "audit.min_images=2") == {"missing-split": 1}
    rewrite(tmp_path, "test: test/images\n", "val: test/images\n")
    assert kinds_of(tmp_path, "audit.min_images=2") == {"no-test-split": 1}


def test_the_split_that_is_not_named_is_named_as_data_yaml_has_it(tmp_path: Path) -> None:
    write(tmp_path)
    rewrite(tmp_path, "val: [valid/images, valid-more.txt]\n", "")
    listing = list_dataset(tmp_path)
    assert [(one.kind, one.text, one.split) for one in listing.findings if one.kind.endswith("-split")] == [
        ("missing-split", "data.yaml has no val", "valid")
    ]


def test_a_split_whose_folder_is_missing_or_empty(tmp_path: Path) -> None:
    write(tmp_path)
    rewrite(tmp_path, "test/images", "nowhere/images")
    assert kinds_of(tmp_path, "audit.min_images=2") == {"missing-split": 1}
    (tmp_path / "nowhere" / "images").mkdir(parents=True)
    assert kinds_of(tmp_path, "audit.min_images=2") == {"empty-split": 1}


def test_class_names_and_their_number(tmp_path: Path) -> None:
    write(tmp_path, names=["pants", "dress", "skirt&pants", "skirt", "top"])
    assert kinds_of(tmp_path) == {"class-names": 1}
    write(tmp_path, nc=6)
    assert kinds_of(tmp_path) == {"class-count": 1}


def test_imbalance_and_a_class_that_a_split_lacks(tmp_path: Path) -> None:
    write(tmp_path)
    (finding,) = audit_dataset(tmp_path, settings("audit.min_images=0", "audit.max_imbalance=1.5")).findings
    assert (finding.kind, finding.numbers["least"], finding.numbers["images_least"]) == ("imbalance", "skirt", 4)
    for label in (tmp_path / "valid" / "labels").glob("*.txt"):
        label.write_text(
            label.read_text().replace("3 ", "0 ", 1) if label.read_text().startswith("3 ") else label.read_text()
        )
    audit = audit_dataset(tmp_path, settings("audit.min_images=0"))
    assert [(f.kind, f.split, f.numbers["class"]) for f in audit.findings] == [("class-not-in-split", "valid", "skirt")]


def test_classes_at_the_limits_of_their_rules() -> None:
    def table(**splits: dict[str, int]) -> dict[str, Any]:
        return {
            split: {"boxes": sum(counts.values()), "classes": {name: {"images": n} for name, n in counts.items()}}
            for split, counts in splits.items()
        }

    names = {0: "top", 1: "skirt", 2: "cape"}
    told = table(
        train={"top": 6, "skirt": 2, "cape": 0},
        valid={"top": 0, "skirt": 1, "cape": 0},
        test={"top": 0, "skirt": 0, "cape": 0},  # without any box: that is another finding
        all={"top": 6, "skirt": 3, "cape": 0},
    )
    found = list(check_classes(told, names, 3, 2.0))
    assert [(one.kind, one.split, one.numbers.get("class")) for one in found] == [
        ("few-images", None, "cape"),
        ("imbalance", None, None),
        ("class-not-in-split", "valid", "top"),
    ]
    assert found[0].numbers == {"class": "cape", "images": 0, "missing": 3}
    assert found[1].text == "top is in 6 photos, cape in 0"
    del names[2]
    assert [one.kind for one in check_classes(told, names, 3, 2.0)] == ["class-not-in-split"]
    few, uneven, _ = check_classes(told, names, 4, 1.9)
    assert few.numbers == {"class": "skirt", "images": 3, "missing": 1}
    assert uneven.text == "top is in 6 photos, skirt in 3 (ratio 2.0)"
    assert list(check_classes(told, {}, 4, 1.9)) == []


def test_counts_are_those_of_an_independent_count(tmp_path: Path) -> None:
    write(tmp_path, PLANTS)
    write(tmp_path / "clean")
    document = audit_dataset(tmp_path / "clean", settings()).to_dict()
    for split in ("train", "valid", "test"):
        labels = [path.read_text().splitlines() for path in (tmp_path / "clean" / split / "labels").glob("*.txt")]
        boxes = Counter(CLASS_NAMES[int(line.split()[0])] for lines in labels for line in lines)
        images = Counter(CLASS_NAMES[n] for lines in labels for n in {int(line.split()[0]) for line in lines})
        counts = document["splits"][split]
        assert counts["images"] == len(labels)
        assert counts["boxes"] == sum(boxes.values())
        assert {name: counts["classes"][name]["boxes"] for name in CLASS_NAMES} == {n: boxes[n] for n in CLASS_NAMES}
        assert {name: counts["classes"][name]["images"] for name in CLASS_NAMES} == {n: images[n] for n in CLASS_NAMES}
    assert document["classes"]["skirt"] == {"images": 4, "boxes": 4, "missing": 2}
    assert sum(document["box_shapes"]["side"]["counts"]) == document["boxes"]
    assert sum(map(sum, document["box_shapes"]["centres"])) == document["boxes"]


def test_a_photo_that_lists_name_twice_counts_once_in_each_split(tmp_path: Path) -> None:
    write(tmp_path)
    before = audit_dataset(tmp_path, settings()).to_dict()["splits"]
    again = "train/images/clean1001.jpg\n"  # a pair of pants and a skirt
    (tmp_path / "train-more.txt").write_text(again)
    assert audit_dataset(tmp_path, settings()).to_dict()["splits"] == before
    (tmp_path / "train-more.txt").write_text("")
    (tmp_path / "valid-more.txt").write_text(again)
    after = audit_dataset(tmp_path, settings()).to_dict()["splits"]
    assert after["train"] == before["train"]
    assert after["valid"]["images"] == before["valid"]["images"] + 1
    assert after["valid"]["boxes"] == before["valid"]["boxes"] + 2
    assert after["valid"]["classes"]["skirt"]["images"] == before["valid"]["classes"]["skirt"]["images"] + 1


def test_no_dataset_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such dataset"):
        audit_dataset(tmp_path, settings())
    (tmp_path / "data.yaml").write_text("train: images\nnames: 7\n")
    with pytest.raises(DataError):
        audit_dataset(tmp_path, settings())
    (tmp_path / "data.yaml").write_text("train: images\nnames: [top]\n")
    with pytest.raises(DataError, match="lists no existing photos"):
        audit_dataset(tmp_path, settings())


@posix_only("links")
def test_a_dataset_of_links_alone_says_what_it_does_not_read(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: images\nnames: [top]\n")
    (tmp_path / "images").symlink_to("elsewhere")
    with pytest.raises(DataError, match="images is a link"):
        audit_dataset(tmp_path, settings())


def test_a_misspelt_kind_in_the_settings_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ConfigError, match="near-duplicates") as caught:
        audit_dataset(tmp_path, settings("audit.allow=[near-duplicates]"))
    assert "near-duplicate?" in caught.value.hint


# --- a detector's opinion ---


def test_what_a_detector_disagrees_with(tmp_path: Path) -> None:
    write(tmp_path)
    name = "train/images/clean1003.jpg"  # labelled 2, skirt&pants, at 0.3 0.5 0.3 0.6
    width, height = 160, 120
    there = Box(0.15 * width, 0.2 * height, 0.45 * width, 0.8 * height)
    elsewhere = Box(0.6 * width, 0.1 * height, 0.9 * width, 0.9 * height)
    labels = {path: path.read_text().splitlines() for path in tmp_path.glob("*/labels/*.txt")}
    truth: dict[bytes, list[Garment]] = {}
    for path, lines in labels.items():
        garments = []
        for n, line in enumerate(lines):
            number, x, y, w, h = map(float, line.split())
            box = Box((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            garments.append(Garment(n, CLASS_NAMES[int(number)], 0.9, box))
        image = path.parent.parent / "images" / f"{path.stem}.jpg"
        with Image.open(image) as opened:
            truth[opened.convert("RGB").tobytes()] = garments
    with Image.open(tmp_path / name) as opened:
        special = opened.convert("RGB").tobytes()

    def audit(garments: Sequence[Garment]) -> list[Any]:
        def detections(photos: Sequence[Image.Image]) -> list[list[Garment]]:
            return [list(garments) if p.tobytes() == special else truth[p.tobytes()] for p in photos]

        return list(audit_dataset(tmp_path, settings("audit.min_images=4"), detections=detections).findings)

    agreed = Garment(0, "skirt&pants", 0.9, there)
    assert audit([agreed]) == []
    (missing,) = audit([agreed, Garment(1, "top", 0.8, elsewhere)])
    assert (missing.kind, missing.images, missing.numbers["confidence"]) == ("missing-label", (name,), 0.8)
    assert audit([agreed, Garment(1, "top", 0.5, elsewhere)]) == []  # not sure enough to speak
    (other,) = audit([Garment(0, "skirt", 0.7, there)])
    assert (other.kind, other.numbers["labelled"], other.numbers["detected"]) == (
        "class-disagreement",
        "skirt&pants",
        "skirt",
    )
    (unseen,) = audit([])
    assert (unseen.kind, unseen.box, unseen.line, unseen.split) == ("unseen-label", 0, 1, "train")
    assert audit([Garment(0, "skirt", 0.1, there)]) == []  # seen, if hardly
    two = audit([agreed, Garment(1, "top", 0.7, elsewhere), Garment(2, "top", 0.95, Box(0, 0, 20, 20))])
    assert [finding.numbers["confidence"] for finding in two] == [0.95, 0.7]


# --- the command ---

TINY = Path(__file__).parent / "data" / "tiny"


@pytest.fixture
def run() -> Callable[..., Any]:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    dataset_commands.mount(app)
    flags = [word for setting in SETTINGS for word in ("--set", setting)]

    def invoke(*words: object) -> Any:
        done = CliRunner().invoke(app, ["dataset", "audit", *map(str, words), *flags])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return invoke


def test_strict_exits_3_and_only_strict(tmp_path: Path, run: Callable[..., Any]) -> None:
    write(tmp_path, [plant for plant in PLANTS if plant.name in ("box-outside", "near-duplicate")])
    assert run(tmp_path).exit_code == 0
    refused = run(tmp_path, "--strict")
    assert refused.exit_code == 3
    assert "1 box-outside" in refused.stderr
    assert "near-duplicate" not in refused.stderr.splitlines()[-2]  # allowed by default
    allowed = run(tmp_path, "--strict", "--set", "audit.allow=[box-outside, near-duplicate, few-images]")
    assert allowed.exit_code == 0


def test_the_document_and_the_summary(tmp_path: Path, run: Callable[..., Any]) -> None:
    expected = write(tmp_path, PLANTS)
    done = run(tmp_path, "--json", "--quiet")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert Counter((f["kind"], tuple(f["images"])) for f in document["findings"]) == Counter(expected)
    assert sum(document["counts_by_kind"].values()) == len(expected)
    assert set(document) >= {"path", "images", "boxes", "splits", "classes", "findings", "counts_by_kind", "broken"}
    assert "polygon" in document["broken"]
    assert "few-images" not in document["broken"]
    human = run(tmp_path).stdout
    for name in (*CLASS_NAMES, *document["counts_by_kind"]):
        assert name in human


def test_weights_name_a_detector_that_is_asked(tmp_path: Path, run: Callable[..., Any]) -> None:
    """The tiny detector takes what is red for a top; the photo's label says nothing of it, or says
    skirt.
    """
    write(tmp_path)
    image = tmp_path / "train" / "images" / "red.jpg"
    two_halves(image, "red", "white")
    label = tmp_path / "train" / "labels" / "red.txt"
    label.write_text("")
    weights = ("--json", "--quiet", "--weights", TINY / "detector")

    def about_red() -> set[str]:
        findings = json.loads(run(tmp_path, *weights).stdout)["findings"]
        return {f["kind"] for f in findings if f["images"] == ["train/images/red.jpg"]} & DETECTOR

    assert about_red() == {"missing-label"}
    label.write_text("3 0.25 0.5 0.5 1\n")
    assert about_red() == {"class-disagreement"}
    label.write_text("4 0.25 0.5 0.5 1\n")
    assert about_red() == set()


class Page(HTMLParser):
    """Record of what a page refers to, and what it shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.pictures = 0
        self.drawn: Counter[str] = Counter()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.drawn[tag] += 1
        self.ids.add(values.get("id", ""))
        self.pictures += tag == "img" and values["src"].startswith("data:image/jpeg;base64,")
        self.links += [values[key] for key in ("src", "href") if key in values]


def test_the_page_is_self_contained_and_shows_each_kind(tmp_path: Path, run: Callable[..., Any]) -> None:
    write(tmp_path / "data", PLANTS)
    assert run(tmp_path / "data", "--html", tmp_path / "deep" / "page.html").exit_code == 0
    text = (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in page.links)
    assert {plant.name for plant in PLANTS} <= page.ids
    assert page.pictures >= 35
    assert page.drawn["svg"] == 5


@posix_only("names of any characters")
def test_the_name_of_a_photo_is_no_markup_of_the_page(tmp_path: Path, run: Callable[..., Any]) -> None:
    write(tmp_path / "data", PLANTS)
    name = "<img src=x onerror=alert(1)>.jpg"
    (tmp_path / "data" / "train" / "images" / name).write_bytes(photo(900))
    assert run(tmp_path / "data", "--html", tmp_path / "page.html").exit_code == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in Page(text).links)


def test_bars_are_as_long_as_what_they_count() -> None:
    chart = bars("photos", {"top": 2, "pants": 4}, {"top": "red"}, "grey", goal=8)
    assert chart["rows"] == [
        {"name": "top", "value": 2, "y": 3.0, "width": 47.0, "height": 69.0, "colour": "red"},
        {"name": "pants", "value": 4, "y": 78.0, "width": 94.0, "height": 69.0, "colour": "grey"},
    ]
    del chart["rows"]
    assert chart == {"form": "bars", "title": "photos", "x": 84, "goal": 272.0, "goal_value": 8}
    assert bars("photos", {"top": 2, "pants": 4}, {}, "grey", goal=16)["rows"][1]["width"] == 47.0
    far = bars("photos", {"top": 2, "pants": 4}, {}, "grey", goal=17)  # it would leave no room for the bars
    assert (far["goal"], far["rows"][1]["width"]) == (None, 188.0)
    near = bars("photos", {"top": 4}, {}, "grey", goal=2)
    assert (near["goal"], near["rows"][0]["width"]) == (178.0, 188.0)
    assert bars("photos", {"top": 4}, {}, "grey", goal=0)["goal"] is None
    assert {row["height"] for row in bars("photos", dict.fromkeys("abcdefghijklmnopqrst", 0), {}, "")["rows"]} == {2.0}
    assert bars("photos", {}, {}, "grey")["rows"] == []


def test_a_histogram_and_a_grid_show_what_is_rare() -> None:
    chart = histogram("sides", [0, 1, 400], ["small", "middle", "large"], ["0", "1"])
    assert chart.pop("columns") == [
        {"x": 0.5, "width": 105.7, "height": 0.0, "name": "small: 0"},
        {"x": 107.2, "width": 105.7, "height": 1.5, "name": "middle: 1"},
        {"x": 213.8, "width": 105.7, "height": 146.0, "name": "large: 400"},
    ]
    assert chart == {"form": "histogram", "title": "sides", "marks": ["0", "1"]}
    assert grid("centres", [[0, 5], [10, 0]]) == {
        "form": "grid",
        "title": "centres",
        "cells": [
            {"x": 0.0, "y": 0.0, "side": 74.5, "share": 0.03, "name": "0"},
            {"x": 75.0, "y": 0.0, "side": 74.5, "share": 0.52, "name": "5"},
            {"x": 0.0, "y": 75.0, "side": 74.5, "share": 1.0, "name": "10"},
            {"x": 75.0, "y": 75.0, "side": 74.5, "share": 0.03, "name": "0"},
        ],
    }
    assert histogram("sides", [], [], [])["columns"] == grid("centres", [])["cells"] == []


def test_the_page_does_not_open_what_could_not_be_read(tmp_path: Path) -> None:
    write(tmp_path)
    keys = ("train/images/clean1001.jpg",)
    crashed = Finding("unreadable-image", "it crashes the image decoder", "train", keys)
    for other, pictures in (("unreadable-image", 0), ("tiny-picture", 2)):
        findings = (replace(crashed, kind=other), Finding("no-label-file", "none", "train", keys))
        audit = replace(audit_dataset(tmp_path, settings()), findings=findings)
        assert Page(audit_page(audit, settings().images, 5)).pictures == pictures
    (tmp_path / keys[0]).write_bytes(b"changed meanwhile")
    assert Page(audit_page(audit, settings().images, 5)).pictures == 0


def test_a_box_up_to_the_photos_edges_is_drawn_within_the_picture() -> None:
    """Two pixels of its colour at every edge, and a white rim inside; the rim outside
    has no room.
    """
    drawn = draw_marks(Image.new("RGB", (100, 80), "black"), [Mark(0, "top", 0, 0, 1, 1)], 240)
    colour, white = ImageColor.getrgb(COLOURS["top"]), (255, 255, 255)
    from_each_edge = [
        [drawn.getpixel((n, 40)) for n in range(4)],
        [drawn.getpixel((50, n)) for n in range(4)],
        [drawn.getpixel((99 - n, 40)) for n in range(4)],
        [drawn.getpixel((50, 79 - n)) for n in range(4)],
    ]
    assert from_each_edge == [[colour, colour, white, (0, 0, 0)]] * 4


def test_thumbnails_are_limited_and_the_rest_is_named(tmp_path: Path, run: Callable[..., Any]) -> None:
    write(tmp_path / "data")
    for label in (tmp_path / "data" / "train" / "labels").glob("*.txt"):
        label.unlink()
    done = run(tmp_path / "data", "--html", tmp_path / "page.html", "--set", "audit.thumbnails=3")
    assert done.exit_code == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert Page(text).pictures == 3
    assert "9 more" in text
    shutil.rmtree(tmp_path / "data" / "train" / "labels")
    assert run(tmp_path / "data").exit_code == 0


@posix_only("links")
def test_in_a_labels_folder_that_is_a_link_no_label_is_without_a_photo(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train" / "labels" / "orphan.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert kinds_of(tmp_path)["orphan-label"] == 1
    (tmp_path / "train" / "labels").rename(tmp_path / "elsewhere")
    (tmp_path / "train" / "labels").symlink_to("../elsewhere")
    photos = len(list((tmp_path / "train" / "images").iterdir()))
    assert kinds_of(tmp_path) == {"link": photos, "few-images": 1}
