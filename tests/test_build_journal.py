"""Test what a build writes down on its way: how often, how much, and that it is little more than
the catalogue.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, two_halves

from fashionrec.catalogue.build.report import BuildReport
from fashionrec.catalogue.build.work import Recipe, work_on
from fashionrec.config import Config
from fashionrec.models.bundle import Bundle
from fashionrec.store.journal import FoundGarment, FoundPhoto, Journal
from fashionrec.store.seen import SeenFiles
from fashionrec.types import Box

linux = pytest.mark.skipif(sys.platform != "linux", reason="bytes are counted by /proc")


def written() -> int:
    """Bytes that this process has handed to the system so far."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["wchar"])


class Recorded(Journal):
    """A journal that knows when it was written to, by a clock of ours, and how many
    photos it took.
    """

    def __init__(self, path: Path, key: str) -> None:
        super().__init__(path, key)
        self.clock, self.puts = 1000.0, list[tuple[float, int]]()

    def put(self, photos: Sequence[FoundPhoto]) -> None:
        super().put(photos)
        self.puts.append((self.clock, len(photos)))


def test_commits_are_two_seconds_and_a_checkpoint_apart(tmp_path: Path, config: Config) -> None:
    for n in range(48):
        two_halves(tmp_path / f"{n:02d}.png", f"rgb(255, {n}, 0)", "white")
    photos = [(hashlib.sha256(path.read_bytes()).hexdigest(), path) for path in sorted(tmp_path.glob("*.png"))]
    settings = config.model_copy(update={"build": config.build.model_copy(update={"checkpoint": 4, "workers": 1})})
    recipe = Recipe(Bundle.open(TINY / "detector", "detector"), Bundle.open(TINY / "embedder", "embedder"), settings)
    journal, steps = Recorded(tmp_path / "journal.sqlite", recipe.key), list[int]()

    def progress(done: int, garments: int, bad: int) -> None:
        steps.append(done - sum(steps))
        journal.clock += 0.1 * steps[-1]  # ten photos a second

    told: Any = {"seconds": Counter(), "progress": progress, "log": lambda text: None}
    bad = work_on(photos, recipe, journal, known=lambda *_: None, clock=lambda: journal.clock, **told)
    assert not bad
    assert all(journal.has(digest) for digest, _ in photos)
    journal.close()
    assert sum(count for _, count in journal.puts) == 48
    first, *others, _ = journal.puts
    assert 4 <= first[1] < 4 + max(steps)  # the first comes as soon as there is a checkpoint of them
    before = first[0]
    for moment, count in others:
        assert moment - before >= 2.0 - 1e-6
        assert count <= 20 + 2 * max(steps)  # ten a second for two seconds, and what came with the last step
        before = moment


@linux
def test_a_commit_writes_little_more_than_what_is_new(tmp_path: Path) -> None:
    """Photos come in the order of their hashes, which is none: an index of them would be rewritten
    at each commit.
    """
    journal = Journal(tmp_path / "journal.sqlite", "k" * 64)
    vector, thumbnail = bytes(2048), bytes(7000)
    garment = FoundGarment("top", 0.5, Box(1, 2, 3, 4), False, vector, thumbnail)
    photos = [FoundPhoto(hashlib.sha256(b"%d" % n).hexdigest(), 10, 20, (garment,)) for n in range(1200)]
    journal.put(photos[:1000])
    before = written()
    for start in range(1000, 1200, 20):
        journal.put(photos[start : start + 20])
    each = (written() - before) / 200
    journal.close()
    assert each < 1.35 * (len(vector) + len(thumbnail))


@linux
def test_hashes_of_files_are_written_once(tmp_path: Path) -> None:
    seen = SeenFiles(tmp_path / "seen.sqlite")
    before = written()
    for start in range(0, 5000, 500):
        seen.put({f"/photos/{n}.jpg": (n, n, n, "0" * 64) for n in range(start, start + 500)})
    seen.close()
    assert written() - before < 1.2 * (tmp_path / "seen.sqlite").stat().st_size


@linux
def test_a_first_build_writes_no_more_than_three_times_the_catalogue(
    build: Callable[..., BuildReport], tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    for n in range(120):
        two_halves(folder / f"{n:03d}.png", f"rgb({255 - n % 60}, {n % 30}, {n // 8})", "white")
    before = written()
    build(folder, tmp_path / "c")
    size = sum(path.stat().st_size for path in (tmp_path / "c").rglob("*") if path.is_file())
    assert written() - before < 3 * size
