"""`fashionrec compare` over all families of detectors, and each of them used in one `build-index`
and one `query`.

python -m benchmarks compare [--data DATA.YAML] [--models ...] [--epochs N] [--imgsz N] [--images N] [--pretrained] [--out DIR]

Without --data a small world is drawn: --images photos for the detectors, and a few products to
build with. All start from scratch, unless --pretrained; after a few epochs on a few photos their
mAP says nothing, and is printed as it is: speed, size and memory do not hang on it. The encoder is
a small CLIP, trained here for one epoch on the products.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MODELS = ("yolov8l.yaml", "yolo11l.yaml", "efficientdet_d3", "fasterrcnn_resnet50_fpn", "yolo26n.yaml")


def fashionrec(*arguments: object, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    command = [sys.executable, "-m", "fashionrec", *map(str, arguments), "--json"]
    print("+ fashionrec", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in codes:
        sys.exit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="data.yaml of a YOLO dataset")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--images", type=int, default=36)
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring, for each speed")
    parser.add_argument("--out", type=Path, default=Path("runs/compare-benchmark"))
    options, _ = parser.parse_known_args(sys.argv[sys.argv.index("compare") + 1 :] if "compare" in sys.argv else [])
    out, start = options.out, time.perf_counter()
    world, runs = out / "world", ("--set", f"project.runs={out / 'runs'}")
    if not world.exists():
        drawn = {"images": options.images, "products": 10, "queries": 1, "outfits": 0, "size": 160}
        sets = [word for key, value in drawn.items() for word in ("--set", f"synthetic.{key}={value}")]
        fashionrec("fetch-dataset", "synthetic", "--out", world, *sets)
    products, queries = world / "catalogue" / "products.csv", world / "queries" / "queries.csv"
    data = options.data or world / "data.yaml"
    compared = fashionrec(
        *("compare", "--models", *options.models, "--data", data, f"epochs={options.epochs}", f"imgsz={options.imgsz}"),
        *("batch=4", "workers=0", f"seconds={options.seconds}", "batches=[1, 2, 4, 8]", "--out", out / "report", *runs),
        *("--set", f"train.pretrained={str(options.pretrained).lower()}"),
        codes=(0, 3),
    )
    encoder = out / "runs" / "train" / "clip"
    if not (encoder / "weights" / "best").exists():
        words = ("--set", "detector.source=none", "--set", "train_embedder.epochs=1", *runs)
        fashionrec("train", f"data={products}", "name=clip", "exist_ok=true", *words)
    with queries.open(encoding="utf-8") as file:
        photo = world / "queries" / next(csv.DictReader(file))["image"]
    used = []
    for row in compared["models"]:
        if "failed" in row:
            continue
        index = out / "catalogues" / Path(row["model"]).stem
        # what so little training makes is sure of nothing: with the usual threshold all photos
        # would be indexed whole
        low = ("--set", "detector.conf=0.001")
        built = fashionrec(
            *(
                "build-index",
                products,
                "--index",
                index,
                "--detector",
                row["bundle"],
                "--embedder",
                encoder,
                *low,
                *runs,
            )
        )
        answer = fashionrec("query", photo, "--index", index, *low, *runs)
        found = [garment for garment in answer["garments"] if garment.get("hits")]
        used.append([row["model"], built["products"], built["items"], len(found)])
    print((out / "report" / "comparison.md").read_text(encoding="utf-8"))
    print(
        "| detector | products built | garments indexed | garments of a query photo with hits |\n| --- | ---: | ---: | ---: |"
    )
    for line in used:
        print("| " + " | ".join(map(str, line)) + " |")
    failed = {row["model"]: row["failed"] for row in compared["models"] if "failed" in row}
    print(f"\n{time.perf_counter() - start:.0f} s in all; failed: {json.dumps(failed) if failed else 'none'}")


if __name__ == "__main__":
    main()
