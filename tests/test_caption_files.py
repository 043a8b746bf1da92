"""The files that captions are kept in and read from: the two caches, imports, the vocabulary; and
who is chosen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_captioner_cache import BOX, done, other

from fashionrec.captioner.cache import CaptionCache, Place
from fashionrec.captioner.job import Caches, import_captions
from fashionrec.captioner.job.caches import Recorder, project_cache
from fashionrec.captioner.job.known import attribute_columns
from fashionrec.captioner.ledger import Ledger
from fashionrec.captioner.openai.remote import OpenAICaptioner
from fashionrec.captioner.providers import batch_captioners, captioner_class, make_captioner, shared_captioners
from fashionrec.captioner.spool import Spool, SpooledAnswer, read_signed
from fashionrec.captioner.vocabulary import FIELDS, load_vocabulary, vocabulary_of
from fashionrec.config import Config, config_dir, load_config
from fashionrec.errors import CatalogueError, ConfigError
from fashionrec.types import CLASS_NAMES

PHOTO = "a" * 64
PLACE = Place(PHOTO, "top", BOX)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    return load_config(env={}).config


# -- who is chosen


def test_auto_is_the_first_that_is_ready_and_else_the_encoder(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    kinds = {name: captioner_class(name) for name in ("openai", "local")}
    assert type(make_captioner("auto", config.captioner)) is kinds["local"]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert type(make_captioner("auto", config.captioner)) is kinds["openai"]
    assert type(make_captioner("local", config.captioner)) is kinds["local"]
    assert shared_captioners() == ["openai"]
    assert batch_captioners() == [kinds["openai"]]


# -- the two caches


def test_what_is_found_in_either_file(tmp_path: Path) -> None:
    own, project = tmp_path / "c" / "captions.sqlite", tmp_path / "data" / "captions.sqlite"
    own.parent.mkdir()
    with Caches(own, project, ledger=Ledger(tmp_path / "user")) as caches:
        assert caches.own is not None
        assert caches.project is not None
        assert (caches.own.path, caches.project.path) == (own, project)
        caches.own.put(*PLACE, done("navy"))
        caches.project.put(*PLACE, other("refused"))
        assert caches.find(PLACE, "openai") == done("navy")  # a description, whichever file has it
        assert caches.find(PLACE, "openai", again={"refused"}) == done("navy")
        caches.project.put("b" * 64, "top", BOX, other("refused"))
        assert caches.find(Place("b" * 64, "top", BOX), "openai") == other("refused")
        assert caches.find(Place("b" * 64, "top", BOX), "openai", again={"refused"}) is None
        assert caches.find(Place("b" * 64, "top", BOX), "local") is None
        assert caches.find(PLACE, "openai", model="m-2") is None
        caches.project.put(*PLACE, done("red"))
        assert caches.find(PLACE, "openai") == done("red")  # the project's goes before the catalogue's own
        caches.put([("c" * 64, None, BOX, done("green"))])
        for cache in (caches.own, caches.project):
            assert cache.find("c" * 64, None, BOX, "openai") == done("green")
        caches.put([])
        caches.complete([(*PLACE, done("red")), ("c" * 64, None, BOX, done("green"))])
        assert caches.own.find(*PLACE, "openai") == done("red")


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    with Caches(
        tmp_path / "own.sqlite", tmp_path / "p" / "project.sqlite", write=False, ledger=Ledger(tmp_path / "u")
    ) as caches:
        assert (caches.own, caches.project) == (None, None)
        assert caches.find(PLACE, "openai") is None
    assert list(tmp_path.iterdir()) == []


def test_one_file_is_opened_once(tmp_path: Path) -> None:
    path = tmp_path / "captions.sqlite"
    with Caches(path, path, ledger=Ledger(tmp_path / "u")) as caches:
        assert caches.own is None
        assert caches.project is not None


def test_a_catalogues_own_file_is_closed_where_the_projects_cannot_be_opened(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "u")
    (tmp_path / "project.sqlite").write_text("no database")
    with pytest.raises(CatalogueError, match=r"project\.sqlite is damaged"):
        Caches(tmp_path / "own.sqlite", tmp_path / "project.sqlite", ledger=ledger)
    assert ledger.has_written(tmp_path / "own.sqlite")  # recorded as it is closed


@pytest.mark.parametrize("mine", [True, False])
def test_what_a_lost_project_knew_comes_back_from_ones_own_catalogue_alone(mine: bool, tmp_path: Path) -> None:
    own, ledger = tmp_path / "own.sqlite", Ledger(tmp_path / "u")
    if mine:
        with Caches(own, tmp_path / "old.sqlite", ledger=ledger) as caches:
            caches.put([(*PLACE, done("navy"))])
    else:
        with CaptionCache(own) as cache:
            cache.put(*PLACE, done("navy"))
    assert ledger.has_written(own) is mine
    with Caches(own, tmp_path / "new.sqlite", ledger=ledger) as caches:
        assert caches.project is not None
        assert caches.project.find(*PLACE, "openai") == (done("navy") if mine else None)
        caches.put([("b" * 64, "top", BOX, done("red"))])
    assert ledger.has_written(own) is mine


def test_where_the_projects_captions_are(config: Config, tmp_path: Path) -> None:
    def named(cache: str | None) -> Config:
        return config.model_copy(update={"captioner": config.captioner.model_copy(update={"cache": cache})})

    assert project_cache(named(None)).resolve() == tmp_path / "data" / "captions.sqlite"
    assert project_cache(named("x/y.sqlite")) == Path("x/y.sqlite")
    (tmp_path / "data").mkdir()
    for name in ("captions.sqlite", "captions.sqlite-journal", "captions.sqlite-wal", "captions.sqlite-shm"):
        link = tmp_path / "data" / name
        link.symlink_to("elsewhere")
        with pytest.raises(CatalogueError, match=rf"data folder data: {name} is a link"):
            project_cache(named(None))
        link.unlink()


BODY = '{"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "choices": [{"message": {"refusal": "no"}}]}'


def test_answers_that_a_killed_run_had_written_down_are_recorded(config: Config, tmp_path: Path) -> None:
    remote, ledger, spool = OpenAICaptioner(config.captioner), Ledger(tmp_path / "u"), tmp_path / ".captions.arrived"
    with Caches(None, tmp_path / "p.sqlite", ledger=ledger) as caches:
        assert caches.recover(remote, spool) == 0
        writing = Spool(spool, ledger)
        for n in range(2):
            writing.append(SpooledAnswer(Place(f"{n:064}", "top", BOX), "m-1", BODY, 1.5))
        writing.close()  # a killed process holds nothing open
        assert caches.recover(remote, spool) == 2
        assert not spool.exists()
        found = caches.find(Place("0" * 64, "top", BOX), "openai")
        assert found is not None
        assert (found.state, found.model, found.seconds) == ("refused", "m-1", 1.5)
        assert found.usage == {"input_tokens": 3, "output_tokens": 4}
        foreign = Spool(spool, Ledger(tmp_path / "other"))
        foreign.append(SpooledAnswer(PLACE, "m-1", BODY, 1.5))
        with pytest.raises(CatalogueError) as caught:
            caches.recover(remote, spool)
        assert str(caught.value) == f"{spool} has answers that were not written by your runs: they are not used"
        assert caught.value.hint == (
            f"`fashionrec caption --import-captions {tmp_path}` imports the valid ones; or remove the file"
        )
        assert spool.exists()
        assert caches.find(PLACE, "openai") is None


def test_an_answer_is_written_down_until_its_group_is_recorded(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from captioners import no_vector

    from fashionrec.captioner.base import Described, Job

    def no_picture() -> Any:
        raise AssertionError

    job, spool = Job(PLACE, "top", no_picture, no_vector), tmp_path / ".captions.arrived"
    remote, ledger = OpenAICaptioner(config.captioner), Ledger(tmp_path / "u")
    moment = 7.0
    monkeypatch.setattr("time.monotonic", lambda: moment)
    with Caches(tmp_path / "own.sqlite", tmp_path / "p.sqlite", ledger=ledger) as caches:
        recorder = Recorder(caches, remote, lambda job: job.key, spool)
        recorder.arrived(job, BODY, 0.5)
        assert [(one, own) for one, own in read_signed(spool, ledger)] == [
            (SpooledAnswer(PLACE, "gpt-4o", BODY, 0.5), True)
        ]
        outcome = remote.read_answer(BODY, "top", seconds=0.5)
        recorder.take([Described(job, outcome, arrived=True)])
        assert spool.stat().st_size == 0
        assert caches.own is not None
        assert caches.own.find(*PLACE, "openai") is None  # a moment later, with others
        moment += 2.5
        recorder.take([])
        assert caches.own.find(*PLACE, "openai") == outcome
        moment += 2.0
        other = Place("b" * 64, None, BOX)
        recorder.take([Described(Job(other, None, no_picture, no_vector), outcome)])
        assert caches.own.find(*other, "openai") is None
        assert caches.project is not None
        assert caches.project.find(*PLACE, "openai") == outcome
        recorder.finish()
        assert caches.own.find(*other, "openai") == outcome
        assert not spool.exists()
    with Caches(tmp_path / "alone.sqlite", None, ledger=ledger) as caches:
        assert caches.own is not None
        recorder = Recorder(caches, remote, lambda job: PLACE)
        recorder.arrived(job, BODY, 0.5)
        recorder.take([Described(job, outcome)])
        assert caches.own.find(*PLACE, "openai") == outcome  # at once: there is no other file
        recorder.finish()


# -- imports


def test_what_is_imported_by_its_kind(config: Config, tmp_path: Path) -> None:
    source = tmp_path / "theirs"
    source.mkdir()
    content = OpenAICaptioner(config.captioner).body
    import json

    from openai_server import fitting
    from PIL import Image

    raw = json.dumps(fitting(content(Image.new("RGB", (9, 9)), "top")), ensure_ascii=False)
    with CaptionCache(source / "captions.sqlite") as cache:
        cache.put("1" * 64, "top", BOX, done(raw=raw, usage={"input_tokens": 7, "output_tokens": 8}))
        cache.put("2" * 64, "top", BOX, done(raw=raw, model="m-2"))
        cache.put("3" * 64, "top", BOX, other("refused"))
        cache.put("4" * 64, "top", BOX, done(raw="{}"))
        cache.put("5" * 64, "top", BOX, done(raw=raw, captioner="local"))
    with CaptionCache(tmp_path / "known.sqlite") as cache:
        cache.put("2" * 64, "top", BOX, done("red"))
    mine = config.model_copy(
        update={"captioner": config.captioner.model_copy(update={"cache": str(tmp_path / "known.sqlite")})}
    )
    told = {"files": [str(source / "captions.sqlite")], "imported": 1, "known": 1, "other": 1, "refused": {"schema": 1}}
    assert import_captions(source, mine) == told
    assert import_captions(source / "captions.sqlite", mine) == told | {"imported": 0, "known": 2}
    with CaptionCache(tmp_path / "known.sqlite") as cache:
        found = cache.find("1" * 64, "top", BOX, "openai")
        assert found is not None
        assert (found.model, found.raw, found.usage) == ("gpt-4o", raw, {"input_tokens": 7, "output_tokens": 8})
        assert cache.find("2" * 64, "top", BOX, "openai") == done("red")


def test_what_is_imported_has_a_models_name_and_counts_that_may_be(config: Config, tmp_path: Path) -> None:
    """Check what cannot be the tokens of an answer is none: it would make the next ones cheap, or
    dear.
    """
    import json

    from openai_server import fitting
    from PIL import Image

    body = OpenAICaptioner(config.captioner).body(Image.new("RGB", (9, 9)), "top")
    raw = json.dumps(fitting(body), ensure_ascii=False)
    most = 1 << 40
    counts = [(7, 8), (0, most - 1), (-1, 8), (7, most), (7.5, 8)]
    with CaptionCache(tmp_path / "theirs.sqlite") as cache:
        for n in range(len(counts)):
            cache.put(f"{n:064}", None, BOX, done(raw=raw, model="m" * 200))
        for n, model in enumerate(("m" * 201, "", "m\x1b", "m"), 10):
            cache.put(f"{n:064}", "top", BOX, done(raw=raw, model=model))
    with closing(sqlite3.connect(tmp_path / "theirs.sqlite")) as db, db:
        for n, values in enumerate(counts):
            sql = "UPDATE outcomes SET input_tokens = ?, output_tokens = ? WHERE photo_sha256 = ?"
            db.execute(sql, (*values, f"{n:064}"))
        db.execute("UPDATE outcomes SET x1 = 'left' WHERE photo_sha256 = ?", (f"{13:064}",))
    found = import_captions(tmp_path / "theirs.sqlite", config)
    assert (found["imported"], found["refused"]) == (5, {"garment": 1, "model": 3})
    assert list(found["refused"]) == ["garment", "model"]
    with CaptionCache(project_cache(config)) as cache:
        known = [cache.find(f"{n:064}", None, BOX, "openai") for n in range(len(counts))]
    assert [one.usage for one in known if one is not None] == [
        {"input_tokens": a, "output_tokens": b} for a, b in ((7, 8), (0, most - 1), (0, 8), (7, 0), (0, 8))
    ]


def test_where_there_is_nothing_to_import(config: Config, tmp_path: Path) -> None:
    mine = config.model_copy(
        update={"captioner": config.captioner.model_copy(update={"cache": str(tmp_path / "captions.sqlite")})}
    )
    (tmp_path / "empty").mkdir()
    with CaptionCache(tmp_path / "captions.sqlite"):
        pass
    for source in (tmp_path / "empty", tmp_path / "empty" / "none.sqlite", tmp_path, tmp_path / "captions.sqlite"):
        with pytest.raises(CatalogueError) as caught:
            import_captions(source, mine)
        assert str(caught.value) == f"{source} has no captions to import"
        assert caught.value.hint == "give a catalogue, or a file captions.sqlite, of another project"


def test_the_columns_of_a_product_that_are_attributes() -> None:
    metadata = {"color": "red", "pattern": "", "fit": 3, "title": "T", "sleeve": "long"}
    assert attribute_columns(metadata, {"color", "pattern", "fit", "sleeve"}) == {"color": "red", "sleeve": "long"}


# -- the vocabulary

HINT = "the format is described at the top of configs/attributes.yaml"


def values(tree: dict[str, Any], field: str) -> Any:
    return tree["fields"][field]["values"]


def refusal(change: Callable[[dict[str, Any]], object], folder: Path) -> ConfigError:
    """The error of a vocabulary that is changed so."""
    tree = yaml.safe_load((config_dir() / "attributes.yaml").read_text(encoding="utf-8"))
    change(tree)
    path = folder / "attributes.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_vocabulary(path)
    return caught.value


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tree: tree["classes"].pop("dress"), f"classes must be {', '.join(CLASS_NAMES)}"),
        (lambda tree: tree["fields"].pop("sleeve"), "the field sleeve is missing"),
        (
            lambda tree: tree["fields"].update(colour=tree["fields"]["color"]),
            "unknown field colour; did you mean color?",
        ),
        (
            lambda tree: tree["fields"].update(zzzz=tree["fields"]["color"]),
            f"unknown field zzzz; fields: {', '.join(FIELDS)}",
        ),
        (
            lambda tree: values(tree, "color").update(unknown="모름"),
            "color.unknown: do not list unknown, it is always allowed",
        ),
        (
            lambda tree: tree["fields"]["color"].update(classes=["shoes", *CLASS_NAMES]),
            "color.black: unknown class shoes",
        ),
        (
            lambda tree: values(tree, "color").update(teal={"ko": "틸", "classes": ["hat", "top"]}),
            "color.teal: unknown class hat",
        ),
        (
            lambda tree: values(tree, "sleeve").update(x={"ko": "엑스", "classes": ["pants"]}),
            "sleeve.x and sleeve have no class in common",
        ),
        (
            lambda tree: values(tree, "sub_category").update(x={"ko": "엑스", "implies": {"fit": "odd"}}),
            "sub_category.x implies fit: odd, which is not an allowed value",
        ),
        (
            lambda tree: values(tree, "sub_category").update(x={"ko": "엑스", "implies": {"size": "L"}}),
            "sub_category.x implies size: L, which is not an allowed value",
        ),
    ],
)
def test_what_is_told_of_a_vocabulary_that_contradicts_itself(
    change: Callable[[dict[str, Any]], object], told: str, tmp_path: Path
) -> None:
    error = refusal(change, tmp_path)
    assert str(error).removesuffix("?") == f"{tmp_path / 'attributes.yaml'}: {told}".removesuffix("?")
    assert error.hint == HINT


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tree: tree.update(fields=["color"]), "fields: "),
        (lambda tree: tree["fields"].update(color=["red"]), "fields.color: "),
        (lambda tree: tree["fields"].update(color="red"), "fields.color: "),
        (lambda tree: tree["fields"]["color"].update(values=["red"]), "fields.color.values: "),
        (lambda tree: values(tree, "color").update(teal={"ko": "틸", "text": "teal"}), "fields.color.values.teal.text"),
    ],
)
def test_a_vocabulary_of_another_shape_is_refused_by_its_place(
    change: Callable[[dict[str, Any]], object], told: str, tmp_path: Path
) -> None:
    error = refusal(change, tmp_path)
    assert str(error).startswith(f"{tmp_path / 'attributes.yaml'}: {told}")
    assert error.hint == HINT


def test_the_values_of_a_field_by_class_and_by_word(config: Config) -> None:
    words = load_vocabulary()
    assert vocabulary_of(config.captioner) is load_vocabulary(None)
    assert list(words.values("sleeve", "pants")) == []
    assert list(words.values("length", "pants")) == ["shorts", "cropped", "full"]
    assert set(words.values("length", None)) > {"shorts", "mini", "maxi"}
    assert words.fields_of(None) == FIELDS
    assert "sleeve" not in words.fields_of("pants")
    assert words.find("color", " NAVY ") == "navy"
    assert words.find("color", "sky_blue") == words.find("color", "Sky-Blue") == "sky blue"
    assert words.find("color", "빨강") == "red"
    assert words.find("sub_category", "셔츠", "top") == "shirt-blouse"
    assert words.find("sub_category", "셔츠", "pants") is None
    assert words.find("color", "no colour") is None
    plain = words.fields["color"].values["black"]
    assert (plain.name, plain.ko, plain.text, plain.classes, plain.silent) == (
        "black",
        "블랙",
        ("black", "블랙"),
        CLASS_NAMES,
        False,
    )
