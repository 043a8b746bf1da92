"""Rows of evaluate."""

from __future__ import annotations

from pathlib import Path

from conftest import TINY, two_halves

from options.table import World, row


@row("evaluate", "SETTINGS", "--weights", "--data", "--split", "--html", "--json")
def a_detector(world: World) -> None:
    world.take("halves")
    asked = ("evaluate", "--weights", TINY / "detector", "--data", "halves/data.yaml")
    right = world.json(*asked)
    assert (right["split"], right["images"], right["per_class"]["pants"]["boxes"]) == ("test", 3, 3)
    wrong = world.json(*asked, "--split", "valid", "--html", "pages/e.html", "worst=1")
    assert (wrong["split"], wrong["images"], wrong["per_class"]["dress"]["boxes"]) == ("valid", 2, 2)
    assert len(wrong["worst"]) == 1
    assert Path("pages/e.html").read_text().startswith("<!doctype html>")


@row("evaluate", "--index", "--queries", "--ways", "--apply", "--json")
def a_search(world: World) -> None:
    world.take("tops", "c")
    world.run("caption", "--index", "c", "--captioner", "local")
    photos = world.made.root / "tops-photos"
    Path("q.csv").write_text("image,product_id\n" + "".join(f"{photos}/t{n}.png,t{n}\n" for n in range(4)))
    asked = ("evaluate", "--index", "c", "--queries", "q.csv")
    plain = world.json(*asked)
    assert (plain["index"], plain["queries_from"], plain["queries"]) == ("c", "q.csv", 4)
    assert "crop, caption" in world.json(*asked, "--ways")["ways"]
    kept = Path("c/measured.json")
    assert not kept.exists()
    world.run(*asked, "--ways", "--apply")
    assert "caption_weight" in kept.read_text()


@row("evaluate", "--captions", "--truth")
def captions(world: World) -> None:
    world.take("catalogue", "c")
    world.run("caption", "--index", "c", "--captioner", "local")
    image = TINY / "photos" / "red-white.jpg"
    Path("truth.csv").write_text(f"image,product_id,color\n{image},red-white.jpg,pink\n")
    found = world.json("evaluate", "--index", "c", "--captions", "--truth", "truth.csv")
    assert found["captioners"]["local"]["color"]["garments"] == 1


@row("evaluate", "--texts")
def texts(world: World) -> None:
    world.take("tops", "c")
    photos = world.made.root / "tops-photos"
    rows = "".join(f"{photos}/t{n}.png,t{n},a red top {n}\n" for n in range(4))
    Path("texts.csv").write_text(f"image,product_id,text\n{rows}")
    assert world.json("evaluate", "--index", "c", "--texts", "texts.csv")["texts_from"] == "texts.csv"


@row("evaluate", "--outfits")
def looks(world: World) -> None:
    lines, asked = ["image,product_id,category"], ["image,product_id,category"]
    for n in range(4):
        two_halves(Path(f"p/look{n}.png"), "#d00000", "#0000c0", (60 + n, 40))
        two_halves(Path(f"q/look{n}.png"), "#d00000", "#0000c0", (70 + n, 50))
        lines.append(f"p/look{n}.png,blue,pants")
        asked += [f"q/look{n}.png,red,top", f"q/look{n}.png,blue,pants"]
    two_halves(Path("p/top.png"), "#d00000", "white", (60, 40))
    Path("t.csv").write_text("\n".join([*lines, "p/top.png,red,top"]))
    Path("looks.csv").write_text("\n".join(asked))
    world.run("build-index", "t.csv", "--index", "c", "--detector", TINY / "detector", "--embedder", TINY / "embedder")
    found = world.json("evaluate", "--index", "c", "--outfits", "looks.csv")
    assert (found["outfits_from"], found["goes_with"]["queries"]) == ("looks.csv", 4)
