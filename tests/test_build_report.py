"""The report of a build: what it says before anything is counted, and what it works out."""

from __future__ import annotations

from fashionrec.catalogue.build.report import BuildReport


def test_nothing_is_counted_before_it_is_done() -> None:
    stages = ("hash", "read", "detect", "embed", "write", "index")
    counts = (
        *("rows", "photos", "hashed", "reused", "resumed", "embedded", "crops_reused", "garments", "items", "products"),
        *("without_detection", "duplicate_rows", "added", "removed", "failed"),
    )
    assert BuildReport().to_dict() == {
        **dict.fromkeys(counts, 0),
        **{"entries": {}, "compacted": False, "unchanged": False, "failures": [], "failure_reasons": {}},
        **{"index": {}, "generation": "", "total_seconds": 0.0, "photos_per_second": 0.0},
        "seconds": dict.fromkeys(stages, 0.0),
    }


def test_failures_are_counted_by_reason_and_speed_is_of_what_was_embedded() -> None:
    failures = [{"reason": reason, "image": "", "message": ""} for reason in ("missing", "empty", "missing")]
    report = BuildReport(rows=9, photos=8, embedded=7, failures=failures, total_seconds=3.0004).to_dict()
    assert (report["failed"], report["failure_reasons"]) == (3, {"missing": 2, "empty": 1})
    assert (report["total_seconds"], report["photos_per_second"]) == (3.0, 2.33)
