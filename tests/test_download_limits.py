"""Test what a server of a feed's photos may take of time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile_server import Act, HostileServer, Request, answer, bomb, most_resident, resident

from fashionrec.config import load_config
from fashionrec.dataset.feed.download import Failed, fetch_images

pytest.importorskip("urllib3")
pytest.importorskip("protego")


def fetch(url: str, folder: Path, **values: Any) -> Failed:
    given = {"allow_private": "true", "retries": 0, "robots": "false", "timeout": 5.0, "total_timeout": 20.0, **values}
    config = load_config(sets=[f"feed.{name}={value}" for name, value in given.items()], env={}).config
    (found,) = fetch_images([f"{url}/photo.jpg"], folder, config.feed, config.images).values()
    assert isinstance(found, Failed)
    return found


def after(head: bytes) -> Act:
    """An answer whose first bytes come at once, and the others now and then."""

    def act(request: Request) -> None:
        request.send(head)
        request.drip(b"x" * 1000, 0.2)

    return act


@pytest.mark.parametrize(
    "head", [b"H", b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n\xff\xd8\xff"]
)
def test_a_photo_that_comes_byte_by_byte_is_given_up(head: bytes, tmp_path: Path) -> None:
    with HostileServer(after(head)) as server:
        assert fetch(server.url, tmp_path, total_timeout=1.0).reason == "too-slow"
        assert 1 <= server.dripped < 50  # one every 0.2 s, of a thousand


@pytest.mark.parametrize("prefix", [b"", b"\xff\xd8\xff\xe0" + bytes(200)])
def test_a_compressed_photo_without_end_is_refused_in_little_memory(prefix: bytes, tmp_path: Path) -> None:
    data = bomb(400, prefix)
    with HostileServer(lambda r: r.send(answer(data, Content_Encoding="gzip"))) as server:
        before = resident()
        assert fetch(server.url, tmp_path).reason == ("too-large" if prefix else "not-an-image")
        assert most_resident() - before < 100_000_000


def test_robots_rules_without_end_are_read_to_a_limit(tmp_path: Path) -> None:
    rules = answer(bomb(400), Content_Encoding="gzip")

    def act(request: Request) -> None:
        if "robots.txt" in request.line:
            request.send(rules)
        else:
            request.send(answer(b"", 404))

    with HostileServer(act) as server:
        before = resident()
        assert fetch(server.url, tmp_path, robots="true").reason == "http-404"
        assert most_resident() - before < 100_000_000
