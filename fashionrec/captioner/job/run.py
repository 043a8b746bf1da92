"""Captions of a catalogue, made one request after another, or by the catalogue's own encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fashionrec.captioner.cost import Meter, Price, Tokens, dollars
from fashionrec.captioner.job.caches import CACHE, SPOOL, Caches, Recorder, project_cache
from fashionrec.captioner.job.garments import Garment, Pictures, Plan, Recaption, make_plan
from fashionrec.captioner.job.local import local_captioner
from fashionrec.captioner.job.publish import publish
from fashionrec.captioner.ledger import Ledger
from fashionrec.captioner.openai.remote import Job
from fashionrec.captioner.openai.tokens import estimate
from fashionrec.catalogue.build.tuning import cache_folder
from fashionrec.catalogue.catalogue import Catalogue
from fashionrec.common.files import locked
from fashionrec.store import generations

if TYPE_CHECKING:
    from fashionrec.captioner.cache import CaptionCache
    from fashionrec.captioner.openai.remote import OpenAICaptioner
    from fashionrec.captioner.outcome import Outcome
    from fashionrec.config import Config

_CHEAPEST = 0.25  # a caption takes at least this share of what is estimated, whatever a file says
_BATCH = 64  # garments that the local captioner describes together


class Progress(Protocol):
    def __call__(self, done: int, total: int, note: str = "", *, detail: str = "") -> None: ...


def caption_catalogue(
    root: Path,
    config: Config,
    *,
    remote: OpenAICaptioner | None,
    limit: int | None = None,
    again: Collection[str] = (),
    recaption: Recaption | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Describe the garments that have no caption, by ``remote``, else by the local captioner, and serve what is known then.

    ``again`` are states of recorded outcomes that are asked again, ``recaption`` names garments that are asked anew. What will
    be asked and what that is expected to cost is said before the first request; with ``dry_run`` that is all.

    Returns counts: ``asked``, ``made``, ``kept`` (there before), ``reused`` (from a cache), ``failed``, ``left`` (not asked),
    ``states``, ``usage``, ``cost_usd``, ``plan``, and ``stopped`` (``max-cost``, or None). Raises :class:`Busy`, and
    :class:`CaptionError` where no caption at all can be had (a wrong key, an unknown model).
    """
    with opened(root, config, remote, write=not dry_run) as run:
        return run.caption(limit, again, recaption, dry_run, progress, say)


def opened(root: Path, config: Config, remote: OpenAICaptioner | None, *, write: bool = True) -> CatalogueRun:
    """A run on a catalogue, as a context manager: alone, where it writes."""
    return CatalogueRun(root, config, remote, write)


class CatalogueRun:
    """One captioner on one catalogue. Two at once would pay twice: a lock of its own, beside that of the catalogue's writer."""

    def __init__(self, root: Path, config: Config, remote: OpenAICaptioner | None, write: bool) -> None:
        self.root, self.config, self.remote, self._write = root, config, remote, write
        self.kind = "local" if remote is None else "openai"

    def __enter__(self) -> CatalogueRun:
        generations.read_current(self.root)  # before the lock, which would make the folder
        with ExitStack() as stack:
            if self._write:
                with generations.told_of_the_disk(self.root):
                    stack.enter_context(locked(self.root / ".captions.lock", f"is captioning {self.root}"))
            self.catalogue = stack.enter_context(Catalogue.open(self.root, self.config))
            project = None if self.remote is None else project_cache(self.config)
            ledger = Ledger(cache_folder(self.config))
            self.caches = stack.enter_context(Caches(self.root / CACHE, project, write=self._write, ledger=ledger))
            # what an encoder says of a garment is its own; what an API said holds whatever model said it
            self.model = self.catalogue.embedder_bundle.fingerprint if self.remote is None else None
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def plan(
        self, limit: int | None = None, again: Collection[str] = (), recaption: Recaption | None = None
    ) -> tuple[Plan, Recaption | None]:
        """What there is to do. What is asked anew keeps the moment when that began, until all of it has been."""
        if self.remote is not None and self._write:
            self.caches.recover(self.remote, self._spool)
        if recaption is not None:
            recaption.check(self.catalogue)
        if recaption is not None and self._write:
            recaption = replace(recaption, since=self._keeper.recaption(self._what(recaption)))
        chosen = make_plan(
            self.catalogue, self.caches, self.kind, model=self.model, again=again, recaption=recaption, limit=limit
        )
        return chosen, recaption

    def meter(self, plan: Plan, say: Callable[[str], None], *, batch: bool = False) -> tuple[Meter, dict[str, Any]]:
        """What the plan is expected to cost, said and as a document, and what counts it."""
        asked = len(plan.todo)
        document: dict[str, Any] = {"new": plan.missing, "to_ask": asked, "captioned": plan.kept, "cached": plan.reused}
        say(
            f"{asked} garments to ask"
            + (f" of {plan.missing} without a caption" if plan.missing > asked else "")
            + f"; {plan.kept} have one, {plan.reused} are known from before"
        )
        if self.remote is None:
            return Meter(Price(0.0, 0.0), Tokens(0, 0)), {**document, "expected_cost_usd": 0.0}
        price = Price.of(self.remote.entry, batch=batch)
        each = self._tokens()
        meter = Meter(price, each, self.config.captioner.max_cost)
        cost = meter.cost_of(asked)
        how = f"measured on {each.measured} answers" if each.measured else "estimated"
        if asked:
            say(
                f"expected: {asked} x ({each.input:.0f} tokens in, {each.output:.0f} out; {how}) = {dollars(cost)}"
                + (" as a batch" if batch else "")
                + (f", at most {dollars(meter.cap)}" if meter.cap is not None else "")
            )
        document |= {
            "tokens_each": {"input": round(each.input, 1), "output": round(each.output, 1), "measured": each.measured},
            "expected_cost_usd": None if cost is None else round(cost, 6),
            "max_cost_usd": meter.cap,
        }
        return meter, document

    def caption(
        self,
        limit: int | None,
        again: Collection[str],
        recaption: Recaption | None,
        dry_run: bool,
        progress: Progress | None,
        say: Callable[[str], None],
    ) -> dict[str, Any]:
        plan, recaption = self.plan(limit, again, recaption)
        meter, document = self.meter(plan, say)
        report: dict[str, Any] = {
            "captioner": self.kind,
            "model": self.config.captioner.model if self.remote is not None else self.model,
            "asked": 0,
            "made": 0,
            "kept": plan.kept,
            "reused": plan.reused,
            "failed": 0,
            "dry_run": dry_run,
            "plan": document,
        }
        states = Counter(plan.states)
        if not dry_run:
            try:
                for outcome in self._outcomes(plan, meter, progress):
                    states[outcome.state] += 1
                    report["asked"] += 1
                    report["made" if outcome.description is not None else "failed"] += 1
            finally:
                report |= self.publish([recaption] if recaption is not None else [])
        left = plan.missing - report["asked"]
        if recaption is not None and not left and not dry_run:
            self.recaptioned(recaption)
        spent = meter.spent
        return report | {
            "left": left,
            "stopped": "max-cost" if meter.stopped else None,
            "states": dict(states),
            "usage": dict(meter.usage),
            "cost_usd": None if spent is None else round(spent, 6),
        }

    def publish(self, recaptions: Sequence[Recaption]) -> dict[str, int]:
        """Serve what is known by now."""
        return publish(self.root, self.config, self.caches, self.kind, model=self.model, recaptions=recaptions)

    def unfinished(self) -> list[Recaption]:
        """What was to be asked anew by this captioner, and has not been wholly."""
        prefix = self._what(Recaption(""))
        known = self._keeper.recaptions()
        return [Recaption(what[len(prefix) :], since) for what, since in known.items() if what.startswith(prefix)]

    def recaptioned(self, recaption: Recaption) -> None:
        """All of it has been asked anew."""
        self._keeper.recaptioned(self._what(recaption))

    def _outcomes(self, plan: Plan, meter: Meter, progress: Progress | None) -> Iterator[Outcome]:
        """Outcomes as they come, recorded before they are told."""
        made = self._local(plan.todo) if self.remote is None else self._remote(plan.todo, meter)
        done, total = 0, len(plan.todo)
        with closing(made):
            for group in made:
                done += len(group)
                if progress and group:
                    progress(done, total, detail=self._money(meter, total - done))
                yield from group

    def _money(self, meter: Meter, left: int) -> str:
        spent, rest = meter.spent, meter.cost_of(left)
        if self.remote is None or spent is None or rest is None:
            return ""
        return f"{dollars(spent)} of {dollars(spent + rest)}"

    def _remote(self, todo: Sequence[Garment], meter: Meter) -> Generator[list[Outcome], None, None]:
        assert self.remote is not None
        if not todo:
            return
        pictures = Pictures(self.catalogue, self.config.captioner.image_side)
        jobs = (
            Job(garment.place, garment.place.class_name, lambda stored=garment.stored: pictures(stored))  # type: ignore[misc]
            for garment in todo
        )
        recorder = Recorder(self.caches, self.remote, _place, self._spool if self.caches.ledger.can_sign() else None)
        each = meter.each
        came = self.remote.stream(
            jobs,
            most=len(todo),
            tokens=each.input + each.output,
            meter=meter,
            arrived=recorder.arrived,
        )
        try:
            with closing(came):
                for group in came:
                    yield [outcome for _, outcome in recorder.take(group)]
        finally:
            recorder.finish()

    def _local(self, todo: Sequence[Garment]) -> Generator[list[Outcome], None, None]:
        captioner = local_captioner(self.catalogue, self.config)
        images = self.catalogue.images
        for start in range(0, len(todo), _BATCH):
            part = todo[start : start + _BATCH]
            vectors = images.fetch([images.position(*garment.stored.image_at) for garment in part])
            outcomes = captioner.describe_vectors(vectors, [garment.place.class_name for garment in part])
            self.caches.put([(*garment.place, outcome) for garment, outcome in zip(part, outcomes, strict=True)])
            yield outcomes

    def _tokens(self) -> Tokens:
        """What one caption takes: by the last answers of this model, where there are enough, else an estimate."""
        assert self.remote is not None
        guess = estimate(self.config.captioner, self.remote.entry, self.remote.vocabulary)
        if self.caches.project is not None:  # a catalogue of somebody else could tell that they cost nothing
            count, inputs, outputs = self.caches.project.mean_usage(self.config.captioner.model)
            if count >= 10:
                return Tokens(max(inputs, guess.input * _CHEAPEST), max(outputs, guess.output * _CHEAPEST), count)
        return guess

    def _what(self, recaption: Recaption) -> str:
        """What is asked anew, told apart from the same of another catalogue or captioner."""
        model = self.config.captioner.model if self.remote is not None else "-"
        return f"{self.root.resolve()}\n{self.kind}\n{model}\n{recaption.what}"

    @property
    def _spool(self) -> Path:
        return self.root / SPOOL

    @property
    def _keeper(self) -> CaptionCache:
        keeper = self.caches.project or self.caches.own
        assert keeper is not None
        return keeper


def status(root: Path, config: Config) -> dict[str, Any]:
    """How many garments of a catalogue have a caption, by whom, and what became of the others."""
    from fashionrec.captioner.job.garments import garments

    captioned: Counter[str] = Counter()
    states: Counter[str] = Counter()
    with (
        Catalogue.open(root, config) as catalogue,
        Caches(root / CACHE, project_cache(config), write=False, ledger=Ledger(cache_folder(config))) as caches,
    ):
        for garment in garments(catalogue):
            captioned[garment.captioner or "none"] += 1
            known = caches.find(garment.place, "openai")
            if known is not None:
                states[known.state if known.state != "failed" or not known.retryable else "failed, retryable"] += 1
    return {
        "garments": captioned.total(),
        "captioned": {name: count for name, count in sorted(captioned.items()) if name != "none"},
        "without": captioned["none"],
        "states": dict(sorted(states.items())),
    }


def _place(job: Job) -> Any:
    return job.key
