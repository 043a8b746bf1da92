"""Product feeds: photos from servers with every fault, politely, safely, resumably; and the source
that comes of it.
"""

import csv
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_server import (
    FaultyServer,
    after,
    body,
    cached,
    cut,
    drip,
    drip_headers,
    endless,
    folder,
    gzip_bomb,
    redirect,
    reset,
    status,
)
from PIL import Image

pytest.importorskip("urllib3")
pytest.importorskip("protego")

from fashionrec.common.files import sha256_file
from fashionrec.config import Config, FeedConfig
from fashionrec.dataset.feed.addresses import AddressPolicy, FetchError, is_public, parse_target, shown
from fashionrec.dataset.feed.download import Failed, fetch_images
from fashionrec.dataset.feed.photo_cache import Fetched, image_suffix, open_cache
from fashionrec.dataset.source import Source
from fashionrec.dataset.sources.feed import read
from fashionrec.errors import Busy, DataError, MissingExtra

Fetch = Callable[..., dict[str, Fetched | Failed]]


def jpeg(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    import io

    colour = tuple(random.Random(seed).randrange(256) for _ in range(3))
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG", comment=f"photo {seed}".encode())
    return out.getvalue()


PHOTO = jpeg()


@pytest.fixture
def quick(config: Config) -> FeedConfig:
    """The settings with short times, so that a test of a timeout is short too."""
    return config.feed.model_copy(update={"timeout": 0.4, "total_timeout": 2.0, "backoff": 0.02, "max_bytes": 1 << 20})


@pytest.fixture
def fetch(tmp_path: Path, config: Config, quick: FeedConfig) -> Fetch:
    """Fetch from local servers: the door is open to their exact addresses, to nothing else that is
    private.
    """

    def run(urls: list[str], *servers: FaultyServer, refresh: bool = False, **settings: Any) -> Any:
        door = AddressPolicy(open_to=frozenset(server.address for server in servers))
        feed = quick.model_copy(update=settings)
        return fetch_images(urls, tmp_path / "cache", feed, config.images, refresh=refresh, door=door)

    return run


def one(results: dict[str, Fetched | Failed]) -> Any:
    (result,) = results.values()
    return result


def test_a_photo_is_kept_under_its_hash(fetch: Fetch, tmp_path: Path) -> None:
    with FaultyServer({"/a.jpg": body(PHOTO, ETag='"1"', Last_Modified="Tue, 24 Nov 2026 10:00:00 GMT")}) as server:
        got = one(fetch([server.url("/a.jpg#part")], server))
    assert got.path == tmp_path / "cache" / "photos" / got.sha256[:2] / f"{got.sha256}.jpg"
    assert got.path.read_bytes() == PHOTO
    assert sha256_file(got.path) == got.sha256
    assert (got.size, got.etag, got.last_modified) == (len(PHOTO), '"1"', "Tue, 24 Nov 2026 10:00:00 GMT")
    assert got.final_url == server.url("/a.jpg")
    assert [path for path, _ in server.seen] == ["/robots.txt", "/a.jpg"]
    headers = server.seen[1][1]
    assert headers["User-Agent"] == "fashionrec (image feed reader)"
    assert headers["Host"] == f"127.0.0.1:{server.port}"
    assert len(server.connections) == 1
    assert not (tmp_path / "cache" / "partial").exists()


@pytest.mark.parametrize(
    ("step", "reason", "asked"),
    [
        (status(404), "http-404", 1),
        (status(403), "http-403", 1),
        (status(501), "http-501", 1),
        (status(500), "http-500", 3),
        (status(408), "http-408", 3),
        (reset(PHOTO[:100], len(PHOTO)), "reset", 3),
        (cut(PHOTO[:100], len(PHOTO)), "reset", 3),
        (after(0.7, body(PHOTO)), "timeout", 3),
        (body(b"<!doctype html><title>404</title>" * 20, Content_Type="image/jpeg"), "not-an-image", 1),
        (body(b"<svg xmlns='http://www.w3.org/2000/svg'/>", Content_Type="image/svg+xml"), "not-an-image", 1),
        (body(b""), "not-an-image", 1),
        (body(PHOTO[: len(PHOTO) // 2]), "damaged", 1),
        (body(b"\xff\xd8\xff" + bytes(500)), "not-an-image", 1),
        (body(PHOTO, Content_Encoding="gzip"), "bad-encoding", 1),
        (lambda request: request.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n"), "bad-response", 3),
        (redirect("file:///etc/passwd"), "bad-url", 1),
        (redirect("ftp://127.0.0.1/a.jpg"), "bad-url", 1),
        (redirect("http://user:secret@127.0.0.1/a.jpg"), "bad-url", 1),
        (redirect("http://[::1"), "bad-url", 1),
        (redirect("/a.jpg"), "too-many-redirects", 1),
    ],
)
def test_each_fault_has_its_reason_and_only_what_can_pass_is_asked_again(
    fetch: Fetch, step: Any, reason: str, asked: int
) -> None:
    with FaultyServer({"/a.jpg": step}) as server:
        got = one(fetch([server.url("/a.jpg")], server, retries=2, robots=False))
    assert isinstance(got, Failed)
    assert (got.reason, got.attempts) == (reason, asked)
    assert got.message
    assert "\n" not in got.message
    assert "secret" not in f"{got}"
    assert server.visits("/a.jpg") == (asked if reason != "too-many-redirects" else 6)


def test_what_passes_is_had_in_the_end(fetch: Fetch) -> None:
    steps = {
        "/500.jpg": [status(500), body(PHOTO)],
        "/reset.jpg": [reset(PHOTO[:50], len(PHOTO)), body(PHOTO)],
        "/slow.jpg": [after(0.7, body(PHOTO)), body(PHOTO)],
        "/gzip.jpg": [gzip_bomb(PHOTO, 1000)],
        "/there.jpg": [redirect("/a b/한글.jpg", 308)],
        "/a%20b/%ED%95%9C%EA%B8%80.jpg": [body(PHOTO)],
    }
    with FaultyServer(steps) as server:
        urls = [server.url(path) for path in steps]
        got = fetch(urls, server, per_host=8)
    assert all(isinstance(result, Fetched) for result in got.values()), got
    assert got[urls[4]].final_url == server.url("/a%20b/%ED%95%9C%EA%B8%80.jpg")  # type: ignore[union-attr]


def test_retry_after_is_kept_and_holds_for_the_whole_server(fetch: Fetch) -> None:
    at: list[float] = []

    def note(request: Any) -> None:
        at.append(time.monotonic())
        body(PHOTO)(request)

    with FaultyServer({"/a.jpg": [status(429, Retry_After="1"), note], "/b.jpg": note}) as server:
        began = time.monotonic()
        got = fetch([server.url("/a.jpg"), server.url("/b.jpg")], server, per_host=1, robots=False)
    assert all(isinstance(result, Fetched) for result in got.values())
    assert min(at) - began >= 1.0


def test_a_server_that_asks_for_too_long_a_wait_is_left_alone(fetch: Fetch) -> None:
    with FaultyServer({"/a.jpg": status(429, Retry_After="3600")}) as server:
        server.otherwise = body(PHOTO)
        urls = [server.url("/a.jpg")] + [server.url(f"/{n}.jpg") for n in range(5)]
        got = fetch(urls, server, per_host=1, robots=False)
        assert len(server.seen) == 1
    assert {result.reason for result in got.values() if isinstance(result, Failed)} == {"http-429"}
    assert "3600" in got[urls[0]].message  # type: ignore[union-attr]


@pytest.mark.parametrize("step", [drip(PHOTO, 0.05), drip_headers(0.05)])
def test_a_server_that_drips_is_stopped(fetch: Fetch, step: Any) -> None:
    with FaultyServer({"/a.jpg": step}) as server:
        got = one(fetch([server.url("/a.jpg")], server, total_timeout=0.7, robots=False))
    assert (got.reason, got.attempts) == ("too-slow", 1)
    assert 1 <= server.sent["/a.jpg"] < 30  # one every 0.05 s: about 14, and fewer under load


def test_the_time_in_all_goes_over_redirects(fetch: Fetch) -> None:
    hops = {f"/{n}.jpg": after(0.25, redirect(f"/{n + 1}.jpg")) for n in range(5)}
    with FaultyServer(hops) as server:
        got = one(fetch([server.url("/0.jpg")], server, total_timeout=0.6, robots=False))
    assert got.reason == "too-slow"
    assert len(server.seen) <= 3


@pytest.mark.parametrize("announced", [True, False])
def test_a_gigabyte_is_not_taken_in(fetch: Fetch, tmp_path: Path, announced: bool) -> None:
    with FaultyServer({"/a.jpg": endless(PHOTO, 1 << 30, announced=announced)}) as server:
        got = one(fetch([server.url("/a.jpg")], server, max_bytes=100_000))
        assert got.reason == "too-large"
        assert server.sent["/a.jpg"] < 16 << 20  # what the sockets' buffers hold
    assert server.visits("/a.jpg") == 1
    assert not list((tmp_path / "cache" / "photos").glob("**/*.jpg"))


def test_a_gigabyte_of_no_photo_is_left_at_its_first_bytes(fetch: Fetch) -> None:
    with FaultyServer({"/a.jpg": endless(b"<html>", 1 << 30, announced=False)}) as server:
        got = one(fetch([server.url("/a.jpg")], server))
        assert server.sent["/a.jpg"] < 16 << 20
    assert got.reason == "not-an-image"


def test_decoded_bytes_count(fetch: Fetch) -> None:
    with FaultyServer({"/a.jpg": gzip_bomb(PHOTO, 50 << 20)}) as server:
        got = one(fetch([server.url("/a.jpg")], server))
        assert server.sent["/a.jpg"] < 100_000
    assert got.reason == "too-large"


def test_pixels_are_counted_before_they_are_decoded(
    fetch: Fetch, config: Config, quick: FeedConfig, tmp_path: Path
) -> None:
    with FaultyServer({"/a.jpg": body(jpeg(1, (400, 300)))}) as server:
        limits = config.images.model_copy(update={"max_pixels": 100_000})
        door = AddressPolicy(open_to=frozenset({server.address}))
        got = one(fetch_images([server.url("/a.jpg")], tmp_path, quick, limits, door=door))
        assert got.reason == "too-many-pixels"
        limits = config.images.model_copy(update={"max_bytes": 100})
        got = one(fetch_images([server.url("/a.jpg")], tmp_path, quick, limits, door=door))
        assert got.reason == "too-large"


def test_a_redirect_to_a_private_address_is_refused_there(fetch: Fetch) -> None:
    with FaultyServer({"/secret.jpg": body(PHOTO)}) as private, FaultyServer() as public:
        public.at("/a.jpg", redirect(private.url("/secret.jpg")))
        public.at("/b.jpg", redirect(private.url("/secret.jpg", "localhost")))
        public.at("/c.jpg", redirect("http://169.254.169.254/latest/meta-data"))
        urls = [public.url(path) for path in ("/a.jpg", "/b.jpg", "/c.jpg")]
        refused = fetch(urls, public)
        assert [result.reason for result in refused.values()] == ["refused-address"] * 3  # type: ignore[union-attr]
        assert public.visits("/a.jpg") == 1
        assert private.connections == set()
        allowed = fetch(urls[:1], public, private)  # the same redirect, to a server that the door is open to
        assert isinstance(one(allowed), Fetched)


def test_private_addresses_need_the_setting(config: Config, quick: FeedConfig, tmp_path: Path) -> None:
    with FaultyServer({"/a.jpg": body(PHOTO)}) as server:
        odd = [
            server.url("/a.jpg", host)
            for host in ("127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]")
        ]
        got = fetch_images(odd, tmp_path, quick, config.images)
        assert {result.reason for result in got.values()} == {"refused-address"}  # type: ignore[union-attr]
        assert server.connections == set()
        allowed = quick.model_copy(update={"allow_private": True})
        assert isinstance(one(fetch_images(odd[:1], tmp_path, allowed, config.images)), Fetched)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True), ("8.8.8.8", True), ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("64:ff9b::808:808", True), ("2002:808:808::1", True), ("::ffff:8.8.8.8", True),
        ("127.0.0.1", False), ("127.255.0.3", False), ("0.0.0.0", False), ("10.1.2.3", False), ("172.16.0.1", False),
        ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False), ("192.0.2.1", False), ("198.18.0.1", False),
        ("224.0.0.1", False), ("240.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("::", False),
        ("fe80::1", False), ("fe80::1%eth0", False), ("fc00::1", False), ("fec0::1", False), ("ff02::1", False),
        ("2001:db8::1", False), ("2001::1", False), ("::ffff:127.0.0.1", False), ("::ffff:a9fe:a9fe", False), ("::7f00:1", False),
        ("64:ff9b::7f00:1", False), ("64:ff9b::a9fe:a9fe", False), ("64:ff9b:1::808:808", False), ("2002:7f00:1::", False),
        ("2002:c0a8:101::1", False), ("not-an-address", False), ("", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_one_private_address_among_public_ones_refuses_the_host() -> None:
    door = AddressPolicy(resolve=lambda host, port: ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(FetchError, match=r"10\.0\.0\.1") as caught:
        door.addresses("shop.test", 80)
    assert caught.value.reason == "refused-address"


def test_the_connection_goes_to_the_address_that_was_checked(config: Config, quick: FeedConfig, tmp_path: Path) -> None:
    """A name service that answers differently the second time has nobody to answer to."""
    with FaultyServer({"/a.jpg": body(PHOTO)}) as server, FaultyServer({"/a.jpg": body(PHOTO)}) as private:
        asked: list[str] = []

        def rebinding(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

        door = AddressPolicy(open_to=frozenset({server.address}), resolve=rebinding)
        got = one(fetch_images([server.url("/a.jpg", "shop.test")], tmp_path, quick, config.images, door=door))
        assert isinstance(got, Fetched)
        assert asked == ["shop.test"]
        assert server.seen[1][1]["Host"] == f"shop.test:{server.port}"
        got = one(fetch_images([private.url("/a.jpg", "shop.test")], tmp_path, quick, config.images, door=door))
        assert got.reason == "refused-address"
        assert private.connections == set()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for shop.test in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    place = tmp_path_factory.mktemp("tls")
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    made += ["-keyout", str(place / "key"), "-out", str(place / "cert"), "-subj", "/CN=shop.test"]
    subprocess.run([*made, "-addext", "subjectAltName=DNS:shop.test"], check=True, capture_output=True)
    (place / "both.pem").write_text((place / "key").read_text() + (place / "cert").read_text())
    return place / "both.pem"


def test_tls_verifies_the_name_although_the_address_was_dialled(
    certificate: Path, config: Config, quick: FeedConfig, tmp_path: Path
) -> None:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    trusted = ssl.create_default_context(cafile=str(certificate))
    with FaultyServer({"/a.jpg": body(PHOTO)}, tls=served) as server:
        doors = {
            "shop.test": AddressPolicy(
                open_to=frozenset({server.address}), resolve=lambda *_: ["127.0.0.1"], tls=trusted
            ),
            "other.test": AddressPolicy(
                open_to=frozenset({server.address}), resolve=lambda *_: ["127.0.0.1"], tls=trusted
            ),
            "shop.test.": AddressPolicy(open_to=frozenset({server.address}), resolve=lambda *_: ["127.0.0.1"]),
        }
        got = [
            one(fetch_images([server.url("/a.jpg", host)], tmp_path, quick, config.images, door=door))
            for host, door in doors.items()
        ]
    assert isinstance(got[0], Fetched)
    assert [result.reason for result in got[1:]] == ["tls", "tls"]
    assert server.visits("/a.jpg") == 1


@pytest.mark.parametrize(
    "url",
    ["", "a.jpg", "ftp://h/a.jpg", "file:///a.jpg", "http://", "http:///a", "http://u:p@h/a.jpg", "https://u@h/", "http://h:0/",
     "http://h:99999/", "http://[::1/", "javascript:alert(1)", "http://h\ud800/", "http://h/" + "a" * 9000, "gopher://h"],
)  # fmt: skip
def test_bad_urls(url: str, fetch: Fetch) -> None:
    got = one(fetch([url]))
    assert (got.reason, got.attempts) == ("bad-url", 0)
    assert "p@" not in got.url


def test_a_url_has_8192_characters_at_most() -> None:
    longest = "http://h/" + "a" * (8192 - 9)
    assert parse_target(f" {longest} ").url == longest
    with pytest.raises(FetchError, match="more than 8192 characters"):
        parse_target(longest + "a")


def test_urls_have_one_spelling() -> None:
    assert parse_target(" HTTP://Shop.TEST:80/a b?q=한#x ").url == "http://shop.test:80/a%20b?q=%ED%95%9C"
    assert parse_target("//cdn.test/a.jpg").origin == ("https", "cdn.test", 443)
    assert parse_target("https://[2606::1]:8443").origin == ("https", "2606::1", 8443)
    assert parse_target("http://한글.test/").host == "xn--bj0bj06e.test"
    assert shown("http://me:secret@h/\x1b[31m@x") == "http://***@h/\N{REPLACEMENT CHARACTER}[31m@x"


def test_robots_are_obeyed_with_their_wildcards(fetch: Fetch) -> None:
    rules = b"User-agent: *\nDisallow: /private/\nDisallow: /*.png$\nAllow: /private/open/\n\nUser-agent: other\nDisallow: /\n"
    with FaultyServer({"/robots.txt": body(rules)}) as server:
        server.otherwise = body(PHOTO)
        paths = ["/a.jpg", "/private/a.jpg", "/private/open/a.jpg", "/x/a.png", "/x/a.png?v=1"]
        got = fetch([server.url(path) for path in paths], server)
        assert [getattr(result, "reason", "") for result in got.values()] == ["", "robots", "", "robots", ""]
        assert {path for path, _ in server.seen} == {"/robots.txt", "/a.jpg", "/private/open/a.jpg", "/x/a.png?v=1"}
        assert server.visits("/robots.txt") == 1
        ignored = fetch([server.url(path) for path in paths], server, robots=False)
        assert all(isinstance(result, Fetched) for result in ignored.values())


@pytest.mark.parametrize(
    ("robots", "reason"),
    [
        (status(404), None),
        (status(403), None),
        (redirect("/elsewhere.txt"), "robots"),
        (redirect("/robots.txt"), None),
        (status(503), "robots"),
        (status(429), "robots"),
        ([status(500), body(b"")], None),
        (body(b"User-agent: fashionrec\nDisallow: /"), "robots"),
        (body("\ufeffUser-agent: *\r\nDisallow: /a".encode()), "robots"),
        (after(5, body(b"")), "timeout"),
        (endless(b"# ", 1 << 30, announced=False), None),
    ],
)
def test_robots_that_cannot_be_had(fetch: Fetch, robots: Any, reason: str | None) -> None:
    with FaultyServer({"/robots.txt": robots, "/elsewhere.txt": body(b"User-agent: *\nDisallow: /")}) as server:
        server.otherwise = body(PHOTO)
        got = one(fetch([server.url("/a.jpg")], server, retries=1, timeout=0.3))
        assert getattr(got, "reason", None) == reason
        assert server.visits("/a.jpg") == (reason is None)


def test_a_redirect_asks_the_other_servers_robots(fetch: Fetch) -> None:
    with FaultyServer({"/robots.txt": body(b"User-agent: *\nDisallow: /")}) as other, FaultyServer() as server:
        server.at("/a.jpg", redirect(other.url("/b.jpg")))
        got = one(fetch([server.url("/a.jpg")], server, other))
        assert got.reason == "robots"
        assert [path for path, _ in other.seen] == ["/robots.txt"]


def test_a_crawl_delay_is_kept(fetch: Fetch) -> None:
    with FaultyServer({"/robots.txt": body(b"User-agent: *\nCrawl-delay: 0.2\n")}) as server:
        server.otherwise = body(PHOTO)
        began = time.monotonic()
        fetch([server.url(f"/{n}.jpg") for n in range(5)], server)
        assert time.monotonic() - began >= 0.8
        assert server.most_at_once == 1


@pytest.mark.parametrize(("per_host", "connections", "most"), [(1, 8, 1), (3, 8, 3), (8, 2, 2)])
def test_a_server_never_has_more_requests_than_the_settings_say(
    fetch: Fetch, per_host: int, connections: int, most: int
) -> None:
    with FaultyServer() as server:
        server.otherwise = after(0.03, body(PHOTO))
        got = fetch([server.url(f"/{n}.jpg") for n in range(24)], server, per_host=per_host, connections=connections)
        assert all(isinstance(result, Fetched) for result in got.values())
        assert server.most_at_once == most
        assert len(server.connections) <= most + 1


def test_a_slow_server_holds_up_no_other(config: Config, quick: FeedConfig, tmp_path: Path) -> None:
    """The slow one answers nothing before the fast one has answered everything."""
    answered: list[str] = []
    all_fast = threading.Event()

    def waiting(request: Any) -> None:
        all_fast.wait(20)
        answered.append("slow")
        body(PHOTO)(request)

    def quickly(request: Any) -> None:
        answered.append("fast")
        body(PHOTO)(request)
        if answered.count("fast") == 10:
            all_fast.set()

    with FaultyServer() as slow, FaultyServer() as fast:
        slow.otherwise, fast.otherwise = waiting, quickly
        door = AddressPolicy(open_to=frozenset({slow.address, fast.address}), resolve=lambda *_: ["127.0.0.1"])
        urls = [slow.url(f"/{n}.jpg", "slow.test") for n in range(6)]
        urls += [fast.url(f"/{n}.jpg", "fast.test") for n in range(10)]
        feed = quick.model_copy(
            update={"robots": False, "per_host": 1, "connections": 2, "timeout": 60.0, "total_timeout": 60.0}
        )
        got = fetch_images(urls, tmp_path, feed, config.images, door=door)
    assert all(isinstance(result, Fetched) for result in got.values())
    assert answered == ["fast"] * 10 + ["slow"] * 6


def test_a_server_out_of_reach_is_given_up(fetch: Fetch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: every connection is refused
        port = taken.getsockname()[1]
        urls = [f"http://127.0.0.1:{port}/{n}.jpg" for n in range(30)]
        server = FaultyServer()
        server.port = port
        got = fetch(urls, server, retries=1, robots=False, per_host=1)
    reasons = Counter(result.reason for result in got.values())  # type: ignore[union-attr]
    assert reasons == {"unreachable": 10, "host-down": 20}


def test_each_url_is_fetched_once_and_each_photo_kept_once(fetch: Fetch, tmp_path: Path) -> None:
    with FaultyServer({"/a.jpg": body(PHOTO), "/same.jpg": body(PHOTO)}) as server:
        urls = [server.url("/a.jpg"), server.url("/a.jpg#x"), f" {server.url('/a.jpg')}", server.url("/same.jpg")]
        got = fetch([*urls, *urls], server)
        assert list(got) == urls
        assert server.visits("/a.jpg") == 1
    assert len({result.path for result in got.values()}) == 1  # type: ignore[union-attr]
    assert len(list((tmp_path / "cache" / "photos").glob("*/*"))) == 1


def test_a_second_run_asks_for_nothing_but_what_failed(fetch: Fetch, tmp_path: Path) -> None:
    with FaultyServer(
        {"/a.jpg": body(PHOTO), "/b.jpg": [status(404), body(jpeg(2))], "/c.jpg": body(jpeg(3))}
    ) as server:
        urls = [server.url(f"/{name}.jpg") for name in "abc"]
        first = fetch(urls, server)
        assert [getattr(result, "how", "failed") for result in first.values()] == ["new", "failed", "new"]
        first[urls[2]].path.write_bytes(b"x" * len(jpeg(3)))  # type: ignore[union-attr]
        journal = tmp_path / "cache" / "journal.jsonl"
        journal.write_bytes(journal.read_bytes() + b'{"url": "http://x", "sha256": "ab')  # a line that a kill cut off
        second = fetch(urls, server)
        assert [getattr(result, "how", "failed") for result in second.values()] == ["kept", "new", "new"]
        assert [server.visits(f"/{name}.jpg") for name in "abc"] == [1, 2, 2]
        assert second[urls[2]].path.read_bytes() == jpeg(3)  # type: ignore[union-attr]
        third = fetch(urls, server)
        assert {getattr(result, "how", "failed") for result in third.values()} == {"kept"}
        assert [server.visits(f"/{name}.jpg") for name in "abc"] == [1, 2, 2]
        assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_refresh_asks_by_etag_and_takes_only_what_changed(fetch: Fetch) -> None:
    with FaultyServer(
        {"/a.jpg": cached(PHOTO, '"1"'), "/b.jpg": [body(jpeg(1), ETag='"x"'), body(jpeg(2), ETag='"y"')]}
    ) as server:
        server.at("/r.jpg", redirect("/a.jpg"))
        urls = [server.url(f"/{name}.jpg") for name in "abr"]
        first = fetch(urls, server)
        second = fetch(urls, server, refresh=True)
        assert [result.how for result in second.values()] == ["unchanged", "new", "unchanged"]  # type: ignore[union-attr]
        assert second[urls[0]].path == first[urls[0]].path  # type: ignore[union-attr]
        assert second[urls[1]].sha256 != first[urls[1]].sha256  # type: ignore[union-attr]
        asked = [headers.get("If-None-Match") for path, headers in server.seen if path == "/r.jpg"]
        assert asked == [None, None]  # the ETag is not of the server that redirects
        assert [r.how for r in fetch(urls, server).values()] == ["kept"] * 3  # type: ignore[union-attr]


_RUN = """
import sys
from pathlib import Path
from fashionrec.config import load_config
from fashionrec.dataset.feed.addresses import AddressPolicy as Door
from fashionrec.dataset.feed.download import fetch_images
config = load_config(env={}).config
port, folder = int(sys.argv[1]), Path(sys.argv[2])
urls = [f"http://127.0.0.1:{port}/{n}.jpg" for n in range(40)]
fetch_images(urls, folder, config.feed, config.images, door=Door(open_to=frozenset({("127.0.0.1", port)})))
"""


def test_a_killed_run_is_taken_up_where_it_was(fetch: Fetch, tmp_path: Path) -> None:
    with FaultyServer() as server:
        for n in range(40):
            server.at(f"/{n}.jpg", after(0.02, body(jpeg(n))))
        child = subprocess.Popen([sys.executable, "-c", _RUN, str(server.port), str(tmp_path / "cache")])
        journal = tmp_path / "cache" / "journal.jsonl"
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < 10:
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.005)
        child.kill()
        child.wait()
        done = {json.loads(line)["url"] for line in journal.read_bytes().split(b"\n")[:-1]}
        assert 10 <= len(done) < 40
        time.sleep(0.1)
        before = len(server.seen)
        got = fetch([server.url(f"/{n}.jpg") for n in range(40)], server)
        asked = {server.url(path) for path, _ in server.seen[before:]} - {server.url("/robots.txt")}
    assert asked == {server.url(f"/{n}.jpg") for n in range(40)} - done
    assert all(isinstance(result, Fetched) for result in got.values())
    for n, result in enumerate(got.values()):
        assert result.path.read_bytes() == jpeg(n)  # type: ignore[union-attr]
    assert not (tmp_path / "cache" / "partial").exists()


def test_one_process_at_a_time_and_a_folder_that_cannot_be_written(fetch: Fetch, tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache"), pytest.raises(Busy):
        fetch(["http://127.0.0.1/a.jpg"])
    (tmp_path / "cache2").write_text("a file")
    with FaultyServer({"/a.jpg": body(PHOTO)}) as server:
        (tmp_path / "cache" / "photos").write_text("in the way")
        with pytest.raises(DataError, match="cannot write"):
            fetch([server.url("/a.jpg")], server)


def test_an_interrupt_ends_what_is_on_its_way(config: Config, quick: FeedConfig, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    answered, let_go = [], threading.Event()

    def held(request: Any) -> None:
        let_go.wait(50)
        answered.append(1)
        body(PHOTO)(request)

    with FaultyServer({"/a.jpg": body(PHOTO), "/slow.jpg": held}) as server:
        slow = quick.model_copy(update={"timeout": 30.0, "total_timeout": 60.0})
        door = AddressPolicy(open_to=frozenset({server.address}))
        with pytest.raises(KeyboardInterrupt):
            fetch_images(
                [server.url("/slow.jpg"), server.url("/a.jpg")], tmp_path, slow, config.images, stop, door=door
            )
        assert answered == [], "what is on its way is not waited for"
        let_go.set()
        deadline = time.monotonic() + 30
        while [t for t in threading.enumerate() if t.name.startswith("fetch-")] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not [t for t in threading.enumerate() if t.name.startswith("fetch-")]


def test_what_counts_as_a_photo() -> None:
    import io

    for name, suffix in (
        ("JPEG", ".jpg"),
        ("PNG", ".png"),
        ("GIF", ".gif"),
        ("BMP", ".bmp"),
        ("TIFF", ".tif"),
        ("WEBP", ".webp"),
    ):
        out = io.BytesIO()
        Image.new("RGB", (20, 20)).save(out, name)
        assert image_suffix(out.getvalue()[:64]) == suffix
    assert image_suffix(b"\0\0\0\x20ftypavif" + bytes(20)) == ".avif"
    for other in (b"", b"<html>", b"%PDF-1.7", b"\0\0\0\x20ftypheic" + bytes(20), b"8BPS", b"\xff\xd8"):
        assert image_suffix(other) is None


def write_feed(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def read_feed(config: Config, quick: FeedConfig, tmp_path: Path) -> Callable[..., Source]:
    def run(file: Path, *servers: FaultyServer, **options: Any) -> Source:
        door = AddressPolicy(open_to=frozenset(server.address for server in servers))
        return read(file, tmp_path / "cache", config.model_copy(update={"feed": quick}), door=door, **options)

    return run


def test_a_feed_is_photos_by_product_with_typed_columns(read_feed: Callable[..., Source], tmp_path: Path) -> None:
    with FaultyServer({f"/{n}.jpg": body(jpeg(n)) for n in range(4)}) as server:
        rows = [
            {
                "id": "001",
                "image_link": f"{server.url('/0.jpg')}|{server.url('/1.jpg')}",
                "price": "39,000원",
                "colour": "red",
            },
            {"id": "001", "image_link": server.url("/2.jpg"), "price": "문의", "colour": "blue"},
            {"id": "셔츠/반팔", "image_link": server.url("/3.jpg"), "price": "29,000원", "colour": ""},
            {"id": "4", "image_link": server.url("/404.jpg"), "price": "1"},
            {"id": "5", "image_link": "", "price": "1"},
            {"id": "001", "image_link": server.url("/0.jpg"), "price": "1"},
        ]
        source = read_feed(write_feed(tmp_path / "feed.csv", rows), server)
    assert (source.label, source.has_labels) == ("feed:feed.csv", False)
    keys = [image.key for image in source.images]
    assert keys[:3] == ["001_1.jpg", "001_2.jpg", "001_3.jpg"]
    assert keys[3].startswith("셔츠-반팔-")
    assert [image.group for image in source.images] == ["001", "001", "001", "셔츠/반팔"]
    assert [image.path.read_bytes() for image in source.images] == [jpeg(n) for n in range(4)]
    assert source.products["001_1.jpg"] == {"product_id": "001", "price": 39000, "currency": "KRW", "colour": "red"}
    assert source.products["001_3.jpg"] == {"product_id": "001", "colour": "blue"}
    assert [(row["key"], row["product_id"], row["reason"], row["row"]) for row in source.failed] == [
        ("4_1", "4", "http-404", 4),
        ("5", "5", "no-image", 5),
    ]
    assert source.failed[0]["url"] == server.url("/404.jpg")
    assert source.notes == (
        "price: 1 of 6 rows with an invalid value, which is ignored",
        "row 2, price: '문의' is not a price",
    )


def test_local_paths_stay_in_the_feeds_folder(read_feed: Callable[..., Source], tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    (shop / "photos").mkdir(parents=True)
    (shop / "photos" / "a.jpg").write_bytes(PHOTO)
    (shop / "photos" / "png.jpg").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    (tmp_path / "outside.jpg").write_bytes(PHOTO)
    (shop / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    images = ["photos/a.jpg", "../outside.jpg", str(tmp_path / "outside.jpg"), "link.jpg", "none.jpg", "photos", "a\0b",
              "file:///etc/passwd", "photos/png.jpg", str(shop / "photos" / "a.jpg")]  # fmt: skip
    feed = write_feed(shop / "feed.jsonl", [{"sku": n, "image": image} for n, image in enumerate(images)])
    source = read_feed(feed)
    assert [(image.key, image.group) for image in source.images] == [
        ("0_1.jpg", "0"),
        ("8_1.png", "8"),
        ("9_1.jpg", "9"),
    ]
    assert [row["reason"] for row in source.failed] == [
        "outside", "outside", "outside", "missing", "missing", "missing", "bad-url",
    ]  # fmt: skip


def test_rows_without_an_id_are_products_of_their_own_and_keep_their_names(
    read_feed: Callable[..., Source], tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(ord(name)))
    rows = [{"image": "a.jpg"}, {"image": "b.jpg"}]
    keys = [[image.key for image in read_feed(write_feed(tmp_path / "f.jsonl", r)).images] for r in (rows, rows[::-1])]
    assert keys[0] == keys[1][::-1]
    assert len({key for key in keys[0]}) == 2


@pytest.mark.train
def test_a_parquet_feed_with_lists(read_feed: Callable[..., Source], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(ord(name)))
    frame = pandas.DataFrame(
        {"id": [1, 2], "image": [["a.jpg", "b.jpg"], ["b.jpg"]], "sizes": [["S", "M"], []], "price": [5.0, None]}
    )
    frame.to_parquet(tmp_path / "f.parquet")
    source = read_feed(tmp_path / "f.parquet")
    assert [image.key for image in source.images] == ["1_1.jpg", "1_2.jpg", "2_1.jpg"]
    assert source.products["1_2.jpg"] == {
        "product_id": "1",
        "sizes_in_stock": ["S", "M"],
        "price": 5,
        "currency": "KRW",
    }


def test_many_problems_are_counted_and_the_first_are_told(read_feed: Callable[..., Source], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    rows = [{"image": "a.jpg", "id": str(n), "price": "?"} for n in range(150)]
    notes = read_feed(write_feed(tmp_path / "f.csv", rows)).notes
    assert len(notes) == 102
    assert notes[0].startswith("price: 150 of 150")
    assert notes[-1] == "price: and 50 more"


def test_without_the_packages_the_install_is_named(
    read_feed: Callable[..., Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = write_feed(tmp_path / "f.csv", [{"image": "http://shop.test/a.jpg"}])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="urllib3") as caught:
        read_feed(feed)
    assert "pip install" in caught.value.hint


@pytest.mark.realdata
def test_two_thousand_real_photos_from_a_server_with_faults(config: Config, tmp_path: Path) -> None:
    """clothes-cc0 as a feed; what comes and what does not equals what was planted."""
    root = os.environ.get("FASHIONREC_REALDATA")
    if not root:
        pytest.skip("FASHIONREC_REALDATA names no folder")
    data = Path(root) / "clothes-cc0"
    with (data / "metadata.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    private = FaultyServer({"/x.jpg": body(PHOTO)})
    with private, FaultyServer() as server:
        server.otherwise = folder(data)
        faults: list[tuple[Any, str | None]] = [
            (status(404), "http-404"),
            ([status(500), folder(data)], None),
            (drip(PHOTO + bytes(10_000), 0.1), "too-slow"),
            ([reset(PHOTO[:99], 5000), folder(data)], None),
            (reset(PHOTO[:99], 5000), "reset"),
            (redirect(private.url("/x.jpg")), "refused-address"),
            (endless(PHOTO, 1 << 30, announced=True), "too-large"),
            (endless(PHOTO, 1 << 30, announced=False), "too-large"),
            (body(b"<html>" * 99, Content_Type="image/jpeg"), "not-an-image"),
        ]
        server.at("/robots.txt", status(404))
        planted: Counter[str] = Counter()
        for n, (steps, reason) in enumerate(faults):
            for row in table[n * 7 :: 200][:3]:
                server.at(f"/{row['path']}", *(steps if isinstance(steps, list) else [steps]))
                planted.update([reason] if reason else [])
        rows = [
            {
                "image": server.url(f"/{row['path']}"),
                "id": row["product_id"],
                "category": row["class"],
                "licence": row["licence"],
            }
            for row in table
        ]
        feed = config.feed.model_copy(
            update={"per_host": 8, "total_timeout": 3.0, "backoff": 0.05, "retries": 1, "max_bytes": 5_000_000}
        )
        door = AddressPolicy(open_to=frozenset({server.address}))
        source = read(
            write_feed(tmp_path / "f.csv", rows), tmp_path / "c", config.model_copy(update={"feed": feed}), door=door
        )
        visits = len(server.seen)
        again = read(tmp_path / "f.csv", tmp_path / "c", config.model_copy(update={"feed": feed}), door=door)
        asked_again = len(server.seen) - visits
    assert Counter(row["reason"] for row in source.failed) == planted
    assert len(source.images) == len(table) - sum(planted.values())
    assert private.connections == set()
    lost = {row["url"] for row in source.failed}
    expected = Counter(row["class"] for row in table if server.url(f"/{row['path']}") not in lost)
    assert Counter(row["category"] for row in source.products.values()) == expected
    came = {sha256_file(data / row["path"]) for row in table if server.url(f"/{row['path']}") not in lost}
    assert {sha256_file(image.path) for image in source.images} == came
    assert [image.key for image in again.images] == [image.key for image in source.images]
    assert asked_again <= 1 + 2 * sum(planted.values())
