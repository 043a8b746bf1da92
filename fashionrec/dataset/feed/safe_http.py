"""One HTTP(S) request to a stranger's server, made so that neither it nor the name service leads us where we must not go.

Connections go to an address that :class:`fashionrec.dataset.feed.addresses.Door` has checked, by that address; TLS still verifies
the certificate against the name.
Redirects are not followed here; whoever follows one comes back through this door. Proxies of the environment are not used:
a proxy resolves names itself, and no check made here would mean anything.

This module needs urllib3 and is imported by name at call time (:func:`fashionrec.common.extras.need`).
"""

from __future__ import annotations

import http.client
import importlib.util
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from fashionrec.dataset.feed.addresses import Cuttable, Door, Target, Unfetched

CHUNK = 1 << 16
_DRAIN = 1 << 14  # what is left of a redirect's or an error's body is read up to this, to keep the connection


class _Checked(Cuttable):
    """The part of a connection that goes through the door."""

    door: Door
    expires: float

    def _new_conn(self: Any) -> socket.socket:
        failure: OSError | None = None
        for address in self.door.addresses(self.host, self.port):
            left = self.expires - time.monotonic()
            if left <= 0:
                break
            try:
                made = socket.create_connection((address, self.port), min(self.timeout, left))
            except OSError as error:
                failure = error
                continue
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.keep_line(made)
            return made
        raise failure or TimeoutError("the time for one image is over")

    def hang_up(self: Any) -> None:
        self.close()
        self.drop_line()


class _Http(_Checked, HTTPConnection):
    pass


class _Https(_Checked, HTTPSConnection):
    pass


@dataclass(frozen=True)
class Answer:
    """A response: its status, its headers, and its body in pieces."""

    status: int
    headers: Mapping[str, str]
    _read: Callable[[int], bytes]

    def read(self, size: int = CHUNK) -> bytes:
        """At most ``size`` bytes, decoded where the server compressed them; none at the end. Raises :class:`Unfetched`."""
        return self._read(size)


class Client:
    """Keeps connections open between requests. Safe to use from several threads.

    ``timeout`` is in seconds without a byte. At most ``idle`` connections that nobody uses stay open.
    """

    def __init__(self, door: Door, *, user_agent: str, timeout: float, idle: int = 32) -> None:
        self._door, self._timeout, self._most_idle = door, timeout, idle
        self._headers = {
            "User-Agent": user_agent,
            "Accept": "image/jpeg, image/png, image/webp, image/*;q=0.5, */*;q=0.1",
            "Accept-Encoding": "identity",
        }
        self._tls = door.tls
        self._idle: dict[_Http | _Https, Target] = {}
        self._busy: set[_Http | _Https] = set()
        self._closed = False
        self._guard = threading.Lock()

    @contextmanager
    def get(self, target: Target, headers: Mapping[str, str], seconds: float) -> Iterator[Answer]:
        """Ask for a URL and yield the answer; after ``seconds`` in all the connection is cut, wherever it is.

        Raises :class:`Unfetched`: ``refused-address``, ``dns``, ``unreachable``, ``timeout`` (no byte), ``too-slow`` (not
        within ``seconds``), ``reset``, ``tls``, ``bad-response``, ``bad-encoding``.
        """
        expires = time.monotonic() + seconds
        connection, used = self._take(target)
        timer: threading.Timer | None = None
        try:
            while True:
                timer = threading.Timer(max(0.0, expires - time.monotonic()), connection.cut)
                timer.daemon = True
                timer.start()
                connection.expires = expires
                try:
                    with _translated(expires):
                        connection.request(
                            "GET", target.path, headers={**self._headers, **headers}, preload_content=False
                        )
                        response = connection.getresponse()
                    break
                except Unfetched as error:
                    if not used or error.reason != "reset":
                        raise
                    timer.cancel()  # the server had closed a connection that we had kept: not its fault, nor an attempt
                    self._give_back(connection, target, keep=False)
                    connection, used = self._make(target), False

            def read(size: int) -> bytes:
                with _translated(expires):
                    piece: bytes = response.read1(size)
                    if (
                        not piece and time.monotonic() >= expires
                    ):  # a cut looks like the end of a body of unknown length
                        raise TimeoutError
                    return piece

            answer = Answer(response.status, response.headers, read)
            yield answer
            keep = _ended(answer) and not connection.is_closed
            timer.cancel()
            self._give_back(connection, target, keep=keep)
        except BaseException:
            if timer is not None:
                timer.cancel()
            self._give_back(connection, target, keep=False)
            raise

    def close(self) -> None:
        """End every connection; requests on their way fail."""
        with self._guard:
            self._closed = True
            idle, self._idle = list(self._idle), {}
            for connection in self._busy:
                connection.cut()
        for connection in idle:
            connection.hang_up()

    def _take(self, target: Target) -> tuple[_Http | _Https, bool]:
        with self._guard:
            for connection, where in reversed(self._idle.items()):
                if where.origin == target.origin:
                    del self._idle[connection]
                    self._busy.add(connection)
                    break
            else:
                connection = None
        if connection is not None:
            if connection.is_connected:
                return connection, True
            self._give_back(connection, target, keep=False)
        return self._make(target), False

    def _make(self, target: Target) -> _Http | _Https:
        made: _Http | _Https
        if target.scheme == "https":
            with self._guard:
                if self._tls is None:
                    self._tls = _trusting()
            made = _Https(target.host, target.port, timeout=self._timeout, ssl_context=self._tls)
        else:
            made = _Http(target.host, target.port, timeout=self._timeout)
        made.door = self._door
        with self._guard:
            if self._closed:
                raise Unfetched("stopped", "the download was stopped")
            self._busy.add(made)
        return made

    def _give_back(self, connection: _Http | _Https, target: Target, *, keep: bool) -> None:
        surplus = [connection]
        with self._guard:
            self._busy.discard(connection)
            if keep and not self._closed:
                surplus.clear()
                self._idle[connection] = target
                while len(self._idle) > self._most_idle:
                    oldest = next(iter(self._idle))
                    del self._idle[oldest]
                    surplus.append(oldest)
        for old in surplus:
            old.hang_up()


def _ended(answer: Answer) -> bool:
    """Whether the body is at its end, or so near that reading on is cheaper than a new connection."""
    left = _DRAIN
    try:
        while left > 0 and (piece := answer.read(left)):
            left -= len(piece)
    except Unfetched:
        return False
    return left > 0


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if importlib.util.find_spec("certifi") is not None:  # some Pythons find no certificates of the system
        import certifi

        context.load_verify_locations(certifi.where())
    return context


@contextmanager
def _translated(expires: float) -> Iterator[None]:
    """Whatever goes wrong on the wire as :class:`Unfetched`."""
    try:
        yield
    except Unfetched:
        raise
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError, ValueError) as error:
        if time.monotonic() >= expires:
            raise Unfetched("too-slow", "it took longer than feed.total_timeout") from None
        raise _wire_error(error) from None


def _wire_error(error: Exception) -> Unfetched:
    causes: list[BaseException] = [error]
    while (inner := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < 5:
        causes.append(inner)

    def is_a(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    text = str(causes[-1]) or type(error).__name__
    if is_a(ssl.SSLCertVerificationError):
        return Unfetched("tls", f"the certificate is not valid: {text}")
    if is_a(TimeoutError, urllib3.exceptions.TimeoutError):
        return Unfetched("timeout", "no byte came for feed.timeout seconds", retry=True)
    if is_a(ssl.SSLError):
        return Unfetched("tls", f"no secure connection: {text}", retry=True)
    if is_a(urllib3.exceptions.DecodeError):
        return Unfetched("bad-encoding", "the compressed answer cannot be read")
    if is_a(ConnectionResetError, BrokenPipeError, ConnectionAbortedError, http.client.IncompleteRead):
        return Unfetched("reset", "the connection ended before the answer did", retry=True)
    if is_a(OSError) and not is_a(http.client.HTTPException):
        return Unfetched("unreachable", f"no connection: {text}", retry=True)
    return Unfetched("bad-response", f"the answer is no HTTP: {text[:200]}", retry=True)
