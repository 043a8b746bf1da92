"""Test what a server may take of time and memory where requests asks it, and where it may lead."""

from __future__ import annotations

from typing import Any

import pytest
from hostile_server import Act, HostileServer, Request, answer

from fashionrec.errors import FashionrecError

requests = pytest.importorskip("requests")

from fashionrec.dataset.feed.limited_http import LimitedAdapter, SameOrigin  # noqa: E402


def session(seconds: float, most_bytes: int, **more: Any) -> Any:
    made = requests.Session()
    made.trust_env = False
    made.mount("http://", LimitedAdapter(seconds, most_bytes, **more))
    return made


def test_as_many_bytes_as_are_allowed() -> None:
    with HostileServer(lambda request: request.send(answer(b"x" * 1234))) as server:
        assert session(9.0, 1234).get(server.url).content == b"x" * 1234
        with pytest.raises(FashionrecError) as caught:
            session(9.0, 1233).get(server.url)
    host = server.url.removeprefix("http://")
    assert str(caught.value) == f"{host} sent more than 1,233 bytes"
    assert caught.value.hint == "check the address in the settings"


def test_an_answer_that_makes_progress_may_be_given_more_time() -> None:
    def slowly(request: Request) -> None:
        request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        request.drip(b"abcdefgh", 0.15)

    with HostileServer(slowly) as server:
        found = session(0.7, 99, extend=True).get(server.url, stream=True)
        assert b"".join(found.iter_content(1)) == b"abcdefgh"
        found = session(0.7, 99).get(server.url, stream=True)
        with pytest.raises(requests.RequestException):
            b"".join(found.iter_content(1))


def late(seconds: float) -> Act:
    def act(request: Request) -> None:
        if not request.server.closing.wait(seconds):
            request.send(answer(b"abc"))

    return act


@pytest.mark.parametrize(("length", "wait", "comes"), [(0, 0.5, False), (20_000, 0.5, True), (1000, 1.0, False)])
def test_a_body_has_time_to_be_sent(length: int, wait: float, comes: bool) -> None:
    """10,000 bytes are a second more."""
    with HostileServer(late(wait)) as server:
        asking = session(0.2, 99)
        if comes:
            assert asking.post(server.url, data=b"x" * length).content == b"abc"
        else:
            with pytest.raises(requests.RequestException):
                asking.post(server.url, data=b"x" * length)


class Session(SameOrigin, requests.Session):  # type: ignore[misc,name-defined]
    pass


def target(url: str, location: str) -> str | None:
    response = requests.Response()
    response.status_code, response.url = 302, url
    response.headers["Location"] = location
    found: str | None = Session().get_redirect_target(response)
    return found


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://shop.test/a", "/b"),
        ("https://shop.test/a", "https://shop.test:443/b"),
        ("http://shop.test:80/a", "http://shop.test/b"),
        ("http://shop.test:8080/a", "//shop.test:8080/b"),
    ],
)
def test_a_redirect_within_the_origin_is_followed(url: str, location: str) -> None:
    assert target(url, location) == location


@pytest.mark.parametrize(
    ("url", "location", "named"),
    [
        ("https://shop.test/a", "http://shop.test/b", "shop.test"),
        ("https://shop.test/a", "https://shop.test:444/b", "shop.test"),
        ("https://shop.test/a", "http://shop.test:443/b", "shop.test"),
        ("https://shop.test/a", "//evil.test/b", "evil.test"),
        ("https://shop.test:80/a", "https://shop.test/b", "shop.test"),
    ],
)
def test_a_redirect_to_another_origin_is_refused(url: str, location: str, named: str) -> None:
    with pytest.raises(FashionrecError) as caught:
        target(url, location)
    asked = url.split("/")[2]
    why = "because it would send the key and the photos to another server"
    told = f"{asked} redirects to {named}; the redirect was refused, {why}"
    assert str(caught.value) == told
    assert caught.value.hint == "set roboflow.api_url to the new address if you trust it"


def test_an_answer_that_leads_nowhere_is_no_redirect() -> None:
    response = requests.Response()
    response.status_code, response.url = 200, "https://shop.test/a"
    assert Session().get_redirect_target(response) is None


def test_a_proxy_has_the_same_limits() -> None:
    with HostileServer(lambda request: request.send(answer(b"x" * 100))) as server:
        proxies = {"http": server.url}
        assert session(9.0, 100).get("http://shop.test/a", proxies=proxies).content == b"x" * 100
        with pytest.raises(FashionrecError, match=r"^shop\.test sent more than 99 bytes$"):
            session(9.0, 99).get("http://shop.test/a", proxies=proxies)
    with HostileServer(late(0.6)) as server, pytest.raises(requests.RequestException):
        session(0.2, 99).get("http://shop.test/a", proxies={"http": server.url})
