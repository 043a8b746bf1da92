"""The HTTP transport of the captioning client, with limits that the server cannot lift.

::

    redirects   followed within the server's origin only: neither the key nor a photo leaves it
    time        a deadline for each request as a whole, however slowly its bytes arrive
    size        a limit of the answer's bytes, after decompression

The openai package accepts any client of its transport (httpx2, formerly httpx), so these are hooks
of one.
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

#: Most bytes of an answer, after decompression. A caption has about 2 KB, a page of files 40 KB.
MOST_BYTES = 2 << 20
_PIECE = 1 << 18
_GZIP_OR_ZLIB = 47  # zlib window bits: detect the format by its header
_ENCODINGS = ("gzip", "x-gzip", "deflate")
_PORTS = {"http": 80, "https": 443}


class Rejected(FashionrecError):
    """A rejected answer. ``code`` is a short stable word: redirect, too-large, encoding."""

    def __init__(self, message: str, code: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class TransportLimits:
    """The limits of one server's connections; each thread has its own request and deadline."""

    def __init__(self) -> None:
        self._request = threading.local()

    @contextmanager
    def limit(self, seconds: float, most_bytes: int = MOST_BYTES) -> Iterator[None]:
        """Limit this thread's requests to ``seconds`` and ``most_bytes``."""
        self._request.deadline, self._request.max_bytes = time.monotonic() + seconds, most_bytes
        try:
            yield
        finally:
            self._request.deadline, self._request.max_bytes = None, MOST_BYTES

    def extend(self, seconds: float) -> None:
        """Extend the deadline of the current request to ``seconds`` from now."""
        if self._request.deadline is not None:
            self._request.deadline = max(self._request.deadline, time.monotonic() + seconds)

    @property
    def most_bytes(self) -> int:
        return int(getattr(self._request, "max_bytes", MOST_BYTES))

    def left(self, timeout: float | None) -> float | None:
        """Return the remaining seconds, at most ``timeout``; 0 or less after the deadline."""
        deadline = getattr(self._request, "deadline", None)
        if deadline is None:
            return timeout
        remaining = float(deadline - time.monotonic())
        return remaining if timeout is None else min(timeout, remaining)


def open_client(base_url: str, timeout: Any, guard: TransportLimits) -> Any:
    """Create a client of the openai package's transport that enforces the limits of ``guard``."""
    import openai

    client = openai.DefaultHttpxClient(base_url=base_url, timeout=timeout, headers={"Accept-Encoding": "gzip"})
    own_origin = _origin(client.base_url)

    def check_origin(request: Any) -> None:
        if _origin(request.url) != own_origin:
            raise Rejected(
                f"{own_origin[1]} redirects to {request.url.host}: not followed, to protect the key and the photos",
                "redirect",
                hint="if you trust that server, set captioner.base_url to its address",
            )

    def limit_answer(response: Any) -> None:
        body = response.stream
        stream_class = next(cls for cls in type(body).__mro__ if cls.__name__ == "SyncByteStream")
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            del response.headers["Content-Encoding"]
        response.stream = _limited_stream(stream_class)(body, encoding, guard)

    client.event_hooks = {"request": [check_origin], "response": [limit_answer]}
    _set_deadlines(client, guard)
    return client


def _origin(url: Any) -> tuple[str, str, int | None]:
    return url.scheme, url.host.lower(), url.port or _PORTS.get(url.scheme)


@lru_cache
def _limited_stream(base: type) -> Any:
    """Return the class of a response body that is decompressed and counted piece by piece.

    It is a subclass of the transport's stream class.
    """

    class Limited(base):  # type: ignore[misc,valid-type]
        def __init__(self, plain: Any, encoding: str, guard: TransportLimits) -> None:
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
        raise Rejected(f"the answer has an unsupported compression ({ascii(encoding)[:40]})", "encoding")
    decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
    for piece in pieces:
        while piece:
            try:
                yield decoder.decompress(piece, _PIECE)
            except zlib.error:
                raise Rejected("the compressed answer is invalid", "encoding") from None
            piece = decoder.unconsumed_tail
    if not decoder.eof:
        raise Rejected("the compressed answer is truncated", "encoding")


def _set_deadlines(client: Any, guard: TransportLimits) -> None:
    """Make every read and write of the client's connections respect the deadline.

    Time-outs of the transport apply to single reads, so a server that sends a byte now and then is
    never late. The network backend is a documented parameter of the connection pool that its
    clients do not pass on.
    """
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            core = importlib.import_module(type(pool).__module__.split(".")[0])
            pool._network_backend = _DeadlineBackend(pool._network_backend, guard, core)


class _DeadlineBackend:
    """A network backend of a connection pool, as far as the pool needs it here.

    It has no Unix sockets and no ``sleep``, because the pool does not retry.
    """

    def __init__(self, inner: Any, guard: TransportLimits, core: Any) -> None:
        self._inner, self._guard, self._core = inner, guard, core

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **named: Any) -> _DeadlineStream:
        seconds = _remaining(self._guard, timeout, self._core.ConnectTimeout)
        return _DeadlineStream(self._inner.connect_tcp(host, port, timeout=seconds, **named), self._guard, self._core)


class _DeadlineStream:
    def __init__(self, inner: Any, guard: TransportLimits, core: Any) -> None:
        self._inner, self._guard, self._core = inner, guard, core

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        seconds = _remaining(self._guard, timeout, self._core.ReadTimeout)
        return bytes(self._inner.read(max_bytes, timeout=seconds))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout=_remaining(self._guard, timeout, self._core.WriteTimeout))

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> _DeadlineStream:
        seconds = _remaining(self._guard, timeout, self._core.ConnectTimeout)
        return _DeadlineStream(self._inner.start_tls(ssl_context, server_hostname, seconds), self._guard, self._core)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _remaining(guard: TransportLimits, timeout: float | None, error_class: Callable[[str], Exception]) -> float | None:
    remaining = guard.left(timeout)
    if remaining is not None and remaining <= 0:
        raise error_class("the time limit of the request has passed")
    return remaining
