"""Test how long is waited before something is tried again: the waits grow, up to a longest one, and
are kept.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from captioners import describe_crops
from faulty_server import FaultyServer, Request, status
from openai_server import OpenAIServer, Reply
from PIL import Image
from roboflow_server import KEY, RoboflowServer, make_zip, settings_for

from fashionrec.captioner.openai.limiter import RateLimiter
from fashionrec.captioner.openai.remote import OpenAICaptioner
from fashionrec.common.backoff import backoff
from fashionrec.config import Config
from fashionrec.dataset.feed.addresses import AddressPolicy
from fashionrec.dataset.feed.download import fetch_images
from fashionrec.dataset.sources.roboflow import damage, fetch
from fashionrec.errors import FashionrecError

Jitter = Callable[[float, float], float]


@pytest.mark.parametrize(("jitter", "share"), [(min, 0.5), (max, 1.0)])
def test_the_wait_doubles_up_to_the_longest_and_half_of_it_is_chance(jitter: Jitter, share: float) -> None:
    waits = [backoff(attempt, 0.3, 2.0, jitter) for attempt in range(5)]
    assert waits == pytest.approx([share * wait for wait in (0.3, 0.6, 1.2, 2.0, 2.0)])


def test_the_chance_is_used() -> None:
    waits = {backoff(2, 1.0, 10.0) for _ in range(50)}
    assert len(waits) > 1
    assert all(2.0 <= wait <= 4.0 for wait in waits)


def gaps(arrivals: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(arrivals)]


def test_a_photo_is_asked_for_again_after_growing_waits(tmp_path: Path, config: Config) -> None:
    arrivals: list[float] = []

    def busy(request: Request) -> None:
        arrivals.append(time.monotonic())
        status(503)(request)

    with FaultyServer({"/a.jpg": busy}) as server:
        settings = config.feed.model_copy(update={"backoff": 0.06, "retries": 3, "robots": False})
        door = AddressPolicy(open_to=frozenset({server.address}))
        fetch_images([server.url("/a.jpg")], tmp_path / "c", settings, config.images, door=door)
    for gap, least in zip(gaps(arrivals), (0.03, 0.06, 0.12), strict=True):
        assert gap >= least


def test_a_caption_is_asked_for_again_after_growing_waits(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with OpenAIServer([Reply(500, "{}")]) as server:
        settings = config.captioner.model_copy(update={"base_url": server.base_url, "retries": 3})
        captioner = OpenAICaptioner(settings, api_key="sk-x", backoff=0.06)
        assert len(list(describe_crops(captioner, [Image.new("RGB", (32, 32))], ["top"]))) == 1
    for gap, least in zip(gaps([request.at for request in server.requests]), (0.03, 0.06, 0.12), strict=True):
        assert gap >= least


class Roboflow:
    """A version that is fetched from a local server; ``waits`` are those that were asked for."""

    def __init__(self, server: RoboflowServer, store: Path) -> None:
        self.server, self.store = server, store
        self.waits: list[float] = []

    def fetch(self, **settings: object) -> Path:
        config = settings_for(self.server, **settings)
        return fetch("team/garments/3", self.store, config, sleep=self.waits.append)


@pytest.fixture
def roboflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Roboflow]:
    pytest.importorskip("roboflow")
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setenv("ROBOFLOW_CONFIG_DIR", str(tmp_path / "nobody-logged-in.json"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    members = {"data.yaml": b"train: train/images\nnc: 1\nnames: ['top']\n", "filler": bytes(range(256)) * 100}
    with RoboflowServer(make_zip(members)) as server:
        yield Roboflow(server, tmp_path / "store")


def test_an_export_is_looked_for_at_growing_intervals(roboflow: Roboflow) -> None:
    roboflow.server.faults = {"export": [(202, {"progress": 0.1 * n}) for n in range(8)]}
    assert damage(roboflow.fetch(wait=600)) is None
    assert roboflow.waits == pytest.approx([1.0, 1.5, 1.5**2, 1.5**3, 1.5**4, 1.5**5, 10.0, 10.0])


def test_an_export_is_not_waited_for_where_the_next_look_would_be_too_late(roboflow: Roboflow) -> None:
    roboflow.server.faults = {"export": [(202, {"progress": 0.5})] * 3}
    with pytest.raises(FashionrecError, match="still preparing"):
        roboflow.fetch(wait=1.2)
    assert roboflow.waits == [1.0]


def test_a_download_goes_on_after_growing_waits(roboflow: Roboflow) -> None:
    roboflow.server.faults = {"zip": [("cut", 2000)] * 3}
    assert damage(roboflow.fetch(retries=3)) is None
    assert roboflow.waits == [0.0, 0.5, 1.0]


def is_let_in(limiter: RateLimiter) -> bool:
    """Return whether one more request may be sent at this moment; the thread that may not stops
    soon.
    """
    stop, entered = threading.Event(), threading.Event()

    def enter() -> None:
        if limiter.enter(stop):
            entered.set()

    threading.Thread(target=enter, daemon=True).start()
    found = entered.wait(0.05)
    stop.set()
    return found


def test_a_pause_holds_for_all_and_is_not_shortened_by_another() -> None:
    now = [100.0]
    limiter = RateLimiter(9, clock=lambda: now[0])
    limiter.pause(30.0)
    limiter.pause(5.0)
    assert not is_let_in(limiter)
    now[0] = 129.9
    assert not is_let_in(limiter)
    now[0] = 130.0
    assert is_let_in(limiter)
    limiter.throttled(now[0], 2.0)
    limiter.pause(0.5)
    now[0] = 131.9
    assert not is_let_in(limiter)
    now[0] = 132.0
    assert is_let_in(limiter)
