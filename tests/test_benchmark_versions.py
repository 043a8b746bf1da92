"""The comparison of two versions can fail, and its interval is the one of the textbook."""

from __future__ import annotations

import pytest

from benchmarks.versions import median_interval, tell_ratio


def test_the_interval_of_a_median_is_that_of_order_statistics() -> None:
    """By hand: of 20 values the 6th and the 15th bound the median with 95.9 %; of 6 the first and
    the last with 96.9 %.
    """
    assert median_interval(list(range(1, 21))) == (10.5, 6, 15)
    assert median_interval([6, 1, 5, 2, 4, 3]) == (3.5, 1, 6)
    with pytest.raises(ValueError, match="too few"):
        median_interval([1.0] * 5)


def test_what_became_slower_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell_ratio("query", [1.0] * 20, 1.05) == []
    assert tell_ratio("query", [1.0] * 14 + [1.2] * 6, 1.05) == ["query"]
    assert tell_ratio("query", [1.2] * 5 + [1.0] * 15, 1.05) == []
    assert "1.000 (1.000 to 1.200), 20 pairs" in capsys.readouterr().out
