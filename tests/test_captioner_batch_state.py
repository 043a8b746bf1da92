"""The state of batches, step by step: what waits, what is sent, what is answered, and what a reader
may do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fashionrec.captioner.cache import Place
from fashionrec.captioner.openai.batch_state import OPEN, UNSENT, BatchState, custom_id
from fashionrec.errors import CatalogueError, WriteError
from fashionrec.types import Box

BOX = Box(0, 0, 100, 100)


def place(n: int, class_name: str | None = "top", box: Box = BOX) -> Place:
    return Place(f"{n:064x}", class_name, box)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[BatchState]:
    with BatchState(tmp_path / "state.sqlite") as made:
        yield made


def names(*places: Place) -> list[str]:
    return [custom_id(one) for one in places]


def test_the_name_of_a_request_never_changes() -> None:
    """An answer finds its garment by it: also one that an earlier version asked for."""
    assert custom_id(place(7)) == "g-fe0ef707fe899b2a7e3834f3eecb2347cf95e1f8"
    assert custom_id(place(7, None, Box(0.5, 1, 2, 3))) == "g-5a05b6be41151f61417255daf6d4da5655200029"


def test_garments_wait_in_the_order_in_which_they_were_added(state: BatchState) -> None:
    added = [place(9), place(2, None), place(5, "dress", Box(0.25, 1, 50, 60.5))]
    assert state.add(added) == names(*added)
    assert list(state.waiting()) == list(zip(names(*added), added, strict=True))
    assert state.unanswered() == [(custom_id(one), "waiting", one) for one in added]
    assert state.counts() == {"waiting": 3, "sent": 0, "answered": 0}
    assert state.find([*names(*added[:2]), "g-none"]) == {custom_id(one): (one, "waiting") for one in added[:2]}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (place(1, box=Box(0, 0, 100, 90)), True),  # nine tenths of it
        (place(1, box=Box(0, 0, 100, 89)), False),
        (place(1, "dress"), False),
        (place(1, None), False),
        (place(2), False),
    ],
)
def test_a_garment_whose_box_has_moved_a_little_is_the_same(state: BatchState, other: Place, same: bool) -> None:
    (name,) = state.add([place(1)])
    assert state.add([other, place(3)]) == [name if same else custom_id(other), custom_id(place(3))]
    assert state.counts()["waiting"] == (2 if same else 3)


def test_a_garment_that_is_sent_is_left_and_one_that_is_answered_is_asked_anew(state: BatchState) -> None:
    state.add([place(1), place(2)])
    part = state.write_part("a" * 32, "s", "m", names(place(1), place(2)), 10)
    assert state.add([place(1), place(3), place(2)]) == names(place(3))
    state.answered(names(place(1)))
    assert state.add([place(1)]) == names(place(1))
    assert state.find(names(place(1))) == {custom_id(place(1)): (place(1), "waiting")}
    assert state.sent_in(part) == [(custom_id(place(2)), place(2))]


def test_a_box_without_area_is_the_same_as_itself(state: BatchState) -> None:
    flat = place(1, box=Box(5, 5, 5, 5))
    assert state.add([flat, flat]) == names(flat, flat)
    assert state.counts()["waiting"] == 1


def test_a_part_from_its_file_to_its_answers(state: BatchState) -> None:
    places = [place(n) for n in range(5)]
    state.add(places)
    number = state.write_part("a" * 32, "shop.test", "m-1", names(*places[:4]), 1234)
    part = state.part(number)
    assert (part.token, part.server, part.model, part.state) == ("a" * 32, "shop.test", "m-1", "written")
    assert (part.requests, part.bytes, part.created_at[-6:], len(part.created_at)) == (4, 1234, "+00:00", 25)
    nothing = (part.file_id, part.batch_id, part.output_file_id, part.error_file_id, part.status, part.completed)
    assert (*nothing, part.error) == (None,) * 7
    assert list(state.waiting()) == [(custom_id(places[4]), places[4])]
    assert state.counts() == {"waiting": 1, "sent": 4, "answered": 0}
    assert [step for _, step, _ in state.unanswered()] == ["sent"] * 4 + ["waiting"]
    changed = state.change(number, "ended", status="completed", completed=3, batch_id="b-1")
    assert changed == state.part(number)
    assert (changed.state, changed.status, changed.completed, changed.batch_id) == ("ended", "completed", 3, "b-1")
    state.answered(names(*places[:3]))
    assert state.sent_in(number) == [(custom_id(places[3]), places[3])]
    assert state.collected(number, 2) == 1  # it was submitted once, and may be twice
    assert state.part(number).state == "collected"
    assert state.parts() == []
    assert [name for name, _ in state.waiting()] == names(places[3], places[4])
    again = state.write_part("b" * 32, "shop.test", "m-1", names(places[3]), 1)
    assert state.sent_in(again, at_least=3) == []
    assert state.sent_in(again, at_least=2) == [(custom_id(places[3]), places[3])]
    assert state.collected(again, 2) == 0  # it has been twice: who waits for it must say so
    assert state.counts() == {"waiting": 1, "sent": 1, "answered": 3}


def test_a_part_that_is_given_up_was_never_submitted(state: BatchState) -> None:
    places = [place(n) for n in range(3)]
    state.add(places)
    number = state.write_part("a" * 32, "s", "m", names(*places), 10)
    state.answered(names(places[0]))
    state.release(number)
    assert state.part(number).state == "released"
    assert state.counts() == {"waiting": 2, "sent": 0, "answered": 1}
    again = state.write_part("b" * 32, "s", "m", names(*places[1:]), 10)
    assert state.sent_in(number) == []
    assert len(state.sent_in(again, at_least=1)) == 2
    assert state.sent_in(again, at_least=2) == [], "the part that was given up does not count"


def test_what_is_dropped_is_gone(state: BatchState) -> None:
    state.add([place(1), place(2)])
    state.drop(names(place(1)))
    assert state.unanswered() == [(custom_id(place(2)), "waiting", place(2))]


def test_parts_are_told_by_their_states_oldest_first(state: BatchState) -> None:
    steps = ["ended", *UNSENT, "submitted", "collected", "released"]
    for n, step in enumerate(steps):
        state.change(state.write_part(f"{n:032x}", "s", "m", [], 0), step)
    assert [part.state for part in state.parts()] == ["ended", *UNSENT, "submitted"]
    assert [part.state for part in state.parts(UNSENT)] == ["written", "uploading", "uploaded", "creating"]
    assert [part.part for part in state.parts(("released", "ended"))] == [1, 8]
    assert set(OPEN) == {*UNSENT, "submitted", "ended"}


def test_more_than_are_read_at_once_are_all_found(state: BatchState) -> None:
    places = [place(n) for n in range(1001)]
    state.add(places)
    assert state.find(names(*places)) == {custom_id(one): (one, "waiting") for one in places}
    assert [one for _, one in state.waiting()] == places


def test_a_reader_changes_nothing_and_makes_nothing(tmp_path: Path, state: BatchState) -> None:
    state.add([place(1)])
    with BatchState(state.path, write=False) as reader:
        assert reader.unanswered() == [(custom_id(place(1)), "waiting", place(1))]
        with pytest.raises(CatalogueError, match="readonly"):
            reader.drop(names(place(1)))
    with pytest.raises(WriteError):
        BatchState(tmp_path / "none.sqlite", write=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.sqlite"]


@pytest.mark.parametrize("pragma", ["application_id = 1", "user_version = 2"])
def test_a_file_of_another_kind_or_version_is_refused(pragma: str, state: BatchState) -> None:
    state.close()
    with closing(sqlite3.connect(state.path)) as db:
        db.execute(f"PRAGMA {pragma}")
    with pytest.raises(CatalogueError) as caught:
        BatchState(state.path)
    assert str(caught.value) == f"{state.path} is not a state of caption batches of this version"


AGAIN = "restore it from a backup, or move the folder away (answers not collected yet are then lost)"
GOOD: dict[str, Any] = {"requests": 2**40 - 1, "bytes": 0, "completed": 0, "status": "s" * 2000, "error": None}


@pytest.mark.parametrize(
    "values",
    [
        {"requests": 2**40}, {"bytes": -1}, {"completed": 2**40}, {"completed": "many"}, {"status": "s" * 2001}, {"error": b"x"},
        {"file_id": b"x"}, {"output_file_id": b"x"}, {"token": "A" * 32}, {"token": b"a"}, {"created_at": "x" * 2001},
    ],
)  # fmt: skip
def test_a_part_that_was_not_written_by_us_is_damage(values: dict[str, Any], state: BatchState) -> None:
    number = state.write_part("a" * 32, "s", "m", [], 0)
    assert state.change(number, "ended", **GOOD).status == "s" * 2000
    with pytest.raises(CatalogueError) as caught:
        state.change(number, "ended", **values)
    assert str(caught.value) == f"{state.path} is damaged: part 1 is invalid"
    assert caught.value.hint == AGAIN


@pytest.mark.parametrize(
    "change",
    ["photo_sha256 = x'61'", "class_name = 'dress'", "x1 = 1e999", "y1 = 1.0", "x2 = 'wide'", "custom_id = 'g-mine'"],
)
def test_a_request_that_is_not_of_its_garment_is_damage(change: str, state: BatchState) -> None:
    state.add([place(1)])
    with closing(sqlite3.connect(state.path)) as db, db:
        db.execute(f"UPDATE requests SET {change}")
    name = "g-mine" if "mine" in change else custom_id(place(1))
    with pytest.raises(CatalogueError) as caught:
        list(state.waiting())
    assert str(caught.value) == (f"{state.path} is damaged: the id of request '{name}' does not match its garment")
    assert caught.value.hint == AGAIN
