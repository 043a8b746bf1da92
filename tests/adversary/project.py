"""A project as an honest user has it, made once by the command line: every kind of folder that is
handed around.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from conftest import TINY, two_halves
from PIL import Image

from adversary import process
from adversary.home import make_home, remove

MODELS = ("--detector", "bundles/detector", "--embedder", "bundles/embedder")
CATALOGUE, OTHER, BUNDLE, RUN = "data/c", "data/other", "bundles/detector", "runs/train/r1"
DATASET, SOURCE, EXPORT, STAGING = "data/d", "src", "x", "data/.n.staging"
NAMES = ["dress", "pants", "skirt&pants", "skirt", "top"]


@dataclass(frozen=True)
class World:
    """A home, the project in it, a copy of the project as it was, and a place for what the harness
    itself writes.
    """

    home: Path
    project: Path
    kept: Path
    scratch: Path
    env: Mapping[str, str]

    @property
    def ours(self) -> tuple[Path, ...]:
        """Return what commands may read and write: the project, and the user's own cache of
        fashionrec.
        """
        return self.project, self.home / ".cache" / "fashionrec"

    @property
    def staging(self) -> Path:
        """A copy of what an interrupted fetch-dataset leaves."""
        return self.kept.with_name("staging")

    def run(self, *words: object, env: Mapping[str, str] | None = None, **options: Any) -> process.Outcome:
        given = {"home": self.home, "project": self.project, "scratch": self.scratch, "env": env or self.env}
        return process.run(words, **given, **options)

    @contextmanager
    def mended(self) -> Iterator[None]:
        """Bring the home back to what it was after something was let into it."""
        kept = self.kept.with_name("canaries")
        shutil.copytree(self.home, kept, ignore=shutil.ignore_patterns("project", ".cache"))
        try:
            yield
        finally:
            for path in self.home.iterdir():
                if path.name not in ("work", ".cache"):
                    remove(path)
            remove(self.home / "work/other-project")
            shutil.copytree(kept, self.home, dirs_exist_ok=True)
            shutil.rmtree(kept)

    def top(self, name: str) -> str:
        """The part of the project, restored as a whole, that a path is in."""
        parts = name.split("/")
        return "/".join(parts[:2]) if parts[0] == "data" else parts[0]

    def restore_all(self) -> None:
        """Bring the whole project to what it was."""
        there = {
            path.relative_to(folder).as_posix() for folder in (self.project, self.kept) for path in folder.glob("*")
        }
        there |= {path.relative_to(self.project).as_posix() for path in self.project.glob("data/*")}
        there |= {path.relative_to(self.kept).as_posix() for path in self.kept.glob("data/*")}
        self.restore(there - {"data"})
        self.restore_cache()

    @property
    def cache(self) -> Path:
        """A copy of the user's cache, which says what this user has paid for."""
        return self.kept.with_name("cache")

    def restore_cache(self) -> None:
        remove(self.ours[1])
        shutil.copytree(self.cache, self.ours[1])

    def restore(self, names: Iterable[str]) -> None:
        """Bring parts of the project to what they were."""
        for name in names:
            target, source = self.project / name, self.kept / name
            remove(target)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            elif source.exists():
                shutil.copy2(source, target)


def make_world(folder: Path, env: Mapping[str, str]) -> World:
    """Make the home and the project. ``env`` has the address of a local server of captions."""
    process.warm_up()
    home, scratch = folder / "home", folder / "scratch"
    project = make_home(home, TINY / "photos" / "red-blue.jpg")
    world = World(home, project, folder / "kept", scratch, env)
    for name in ("detector", "embedder"):
        shutil.copytree(TINY / name, project / "bundles" / name)
    shutil.copytree(TINY / "photos", project / "photos")
    two_halves(project / "new.jpg", "red", "black")
    two_halves(project / "photos" / "late.jpg", "black", "blue")
    photos = sorted(path.name for path in (project / "photos").iterdir())
    rows = [json.dumps({"image": f"photos/{name}", "product_id": name}) for name in photos]
    (project / "queries.jsonl").write_text("\n".join(rows) + "\n")
    (project / "prices.csv").write_text("product_id,price\nred-blue.jpg,5\n")
    (project / "wrong.csv").write_text("product_id,price\nnobody.jpg,5\n")
    _yolo(project / SOURCE, 9)
    (project / "out").mkdir()
    openai = {"OPENAI_API_KEY": "sk-local", **env}

    def done(*words: object, code: int = 0, more: Mapping[str, str] | None = None) -> None:
        ended = process.run(words, home=home, project=project, scratch=scratch, env=more or env)
        assert ended.code == code, (words, ended)

    (project / "photos" / "late.jpg").rename(project / "late.jpg")
    done("build-index", "photos", "--index", CATALOGUE, *MODELS, "-q")
    done("build-index", "photos", "--index", OTHER, *MODELS, "-q")
    (project / "late.jpg").rename(project / "photos" / "late.jpg")
    done("build-index", "photos", "--index", CATALOGUE, "-q")
    done("caption", "--index", CATALOGUE, "--captioner", "local", "-q")
    ways = ("evaluate", "--index", CATALOGUE, "--queries", "queries.jsonl", "--ways", "--apply", "-q")
    done(*ways)
    done("caption", "--index", CATALOGUE, "--captioner", "openai", "--limit", "3", "-q", more=openai)
    done("caption", "--index", CATALOGUE, "--captioner", "openai", "--batch", "-q", more=openai)
    done("catalogue", "export", EXPORT, "--index", CATALOGUE, "-q")
    done("fetch-dataset", f"yolo:{SOURCE}", "--out", DATASET, "--counts", "5,2,2", "-q")
    _interrupted_fetch(world)
    shutil.copytree(project / OTHER, home / "work" / "other-project" / "catalogue")
    _run(project / RUN)
    _run(project / "runs/train/r2")
    (project / STAGING).rename(world.staging)  # there only while it is attacked
    shutil.copytree(project, world.kept, symlinks=True)
    world.ours[1].mkdir(exist_ok=True)
    shutil.copytree(world.ours[1], world.cache)
    return world


def _interrupted_fetch(world: World) -> None:
    """Leave what a preparation leaves that is killed as it moves the finished data set into its
    place.
    """

    def killed() -> None:
        for name in ("rename", "replace"):
            real = getattr(os, name)

            def stop(source: object, target: object, real: Any = real, **named: Any) -> None:
                if Path(str(target)).name == "n":
                    os._exit(9)
                real(source, target, **named)

            setattr(os, name, stop)

    ended = world.run("fetch-dataset", f"yolo:{SOURCE}", "--out", "data/n", "--counts", "5,2,2", sabotage=killed)
    assert ended.code == 9, ended
    assert (world.project / STAGING / "whole").is_dir()


def _yolo(root: Path, count: int) -> None:
    for part in ("images", "labels"):
        (root / "train" / part).mkdir(parents=True)
    for n in range(count):
        coarse = Image.fromarray(np.random.default_rng(n).integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((64, 48), Image.Resampling.BICUBIC).save(root / f"train/images/p{n}.jpg", quality=92)
        (root / f"train/labels/p{n}.txt").write_text("4 0.25 0.5 0.5 1\n1 0.75 0.5 0.5 1\n")
    (root / "data.yaml").write_text("train: train/images\nnames: " + json.dumps(NAMES) + "\n")


def _run(folder: Path) -> None:
    """A finished training as it lies on the disk; nothing here loads its weights."""
    (folder / "weights").mkdir(parents=True)
    for name in ("best.pt", "last.pt"):
        (folder / "weights" / name).write_bytes(b"not loaded here")
    (folder / "results.csv").write_text("epoch,loss\n1,0.5\n")
    record = {
        "format": "fashionrec-run",
        "format_version": 1,
        "name": folder.name,
        "kind": "detector",
        "verb": "train",
        "status": "done",
        "promoted": False,
        "created": "2026-11-01T00:00:00+00:00",
        "seconds": 1.0,
        "epochs": 1,
        "seed": 0,
        "device": "cpu",
        "weights": {"best": "weights/best.pt", "last": "weights/last.pt"},
        "config": {"train": {"epochs": 1}},
        "dataset": {"path": "data/d/data.yaml", "fingerprint": "f", "valid": "v"},
        "versions": {},
        "metrics": {"map50": 0.9, "map50_95": 0.5, "split": "valid", "per_class": {}},
        "notes": {},
        "promotions": [],
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / ".lock").write_bytes(b"")
