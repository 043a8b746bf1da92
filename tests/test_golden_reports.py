"""Reports of a comparison and of a finetune's decision, word by word and place by place, of figures
that are known.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result
from golden import Golden
from test_compare import DOCUMENT, ROW
from test_golden_evaluate import QUERIES

from fashionrec.cli.evaluating import run_evaluate_search
from fashionrec.cli.session import Session
from fashionrec.evaluation.detection.bootstrap import Spread
from fashionrec.evaluation.detection.decision import contradiction, decide, to_markdown
from fashionrec.evaluation.detection.decision_page import decision_page
from fashionrec.evaluation.detection.selection import selection_markdown, selection_page


def body(page: str) -> str:
    """Return what a page shows: all but its styles."""
    return page.rpartition("</style>")[2].strip() + "\n"


MODELS: list[dict[str, Any]] = [
    ROW,
    {"model": "bad", "failed": "it is not there"},
    ROW
    | {"model": "quick", "how": "reused", "epochs": 1, "map50_95": 0.5, "map50": 0.75, "memory_bytes": 300 << 20}
    | {"fps": {"end_to_end": {"1": 40.0, "4": 30.0}, "network": {"1": 50.0, "4": 90.0}}, "imgsz": 640},
    ROW
    | {"model": "slow", "how": "taken", "run": None, "epochs": None, "map50_95": 0.9, "parameters": 25_340_000}
    | {"fps": {"end_to_end": {"1": 4.0}, "network": {"1": 5.0}}, "gflops": 165.2, "file_bytes": 101_000_000},
]


def test_a_comparison(golden: Golden) -> None:
    document = DOCUMENT | {"models": MODELS}
    golden.text("reports-selection", selection_markdown(document) + body(selection_page(document, "Compared")))


def spread(points: float, reach: float, photos: int) -> Spread:
    """A difference with an interval of ± reach points at 90 %."""
    return Spread(points / 100, np.linspace(points - reach / 0.9, points + reach / 0.9, 2001) / 100, photos)


def decision(new: Spread, old: Spread | None, **options: Any) -> dict[str, Any]:
    rows = [
        {
            "test_set": name,
            "metric": metric,
            "before": 0.5,
            "after": 0.5 + at,
            "difference": at,
            "low": low,
            "high": high,
        }
        for name, metric, low, at, high in (
            ("new", "map50_95", -0.02, 0.02, 0.06),
            ("new", "map50_95, dress", 0.01, 0.02, 0.03),
            ("new", "precision", 0.0, 0.01, 0.02),
            ("old", "map50", -0.005, -0.003, -0.001),
            ("old", "map50_95, top", -0.09, -0.05, -0.01),
            ("old", "recall", -0.03, -0.02, 0.0),
        )
        if name == "new" or old is not None
    ]
    document: dict[str, Any] = {"rows": rows, "confidence": 0.9, "resamples": 100}
    sets = {"new": new} | ({"old": old} if old is not None else {})
    document["photos"] = {name: one.photos for name, one in sets.items()}
    document["splits"] = {"new": "test", "old": "valid"}
    document["decision"] = decide(sets, 0.5, 0.9, **options)
    return document


def test_decisions(golden: Golden) -> None:
    found = {
        "better": decision(spread(3, 1, 50), spread(0.2, 0.6, 40)),
        "worse": decision(spread(-3, 1, 50), spread(-2, 1, 40)),
        "not enough photos": decision(spread(0.5, 1.9, 1), spread(-0.2, 1.1, 4000)),
        "not enough to be certain": decision(spread(0.5, 1.9, 60), spread(-0.2, 1.1, 40), certain=True),
        "nothing to keep": decision(spread(3, 1, 50), None),
    }
    disagreement = {"boxes": 20, "share": 0.251, "mostly": ["top", "dress", 4]}
    for name, changes in (("contradicted", {}), ("few boxes", {"boxes": 19}), ("at the limit", {"share": 0.25})):
        found[name] = decision(spread(3, 1, 50), spread(0.2, 0.6, 40))
        contradiction(found[name]["decision"], disagreement | changes, 0.25)
    golden.document("reports-decisions", {name: document["decision"] for name, document in found.items()})
    golden.text("reports-decision", "\n".join(f"# {name}\n{to_markdown(document)}" for name, document in found.items()))
    for name in ("better", "nothing to keep"):
        golden.text(f"reports-page-{name.split()[0]}", body(decision_page(found[name], f"Finetune {name}")))


@pytest.fixture
def asked(own_world: Path) -> Path:
    """More queries than are asked together, some of which cannot be."""
    head, *rows = QUERIES.splitlines()
    (own_world / "queries.csv").write_text("\n".join([head, *(rows * 3)]) + "\n", encoding="utf-8")
    return own_world / "queries.csv"


def test_a_search_beside_colours_alone(cli: Callable[..., Result], asked: Path, golden: Golden) -> None:
    session = Session(sets=["query.fusion=rrf", "query.k=1", "query.hide_unavailable=true", "query.min_score=0.9"])
    session.out.quiet = True
    found = run_evaluate_search(session, "catalogue", Path("queries.csv"), baseline=True)
    assert len(found["failures"]) == 3
    golden.document("reports-search", {key: found[key] for key in found if key not in ("failures", "calibration")})
    golden.document("reports-calibration", found["calibration"])
