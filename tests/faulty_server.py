"""A local web server with the faults of real ones. Each path has a script: a function of the
request, a step per visit.

``seen`` is every request in order; ``most_at_once`` how many were under way together; ``sent`` the
body bytes by path.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

Step = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def do_GET(self) -> None:
        world: FaultyServer = self.server.world
        with world.guard:
            world.seen.append((self.path, dict(self.headers)))
            world.connections.add(self.client_address)
            steps = world.scripts.get(self.path)
            visit = sum(path == self.path for path, _ in world.seen)
            world.at_once += 1
            world.most_at_once = max(world.most_at_once, world.at_once)
        try:
            step = steps[min(visit, len(steps)) - 1] if steps else world.otherwise
            with contextlib.suppress(OSError):
                step(self)
        finally:
            with world.guard:
                world.at_once -= 1

    def answer(self, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.push(body)

    def push(self, body: bytes) -> None:
        self.wfile.write(body)
        with self.server.world.guard:
            self.server.world.sent[self.path] += len(body)

    def log_message(self, *_: object) -> None:
        pass


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        pass


class FaultyServer:
    """``scripts`` maps a path to its steps; the last is repeated.

    What has no script is 404, also robots.txt.
    """

    def __init__(
        self, scripts: Mapping[str, Step | list[Step]] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.scripts: dict[str, list[Step]] = {}
        self.otherwise: Step = status(404)
        for path, steps in (scripts or {}).items():
            self.at(path, *(steps if isinstance(steps, list) else [steps]))
        self.guard = threading.Lock()
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.connections: set[object] = set()
        self.sent: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self._server = _Quiet(("127.0.0.1", 0), Request)
        self._server.world = self  # type: ignore[attr-defined]
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.scheme = "https" if tls else "http"
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def at(self, path: str, *steps: Step) -> None:
        self.scripts[path] = list(steps)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def visits(self, path: str) -> int:
        return sum(seen == path for seen, _ in self.seen)

    def __enter__(self) -> FaultyServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def status(code: int, **headers: str) -> Step:
    return lambda request: request.answer(code, b"no", {name.replace("_", "-"): text for name, text in headers.items()})


def body(data: bytes, **headers: str) -> Step:
    return lambda request: request.answer(200, data, {name.replace("_", "-"): text for name, text in headers.items()})


def redirect(location: str, code: int = 302) -> Step:
    raw = location.encode().decode("latin-1")  # real servers send UTF-8, which is no header
    return lambda request: request.answer(code, b"", {"Location": raw})


def after(seconds: float, step: Step) -> Step:
    def run(request: Request) -> None:
        time.sleep(seconds)
        step(request)

    return run


def drip(data: bytes, every: float) -> Step:
    """One byte at a time, never so slow that a pause by itself is a fault."""

    def run(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        for byte in data:
            request.push(bytes([byte]))
            time.sleep(every)

    return run


def drip_headers(every: float) -> Step:
    def run(request: Request) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(10_000):
            request.push(b"a")
            time.sleep(every)

    return run


def reset(data: bytes, length: int) -> Step:
    """Announce ``length`` bytes, send some, and reset the connection."""

    def run(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(length))
        request.end_headers()
        request.push(data)
        request.wfile.flush()
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.close_connection = True
        request.connection.close()

    return run


def cut(data: bytes, length: int) -> Step:
    """Announce ``length`` bytes, send some, and hang up politely."""

    def run(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(length))
        request.end_headers()
        request.push(data)
        request.close_connection = True

    return run


def endless(head: bytes, total: int, *, announced: bool) -> Step:
    """A body of ``total`` bytes behind a photo's head, with its length or in chunks."""

    def run(request: Request) -> None:
        request.send_response(200)
        request.send_header(*(("Content-Length", str(total)) if announced else ("Transfer-Encoding", "chunked")))
        request.end_headers()
        block = head + bytes((1 << 16) - len(head))
        for _ in range(total >> 16):
            if not announced:
                request.wfile.write(b"%x\r\n" % len(block))
            request.push(block)
            if not announced:
                request.wfile.write(b"\r\n")
            block = bytes(1 << 16)

    return run


def gzip_bomb(head: bytes, total: int) -> Step:
    packed = gzip.compress(head + bytes(total), 9)
    return body(packed, Content_Encoding="gzip")


def cached(data: bytes, etag: str) -> Step:
    """A photo with an ETag: 304 for who has it."""

    def run(request: Request) -> None:
        if request.headers.get("If-None-Match") == etag:
            request.send_response(304)
            request.end_headers()
        else:
            request.answer(200, data, {"ETag": etag})

    return run


def folder(root: Path) -> Step:
    return lambda request: request.answer(200, (root / request.path.lstrip("/")).read_bytes())
