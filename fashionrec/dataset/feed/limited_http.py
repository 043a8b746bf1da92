"""A session of requests with limits that a server cannot lift: a deadline, a size after decompression, no other origin.

The time limits of requests are for one read each, so a server that sends a byte now and then is never late: here the
connection is cut from another thread once a request has had its time.

This module needs requests and is imported by name at call time.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from fashionrec.dataset.feed.addresses import Cuttable
from fashionrec.errors import FashionrecError

_LEAST_SPEED = 10_000  # bytes per second that a body must be sent or received with
_PORTS = {"http": 80, "https": 443}
_current = threading.local()  # the connection that this thread's request uses


class _Timed(Cuttable):
    """A connection that is cut when the time for a request is over."""

    until = 0.0
    timer: threading.Timer | None = None

    def _new_conn(self) -> socket.socket:
        made: socket.socket = super()._new_conn()  # type: ignore[misc]
        self.keep_line(made)
        return made

    def request(self, *given: Any, **named: Any) -> Any:
        self.until = time.monotonic() + getattr(_current, "seconds", 60.0)
        _current.connection = self
        self._watch()
        return super().request(*given, **named)  # type: ignore[misc]

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        super().close()  # type: ignore[misc]
        self.drop_line()

    def _watch(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        left = self.until - time.monotonic()
        if left > 0:
            self.timer = threading.Timer(left, self._watch)
            self.timer.daemon = True
            self.timer.start()
        else:
            self.cut()


class _Http(_Timed, HTTPConnection):
    pass


class _Https(_Timed, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class LimitedAdapter(HTTPAdapter):
    """Ends each request within ``seconds``, and more for a body that keeps coming; ``most_bytes`` limits an answer."""

    def __init__(self, seconds: float, most_bytes: int, *, extend: bool = False, **named: Any) -> None:
        """``extend``: an answer may take as long as it makes progress."""
        self._seconds, self._most, self._extend = seconds, most_bytes, extend
        super().__init__(**named)

    def init_poolmanager(self, *given: Any, **named: Any) -> None:
        super().init_poolmanager(*given, **named)  # type: ignore[no-untyped-call]
        _make_cuttable(self.poolmanager)

    def proxy_manager_for(self, *given: Any, **named: Any) -> Any:
        manager = super().proxy_manager_for(*given, **named)
        _make_cuttable(manager)
        return manager

    def send(self, request: PreparedRequest, *given: Any, **named: Any) -> Response:
        length = request.headers.get("Content-Length") or "0"
        _current.seconds = self._seconds + (int(length) if length.isdigit() else 0) / _LEAST_SPEED
        response = super().send(request, *given, **named)
        response.raw.stream = self._limited(response, response.raw.stream, getattr(_current, "connection", None))
        return response

    def _limited(
        self, response: Response, plain: Callable[..., Iterator[bytes]], connection: _Timed | None
    ) -> Callable[..., Iterator[bytes]]:
        def stream(*given: Any, **named: Any) -> Iterator[bytes]:
            size = 0
            for piece in plain(*given, **named):
                size += len(piece)
                if size > self._most:
                    response.close()
                    raise FashionrecError(
                        f"{urlsplit(response.url).netloc} answers with more than {self._most:,} bytes",
                        hint="check the address in the settings",
                    )
                if self._extend and connection is not None:
                    connection.until = max(connection.until, time.monotonic() + self._seconds)
                yield piece

        return stream


class SameOrigin:
    """Mixed into a session: a redirect is followed within the origin that was asked, and refused to any other."""

    def get_redirect_target(self, response: Response) -> str | None:
        target: str | None = super().get_redirect_target(response)  # type: ignore[misc]
        if target is not None:
            here, there = response.url, urljoin(response.url, target)
            if _origin(here) != _origin(there):
                raise FashionrecError(
                    f"{urlsplit(here).netloc} redirects to {urlsplit(there).hostname}, which is not followed:"
                    " the key and the photos stay here",
                    hint="set roboflow.api_url to the address that is meant, if you trust it",
                )
        return target


def _make_cuttable(manager: Any) -> None:
    if not type(manager).__name__.startswith("SOCKS"):  # which has connections of its own
        manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
