"""Captions in batches, step by step: what is told while they are under way, and the document,
whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from captioners import Echo
from PIL import Image

from fashionrec.captioner.base import BatchProgress, UnderWay
from fashionrec.captioner.cache import Place
from fashionrec.captioner.cost import Price, Tokens
from fashionrec.captioner.job import Recaption
from fashionrec.captioner.job.batches import caption_in_batches, pending_batches
from fashionrec.captioner.ledger import Ledger
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.schema import Description
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.config import Config, load_config

COUNT = 6
USAGE = {"input_tokens": 1000, "output_tokens": 100}
DONE = Description(category="top", color="red", caption_en="a red top", caption_ko="셔츠", confidence=1.0)


@dataclass
class Script:
    """Batches that a test plays: each step records so many answers, of which those of a state, and
    says how it stands.
    """

    steps: list[tuple[Sequence[str], BatchProgress]] = field(default_factory=list)
    known: list[Place] = field(default_factory=list)
    planned: int = 0
    given_up: int = 0
    model: str = "echo-1"
    sizes: list[Any] = field(default_factory=list)
    added: list[Place] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)


class Batched(Echo):
    """An echo with batches:

    US$ .012 a caption, half of that in a batch; the price of another model is not known.
    """

    costs = True
    batch_folder = "played"
    script = Script()

    def price(self, model: str | None = None, *, batch: bool = False) -> Price | None:
        return Price(0.5e-5, 1e-5) if batch and model in (None, "echo-1") else None

    def expected_tokens(self) -> Tokens:
        return Tokens(1000, 100)

    @classmethod
    def under_way(cls, folder: Path, ledger: Ledger) -> UnderWay:
        return UnderWay(cls.script.known, len(cls.script.known))

    @contextmanager
    def batches(
        self,
        folder: Path,
        *,
        picture: Callable[[Place], Image.Image | None],
        record: Callable[[Sequence[tuple[Place, Outcome]]], None],
        ledger: Ledger,
        most: int | None = None,
    ) -> Iterator[Played]:
        self.script.calls.append((folder.name, most))
        yield Played(self.script, record, picture)
        self.script.calls.append("left")


@dataclass
class Played:
    script: Script
    record: Callable[[Sequence[tuple[Place, Outcome]]], None]
    picture: Callable[[Place], Image.Image | None]

    def add(self, places: Iterable[Place]) -> int:
        self.script.added += places
        for place in (*self.script.added[:2], *(one._replace(class_name="top") for one in self.script.added[:1])):
            picture = self.picture(place)
            self.script.sizes.append(None if picture is None else picture.size)
        return len(self.script.added)

    def planned_requests(self) -> int:
        return self.script.planned

    def discard_unsent(self) -> int:
        self.script.calls.append("discard")
        return self.script.given_up

    def advance(self) -> BatchProgress:
        states, progress = self.script.steps.pop(0)
        waiting = [*self.script.known, *self.script.added]
        found = []
        for state in states:
            described = DONE if state == "done" else None
            outcome = Outcome(state, "echo", self.script.model, description=described, raw="{}", usage=USAGE)
            found.append((waiting.pop(0), outcome))
        self.script.known, self.script.added = [], waiting
        self.record(found)
        return progress


@pytest.fixture
def root(tmp_path: Path, build: Callable[..., BuildReport], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six whole photos, in a project of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    for n in range(COUNT):
        Image.new("RGB", (60 + n, 70), (40 * n, 90, 60)).save(tmp_path / "p" / f"{n}.png")
    assert build(tmp_path / "p", tmp_path / "c", detect=False).failures == []
    return tmp_path / "c"


def settings(poll: float = 0.0, **changes: Any) -> Config:
    config = load_config(env={}).config
    batch = config.captioner.batch.model_copy(update={"poll": poll})
    return config.model_copy(update={"captioner": config.captioner.model_copy(update={"batch": batch, **changes})})


@pytest.fixture
def play(root: Path) -> Callable[..., tuple[dict[str, Any], list[str]]]:
    def run(script: Script, *, config: Config | None = None, **options: Any) -> tuple[dict[str, Any], list[str]]:
        said: list[str] = []
        config = config or settings()
        captioner: type[Batched] = type("Scripted", (Batched,), {"script": script})
        return caption_in_batches(root, config, captioner(config.captioner), say=said.append, **options), said

    return run


Play = Callable[..., "tuple[dict[str, Any], list[str]]"]
PLAN = {
    "new": 6, "to_ask": 6, "captioned": 0, "cached": 0, "pending": 0,
    "tokens_each": {"input": 1000, "output": 100, "measured": 0}, "expected_cost_usd": 0.036, "max_cost_usd": None,
}  # fmt: skip
SAID = [
    "6 garments to caption; 0 captioned in this catalogue, 0 in the cache",
    "expected: 6 x (1000 tokens in, 100 out; estimated) = US$ 0.0360 as a batch",
]


def test_all_of_it_is_waited_for_and_counted(play: Play) -> None:
    ticks: list[tuple[int, int]] = []
    script = Script(
        [
            ([], BatchProgress(submitted=6, outstanding=6, errors=["slow"])),
            (
                ["done", "refused"],
                BatchProgress(resubmitted=2, duplicates=1, outstanding=4, completed=3, errors=["slow", "e"]),
            ),
            (["done"] * 4, BatchProgress(submitted=1, resubmitted=1, duplicates=4)),
        ]
    )
    done, said = play(script, wait=True, progress=lambda done, total: ticks.append((done, total)))
    # what the server is done with counts as well, though it is not here yet
    assert ticks == [(0, 6), (5, 6), (6, 6)]
    assert said == SAID
    assert script.calls == [("played", None), "left"]
    assert script.sizes == [(60, 70), (61, 70), None]  # there is no such garment of another class
    assert done == {
        "captioner": "echo", "model": "echo-1", "asked": 6, "made": 5, "kept": 0, "reused": 0, "failed": 1,
        "dry_run": False, "plan": PLAN, "left": 0, "stopped": None, "states": {"done": 5, "refused": 1},
        "usage": {"input_tokens": 6000, "output_tokens": 600}, "cost_usd": 0.036,
        "submitted": 7, "resubmitted": 3, "duplicates": 5, "pending": 0, "errors": ["slow", "e"], "batches": [],
        "published": 5, "texts_cut": 0, "tokens_cut": 0,
    }  # fmt: skip


def test_without_waiting_one_step_is_taken(play: Play) -> None:
    script = Script([(["done"], BatchProgress(submitted=6, outstanding=5))])
    done, _ = play(script)
    assert (done["made"], done["pending"], done["left"], done["submitted"], done["published"]) == (1, 5, 0, 6, 1)
    later = Script([(["done"], BatchProgress(outstanding=4, held=3, unplanned=1))], known=script.added)
    # what is held or was planned by nobody is not waited for
    done, said = play(later, wait=True)
    assert (done["asked"], done["pending"], done["left"], done["stopped"], done["made"]) == (0, 4, 3, "max-cost", 1)
    assert done["plan"] == PLAN | {"new": 0, "to_ask": 0, "captioned": 1, "pending": 5, "expected_cost_usd": 0.0}
    assert said == [
        "0 garments to caption; 1 captioned in this catalogue, 0 in the cache",
        "5 garments pending in batches",
        "1 queued garment not sent, because this user did not plan them; run without --resume to send them",
    ]


def test_a_plan_is_all_of_a_dry_run(play: Play, root: Path) -> None:
    script = Script()
    done, said = play(script, dry_run=True, limit=2)
    assert script.calls == []
    assert [path.name for path in root.iterdir() if "captions" in path.name] == []
    assert said[0] == "2 garments to caption of 6 without a caption; 0 captioned in this catalogue, 0 in the cache"
    assert done == {
        "captioner": "echo", "model": "echo-1", "asked": 0, "made": 0, "kept": 0, "reused": 0, "failed": 0,
        "dry_run": True, "plan": PLAN | {"to_ask": 2, "expected_cost_usd": 0.012}, "left": 6, "stopped": None,
        "states": {}, "usage": {"input_tokens": 0, "output_tokens": 0}, "cost_usd": 0.0, "pending": 0, "batches": [],
    }  # fmt: skip
    assert pending_batches(root) == []


def test_no_more_is_planned_than_may_be_paid_for(play: Play) -> None:
    """Each is US$ .006: three are paid for, and one of them is planned already."""
    script = Script([([], BatchProgress(submitted=2, outstanding=2))], planned=1)
    done, said = play(script, config=settings(max_cost=0.02))
    assert script.calls == [("played", 3), "left"]
    assert (done["asked"], done["left"], done["stopped"], done["pending"]) == (2, 4, "max-cost", 2)
    assert said[1].endswith(" = US$ 0.0360 as a batch, at most US$ 0.0200")
    enough = Script([([], BatchProgress())], planned=0)
    assert play(enough, config=settings(max_cost=0.0365))[0]["stopped"] is None
    begun = Script([([], BatchProgress(outstanding=6))], known=script.added)
    done, _ = play(begun, config=settings(max_cost=0.0305))  # two are begun: six are more than five
    assert (done["asked"], done["stopped"], done["plan"]["to_ask"]) == (4, "max-cost", 4)
    over = Script([([], BatchProgress(outstanding=4))], planned=4)
    assert play(over, config=settings(max_cost=0.02))[0]["asked"] == 0


def test_what_may_not_be_sent_is_given_up_on_demand(play: Play) -> None:
    script = Script([([], BatchProgress(outstanding=6))], given_up=4)
    _, said = play(script, discard_unsent=True)
    assert script.calls == [("played", None), "discard", "left"]
    assert said[-1] == "discarded 4 unsent requests; the next run plans their garments again"
    assert play(Script([([], BatchProgress())]), discard_unsent=True)[1] == SAID


def test_what_is_asked_anew_is_so_until_all_of_it_has_been(play: Play) -> None:
    """And no longer: the next time it is asked anew from the beginning."""
    every = Recaption("all")
    play(Script([(["done"] * COUNT, BatchProgress(submitted=COUNT))]))
    begun = Script([(["done"] * 2, BatchProgress(submitted=COUNT, outstanding=4))])
    done, _ = play(begun, recaption=every)
    assert (done["asked"], done["kept"], done["made"], done["published"]) == (6, 0, 2, 2)
    part = Script([(["done"] * 3, BatchProgress(outstanding=1))], known=begun.added)
    done, _ = play(part, resume=True)
    assert (done["asked"], done["pending"], done["published"]) == (0, 1, 5)
    rest = Script([(["done"], BatchProgress())], known=part.added)
    done, _ = play(rest, recaption=every)
    assert (done["asked"], done["reused"], done["states"], done["published"]) == (0, 5, {"done": 6}, 6)
    assert play(Script(), recaption=every, dry_run=True)[0]["plan"]["new"] == COUNT


def test_what_is_known_from_before_is_counted_with_what_comes(play: Play) -> None:
    script = Script([(["refused", "done"], BatchProgress(outstanding=4))])
    play(script)
    done, _ = play(Script([(["done", "refused"], BatchProgress(outstanding=2))], known=script.added))
    assert (done["reused"], done["states"], done["failed"]) == (1, {"refused": 2, "done": 1}, 1)


def test_with_resume_nothing_new_is_asked(play: Play) -> None:
    done, _ = play(Script([([], BatchProgress())]), resume=True)
    assert (done["asked"], done["left"], done["plan"]["new"], done["plan"]["to_ask"]) == (0, 0, 0, 0)


def test_the_cost_of_a_model_without_a_price_is_not_known(play: Play) -> None:
    done, _ = play(Script([(["done"], BatchProgress(outstanding=5))], model="older"))
    assert (done["cost_usd"], done["usage"]) == (None, {"input_tokens": 1000, "output_tokens": 100})


def test_what_was_collected_is_served_though_the_server_fails(play: Play, root: Path) -> None:
    script = Script([(["done"] * 2, BatchProgress(outstanding=4))])
    with pytest.raises(IndexError):  # there is no second step
        play(script, wait=True)
    assert play(Script([([], BatchProgress(outstanding=4))], known=script.added))[0]["kept"] == 2
