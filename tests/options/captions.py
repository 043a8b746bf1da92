"""Rows of caption: who describes what, again or not, at what cost, and by batches."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import two_halves
from openai_batches import BatchServer
from openai_server import OpenAIServer, Reply, completion, success
from test_caption_planted import plant

from options.table import World, row

GARMENTS = 12  # of `Made.tops`


@contextmanager
def asking(world: World, server: OpenAIServer) -> Iterator[OpenAIServer]:
    """A catalogue ``c`` of tops, and a server that is asked where nobody says ``local``."""
    world.take("tops", "c")
    world.patch.setenv("OPENAI_API_KEY", "sk-canary")
    world.patch.setenv("FASHIONREC_CAPTIONER__BATCH__POLL", "0.01")
    with server:
        world.patch.setenv("FASHIONREC_CAPTIONER__BASE_URL", server.base_url)
        yield server


@row("caption", "PHOTOS", "--index", "--captioner", "--limit", "--json")
def of_photos(world: World) -> None:
    with asking(world, OpenAIServer()) as server:
        for name in ("a.png", "b.png", "d.png"):
            two_halves(Path(name), "red", "white", (64, 64))
        found = world.json("caption", "a.png", "b.png", "d.png", "--index", "c", "--captioner", "local", "--limit", 2)
        assert [one["photo"] for one in found["photos"]] == ["a.png", "b.png"]
        assert [one["garments"][0]["captioner"] for one in found["photos"]] == ["local", "local"]
        assert server.requests == []


@row("caption", "--index", "--limit", "--max-cost", "--dry-run", "--recaption", "--retry", "--status", "--only-missing")
def of_a_catalogue(world: World) -> None:
    refusal = Reply(body=completion(None, refusal="no"))
    one = ("--set", "captioner.concurrency=1")
    with asking(world, OpenAIServer([refusal, success()])) as server:
        assert world.json("caption", "--index", "c", "--dry-run")["plan"]["to_ask"] == GARMENTS
        stopped = world.run("caption", "--index", "c", "--max-cost", "0.0000003", code=3)
        assert "US$ 3e-07" in stopped.err
        assert server.requests == []
        some = world.json("caption", "--index", "c", "--limit", 5, *one, code=1)
        assert (some["made"], some["states"]) == (4, {"done": 4, "refused": 1})
        assert world.json("caption", "--index", "c", "--status")["captioned"] == {"openai": 4}
        assert len(server.requests) == 5
        assert world.json("caption", "--index", "c", "--retry", "refused", "--limit", 1)["made"] == 1
        assert world.json("caption", "--index", "c")["made"] == GARMENTS - 5
        assert world.json("caption", "--index", "c", "--recaption", "t3")["made"] == 1
        # what it takes anyway, and so does not go with what asks again
        assert world.json("caption", "--index", "c", "--only-missing")["made"] == 0
        world.run("caption", "--index", "c", "--only-missing", "--recaption", "t3", code=2)
        assert len(server.requests) == GARMENTS + 2


@row("caption", "--batch", "--resume", "--wait")
def by_batches(world: World) -> None:
    server = BatchServer()
    with asking(world, server):
        first = world.json("caption", "--index", "c", "--batch", "--limit", 4)
        assert (first["asked"], first["pending"], server.requests) == (4, 4, [])
        gone_on = world.json("caption", "--index", "c", "--batch", "--resume")
        assert gone_on["asked"] == 0
        rest = world.json("caption", "--index", "c", "--batch", "--wait")
        assert (rest["asked"], rest["pending"]) == (GARMENTS - 4, 0)
        assert len(server.batches) == 2


@row("caption", "--discard-unsent")
def what_somebody_else_planned(world: World) -> None:
    server = BatchServer()
    with asking(world, server):
        planted = plant(Path("c"), server, requests=3)
        world.run("caption", "--index", "c", "--batch", code=2)
        assert planted.exists()
        world.run("caption", "--index", "c", "--batch", "--discard-unsent")
        assert not planted.exists()


@row("caption", "--import-captions")
def of_somebody_else(world: World) -> None:
    with asking(world, OpenAIServer()) as server:
        world.run("caption", "--index", "c", "--limit", 3)
        asked = len(server.requests)
        shutil.rmtree("data")
        assert world.json("caption", "--import-captions", "c")["imported"] == 3
        assert len(server.requests) == asked == 3
