"""Test what Roboflow's server, and a file that lies about, may not do: lead the key elsewhere, hold
us up, fill the memory.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_server import HostileServer, Request, answer, bomb, most_resident, resident
from roboflow_server import KEY, RoboflowServer, make_zip, settings_for
from test_roboflow import VERSION, export
from test_upload import SIZE, photo

from fashionrec.config import Config, load_config
from fashionrec.dataset.exports.choose import Chosen
from fashionrec.dataset.roboflow.upload import plan, upload
from fashionrec.dataset.sources.roboflow import fetch
from fashionrec.errors import DataError, FashionrecError

pytest.importorskip("roboflow")

Act = Callable[[Request], None]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("ROBOFLOW_CONFIG_DIR", str(tmp_path / "nobody-logged-in.json"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def settings(url: str, **values: object) -> Config:
    given = {"api_url": url, "retries": 0, "timeout": 1.0, **values}
    return load_config(sets=[f"roboflow.{name}={value}" for name, value in given.items()], env={}).config


WELCOME = json.dumps({"welcome": "Welcome", "workspace": "team"}).encode()


@pytest.mark.parametrize("begin", [0, 80])
def test_a_server_that_sends_a_byte_now_and_then_has_the_timeout_and_no_more(begin: int, tmp_path: Path) -> None:
    def drip(request: Request) -> None:
        data = answer(WELCOME)
        request.send(data[:begin])
        request.drip(data[begin:], 0.3)

    with HostileServer(drip) as server:
        with pytest.raises(FashionrecError, match=r"127\.0\.0\.1"):
            fetch(VERSION, tmp_path, settings(server.url))
        assert 1 <= server.dripped < 30  # one every 0.3 s


def test_a_compressed_answer_without_end_is_refused_in_little_memory(tmp_path: Path) -> None:
    data = answer(bomb(400), Content_Encoding="gzip")
    with HostileServer(lambda r: r.send(data)) as server:
        before = resident()
        with pytest.raises(FashionrecError, match="sent more than"):
            fetch(VERSION, tmp_path, settings(server.url, timeout=20))
        assert most_resident() - before < 120_000_000


_LISTS, _TABLES = b"[" * 900_000, b'{"error":' * 100_000


@pytest.mark.parametrize(("status", "deep"), [(200, _LISTS), (200, _TABLES), (400, _TABLES)])  # of 400, 5 s pass inside
def test_an_answer_that_nests_without_end_is_an_error(status: int, deep: bytes, tmp_path: Path) -> None:
    with (
        HostileServer(lambda r: r.send(answer(deep, status))) as server,
        pytest.raises(FashionrecError, match=r"127\.0\.0\.1|Roboflow"),
    ):
        fetch(VERSION, tmp_path, settings(server.url, timeout=20))


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_redirect_to_another_origin_is_refused_and_nothing_is_asked_there(status: int, tmp_path: Path) -> None:
    with (
        HostileServer(lambda r: r.send(answer(WELCOME))) as canary,
        HostileServer(lambda r: r.send(answer(b"", status, Location=f"{canary.url}/?api_key=x"))) as server,
    ):
        with pytest.raises(FashionrecError, match=r"redirects to 127\.0\.0\.1; the redirect was refused"):
            fetch(VERSION, tmp_path, settings(server.url))
        assert canary.seen == []
        assert len(server.seen) == 1


class Redirecting(RoboflowServer):
    """Sends whoever uploads a photo elsewhere."""

    to = ""

    def handle(self, web: Any, body: bytes) -> None:
        if "/upload" not in web.path:
            return super().handle(web, body)
        web.send_response(308)
        web.send_header("Location", f"{self.to}/upload")
        web.send_header("Content-Length", "0")
        web.end_headers()


def test_a_photo_is_not_sent_where_a_redirect_leads(tmp_path: Path) -> None:
    with HostileServer(lambda r: r.send(answer(b"{}"))) as canary, Redirecting() as server:
        server.to = canary.url
        config = settings_for(server)
        path = photo(tmp_path / "shirt.jpg", 1)
        chosen = [
            Chosen(path.name, path, "train", hashlib.sha256(path.read_bytes()).hexdigest(), SIZE, 0.5, "unsure", ())
        ]
        planned = plan(chosen, "team/garments", tmp_path / "store", config, batch="b", conf=0.1)
        with pytest.raises(FashionrecError, match="redirect was refused"):
            upload(planned, tmp_path / "store", config)
        assert canary.seen == []


def test_the_link_of_the_zip_may_lead_to_another_server(tmp_path: Path) -> None:
    """It is an address of a storage, without the key; and such a storage redirects."""
    data = make_zip(export())
    with HostileServer(lambda r: r.send(answer(data, Content_Type="application/zip"))) as storage:

        def lead(request: Request) -> None:
            request.send(answer(b"", 302, Location=f"{storage.url}/garments.zip"))

        with HostileServer(lead) as door, RoboflowServer(data) as server:
            linked = server.answer_to

            def elsewhere(kind: str, *given: object) -> object:
                if kind == "export":
                    return 200, {"export": {"format": "yolov8", "link": f"{door.url}/signed"}}
                return linked(kind, *given)  # type: ignore[arg-type]

            server.answer_to = elsewhere  # type: ignore[method-assign,assignment]
            assert (fetch(VERSION, tmp_path, settings_for(server)) / "data.yaml").is_file()
        assert len(storage.seen) == 1
        assert KEY not in storage.seen[0].line


def test_a_zip_that_never_comes_is_given_up(tmp_path: Path) -> None:
    data = make_zip(export())

    def drip(request: Request) -> None:
        whole = answer(data)
        request.send(whole[:100])
        request.drip(whole[100:], 0.3)

    with HostileServer(drip) as storage, RoboflowServer(data) as server:
        linked = server.answer_to
        server.answer_to = lambda kind, *given: (  # type: ignore[method-assign]
            (200, {"export": {"link": f"{storage.url}/zip"}}) if kind == "export" else linked(kind, *given)
        )
        with pytest.raises(FashionrecError, match=r"closed the connection|in time"):
            fetch(VERSION, tmp_path, settings_for(server, timeout=1.0))
        assert 1 <= storage.dripped < 40  # one every 0.3 s, of thousands


def test_a_compressed_answer_is_read(tmp_path: Path) -> None:
    with HostileServer(lambda r: r.send(answer(gzip.compress(b'{"workspace": null}'), Content_Encoding="gzip"))) as s:
        with pytest.raises((DataError, FashionrecError)) as caught:
            fetch(VERSION, tmp_path, settings(s.url))
        assert "more than" not in str(caught.value)


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[tuple[Path, HostileServer]]:
    """A folder of somebody else's with a file .env above it, and the server that it names."""
    with HostileServer(lambda r: r.send(answer(WELCOME))) as canary:
        (tmp_path / "project" / "below").mkdir(parents=True)
        lines = [
            "ROBOFLOW_API_KEY=stolenKey",
            f"API_URL={canary.url}",
            f"HTTP_PROXY={canary.url}",
            "FASHIONREC_PLANTED=1",
            "OPENAI_API_KEY=sk-stolen-key-of-somebody",
            f"OPENAI_BASE_URL={canary.url}",
        ]
        (tmp_path / "project" / ".env").write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield tmp_path / "project" / "below", canary


SCRIPT = """
import os, sys
before = dict(os.environ)
from fashionrec.config import load_config
from fashionrec.dataset.roboflow.api import api_host, connected
from fashionrec.errors import DataError
host = api_host(load_config(env={}).config.roboflow)
try:
    with connected("team", load_config(env={}).config.roboflow):
        print("connected")
except DataError as error:
    print(error)
import roboflow.core.version
print(host, sorted(set(os.environ.items()) ^ set(before.items())))
from dotenv import load_dotenv
assert load_dotenv.__module__.startswith("dotenv"), "it is as it was"
"""


def test_a_file_of_variables_above_the_working_folder_is_not_read(planted: tuple[Path, HostileServer]) -> None:
    folder, canary = planted
    environment = {key: value for key, value in os.environ.items() if key != "ROBOFLOW_API_KEY"}
    # read from the command line, dotenv looks above the working folder
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Roboflow needs a key" in done.stdout
    assert done.stdout.splitlines()[-1] == "api.roboflow.com []"
    assert canary.seen == []


def test_without_the_guard_the_file_would_be_read(planted: tuple[Path, HostileServer]) -> None:
    """The test above tests something: the package itself does read it."""
    folder, _ = planted
    script = "import os, roboflow; print(os.environ.get('FASHIONREC_PLANTED'))"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
