"""Measure what a nightly change costs beside a full build: photos added, prices changed, products
gone. Whole processes.

python -m benchmarks incremental [--photos 10000] [--out DIR]

With the demo's models (run `fashionrec demo` first) and drawn photos. The full build comes first;
each change is one `build-index` of the whole table, as a nightly job runs it, and then one verb of
`catalogue` that does the same without a look at the photos.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

DETECTOR = Path("runs/demo/train/detector/weights/best.bundle")
EMBEDDER = Path("runs/demo/train/encoder/weights/best.bundle")


def draw(path: Path, rng: random.Random) -> None:
    """A plain garment on a plain ground; what matters here is that each photo is another."""
    image = Image.new("RGB", (240, 320), tuple(rng.randrange(180, 256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    colour = tuple(rng.randrange(256) for _ in range(3))
    left, top = rng.randrange(30, 70), rng.randrange(40, 90)
    pen.polygon([(left, top), (240 - left, top), (215, 280), (25, 280)], fill=colour)
    for _ in range(rng.randrange(12)):
        y = rng.randrange(top, 280)
        pen.line((40, y, 200, y), fill=tuple(rng.randrange(256) for _ in range(3)), width=rng.randrange(1, 7))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=88)


def fashionrec(*words: object) -> tuple[float, dict[str, Any]]:
    """Seconds of the whole process, and its document."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "fashionrec", *map(str, words), "--json", "--quiet"], stdout=subprocess.PIPE, check=True
    )
    return time.perf_counter() - start, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("runs/incremental"))
    options, _ = parser.parse_known_args([word for word in sys.argv[1:] if word != "incremental"])
    if not DETECTOR.is_dir() or not EMBEDDER.is_dir():
        sys.exit("no demo models here: run `fashionrec demo` first")
    out: Path = options.out
    shutil.rmtree(out, ignore_errors=True)
    rng = random.Random(0)
    rows: list[dict[str, Any]] = []

    def more(count: int) -> None:
        for _ in range(count):
            name = f"photos/{len(rows):06d}.jpg"
            draw(out / name, rng)
            price = rng.randrange(10, 200) * 1000
            rows.append({"image": name, "product_id": f"p{len(rows):06d}", "price": price, "title": f"옷 {len(rows)}"})

    def table(name: str, chosen: list[dict[str, Any]]) -> Path:
        with (out / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(chosen[0]))
            writer.writeheader()
            writer.writerows(chosen)
        return out / name

    more(options.photos)
    time.sleep(2.1)  # a file that was written a moment ago is hashed again
    root = out / "catalogue"
    models = ("--index", root, "--detector", DETECTOR, "--embedder", EMBEDDER)
    full, report = fashionrec("build-index", table("products.csv", rows), *models)
    print(f"full build of {options.photos} photos: {full:.1f} s, {report['photos_per_second']} photos/s")
    results: dict[str, tuple[float, dict[str, Any]]] = {
        "build-index, nothing changed": fashionrec("build-index", out / "products.csv", *models)
    }
    more(100)
    results["build-index, 100 photos added"] = fashionrec("build-index", table("products.csv", rows), *models)
    for row in rows[:1000]:
        row["price"] += 500
    results["build-index, 1,000 prices changed"] = fashionrec("build-index", table("products.csv", rows), *models)
    prices = [{"product_id": row["product_id"], "price": row["price"] + 500} for row in rows[1000:2000]]
    results["catalogue update, 1,000 prices"] = fashionrec(
        "catalogue", "update", table("prices.csv", prices), "--index", root
    )
    for row in rows[1000:2000]:
        row["price"] += 500
    gone = {row["product_id"] for row in rows[50:150]}
    kept = [row for row in rows if row["product_id"] not in gone]
    results["build-index, 100 products gone"] = fashionrec("build-index", table("products.csv", kept), *models)
    ids = [row["product_id"] for row in kept[200:300]]
    results["catalogue remove, 100 products"] = fashionrec("catalogue", "remove", *ids, "--index", root)
    results["catalogue compact"] = fashionrec("catalogue", "compact", root)
    print(f"{'':36} {'seconds':>8} {'of full':>8} {'embedded':>9} {'hashed':>7}")
    for name, (seconds, document) in results.items():
        counts = f"{document.get('embedded', ''):>9} {document.get('hashed', ''):>7}"
        print(f"{name:36} {seconds:8.2f} {100 * seconds / full:7.1f}% {counts}")
    shown = fashionrec("catalogue", "show", root)[1]["counts"]
    print(f"products at the end: {shown['products']} of {len(rows)} drawn, 200 taken away")
    found: set[str] = set()
    taken = gone | set(ids)
    for row in [row for row in rows if row["product_id"] in taken][:20]:  # asked with the very photos that went
        answer = fashionrec("query", out / row["image"], "--index", root, "-k", 50)[1]
        found |= {hit["product_id"] for garment in answer["garments"] for hit in garment["hits"]} & taken
    print(f"of the products taken away, {len(found)} came back in 20 queries with their own photos")
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
