"""One HTTP(S) request to an untrusted server that cannot lead us to a forbidden address.

Connections go to an address that :class:`fashionrec.dataset.feed.addresses.AddressPolicy` has
checked; TLS still verifies the certificate against the host name. Redirects are not followed here:
the caller sends a new request, which is checked again. Proxies from the environment are ignored,
because a proxy resolves names itself and would bypass these checks.

This module needs urllib3 and is imported by name at call time
(:func:`fashionrec.common.extras.need`).
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

from fashionrec.dataset.feed.addresses import AbortableConnection, AddressPolicy, FetchError, Target

CHUNK = 1 << 16
_DRAIN = 1 << 14  # bytes of a redirect's or an error's body that are read to keep the connection open


class _Checked(AbortableConnection):
    """The part of a connection that connects only to checked addresses."""

    door: AddressPolicy
    expires: float

    def _new_conn(self: Any) -> socket.socket:
        failure: OSError | None = None
        for address in self.door.addresses(self.host, self.port):
            left = self.expires - time.monotonic()
            if left <= 0:
                break
            try:
                connected = socket.create_connection((address, self.port), min(self.timeout, left))
            except OSError as error:
                failure = error
                continue
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.keep_line(connected)
            return connected
        raise failure or TimeoutError("the time-out for one photo has passed")

    def hang_up(self: Any) -> None:
        self.close()
        self.drop_line()


class _Http(_Checked, HTTPConnection):
    pass


class _Https(_Checked, HTTPSConnection):
    pass


@dataclass(frozen=True)
class Answer:
    """A response: status, headers, and a body that is read in pieces."""

    status: int
    headers: Mapping[str, str]
    _read: Callable[[int], bytes]

    def read(self, size: int = CHUNK) -> bytes:
        """Return at most ``size`` bytes, decompressed; empty at the end.

        Raises :class:`FetchError`.
        """
        return self._read(size)


class Client:
    """An HTTP client that keeps connections open between requests. Thread-safe.

    ``timeout`` is in seconds without a byte. At most ``idle`` unused connections stay open.
    """

    def __init__(self, door: AddressPolicy, *, user_agent: str, timeout: float, idle: int = 32) -> None:
        self._door, self._timeout, self._max_idle = door, timeout, idle
        self._headers = {
            "User-Agent": user_agent,
            "Accept": "image/jpeg, image/png, image/webp, image/*;q=0.5, */*;q=0.1",
            "Accept-Encoding": "identity",
        }
        self._tls = door.tls
        self._idle: dict[_Http | _Https, Target] = {}
        self._busy: set[_Http | _Https] = set()
        self._closed = False
        self._lock = threading.Lock()

    @contextmanager
    def get(self, target: Target, headers: Mapping[str, str], seconds: float) -> Iterator[Answer]:
        """Request a URL and yield the response; abort the connection after ``seconds`` in total.

        Raises :class:`FetchError`: ``refused-address``, ``dns``, ``unreachable``, ``timeout`` (no
        byte), ``too-slow`` (not within ``seconds``), ``reset``, ``tls``, ``bad-response``,
        ``bad-encoding``.
        """
        expires = time.monotonic() + seconds
        connection, reused = self._take(target)
        timer: threading.Timer | None = None
        try:
            while True:
                timer = threading.Timer(max(0.0, expires - time.monotonic()), connection.cut)
                timer.daemon = True
                timer.start()
                connection.expires = expires
                try:
                    with _map_wire_errors(expires):
                        connection.request(
                            "GET", target.path, headers={**self._headers, **headers}, preload_content=False
                        )
                        response = connection.getresponse()
                    break
                except FetchError as error:
                    if not reused or error.reason != "reset":
                        raise
                    timer.cancel()  # the server had closed an idle connection: no fault of its own, and no attempt
                    self._give_back(connection, target, keep=False)
                    connection, reused = self._connect(target), False

            def read(size: int) -> bytes:
                with _map_wire_errors(expires):
                    piece: bytes = response.read1(size)
                    # an aborted connection looks like the end of a body of unknown length
                    if not piece and time.monotonic() >= expires:
                        raise TimeoutError
                    return piece

            answer = Answer(response.status, response.headers, read)
            yield answer
            keep = _drain(answer) and not connection.is_closed
            timer.cancel()
            self._give_back(connection, target, keep=keep)
        except BaseException:
            if timer is not None:
                timer.cancel()
            self._give_back(connection, target, keep=False)
            raise

    def close(self) -> None:
        """Abort every connection; pending requests fail."""
        with self._lock:
            self._closed = True
            idle, self._idle = list(self._idle), {}
            for connection in self._busy:
                connection.cut()
        for connection in idle:
            connection.hang_up()

    def _take(self, target: Target) -> tuple[_Http | _Https, bool]:
        with self._lock:
            for connection, idle_target in reversed(self._idle.items()):
                if idle_target.origin == target.origin:
                    del self._idle[connection]
                    self._busy.add(connection)
                    break
            else:
                connection = None
        if connection is not None:
            if connection.is_connected:
                return connection, True
            self._give_back(connection, target, keep=False)
        return self._connect(target), False

    def _connect(self, target: Target) -> _Http | _Https:
        connection: _Http | _Https
        if target.scheme == "https":
            with self._lock:
                if self._tls is None:
                    self._tls = _default_tls()
            connection = _Https(target.host, target.port, timeout=self._timeout, ssl_context=self._tls)
        else:
            connection = _Http(target.host, target.port, timeout=self._timeout)
        connection.door = self._door
        with self._lock:
            if self._closed:
                raise FetchError("stopped", "the download was stopped")
            self._busy.add(connection)
        return connection

    def _give_back(self, connection: _Http | _Https, target: Target, *, keep: bool) -> None:
        surplus = [connection]
        with self._lock:
            self._busy.discard(connection)
            if keep and not self._closed:
                surplus.clear()
                self._idle[connection] = target
                while len(self._idle) > self._max_idle:
                    oldest = next(iter(self._idle))
                    del self._idle[oldest]
                    surplus.append(oldest)
        for old in surplus:
            old.hang_up()


def _drain(answer: Answer) -> bool:
    """Read a little more of the body; return whether it ended, so the connection is reusable."""
    left = _DRAIN
    try:
        while left > 0 and (piece := answer.read(left)):
            left -= len(piece)
    except FetchError:
        return False
    return left > 0


def _default_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if importlib.util.find_spec("certifi") is not None:  # some Python builds find no system certificates
        import certifi

        context.load_verify_locations(certifi.where())
    return context


@contextmanager
def _map_wire_errors(expires: float) -> Iterator[None]:
    """Convert network errors to :class:`FetchError`."""
    try:
        yield
    except FetchError:
        raise
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError, ValueError) as error:
        if time.monotonic() >= expires:
            raise FetchError("too-slow", "it took longer than feed.total_timeout") from None
        raise _wire_error(error) from None


def _wire_error(error: Exception) -> FetchError:
    causes: list[BaseException] = [error]
    while (inner := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < 5:
        causes.append(inner)

    def is_a(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    text = str(causes[-1]) or type(error).__name__
    if is_a(ssl.SSLCertVerificationError):
        return FetchError("tls", f"the certificate is invalid: {text}")
    if is_a(TimeoutError, urllib3.exceptions.TimeoutError):
        return FetchError("timeout", "no data arrived for feed.timeout seconds", retry=True)
    if is_a(ssl.SSLError):
        return FetchError("tls", f"no secure connection: {text}", retry=True)
    if is_a(urllib3.exceptions.DecodeError):
        return FetchError("bad-encoding", "the compressed response is damaged")
    if is_a(ConnectionResetError, BrokenPipeError, ConnectionAbortedError, http.client.IncompleteRead):
        return FetchError("reset", "the connection was closed before the end of the response", retry=True)
    if is_a(OSError) and not is_a(http.client.HTTPException):
        return FetchError("unreachable", f"no connection: {text}", retry=True)
    return FetchError("bad-response", f"the response is not valid HTTP: {text[:200]}", retry=True)
