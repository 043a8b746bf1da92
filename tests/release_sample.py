"""The option ``--release-sample SECONDS``: of the tests marked ``release`` a seeded random sample.

`make release-check` runs them all; `.ci/run` a minute of them, before the other tests: the first
worker of xdist has them all. Each file gets an equal share of the time that is left and runs its
tests in random order until its share is spent; the rest is skipped. A test that needs longer than a
few seconds says so, ``@pytest.mark.release(seconds=120)``, and is drawn only where that fits. The
header names the seed; ``--release-seed`` repeats it.
"""

from __future__ import annotations

import random
import time
from datetime import date

import pytest

#: What a test is taken to need that does not say.
USUAL_SECONDS = 2.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("release", "tests marked release")
    group.addoption("--release-sample", type=float, metavar="SECONDS", help="run a random sample for about this long")
    group.addoption("--release-seed", type=int, metavar="N", help="the sample's seed (default: today's date)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("release_sample") is None:
        return
    if config.getoption("release_seed") is None:
        config.option.release_seed = date.today().toordinal()
    config.pluginmanager.register(Sample(config.option.release_sample, config.option.release_seed), "release-sample")


def needed_seconds(item: pytest.Item) -> float:
    """The longest time that the test's ``release`` marks state."""
    stated = [float(mark.kwargs["seconds"]) for mark in item.iter_markers("release") if "seconds" in mark.kwargs]
    return max(stated, default=USUAL_SECONDS)


def is_release(item: pytest.Item) -> bool:
    return item.get_closest_marker("release") is not None


class Sample:
    """Orders the tests marked ``release``, before all others, and skips those for which no time is
    left.
    """

    def __init__(self, seconds: float, seed: int) -> None:
        self.seconds, self.seed = seconds, seed
        self.end = self.share_ends = 0.0
        self.file = ""
        self.files_left = 0

    def pytest_report_header(self) -> str:
        return f"release sample: {self.seconds:g} s, --release-seed {self.seed}"

    @pytest.hookimpl(trylast=True)  # after -m and -k
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        by_file: dict[str, list[pytest.Item]] = {}
        for item in sorted(filter(is_release, items), key=lambda item: item.nodeid):
            by_file.setdefault(item.path.as_posix(), []).append(item)
        draw = random.Random(self.seed)
        files = list(by_file)
        draw.shuffle(files)
        drawn: list[pytest.Item] = []
        for file in files:
            fitting = [item for item in by_file[file] if needed_seconds(item) <= self.seconds]
            draw.shuffle(fitting)
            drawn += fitting
        others = [item for item in items if not is_release(item)]
        kept = {*drawn, *others}
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = drawn + others
        self.files_left = len({item.path for item in drawn})

    @pytest.hookimpl(tryfirst=True)  # before any fixture is made
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if not is_release(item):
            return
        now = time.monotonic()
        self.end = self.end or now + self.seconds  # what collecting took does not count
        first = item.path.as_posix() != self.file
        if first:
            self.file = item.path.as_posix()
            self.share_ends = now + (self.end - now) / max(1, self.files_left)
            self.files_left -= 1
        # a file's first test may take of the others' shares, so that every file has its turn
        limit = self.end if first else self.share_ends
        if now + needed_seconds(item) > limit:
            pytest.skip("no time left in the release sample")
