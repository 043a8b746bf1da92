"""`build-index` beside the straight stack (YOLO.predict a photo, CLIP a crop, IndexFlatIP) on the
same photos and weights.

python -m benchmarks build [--photos 300] [--models yolov8n yolov8l] [--precisions fp32 int8] [--garments 1.5] [--epochs 8]
                           [--rounds 1] [--neighbours] [--out DIR]
python -m benchmarks build --memory [--few 1000] [--many 10000]

Photos are those of FASHIONREC_REALDATA, else drawn; the models are made here
(benchmarks/weights.py). What is compared is photos per second once the models are loaded. Of the
straight stack: its loop, after three photos to warm up. Of ours: the whole build, to the catalogue
written and its index measured, less the time that opening the two models takes. What comes before
is told beside it (`ready_s`), as are the ratio of the whole processes and the CPU time of a photo,
which hangs less on what else runs: the straight stack computes in as many threads as `YOLO.predict`
leaves torch (one less than there are cores), ours on all cores.

--neighbours: the 10 nearest of every garment in both catalogues, asked with the straight stack's
vectors: for how many they are the same, without any allowance for ties, and how many garments are
cut alike, to the pixel. (A crop that differs by one pixel decides here: random weights put all
pictures so near together that the tenth and the eleventh differ by some 0.0004.)

--memory: the peak of the whole process tree while a catalogue of small photos is built, by number
of photos.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import weights

OURS = """
import json, os, sys, time
begin = time.perf_counter()
from pathlib import Path
from fashionrec.catalogue.build.build import build_catalogue
from fashionrec.models.bundle import Bundle
from fashionrec.config import load_config
from fashionrec.products.tables import read_products
if __name__ == "__main__":
    table, detector, embedder, root, *sets = sys.argv[1:]
    config = load_config(sets=sets, env={}).config
    rows = read_products(Path(table))
    bundles = Bundle.open(detector), Bundle.open(embedder)
    opening = time.perf_counter()
    for bundle, graph in zip(bundles, ("detect", "image")):
        bundle.session(graph, threads=1)
    opened = time.perf_counter() - opening
    start, before = time.perf_counter(), os.times()
    models = {"detector_bundle": bundles[0], "embedder_bundle": bundles[1]}
    report = build_catalogue(rows, Path(root), **models, config=config, source=table)
    seconds, after = time.perf_counter() - start - opened, os.times()
    spent = sum(after[:4]) - sum(before[:4]) - opened
    print(json.dumps({"ready_s": start - begin, "seconds": seconds, "photos": report.photos,
        "garments": report.garments, "stages": report.seconds, "cpu_s": spent}))
"""


def child(command: list[str], **environment: str) -> dict[str, Any]:
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | environment
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "process_s": time.perf_counter() - start}


def straight(paths: list[Path], made: dict[str, Path], conf: float, out: Path, **environment: str) -> dict[str, Any]:
    listing = out / "photos.txt"
    listing.write_text("\n".join(str(path.resolve()) for path in paths))
    command = [sys.executable, "benchmarks/straight.py", str(listing), str(made["weights"]), str(made["clip"])]
    found = child([*command, repr(conf), str(out / "straight")], **environment)
    return {**found, "rate": len(paths) / found["seconds"]}


def ours(paths: list[Path], detector: Path, embedder: Path, conf: float, root: Path, sets: list[str]) -> dict[str, Any]:
    import shutil

    shutil.rmtree(root, ignore_errors=True)
    table = root.parent / "products.csv"
    rows = "".join(f"{path.resolve()},p{n}\n" for n, path in enumerate(paths))
    table.write_text(f"image,product_id\n{rows}")
    script = root.parent / "ours.py"
    script.write_text(OURS)
    command = [sys.executable, str(script), str(table), str(detector), str(embedder), str(root)]
    found = child([*command, f"detector.conf={conf!r}", *sets])
    return {**found, "rate": found["photos"] / found["seconds"]}


def measure(model: str, options: argparse.Namespace, paths: list[Path]) -> list[dict[str, Any]]:
    out = options.out
    made = weights.bundles(model, out, options.epochs)
    conf = weights.confidence(made["detector"], paths[:: max(1, len(paths) // 24)], options.garments)
    pairs: dict[str, tuple[Path, Path]] = {}
    for precision in options.precisions:
        pairs[precision] = weights.in_precision(made, precision, paths, out)
    photos = paths if model == "yolov8n" else paths[:: options.sparse]
    runs: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.rounds):  # in turn, so that other work on the machine hits all alike
        runs.setdefault("straight", []).append(straight(photos, made, conf, out))
        if options.all_threads:
            threads = str(len(os.sched_getaffinity(0)))
            found = straight(photos, made, conf, out, STRAIGHT_THREADS=threads)
            runs.setdefault("straight, all threads", []).append(found)
        for precision, (detector, embedder) in pairs.items():
            root = out / f"catalogue-{model}-{precision}"
            runs.setdefault(precision, []).append(ours(photos, detector, embedder, conf, root, options.set))
    base = runs["straight"]
    rows = []
    for name, mine in runs.items():
        rate = statistics.median(run["rate"] for run in mine)
        row = {
            "model": model,
            "stack": name,
            "photos": len(photos),
            "garments": mine[0]["garments"],
            "photos_per_s": round(rate, 2),
            "ratio": round(statistics.median(b["rate"] / a["rate"] for a, b in zip(base, mine, strict=True)), 2),
            "ratio_whole": round(
                statistics.median(a["process_s"] / b["process_s"] for a, b in zip(base, mine, strict=True)), 2
            ),
            "ready_s": round(statistics.median(run["ready_s"] for run in mine), 1),
            "cpu_ms_a_photo": round(statistics.median(run["cpu_s"] for run in mine) / len(photos) * 1000, 1),
        }
        if "stages" in mine[0]:
            row["stages"] = " ".join(f"{key} {value:.1f}" for key, value in mine[0]["stages"].items())
        rows.append(row)
    if options.neighbours and "fp32" in pairs:
        rows[0]["neighbours"] = neighbours(out / "straight", out / f"catalogue-{model}-fp32")
    return rows


def neighbours(straight_index: Path, root: Path, k: int = 10) -> dict[str, Any]:
    """Count the queries for which two catalogues have the same ``k`` nearest garments."""
    import faiss
    import numpy as np

    from fashionrec import Catalogue
    from fashionrec.types import Box

    rows = json.loads(Path(f"{straight_index}.json").read_text())
    theirs = faiss.read_index(f"{straight_index}.faiss").reconstruct_n(0, len(rows))
    with Catalogue.open(root) as catalogue:
        items = list(catalogue.items.everything())
        mine = catalogue.images.fetch([catalogue.images.position(*stored.image_at) for stored in items])
    place: dict[str, list[int]] = {}
    for n, stored in enumerate(items):
        place.setdefault(Path(stored.item.image).name, []).append(n)
    pairs = []
    for n, (path, box) in enumerate(rows):
        known = [(Box(*box).iou(items[m].item.box), m) for m in place.get(Path(path).name, [])]
        best = max(known, default=(0.0, -1))
        if best[0] > 0.9:
            pairs.append((n, best[1]))
    a, b = theirs[[n for n, _ in pairs]], mine[[m for _, m in pairs]]
    own = (a * b).sum(axis=1)
    alike = own > 1 - 1e-6
    return {
        "garments_straight": len(rows),
        "garments_ours": len(items),
        "garments_in_both": len(pairs),
        "cut_alike": int(alike.sum()),
        "cosine_of_the_others_least": float(own.min()),
        "cosine_between_garments_median": float(np.median(a @ a.T)),
        "same_top_10_of_those_cut_alike": same_nearest(a[alike], b[alike], k),
        "same_top_10_of_all": same_nearest(a, b, k),
    }


def same_nearest(a: Any, b: Any, k: int) -> float:
    """The share of queries (rows of ``a``) whose ``k`` nearest, but themselves, are the same in
    ``a`` and in ``b``.
    """
    import numpy as np

    same = 0
    for n in range(len(a)):
        tops = []
        for vectors in (a, b):
            scores = vectors @ a[n]
            scores[n] = -2.0
            tops.append({*np.argsort(-scores)[:k]})
        same += tops[0] == tops[1]
    return round(same / max(1, len(a)), 4)


def table(rows: list[dict[str, Any]]) -> None:
    keys = [key for key in rows[1] if key != "neighbours"] if len(rows) > 1 else list(rows[0])
    print("| " + " | ".join(keys) + " |")
    print("| " + " | ".join("---" for _ in keys) + " |")
    for row in rows:
        print("| " + " | ".join(str(row.get(key, "")) for key in keys) + " |")
    for row in rows:
        if "neighbours" in row:
            print(json.dumps(row["neighbours"], indent=2))
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks build", description=__doc__)
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--sparse", type=int, default=6, help="every which photo with YOLOv8l")
    parser.add_argument("--models", nargs="+", default=["yolov8n", "yolov8l"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--garments", type=float, default=1.5, help="that the detector is to find in a photo")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--neighbours", action="store_true")
    parser.add_argument("--all-threads", action="store_true", help="the straight stack with all cores, too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--many", type=int, default=10000)
    parser.add_argument("--out", type=Path, default=Path("runs/build-benchmark"))
    options, _ = parser.parse_known_args([word for word in sys.argv[1:] if word != "build"])
    options.out.mkdir(parents=True, exist_ok=True)
    if options.memory:
        from benchmarks.memory import compare

        print(json.dumps(compare(options.few, options.many, options.out), indent=2))
        return
    paths = weights.photos(options.photos, options.out)
    rows = []
    for model in options.models:
        mine = measure(model, options, paths)
        table(mine)
        rows += mine
    (options.out / "build.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
