"""What an inspection found."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

#: Findings of one kind that are kept; the rest is counted.
KEPT = 100

#: What a program that trusts the folder would suffer, by the kind of a finding.
EFFECTS = {
    "architecture": "ultralytics evaluates activations, and takes layers by name from whole modules",
    "caption-batch": "they would be sent, and paid, with your key",
    "caption-spool": "they would be taken for answers to you",
    "custom-code": "transformers imports the code that it names if it is told to trust it",
    "database": "it runs statements of its author whenever a table is read or written",
    "dataset": "training and evaluation stop at it",
    "download": "ultralytics runs it, as Python, a shell command or an address, when it trains or validates",
    "engine": "it is machine code that an inference library runs",
    "environment": "some packages load it and take keys and hosts from it",
    "executable": "it runs if somebody starts it",
    "graph": "ONNX Runtime would read, load or run it",
    "hard-link": "writing to it would change the file outside",
    "hidden": "it is easily overlooked",
    "journal": "it can name files to be removed",
    "link": "what it points to would be read, written or removed",
    "manifest": "it is not what its maker wrote",
    "name": "a terminal would act on it when it is printed",
    "outside": "a file elsewhere would be loaded",
    "pickle": "loading it calls what it names",
    "program": "it runs if somebody starts it, or if a library imports it",
    "size": "nobody has looked at the rest",
    "special-file": "reading it would wait for ever, or reach a device",
    "torchscript": "torch.jit.load runs it",
    "unlisted": "it could stand in for one that was checked",
    "unreadable": "nobody knows what is in it",
    "writable": "what was checked could be exchanged afterwards",
}


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

    def add(self, place: str, kind: str, what: str, effect: str | None = None, *, refused: bool = False) -> None:
        """Add a finding; its ``effect`` is that of its kind unless another one is given."""
        self.counts[kind] += 1
        self._refused = self._refused or refused
        if self.counts[kind] <= KEPT:
            self.findings.append(Finding(place, kind, what, EFFECTS[kind] if effect is None else effect, refused))

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
