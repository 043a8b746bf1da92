"""Many nights of one catalogue: prices that change, and now and then a whole table built again.
Whole processes.

python -m benchmarks nights [--items 100000] [--nights 200] [--rebuilds 50] [--share .001] [--smoke]

Small drawn photos, the tests' small models. Each night gives a share of the products another price.
Some nights a `build-index` of the whole table follows, in which as many products are new, are gone
or have another title. In the end the catalogue has to answer as one that is built anew from the
last table. Prints the costs, how they compare with the first, and the room on the disk.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.growth import DETECTOR, EMBEDDER, HERE, Cost, run

QUESTIONS = ("price < 50000", "title like '%red%'", "product_id = 'p7'", "price >= 100000 and not title like '%dress%'")
COLOURS, KINDS = ("red", "navy", "white", "black"), ("dress", "pants", "skirt", "top")


class Shop:
    """Products of a table, and their photos."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rng = folder, random.Random(0)
        self.rows: dict[str, dict[str, Any]] = {}
        self._made = 0
        (folder / "photos").mkdir()

    def add(self, count: int) -> None:
        noise = np.random.default_rng(self._made)
        for _ in range(count):
            name = f"photos/{self._made:06d}.jpg"
            Image.fromarray(noise.integers(0, 256, (4, 4, 3), np.uint8)).resize((48, 64)).save(self.folder / name)
            product = f"p{self._made}"
            title = f"{self.rng.choice(COLOURS)} {self.rng.choice(KINDS)} {self._made}"
            price = self.rng.randrange(10, 300) * 1000
            self.rows[product] = {"image": name, "product_id": product, "title": title, "price": price}
            self._made += 1

    def some(self, count: int) -> list[str]:
        return self.rng.sample(sorted(self.rows), count)

    def table(self, name: str, products: Sequence[str] | None = None, columns: Sequence[str] = ()) -> Path:
        """Write the rows of all products, or of some, with all columns or some."""
        rows = self.rows.values() if products is None else [self.rows[product] for product in products]
        path = self.folder / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns or list(next(iter(rows))), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path


def room(folder: Path) -> float:
    """MB on the disk; a file of several names counts once."""
    files = {(state.st_dev, state.st_ino): state.st_size for path in folder.rglob("*") if (state := path.lstat())}
    return sum(files.values()) / 1e6


def answers(folder: Path, catalogue: str) -> list[Any]:
    """Return what a catalogue answers, without what differs from process to process."""
    found = []
    for words in [("photos/000005.jpg", "--where", where) for where in QUESTIONS] + [("--text", "red dress")]:
        command = [
            sys.executable,
            "-m",
            "fashionrec",
            "query",
            *words,
            "--index",
            catalogue,
            "--json",
            "--quiet",
            "-k",
            "50",
        ]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
        hits = [hit for garment in json.loads(done.stdout)["garments"] for hit in garment["hits"]]
        found.append([(hit["product_id"], round(hit["score"], 5), hit["metadata"]) for hit in hits])
    return found


def tell(what: str, costs: Sequence[Cost]) -> None:
    """One line: the first, the median, how many cost more than 1.2 times the first, and the
    highest.
    """
    seconds = [cost.seconds for cost in costs]
    tail = seconds[-max(1, len(seconds) // 10) :]
    slower = sum(one > 1.2 * seconds[0] for one in seconds)
    print(
        f"{len(costs)} x {what}: the first {costs[0]}; median {median(seconds):.2f} s, the last tenth {median(tail):.2f} s,"
        f" the most {max(seconds):.2f} s and {max(cost.peak for cost in costs):.0f} MB; {slower} above 1.2 x the first;"
        f" {sum(cost.written for cost in costs):.0f} MB out"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("items", 100_000), ("nights", 200), ("rebuilds", 50)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--share", type=float, default=0.001, help="of the products that change in a night")
    parser.add_argument("--smoke", action="store_true", help="400 products and 12 nights")
    given, _ = parser.parse_known_args([word for word in sys.argv[1:] if word != "nights"])
    if given.smoke:
        given.items, given.nights, given.rebuilds, given.share = 400, 12, 3, 0.02
    with tempfile.TemporaryDirectory(prefix="nights-") as name:
        folder = Path(name)
        shop = Shop(folder)
        shop.add(given.items)
        build = ("build-index", shop.table("products.csv"), "--detector", DETECTOR, "--embedder", EMBEDDER)
        print(f"first build of {given.items:,}: {run(HERE, folder, (*build, '--index', 'c'))}", flush=True)
        first, disk = room(folder / "c"), []
        few = max(1, round(given.share * given.items))
        updates, rebuilds = [], []
        for night in range(given.nights):
            changed = shop.some(few)
            for product in changed:
                shop.rows[product]["price"] += 1000
            prices = shop.table("prices.csv", changed, ("product_id", "price"))
            updates.append(run(HERE, folder, ("catalogue", "update", prices, "--index", "c")))
            if (night + 1) * given.rebuilds // given.nights > night * given.rebuilds // given.nights:
                for product in shop.some(few):
                    shop.rows[product]["title"] += " sale"
                for product in shop.some(few):
                    if product not in ("p5", "p7"):
                        del shop.rows[product]
                shop.add(few)
                shop.table("products.csv")
                rebuilds.append(run(HERE, folder, (*build, "--index", "c")))
            disk.append(room(folder / "c"))
        if updates:
            tell("`catalogue update`", updates)
        if rebuilds:
            tell("`build-index` of the whole table", rebuilds)
        print(f"disk: {first:.0f} MB after the first build, {max(disk, default=first):.0f} at most")
        shop.table("products.csv")
        run(HERE, folder, (*build, "--index", "anew"))
        run(HERE, folder, (*build, "--index", "c"))
        if answers(folder, "c") != answers(folder, "anew"):
            sys.exit("the catalogue answers otherwise than one that is built anew")
        print("it answers as a catalogue that is built anew")
