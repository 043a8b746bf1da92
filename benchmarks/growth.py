"""Measure what each operation costs as a catalogue grows: CPU seconds, peak memory and bytes
written of whole processes.

python -m benchmarks growth [--sizes 2000 8000 32000 131000] [--photos 250 1000] [--against COMMIT ...] [--smoke]

Catalogues of each size are drawn (30 columns, random vectors) and asked with the tests' small
models, so that what is measured is the catalogue and not a network; one of a million items takes
some minutes to draw. Builds are of drawn photos, which ``--photos`` counts. The exponent compares
the last two sizes: 0 for a cost that does not grow, 1 for one in proportion, 2 for its square.
``--against`` measures earlier versions on catalogues of their own in the same run. Prints Markdown.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import versions
from benchmarks.incremental import draw
from benchmarks.versions import HERE, check_out

TINY = HERE / "tests" / "data" / "tiny"
DETECTOR, EMBEDDER = TINY / "detector", TINY / "embedder"


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a process, its peak memory, and what the system counted as written to the
    disk, both in MB.
    """

    seconds: float
    peak: float
    written: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.peak:.0f} MB" + (f", {self.written:.1f} MB out" if self.written else "")


def run(tree: Path, folder: Path, words: Sequence[object]) -> Cost:
    """Run ``fashionrec`` of a checkout in ``folder``; returns the cost of the process and of all
    that it started.
    """
    used = versions.run(tree, ("-m", "fashionrec", *words, "--quiet"), folder, OMP_NUM_THREADS="1").used
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, used.ru_oublock * 512 / 1e6)


def table(path: Path, **columns: object) -> Path:
    """Write a table of one row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerow(columns)
    return path


def operations(tree: Path, size: int) -> dict[str, Cost]:
    """The costs of asking, changing and copying a drawn catalogue of ``size`` items, in this order
    on the same one.
    """
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        folder = Path(name)
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        drawing = (sys.executable, HERE / "benchmarks" / "query_catalogue.py", folder / "c", DETECTOR, EMBEDDER, size)
        subprocess.run([str(word) for word in drawing], env=environment, stderr=subprocess.DEVNULL, check=True)
        draw(folder / "photo.jpg", random.Random(0))
        price = table(folder / "price.csv", product_id="p7", price=5)
        new = table(folder / "new.csv", image="photo.jpg", product_id="new", title="a red dress", price=9)
        index = ("--index", "c", "--json")
        query = ("query", "photo.jpg", *index)
        three = "price < 50000 and brand = 'A' and text3 = 'red 3'"
        found = {}
        for what, words in {
            "query, a photo": query,
            "query, `--where` of one column": (*query, "--where", "price < 50000"),
            "query, `--where` of three columns": (*query, "--where", three),
            "query, `--where` of one product": (*query, "--where", "product_id = 'p7'"),
            "query, a text of common words": ("query", "--text", "red dress", *index),
            "query, `--like`": ("query", "--like", "p7", *index),
            "`catalogue show`": ("catalogue", "show", "c"),
            "`catalogue verify`": ("catalogue", "verify", "c"),
            "`caption --status`": ("caption", "--status", *index),
            "`catalogue export`": ("catalogue", "export", "out", *index),
            "`catalogue import`": ("catalogue", "import", "out", "--index", "imported"),
            "`catalogue update`, one price": ("catalogue", "update", price, *index),
            "`catalogue update`, nothing new": ("catalogue", "update", price, *index),
            "`catalogue add`, one photo": ("catalogue", "add", new, *index),
            "`catalogue remove`, one product": ("catalogue", "remove", "p8", *index),
            "`catalogue rollback`": ("catalogue", "rollback", "c"),
            "`catalogue compact`": ("catalogue", "compact", "c"),
        }.items():
            found[what] = run(tree, folder, words)
        return found


def builds(tree: Path, size: int) -> dict[str, Cost]:
    """The costs of a first build of ``size`` photos, and of one where nothing changed."""
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        folder = Path(name)
        rng = random.Random(0)
        for number in range(size):
            draw(folder / "photos" / f"{number:06d}.jpg", rng)
        words = ("build-index", "photos", "--index", "c", "--detector", DETECTOR, "--embedder", EMBEDDER)
        return {"`build-index`, the first": run(tree, folder, words), "`build-index`, again": run(tree, folder, words)}


def exponent(sizes: Sequence[int], costs: Sequence[Cost]) -> float:
    """Return how the CPU seconds grow between the last two sizes."""
    return math.log(costs[-1].seconds / costs[-2].seconds) / math.log(sizes[-1] / sizes[-2])


def tell(title: str, sizes: Sequence[int], measured: Sequence[dict[str, Cost]]) -> None:
    print(f"\n| {title} | {' | '.join(f'{size:,}' for size in sizes)} | exponent |")
    print("| --- |" + " ---: |" * (len(sizes) + 1))
    for what in measured[0]:
        costs = [of_size[what] for of_size in measured]
        print(f"| {what} | {' | '.join(map(str, costs))} | {exponent(sizes, costs):.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 8_000, 32_000, 131_000])
    parser.add_argument("--photos", type=int, nargs="+", default=[250, 1_000])
    parser.add_argument("--against", nargs="*", default=[])
    parser.add_argument("--smoke", action="store_true", help="two small sizes, in seconds")
    options = parser.parse_args([word for word in sys.argv[1:] if word != "growth"])
    sizes, photos = ([200, 800], [10, 40]) if options.smoke else (options.sizes, options.photos)
    if min(len(sizes), len(photos)) < 2:
        sys.exit("an exponent needs two sizes")
    with tempfile.TemporaryDirectory() as name:
        trees = {"this version": HERE} | {commit: check_out(commit, Path(name, commit)) for commit in options.against}
        for version, tree in trees.items():
            tell(f"{version}, items", sizes, [operations(tree, size) for size in sizes])
            tell(f"{version}, photos", photos, [builds(tree, size) for size in photos])


if __name__ == "__main__":
    main()
