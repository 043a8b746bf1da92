"""Rows of build-index, the commands of `catalogue`, doctor and config."""

from __future__ import annotations

import os
from pathlib import Path

from conftest import two_halves

from options.table import MODELS, World, row

NAMES = {"detector": "tiny-detector", "embedder": "tiny-embedder"}


def photos(folder: str, count: int, shade: int = 0) -> Path:
    for n in range(count):
        path = two_halves(Path(folder) / f"{folder}{n}.png", f"rgb(255,{9 * n},{shade})", "white", (64, 64))
        os.utime(path, (1_700_000_000, 1_700_000_000))  # long ago: a file of this second is always hashed again
    return Path(folder)


@row("build-index", "PHOTOS", "--index", "--detector", "--embedder", "--json", "--rehash", "--no-rehash")
def a_build(world: World) -> None:
    photos("p", 3)
    built = world.json("build-index", "p", "--index", "c", *MODELS)
    assert (built["photos"], built["index_path"], built["hashed"]) == (3, "c", 3)
    shown = world.json("catalogue", "show", "c")
    assert {kind: one["name"] for kind, one in shown["bundles"].items()} == NAMES
    assert world.json("build-index", "p", "--index", "c")["hashed"] == 0
    assert world.json("build-index", "p", "--index", "c", "--rehash")["hashed"] == 3
    always = ("--set", "build.rehash=true")
    assert world.json("build-index", "p", "--index", "c", *always)["hashed"] == 3
    assert world.json("build-index", "p", "--index", "c", *always, "--no-rehash")["hashed"] == 0


@row("build-index", "--detector")
def a_build_without_a_detector(world: World) -> None:
    built = world.json("build-index", photos("p", 2), "--index", "c", "--detector", "none", *MODELS[2:])
    assert built["without_detection"] == 2


@row("build-index", "--max-delete", "--index-type", "--max-memory", "--max-latency-ms")
def limits_of_a_build(world: World) -> None:
    photos("p", 4)
    world.run("build-index", "p", "--index", "c", *MODELS)
    Path("p/p3.png").unlink()
    world.run("build-index", "p", "--index", "c", code=3)
    within = ("--max-memory", 3, "--max-latency-ms", "1e-7")
    built = world.json("build-index", "p", "--index", "c", "--max-delete", "0.3", *within)
    assert built["products"] == 3
    assert "within 3 MiB and 1e-07 ms" in built["index"]["reason"]
    photos("q", 5)
    assert world.json("build-index", "q", "--index", "d", *MODELS)["index"]["reason"].startswith(
        "exact: 5 vectors, fewer"
    )
    exact = world.json("build-index", "q", "--index", "e", *MODELS, "--index-type", "flat")
    assert exact["index"]["reason"] == "exact, set by index.type"


@row("catalogue reindex", "INDEX", "--index-type", "--max-memory", "--max-latency-ms", "--json")
def another_index(world: World) -> None:
    world.take("catalogue", "c")
    exact = world.json("catalogue", "reindex", "c", "--index-type", "flat")
    assert (exact["catalogue"], exact["reason"]) == ("c", "exact, set by index.type")
    limited = world.json("catalogue", "reindex", "c", "--max-memory", 5, "--max-latency-ms", "1e-7")
    assert "within 5 MiB and 1e-07 ms" in limited["reason"]


@row("catalogue list", "FOLDER", "--json")
def the_catalogues_of_a_folder(world: World) -> None:
    world.take("catalogue", "shelf/c")
    assert [one["path"] for one in world.json("catalogue", "list", "shelf")["catalogues"]] == ["shelf/c"]


@row("catalogue show", "INDEX", "--product", "--json")
def one_product(world: World) -> None:
    world.take("tops", "c")
    assert world.json("catalogue", "show", "c")["counts"]["products"] == 12
    assert world.json("catalogue", "show", "c", "--product", "t7")["metadata"]["price"] == 8000


@row("catalogue add", "PHOTOS", "--index", "--json")
def more_products(world: World) -> None:
    world.take("catalogue", "c")
    added = world.json("catalogue", "add", photos("p", 2), "--index", "c")
    assert (added["products"], added["index_path"]) == (8, "c")


@row("catalogue remove", "PRODUCTS", "--file", "--index", "--json")
def fewer_products(world: World) -> None:
    world.take("tops", "c")
    Path("gone.txt").write_text("t5\nt8\n")
    removed = world.json("catalogue", "remove", "t1", "t9", "t10", "--file", "gone.txt", "--index", "c")
    assert (removed["products"], removed["unknown"], removed["index_path"]) == (7, [], "c")


@row("catalogue update", "TABLE", "--index", "--json")
def other_prices(world: World) -> None:
    world.take("tops", "c")
    Path("prices.csv").write_text("product_id,price\nt3,777\n")
    assert world.json("catalogue", "update", "prices.csv", "--index", "c")["index_path"] == "c"
    assert world.json("catalogue", "show", "c", "--product", "t3")["metadata"]["price"] == 777


@row("catalogue verify", "INDEX", "--json")
def every_file(world: World) -> None:
    world.take("catalogue", "c")
    found = world.json("catalogue", "verify", "c")
    assert (found["path"], found["ok"]) == ("c", True)


@row("catalogue rollback", "INDEX", "--to", "--json")
def a_generation_by_its_name(world: World) -> None:
    world.take("tops", "c")
    world.run("catalogue", "remove", "t1", "--index", "c")
    first, last = (one["name"] for one in world.json("catalogue", "show", "c")["generations"])
    back = world.json("catalogue", "rollback", "c")
    assert (back["path"], back["from"], back["generation"], back["counts"]["products"]) == ("c", last, first, 12)
    assert "has no predecessor" in world.run("catalogue", "rollback", "c", code=2).err
    forth = world.json("catalogue", "rollback", "c", "--to", last)
    assert (forth["from"], forth["generation"], forth["counts"]["products"]) == (first, last, 11)


@row("catalogue compact", "INDEX", "--json")
def what_nothing_refers_to(world: World) -> None:
    world.take("catalogue", "c")
    assert world.json("catalogue", "compact", "c")["path"] == "c"


@row("catalogue export", "OUT", "--index", "--json", needs=("pyarrow",))
@row("catalogue import", "SOURCE", "--index", "--json", needs=("pyarrow",))
def out_and_in_again(world: World) -> None:
    world.take("catalogue", "c")
    out = world.json("catalogue", "export", "tables", "--index", "c")
    assert (out["path"], out["out"], out["counts"]["items"]) == ("c", "tables", 8)
    assert world.json("catalogue", "import", "tables", "--index", "d") == {"path": "d", "counts": out["counts"]}
    assert world.json("catalogue", "show", "d")["counts"]["products"] == 6


@row("doctor", "FOLDER", "--index", "--json")
def a_look_at_a_folder(world: World) -> None:
    world.take("catalogue", "c")
    assert world.json("doctor", "c")["kind"] == "catalogue"
    healthy = {"path": "c", "status": "healthy"}
    assert healthy.items() <= (world.json("doctor", "--index", "c")["catalogue"] or {}).items()


@row("config schema", "--json")
def schema_of_the_settings(world: World) -> None:
    assert world.json("config", "schema")["title"] == "fashionrec settings"


@row("config show", "SECTION", "--json")
def settings_of_a_section(world: World) -> None:
    found = world.json("config", "show", "crop")
    assert set(found) == {"crop.margin", "crop.square", "crop.pad"}


@row("", "--version")
def the_version(world: World) -> None:
    assert world.run("--version").out.startswith("fashionrec 0.")
