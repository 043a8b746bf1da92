"""Rows of query: what is asked, how it is answered, and in which form."""

from __future__ import annotations

import csv
import io
import json
import webbrowser
import zipfile
from pathlib import Path
from typing import Any

from conftest import TINY, two_halves
from openai_server import OpenAIServer, Reply, completion, success
from PIL import Image

from options.table import World, row

RED_BLUE = TINY / "photos" / "red-blue.jpg"
GREEN = TINY / "photos" / "green.jpg"


def ids(document: Any, garment: int = 0) -> list[str]:
    return [hit["product_id"] for hit in document["garments"][garment]["hits"]]


@row("query", "PHOTOS", "--index", "--k", "--garment", "--box", "--json")
def a_photo(world: World) -> None:
    world.take("catalogue", "c")
    world.take("tops", "d")
    found = world.json("query", RED_BLUE, "--index", "c", "--k", 3, "--garment", "pants")
    assert [one["class_name"] for one in found["garments"]] == ["pants"]
    assert len(ids(found)) == 3
    assert not [one for one in ids(found) if one.startswith("t")]
    assert ids(world.json("query", RED_BLUE, "--index", "d", "-k", 1)) == ["t0"]
    boxed = world.json("query", RED_BLUE, "--index", "c", "--box", "3,5,40,60")
    assert [one["box"] for one in boxed["garments"]] == [[3, 5, 40, 60]]


@row("query", "--index")
def two_catalogues(world: World) -> None:
    world.take("catalogue", "c")
    world.take("tops", "d")
    assert world.json("query", GREEN, "--index", "c", "--index", "d")["catalogues"] == ["c", "d"]


@row("query", "--text", "--like", "--unlike", "--where", "--min-score", "--explain")
def words_and_items(world: World) -> None:
    world.take("tops", "c")
    index = ("--index", "c")
    assert world.json("query", "--text", "red", *index)["text"] == "red"
    like = world.json("query", "--like", "t4", *index)
    assert "t4" not in ids(like)
    unlike = world.json("query", "--like", "t4", "--unlike", "t9", *index)
    assert set(ids(like)) - set(ids(unlike)) == {"t9"}
    assert "parts" not in like["garments"][0]["hits"][0]
    chosen = world.json("query", "--like", "t4", "--where", "price > 9000", *index, "--explain")
    assert set(ids(chosen)) == {"t9", "t10", "t11"}
    assert chosen["garments"][0]["hits"][0]["parts"]
    scores = [hit["score"] for hit in like["garments"][0]["hits"]]
    best = world.json("query", "--like", "t4", "--min-score", (scores[2] + scores[3]) / 2, *index)
    assert ids(best) == ids(like)[:3]


@row("query", "--diversity")
def hits_unlike_each_other(world: World) -> None:
    Path("p").mkdir()
    for n in range(4):
        Image.new("RGB", (60, 60), (255 - n, 0, 0)).save(f"p/red{n}.png")
    other = Image.new("RGB", (60, 60), (0, 255, 0))
    other.paste((255, 0, 0), (0, 0, 60, 20))
    other.save("p/other.png")
    world.run("build-index", "p", "--index", "c", "--detector", "none", "--embedder", TINY / "embedder")
    asked = ("query", "p/red0.png", "--index", "c", "-k", 2)
    assert ids(world.json(*asked)) == ["red0.png", "red1.png"]
    assert ids(world.json(*asked, "--diversity", "0.7")) == ["red0.png", "other.png"]


@row("query", "--goes-with", "--merge")
def several_garments(world: World) -> None:
    world.take("catalogue", "c")
    asked = ("query", RED_BLUE, "--index", "c")
    assert "goes_with" not in world.json(*asked)
    assert [one["class_name"] for one in world.json(*asked, "--goes-with")["goes_with"]]
    merged = world.json("query", RED_BLUE, GREEN, "--index", "c", "--merge")
    assert len(merged["garments"]) == 1


@row("query", "--translate", "--caption", "--no-caption", "--captioner")
def who_is_asked_for_words(world: World) -> None:
    world.take("catalogue", "c")
    world.patch.setenv("OPENAI_API_KEY", "sk-canary")
    english = Reply(body=completion('{"english": ["blue pants"]}'))
    with OpenAIServer([english, success()]) as server:
        world.patch.setenv("FASHIONREC_CAPTIONER__BASE_URL", server.base_url)
        words = world.json("query", "--text", "가방 바지", "--index", "c", "--translate", "--explain")
        assert any("blue pants" in note for note in words["notes"])
        assert len(server.requests) == 1
        photo = ("query", RED_BLUE, "--index", "c", "--garment", "top")
        assert world.json(*photo)["garments"][0]["caption"] is None
        assert world.json(*photo, "--caption")["garments"][0]["caption"]
        assert len(server.requests) == 1
        assert world.json(*photo, "--captioner", "openai")["garments"][0]["caption"] == "A black striped garment"
        assert len(server.requests) > 1
        always = ("--set", "query.caption=local")
        assert world.json(*photo, *always)["garments"][0]["caption"]
        assert world.json(*photo, *always, "--no-caption")["garments"][0]["caption"] is None


@row("query", "--jsonl", "--csv", "--xlsx", "--html", "--open", "--save-crops")
def forms_of_an_answer(world: World) -> None:
    world.take("catalogue", "c")
    opened: list[str] = []
    world.patch.setattr(webbrowser, "open", opened.append)
    two_halves(Path("q/a.png"), "red", "blue")
    asked = ("query", "q/a.png", "--index", "c")
    lines = world.run("query", "q/a.png", GREEN, "--index", "c", "--jsonl").out.splitlines()
    assert [json.loads(line)["photo"] for line in lines] == ["q/a.png", str(GREEN)]
    table = world.run(*asked, "--csv", "-").out
    assert next(csv.DictReader(io.StringIO(table)))["rank"] == "1"
    world.run(*asked, "--csv", "a.csv", "--xlsx", "a.xlsx", "--html", "a.html", "--save-crops", "crops")
    assert opened == []
    assert Path("a.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert zipfile.is_zipfile("a.xlsx")
    assert Path("a.html").read_text().startswith("<!doctype html>")
    assert [path.name for path in sorted(Path("crops").iterdir())] == ["000-a-0-top.jpg", "000-a-1-pants.jpg"]
    world.run(*asked, "--html", "b.html", "--open")
    assert opened == [Path("b.html").resolve().as_uri()]
    world.run(*asked, "--index", "c", "--html", "both.html", "--open")
    assert opened[1:] == [Path("both.html").resolve().as_uri()]
