"""Captioners asked directly, and one of nobody's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from fashionrec.captioner.base import Captioner, Job
from fashionrec.captioner.cache import CaptionCache
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.schema import Description
from fashionrec.captioner.spool import SpooledAnswer, read_signed


def describe_crops(
    captioner: Captioner,
    crops: Sequence[Image.Image],
    class_names: Sequence[str | None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[int, Outcome]]:
    """Each crop's position and outcome, in the order in which they come."""
    jobs = [Job(n, class_names[n], partial(crops.__getitem__, n), no_vector) for n in range(len(crops))]
    groups = captioner.describe(jobs, most=len(jobs))

    def positions() -> Iterator[tuple[int, Outcome]]:
        done = 0
        with closing(groups):
            for one in (one for group in groups for one in group):
                done += 1
                progress(done, len(jobs))
                yield int(str(one.job.key)), one.outcome

    return positions()


def count_by_state(cache: CaptionCache) -> dict[str, int]:
    """Return how many recorded outcomes have which state."""
    with closing(sqlite3.connect(cache.path)) as database:
        return dict(database.execute("SELECT state, COUNT(*) FROM outcomes GROUP BY state ORDER BY state"))


def read_spool(path: Path) -> list[SpooledAnswer]:
    """The answers that a killed process has left."""
    return [arrived for arrived, _ in read_signed(path) if arrived is not None]


def no_vector() -> Any:
    raise AssertionError("who looks at pictures needs no vectors")


class Echo(Captioner):
    """Says of each garment which class it is, and how large its picture is: all that a new
    captioner has to be.
    """

    name = "echo"
    title = "the echo"

    @property
    def model(self) -> str:
        return "echo-1"

    def describe_one(self, job: Job) -> Outcome:
        width, height = job.picture().size
        described = Description(
            category=job.class_name or "top",
            color="red",
            caption_en=f"an echo of {width} x {height}",
            caption_ko="메아리",
            confidence=1.0,
        )
        return Outcome("done", self.name, self.model, description=described, raw="{}")
