"""Captions of a catalogue by OpenAI's Batch API: half the price, within a day, over as many processes as it takes.

A call submits what is to be asked, collects what has come, and returns; ``wait`` goes on until all of it is there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.captioner.cache import SAME_BOX, Place
from fashionrec.captioner.cost import Price
from fashionrec.captioner.job.garments import Garment, Pictures, garments, make_plan
from fashionrec.captioner.job.run import opened
from fashionrec.captioner.ledger import Ledger
from fashionrec.captioner.openai.batch import STATE, Batches, Collected
from fashionrec.captioner.openai.batch_state import OPEN, UNSENT, BatchState
from fashionrec.catalogue.build.tuning import cache_folder
from fashionrec.common.folder import Folder
from fashionrec.errors import CatalogueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fashionrec.captioner.job.garments import Recaption
    from fashionrec.captioner.job.run import CatalogueRun, Progress
    from fashionrec.captioner.openai.remote import OpenAICaptioner
    from fashionrec.config import Config

#: Where a catalogue's batches are kept, inside its folder.
FOLDER = "caption-batches"


def caption_in_batches(
    root: Path,
    config: Config,
    remote: OpenAICaptioner,
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

    What is under way already is never submitted again. With ``resume`` nothing new is submitted, only what an earlier call
    began is carried on: that, too, only as this user planned it, and within the limit of the cost. With ``discard_unsent``
    parts of which that cannot be said are given up first; nothing of them was paid for.

    The document is that of :func:`fashionrec.captioner.job.caption_catalogue`, with ``pending`` (garments
    whose answer has not come), ``resubmitted``, ``duplicates``, ``errors`` and ``batches``.
    """
    with opened(root, config, remote, write=not dry_run) as run:
        ledger = Ledger(cache_folder(config))
        plan, recaption = run.plan(None, again, None if resume else recaption)
        pending = _pending(root, ledger)
        new = [] if resume else [garment for garment in plan.todo if not pending.covers(garment.place)]
        plan.todo, plan.missing = new[:limit], len(new)
        meter, document = run.meter(plan, say, batch=True)
        document["pending"] = pending.count
        if pending.count:
            say(f"{pending.count} garments are under way in batches")
        most = _affordable(meter.cap, meter.cost_of(1))
        report: dict[str, Any] = {
            "captioner": "openai",
            "model": config.captioner.model,
            "asked": 0,
            "made": 0,
            "kept": plan.kept,
            "reused": plan.reused,
            "failed": 0,
            "dry_run": dry_run,
            "plan": document,
            "states": dict(plan.states),
            "usage": {"input_tokens": 0, "output_tokens": 0},
            "cost_usd": 0.0,
            "stopped": "max-cost" if most is not None and pending.unsent + len(plan.todo) > most else None,
        }
        if dry_run:
            return report | {"left": plan.missing, "pending": pending.count, "batches": pending_batches(root)}
        books = _Books(run, config, remote)
        with (
            remote.caller() as caller,
            Batches(
                root / FOLDER,
                config.captioner,
                caller,
                body=books.body,
                record=books.record,
                ledger=ledger,
                most=most,
            ) as batches,
        ):
            if discard_unsent and (given_up := batches.discard_unsent()):
                say(f"{given_up} requests that were never sent are given up: their garments wait to be planned anew")
            room = len(plan.todo) if most is None else max(0, most - batches.planned_requests())
            report["asked"] = batches.add(garment.place for garment in plan.todo[:room])
            counts = Counter[str]()
            errors: list[str] = []
            try:
                while True:
                    done = batches.advance()
                    counts.update(submitted=done.submitted, resubmitted=done.resubmitted, duplicates=done.duplicates)
                    errors += done.errors
                    parts, state = batches.open_parts(), batches.state.counts()
                    outstanding = state["waiting"] + state["sent"]
                    stuck = done.held + done.unplanned
                    if progress:
                        working = sum(part.completed or 0 for part in parts)
                        progress(books.recorded + working, books.recorded + outstanding)
                    if not wait or outstanding <= stuck:
                        break
                    time.sleep(config.captioner.batch.poll)
            finally:
                report |= run.publish(run.unfinished())
            if not outstanding:
                for begun in run.unfinished():
                    if not make_plan(run.catalogue, run.caches, run.kind, recaption=begun).missing:
                        run.recaptioned(begun)
        if done.unplanned:
            say(f"{done.unplanned} garments wait that you have not planned: they are sent by a run without --resume")
        if done.held:
            report["stopped"] = "max-cost"
        cost = books.cost()
        return report | {
            **books.counts(),
            **counts,
            "states": dict(Counter(report["states"]) + books.states),
            "cost_usd": None if cost is None else round(cost, 6),
            "left": plan.missing - report["asked"] + done.held,
            "pending": outstanding,
            "errors": list(dict.fromkeys(errors)),
            "batches": pending_batches(root),
        }


def pending_batches(root: Path) -> list[dict[str, Any]]:
    """The batches of a catalogue that are not done with."""
    path = _state(root)
    if not path.is_file():
        return []
    keys = ("batch_id", "status", "state", "server", "model", "requests", "completed", "created_at", "error")
    with BatchState(path, write=False) as state:
        return [{key: asdict(part)[key] for key in keys} for part in state.parts(OPEN)]


def _state(root: Path) -> Path:
    return Folder(root, "catalogue", CatalogueError).path(f"{FOLDER}/{STATE}")


class _Pending:
    """The garments that are sent, or planned by this user to be: ``unsent`` so many."""

    def __init__(self, requests: Iterable[tuple[str, str, Place]] = (), planned: Collection[str] = ()) -> None:
        self.count = self.unsent = 0
        self._by_photo: dict[tuple[str, str | None], list[Place]] = {}
        for name, state, place in requests:
            if state == "waiting" and name not in planned:
                continue
            self.count += 1
            self.unsent += state == "waiting"
            self._by_photo.setdefault(place[:2], []).append(place)

    def covers(self, place: Place) -> bool:
        return any(
            other.box == place.box or other.box.iou(place.box) >= SAME_BOX
            for other in self._by_photo.get(place[:2], ())
        )


def _pending(root: Path, ledger: Ledger) -> _Pending:
    path = _state(root)
    if not path.is_file():
        return _Pending()
    with BatchState(path, write=False) as state:
        found = _Pending(state.unanswered(), ledger.planned(path.parent.resolve()))
        found.unsent += sum(part.requests for part in state.parts(UNSENT))
    return found


def _affordable(cap: float | None, each: float | None) -> int | None:
    """How many garments a limit pays for; None where there is none. What is submitted cannot be stopped."""
    return None if cap is None or not each else int(cap / each)


class _Books:
    """Makes requests of garments, and records what comes of them."""

    def __init__(self, run: CatalogueRun, config: Config, remote: OpenAICaptioner) -> None:
        self._run, self._config, self._remote = run, config, remote
        self._pictures = Pictures(run.catalogue, config.captioner.image_side)
        self._garments: dict[Place, Garment] | None = None
        self.states: Counter[str] = Counter()
        self.recorded = 0
        self._usage: dict[str, Counter[str]] = {}  # by model: a batch may be older than the setting

    def body(self, place: Place) -> dict[str, Any] | None:
        """The request of a garment; None where the catalogue has it no more."""
        if self._garments is None:
            self._garments = {garment.place: garment for garment in garments(self._run.catalogue)}
        garment = self._garments.get(place)
        return None if garment is None else self._remote.body(self._pictures(garment.stored), place.class_name)

    def record(self, found: Sequence[Collected]) -> None:
        """Read and record answers: the file that they came in is on the disk until they are."""
        entries = []
        for one in found:
            outcome = one.outcome
            if one.body is not None:
                outcome = self._remote.read_body(one.body, one.place.class_name, model=one.model)
            assert outcome is not None
            entries.append((*one.place, outcome))
            self.states[outcome.state] += 1
            self._usage.setdefault(one.model, Counter()).update(outcome.usage)
        self._run.caches.put(entries)
        self.recorded += len(found)

    def counts(self) -> dict[str, Any]:
        usage: Counter[str] = Counter({"input_tokens": 0, "output_tokens": 0})
        for used in self._usage.values():
            usage.update(used)
        made = self.states["done"]
        return {"made": made, "failed": self.states.total() - made, "usage": dict(usage)}

    def cost(self) -> float | None:
        """US$ of what was recorded, at the batches' price; None where one is not known."""
        total = 0.0
        models = self._config.captioner.models
        for model, used in self._usage.items():
            price = Price.of(models.get(model) or models["other"], batch=True)
            if price is None:
                return None
            total += price.usage(used)
        return total
