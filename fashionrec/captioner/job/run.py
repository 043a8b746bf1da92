"""Captions of a catalogue, made one garment after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fashionrec.captioner.base import Job
from fashionrec.captioner.cache import Place
from fashionrec.captioner.cost import CostMeter, Price, Tokens, dollars
from fashionrec.captioner.job.caches import CACHE, Caches, Recorder, project_cache
from fashionrec.captioner.job.garments import Pictures, Plan, Recaption, garments, make_plan, place_of
from fashionrec.captioner.job.known import CatalogueSource
from fashionrec.captioner.job.publish import publish
from fashionrec.captioner.ledger import Ledger
from fashionrec.captioner.providers import make_captioner, shared_captioners
from fashionrec.catalogue.build.tuning import cache_folder
from fashionrec.catalogue.catalogue import Catalogue
from fashionrec.common.files import locked
from fashionrec.common.text import plural
from fashionrec.config.captioners import ENCODER
from fashionrec.store import generations

if TYPE_CHECKING:
    import numpy as np

    from fashionrec.captioner.base import Captioner
    from fashionrec.captioner.cache import CaptionCache
    from fashionrec.captioner.outcome import Outcome
    from fashionrec.config import Config
    from fashionrec.store.items import StoredItem

_MIN_TOKEN_SHARE = 0.25  # a measured mean below this share of the estimate is not believed


class Progress(Protocol):
    def __call__(self, done: int, total: int, note: str = "", *, detail: str = "") -> None: ...


def caption_catalogue(
    root: Path,
    config: Config,
    captioner: Captioner | None = None,
    *,
    limit: int | None = None,
    again: Collection[str] = (),
    recaption: Recaption | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Caption the garments that have no caption, and publish all recorded captions.

    The plan and its expected cost are reported first; with ``dry_run`` nothing else happens.

    Args:
        root: The catalogue.
        config: The settings.
        captioner: By default the catalogue's own encoder.
        limit: Most garments to request.
        again: States of recorded outcomes to request again.
        recaption: Garments to caption again.
        dry_run: Only report the plan.
        progress: Called after each group of outcomes.
        say: Called with each line of the plan.

    Returns counts: ``asked``, ``made``, ``kept`` (captioned before), ``reused`` (from a cache),
    ``failed``, ``left`` (not requested), ``states``, ``usage``, ``cost_usd``, ``plan``, and
    ``stopped`` (``max-cost``, or None). Raises :class:`Busy`, and :class:`CaptionError` for a wrong
    key or model.
    """
    captioner = captioner or make_captioner(ENCODER, config.captioner)
    with CatalogueRun(root, config, captioner, write=not dry_run) as run:
        plan, recaption = run.plan(limit, again, recaption)
        meter, document = run.meter(plan, say)
        report = run.report(plan, document, dry_run=dry_run)
        states = Counter(plan.states)
        if not dry_run:
            try:
                for outcome in run.outcomes(plan, meter, progress):
                    states[outcome.state] += 1
                    report["asked"] += 1
                    report["made" if outcome.description is not None else "failed"] += 1
            finally:
                report |= run.publish([recaption] if recaption is not None else [])
        left = plan.missing - report["asked"]
        if recaption is not None and not left and not dry_run:
            run.recaptioned(recaption)
        spent = meter.spent
        return report | {
            "left": left,
            "stopped": "max-cost" if meter.stopped else None,
            "states": dict(states),
            "usage": dict(meter.usage),
            "cost_usd": None if spent is None else round(spent, 6),
        }


class CatalogueRun:
    """A run of one captioner on one catalogue; a context manager that locks it for captioning.

    Two runs at once would pay twice, so captioning has its own lock besides the catalogue's writer
    lock.
    """

    def __init__(self, root: Path, config: Config, captioner: Captioner, *, write: bool = True) -> None:
        self.root, self.config, self.captioner, self._write = root, config, captioner, write

    def __enter__(self) -> CatalogueRun:
        generations.read_current(self.root)  # before the lock, which would create the folder
        with ExitStack() as stack:
            if self._write:
                with generations.map_disk_errors(self.root):
                    stack.enter_context(locked(self.root / ".captions.lock", f"is captioning {self.root}"))
            self.catalogue = stack.enter_context(Catalogue.open(self.root, self.config))
            self.captioner = self.captioner.bind(CatalogueSource(self.catalogue, self.captioner.vocabulary))
            project = None if self.captioner.from_encoder else project_cache(self.config)
            ledger = Ledger(cache_folder(self.config))
            self.caches = stack.enter_context(Caches(self.root / CACHE, project, write=self._write, ledger=ledger))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def plan(
        self,
        limit: int | None = None,
        again: Collection[str] = (),
        recaption: Recaption | None = None,
        under_way: Callable[[Place], bool] = lambda place: False,
    ) -> tuple[Plan, Recaption | None]:
        """Return the plan, and ``recaption`` with the time at which it began.

        An unfinished recaption keeps its start time until all of its garments are done.
        """
        if self._write and self._spool is not None:
            self.caches.recover(self.captioner, self._spool)
        if recaption is not None:
            recaption.check(self.catalogue)
        if recaption is not None and self._write:
            recaption = replace(recaption, since=self._recaption_cache.recaption(self._recaption_key(recaption)))
        options: Any = {"again": again, "recaption": recaption, "limit": limit, "under_way": under_way}
        return make_plan(self.catalogue, self.caches, self.captioner, **options), recaption

    def meter(self, plan: Plan, say: Callable[[str], None], *, batch: bool = False) -> tuple[CostMeter, dict[str, Any]]:
        """Report the plan and its expected cost.

        Returns the cost meter of the run, and the plan as a document.
        """
        count = len(plan.todo)
        document: dict[str, Any] = {
            "new": plan.missing,
            "to_ask": count,
            "captioned": plan.captioned,
            "cached": plan.reused,
        }
        say(
            f"{plural(count, 'garment')} to caption"
            + (f" of {plan.missing:,} without a caption" if plan.missing > count else "")
            + f"; {plan.captioned:,} captioned in this catalogue, {plan.reused:,} in the cache"
        )
        if not self.captioner.costs:
            return CostMeter(Price(0.0, 0.0), Tokens(0, 0)), {**document, "expected_cost_usd": 0.0}
        price = self.captioner.price(batch=batch)
        tokens = self._tokens()
        meter = CostMeter(price, tokens, self.config.captioner.max_cost)
        cost = meter.cost_of(count)
        basis = f"measured on {plural(tokens.measured, 'answer')}" if tokens.measured else "estimated"
        if count:
            say(
                f"expected: {count} x ({tokens.input:.0f} tokens in, {tokens.output:.0f} out; {basis}) = {dollars(cost)}"
                + (" as a batch" if batch else "")
                + (f", at most {dollars(meter.cap)}" if meter.cap is not None else "")
            )
        document |= {
            "tokens_each": {
                "input": round(tokens.input, 1),
                "output": round(tokens.output, 1),
                "measured": tokens.measured,
            },
            "expected_cost_usd": None if cost is None else round(cost, 6),
            "max_cost_usd": meter.cap,
        }
        return meter, document

    def report(self, plan: Plan, document: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        """Return the initial report of a run; ``document`` is the plan's."""
        return {
            "captioner": self.captioner.name,
            "model": self.captioner.model,
            "asked": 0,
            "made": 0,
            "kept": plan.captioned,
            "reused": plan.reused,
            "failed": 0,
            "dry_run": dry_run,
            "plan": document,
        }

    def publish(self, recaptions: Sequence[Recaption]) -> dict[str, int]:
        """Publish all captions recorded so far."""
        return publish(self.root, self.config, self.caches, self.captioner, recaptions=recaptions)

    def unfinished(self) -> list[Recaption]:
        """Return the unfinished recaptions of this captioner."""
        prefix = self._recaption_key(Recaption(""))
        recaptions = self._recaption_cache.recaptions()
        return [Recaption(key[len(prefix) :], since) for key, since in recaptions.items() if key.startswith(prefix)]

    def recaptioned(self, recaption: Recaption) -> None:
        """Mark a recaption as finished."""
        self._recaption_cache.recaptioned(self._recaption_key(recaption))

    def outcomes(self, plan: Plan, meter: CostMeter, progress: Progress | None) -> Iterator[Outcome]:
        """Yield outcomes as they arrive; each is recorded before it is yielded."""
        done, total = 0, len(plan.todo)
        if not total:
            return
        spool = self._spool if self.captioner.spool_file and self.caches.ledger.can_sign() else None
        recorder = Recorder(self.caches, self.captioner, _place, spool)
        try:
            groups = self.captioner.describe(self._jobs(plan.todo), most=total, meter=meter, arrived=recorder.arrived)
            with closing(groups):
                for group in groups:
                    recorder.take(group)
                    done += len(group)
                    if progress:
                        progress(done, total, detail=self._cost_note(meter, total - done))
                    yield from (described.outcome for described in group)
        finally:
            recorder.finish()

    def _jobs(self, todo: Sequence[int]) -> Iterator[Job]:
        pictures = Pictures(self.catalogue, self.config.captioner.image_side)

        def vector(stored: StoredItem) -> np.ndarray:
            images = self.catalogue.images
            result: np.ndarray = images.fetch([images.position(*stored.image_at)])[0]
            return result

        for stored in garments(self.catalogue, todo):
            place = place_of(stored)
            yield Job(place, place.class_name, partial(pictures, stored), partial(vector, stored))

    def _cost_note(self, meter: CostMeter, left: int) -> str:
        spent, remaining = meter.spent, meter.cost_of(left)
        if not self.captioner.costs or spent is None or remaining is None:
            return ""
        return f"{dollars(spent)} of {dollars(spent + remaining)}"

    def _tokens(self) -> Tokens:
        """Return the tokens per caption, measured on this model's last answers, else estimated."""
        estimate = self.captioner.expected_tokens()
        if self.caches.project is not None:  # an untrusted catalogue could claim that captions cost nothing
            count, inputs, outputs = self.caches.project.mean_usage(self.captioner.name, self.captioner.model)
            if count >= 10:
                return Tokens(
                    max(inputs, estimate.input * _MIN_TOKEN_SHARE),
                    max(outputs, estimate.output * _MIN_TOKEN_SHARE),
                    count,
                )
        return estimate

    def _recaption_key(self, recaption: Recaption) -> str:
        """Return the key of a recaption, which differs by catalogue and captioner."""
        model = "-" if self.captioner.from_encoder else self.captioner.model
        return f"{self.root.resolve()}\n{self.captioner.name}\n{model}\n{recaption.what}"

    @property
    def _spool(self) -> Path | None:
        name = self.captioner.spool_file
        return None if name is None else self.root / name

    @property
    def _recaption_cache(self) -> CaptionCache:
        cache = self.caches.project or self.caches.own
        assert cache is not None
        return cache


def status(root: Path, config: Config) -> dict[str, Any]:
    """Count the captions of a catalogue by captioner, and the recorded outcomes by state."""
    states: Counter[str] = Counter()
    shared = shared_captioners()
    with (
        Catalogue.open(root, config) as catalogue,
        Caches(root / CACHE, project_cache(config), write=False, ledger=Ledger(cache_folder(config))) as caches,
    ):
        total, by_captioner = catalogue.items.count_captioned()
        for photo in caches.photos():
            places = [Place(photo, name, box) for name, box in catalogue.items.garments_of(photo)]
            for outcome in filter(None, (caches.find(place, name) for place in places for name in shared)):
                is_retryable = outcome.state == "failed" and outcome.retryable
                states["failed, retryable" if is_retryable else outcome.state] += 1
    captioned = {name: count for name, count in sorted(by_captioner.items()) if name not in ("", "none")}
    return {
        "garments": total,
        "captioned": captioned,
        "without": total - sum(captioned.values()),
        "states": dict(sorted(states.items())),
    }


def _place(job: Job) -> Any:
    return job.key
