"""Compare a fine-tuned detector with the original one, and record the decision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fashionrec.common.files import dump_json, write_atomic
from fashionrec.config import FinetuneConfig
from fashionrec.evaluation.detection.decision import Match, compare, contradiction, decide, losses, to_markdown
from fashionrec.evaluation.detection.decision_page import decision_page


def judge(
    before: Path, after: Path, sets: Mapping[str, Path], folder: Path, *, match: Match, config: FinetuneConfig
) -> dict[str, Any]:
    """Measure, decide, and write ``comparison.json``, ``.md`` and ``.html`` into ``folder``; return
    the JSON's content.

    ``sets`` maps ``new`` and, if available, ``old`` to a data.yaml.
    """
    document, spreads = compare(
        before, after, sets, match, resamples=config.resamples, confidence=config.confidence, seed=config.seed
    )
    mean = {name: found["map50_95"] for name, found in spreads.items()}
    document["decision"] = decide(mean, config.tolerance, config.confidence, certain=config.certain)
    contradiction(document["decision"], document["disagreement"], config.disagree)
    document["decision"]["losses"] = losses(document)
    write_atomic(folder / "comparison.json", dump_json(document))
    write_atomic(folder / "comparison.md", to_markdown(document))
    write_atomic(folder / "comparison.html", decision_page(document, f"Finetune {folder.name}"))
    return document
