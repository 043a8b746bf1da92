"""The user's own records of what was planned and paid for: what is in them, and when
they are none.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from systems import posix_only

from fashionrec.captioner.ledger import Ledger, PlannedPart
from fashionrec.errors import WriteError

PART = PlannedPart("0" * 32, "1" * 64, 10, 2, "m", "http://x", "/y")


def named(path: Path, what: str) -> str:
    return f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.{what}"


def test_a_part_is_recorded_changed_and_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.folder == tmp_path / "captions"
    assert ledger.find(PART.token) is None
    ledger.forget(PART.token)
    ledger.record(PART)
    path = tmp_path / "captions" / f"{PART.token}.part.json"
    assert json.loads(path.read_text()) == asdict(PART)
    assert Ledger(tmp_path).find(PART.token) == PART
    ledger.update(PART.token, sent=True, file_id="file-1")
    assert ledger.find(PART.token) == replace(PART, sent=True, file_id="file-1")
    ledger.update("2" * 32, sent=True)  # not known
    assert ledger.find("2" * 32) is None
    ledger.forget("../" + PART.token)
    ledger.forget(PART.token)
    assert list((tmp_path / "captions").iterdir()) == []


@pytest.mark.parametrize(
    "change", [{"requests": "2"}, {"sent": 1}, {"more": 1}, {"token": "3" * 32}, {"model": None}, {"file_id": 3}]
)
def test_a_record_of_another_shape_is_none(change: dict[str, object], tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(PART)
    (tmp_path / "captions" / f"{PART.token}.part.json").write_text(json.dumps(asdict(PART) | change))
    assert ledger.find(PART.token) is None


def test_what_is_planned_is_of_one_folder(tmp_path: Path) -> None:
    ledger, folder = Ledger(tmp_path), tmp_path / "batches"
    assert ledger.planned(folder) == set()
    ledger.plan(folder, {"b", "a"})
    path = tmp_path / "captions" / named(folder, "planned.json")
    assert json.loads(path.read_text()) == ["a", "b"]
    assert ledger.planned(tmp_path / "x" / ".." / "batches") == {"a", "b"}
    assert ledger.planned(tmp_path / "other") == set()
    path.write_text('{"a": 1}')
    assert ledger.planned(folder) == set()
    ledger.plan(folder, [])
    assert not path.exists()


def test_a_file_is_ones_own_as_long_as_it_is_as_it_was_left(tmp_path: Path) -> None:
    ledger, file = Ledger(tmp_path), tmp_path / "captions.sqlite"
    file.write_bytes(b"one")
    assert not ledger.has_written(file)
    ledger.wrote(file)
    assert (tmp_path / "captions" / named(file, "written")).read_text() == hashlib.sha256(b"one").hexdigest()
    assert ledger.has_written(file)
    file.write_bytes(b"two")
    assert not ledger.has_written(file)
    file.unlink()
    assert not ledger.has_written(file)


def test_an_answer_is_signed_with_a_key_that_is_made_once(tmp_path: Path) -> None:
    assert Ledger(tmp_path).can_sign()
    key = (tmp_path / "captions" / "key").read_bytes()
    assert len(key) == 64
    signature = Ledger(tmp_path).signature(b"x")
    assert signature == hmac.new(key, b"x", hashlib.sha256).hexdigest()
    assert Ledger(tmp_path).is_own(b"x", signature)
    for wrong in (signature[:-1], signature.upper(), signature + "0", None, 3, "0" * 64):
        assert not Ledger(tmp_path).is_own(b"x", wrong)
    assert (tmp_path / "captions" / "key").read_bytes() == key


def test_the_key_of_a_ledger_stays_the_one_that_it_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first = ledger.signature(b"x")
    (tmp_path / "captions" / "key").unlink()
    assert ledger.signature(b"x") == first
    assert not (tmp_path / "captions" / "key").exists()


def test_a_key_that_is_none_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    Ledger(tmp_path).can_sign()
    (tmp_path / "captions" / "key").write_bytes(b"Z" * 64)
    assert Ledger(tmp_path).can_sign()
    assert bytes.fromhex((tmp_path / "captions" / "key").read_text())


@pytest.mark.parametrize("made", [b"a" * 64, b"half"])
def test_a_key_that_another_process_makes_meanwhile_is_taken(
    made: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that one that stays half written is of a process that was killed, and is made anew."""
    path, keys = tmp_path / "captions" / "key", ["b" * 64, "c" * 64]

    def token_hex(size: int) -> str:
        if not path.exists() and len(keys) == 2:
            path.write_bytes(made)
        return keys.pop(0)

    monkeypatch.setattr("secrets.token_hex", token_hex)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    signature = Ledger(tmp_path).signature(b"x")
    key = made if len(made) == 64 else b"c" * 64
    assert signature == hmac.new(key, b"x", hashlib.sha256).hexdigest()
    assert path.read_bytes() == key


@pytest.mark.parametrize("act", [lambda ledger: ledger.record(PART), lambda ledger: ledger.signature(b"x")])
def test_a_disk_that_is_full_is_told(
    act: Callable[[Ledger], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    ledger = Ledger(tmp_path)
    for name in ("replace", "fchmod"):
        monkeypatch.setattr(os, name, full, raising=False)
    with pytest.raises(WriteError) as caught:
        act(ledger)
    assert str(caught.value) == f"{ledger.folder} cannot be written: No space left on device"
    assert caught.value.hint == "planned and paid captions are recorded there: set project.cache to a private folder"


@posix_only("modes of files")
def test_a_folder_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(PART)
    ledger.plan(tmp_path, ["a"])
    ledger.wrote(Path(__file__))
    ledger.folder.chmod(0o777)
    assert (ledger.find(PART.token), ledger.planned(tmp_path)) == (None, set())
    assert not ledger.has_written(Path(__file__))
    assert not Ledger(tmp_path).can_sign()
    with pytest.raises(WriteError) as caught:
        ledger.record(PART)
    assert str(caught.value) == (
        f"{ledger.folder} cannot be used: you must own it, and nobody else may have write access"
    )
    assert caught.value.hint == "planned and paid captions are recorded there: set project.cache to a private folder"
