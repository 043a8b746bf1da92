"""The result of an inspection."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

#: Findings kept per kind; further ones are only counted.
KEPT = 100

#: Effects of each kind of finding on a program that trusts the folder.
EFFECTS = {
    "architecture": "ultralytics evaluates activations, and takes layers by name from whole modules",
    "caption-batch": "they would be sent and paid for with your key",
    "caption-spool": "they would count as answers to your requests",
    "custom-code": "transformers imports the code it names if told to trust it",
    "database": "it executes its author's statements whenever a table is read or written",
    "dataset": "training and evaluation refuse it",
    "download": "ultralytics executes it as Python, a shell command or a URL when it trains or validates",
    "engine": "it is machine code that an inference library executes",
    "environment": "some packages load it and take keys and hosts from it",
    "executable": "it runs if somebody starts it",
    "graph": "ONNX Runtime would read, load or execute it",
    "hard-link": "writing to it would change the file outside",
    "hidden": "it is easily overlooked",
    "journal": "it can name files to be deleted",
    "link": "its target would be read, written or deleted",
    "manifest": "it differs from what its author wrote",
    "name": "a terminal would obey it when it is printed",
    "outside": "a file elsewhere would be loaded",
    "pickle": "loading it calls the functions it names",
    "program": "it runs if somebody starts it, or if a library imports it",
    "size": "the rest was not checked",
    "special-file": "reading it would hang, or reach a device",
    "torchscript": "torch.jit.load executes it",
    "unlisted": "it could replace a file that was checked",
    "unreadable": "its content is unknown",
    "writable": "it could be replaced after the check",
}


@dataclass(frozen=True)
class Finding:
    """Something at ``place`` (a name in the folder) that a naive program would execute, follow or
    believe.

    ``kind`` is a stable word, ``what`` describes it, ``effect`` is what it could have done.
    ``refused`` tells whether commands that read the folder refuse it for this, or ignore it.
    """

    place: str
    kind: str
    what: str
    effect: str
    refused: bool


@dataclass
class Report:
    """The result for one folder. ``kind`` is catalogue, run, bundle, dataset, export (of a
    catalogue) or unknown.
    """

    folder: Path
    kind: str
    files: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _refused: bool = False

    def add(self, place: str, kind: str, what: str, effect: str | None = None, *, refused: bool = False) -> None:
        """Add a finding; the default ``effect`` is that of its kind."""
        self.counts[kind] += 1
        self._refused = self._refused or refused
        if self.counts[kind] <= KEPT:
            self.findings.append(Finding(place, kind, what, EFFECTS[kind] if effect is None else effect, refused))

    def refuse(self, *kinds: str) -> None:
        """Mark ignored findings of some kinds as refused."""
        self.findings = [replace(one, refused=one.refused or one.kind in kinds) for one in self.findings]

    @property
    def verdict(self) -> str:
        """``safe to use``; ``usable``: findings are ignored; or ``refused``."""
        if self._refused:
            return "refused"
        return "usable" if self.findings else "safe to use"

    @property
    def reason(self) -> str:
        """The first finding that causes the refusal, as one line; empty if there is none."""
        return next((f"{finding.place}: {finding.what}" for finding in self.findings if finding.refused), "")

    def document(self) -> dict[str, Any]:
        """Return the report for ``--json``."""
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
