"""Captions of a catalogue by a captioner that costs something: what is said, counted, recorded and
left, whole.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from captioners import Echo, no_vector
from conftest import two_halves
from PIL import Image

from fashionrec import Catalogue
from fashionrec.captioner.base import Captioner, Job
from fashionrec.captioner.cost import CostMeter, Price, Tokens
from fashionrec.captioner.job import Recaption, caption_catalogue, caption_photos, status
from fashionrec.captioner.job.garments import Pictures
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.schema import attributes, json_schema, parse
from fashionrec.catalogue.build.report import BuildReport
from fashionrec.common.files import sha256_file
from fashionrec.config import CaptionerConfig, Config, load_config
from fashionrec.errors import Busy, CaptionError, UsageError
from fashionrec.store import generations
from fashionrec.store.items import StoredItem
from fashionrec.types import Box

COUNT = 6
SETTINGS = load_config(env={}).config.captioner


class Paid(Echo):
    """An echo that is paid for: each caption is US$ .012.

    The pictures of a width in ``fails`` get no answer.
    """

    costs = True
    sends_photos = True
    fails: tuple[int, ...] = ()

    def price(self, model: str | None = None, *, batch: bool = False) -> Price | None:
        return Price(1e-5, 2e-5)

    def expected_tokens(self) -> Tokens:
        return Tokens(1000, 100)

    def describe_one(self, job: Job) -> Outcome:
        usage = {"input_tokens": 1000, "output_tokens": 100}
        if job.picture().width in self.fails:
            return Outcome(
                "failed", self.name, self.model, error="no", retryable=job.picture().width % 2 == 0, usage=usage
            )
        return dataclasses.replace(super().describe_one(job), usage=usage)


class Unpriced(Paid):
    def price(self, model: str | None = None, *, batch: bool = False) -> Price | None:
        return None


@pytest.fixture
def root(tmp_path: Path, build: Callable[..., BuildReport], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six whole photos, 60 to 65 pixels wide, and a project of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    for n in range(COUNT):
        Image.new("RGB", (60 + n, 70), (40 * n, 90, 60)).save(tmp_path / "p" / f"{n}.png")
    assert build(tmp_path / "p", tmp_path / "c", detect=False).failures == []
    return tmp_path / "c"


def settings(**changes: Any) -> Config:
    config = load_config().config
    return config.model_copy(update={"captioner": config.captioner.model_copy(update=changes)})


def paid(kind: type[Paid] = Paid, **changes: Any) -> Paid:
    return kind(settings(**changes).captioner)


def test_what_is_said_and_counted_before_anything_is_asked(root: Path) -> None:
    said: list[str] = []
    plan = {
        "new": 6, "to_ask": 4, "captioned": 0, "cached": 0,
        "tokens_each": {"input": 1000, "output": 100, "measured": 0}, "expected_cost_usd": 0.048, "max_cost_usd": 0.5,
    }  # fmt: skip
    done = caption_catalogue(root, settings(max_cost=0.5), paid(max_cost=0.5), limit=4, dry_run=True, say=said.append)
    assert said == [
        "4 garments to caption of 6 without a caption; 0 captioned in this catalogue, 0 in the cache",
        "expected: 4 x (1000 tokens in, 100 out; estimated) = US$ 0.0480, at most US$ 0.5000",
    ]
    assert done == {
        "captioner": "echo", "model": "echo-1", "asked": 0, "made": 0, "kept": 0, "reused": 0, "failed": 0, "dry_run": True,
        "plan": plan, "left": 6, "stopped": None, "states": {}, "usage": {"input_tokens": 0, "output_tokens": 0}, "cost_usd": 0.0,
    }  # fmt: skip
    assert sorted(path.name for path in root.iterdir() if path.name.startswith("captions")) == []
    said.clear()
    done = caption_catalogue(root, settings(), paid(Unpriced), dry_run=True, say=said.append)
    assert said[1] == "expected: 6 x (1000 tokens in, 100 out; estimated) = cost unknown"
    assert (done["plan"]["expected_cost_usd"], done["plan"]["max_cost_usd"], done["cost_usd"]) == (None, None, None)
    said.clear()
    done = caption_catalogue(root, settings(), Echo(SETTINGS), dry_run=True, say=said.append)
    assert said == ["6 garments to caption; 0 captioned in this catalogue, 0 in the cache"]
    assert done["plan"] == {"new": 6, "to_ask": 6, "captioned": 0, "cached": 0, "expected_cost_usd": 0.0}


def test_what_is_counted_while_they_are_asked_and_what_is_left(root: Path) -> None:
    ticks: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, note: str = "", *, detail: str = "") -> None:
        ticks.append((done, total, detail))

    Paid.fails = (61, 62)
    try:
        done = caption_catalogue(root, settings(), paid(), limit=5, progress=progress)
    finally:
        Paid.fails = ()
    assert ticks == [(5, 5, "US$ 0.0600 of US$ 0.0600")]
    plan = done.pop("plan")
    assert plan["to_ask"] == 5
    cut = {"published": 3, "texts_cut": 3, "tokens_cut": 6}  # the tiny text tower reads seven tokens
    assert done == {
        "captioner": "echo", "model": "echo-1", "asked": 5, "made": 3, "kept": 0, "reused": 0, "failed": 2, "dry_run": False,
        "left": 1, "stopped": None, "states": {"done": 3, "failed": 2},
        "usage": {"input_tokens": 5000, "output_tokens": 500}, "cost_usd": 0.06, **cut,
    }  # fmt: skip
    said: list[str] = []
    again = caption_catalogue(root, settings(), paid(), say=said.append)
    assert said[0] == "1 garment to caption; 3 captioned in this catalogue, 2 in the cache"
    assert (again["asked"], again["made"], again["kept"], again["reused"], again["left"]) == (1, 1, 3, 2, 0)
    assert again["states"] == {"done": 1, "failed": 2}
    retried = caption_catalogue(root, settings(), paid(), again=("failed",))
    assert (retried["asked"], retried["made"], retried["kept"], retried["published"]) == (2, 2, 4, 2)
    with Catalogue.open(root) as catalogue:
        texts = sorted(stored.captions["en"] for stored in catalogue.items.everything())
        assert texts == [f"an echo of {60 + n} x 70" for n in range(COUNT)]
        assert len(catalogue.captions) == COUNT


def test_no_money_is_told_of_a_captioner_that_costs_nothing(root: Path) -> None:
    ticks: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, note: str = "", *, detail: str = "") -> None:
        ticks.append((done, total, detail))

    caption_catalogue(root, settings(), Echo(SETTINGS), progress=progress)
    assert ticks == [(COUNT, COUNT, "")]
    ticks.clear()
    done = caption_catalogue(root, settings(), paid(Unpriced), recaption=Recaption("all"), limit=2, progress=progress)
    assert (ticks, done["cost_usd"]) == ([(2, 2, "")], None)  # nor of one whose price is not known


def test_no_more_is_spent_than_may_be(root: Path) -> None:
    done = caption_catalogue(root, settings(max_cost=0.03), paid(max_cost=0.03))
    assert (done["asked"], done["left"], done["stopped"], done["cost_usd"]) == (2, 4, "max-cost", 0.024)


def test_what_was_measured_is_expected_of_the_next(root: Path) -> None:
    with Catalogue.open(root) as catalogue:
        places = [(stored.photo, stored.item.class_name, stored.item.box) for stored in catalogue.items.everything()]
    from fashionrec.captioner.cache import CaptionCache
    from fashionrec.captioner.job.caches import project_cache

    path = project_cache(settings())
    path.parent.mkdir(parents=True, exist_ok=True)
    with CaptionCache(path) as cache:
        for n in range(12):
            usage = {"input_tokens": 500 + (n == 0), "output_tokens": 2}
            cache.put(f"{n:064}", "top", places[0][2], Outcome("refused", "echo", "echo-1", error="no", usage=usage))
    said: list[str] = []
    done = caption_catalogue(root, settings(), paid(), dry_run=True, say=said.append)
    # of the tokens out a quarter of what is estimated is expected at least
    assert said[1] == "expected: 6 x (500 tokens in, 25 out; measured on 12 answers) = US$ 0.0330"
    assert done["plan"]["tokens_each"] == {"input": 500.1, "output": 25.0, "measured": 12}
    assert done["plan"]["expected_cost_usd"] == 0.033005  # and no more digits


def test_how_many_have_a_caption_and_what_became_of_the_others(root: Path) -> None:
    config = settings()
    assert status(root, config) == {"garments": COUNT, "captioned": {}, "without": COUNT, "states": {}}
    caption_catalogue(root, config, paid(), limit=2)
    assert status(root, config) == {"garments": COUNT, "captioned": {"echo": 2}, "without": 4, "states": {}}
    caption_catalogue(root, config, paid(), limit=3)
    for n, name in enumerate(("none", "", "zeta", "alpha"), 1):
        alter(root, "UPDATE captions SET captioner = ? WHERE garment_no = ?", name, n)
    alter(root, "DELETE FROM totals")
    found = status(root, config)
    assert found == {"garments": COUNT, "captioned": {"alpha": 1, "echo": 1, "zeta": 1}, "without": 3, "states": {}}
    assert list(found["captioned"]) == ["alpha", "echo", "zeta"]


def alter(root: Path, sql: str, *values: object) -> None:
    """Change the items of the generation that is served."""
    served = generations.read_current(root)
    for path in filter(None, (served.items_path, served.changes_path)):
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(sql, values)


def test_to_look_makes_no_file(root: Path) -> None:
    before = sorted(root.parent.rglob("*"))
    status(root, settings())
    assert sorted(root.parent.rglob("*")) == before


def test_how_many_is_told_without_a_look_at_the_items(root: Path) -> None:
    from fashionrec.captioner.cache import CaptionCache
    from fashionrec.captioner.job.caches import project_cache

    config = settings()
    with Catalogue.open(root) as catalogue:
        shown = sorted(
            (stored.photo, stored.item.class_name, stored.item.box) for stored in catalogue.items.everything()
        )
    refused = Outcome("refused", "openai", "m", error="no")
    failed = Outcome("failed", "openai", "m", error="late", retryable=True)
    path = project_cache(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    with CaptionCache(path) as project, CaptionCache(root / "captions.sqlite") as own:
        project.put(*shown[0], refused)
        project.put("0" * 64, "top", shown[0][2], refused)  # of another catalogue
        own.put(*shown[0], failed)  # the project's goes before it
        own.put(*shown[1], failed)
        own.put(*shown[2], dataclasses.replace(failed, retryable=False))
        own.put(*shown[3], dataclasses.replace(failed, state="filtered"))
    alter(root, "UPDATE entries SET metadata = 'a look at an item fails'")
    states = {"failed": 1, "failed, retryable": 1, "filtered": 1, "refused": 1}
    found = status(root, config)
    assert found == {"garments": COUNT, "captioned": {}, "without": COUNT, "states": states}
    assert list(found["states"]) == list(states)


# -- what is asked anew


@pytest.mark.parametrize(
    ("text", "what"),
    [("top", "top"), (" b , a,b,", "a,b"), ("top,all", "all"), ("all", "all"), ("P1, skirt", "P1,skirt")],
)
def test_what_is_named_to_be_asked_anew(text: str, what: str) -> None:
    assert Recaption.parse(text) == Recaption(what)


def test_names_that_mean_nothing(root: Path) -> None:
    for text in ("", " , "):
        with pytest.raises(UsageError) as caught:
            Recaption.parse(text)
        assert str(caught.value) == "--recaption is empty"
        assert caught.value.hint == "give --recaption all, or classes, products or items: top,P123"
    with Catalogue.open(root) as catalogue:
        stored = list(catalogue.items.everything())
        some = Recaption(f"{stored[1].item.product_id},{stored[3].item.item_id},dress")
        some.check(catalogue)
        assert some.numbers(catalogue) == {stored[1].garment_no, stored[3].garment_no}
        assert Recaption("all").numbers(catalogue) is None
        wrong = Recaption(f"zz,{stored[1].item.product_id},nothing")
        assert wrong.numbers(catalogue) == {stored[1].garment_no}
        with pytest.raises(UsageError) as caught:
            wrong.check(catalogue)
        assert str(caught.value) == f"--recaption: {root} has no class, product or item 'nothing'"
        assert caught.value.hint == "give --recaption all, or classes, products or items: top,P123"


def test_what_is_asked_anew_replaces_what_was_there(root: Path) -> None:
    class Newer(Paid):
        def describe_one(self, job: Job) -> Outcome:
            outcome = super().describe_one(job)
            assert outcome.description is not None
            return dataclasses.replace(outcome, description=outcome.description.model_copy(update={"color": "blue"}))

    def colours() -> list[str]:
        with Catalogue.open(root) as catalogue:
            return [stored.item.attributes.get("color", "") for stored in catalogue.items.everything()]

    caption_catalogue(root, settings(), paid())
    with Catalogue.open(root) as catalogue:
        chosen = next(iter(catalogue.items.everything())).item.product_id
    done = caption_catalogue(root, settings(), paid(Newer), recaption=Recaption(chosen))
    assert (done["asked"], done["kept"], done["published"], done["left"]) == (1, 5, 1, 0)
    assert colours() == ["blue"] + ["red"] * 5
    part = caption_catalogue(root, settings(), paid(Newer), recaption=Recaption("all"), limit=2)
    assert (part["asked"], part["left"], part["published"]) == (2, 4, 2)
    rest = caption_catalogue(root, settings(), paid(Newer), recaption=Recaption("all"))
    assert (rest["asked"], rest["reused"], rest["left"]) == (4, 2, 0)
    assert colours() == ["blue"] * 6
    plan = caption_catalogue(root, settings(), paid(), recaption=Recaption("all"), dry_run=True)["plan"]
    assert (plan["new"], plan["to_ask"], plan["captioned"], plan["cached"]) == (6, 6, 0, 0)


def test_what_an_earlier_version_began_to_ask_an_encoder_anew_goes_on(root: Path) -> None:
    """Its file names a recaption by the catalogue, the captioner, its model (``-`` for the encoder)
    and what is asked.
    """
    from fashionrec.captioner.cache import CaptionCache
    from fashionrec.captioner.job.caches import CACHE

    class ByEncoder(Echo):
        from_encoder = True

    with CaptionCache(root / CACHE) as cache:
        cache.recaption(f"{root.resolve()}\necho\n-\nall")
    caption_catalogue(root, settings(), ByEncoder(SETTINGS), limit=2)
    done = caption_catalogue(root, settings(), ByEncoder(SETTINGS), recaption=Recaption("all"))
    assert (done["asked"], done["reused"], done["left"]) == (COUNT - 2, 2, 0)
    with CaptionCache(root / CACHE) as cache:
        assert cache.recaptions() == {}


def test_answers_are_not_written_down_where_they_cannot_be_signed(root: Path, tmp_path: Path) -> None:
    class Spooled(Paid):
        spool_file = ".captions.arrived"

        def describe_one(self, job: Job) -> Outcome:
            spools.append((root / self.spool_file).exists())
            return super().describe_one(job)

    config, spools = settings(), list[bool]()
    caption_catalogue(root, config, paid(Spooled), limit=1)
    (tmp_path / "no-folder").write_text("")
    project = config.project.model_copy(update={"cache": str(tmp_path / "no-folder")})
    done = caption_catalogue(root, config.model_copy(update={"project": project}), paid(Spooled), limit=1)
    assert (done["made"], spools) == (1, [True, False])


@pytest.mark.parametrize("error", [CaptionError("the key is wrong"), KeyboardInterrupt()])
def test_what_came_before_an_error_is_recorded_and_not_paid_again(root: Path, error: BaseException) -> None:
    class Stops(Paid):
        def describe_one(self, job: Job) -> Outcome:
            if job.picture().width == 63:
                raise error
            return super().describe_one(job)

    with pytest.raises(type(error)):
        caption_catalogue(root, settings(), paid(Stops))
    rest = caption_catalogue(root, settings(), paid())
    assert (rest["kept"], rest["asked"], rest["left"]) == (3, 3, 0)


# -- pictures and photos


def test_a_picture_is_cut_from_the_photo_and_else_is_the_thumbnail(root: Path, tmp_path: Path) -> None:
    with Catalogue.open(root) as catalogue:
        first, second, third = list(catalogue.items.everything())[:3]
        photos = {
            stored.item.product_id: tmp_path / "p" / Path(stored.item.image).name for stored in (first, second, third)
        }
        pictures = Pictures(catalogue, 64)
        assert pictures(first).size == Image.open(photos[first.item.product_id]).size
        photos[second.item.product_id].unlink()
        Image.new("RGB", (90, 10), "blue").save(photos[third.item.product_id])
        for stored in (second, third):
            thumbnail = pictures(stored)
            assert thumbnail.size != (90, 10)
            assert thumbnail.mode == "RGB"


def test_a_large_photo_is_decoded_as_far_as_its_garments_need(root: Path, tmp_path: Path) -> None:
    Image.new("RGB", (800, 600), "red").save(tmp_path / "large.jpg")
    digest = sha256_file(tmp_path / "large.jpg")
    with Catalogue.open(root) as catalogue:
        stored = next(iter(catalogue.items.everything()))

        def garment(box: Box) -> StoredItem:
            item = dataclasses.replace(stored.item, image="large.jpg", box=box)
            return stored._replace(base=str(tmp_path), photo=digest, item=item)

        whole, part = garment(Box(0, 0, 800, 600)), garment(Box(100, 100, 200, 180))
        pictures = Pictures(catalogue, 64)
        sizes = [pictures(one).size for one in (whole, part, whole)]
        (tmp_path / "large.jpg").unlink()  # the photo that was read last is at hand
        sizes += [pictures(one).size for one in (part, whole)]
        margin = round(catalogue.crop.margin * 100)
    small, all_of_it = (100 + 2 * margin, 80 + 2 * margin), (800, 600)
    assert sizes == [(200, 150), small, all_of_it, small, all_of_it]


def test_the_document_of_photos(root: Path, tmp_path: Path) -> None:
    two_halves(tmp_path / "q.png", "red", "blue", (80, 40))
    with Catalogue.open(root) as catalogue:
        documents, failed = caption_photos(
            catalogue, Echo(SETTINGS), [str(tmp_path / "q.png"), str(tmp_path / "gone.png")]
        )
    assert failed == 1
    one, gone = documents
    error = gone.pop("error")
    assert str(tmp_path / "gone.png") in error
    assert gone == {"photo": str(tmp_path / "gone.png"), "reason": "missing", "garments": []}
    assert (one["photo"], one["error"], one["reason"]) == (str(tmp_path / "q.png"), None, None)
    assert [garment.pop("box") for garment in one["garments"]]
    names = [garment["class_name"] for garment in one["garments"]]
    for n, garment in enumerate(one["garments"]):
        said = garment.pop("caption_en")
        assert said.startswith("an echo of ")
        assert garment == {
            "index": n, "class_name": names[n], "state": "done", "captioner": "echo", "model": "echo-1",
            "caption_ko": "메아리", "attributes": {"category": names[n] or "top", "color": "red"}, "error": None,
        }  # fmt: skip
    assert (one["outfit"] is None) is (len(names) < 2)


def test_what_is_told_of_a_photo_whose_garment_gets_no_answer(root: Path, tmp_path: Path) -> None:
    Image.new("RGB", (90, 41), "red").save(tmp_path / "q.png")
    asked: list[int] = []

    class Failing(Paid):
        def describe_one(self, job: Job) -> Outcome:
            asked.append(job.picture().width)
            return dataclasses.replace(super().describe_one(job), state="filtered", description=None, error="no")

    with Catalogue.open(root) as catalogue:
        documents, failed = caption_photos(catalogue, paid(Failing), [str(tmp_path / "q.png")])
        again, _ = caption_photos(catalogue, paid(Failing), [str(tmp_path / "q.png")])
        free, _ = caption_photos(catalogue, Echo(SETTINGS), [str(tmp_path / "q.png")])
    row = {
        "index": 0, "class_name": None, "box": [0.0, 0.0, 90.0, 41.0], "state": "filtered",
        "captioner": "echo", "model": "echo-1", "caption_en": None, "caption_ko": None, "attributes": {}, "error": "no",
    }  # fmt: skip
    document = {"photo": str(tmp_path / "q.png"), "error": None, "reason": None, "garments": [row], "outfit": None}
    assert (documents, failed) == ([document], 1)
    assert (again, len(asked)) == ([document], 1)  # it is recorded, and not paid for again
    assert free == [document]


def test_photos_described_by_the_encoder_are_recorded_nowhere(root: Path, tmp_path: Path) -> None:
    class ByEncoder(Echo):
        from_encoder = True

    Image.new("RGB", (90, 40), "red").save(tmp_path / "q.png")
    before = sorted(tmp_path.rglob("*"))
    with Catalogue.open(root) as catalogue:
        documents, failed = caption_photos(catalogue, ByEncoder(SETTINGS), [str(tmp_path / "q.png")])
    assert (documents[0]["garments"][0]["state"], failed) == ("done", 0)
    assert sorted(tmp_path.rglob("*")) == before


# -- what a captioner is by itself


def test_what_a_new_captioner_has_of_itself(tmp_path: Path) -> None:
    made = Echo(SETTINGS)
    assert (made.label, made.notice(ask=True), made.only_model) == ("the echo, echo-1", "", None)
    assert Paid(SETTINGS).label == "the echo, echo-1 (the crops are sent there)"
    assert (made.price(), made.expected_tokens()) == (Price(0.0, 0.0), Tokens(0, 0))
    assert (made.sends_photos, made.costs, made.from_encoder) == (False, False, False)
    assert (made.spool_file, made.batch_folder) == (None, None)
    assert made.bind(None) is made  # type: ignore[arg-type]
    assert not made.is_ready()
    assert [made.keeps(name) for name in ("echo", "local", None)] == [True, False, False]
    under_way = Echo.under_way(tmp_path, None)  # type: ignore[arg-type]
    assert (list(under_way.places), under_way.unsent, Echo.open_batches(tmp_path)) == ([], 0, [])
    usage = {"input_tokens": 1, "output_tokens": 2}
    wrong = made.read_text("no JSON", "top", model="m", usage=usage)
    assert wrong == Outcome("invalid", "echo", "m", raw="no JSON", usage=usage, error="the answer is not JSON")
    given = dict.fromkeys(json_schema("top", made.vocabulary)["properties"], "unknown")
    said = {"category": "top", "caption_en": "A navy top", "caption_ko": "상의", "confidence": 0.5}
    text = json.dumps(given | said)
    right = made.read_text(text, "top", model="m", usage=usage)
    assert right == Outcome("done", "echo", "m", raw=text, usage=usage, description=parse(text, "top", made.vocabulary))

    class ByEncoder(Echo):
        from_encoder = True

    encoder = ByEncoder(SETTINGS)
    assert encoder.only_model == "echo-1"
    assert [encoder.keeps(name) for name in ("echo", "openai", None)] == [True, True, False]


def jobs(count: int) -> list[Job]:
    picture = Image.new("RGB", (4, 5))
    return [Job(n, "top", lambda: picture, no_vector) for n in range(count)]


def described(made: Captioner, count: int, meter: CostMeter | None = None) -> list[list[int]]:
    return [[int(str(one.job.key)) for one in group] for group in made.describe(jobs(count), meter=meter)]


def test_outcomes_come_in_groups_and_stop_where_no_more_may_be_spent() -> None:
    made = Echo(SETTINGS)
    assert described(made, 130) == [[*range(64)], [*range(64, 128)], [128, 129]]
    assert described(made, 64) == [[*range(64)]]
    assert described(made, 0) == []
    config: CaptionerConfig = SETTINGS
    meter = CostMeter(Price(1e-5, 2e-5), Tokens(1000, 100), cap=0.04)
    assert described(Paid(config), 9, meter) == [[0, 1, 2]]
    assert (meter.stopped, meter.usage) == (True, {"input_tokens": 3000, "output_tokens": 300})
    (group,) = made.describe(jobs(1))
    assert group[0].arrived is False
    found = group[0].outcome.description
    assert found is not None
    assert attributes(found) == {"category": "top", "color": "red"}
    assert found.caption_en == "an echo of 4 x 5"


def test_outcomes_are_given_out_after_a_second_however_few(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 7.0

    class Slow(Echo):
        def describe_one(self, job: Job) -> Outcome:
            nonlocal moment
            moment += 0.5
            return super().describe_one(job)

    monkeypatch.setattr("time.monotonic", lambda: moment)
    assert described(Slow(SETTINGS), 7) == [[0, 1, 2], [3, 4, 5], [6]]


def test_captions_are_served_when_a_build_has_ended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, sleeps = ExitStack(), [0.0]

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        build.close()

    monkeypatch.setattr("time.sleep", sleep)
    build.enter_context(generations.writer_lock(root))
    assert caption_catalogue(root, settings(), paid(), limit=1)["published"] == 1
    assert sleeps == [0.0, 0.5]


def test_captions_are_left_for_the_next_run_where_a_build_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 7.0

    def sleep(seconds: float) -> None:
        nonlocal moment
        moment += seconds

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: moment)
    with generations.writer_lock(root), pytest.raises(Busy) as caught:
        caption_catalogue(root, settings(), paid(), limit=1)
    assert str(caught.value) == f"another process is writing {root}"
    assert caught.value.hint == "the captions are recorded: run `fashionrec caption` again later to publish them"
    assert 60.0 < moment - 7.0 < 62.0
    done = caption_catalogue(root, settings(), paid(), limit=0)
    assert (done["reused"], done["published"]) == (1, 1)


def test_what_is_published_of_what_was_asked_anew(root: Path) -> None:
    """Captions since the earliest of the moments that a garment was asked anew for; none of those
    that were not.
    """
    from fashionrec.captioner.job.caches import CACHE, Caches, project_cache
    from fashionrec.captioner.job.publish import publish

    caption_catalogue(root, settings(), paid())
    with Catalogue.open(root) as catalogue:
        first = next(iter(catalogue.items.everything())).item.product_id
    early, late = "2000-01-01", "9999-01-01"
    nothing = {"published": 0, "texts_cut": 0, "tokens_cut": 0}
    with Caches(root / CACHE, project_cache(settings())) as caches:
        for recaptions, count in (
            ([], 0),
            ([Recaption("all", late)], 0),
            ([Recaption("all", early), Recaption("all", late)], COUNT),
            ([Recaption("all", late), Recaption(first, early)], 1),
            ([Recaption("all", None)], COUNT),
        ):
            done = publish(root, settings(), caches, paid(), recaptions=recaptions)
            assert done["published"] == count, recaptions
            assert count or done == nothing
