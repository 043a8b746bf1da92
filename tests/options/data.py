"""Rows of fetch-dataset and the commands of `dataset`."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import TINY, two_halves
from PIL import Image, ImageDraw
from roboflow_server import KEY, RoboflowServer

from options.table import World, row


@row("fetch-dataset", "SOURCES", "--out", "--map", "--counts", "--json")
def from_labels(world: World) -> None:
    world.take("labelled")
    Path("labelled/data.yaml").write_text("train: train/images\nnames: [dress, pants, gown, skirt, shoe]\n")
    maps = ("--map", "gown=dress", "--map", "shoe=null")
    made = world.json("fetch-dataset", "yolo:labelled", "--out", "d", *maps, "--counts", "3,2,1")
    assert made["path"] == "d"
    assert [made["counts"][split] for split in ("train", "valid", "test")] == [3, 2, 1]
    assert made["settings"]["map"] == {"gown": "dress", "shoe": None}
    assert (made["counts"]["dress"], made["counts"]["top"]) == (3, 0)


@row("fetch-dataset", "--images", "--products", "--seed")
def drawn(world: World) -> None:
    world.patch.setenv("FASHIONREC_SYNTHETIC__IMAGES", "5")
    world.patch.setenv("FASHIONREC_SYNTHETIC__PRODUCTS", "2")
    small = [word for key in ("outfits", "queries") for word in ("--set", f"synthetic.{key}=0")]
    small += ["--set", "synthetic.size=96", "--set", "synthetic.views=2"]
    made = world.json("fetch-dataset", "synthetic", "--images", 7, "--products", 3, "--seed", 11, *small)
    assert made["sources"][0]["photos"] == 7
    assert len(Path(made["products"]).read_text().splitlines()) == 1 + 2 * 3
    assert json.loads((Path(made["path"]) / "world.json").read_text())["settings"]["seed"] == 11


@row("dataset audit", "DATA", "--html", "--strict", "--weights", "--json")
def an_audit(world: World) -> None:
    world.take("halves")
    found = world.json("dataset", "audit", "halves")
    assert (found["path"], found["images"]) == ("halves", 7)
    kinds = set(found["counts_by_kind"])
    seen = world.json("dataset", "audit", "halves", "--weights", TINY / "detector", "--html", "pages/a.html")
    assert set(seen["counts_by_kind"]) - kinds
    assert Path("pages/a.html").read_text().startswith("<!doctype html>")
    Path("halves/train/labels/train0.txt").write_text("77 0.5 0.5 0.5 0.5\n")
    world.run("dataset", "audit", "halves")
    world.run("dataset", "audit", "halves", "--strict", code=3)


@row("dataset export", "DATA", "--to", "--out", "--json")
def in_other_formats(world: World) -> None:
    world.take("halves")
    for to in ("coco", "voc"):
        assert world.json("dataset", "export", "halves", "--to", to, "--out", f"as-{to}")["counts"]["test"] == 3
    assert list(Path("as-coco").rglob("*.json"))
    assert list(Path("as-voc").rglob("*.xml"))


@row("dataset export", "--to", "--target", "--weights", "--strategy", "--limit", "--dry-run", needs=("roboflow",))
def to_be_labelled(world: World) -> None:
    """The detector is unsure of pale red; photos of train have labels, others have none."""
    root = Path("d/train")
    (root / "labels").mkdir(parents=True)
    for n in range(5):
        photo = two_halves(root / "images" / f"p{n}.png", f"rgb(255,{100 + 9 * n},{100 + 9 * n})", "white", (128, 96))
        with Image.open(photo) as picture:
            ImageDraw.Draw(picture).ellipse((70 + 9 * n, 5 * n, 110, 60), fill="grey")
            picture.save(photo)
        (root / "labels" / f"p{n}.txt").write_text("4 0.25 0.5 0.5 1\n0 0.9 0.9 0.1 0.1\n")
    Path("d/data.yaml").write_text("train: train/images\nnames: [dress, pants, skirt&pants, skirt, top]\n")
    world.patch.setenv("ROBOFLOW_API_KEY", KEY)
    with RoboflowServer() as server:
        world.patch.setenv("FASHIONREC_ROBOFLOW__API_URL", server.url)
        asked = (
            "dataset",
            "export",
            "d",
            "--to",
            "roboflow",
            "--target",
            "team/garments",
            "--weights",
            TINY / "detector",
        )
        once = ("--set", "dataset.near_duplicates=-1")
        plan = world.json(*asked, "--strategy", "uncertain", "--dry-run", *once)
        assert (plan["target"], plan["sent"], len(server.uploads)) == ("team/garments", None, 0)
        assert {one["why"].split()[0] for one in plan["photos"]} == {"uncertainty"}
        assert len(plan["photos"]) == 5
        sent = world.json(*asked, "--limit", 2, *once)
        assert [one["why"] for one in sent["photos"]] == ["0 boxes without a label, 1 label without a box"] * 2
        assert sent["sent"]["uploaded"] == len(server.uploads) == 2
