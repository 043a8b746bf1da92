"""Captions of a catalogue through a batch API: cheaper, within a day, across many runs.

One call submits new requests, collects finished answers and returns; ``wait`` polls until all
answers have arrived.
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
from fashionrec.common.text import plural

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
    """Submit requests for garments without a caption, collect answers, and publish them.

    Pending requests are never submitted again. With ``resume``, only the work of an earlier call
    continues, as this user planned it and within the cost limit; with ``discard_unsent``, parts
    that this user has not planned are discarded first.

    Returns the document of :func:`fashionrec.captioner.job.caption_catalogue`, with ``pending``
    (garments without an answer yet), ``resubmitted``, ``duplicates``, ``errors`` and ``batches``.
    """
    assert captioner.batch_folder is not None
    folder = root / captioner.batch_folder
    with CatalogueRun(root, config, captioner, write=not dry_run) as run:
        ledger = Ledger(cache_folder(config))
        pending = _Pending(captioner.under_way(folder, ledger))
        under_way = (lambda place: True) if resume else pending.covers  # no new requests
        plan, recaption = run.plan(limit, again, None if resume else recaption, under_way)
        meter, document = run.meter(plan, say, batch=True)
        document["pending"] = pending.count
        if pending.count:
            say(f"{plural(pending.count, 'garment')} pending in batches")
        max_requests = _affordable(meter.cap, meter.cost_of(1))
        report = run.report(plan, document, dry_run=dry_run) | {
            "states": dict(plan.states),
            "usage": {"input_tokens": 0, "output_tokens": 0},
            "cost_usd": 0.0,
            "stopped": "max-cost"
            if max_requests is not None and pending.unsent + len(plan.todo) > max_requests
            else None,
        }
        if dry_run:
            return report | {"left": plan.missing, "pending": pending.count, "batches": pending_batches(root)}
        recorder = _BatchRecorder(run)
        with captioner.batches(
            folder, picture=recorder.picture, record=recorder.record, ledger=ledger, most=max_requests
        ) as batches:
            if discard_unsent and (discarded := batches.discard_unsent()):
                say(f"discarded {plural(discarded, 'unsent request')}; the next run plans their garments again")
            room = len(plan.todo) if max_requests is None else max(0, max_requests - batches.planned_requests())
            report["asked"] = batches.add(map(place_of, garments(run.catalogue, plan.todo[:room])))
            try:
                batch_progress = _advance(
                    batches, recorder, wait=config.captioner.batch.poll if wait else None, progress=progress
                )
            finally:
                report |= run.publish(run.unfinished())
            if not batch_progress.outstanding:
                for unfinished in run.unfinished():
                    if not make_plan(run.catalogue, run.caches, run.captioner, recaption=unfinished).missing:
                        run.recaptioned(unfinished)
        if batch_progress.unplanned:
            say(
                f"{plural(batch_progress.unplanned, 'queued garment')} not sent, because this user did not plan them;"
                " run without --resume to send them"
            )
        if batch_progress.held:
            report["stopped"] = "max-cost"
        cost = recorder.cost()
        return report | {
            **recorder.counts(),
            "submitted": batch_progress.submitted,
            "resubmitted": batch_progress.resubmitted,
            "duplicates": batch_progress.duplicates,
            "states": dict(Counter(report["states"]) + recorder.states),
            "cost_usd": None if cost is None else round(cost, 6),
            "left": plan.missing - report["asked"] + batch_progress.held,
            "pending": batch_progress.outstanding,
            "errors": list(dict.fromkeys(batch_progress.errors)),
            "batches": pending_batches(root),
        }


def _advance(
    batches: Batches, recorder: _BatchRecorder, *, wait: float | None, progress: Progress | None
) -> BatchProgress:
    """Advance the batches once, or every ``wait`` seconds until all answers have arrived.

    Returns the progress, added up over all steps.
    """
    counts = Counter[str]()
    errors: list[str] = []
    while True:
        done = batches.advance()
        counts.update(submitted=done.submitted, resubmitted=done.resubmitted, duplicates=done.duplicates)
        errors += done.errors
        if progress:
            progress(recorder.recorded + done.completed, recorder.recorded + done.outstanding)
        if wait is None or done.outstanding <= done.held + done.unplanned:
            return replace(done, **counts, errors=errors)
        time.sleep(wait)


def pending_batches(root: Path) -> list[dict[str, Any]]:
    """Return the unfinished batches of a catalogue."""
    return [
        batch
        for kind in batch_captioners()
        if kind.batch_folder is not None
        for batch in kind.open_batches(root / kind.batch_folder)
    ]


class _Pending:
    """Garments with a sent request, or one planned by this user; ``unsent`` counts the latter."""

    def __init__(self, under_way: UnderWay) -> None:
        self.count, self.unsent = len(under_way.places), under_way.unsent
        self._by_photo: dict[tuple[str, str | None], list[Place]] = {}
        for place in under_way.places:
            self._by_photo.setdefault(place[:2], []).append(place)

    def covers(self, place: Place) -> bool:
        return any(same_box(pending.box, place.box) for pending in self._by_photo.get(place[:2], ()))


def _affordable(cap: float | None, cost_per_request: float | None) -> int | None:
    """Return how many requests a cost limit pays for, or None without a limit.

    Submitted requests cannot be cancelled.
    """
    return None if cap is None or not cost_per_request else int(cap / cost_per_request)


class _BatchRecorder:
    """Cuts crops of garments, and records the outcomes of their requests."""

    def __init__(self, run: CatalogueRun) -> None:
        self._run = run
        self._pictures = Pictures(run.catalogue, run.config.captioner.image_side)
        self.states: Counter[str] = Counter()
        self.recorded = 0
        self._usage: dict[str, Counter[str]] = {}  # by model: a batch may be older than the setting

    def picture(self, place: Place) -> Image.Image | None:
        """Return the crop of a garment; None if the catalogue no longer has it."""
        items = self._run.catalogue.items.of_photo(place.photo_sha256)
        return next((self._pictures(stored) for stored in items if place_of(stored) == place), None)

    def record(self, outcomes: Sequence[tuple[Place, Outcome]]) -> None:
        """Record outcomes. The file of answers stays on disk until this returns."""
        for _, outcome in outcomes:
            self.states[outcome.state] += 1
            self._usage.setdefault(outcome.model, Counter()).update(outcome.usage)
        self._run.caches.put([(*place, outcome) for place, outcome in outcomes])
        self.recorded += len(outcomes)

    def counts(self) -> dict[str, Any]:
        usage: Counter[str] = Counter({"input_tokens": 0, "output_tokens": 0})
        for model_usage in self._usage.values():
            usage.update(model_usage)
        done = self.states["done"]
        return {"made": done, "failed": self.states.total() - done, "usage": dict(usage)}

    def cost(self) -> float | None:
        """Return the cost of the recorded answers at batch prices, in US$; None if unknown."""
        total = 0.0
        for model, usage in self._usage.items():
            price = self._run.captioner.price(model, batch=True)
            if price is None:
                return None
            total += price.usage(usage)
        return total
