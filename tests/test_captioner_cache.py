"""captions.sqlite: what is kept, what is found again, and what is refused."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from captioners import count_by_state

from fashionrec.captioner.cache import CaptionCache, Recorded
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
    assert cache.find(PHOTO, "top", BOX, "openai", again={"failed"}) is None
    assert cache.find(PHOTO, "top", BOX, "openai", again={"refused"}) is not None
    cache.put(PHOTO, "skirt", BOX, other("failed", retryable=False))
    assert cache.find(PHOTO, "skirt", BOX, "openai") is not None
    assert [(known.class_name, known.box) for known in failed(cache)] == [("top", BOX), ("skirt", BOX)]


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
                process.send_signal(signal.SIGKILL)
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
    """What a full disk makes SQLite say where it opens a journal; here there is no folder to make it in."""
    with CaptionCache(tmp_path / "captions.sqlite") as cache:
        (tmp_path / "captions.sqlite-journal").symlink_to(tmp_path / "missing" / "journal")
        with pytest.raises(WriteError, match="cannot be written"):
            cache.put(PHOTO, "top", BOX, done())
