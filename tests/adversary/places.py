"""Every path that a folder has: those that an honest one has, and those that appear only while
somebody works in it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from adversary.cells import PID, Place
from adversary.commands import ROWS
from adversary.home import CHANGES, Watch, walk
from adversary.project import BUNDLE, CATALOGUE, DATASET, EXPORT, RUN, STAGING, World

#: Names that depend on chance: nobody can plant something there beforehand.
_RANDOM = re.compile(r"\.[0-9a-f]{16}\.tmp$|^\.[a-z-]*[-.][a-z0-9_]{8}$|[0-9a-f]{32}")

#: Places that a trace may miss, by kind of root: what libraries make and remove within a moment,
#: and names of earlier versions.
KNOWN: dict[str, tuple[str, ...]] = {
    "catalogue": (
        ".lock",
        ".captions.lock",
        ".captions.arrived",
        "captions.sqlite-journal",
        "captions.sqlite-wal",
        "captions.sqlite-shm",
        "caption-batches",
        "caption-batches/.lock",
        "caption-batches/000001.jsonl",
        "caption-batches/state.sqlite-journal",
        "caption-batches/state.sqlite-wal",
        "work/journal.sqlite",
        "work/journal.sqlite-journal",
        "work/journal.sqlite-wal",
        "work/seen.sqlite-journal",
        f".measured.json.{PID}.tmp",
        f".catalogue.json.{PID}.tmp",
        f".report.json.{PID}.tmp",
        ".catalogue.json.0.tmp",
        "generations/000005",
        "generations/000004/items.sqlite-journal",
        "generations/000004/items.sqlite-wal",
        "segments/000005-image",
        "segments/000005-caption",
        "indexes",
        "indexes/000005-hnsw",
        "indexes/old",
        "generations/old",
        "bundles/old",
        "bundles/detector-fb148a8a1ceeed43/.tensorrt",
        "unknown",
        "README.md",
    ),
    "bundle": (".tensorrt", "unknown", "detect.onnx.data"),
    "run": (f".run.json.{PID}.tmp", "weights/best_ft.pt", "weights/best.bundle", "unknown", ".best.bundle.lock"),
    "staging": (".archive-old", f"photos/00/.x.{PID}", "world0", "feed0.begun"),
    "export": ("unknown", "bundles/unknown"),
    "dataset": ("labels.cache", "train/labels.cache", "train/images/more.jpg", "train/labels/more.txt", "unknown"),
    "project": (
        "data/captions.sqlite",
        "data/captions.sqlite-journal",
        "data/captions.sqlite-wal",
        "data/captions.sqlite-shm",
    ),
}
FOLDERS = {
    "catalogue": CATALOGUE,
    "bundle": BUNDLE,
    "run": RUN,
    "staging": STAGING,
    "export": EXPORT,
    "dataset": DATASET,
    "project": ".",
}


def all_places(world: World) -> list[Place]:
    """The places of every kind of root, in a fixed order."""
    found: dict[tuple[str, str], Place] = {}

    def add(root: str, names: Iterable[str], kind: str | None = None) -> None:
        for name in names:
            there = top(root) / name
            known = kind or ("folder" if there.is_dir() else "file" if there.exists() else "new")
            found.setdefault((root, name), Place(root, FOLDERS[root], name, known))

    def top(root: str) -> Path:
        return world.staging if root == "staging" else world.kept / FOLDERS[root]

    for root in FOLDERS:
        if root != "project":
            add(root, _thinned([path.relative_to(top(root)).as_posix() for path in walk(top(root))]))
        add(root, KNOWN[root])
    for root in ("catalogue", "run", "staging", "project"):
        add(root, _thinned(working_names(world, root)))
    found["staging", "/lock"] = Place("staging", "data", ".n.lock", "new")
    found["staging", "/all"] = Place("staging", "data", ".n.staging", "folder")
    return list(found.values())


def _thinned(names: list[str]) -> list[str]:
    """Return, of staged photos, and of photos and labels of a data set, two of a folder stand for
    all.
    """
    kept: dict[str, int] = {}
    out = []
    for name in names:
        staged = name.startswith("photos/")
        key = Path(name).suffix if staged else str(Path(name).parent)
        many = staged or re.search(r"(images|labels)/", name)
        kept[key] = kept.get(key, 0) + 1
        if not many or kept[key] <= 2:
            out.append(name)
    return out


def working_names(world: World, root: str) -> list[str]:
    """Names that appear in the folders of a root while its commands work, seen by inotify in an
    honest one.
    """
    names: dict[str, None] = {}
    for row in ROWS[root]:
        if row.heavy:
            continue
        folder = world.project / FOLDERS[root] if root != "project" else world.project / "data"
        if root == "staging":
            shutil.copytree(world.staging, folder)
        pids: list[int] = []
        with Watch(folder, mask=CHANGES) as watch:
            env = {**world.env, "OPENAI_API_KEY": "sk-local"} if row.paid else world.env
            world.run(*row.words, env=env, before=pids.append)
            for path, _ in watch.events():
                name = path.relative_to(world.project / FOLDERS[root]).as_posix()
                if not _RANDOM.search(path.name):
                    names[re.sub(rf"(?<!\d){pids[0]}(?!\d)", PID, name)] = None
        world.restore(
            {world.top(FOLDERS[root]), "out", "data/other", "data/captions.sqlite", "data/n", "data/.n.lock"} - {"."}
        )
    return [name for name in names if name not in (".", "")]
