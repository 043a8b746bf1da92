"""Runs what changes a catalogue with a fault at each of its writes, and looks at what is left.
Preloads `fault_shim.c`.

LD_PRELOAD=fault_shim.so FAULT_DIR=SCRATCH python fault_runner.py SCENARIO MODE [--first N] [--step
N] [--count N] [--seed S]

Each trial is a process of its own, forked from this one, which has everything imported and no
catalogue open. One line of JSON a trial that went wrong, and a last one with the counts.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import warm  # noqa: F401
from PIL import Image, ImageDraw
from tampered import Ask, Inputs, tampered

import fashionrec.captioner.job
import fashionrec.catalogue.build.pipeline
import fashionrec.embedder.embed
import fashionrec.search.photo
import fashionrec.search.text
from fashionrec import Catalogue
from fashionrec.catalogue.build.build import build_catalogue
from fashionrec.catalogue.edit import compact_catalogue
from fashionrec.catalogue.reindex import reindex_catalogue
from fashionrec.config import Config, load_config
from fashionrec.errors import FashionrecError
from fashionrec.models.bundle import Bundle
from fashionrec.products.tables import read_products
from fashionrec.store import generations

TINY = Path(__file__).parent / "data" / "tiny"
KILL, TORN, FULL, BROKEN = 2, 3, 4, 5
MODES = {"kill": KILL, "torn": TORN, "full": FULL, "broken": BROKEN}
SHIM: Any = None
# photos are decoded here: a worker process would not be the one that is killed
SETS = ("build.workers=1", "build.checkpoint=4", "detector.batch=2", "embedder.batch=4", "project.threads=1")


def photo(path: Path, n: int) -> None:
    image = Image.new("RGB", (96, 64), (n * 7 % 256, 90, 200))
    if n % 3:
        ImageDraw.Draw(image).rectangle((0, 0, 47, 64), fill=(255, n % 40, n // 7 % 40))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def table(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class World:
    """A folder with photos and a catalogue to make of them."""

    def __init__(self, folder: Path, photos: Path | None = None) -> None:
        """Every photo that is detected is told to the file ``photos``, a byte each, outside the
        catalogue.
        """
        self.folder, self.root, self.photos = folder, folder / "c", photos
        self.config: Config = load_config(env={}, sets=SETS).config

    def rows(self, count: int, *, first: int = 0, price: int = 1) -> list[dict[str, Any]]:
        rows = []
        for n in range(first, first + count):
            path = self.folder / "p" / f"{n:03d}.png"
            if not path.exists():
                photo(path, n)
            rows.append(
                {"image": f"p/{path.name}", "product_id": f"p{n // 2}", "price": price * n, "title": f"셔츠 {n}"}
            )
        return rows

    def detector(self) -> Bundle:
        bundle = Bundle.open(TINY / "detector")
        return bundle if self.photos is None else tampered(bundle, self.told)

    def told(self, graph: str, inputs: Inputs, ask: Ask) -> list[np.ndarray]:
        assert self.photos is not None
        with self.photos.open("ab", buffering=0) as file:
            file.write(b"x" * len(next(iter(inputs.values()))))
        return ask(inputs)

    def build(self, rows: list[dict[str, Any]] | None = None, *, config: Config | None = None) -> Any:
        if rows is not None:
            table(self.folder, rows)
        return build_catalogue(
            read_products(self.folder / "t.jsonl"),
            self.root,
            detector_bundle=self.detector(),
            embedder_bundle=Bundle.open(TINY / "embedder"),
            config=config or self.config,
            source=str(self.folder / "t.jsonl"),
            max_delete=1.0,
        )


def start_build(world: World) -> None:
    table(world.folder, world.rows(14))


def start_update(world: World) -> None:
    world.build(world.rows(12))
    changed = world.rows(12, first=3, price=2)  # three go, three come, prices change
    photo(world.folder / "p" / "005.png", 77)
    table(world.folder, changed)


def start_two(world: World) -> None:
    world.build(world.rows(8))
    world.build(world.rows(10))


def start_parts(world: World) -> None:
    world.build(world.rows(8))
    world.build(world.rows(11))
    world.build(world.rows(11, first=2))


def start_again(world: World) -> None:
    start_parts(world)
    table(world.folder, world.rows(12, first=3, price=2))  # over changes that are there already


def start_caption(world: World) -> None:
    world.build(world.rows(8))


def roll_back(world: World) -> Any:
    with generations.writer_lock(world.root):
        if generations.read_current(world.root).name != "000001":  # done already
            generations.roll_back(world.root)


def compact(world: World) -> Any:
    return compact_catalogue(world.root, world.config)


def caption(world: World) -> Any:
    return fashionrec.captioner.job.caption_catalogue(world.root, world.config)


def reindex(world: World) -> Any:
    return reindex_catalogue(world.root, world.config, vectors="float16")


SCENARIOS: dict[str, tuple[Callable[[World], None], Callable[[World], Any]]] = {
    "build": (start_build, lambda world: world.build()),
    "update": (start_update, lambda world: world.build()),
    "again": (start_again, lambda world: world.build()),
    "rollback": (start_two, roll_back),
    "compact": (start_parts, compact),
    "caption": (start_caption, caption),
    "reindex": (start_two, reindex),
}


def state(root: Path) -> Any:
    """All that a reader sees: items, vectors, pictures, words and answers;

    None where no catalogue is served.
    """
    if not generations.is_catalogue(root):
        return None
    with Catalogue.open(root) as catalogue:
        catalogue.generation.check(contents=True)
        items = {
            s.item.item_id: [
                *(s.item.product_id, s.item.image, s.item.class_name, s.worn_with, s.item.metadata, s.captions),
                catalogue.images.fetch([catalogue.images.position(*s.image_at)])[0].tobytes().hex(),
                catalogue.thumbnail(s).hex(),
            ]
            for s in catalogue.items.everything()
        }
        numbers = [n for n, _ in catalogue.items.text_search("셔츠", 100)]
        found = sorted(s.item.item_id for s in catalogue.items.by_numbers(numbers).values())
        answer = catalogue.search_text("red", k=3)
        hits = [hit.item.product_id for garment in answer.garments for hit in garment.hits]
        return json.loads(json.dumps([items, found, hits]))


def litter(root: Path) -> list[str]:
    """Files that nothing refers to."""
    known = {
        "catalogue.json",
        ".lock",
        "report.json",
        "report.html",
        "builds.jsonl",
        "captions.sqlite",
        ".captions.lock",
        "work/seen.sqlite",
        "work/seen.sqlite-journal",  # begun, and by its killed writer's next one written over
    }
    for generation in generations.list_generations(root):
        known |= set(generation.manifest.files) | {f"generations/{generation.name}/manifest.json"}
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return sorted(files - known)


def forked(work: Callable[[], Any], *, kill_after: float | None = None) -> dict[str, Any]:
    """Return what some work gives, in a process of its own:

    ``value``, ``error``, ``crash`` (a traceback) or ``signal``.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            document: dict[str, Any] = {"value": work()}
        except FashionrecError as error:
            document = {"error": [type(error).__name__, str(error)]}
        except BaseException:
            document = {"crash": traceback.format_exc()}
        SHIM.fault_arm(b"", 0, 0, -1)
        with os.fdopen(write, "w") as pipe:
            json.dump(document, pipe)
        os._exit(0)
    os.close(write)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    return dict(json.loads(text))


class Trials:
    def __init__(self, scenario: str, scratch: Path) -> None:
        self.prepare, self.act = SCENARIOS[scenario]
        self.base, self.place = scratch / "base", scratch / "trial"
        self.counts: Counter[str] = Counter()
        self.rework = 0
        self.photos = scratch / "photos"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        # everything happens at one path, so that what is written down about it is the same each
        # time
        must(forked(lambda: self.prepare(World(self.place))))
        shutil.move(self.place, self.base)
        self.before = self.fresh_state()
        trace = scratch / "trace"
        with trace.open("wb") as file:
            start = time.perf_counter()
            total = must(forked(lambda: self._armed(1, 0, file.fileno())))
            self.seconds = time.perf_counter() - start
        self.operations = int(total)
        self.trace = trace.read_text().splitlines()
        assert len(self.trace) == self.operations
        self.after = must(forked(lambda: state(self.place / "c")))
        self.embedded = self._counted()
        assert (self.after == self.before) == (scenario == "compact")
        assert litter(self.place / "c") == [], litter(self.place / "c")

    def fresh_state(self) -> Any:
        self._restore()
        return must(forked(lambda: state(self.place / "c")))

    def _restore(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.base, self.place)
        for path in sorted(self.base.rglob("*")):  # files are as old as they were
            status = path.stat()
            os.utime(self.place / path.relative_to(self.base), ns=(status.st_atime_ns, status.st_mtime_ns))
        self.photos.write_bytes(b"")

    def _armed(self, mode: int, at: int, trace: int = -1) -> int:
        world = World(self.place, self.photos)
        SHIM.fault_arm(str(self.place / "c").encode(), mode, at, trace)
        self.act(world)
        return int(SHIM.fault_count())

    def _counted(self) -> int:
        return len(self.photos.read_bytes())

    def trial(self, what: str, run: Callable[[], dict[str, Any]], mode: int) -> None:
        self._restore()
        outcome = run()
        wrong: list[str] = []
        ended = "value" in outcome
        if "crash" in outcome:
            wrong.append(f"crashed: {outcome['crash'].splitlines()[-1]}")
        if mode in (KILL, TORN) and "error" in outcome:
            wrong.append(f"ended with {outcome['error']}")
        if "error" in outcome and outcome["error"][0] != "WriteError":
            wrong.append(f"told of the fault as {outcome['error']}")
        left = forked(lambda: state(self.place / "c"))
        if "value" not in left or left["value"] not in (self.before, self.after):
            wrong.append(f"neither old nor new: {str(left)[:300]}")
        elif ended and left["value"] != self.after:
            wrong.append("ended without a word, but the old one is served")
        again = forked(lambda: self._armed(1, 0))
        if "value" not in again:
            wrong.append(f"does not go on: {again}")
        final = forked(lambda: state(self.place / "c"))
        if final.get("value") != self.after:
            wrong.append(f"does not end the same: {str(final)[:300]}")
        if trash := litter(self.place / "c"):
            wrong.append(f"litter: {trash[:5]}")
        self.rework = max(self.rework, self._counted() - self.embedded)
        self.counts["trials"] += 1
        self.counts["old" if left.get("value") == self.before else "new"] += 1
        self.counts["ended" if ended else "stopped"] += 1
        if wrong:
            self.counts["wrong"] += 1
            sys.stdout.write(json.dumps({"at": what, "wrong": wrong}, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def enumerated(self, mode: int, first: int, step: int) -> None:
        for at in range(first, self.operations + 1, step):
            what = f"{at}: {self.trace[at - 1].replace(str(self.place), '')}"
            self.trial(what, lambda at=at: forked(lambda: self._armed(mode, at)), mode)  # type: ignore[misc]

    def random(self, count: int, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(count):
            moment = rng.random() * self.seconds * 1.1
            self.trial(
                f"after {moment:.4f} s",
                lambda moment=moment: forked(lambda: self._armed(1, 0), kill_after=moment),  # type: ignore[misc]
                KILL,
            )


def must(outcome: dict[str, Any]) -> Any:
    if "value" not in outcome:
        sys.exit(f"cannot begin: {outcome}")
    return outcome["value"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("mode", choices=[*MODES, "random"])
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    global SHIM
    SHIM = ctypes.CDLL(os.environ["LD_PRELOAD"])
    SHIM.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int]
    SHIM.fault_count.restype = ctypes.c_long
    trials = Trials(options.scenario, Path(os.environ["FAULT_DIR"]) / f"{options.scenario}-{options.mode}")
    if options.mode == "random":
        trials.random(options.count, options.seed)
    else:
        trials.enumerated(MODES[options.mode], options.first, options.step)
    kinds = Counter(line.split()[0] for line in trials.trace)
    document = {
        "scenario": options.scenario,
        "mode": options.mode,
        "operations": trials.operations,
        "kinds": dict(kinds),
    }
    sys.stdout.write(json.dumps({**document, **trials.counts, "worst_rework_photos": trials.rework}) + "\n")
    sys.exit(1 if trials.counts["wrong"] else 0)


if __name__ == "__main__":
    main()
