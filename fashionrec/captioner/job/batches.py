"""Captions of a catalogue in batches: cheaper, within a day, over as many processes as it takes.

A call submits what is to be asked, collects what has come, and returns; ``wait`` goes on until all of it is there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.cache import Place, same_box
from fashionrec.captioner.job.garments import Pictures, garments, make_plan, place_of
from fashionrec.captioner.job.run import CatalogueRun
from fashionrec.captioner.ledger import Ledger
from fashionrec.captioner.providers import batch_captioners
from fashionrec.catalogue.build.tuning import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from fashionrec.captioner.base import Batches, BatchProgress, Captioner, UnderWay
    from fashionrec.captioner.job.garments import Recaption
    from fashionrec.captioner.job.run import Progress
    from fashionrec.captioner.outcome import Outcome
    from fashionrec.config import Config


def caption_in_batches(
    root: Path,
    config: Config,
    captioner: Captioner,
    *,
    limit: int | None = None,
    again: Collection[str] = (),
    recaption: Recaption | None = None,
    dry_run: bool = False,
    resume: bool = False,
    discard_unsent: bool = False,
    wait: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Submit the garments that have no caption, collect what has come, and serve it.

    What is under way already is never submitted again. With ``resume`` only what an earlier call
    began is carried on, as this user planned it and within the limit of the cost; with
    ``discard_unsent`` parts that this user has not planned are given up first.

    The document is that of :func:`fashionrec.captioner.job.caption_catalogue`, with ``pending``
    (garments whose answer has not come), ``resubmitted``, ``duplicates``, ``errors`` and ``batches``.
    """
    assert captioner.batch_folder is not None
    folder = root / captioner.batch_folder
    with CatalogueRun(root, config, captioner, write=not dry_run) as run:
        ledger = Ledger(cache_folder(config))
        pending = _Pending(captioner.under_way(folder, ledger))
        under_way = (lambda place: True) if resume else pending.covers  # nothing is asked that was not begun
        plan, recaption = run.plan(limit, again, None if resume else recaption, under_way)
        meter, document = run.meter(plan, say, batch=True)
        document["pending"] = pending.count
        if pending.count:
            say(f"{pending.count} garments are under way in batches")
        most = _affordable(meter.cap, meter.cost_of(1))
        report = run.report(plan, document, dry_run=dry_run) | {
            "states": dict(plan.states),
            "usage": {"input_tokens": 0, "output_tokens": 0},
            "cost_usd": 0.0,
            "stopped": "max-cost" if most is not None and pending.unsent + len(plan.todo) > most else None,
        }
        if dry_run:
            return report | {"left": plan.missing, "pending": pending.count, "batches": pending_batches(root)}
        books = _Books(run)
        with captioner.batches(folder, picture=books.picture, record=books.record, ledger=ledger, most=most) as batches:
            if discard_unsent and (given_up := batches.discard_unsent()):
                say(f"{given_up} requests that were never sent are given up: their garments wait to be planned anew")
            room = len(plan.todo) if most is None else max(0, most - batches.planned_requests())
            report["asked"] = batches.add(map(place_of, garments(run.catalogue, plan.todo[:room])))
            try:
                done = _advance(batches, books, wait=config.captioner.batch.poll if wait else None, progress=progress)
            finally:
                report |= run.publish(run.unfinished())
            if not done.outstanding:
                for begun in run.unfinished():
                    if not make_plan(run.catalogue, run.caches, run.captioner, recaption=begun).missing:
                        run.recaptioned(begun)
        if done.unplanned:
            say(f"{done.unplanned} garments wait that you have not planned: they are sent by a run without --resume")
        if done.held:
            report["stopped"] = "max-cost"
        cost = books.cost()
        return report | {
            **books.counts(),
            "submitted": done.submitted,
            "resubmitted": done.resubmitted,
            "duplicates": done.duplicates,
            "states": dict(Counter(report["states"]) + books.states),
            "cost_usd": None if cost is None else round(cost, 6),
            "left": plan.missing - report["asked"] + done.held,
            "pending": done.outstanding,
            "errors": list(dict.fromkeys(done.errors)),
            "batches": pending_batches(root),
        }


def _advance(batches: Batches, books: _Books, *, wait: float | None, progress: Progress | None) -> BatchProgress:
    """Carry the batches on, once, or every ``wait`` seconds until all that can come has; returns what all that did."""
    counts = Counter[str]()
    errors: list[str] = []
    while True:
        done = batches.advance()
        counts.update(submitted=done.submitted, resubmitted=done.resubmitted, duplicates=done.duplicates)
        errors += done.errors
        if progress:
            progress(books.recorded + done.completed, books.recorded + done.outstanding)
        if wait is None or done.outstanding <= done.held + done.unplanned:
            return replace(done, **counts, errors=errors)
        time.sleep(wait)


def pending_batches(root: Path) -> list[dict[str, Any]]:
    """The batches of a catalogue that are not done with."""
    return [
        batch
        for kind in batch_captioners()
        if kind.batch_folder is not None
        for batch in kind.open_batches(root / kind.batch_folder)
    ]


class _Pending:
    """The garments that are sent, or planned by this user to be: ``unsent`` so many."""

    def __init__(self, under_way: UnderWay) -> None:
        self.count, self.unsent = len(under_way.places), under_way.unsent
        self._by_photo: dict[tuple[str, str | None], list[Place]] = {}
        for place in under_way.places:
            self._by_photo.setdefault(place[:2], []).append(place)

    def covers(self, place: Place) -> bool:
        return any(same_box(other.box, place.box) for other in self._by_photo.get(place[:2], ()))


def _affordable(cap: float | None, each: float | None) -> int | None:
    """How many garments a limit pays for; None where there is none. What is submitted cannot be stopped."""
    return None if cap is None or not each else int(cap / each)


class _Books:
    """Makes pictures of garments, and records what comes of them."""

    def __init__(self, run: CatalogueRun) -> None:
        self._run = run
        self._pictures = Pictures(run.catalogue, run.config.captioner.image_side)
        self.states: Counter[str] = Counter()
        self.recorded = 0
        self._usage: dict[str, Counter[str]] = {}  # by model: a batch may be older than the setting

    def picture(self, place: Place) -> Image.Image | None:
        """The picture of a garment; None where the catalogue has it no more."""
        items = self._run.catalogue.items.of_photo(place.photo_sha256)
        return next((self._pictures(stored) for stored in items if place_of(stored) == place), None)

    def record(self, outcomes: Sequence[tuple[Place, Outcome]]) -> None:
        """Record outcomes: the file that they came in is on the disk until they are."""
        for _, outcome in outcomes:
            self.states[outcome.state] += 1
            self._usage.setdefault(outcome.model, Counter()).update(outcome.usage)
        self._run.caches.put([(*place, outcome) for place, outcome in outcomes])
        self.recorded += len(outcomes)

    def counts(self) -> dict[str, Any]:
        usage: Counter[str] = Counter({"input_tokens": 0, "output_tokens": 0})
        for used in self._usage.values():
            usage.update(used)
        made = self.states["done"]
        return {"made": made, "failed": self.states.total() - made, "usage": dict(usage)}

    def cost(self) -> float | None:
        """US$ of what was recorded, at the batches' price; None where one is not known."""
        total = 0.0
        for model, used in self._usage.items():
            price = self._run.captioner.price(model, batch=True)
            if price is None:
                return None
            total += price.usage(used)
        return total
