"""Killed at random moments while captioning: what was answered and recorded is not asked again.

A process has asked for at most ``captioner.concurrency`` garments whose answers it has not
recorded, so that many calls at most are lost by a kill. The quick run kills some twenty times;
``pytest -m soak tests/test_caption_kill.py`` two hundred times.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from captioners import read_spool
from conftest import TINY
from openai_server import OpenAIServer, Recorded, Reply, success
from PIL import Image, ImageDraw
from systems import posix_only

from fashionrec import Catalogue
from fashionrec.captioner.cache import CaptionCache
from fashionrec.captioner.job import caption_catalogue
from fashionrec.captioner.openai.remote import OpenAICaptioner
from fashionrec.config import Config, load_config

CONCURRENCY = 8
pytestmark = [
    posix_only("fork"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")


def make_catalogue(folder: Path, garments: int) -> Path:
    """A catalogue of so many garments, one in each photo, no two pictures alike; made by another
    process.
    """
    rng = random.Random(0)
    (folder / "photos").mkdir(parents=True)
    for n in range(garments):
        image = Image.new("RGB", (96, 96), "white")
        pen = ImageDraw.Draw(image)
        pen.rectangle((0, 0, 47, 96), fill="red")
        for _ in range(12):
            x, y = rng.randrange(48, 90), rng.randrange(90)
            pen.rectangle((x, y, x + 5, y + 5), fill=tuple(rng.randrange(180, 256) for _ in range(3)))
        image.save(folder / "photos" / f"{n:04}.jpg", quality=90)
    command = [sys.executable, "-m", "fashionrec", "build-index", str(folder / "photos"), "--index", str(folder / "c")]
    command += ["--detector", str(TINY / "detector"), "--embedder", str(TINY / "embedder"), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "c"


class TimedServer(OpenAIServer):
    """Knows how many requests it had not answered at some moment."""

    def __init__(self, script: Callable[[Recorded, int], Reply]) -> None:
        super().__init__(script)
        self.answered_at: list[float] = []

    def leave(self) -> None:
        super().leave()
        with self._lock:
            self.answered_at.append(time.monotonic())

    def settle(self) -> None:
        """Wait until nothing has come, and nothing is to be answered, for a fifth of a second."""
        seen, quiet = -1, 0
        while quiet < 10:
            time.sleep(0.02)
            with self._lock:
                same = seen == len(self.requests) and not self._at_once
                seen = len(self.requests)
            quiet = quiet + 1 if same else 0

    def in_flight(self, moment: float) -> int:
        """Requests not answered by then; an answer of the last tenth of a second may not have been
        read.
        """
        with self._lock:
            return len(self.requests) - sum(at < moment - 0.1 for at in self.answered_at)


@dataclass
class Tally:
    """Record of what kills cost: for each, ``lost`` calls, whose answers were not on the disk, and
    those ``open``, in flight.
    """

    kills: int = 0
    calls: int = 0
    lost: list[int] = field(default_factory=list)
    open: list[int] = field(default_factory=list)


def settings(server: OpenAIServer, folder: Path) -> Config:
    sets = {
        "captioner.base_url": server.base_url,
        "captioner.cache": folder / "paid.sqlite",
        "captioner.concurrency": CONCURRENCY,
    }
    return load_config(env={}, sets=[f"{key}={value}" for key, value in sets.items()]).config


def fork(root: Path, config: Config) -> int:
    """A process that captions a catalogue; its number."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            caption_catalogue(root, config, OpenAICaptioner(config.captioner, backoff=0.01))
        os._exit(0)
    return child


def command(root: Path, config: Config) -> int:
    """The same by the command line."""
    words = ["caption", "--index", str(root), "--captioner", "openai", "--quiet"]
    for key in ("base_url", "cache", "concurrency"):
        words += ["--set", f"captioner.{key}={getattr(config.captioner, key)}"]
    return subprocess.Popen([sys.executable, "-m", "fashionrec", *words], stdout=subprocess.DEVNULL).pid


def recorded(folder: Path) -> int:
    """Return how many garments' answers are on the disk, recorded or only written down."""
    known = {one.place for one in read_spool(folder / "c" / ".captions.arrived")}
    if (folder / "paid.sqlite").is_file():
        with CaptionCache(folder / "paid.sqlite") as cache:
            for group in cache.everything("openai"):
                known |= {one.place for one in group}
    return len(known)


def kill_until_done(
    root: Path,
    folder: Path,
    rng: random.Random,
    longest: float,
    start: Callable[[Path, Config], int] = fork,
    most: int = 1000,
) -> Tally:
    """Caption a catalogue by processes of which ``most`` are killed, each at a random moment of its
    first ``longest`` seconds.
    """
    tally = Tally()

    def script(request: Recorded, number: int) -> Reply:
        return Reply(body=success().body, hang=0.1)

    with TimedServer(script) as server:
        config = settings(server, folder)
        while True:
            child = start(root, config)
            if tally.kills < most:
                time.sleep(rng.uniform(0.0, longest))
                killed_at = time.monotonic()
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status):
                assert os.waitstatus_to_exitcode(status) == 0
                break
            server.settle()  # what it had sent arrives
            tally.kills += 1
            tally.open.append(server.in_flight(killed_at))
            tally.lost.append(len(server.requests) - recorded(folder) - sum(tally.lost))
        tally.calls = len(server.requests)
    return tally


def check(tally: Tally, root: Path, garments: int) -> None:
    wrong = [pair for pair in zip(tally.lost, tally.open, strict=True) if not 0 <= pair[0] <= pair[1]]
    assert not wrong, (wrong, tally)
    assert max(tally.lost) <= CONCURRENCY
    assert tally.calls == garments + sum(tally.lost)
    with Catalogue.open(root) as catalogue:
        assert catalogue.counts["captions"] == garments
        catalogue.generation.check(contents=True)


def test_killed_at_random_moments_only_what_was_in_flight_is_asked_again(tmp_path: Path) -> None:
    root = make_catalogue(tmp_path, 100)
    tally = kill_until_done(root, tmp_path, random.Random(1), 0.6, most=20)
    check(tally, root, 100)
    assert tally.kills > 5


def test_a_cache_that_forgets_is_caught(tmp_path: Path) -> None:
    root = make_catalogue(tmp_path, 40)

    def forgetful(root: Path, config: Config) -> int:
        """A process that finds nothing of what the one before it had recorded: more than was in
        flight.
        """
        (root / ".captions.arrived").unlink(missing_ok=True)
        if (tmp_path / "paid.sqlite").is_file():
            with closing(sqlite3.connect(tmp_path / "paid.sqlite")) as db, db:
                db.execute("DELETE FROM outcomes")
        child = fork(root, config)
        while recorded(tmp_path) <= CONCURRENCY:
            time.sleep(0.02)
        return child

    tally = kill_until_done(root, tmp_path, random.Random(2), 0.0, start=forgetful, most=1)
    assert tally.kills == 1
    with pytest.raises(AssertionError):
        check(tally, root, 40)


@pytest.mark.soak
def test_killed_at_two_hundred_random_moments(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    source = make_catalogue(tmp_path, 500)
    rng = random.Random(3)
    kills = calls = runs = 0
    lost: list[int] = []
    open_: list[int] = []
    while kills < 200:
        folder = tmp_path / f"run-{runs}"
        root = shutil.copytree(source, folder / "c")
        by_command = runs == 0  # whole processes, as a person starts them; then forked ones, which start at once
        tally = kill_until_done(
            root,
            folder,
            rng,
            6.0 if by_command else 0.9,
            command if by_command else fork,
            most=20 if by_command else 200 - kills,
        )
        check(tally, root, 500)
        runs, kills, calls = runs + 1, kills + tally.kills, calls + tally.calls
        lost += tally.lost
        open_ += tally.open
        shutil.rmtree(folder)
    for name, value in {
        "kills": kills,
        "runs": runs,
        "calls": calls,
        "garments": runs * 500,
        "lost": sum(lost),
        "most_lost_by_one_kill": max(lost),
        "open_at_the_server": sum(open_),
    }.items():
        record_property(name, value)
