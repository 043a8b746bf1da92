"""A local server that answers as the roboflow package expects: key, workspace, project, version,
export, zip, upload.

It holds one project, ``team/garments``. Faults are lists of what happens to the next requests of a
kind, used up in order.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fashionrec.config import Config, load_config

KEY = "canaryKey7f3a9b"
OTHER_KEY = "canaryStored51"

README = """
garments - v3
==============================

This dataset was exported via roboflow.com on May 3, 2026 at 9:41 AM GMT

The dataset includes 3 images.
Garments are annotated in YOLOv8 format.

The following pre-processing was applied to each image:
* Auto-orientation of pixel data (with EXIF-orientation stripping)
* Resize to 640x640 (Stretch)
* Auto-contrast via adaptive equalization

The following augmentation was applied to create 3 versions of each source image:
* 50% probability of horizontal flip
* 50% probability of vertical flip
* Random rotation of between -10 and +10 degrees

"""
PREPROCESSING = {
    "auto-orient": {"enabled": True},
    "resize": {"enabled": True, "width": 640, "height": 640, "format": "Stretch to"},
    "contrast": {"enabled": True, "type": "Adaptive Equalization"},
}
AUGMENTATION = {
    "flip": {"enabled": True, "horizontal": True, "vertical": True},
    "rotate": {"enabled": True, "degrees": 10},
    "image": {"enabled": True, "versions": 3},
}


def settings_for(server: RoboflowServer, **values: Any) -> Config:
    """Settings that lead to the server; ``values`` are of the section roboflow."""
    given = {"api_url": server.url, "retries": 0, "timeout": 5.0, **values}
    return load_config(sets=[f"roboflow.{name}={value}" for name, value in given.items()], env={}).config


def make_zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


@dataclass
class Uploaded:
    """One photo as it came, and its annotation where one came."""

    name: str
    data: bytes
    split: str
    batch: str
    annotation: dict[str, Any] | None = None
    query: dict[str, str] = field(default_factory=dict)


class RoboflowServer:
    """``with RoboflowServer(zip) as server``; ``server.asked`` counts requests by kind."""

    def __init__(self, archive: bytes = b"", *, images: int = 3) -> None:
        self.archive = archive
        self.images = images
        self.preprocessing: dict[str, Any] = PREPROCESSING
        self.augmentation: dict[str, Any] = AUGMENTATION
        self.keys = {KEY, OTHER_KEY}
        self.used: set[str] = set()
        self.asked: Counter[str] = Counter()
        self.sent = 0  # bytes of the zip
        self.faults: dict[str, list[Any]] = {}
        self.uploads: dict[str, Uploaded] = {}
        self.echo = ""  # what a refusal repeats
        self.owner = "team"  # of the keys
        self.type = "object-detection"
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                server.handle(self, b"")

            def do_POST(self) -> None:
                server.handle(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._http = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> RoboflowServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def handle(self, web: BaseHTTPRequestHandler, body: bytes) -> None:
        address = urlsplit(web.path)
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        parts = [part for part in address.path.split("/") if part]
        kind = self._kind(web.command, parts)
        with self._lock:
            self.asked[kind] += 1
            waiting = self.faults.get(kind)
            fault = waiting.pop(0) if waiting else None
        if kind == "zip":
            assert "api_key" not in query, "the zip's address is signed: the key has no business there"
            return self._zip(web, fault)
        if fault == "drop":
            web.close_connection = True
            return None
        if fault is not None:
            return self._json(web, *fault)
        if query.get("api_key") not in self.keys:
            said = f"This API key does not exist (or has been revoked). {self.echo}"
            return self._json(web, 401, {"error": {"message": said, "status": 401, "type": "OAuthException"}})
        self.used.add(query["api_key"])
        return self._json(web, *self.answer_to(kind, parts, query, web.headers.get("Content-Type", ""), body))

    def _kind(self, method: str, parts: list[str]) -> str:
        if parts[:1] == ["signed"]:
            return "zip"
        if parts[:1] == ["dataset"]:
            return parts[2]
        return "key" if method == "POST" else ("workspace", "project", "version", "export")[len(parts) - 1]

    def answer_to(
        self, kind: str, parts: list[str], query: dict[str, str], content_type: str, body: bytes
    ) -> tuple[int, dict[str, Any]]:
        if kind == "key":
            return 200, {"welcome": "Welcome to the Roboflow API.", "workspace": self.owner}
        if kind == "upload":
            return self._upload(query, content_type, body)
        if kind == "annotate":
            return self._annotate(parts[3], query, body)
        missing = next((a for a, b in zip(parts, ("team", "garments", "3", "yolov8"), strict=False) if a != b), None)
        if missing:
            error = {"message": f"Unsupported get request. {missing} does not exist", "type": "GraphMethodException"}
            return 404, {"error": error}
        if kind == "workspace":
            return 200, {"workspace": {"name": "Team", "url": "team", "members": 1, "projects": []}}
        if kind == "project":
            return 200, {"workspace": {"url": "team"}, "project": self._project(), "versions": [self._version()]}
        if kind == "version":
            return 200, {"version": {**self._version(), "generating": False, "progress": 1}}
        return 200, {"export": {"format": "yolov8", "link": f"{self.url}/signed/garments.zip?signature=secret-link"}}

    def _project(self) -> dict[str, Any]:
        return {
            "id": "team/garments", "name": "garments", "type": self.type, "annotation": "garments",
            "created": 1714700000.0, "updated": 1714700000.0, "public": False, "images": 3, "unannotated": 0,
            "classes": {"top": 2, "dress": 1}, "colors": {}, "splits": {"train": 2, "valid": 1},
        }  # fmt: skip

    def _version(self) -> dict[str, Any]:
        return {
            "id": "team/garments/3", "name": "v3", "created": 1714700000.0, "images": self.images,
            "splits": {"train": 2, "valid": 1, "test": 0}, "exports": [],
            "preprocessing": self.preprocessing, "augmentation": self.augmentation,
        }  # fmt: skip

    def _zip(self, web: BaseHTTPRequestHandler, fault: Any) -> None:
        """``("cut", n)`` closes the connection after n bytes; ``(status, text)`` answers so."""
        if isinstance(fault, tuple) and isinstance(fault[0], int):
            return self._write(web, fault[0], fault[1], "text/html")
        start = 0
        if (asked := web.headers.get("Range")) and web.headers.get("If-Range") == '"v3"':
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        data = self.archive[start:]
        web.send_response(206 if start else 200)
        if start:
            web.send_header("Content-Range", f"bytes {start}-{len(self.archive) - 1}/{len(self.archive)}")
        web.send_header("ETag", '"v3"')
        web.send_header("Content-Length", str(len(data)))
        web.end_headers()
        if fault is not None:
            data = data[: fault[1]]
            web.close_connection = True
        web.wfile.write(data)
        web.wfile.flush()
        self.sent += len(data)

    def _upload(self, query: dict[str, str], content_type: str, body: bytes) -> tuple[int, dict[str, Any]]:
        form = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
        fields = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}  # type: ignore[attr-defined]
        data = fields["file"].get_payload(decode=True)
        for image_id, known in self.uploads.items():
            if known.data == data:
                return 200, {"duplicate": True, "id": image_id}
        image_id = f"img{len(self.uploads)}"
        name, split = (fields[key].get_content().strip() for key in ("name", "split"))
        self.uploads[image_id] = Uploaded(name, data, split, query["batch"])
        return 200, {"success": True, "id": image_id}

    def _annotate(self, image_id: str, query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        known = self.uploads[image_id]
        if known.annotation is not None:
            return 409, {"error": {"message": "Image is already annotated."}}
        known.annotation, known.query = json.loads(body), query
        return 200, {"success": True}

    def _json(self, web: BaseHTTPRequestHandler, status: int, document: Any) -> None:
        self._write(web, status, json.dumps(document), "application/json")

    def _write(self, web: BaseHTTPRequestHandler, status: int, text: str, kind: str) -> None:
        data = text.encode()
        web.send_response(status)
        web.send_header("Content-Type", kind)
        web.send_header("Content-Length", str(len(data)))
        web.end_headers()
        web.wfile.write(data)
