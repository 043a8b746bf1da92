"""A server on 127.0.0.1 that answers each request by a function of its own socket, whatever HTTP
would have it do.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any


@dataclass
class Request:
    """The first line of a request, its body, and the socket for the answer."""

    line: str
    body: bytes
    socket: socket.socket = field(repr=False)
    server: HostileServer = field(repr=False)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def drip(self, data: bytes, pause: float) -> None:
        """Send a byte now and then."""
        for n in range(len(data)):
            self.send(data[n : n + 1])
            self.server.dripped += 1
            if self.server.closing.wait(pause):
                return


Act = Callable[[Request], None]


class HostileServer:
    """``with HostileServer(act) as server``; ``server.seen`` are the requests that came,
    ``server.dripped`` counts the bytes that were sent one at a time.
    """

    def __init__(self, act: Act) -> None:
        self.act = act
        self.seen: list[Request] = []
        self.dripped = 0
        self.closing = threading.Event()
        world = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while (line := self.rfile.readline().decode("latin-1").strip()) and not world.closing.is_set():
                    length = 0
                    while header := self.rfile.readline().strip():
                        name, _, value = header.partition(b":")
                        if name.lower() == b"content-length":
                            length = int(value)
                    request = Request(line, self.rfile.read(length), self.connection, world)
                    world.seen.append(request)
                    with contextlib.suppress(OSError):
                        world.act(request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._tcp = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._tcp.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._tcp.server_address[1]}"

    def __enter__(self) -> HostileServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._tcp.shutdown()
        self._tcp.server_close()


def answer(body: bytes, status: int = 200, **headers: str) -> bytes:
    """A whole answer; header names are written with underscores."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [
        f"{name.replace('_', '-')}: {value}" for name, value in {"Content_Type": "application/json", **headers}.items()
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@lru_cache
def bomb(megabytes: int, begin: bytes = b"") -> bytes:
    """A gzip stream that inflates to ``begin`` and so many megabytes of zeros; made without holding
    them.
    """
    packer = zlib.compressobj(9, wbits=31)
    packed = packer.compress(begin) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes))
    return packed + packer.flush()


def resident() -> int:
    """The memory that this process holds, in bytes, from now on also its peak; 0 where the system
    does not say.
    """
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as peak:
        peak.write("5")
    return most_resident()


def most_resident() -> int:
    """The most memory that this process has held since :func:`resident`, in bytes; 0 where the
    system does not say.
    """
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
