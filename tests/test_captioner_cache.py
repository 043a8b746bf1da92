"""captions.sqlite: what is kept, what is found again, and what is refused."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from captioners import count_by_state

from fashionrec.captioner.cache import CaptionCache, Recorded, is_place
from fashionrec.captioner.outcome import STATES, Outcome
from fashionrec.captioner.schema import Description
from fashionrec.errors import Busy, CatalogueError, WriteError
from fashionrec.types import Box

PHOTO = "a" * 64
BOX = Box(0, 0, 100, 100)


def done(color: str = "navy", **fields: Any) -> Outcome:
    said = Description(
        category="top", color=color, caption_en=f"A {color} top", caption_ko="네이비 상의", confidence=0.75
    )
    usage = {"input_tokens": 400, "output_tokens": 90}
    start = {"captioner": "openai", "model": "gpt-4o", "raw": '{"color": "…"}', "usage": usage, "seconds": 1.25}
    return Outcome("done", description=said, **(start | fields))


def failed(cache: CaptionCache) -> list[Recorded]:
    return [one for group in cache.everything("openai") for one in group if one.outcome.state == "failed"]


def other(state: Any, **fields: Any) -> Outcome:
    return Outcome(state, **({"captioner": "openai", "model": "gpt-4o", "error": "why"} | fields))


@pytest.fixture
def cache(tmp_path: Path) -> Any:
    with CaptionCache(tmp_path / "captions.sqlite") as opened:
        yield opened


@pytest.mark.parametrize(
    "outcome", [done(), *(other(state, raw="raw 텍스트\0") for state in STATES if state != "done")]
)
def test_an_outcome_comes_back_as_it_went(cache: CaptionCache, outcome: Outcome) -> None:
    cache.put(PHOTO, "top", BOX, outcome)
    assert cache.find(PHOTO, "top", BOX, "openai") == outcome


@pytest.mark.parametrize(
    ("box", "found"),
    [
        (Box(0, 0, 100, 100), True),
        (Box(0, 0, 100, 90), True),  # IoU 0.9 exactly
        (Box(0, 0, 100, 89), False),
        (Box(2, 2, 102, 102), True),  # 98 * 98 / (20000 - 98 * 98) = .924
        (Box(3, 3, 103, 103), False),  # 97 * 97 / (20000 - 97 * 97) = .888
        (Box(0, 0, 111, 100), True),  # 100 / 111 = .9009
        (Box(0, 0, 112, 100), False),  # .893
        (Box(200, 200, 300, 300), False),
    ],
)
def test_the_same_garment_is_found_by_its_place(cache: CaptionCache, box: Box, found: bool) -> None:
    cache.put(PHOTO, "top", BOX, done())
    assert (cache.find(PHOTO, "top", box, "openai") is not None) is found


def test_another_photo_class_or_captioner_is_another_garment(cache: CaptionCache) -> None:
    cache.put(PHOTO, "top", BOX, done())
    assert cache.find("b" * 64, "top", BOX, "openai") is None
    assert cache.find(PHOTO, "dress", BOX, "openai") is None
    assert cache.find(PHOTO, None, BOX, "openai") is None
    assert cache.find(PHOTO, "top", BOX, "local") is None
    cache.put(PHOTO, None, BOX, done("red"))
    whole = cache.find(PHOTO, None, BOX, "openai")
    assert whole is not None
    assert whole.description is not None
    assert whole.description.color == "red"


def test_another_model_of_the_same_kind_pays_nothing_unless_it_is_named(cache: CaptionCache) -> None:
    cache.put(PHOTO, "top", BOX, done(model="gpt-4o"))
    assert cache.find(PHOTO, "top", BOX, "openai") is not None
    assert cache.find(PHOTO, "top", BOX, "openai", model="gpt-6-luna") is None
    assert cache.find(PHOTO, "top", BOX, "openai", model="gpt-4o") is not None


@pytest.mark.parametrize("state", ["refused", "filtered", "truncated", "invalid"])
def test_what_was_answered_is_not_asked_again(cache: CaptionCache, state: str) -> None:
    cache.put(PHOTO, "top", BOX, other(state))
    assert cache.find(PHOTO, "top", BOX, "openai") == other(state)


def test_a_failure_is_asked_again_where_that_is_asked_for(cache: CaptionCache) -> None:
    cache.put(PHOTO, "top", BOX, other("failed", retryable=True))
    assert cache.find(PHOTO, "top", BOX, "openai") is not None
    cache.put(PHOTO, "skirt", BOX, other("failed", retryable=False))
    assert cache.find(PHOTO, "skirt", BOX, "openai") is not None
    assert [(known.place.class_name, known.place.box) for known in failed(cache)] == [("top", BOX), ("skirt", BOX)]


def test_a_description_takes_the_place_of_a_failure_even_where_the_box_moved(cache: CaptionCache) -> None:
    cache.put(PHOTO, "top", BOX, other("failed", retryable=True))
    cache.put(PHOTO, "top", Box(1, 1, 101, 101), done())
    assert count_by_state(cache) == {"done": 1}
    assert failed(cache) == []


def test_a_description_is_not_lost_to_a_later_failure(cache: CaptionCache) -> None:
    cache.put(PHOTO, "top", BOX, done())
    cache.put(PHOTO, "top", BOX, other("failed", retryable=True))
    cache.put(PHOTO, "top", Box(1, 1, 101, 101), other("failed", retryable=True))
    assert cache.find(PHOTO, "top", BOX, "openai") == done()


def test_of_two_descriptions_the_newer_counts(cache: CaptionCache) -> None:
    cache.put(PHOTO, "top", BOX, done("navy"))
    cache.put(PHOTO, "top", BOX, done("red"))
    assert count_by_state(cache) == {"done": 1}
    cache.put(PHOTO, "top", Box(1, 0, 101, 100), done("green", model="gpt-6-luna"))
    found = cache.find(PHOTO, "top", BOX, "openai")
    assert found is not None
    assert found.model == "gpt-6-luna"
    assert count_by_state(cache) == {"done": 2}


def test_what_is_put_is_there_for_others_at_once_and_in_a_copy_of_the_one_file(tmp_path: Path) -> None:
    path = tmp_path / "captions.sqlite"
    with CaptionCache(path) as writer, CaptionCache(path) as reader:
        writer.put(PHOTO, "top", BOX, done())
        assert reader.find(PHOTO, "top", BOX, "openai") == done()
        assert [file.name for file in tmp_path.iterdir()] == ["captions.sqlite"]
        shutil.copy(path, tmp_path / "copy.sqlite")
    with CaptionCache(tmp_path / "copy.sqlite") as copy:
        assert count_by_state(copy) == {"done": 1}


def test_many_are_put_together_or_not_at_all(cache: CaptionCache) -> None:
    def entries() -> Any:
        yield PHOTO, "top", BOX, done()
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        cache.put_many(entries())
    assert count_by_state(cache) == {}
    cache.put_many([(f"{n:064}", "top", BOX, done()) for n in range(50)])
    assert count_by_state(cache) == {"done": 50}


def test_a_killed_writer_loses_nothing_that_put_had_returned_for(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path\n"
        "from test_captioner_cache import BOX, CaptionCache, done\n"
        "cache = CaptionCache(Path(sys.argv[1]))\n"
        "for n in range(10**6):\n"
        "    cache.put(f'{n:064}', 'top', BOX, done())\n"
        "    print(n, flush=True)\n"
    )
    path = tmp_path / "captions.sqlite"
    root = Path(__file__).parent.parent
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        last = 0
        for line in process.stdout:
            last = int(line)
            if last >= 40:
                process.kill()
                break
    with CaptionCache(path) as cache:
        assert count_by_state(cache)["done"] >= last + 1
        assert cache.find(f"{last:064}", "top", BOX, "openai") == done()


def test_a_file_of_someone_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    text, foreign, empty_folder = tmp_path / "text.sqlite", tmp_path / "foreign.sqlite", tmp_path / "folder"
    text.write_text("this is no database, however long its name may be" * 50)
    db = sqlite3.connect(foreign)
    db.execute("CREATE TABLE mine (x)")
    db.commit()
    db.close()
    empty_folder.mkdir()
    for path in (text, foreign, empty_folder, tmp_path / "nowhere" / "captions.sqlite"):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(CatalogueError) as caught:
            CaptionCache(path)
        assert str(path) in str(caught.value)
        assert (path.read_bytes() if path.is_file() else b"") == before


def find_all(path: Path, count: int) -> None:
    with CaptionCache(path) as cache:
        for n in range(count):
            cache.find(f"{n:064}", "top", BOX, "openai")


def test_another_version_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    newer = tmp_path / "newer.sqlite"
    CaptionCache(newer).close()
    db = sqlite3.connect(newer)
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(CatalogueError, match="schema 9"):
        CaptionCache(newer)

    cut = tmp_path / "cut.sqlite"
    with CaptionCache(cut) as cache:
        cache.put_many([(f"{n:064}", "top", BOX, done()) for n in range(300)])
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with pytest.raises(CatalogueError, match="damaged"):
        find_all(cut, 300)

    odd = tmp_path / "odd.sqlite"
    with CaptionCache(odd) as cache:
        cache.put(PHOTO, "top", BOX, done())
    db = sqlite3.connect(odd)
    db.execute("UPDATE outcomes SET record = '{\"category\": 1}'")
    db.commit()
    db.close()
    with CaptionCache(odd) as cache, pytest.raises(CatalogueError, match="damaged"):
        cache.find(PHOTO, "top", BOX, "openai")


def test_a_writer_elsewhere_is_busy_and_a_reader_is_not_in_its_way(tmp_path: Path) -> None:
    path = tmp_path / "captions.sqlite"
    with CaptionCache(path, wait=0.05) as cache:
        cache.put(PHOTO, "top", BOX, done())
        elsewhere = sqlite3.connect(path, isolation_level=None)
        elsewhere.execute("BEGIN IMMEDIATE")
        assert cache.find(PHOTO, "top", BOX, "openai") == done()
        with pytest.raises(Busy):
            cache.put(PHOTO, "top", BOX, done())
        elsewhere.execute("ROLLBACK")
        elsewhere.close()
        cache.put(PHOTO, "top", BOX, done("red"))


def test_an_outcome_has_a_description_exactly_when_it_is_done() -> None:
    with pytest.raises(ValueError, match="failed"):
        Outcome("failed", "openai", "m", description=done().description)
    with pytest.raises(ValueError, match="done"):
        Outcome("done", "openai", "m")
    with pytest.raises(ValueError, match="odd"):
        other("odd")


def test_a_journal_that_cannot_be_made_is_the_disks_fault(tmp_path: Path) -> None:
    """Check that what a full disk makes SQLite say where it opens a journal; here there is no
    folder to make it in.
    """
    with CaptionCache(tmp_path / "captions.sqlite") as cache:
        (tmp_path / "captions.sqlite-journal").symlink_to(tmp_path / "missing" / "journal")
        with pytest.raises(WriteError, match=""):
            cache.put(PHOTO, "top", BOX, done())


def test_what_counts_is_what_was_recorded_since(cache: CaptionCache) -> None:
    cache.put(PHOTO, "top", BOX, done("navy"))
    ((old,),) = cache.everything("openai")
    assert (*old.place, old.outcome) == (PHOTO, "top", BOX, done("navy"))
    assert len(old.created_at) == len("2026-01-02T03:04:05.678901+00:00")
    assert cache.find(PHOTO, "top", BOX, "openai", since=old.created_at) == done("navy")
    since = cache.recaption("all")
    assert since > old.created_at
    assert cache.find(PHOTO, "top", BOX, "openai", since=since) is None
    cache.put(PHOTO, "top", Box(1, 0, 101, 100), other("refused"))
    assert cache.find(PHOTO, "top", BOX, "openai", since=since) == other("refused")
    assert cache.find(PHOTO, "top", BOX, "openai") == done("navy")  # a description goes before what came later


def test_what_is_asked_anew_keeps_its_moment_until_it_has_been(cache: CaptionCache) -> None:
    first, second = cache.recaption("b"), cache.recaption("a")
    assert first < second
    assert cache.recaption("b") == first
    assert list(cache.recaptions().items()) == [("b", first), ("a", second)]
    cache.recaptioned("b")
    assert cache.recaptions() == {"a": second}
    assert cache.recaption("b") > second


def test_the_mean_of_the_last_answers_that_tell_their_tokens(cache: CaptionCache) -> None:
    assert cache.mean_usage("openai", "gpt-4o") == (0, 0.0, 0.0)
    for n, (tokens, model) in enumerate([(900, "gpt-4o"), (100, "gpt-4o"), (0, "gpt-4o"), (300, "gpt-4o"), (7, "m-2")]):
        usage = {"input_tokens": tokens, "output_tokens": tokens // 100}
        cache.put(f"{n:064}", "top", BOX, done(model=model, usage=usage))
    assert cache.mean_usage("openai", "gpt-4o") == (3, 1300 / 3, 13 / 3)
    assert cache.mean_usage("openai", "gpt-4o", last=2) == (2, 200.0, 2.0)
    assert cache.mean_usage("openai", "m-2") == (1, 7.0, 0.0)
    assert cache.mean_usage("local", "gpt-4o") == (0, 0.0, 0.0)


def test_all_of_a_captioners_outcomes_are_read_in_groups_oldest_first(cache: CaptionCache) -> None:
    cache.put_many([(f"{n:064}", "top", BOX, done()) for n in range(1001)])
    cache.put("f" * 64, None, BOX, done(captioner="local"))
    groups = list(cache.everything("openai"))
    assert [len(group) for group in groups] == [500, 500, 1]
    assert [one.place.photo_sha256 for group in groups for one in group] == [f"{n:064}" for n in range(1001)]
    ((local,),) = cache.everything("local")
    assert local.place.class_name is None
    (row,) = cache.rows("local")
    assert row.pop("created_at")
    record = done().description
    assert record is not None
    assert row == {
        "photo_sha256": "f" * 64, "class_name": "", "captioner": "local", "model": "gpt-4o", "x1": 0.0, "y1": 0.0, "x2": 100.0,
        "y2": 100.0, "state": "done", "retryable": 0, "record": record.model_dump_json(), "raw": '{"color": "…"}', "error": None,
        "input_tokens": 400, "output_tokens": 90, "seconds": 1.25,
    }  # fmt: skip


def test_another_file_is_taken_over_once_and_only_what_is_not_known(cache: CaptionCache, tmp_path: Path) -> None:
    with CaptionCache(tmp_path / "other.sqlite") as elsewhere:
        elsewhere.put("1" * 64, "top", BOX, done("red"))
        elsewhere.put("2" * 64, "top", BOX, other("refused"))
        elsewhere.put("3" * 64, "top", BOX, done("red", captioner="local"))
        elsewhere.put(PHOTO, "top", Box(1, 0, 101, 100), done("red"))
        cache.put(PHOTO, "top", BOX, done("navy"))
        assert cache.take_over(elsewhere, ["openai"]) == 2
        assert cache.find("1" * 64, "top", BOX, "openai") == done("red")
        assert cache.find("2" * 64, "top", BOX, "openai") == other("refused")
        assert cache.find(PHOTO, "top", BOX, "openai") == done("navy")
        assert count_by_state(cache) == {"done": 2, "refused": 1}
        elsewhere.put("4" * 64, "top", BOX, done())
        assert cache.take_over(elsewhere, ["openai", "local"]) == 0


def test_a_failure_of_another_model_or_box_is_kept_beside_a_description(cache: CaptionCache) -> None:
    cache.put(PHOTO, "top", BOX, done())
    cache.put(PHOTO, "top", BOX, other("failed", model="m-2"))
    assert count_by_state(cache) == {"done": 1, "failed": 1}
    cache.put(PHOTO, "top", BOX, other("refused", model="m-3"))  # in the place of the failure
    assert count_by_state(cache) == {"done": 1, "refused": 1}
    cache.put(PHOTO, "top", BOX, done("red", model="m-3"))
    assert count_by_state(cache) == {"done": 2}


@pytest.mark.parametrize("busy", [False, True])
def test_who_writes_often_has_a_log_beside_the_file_until_it_is_closed(busy: bool, tmp_path: Path) -> None:
    path = tmp_path / "captions.sqlite"
    with CaptionCache(path, busy=busy) as cache:
        cache.put(PHOTO, "top", BOX, done())
        assert (tmp_path / "captions.sqlite-wal").exists() is busy
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal" if busy else "delete",)
        db.close()
    assert [file.name for file in tmp_path.iterdir()] == ["captions.sqlite"]


MOVE = "restore it from a backup, or move it away to start again (the paid captions in it are then lost)"


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("PRAGMA user_version = 2", "has schema 2; this fashionrec reads 1"),
        ("PRAGMA application_id = 1", "is not a caption file"),
        *(
            (f"UPDATE outcomes SET {change}", "is damaged: it has an invalid record")
            for change in (
                "input_tokens = -1", "output_tokens = 1099511627776", "seconds = 1e999", "raw = x'61'", "error = x'61'",
                "model = x'61'", "x2 = 'wide'", "state = 'odd'", "state = 'failed'", "record = NULL", "record = '{}'",
            )
        ),
    ],
)  # fmt: skip
def test_what_is_told_of_a_file_that_is_not_as_it_was_written(sql: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.sqlite"
    with CaptionCache(path) as cache:
        cache.put(PHOTO, "top", BOX, done())
    with sqlite3.connect(path) as db:
        db.execute(sql)
    db.close()
    with pytest.raises(CatalogueError) as caught, CaptionCache(path) as cache:
        cache.find(PHOTO, "top", BOX, "openai")
    assert str(caught.value) == f"{path} {told}"
    assert caught.value.hint == MOVE


def test_a_text_that_no_answer_brought_is_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "captions.sqlite"
    with CaptionCache(path) as cache:
        cache.put(PHOTO, "top", BOX, done())
    with sqlite3.connect(path) as db:
        db.execute(r"""UPDATE outcomes SET record = replace(record, 'A navy top', 'A \u001b[2J top')""")
    db.close()
    with CaptionCache(path) as cache:
        found = cache.find(PHOTO, "top", BOX, "openai")
    assert found is not None
    assert (found.state, found.description, found.error) == ("invalid", None, "the caption_en has control characters")


@pytest.mark.parametrize(
    ("photo", "class_name", "box", "is_one"),
    [
        (PHOTO, "top", (0, 0.5, 1, 2), True),
        (PHOTO, None, BOX, True),
        (PHOTO.upper(), "top", BOX, False),
        ("a" * 63, "top", BOX, False),
        (b"a" * 64, "top", BOX, False),
        (PHOTO, "hat", BOX, False),
        (PHOTO, "top", (0, 0, 1), False),
        (PHOTO, "top", (0, 0, 1, float("inf")), False),
        (PHOTO, "top", (0, 0, 1, "2"), False),
    ],
)
def test_what_a_garment_is(photo: Any, class_name: Any, box: Any, is_one: bool) -> None:
    assert is_place(photo, class_name, box) is is_one
