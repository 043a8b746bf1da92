"""The report of a build: a document, a page, and one line for logs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fashionrec.common.files import dump_json
from fashionrec.common.pages import environment
from fashionrec.common.text import json_text, plural
from fashionrec.models.runs import now
from fashionrec.store.generations import folder_of
from fashionrec.store.manifest import IndexEntry

#: Files in the catalogue's folder: the last build's report, and a log with one line per build.
REPORT, PAGE, LOG = "report.json", "report.html", "builds.jsonl"

_STAGES = {
    "hash": "#6b7280",
    "read": "#1f5fbf",
    "detect": "#b45309",
    "embed": "#0f766e",
    "write": "#6b46c1",
    "index": "#b4236b",
}
_SHOWN = 500  # failures on the page


@dataclass
class BuildReport:
    """The result of a build.

    ``photos`` counts distinct photos: ``reused`` from the previous generation, ``resumed`` from an
    unfinished build, ``embedded`` now. ``crops_reused`` are garments of the latter whose crop was
    known. ``entries`` counts rows added, changed, replaced (another photo), removed and kept;
    ``added`` and ``removed`` count products.
    """

    rows: int = 0
    photos: int = 0
    hashed: int = 0
    reused: int = 0
    resumed: int = 0
    embedded: int = 0
    crops_reused: int = 0
    garments: int = 0
    items: int = 0
    products: int = 0
    without_detection: int = 0
    duplicate_rows: int = 0
    added: int = 0
    removed: int = 0
    entries: dict[str, int] = field(default_factory=dict)
    compacted: bool = False
    unchanged: bool = False
    failures: list[dict[str, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_STAGES, 0.0))
    total_seconds: float = 0.0
    index: IndexEntry | None = None
    generation: str = ""

    def to_dict(self) -> dict[str, Any]:
        document = dict(vars(self))
        document["index"] = self.index.to_dict() if self.index else {}
        document["failed"] = len(self.failures)
        document["failure_reasons"] = dict(Counter(failure["reason"] for failure in self.failures))
        document["seconds"] = {stage: round(value, 3) for stage, value in self.seconds.items()}
        document["total_seconds"] = round(self.total_seconds, 3)
        document["photos_per_second"] = round(self.embedded / self.total_seconds, 2) if self.total_seconds else 0.0
        return document


def write_report(root: Path, document: dict[str, Any]) -> None:
    """Write a build's report, its page and its log line into the catalogue's folder."""
    folder = folder_of(root)
    folder.write(REPORT, dump_json(document))
    folder.write(PAGE, report_page(document, root.name))
    folder.append(LOG, log_line(document).encode())


def log_line(document: dict[str, Any]) -> str:
    """Return a build as one line of JSON: counts, failures by reason, seconds per stage,
    throughput, the index as measured.
    """
    left_out = ("failures", "index")
    line = {"time": now(), **{key: value for key, value in document.items() if key not in left_out}}
    index = document.get("index") or {}
    line["index"] = {
        key: index.get(key) for key in ("kind", "vectors", "recall_at_10", "latency_ms_p50", "latency_ms_p95")
    }
    return json_text(line, stored=True) + "\n"


def report_page(document: dict[str, Any], name: str) -> str:
    """Return the report as one self-contained HTML page."""
    seconds = {stage: value for stage, value in document["seconds"].items() if value}
    total = sum(seconds.values()) or 1.0
    stages = [
        {"name": stage, "seconds": value, "share": 100 * value / total, "colour": _STAGES.get(stage, "#374151")}
        for stage, value in seconds.items()
    ]
    figures = [
        ("products", f"{document['products']:,}"),
        ("items", f"{document['items']:,}"),
        ("garments", f"{document['garments']:,}"),
        ("photos", f"{document['photos']:,}"),
        ("rows failed", f"{document['failed']:,}"),
        ("seconds", f"{document['total_seconds']:,.1f}"),
    ]
    entries = document["entries"]
    work = [
        ("photos embedded", f"{document['embedded']:,} ({document['photos_per_second']:.1f} a second)"),
        ("photos unchanged", f"{document['reused']:,}"),
        ("photos resumed from an unfinished build", f"{document['resumed']:,}"),
        ("photos without a detection", f"{document['without_detection']:,}"),
        ("garments with identical crops", f"{document['crops_reused']:,}"),
        ("products added, removed", f"{document['added']:,}, {document['removed']:,}"),
        *((f"rows {what}", f"{entries[what]:,}") for what in ("added", "changed", "replaced", "removed", "kept")),
        ("duplicate rows", f"{document['duplicate_rows']:,}"),
        ("compacted", "yes" if document["compacted"] else "no"),
    ]
    known = document["index"]
    words = (
        "kind",
        "reason",
        "vectors",
        "dtype",
        "recall_at_10",
        "float16_recall_at_10",
        "text_recall_at_10",
        "latency_ms_p50",
        "latency_ms_p95",
        "bytes",
        "build_seconds",
    )
    measured_on = [("measured on", plural(known["measured_on"]["image"], "vector"))] if "measured_on" in known else []
    template = environment().get_template("build.html")
    return template.render(
        title=f"Build of {name}",
        when=now()[:19].replace("T", " ") + " UTC",
        report=document,
        figures=figures,
        work=work,
        stages=stages,
        index=[(word.replace("_", " "), known[word]) for word in words if known.get(word) is not None] + measured_on,
        failures=document["failures"][:_SHOWN],
        more=max(0, document["failed"] - _SHOWN),
    )
