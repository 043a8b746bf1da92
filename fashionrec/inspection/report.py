"""What an inspection found."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

#: Findings of one kind that are kept; the rest is counted.
KEPT = 100


@dataclass(frozen=True)
class Finding:
    """Something in the folder at ``place`` (a name inside it) that a naive program would run, follow or believe.

    ``kind`` is a stable word, ``what`` says what is there, ``effect`` what it could have done. ``refused`` tells whether
    the commands that read the folder refuse it for this, or work without it.
    """

    place: str
    kind: str
    what: str
    effect: str
    refused: bool


@dataclass
class Report:
    """The result for one folder. ``kind`` is catalogue, run, bundle, dataset, export (of a catalogue) or unknown."""

    folder: Path
    kind: str
    files: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _refused: bool = False

    def add(self, place: str, kind: str, what: str, effect: str, *, refused: bool = False) -> None:
        self.counts[kind] += 1
        self._refused = self._refused or refused
        if self.counts[kind] <= KEPT:
            self.findings.append(Finding(place, kind, what, effect, refused))

    def refuse(self, *kinds: str) -> None:
        """Mark the findings of some kinds, so far known as ignored, as refused."""
        self.findings = [replace(one, refused=one.refused or one.kind in kinds) for one in self.findings]

    @property
    def verdict(self) -> str:
        """``safe to use``; ``usable``: what is listed is ignored; or ``refused``."""
        if self._refused:
            return "refused"
        return "usable" if self.findings else "safe to use"

    @property
    def reason(self) -> str:
        """The first finding for which the folder is refused, as one line; empty if it is not."""
        return next((f"{finding.place}: {finding.what}" for finding in self.findings if finding.refused), "")

    def document(self) -> dict[str, Any]:
        """The report for ``--json``."""
        document: dict[str, Any] = {
            "folder": str(self.folder),
            "kind": self.kind,
            "verdict": self.verdict,
            "changed": False,
            "files": self.files,
            "bytes": self.bytes,
            "counts": dict(self.counts),
            "findings": [asdict(finding) for finding in self.findings],
        }
        if self.verdict == "refused":
            document["reason"] = self.reason
        return document
