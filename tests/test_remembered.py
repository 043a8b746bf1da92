"""Test what is remembered of a catalogue between two runs: findings of an evaluation, and which
files were hashed before.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fashionrec.store.measured import Curve, read_measured, write_measured
from fashionrec.store.seen import RACY, SeenFiles, file_state


def test_a_curve_is_straight_between_its_knots_and_level_beyond_them() -> None:
    curve = Curve((0.2, 0.4, 0.8), (0.1, 0.5, 0.6))
    given = [-1.0, 0.2, 0.25, 0.4, 0.5, 0.7, 0.8, 1.0]
    assert [curve(one) for one in given] == pytest.approx([0.1, 0.1, 0.2, 0.5, 0.525, 0.575, 0.6, 0.6])
    assert curve.match(0.25) == 20
    for cosines, probabilities in [
        ((0.2, 0.2), (0.1, 0.2)),
        ((0.4, 0.2), (0.1, 0.2)),
        ((0.2, 0.4), (0.2, 0.1)),
        ((0.2, 0.4), (-0.1, 0.2)),
        ((0.2, 0.4), (0.1, 1.1)),
        ((0.2, 0.4), (0.1,)),
        ((), ()),
    ]:
        with pytest.raises(ValueError, match="not a monotonic curve"):
            Curve(cosines, probabilities)


def test_a_finding_holds_for_its_generation_and_encoder_and_replaces_one_of_its_name(tmp_path: Path) -> None:
    root = tmp_path / "c"
    root.mkdir()
    assert read_measured(root, "g1", "e1").caption_weight is None
    write_measured(root, "caption_weight", "g1", "e1", {"value": 0.3})
    write_measured(root, "match_text", "g1", "e1", {"cosines": [0.0, 1.0], "probabilities": [0.2, 0.4]})
    write_measured(root, "caption_weight", "g1", "e1", {"value": 0.7})
    found = read_measured(root, "g1", "e1")
    assert found.caption_weight == 0.7
    assert found.match_of("photo") is None
    text = found.match_of("text")
    assert text is not None
    assert text(0.5) == 30
    for about in (("g2", "e1"), ("g1", "e2")):
        other = read_measured(root, *about)
        assert (other.caption_weight, other.match_of("text")) == (None, None)
    for value in (-0.1, 1.1, True, "0.5", None):
        write_measured(root, "caption_weight", "g1", "e1", {"value": value})
        assert read_measured(root, "g1", "e1").caption_weight is None


def test_a_file_is_not_hashed_again_while_it_is_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"one")
    state = file_state(str(file))
    assert state is not None
    size, changed, _ = state
    later = changed + int(RACY * 1e9)
    seen = SeenFiles(tmp_path / "work" / "seen.sqlite")
    cases = {
        "known": ((size, changed, later + 1), True),
        "hashed in the moment of its change": ((size, changed, later), False),
        "another size": ((size + 1, changed, later + 1), False),
        "another time": ((size, changed - 1, later + 1), False),
    }
    for name, (entry, known) in cases.items():
        seen.put({str(file): (*entry, "digest")})
        assert seen.digests([str(file), str(tmp_path / "gone")]) == ({str(file): "digest"} if known else {}), name
    seen.put({str(file): (size, changed, later + 1, "kept")})
    seen.close()
    again = SeenFiles(tmp_path / "work" / "seen.sqlite")
    assert again.digests([str(file)]) == {str(file): "kept"}
    again.close()
    (tmp_path / "work" / "seen.sqlite").write_bytes(b"damaged" * 1000)
    fresh = SeenFiles(tmp_path / "work" / "seen.sqlite")
    assert fresh.digests([str(file)]) == {}
    fresh.close()
    assert file_state(str(tmp_path / "gone")) is None
