"""The parts of a feed's download, each by itself: names of servers, turns, what is kept, and what
is told of local files.
"""

from __future__ import annotations

import hashlib
import io
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("urllib3")
pytest.importorskip("protego")

from faulty_server import FaultyServer, body, status
from PIL import Image
from protego import Protego

from fashionrec.config import Config
from fashionrec.dataset.feed.addresses import AddressPolicy, FetchError, parse_target
from fashionrec.dataset.feed.download import Failed, fetch_images
from fashionrec.dataset.feed.host_queue import HostQueue, Job, Origin
from fashionrec.dataset.feed.photo_cache import Fetched, image_suffix, open_cache
from fashionrec.dataset.source import Source, SourceImage
from fashionrec.dataset.sources.feed import read
from fashionrec.errors import DataError

# -- addresses


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://h/a", "only http and https are supported, not 'ftp'"),
        ("a.jpg", "only http and https are supported, not 'a.jpg'"),
        (f"{'x' * 30}:", f"only http and https are supported, not '{'x' * 20}'"), ("http://u@h/",
        "the URL contains a user name or password"),
        ("http:///a", "the URL has no host"), ("http://./a", "the URL has no host"), ("http://h:0/",
        "port 0 is invalid"),
        ("http://h:99999/", "the URL is invalid"),
    ],
)  # fmt: skip
def test_why_a_url_is_not_asked_for(url: str, message: str) -> None:
    with pytest.raises(FetchError) as caught:
        parse_target(url)
    assert (caught.value.reason, str(caught.value), caught.value.retry, caught.value.after) == (
        "bad-url",
        message,
        False,
        None,
    )


def test_the_parts_of_a_target() -> None:
    target = parse_target("https://Shop.test.:8443/a/b?q=1#frag")
    assert (target.scheme, target.host, target.port, target.path) == ("https", "shop.test", 8443, "/a/b?q=1")
    assert target.origin == ("https", "shop.test", 8443)
    assert "frag" not in target.url
    assert [parse_target(url).port for url in ("http://h", "https://h", "//h")] == [80, 443, 443]
    assert target.join("../c.jpg").url.endswith(":8443/c.jpg")
    assert target.join("//cdn.test/d").origin == ("https", "cdn.test", 443)
    assert target.join("/한".encode().decode("latin-1")).path == "/%ED%95%9C"
    with pytest.raises(FetchError, match="the redirect has an invalid URL"):
        target.join("http://[::1")


def test_a_door_says_why_a_server_is_not_reached() -> None:
    def door(answer: Any, **more: Any) -> AddressPolicy:
        def resolve(host: str, port: int) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return AddressPolicy(resolve=resolve, **more)

    assert door(["8.8.8.8", "9.9.9.9"]).addresses("h", 80) == ["8.8.8.8", "9.9.9.9"]
    assert door(["10.0.0.1"], allow_private=True).addresses("h", 80) == ["10.0.0.1"]
    assert door(["10.0.0.1", "8.8.8.8"], open_to=frozenset({("10.0.0.1", 80)})).addresses("h", 80) == [
        "10.0.0.1",
        "8.8.8.8",
    ]
    private = "h has the non-public address 10.0.0.1 (allowed by feed.allow_private)"
    for answer, more, reason, message, retry in (
        (["8.8.8.8", "10.0.0.1"], {}, "refused-address", private, False),
        (["10.0.0.1"], {"open_to": frozenset({("10.0.0.1", 81)})}, "refused-address", private, False),
        ([], {}, "dns", "h has no address", False),
        (socket.gaierror(socket.EAI_AGAIN, "later"), {}, "dns", "h has no address: later", True),
        (socket.gaierror(socket.EAI_NONAME, "never"), {}, "dns", "h has no address: never", False),
        (OSError("odd\n"), {}, "dns", "h has no address: odd", False),
    ):
        with pytest.raises(FetchError) as caught:
            door(answer, **more).addresses("h", 80)
        assert (caught.value.reason, str(caught.value), caught.value.retry) == (reason, message, retry)


# -- turns


def job(url: str, **more: Any) -> Job:
    target = parse_target(url)
    return Job(target, target, **more)


def test_each_server_has_so_many_places_and_the_others_go_on() -> None:
    queue = HostQueue(per_host=2, robots=False, robot="us")
    jobs = [job(f"http://a.test/{n}") for n in range(3)] + [job("http://b.test/x"), job("https://a.test/s")]
    with queue.turn:
        for one in jobs:
            queue.push(one)
    taken = [queue.take() for _ in range(3)]
    assert [found and found[0] for found in taken] == [jobs[0], jobs[1], jobs[3]]
    assert taken[0] is not None
    with queue.turn:
        queue.release(taken[0][1])
    after = queue.take()
    assert after is not None
    assert after[0] is jobs[2]
    with queue.turn:
        queue.release(after[1])
    last = queue.take()  # another scheme is another server with the same places
    assert last is not None
    assert last[0] is jobs[4]
    with queue.turn:
        queue.close()
    assert queue.take() is None


def test_the_earlier_comes_first_and_none_before_its_time() -> None:
    queue = HostQueue(per_host=9, robots=False, robot="us")
    now = time.monotonic()
    later, sooner = job("http://a.test/later"), job("http://a.test/sooner")
    with queue.turn:
        queue.push(later, now + 0.2)
        queue.push(sooner, now + 0.1)
    for expected, at in ((sooner, 0.1), (later, 0.2)):
        taken = queue.take()
        assert taken is not None
        assert taken[0] is expected
        assert time.monotonic() >= now + at


@pytest.mark.parametrize(("delay", "waits"), [("2", 2), ("45", 30), (None, 0)])
def test_rules_are_asked_for_first_and_their_delay_is_kept(delay: str | None, waits: int) -> None:
    queue = HostQueue(per_host=9, robots=True, robot="us")
    photo = job("http://a.test/deep/1")
    with queue.turn:
        queue.push(photo)
        queue.push(job("http://a.test/2"))
    taken = queue.take()
    assert taken is not None
    errand, origin = taken
    assert (errand.target.url, errand.rules_for is origin, origin.robots_requested) == (
        "http://a.test/robots.txt",
        True,
        True,
    )
    with queue.turn:
        origin.rules = Protego.parse(f"User-agent: us\nCrawl-delay: {delay}\n" if delay else "")
        queue.release(origin)
    before = time.monotonic()
    assert origin.not_before <= before
    taken = queue.take()
    assert taken is not None
    assert taken[0] is photo
    if delay:
        assert before + waits <= origin.not_before <= time.monotonic() + waits


def test_a_server_is_given_up_after_ten_losses_in_a_row() -> None:
    origin = Origin(parse_target("http://a.test/"))
    for _ in range(9):
        origin.count_loss(True)
    origin.count_loss(False)
    for _ in range(9):
        origin.count_loss(True)
    assert origin.closed is None
    origin.permit(job("http://a.test/x"), "us")
    origin.rules = Protego.parse("User-agent: *\nDisallow: /x\n")
    origin.permit(job("http://a.test/y"), "us")
    for rules, reason, message in (
        (origin.rules, "robots", "robots.txt of a.test forbids it"),
        (FetchError("timeout", "no answer"), "timeout", "no answer"),
    ):
        origin.rules = rules
        with pytest.raises(FetchError) as caught:
            origin.permit(job("http://a.test/x"), "us")
        assert (caught.value.reason, str(caught.value)) == (reason, message)
    origin.count_loss(True)
    with pytest.raises(FetchError) as caught:
        origin.permit(job("http://a.test/x"), "us")
    assert (caught.value.reason, str(caught.value)) == ("host-down", "a.test was unreachable 10 times in a row")


# -- what is kept


def keep(folder: Path, url: str, data: bytes, **more: Any) -> Fetched:
    with open_cache(folder) as cache:
        part = cache.part(0)
        part.write_bytes(data)
        fields = {"size": len(data), "final_url": f"{url}?", "etag": None, "last_modified": None} | more
        return cache.keep(part, ".jpg", url, sha256=hashlib.sha256(data).hexdigest(), **fields)


def test_what_came_is_known_as_long_as_its_bytes_are_there(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"a").hexdigest()
    path = tmp_path / "photos" / digest[:2] / f"{digest}.jpg"
    line = {
        "url": "u",
        "suffix": ".jpg",
        "sha256": digest,
        "size": 1,
        "final_url": "u?",
        "etag": '"e"',
        "last_modified": "then",
    }
    new = Fetched("u", path, digest, 1, "u?", '"e"', "then", "new")
    assert keep(tmp_path, "u", b"a", etag='"e"', last_modified="then") == new
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "journal.jsonl", "photos"]
    assert [json.loads(text) for text in (tmp_path / "journal.jsonl").read_text().splitlines()] == [line]
    keep(tmp_path, "셔츠", b"a")
    assert "셔츠" in (tmp_path / "journal.jsonl").read_text(encoding="utf-8")
    (tmp_path / "partial").mkdir()
    for name in ("5.part", "mine.part", "5.parts"):
        (tmp_path / "partial" / name).write_bytes(b"x")
    with open_cache(tmp_path) as cache:
        assert sorted(entry.name for entry in (tmp_path / "partial").iterdir()) == ["5.parts", "mine.part"]
        assert cache.known("u") == Fetched("u", path, digest, 1, "u?", '"e"', "then", "kept")
        assert cache.known("v") is None
        for spoilt in (b"b", b"aa", b""):
            path.write_bytes(spoilt)
            assert cache.known("u") is None
        path.unlink()
        assert cache.known("u") is None
    assert (tmp_path / "partial").is_dir()


def test_a_journal_is_written_anew_where_a_line_of_it_is_none(tmp_path: Path) -> None:
    good = {
        "url": "u",
        "suffix": ".jpg",
        "sha256": "a" * 64,
        "size": 1,
        "final_url": "u",
        "etag": None,
        "last_modified": None,
    }
    later = good | {"size": 2}
    other = good | {"url": "v"}
    wrong = [
        good | {"url": 5}, good | {"sha256": "a" * 63}, good | {"sha256": "../" + "a" * 61}, good | {"suffix": "jpg"},
        good | {"suffix": "./x"}, good | {"suffix": "."}, good | {"size": "1"}, good | {"final_url": None}, [good], 5,
        {key: value for key, value in good.items() if key != "etag"}, {key: value for key,
        value in good.items() if key != "size"},
    ]  # fmt: skip
    journal = tmp_path / "journal.jsonl"

    def lines() -> list[Any]:
        return [json.loads(text) for text in journal.read_text().splitlines()]

    for odd in wrong:
        text = "".join(json.dumps(one) + "\n" for one in (other, odd))
        journal.write_text(text)
        with open_cache(tmp_path):
            assert lines() == [other], odd
    journal.write_text("".join(json.dumps(one) + "\n" for one in (good, other, later)) + '{"url": "cut')
    with open_cache(tmp_path):
        assert lines() == [later, other]
    tidy = "".join(json.dumps(one) + "  \n" for one in (good, other))
    for text in (tidy, "", tidy.rstrip("\n")):
        journal.write_text(text)
        with open_cache(tmp_path):
            assert (journal.read_text() == text) == (text == "" or text.endswith("\n"))


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"\xff\xd8\xff\xe0", ".jpg"), (b"\x89PNG\r\n\x1a\n", ".png"), (b"RIFF\n\n\n\nWEBP", ".webp"),
        (b"\0\0\0 ftypmif1" + b"\n" * 20 + b"avis", ".avif"),
        (b"\0\0\0 ftyp" + b"x" * 24 + b"avif", ".avif"), (b"\0\0\0 ftyp" + b"x" * 25 + b"avif", None), (b"GIF87a", ".gif"),
        (b"GIF89a", ".gif"), (b"GIF88a", None), (b"BM" + bytes(12), ".bmp"), (b"BM" + bytes(11), None), (b"II*\0", ".tif"),
        (b"MM\0*", ".tif"), (b"II\0*", None), (b"RIFF1234WAVE", None), (b"x\xff\xd8\xff", None), (b"", None),
    ],
)  # fmt: skip
def test_what_first_bytes_say(head: bytes, suffix: str | None) -> None:
    assert image_suffix(head) == suffix


# -- a feed of local photos


def test_a_feed_of_local_photos_whole(tmp_path: Path, config: Config) -> None:
    shop = tmp_path / "shop"
    for name, data in (
        ("a.jpg", b"\xff\xd8\xff"),
        ("b.jpeg", b"GIF89a"),
        ("c.HEIC", b"?"),
        ("sub/d.png", b"\x89PNG\r\n\x1a\n"),
    ):
        (shop / name).parent.mkdir(parents=True, exist_ok=True)
        (shop / name).write_bytes(data)
    (tmp_path / "up.jpg").write_bytes(b"\xff\xd8\xff")
    (shop / "out.jpg").symlink_to(tmp_path / "up.jpg")
    (shop / "in.jpg").symlink_to(shop / "a.jpg")
    rows = [
        {"id": "7", "image": ["a.jpg", "b.jpeg", "a.jpg", "gone.jpg", "../up.jpg"], "price": "free"},
        {"id": "8", "image": "", "price": "5"},
        {"image": "c.HEIC"},
        {"id": "7", "image": ["sub/../sub/d.png", "a.jpg", "sub"], "title": "셔츠"},
        {"id": "9", "image": ["out.jpg", "in.jpg", "x\0y.jpg", "n" * 300]},
    ]
    feed = shop / "feed.jsonl"
    feed.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    source = read(feed, tmp_path / "cache", config)
    (nameless,) = [row["product_id"] for row in source.products.values() if row["product_id"].startswith("photo-")]
    assert len(nameless) == len("photo-") + 12

    def lost(key: str, row: int, product: str, url: str, reason: str, message: str) -> dict[str, Any]:
        told = {"key": key, "row": row, "line": row, "product_id": product, "url": url}
        return told | {"reason": reason, "message": message, "attempts": 0}

    nothing, outside = "no such file next to the feed", "the path is outside the feed's folder"
    assert source == Source(
        "feed:feed.jsonl",
        (
            SourceImage("7_1.jpg", shop / "a.jpg", group="7"), SourceImage("7_2.gif", shop / "b.jpeg", group="7"),
            SourceImage(f"{nameless}_1.heic", shop / "c.HEIC", group=nameless), SourceImage("7_5.png",
            shop / "sub/d.png", group="7"),
        ),
        has_labels=False,
        products={
            "7_1.jpg": {"product_id": "7"}, "7_2.gif": {"product_id": "7"}, f"{nameless}_1.heic": {"product_id": nameless},
            "7_5.png": {"product_id": "7", "title": "셔츠"},
        },
        failed=(
            lost("7_3", 1, "7", "gone.jpg", "missing", nothing),
            lost("7_4", 1, "7", "../up.jpg", "outside", outside),
            lost("8", 2, "8", "", "no-image", "the row has no image"),
            lost("7_6", 4, "7", "sub", "missing", nothing),
            lost("9_1", 5, "9", "out.jpg", "outside", outside),
            lost("9_2", 5, "9", "in.jpg", "link", "is a link, which is not followed"),
            lost("9_3", 5, "9", "x y.jpg", "missing", "not a valid path"),
            lost("9_4", 5, "9", "n" * 300, "missing", nothing),
        ),
        notes=(
            "price: 1 of 5 rows with an invalid value, which is ignored",
            "row 1, price: 'free' is not a price",
        ),
    )  # fmt: skip
    again = shop / "again.jsonl"
    again.write_text("\n".join(json.dumps(row) for row in rows[::-1]), encoding="utf-8")
    assert nameless in {row["product_id"] for row in read(again, tmp_path / "cache", config).products.values()}


# -- answers


def ask(
    server: FaultyServer, tmp_path: Path, config: Config, *paths: str, **changes: Any
) -> dict[str, Fetched | Failed]:
    settings = config.feed.model_copy(
        update={"timeout": 5.0, "total_timeout": 20.0, "backoff": 0.0, "robots": False, "retries": 1, "per_host": 8}
        | changes
    )
    door, cache = AddressPolicy(open_to=frozenset({server.address})), tmp_path / "cache"
    got = fetch_images([server.url(path) for path in paths], cache, settings, config.images, door=door)
    return {path: got[server.url(path)] for path in paths}


def test_which_answers_can_be_others_next_time(tmp_path: Path, config: Config) -> None:
    once = (206, 400, 401, 404, 410, 418, 501, 505)
    again = (408, 425, 429, 500, 502, 503, 504, 506, 599)
    with FaultyServer({f"/{code}": status(code) for code in (*once, *again)}) as server:
        got = ask(server, tmp_path, config, *(f"/{code}" for code in (*once, *again)))
        assert got == {
            f"/{code}": Failed(
                server.url(f"/{code}"), f"http-{code}", f"the server answered {code}", 2 if code in again else 1
            )
            for code in (*once, *again)
        }


def test_how_long_a_server_asks_to_wait(tmp_path: Path, config: Config) -> None:
    waits = {
        "/long": ("21", "the server answered 503 and asked to wait 21 s", 1),
        "/date": ("Tue, 24 Nov 2099 10:00:00 GMT", "the server answered 503 and asked to wait ", 1),
    }
    for path, (asked, message, attempts) in waits.items():
        with FaultyServer({path: status(503, Retry_After=asked)}) as server:
            server.otherwise = status(404)
            (got, other) = ask(server, tmp_path, config, path, "/other", per_host=1).values()
            assert isinstance(got, Failed)
            assert (got.reason, got.message.startswith(message), got.attempts) == ("http-503", True, attempts)
            assert isinstance(other, Failed)
            assert (other.reason, other.attempts, other.message) == (
                "http-503",
                0,
                got.message,
            )  # the server is left alone
    for asked in ("soon", "", "0", "-5", "1234567890", "Tue, 24 Nov 1999 10:00:00 GMT"):
        with FaultyServer({"/x": status(503, Retry_After=asked)}) as server:
            assert ask(server, tmp_path, config, "/x") == {
                "/x": Failed(server.url("/x"), "http-503", "the server answered 503", 2)
            }


def test_limits_of_what_is_taken_in_and_what_is_kept_of_its_headers(tmp_path: Path, config: Config) -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, "PNG")
    data = out.getvalue()
    steps = {
        "/fits": body(data, ETag='W/"a"', Last_Modified="Tue, 24 Nov 2026 10:00:00 GMT"),
        "/odd": body(data, ETag="a b", Last_Modified="<script>"),
        "/short": body(data, ETag='""', Last_Modified="yesterday"),
        "/longer": body(data + b"x"),
        "/page": body(b"<html>" * 12),
        "/stump": body(b"\x89PNG"),
    }
    with FaultyServer(steps) as server:
        got = ask(server, tmp_path, config, *steps, max_bytes=len(data))
        kept = {path: (one.etag, one.last_modified) for path, one in got.items() if isinstance(one, Fetched)}
        assert kept == {
            "/fits": ('W/"a"', "Tue, 24 Nov 2026 10:00:00 GMT"),
            "/odd": (None, None),
            "/short": ('""', None),
        }
        nothing = "the response is not a JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF image"
        assert {
            path: (one.reason, one.message, one.attempts) for path, one in got.items() if isinstance(one, Failed)
        } == {
            "/longer": ("too-large", f"it has {len(data) + 1:,} bytes, more than {len(data):,}", 1),
            "/page": ("not-an-image", nothing, 1),
            "/stump": ("not-an-image", nothing, 1),
        }


def test_progress_is_told_of_what_is_there_and_of_what_comes(tmp_path: Path, config: Config) -> None:
    settings = config.feed.model_copy(update={"timeout": 5.0, "robots": False, "retries": 0, "connections": 1})
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, "PNG")
    with FaultyServer({f"/{n}": body(out.getvalue()) for n in range(3)}) as server:
        server.otherwise = status(404)
        door, urls = AddressPolicy(open_to=frozenset({server.address})), [server.url(f"/{n}") for n in range(5)]

        def told(*urls: str, **more: Any) -> tuple[list[tuple[int, int]], list[str]]:
            ticks: list[tuple[int, int]] = []
            got = fetch_images(
                urls, tmp_path / "c", settings, config.images, lambda *tick: ticks.append(tick), door=door, **more
            )
            return ticks, [one.how if isinstance(one, Fetched) else one.reason for one in got.values()]

        ticks, how = told("no", *urls[:2], urls[4])  # what is no address is not among those to fetch
        assert (ticks[-1], sorted(set(ticks)), {total for _, total in ticks}) == ((3, 3), ticks, {3})
        assert sorted(how) == ["bad-url", "http-404", "new", "new"]
        ticks, how = told(*urls[:3], urls[0])
        assert ticks == [(1, 3), (2, 3), (3, 3)]
        assert how == ["kept", "kept", "new"]
        assert told(*urls[:2], refresh=True)[0][-1] == (2, 2)
        assert told()[0] == []


def test_what_has_come_before_anybody_watches_is_told(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def start_and_wait(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("fetch-"):
            thread.join(0.5)

    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, "PNG")
    settings = config.feed.model_copy(update={"timeout": 5.0, "robots": False, "retries": 0, "connections": 1})
    ticks: list[tuple[int, int]] = []
    with FaultyServer({"/0": body(out.getvalue())}) as server:
        monkeypatch.setattr(threading.Thread, "start", start_and_wait)
        door = AddressPolicy(open_to=frozenset({server.address}))
        fetch_images([server.url("/0")], tmp_path / "c", settings, config.images, lambda *t: ticks.append(t), door=door)
    assert ticks == [(1, 1)]


def test_a_photo_that_cannot_be_put_in_its_place_ends_the_download(tmp_path: Path, config: Config) -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, "PNG")
    sha256 = hashlib.sha256(out.getvalue()).hexdigest()
    (tmp_path / "cache" / "photos").mkdir(parents=True)
    (tmp_path / "cache" / "photos" / sha256[:2]).write_text("in the way")
    with FaultyServer({"/a": body(out.getvalue()), "/b": body(out.getvalue())}) as server:
        with pytest.raises(DataError) as caught:
            ask(server, tmp_path, config, "/a", "/b", connections=1, per_host=1)
        assert [path for path, _ in server.seen] == ["/a"]
    told = f"cannot write to the photo cache {tmp_path / 'cache'}: photos/{sha256[:2]} is a file, not a folder"
    assert str(caught.value) == told
