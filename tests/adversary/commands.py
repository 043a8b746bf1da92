"""The commands that read or write each kind of folder; one that stands in no row, and is not
excused, fails a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adversary.project import BUNDLE, CATALOGUE, DATASET, EXPORT, MODELS, OTHER, RUN, SOURCE


@dataclass(frozen=True)
class Row:
    """``name`` is the command's, ``words`` all of it;

    ``paid`` has a key to pay with; ``heavy`` loads torch.
    """

    name: str
    words: Sequence[str]
    paid: bool = False
    heavy: bool = False

    @property
    def text(self) -> str:
        return " ".join(self.words) + (" [key]" if self.paid else "")


def row(line: str, **more: Any) -> Row:
    words = line.split()
    families = ("catalogue", "dataset", "runs", "config")
    return Row(" ".join(words[:2]) if words[0] in families else words[0], tuple(words), **more)


_NEW = "out/new"
_FAST = "epochs=1 imgsz=64 batch=2 workers=0 device=cpu"

#: By kind of root, the commands that meet it.
ROWS: dict[str, tuple[Row, ...]] = {
    "catalogue": (
        row(f"catalogue verify {CATALOGUE}"),
        row(f"catalogue show {CATALOGUE}"),
        row("catalogue list data"),
        row(
            f"query new.jpg --index {CATALOGUE} --html out/a.html --csv out/a.csv --save-crops out/crops --caption --goes-with"
        ),
        row(f"query --text red --index {CATALOGUE} --xlsx out/a.xlsx"),
        row(f"query --like red-blue.jpg --index {CATALOGUE}"),
        row(f"query new.jpg --index {OTHER} --index {CATALOGUE} --html out/a.html"),
        row(f"build-index photos --index {CATALOGUE} --set build.max_failures=1"),
        row(f"catalogue add new.jpg --index {CATALOGUE}"),
        row(f"catalogue remove red-blue.jpg --index {CATALOGUE}"),
        row(f"catalogue update prices.csv --index {CATALOGUE}"),
        row(f"catalogue rollback {CATALOGUE}"),
        row(f"catalogue compact {CATALOGUE}"),
        row(f"catalogue reindex {CATALOGUE} --index-type hnsw"),
        row(f"catalogue export out/x --index {CATALOGUE}"),
        row(f"caption --index {CATALOGUE} --captioner local"),
        row(f"caption --index {CATALOGUE} --captioner openai", paid=True),
        row(f"caption --index {CATALOGUE} --captioner openai --recaption top", paid=True),
        row(f"caption --index {CATALOGUE} --captioner openai --batch", paid=True),
        row(f"caption --index {CATALOGUE} --captioner openai --batch --resume", paid=True),
        row(f"caption --index {CATALOGUE} --captioner openai --dry-run", paid=True),
        row(f"caption --index {CATALOGUE} --status"),
        row(f"caption new.jpg --index {CATALOGUE} --captioner local"),
        row(f"evaluate --index {CATALOGUE} --queries queries.jsonl"),
        row(f"evaluate --index {CATALOGUE} --queries queries.jsonl --ways --apply"),
        row(f"doctor --index {CATALOGUE}"),
        row(f"doctor {CATALOGUE}"),
    ),
    "bundle": (
        row(f"doctor {BUNDLE}"),
        row(f"build-index photos --index {_NEW} {' '.join(MODELS)}"),
        row(f"evaluate --weights {BUNDLE} --data {DATASET}/data.yaml"),
        row(
            f"compare --models {BUNDLE} --data {DATASET}/data.yaml --out out/table --set compare.seconds=0.01",
            heavy=True,
        ),
    ),
    "run": (
        row(f"doctor {RUN}"),
        row(f"runs show {RUN}"),
        row(f"runs promote {RUN} --why tried"),
        row(f"runs compare {RUN} runs/train/r2"),
        row(f"evaluate --weights {RUN} --data {DATASET}/data.yaml", heavy=True),
        row(f"build-index photos --index {_NEW} --detector {RUN} --embedder bundles/embedder", heavy=True),
        row(f"export {RUN} --out out/bundle", heavy=True),
        row(f"train resume=true name=r1 data={DATASET}/data.yaml {_FAST}", heavy=True),
        row(f"train name=r1 exist_ok=true data={DATASET}/data.yaml model=yolov8n.yaml {_FAST}", heavy=True),
        row(f"finetune --weights {RUN} --data {DATASET}/data.yaml {_FAST}", heavy=True),
    ),
    "staging": (row(f"fetch-dataset yolo:{SOURCE} --out data/n --counts 5,2,2"),),
    "export": (row(f"catalogue import {EXPORT} --index {_NEW}"),),
    "dataset": (
        row(f"doctor {DATASET}"),
        row(f"dataset audit {DATASET} --html out/audit.html"),
        row(f"dataset export {DATASET} --to coco --out out/coco"),
        row(f"dataset export {DATASET} --to voc --out out/voc"),
        row(f"fetch-dataset yolo:{DATASET} --out data/n"),
        row(f"evaluate --weights bundles/detector --data {DATASET}/data.yaml --html out/e.html"),
        row(f"train data={DATASET}/data.yaml model=yolov8n.yaml pretrained=false name=r9 {_FAST}", heavy=True),
    ),
    "project": (
        row(f"caption --index {OTHER} --captioner openai", paid=True),
        row("caption new.jpg --index data/other --captioner openai", paid=True),
        row(f"caption --index {OTHER} --captioner openai --batch", paid=True),
        row(f"caption --index {OTHER} --captioner openai --dry-run", paid=True),
    ),
}

#: Commands that read no folder of somebody else, and why.
EXCUSED = {
    "demo": "makes everything itself, for minutes",
    "config schema": "reads no folder of others",
    "config show": "reads settings that the user names",
    "runs list": "goes on without a run that it cannot read",
    "runs demote": "as promote",
}


def commands_of(group: Any, above: str = "") -> set[str]:
    """The names of all commands below a command of typer's."""
    found: set[str] = set()
    for name, one in group.commands.items():
        inner = getattr(one, "commands", None)
        found |= commands_of(one, f"{name} ") if inner else {above + name}
    return found
