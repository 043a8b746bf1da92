"""A local server that speaks the wire format of OpenAI's chat completions, built from the openai
package's own types.

It does what a script says, one step per request and the last step from then on; with no script
every answer succeeds.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from openai.types import Model
from openai.types.chat import ChatCompletion


@dataclass(frozen=True)
class Reply:
    """One scripted answer. ``body`` is JSON, text as it is, or made from the request;

    ``hang`` waits before answering.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0
    reset: bool = False
    half: bool = False


@dataclass
class Recorded:
    """A request as it came; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    """A request's body, whole or in chunks."""
    if "chunked" not in (handler.headers.get("Transfer-Encoding") or ""):
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    parts = []
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


def completion(
    content: str | None,
    *,
    finish: str = "stop",
    refusal: str | None = None,
    model: str = "gpt-4o-2024-08-06",
    tokens: tuple[int, int] = (400, 90),
) -> str:
    """The JSON of a chat completion, checked by the openai package's own model of it."""
    made = ChatCompletion.model_validate(
        {
            "id": "chatcmpl-local",
            "object": "chat.completion",
            "created": 1764547200,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish,
                    "logprobs": None,
                    "message": {"role": "assistant", "content": content, "refusal": refusal},
                }
            ],
            "usage": {
                "prompt_tokens": tokens[0],
                "completion_tokens": tokens[1],
                "total_tokens": sum(tokens),
            },
        }
    )
    return made.model_dump_json()


def fitting(body: dict[str, Any]) -> dict[str, Any]:
    """A description that fits the schema which a request asks for: the first allowed value of each
    field.
    """
    schema = body["response_format"]["json_schema"]["schema"]
    answer: dict[str, Any] = {}
    for key, spec in schema["properties"].items():
        answer[key] = spec["enum"][0] if "enum" in spec else 0.9
    return answer | {"caption_en": "A black striped garment", "caption_ko": "블랙 스트라이프 의류"}


def success(**changes: Any) -> Reply:
    """A description that fits; ``changes`` replace values of it."""
    return Reply(body=lambda body: completion(json.dumps(fitting(body) | changes, ensure_ascii=False)))


def error(status: int, message: str, *, code: str | None = None, param: str | None = None, **headers: str) -> Reply:
    """An error as OpenAI words it. Header names are written with underscores."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return Reply(status, json.dumps(body), {name.replace("_", "-"): value for name, value in headers.items()})


class OpenAIServer:
    """A server on 127.0.0.1, used as a context manager.

    ``script`` is a list of replies, or decides by the request.
    """

    def __init__(
        self,
        script: list[Reply] | Callable[[Recorded, int], Reply] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.scheme = "http" if tls is None else "https"
        self.requests: list[Recorded] = []
        self.others: list[str] = []
        self.shutdown_date: str | None = None
        self.script = script if script is not None else []
        self.most_at_once = 0
        self.connections = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                server.connected(1)

            def finish(self) -> None:
                server.connected(-1)
                super().finish()

            def do_POST(self) -> None:
                raw = _body(self)
                if not self.path.endswith("/chat/completions"):
                    server.other(self, "POST", raw)
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Recorded(self.path, headers, json.loads(raw), time.monotonic())
                reply = server.enter(request)
                try:
                    server.send(self, reply, request)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    server.leave()

            def do_GET(self) -> None:
                server.other(self, "GET", b"")

            def do_DELETE(self) -> None:
                server.other(self, "DELETE", b"")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._http = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self._http.server_address[1]}/v1"

    def enter(self, request: Recorded) -> Reply:
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        if callable(self.script):
            return self.script(request, number)
        return self.script[min(number, len(self.script) - 1)] if self.script else success()

    def other(self, handler: BaseHTTPRequestHandler, method: str, raw: bytes) -> None:
        """Any request but one for a completion: a model is asked after.

        ``shutdown_date`` is what the server tells of it.
        """
        with self._lock:
            self.others.append(f"{method} {handler.path}")
        if method != "GET" or "/models/" not in handler.path:
            self.write(handler, 404, json.dumps({"error": {"message": "no such thing"}}), {})
            return
        name = handler.path.rsplit("/", 1)[-1]
        fields = {"id": name, "object": "model", "created": 1, "owned_by": "system"}
        model = Model.model_validate(fields | {"shutdown_date": self.shutdown_date})
        self.write(handler, 200, model.model_dump_json(), {})

    def connected(self, change: int) -> None:
        with self._lock:
            self.connections += change

    def leave(self) -> None:
        with self._lock:
            self._at_once -= 1

    def send(self, handler: BaseHTTPRequestHandler, reply: Reply, request: Recorded) -> None:
        if reply.hang:
            self.closing.wait(reply.hang)
        body = reply.body(request.body) if callable(reply.body) else reply.body
        if reply.reset or reply.half:
            if reply.half:
                handler.wfile.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"
                )
                handler.wfile.flush()
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.shutdown(socket.SHUT_RDWR) if reply.half else handler.connection.close()
            handler.close_connection = True
            return
        self.write(handler, reply.status, body or "", reply.headers)

    def write(self, handler: BaseHTTPRequestHandler, status: int, body: str | bytes, headers: dict[str, str]) -> None:
        data = body.encode() if isinstance(body, str) else body
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
