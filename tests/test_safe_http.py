"""Connections of a download's client: kept, used again, given up, and what is said of those that
fail.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("urllib3")

from faulty_server import FaultyServer, body, cut, status
from hostile_server import Act, HostileServer, Request, answer

from fashionrec.dataset.feed.addresses import AddressPolicy, FetchError, parse_target
from fashionrec.dataset.feed.safe_http import Client

ROOM = 1 << 14  # what is left of a body and read to keep the connection is less


def client(timeout: float = 5.0, idle: int = 32) -> Client:
    return Client(AddressPolicy(allow_private=True), user_agent="us", timeout=timeout, idle=idle)


def ask(with_: Client, url: str, seconds: float = 20.0, *, read: bool = True, **headers: str) -> tuple[int, bytes]:
    with with_.get(parse_target(url), headers, seconds) as found:
        return found.status, b"".join(iter(found.read, b"")) if read else b""


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer({"/a": body(b"abc"), "/near": body(bytes(ROOM - 1)), "/far": body(bytes(ROOM))}) as running:
        yield running


def test_what_is_asked_with(server: FaultyServer) -> None:
    assert ask(client(), server.url("/a?b=c"), ETag="x") == (404, b"no")
    ((path, headers),) = server.seen
    assert path == "/a?b=c"
    assert {name: headers[name] for name in ("User-Agent", "Accept-Encoding", "Accept", "ETag")} == {
        "User-Agent": "us",
        "Accept-Encoding": "identity",
        "Accept": "image/jpeg, image/png, image/webp, image/*;q=0.5, */*;q=0.1",
        "ETag": "x",
    }


def test_a_connection_is_used_again_unless_much_of_a_body_is_left(server: FaultyServer) -> None:
    one = client()
    assert ask(one, server.url("/a")) == (200, b"abc")
    for path, connections in (("/near", 1), ("/a", 1), ("/far", 1), ("/a", 2), ("/a", 2)):
        ask(one, server.url(path), read=False)
        assert len(server.connections) == connections, path


def test_of_idle_connections_the_oldest_are_given_up(server: FaultyServer) -> None:
    one = client(idle=1)
    with FaultyServer({"/a": body(b"abc")}) as other:
        for url in (server.url("/a"), other.url("/a"), other.url("/a"), server.url("/a"), server.url("/a")):
            assert ask(one, url)[0] == 200
        assert (len(server.connections), len(other.connections)) == (2, 1)


def silent(head: bytes) -> Act:
    def act(request: Request) -> None:
        request.send(head)
        request.server.closing.wait(10)

    return act


def ended(there: socket.socket) -> bool:
    """Return whether a connection of the server's is over by now, or soon."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            if there.fileno() < 0 or not there.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                return True
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            return True
    return False


@pytest.mark.parametrize("before", [0, 1])
def test_a_client_that_is_closed_ends_what_is_under_way_and_asks_nothing(before: int) -> None:
    """On a connection of its own, and on one that was kept."""

    def act(request: Request) -> None:
        if len(request.server.seen) <= before:
            request.send(answer(b"abc"))
        else:
            silent(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nabc")(request)

    one, begun = client(timeout=60.0), time.monotonic()
    with HostileServer(act) as server:
        for _ in range(before):
            ask(one, server.url)
        with one.get(parse_target(server.url), {}, 60.0) as found:
            assert found.read() == b"abc"
            one.close()
            with pytest.raises(FetchError) as caught:
                found.read()
        assert (caught.value.reason, len({request.socket for request in server.seen})) == ("reset", 1)
        assert time.monotonic() - begun < 6
        for _ in range(2):
            with pytest.raises(FetchError) as caught:
                ask(one, server.url)
            assert (caught.value.reason, str(caught.value)) == ("stopped", "the download was stopped")


def test_connections_that_are_not_kept_are_ended() -> None:
    with HostileServer(lambda request: request.send(answer(b"abc"))) as server, HostileServer(dropping()) as other:
        one = client(idle=1)
        ask(one, server.url)
        ask(one, other.url)
        assert ended(server.seen[0].socket)  # of two idle ones the older
        target = parse_target(other.url)
        with pytest.raises(KeyError), one.get(target, {}, 20.0):
            raise KeyError
        assert ended(other.seen[1].socket)  # nobody knows what is left in it
        ask(one, other.url)
        assert [request.socket is other.seen[0].socket for request in other.seen] == [True, True, False]
        one.close()
        assert ended(other.seen[2].socket)


def test_a_connection_is_kept_beyond_the_time_of_what_was_asked(server: FaultyServer) -> None:
    one = client()
    ask(one, server.url("/a"), 0.5)
    time.sleep(0.7)
    assert ask(one, server.url("/a")) == (200, b"abc")
    assert len(server.connections) == 1
    server.at("/last", cut(b"abc", 3))  # hangs up after it
    for connections in (1, 2):
        assert ask(one, server.url("/last")) == (200, b"abc")
        assert len(server.connections) == connections


def dropping(*numbers: int) -> Act:
    """Hangs up at these requests, from 1, and answers the others."""

    def act(request: Request) -> None:
        if len(request.server.seen) in numbers:
            request.socket.shutdown(socket.SHUT_RDWR)
        else:
            request.send(answer(b"abc"))

    return act


def test_a_kept_connection_that_the_server_ends_is_no_failure() -> None:
    with HostileServer(dropping(2)) as server:
        one = client()
        assert [ask(one, server.url + path) for path in ("/1", "/2", "/3")] == [(200, b"abc")] * 3
        assert [request.line.split()[1] for request in server.seen] == ["/1", "/2", "/2", "/3"]
    with HostileServer(dropping(2, 3)) as server:  # nor is it asked for ever
        one = client()
        ask(one, server.url)
        with pytest.raises(FetchError) as caught:
            ask(one, server.url)
        assert (caught.value.reason, len(server.seen)) == ("reset", 3)


@pytest.mark.parametrize(
    ("act", "timeout", "seconds", "reason", "message", "retry"),
    [
        (silent(b""), 0.1, 9.0, "timeout", "no data arrived for feed.timeout seconds", True),
        (silent(b""), 9.0, 0.1, "too-slow", "it took longer than feed.total_timeout", False),
        # without a length the end of the connection is that of the body: here it is we who cut it
        (silent(b"HTTP/1.1 200 OK\r\n\r\nabc"), 9.0, 0.1, "too-slow", "it took longer than feed.total_timeout", False),
        (dropping(1), 5.0, 9.0, "reset", "the connection was closed before the end of the response", True),
        (
            lambda request: request.send(answer(b"abc", Content_Encoding="gzip")),
            *(5.0, 9.0, "bad-encoding", "the compressed response is damaged", False),
        ),
        (
            lambda request: request.send(b"X" * 300 + b"\r\n\r\n"),
            *(5.0, 9.0, "bad-response", f"the response is not valid HTTP: {'X' * 200}", True),
        ),
    ],
)
def test_why_an_answer_did_not_come(
    act: Act, timeout: float, seconds: float, reason: str, message: str, retry: bool
) -> None:
    begun = time.monotonic()
    with HostileServer(act) as server, pytest.raises(FetchError) as caught:
        ask(client(timeout), server.url, seconds)
    assert time.monotonic() - begun < 6  # not after the other limit
    assert (caught.value.reason, str(caught.value), caught.value.retry) == (reason, message, retry)


def test_a_body_that_ends_early_and_a_server_that_is_not_there() -> None:
    with FaultyServer({"/a": cut(b"abc", 9)}) as server, pytest.raises(FetchError) as caught:
        ask(client(), server.url("/a"))
    assert (caught.value.reason, caught.value.retry) == ("reset", True)
    with pytest.raises(FetchError) as caught:
        ask(client(), server.url("/a"))  # which has ended
    assert (caught.value.reason, caught.value.retry) == ("unreachable", True)
    assert str(caught.value).startswith("no connection: ")


def test_an_error_of_the_server_is_an_answer(server: FaultyServer) -> None:
    server.at("/gone", status(410))
    assert ask(client(), server.url("/gone")) == (410, b"no")


def test_a_connection_is_cut_at_once_where_the_time_is_over(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class Timer(threading.Timer):
        def __init__(self, interval: float, *given: Any) -> None:
            waits.append(interval)
            super().__init__(interval, *given)

    monkeypatch.setattr(threading, "Timer", Timer)
    with pytest.raises(FetchError) as caught:
        ask(client(), server.url("/a"), -1.0)
    assert (caught.value.reason, waits) == ("too-slow", [0.0])


def test_each_address_has_its_turn_within_the_time_that_is_left(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens at the first address."""
    plain, tried, made = socket.create_connection, list[tuple[str, float]](), list[socket.socket]()

    def connect(address: tuple[str, int], timeout: float, **more: Any) -> socket.socket:
        tried.append((address[0], timeout))
        made.append(plain(address, timeout, **more))
        return made[-1]

    monkeypatch.setattr(socket, "create_connection", connect)
    door = AddressPolicy(allow_private=True, resolve=lambda host, port: ["127.0.0.2", "127.0.0.1"])
    url = server.url("/a", "shop.test")
    for timeout, seconds in ((4.0, 60.0), (60.0, 20.0)):
        tried.clear()
        with Client(door, user_agent="us", timeout=timeout).get(parse_target(url), {}, seconds) as found:
            assert found.read() == b"abc"
            assert made[-1].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert [address for address, _ in tried] == ["127.0.0.2", "127.0.0.1"]
        for _, given in tried:
            assert given == 4.0 if seconds == 60.0 else 0 < given <= 20.0


def test_a_server_that_speaks_no_tls_has_no_secure_connection(server: FaultyServer) -> None:
    with pytest.raises(FetchError) as caught:
        ask(client(), server.url("/a").replace("http://", "https://"))
    assert (caught.value.reason, caught.value.retry, caught.value.after) == ("tls", True, None)
    assert str(caught.value).startswith("no secure connection: ")


def test_a_client_that_is_closed_before_it_has_a_line_keeps_none(server: FaultyServer) -> None:
    def resolve(host: str, port: int) -> list[str]:
        one.close()
        return [host]

    one = Client(AddressPolicy(allow_private=True, resolve=resolve), user_agent="us", timeout=5.0)
    assert ask(one, server.url("/a")) == (200, b"abc")  # what is under way there is nobody's to cut
    with pytest.raises(FetchError) as caught:
        ask(one, server.url("/a"))
    assert (caught.value.reason, len(server.connections)) == ("stopped", 1)
