"""Limits for a requests session: a deadline, a decompressed size, redirects within one origin.

The time-outs of requests apply to a single read, so a server that sends a byte now and then never
times out. Here another thread aborts the connection after a request's deadline.

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

from fashionrec.dataset.feed.addresses import AbortableConnection
from fashionrec.errors import FashionrecError

_MIN_SPEED = 10_000  # bytes per second for sending or receiving a body
_PORTS = {"http": 80, "https": 443}
_current = threading.local()  # the connection of this thread's request


class _Timed(AbortableConnection):
    """A connection that is aborted after the deadline of its request."""

    until = 0.0
    timer: threading.Timer | None = None

    def _new_conn(self) -> socket.socket:
        connected: socket.socket = super()._new_conn()  # type: ignore[misc]
        self.keep_line(connected)
        return connected

    def request(self, *args: Any, **kwargs: Any) -> Any:
        self.until = time.monotonic() + getattr(_current, "seconds", 60.0)
        _current.connection = self
        self._watch()
        return super().request(*args, **kwargs)  # type: ignore[misc]

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
    """An adapter that limits a request to ``seconds`` and its response to ``most_bytes``."""

    def __init__(self, seconds: float, most_bytes: int, *, extend: bool = False, **kwargs: Any) -> None:
        """``extend``: a response may take as long as it makes progress."""
        self._seconds, self._max_bytes, self._extend = seconds, most_bytes, extend
        super().__init__(**kwargs)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)  # type: ignore[no-untyped-call]
        _use_timed_connections(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        _use_timed_connections(manager)
        return manager

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        length = request.headers.get("Content-Length") or "0"
        _current.seconds = self._seconds + (int(length) if length.isdigit() else 0) / _MIN_SPEED
        response = super().send(request, *args, **kwargs)
        response.raw.stream = self._limited(response, response.raw.stream, getattr(_current, "connection", None))
        return response

    def _limited(
        self, response: Response, unlimited: Callable[..., Iterator[bytes]], connection: _Timed | None
    ) -> Callable[..., Iterator[bytes]]:
        def stream(*args: Any, **kwargs: Any) -> Iterator[bytes]:
            size = 0
            for piece in unlimited(*args, **kwargs):
                size += len(piece)
                if size > self._max_bytes:
                    response.close()
                    raise FashionrecError(
                        f"{urlsplit(response.url).netloc} sent more than {self._max_bytes:,} bytes",
                        hint="check the address in the settings",
                    )
                if self._extend and connection is not None:
                    connection.until = max(connection.until, time.monotonic() + self._seconds)
                yield piece

        return stream


class SameOrigin:
    """A session mixin that follows redirects within the requested origin and refuses all others."""

    def get_redirect_target(self, response: Response) -> str | None:
        target: str | None = super().get_redirect_target(response)  # type: ignore[misc]
        if target is not None:
            source, destination = response.url, urljoin(response.url, target)
            if _origin(source) != _origin(destination):
                raise FashionrecError(
                    f"{urlsplit(source).netloc} redirects to {urlsplit(destination).hostname}; the redirect was refused,"
                    " because it would send the key and the photos to another server",
                    hint="set roboflow.api_url to the new address if you trust it",
                )
        return target


def _use_timed_connections(manager: Any) -> None:
    if not type(manager).__name__.startswith("SOCKS"):  # SOCKS managers need their own connection classes
        manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
