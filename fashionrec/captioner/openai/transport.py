"""The HTTP connection to a captioning server, with limits that a server cannot lift.

::

    redirects   followed within the server's own origin only: neither the key nor a photo goes to another one
    time        a deadline for each request as a whole, however slowly its bytes come
    size        a limit of an answer's bytes, after decompression

The openai package takes any client of its transport (httpx2, formerly httpx), so these are hooks of one.
"""

from __future__ import annotations

import importlib
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fashionrec.errors import FashionrecError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of an answer, after decompression. A caption's is about 2 KB; a page of a list of files about 40 KB.
MOST_BYTES = 2 << 20
_PIECE = 1 << 18
_GZIP_OR_ZLIB = 47  # zlib's window bits: the format is read from the header
_ENCODINGS = ("gzip", "x-gzip", "deflate")
_PORTS = {"http": 80, "https": 443}


class Rejected(FashionrecError):
    """An answer that is not taken. ``code`` is a short stable word: redirect, too-large, encoding."""

    def __init__(self, message: str, code: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class Guard:
    """The limits of one server's connections, shared by threads: each has its own request, and its own deadline."""

    def __init__(self) -> None:
        self._request = threading.local()

    @contextmanager
    def limit(self, seconds: float, most_bytes: int = MOST_BYTES) -> Iterator[None]:
        """Requests of this thread end within ``seconds``, and give at most ``most_bytes``."""
        self._request.until, self._request.most = time.monotonic() + seconds, most_bytes
        try:
            yield
        finally:
            self._request.until, self._request.most = None, MOST_BYTES

    def extend(self, seconds: float) -> None:
        """The request under way has this much time from now on, if that is more than it has left."""
        if self._request.until is not None:
            self._request.until = max(self._request.until, time.monotonic() + seconds)

    @property
    def most_bytes(self) -> int:
        return int(getattr(self._request, "most", MOST_BYTES))

    def left(self, timeout: float | None) -> float | None:
        """What is left of a time limit, in seconds: at most ``timeout``; 0 or less where the deadline has passed."""
        until = getattr(self._request, "until", None)
        if until is None:
            return timeout
        left = float(until - time.monotonic())
        return left if timeout is None else min(timeout, left)


def open_client(base_url: str, timeout: Any, guard: Guard) -> Any:
    """A client of the openai package's transport that keeps the limits of ``guard``."""
    import openai

    client = openai.DefaultHttpxClient(base_url=base_url, timeout=timeout, headers={"Accept-Encoding": "gzip"})
    home = _origin(client.base_url)

    def check_origin(request: Any) -> None:
        if _origin(request.url) != home:
            raise Rejected(
                f"{home[1]} redirects to {request.url.host}, which is not followed: the key and the photos stay here",
                "redirect",
                hint="set captioner.base_url to the address that is meant, if you trust it",
            )

    def limit_answer(response: Any) -> None:
        plain = response.stream
        base = next(base for base in type(plain).__mro__ if base.__name__ == "SyncByteStream")
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            del response.headers["Content-Encoding"]
        response.stream = _limited_stream(base)(plain, encoding, guard)

    client.event_hooks = {"request": [check_origin], "response": [limit_answer]}
    _set_deadlines(client, guard)
    return client


def _origin(url: Any) -> tuple[str, str, int | None]:
    return url.scheme, url.host.lower(), url.port or _PORTS.get(url.scheme)


@lru_cache
def _limited_stream(base: type) -> Any:
    """The class of a response's body that is decompressed and counted piece by piece; a stream of the transport's kind."""

    class Limited(base):  # type: ignore[misc,valid-type]
        def __init__(self, plain: Any, encoding: str, guard: Guard) -> None:
            self._plain, self._encoding, self._guard = plain, encoding, guard

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for piece in _decoded(self._plain, self._encoding):
                size += len(piece)
                if size > self._guard.most_bytes:
                    raise Rejected(f"the answer is larger than {self._guard.most_bytes:,} bytes", "too-large")
                yield piece

        def close(self) -> None:
            self._plain.close()

    return Limited


def _decoded(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    if encoding in ("", "identity"):
        yield from pieces
        return
    if encoding not in _ENCODINGS:
        raise Rejected(f"the answer is compressed in a way that was not asked for ({ascii(encoding)[:40]})", "encoding")
    decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
    for piece in pieces:
        while piece:
            try:
                yield decoder.decompress(piece, _PIECE)
            except zlib.error:
                raise Rejected("the compressed answer cannot be read", "encoding") from None
            piece = decoder.unconsumed_tail
    if not decoder.eof:
        raise Rejected("the compressed answer ends too early", "encoding")


def _set_deadlines(client: Any, guard: Guard) -> None:
    """Let every read and write of the client's connections heed the deadline.

    Time limits of the transport are for one read each, so a server that sends a byte now and then is never late. The
    network backend is a documented parameter of the connection pool that its clients do not pass on.
    """
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            core = importlib.import_module(type(pool).__module__.split(".")[0])
            pool._network_backend = _Backend(pool._network_backend, guard, core)


class _Backend:
    """A pool's way to connect. It asks for no more where it has no socket files and no retries of its own."""

    def __init__(self, inner: Any, guard: Guard, core: Any) -> None:
        self._inner, self._guard, self._core = inner, guard, core

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **named: Any) -> _Stream:
        seconds = _remaining(self._guard, timeout, self._core.ConnectTimeout)
        return _Stream(self._inner.connect_tcp(host, port, timeout=seconds, **named), self._guard, self._core)


class _Stream:
    def __init__(self, inner: Any, guard: Guard, core: Any) -> None:
        self._inner, self._guard, self._core = inner, guard, core

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        seconds = _remaining(self._guard, timeout, self._core.ReadTimeout)
        return bytes(self._inner.read(max_bytes, timeout=seconds))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout=_remaining(self._guard, timeout, self._core.WriteTimeout))

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:
        seconds = _remaining(self._guard, timeout, self._core.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, seconds), self._guard, self._core)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _remaining(guard: Guard, timeout: float | None, late: Callable[[str], Exception]) -> float | None:
    left = guard.left(timeout)
    if left is not None and left <= 0:
        raise late("the time for one request is over")
    return left
