"""Real photos: train YOLOv8n on street photos, build a catalogue of shop photos with it, ask it
with other views.

FASHIONREC_REALDATA=FOLDER python -m benchmarks realdata [--epochs N] [--detector MODEL] [--embedder
CLIP] [--out DIR]

FOLDER holds `ccp-yolo` (a YOLO dataset) and `luma` (shop photos, with metadata.csv: path, class,
product_id, role). The encoder is whatever --embedder names (a bundle, a hub id, a transformers
folder); without it a small CLIP is trained here on the gallery photos and their titles.
``--detector`` takes one that is there, and trains none. The queries are asked by whole photo and by
crop, by picture, by caption and by both. Every step is the command that a user would type.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path


def fashionrec(*arguments: object) -> dict[str, object]:
    command = [sys.executable, "-m", "fashionrec", *map(str, arguments), "--json"]
    print("+ fashionrec", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.returncode)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def tables(luma: Path, out: Path) -> tuple[Path, Path]:
    """Gallery and query tables with the columns that fashionrec reads; the photos stay where they
    are.
    """
    with (luma / "metadata.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    paths = []
    for role in ("gallery", "query"):
        path = out / f"{role}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "product_id", "category", "title", "colour", "text"])
            for row in rows:
                if row["role"] == role:
                    image = (luma / row["path"]).resolve()
                    writer.writerow([image, row["product_id"], row["class"], row["title"], row["colour"], row["text"]])
        paths.append(path)
    return paths[0], paths[1]


def trained(real: Path, out: Path, options: argparse.Namespace, runs: tuple[str, str]) -> tuple[str, dict[str, object]]:
    """A detector trained on the street photos, and its figures on those held out."""
    dataset = out / "ccp"
    if not dataset.exists():
        fashionrec("fetch-dataset", f"yolo:{real / 'ccp-yolo'}", "--out", dataset)
    run = fashionrec(
        *("train", f"data={dataset}/data.yaml", "model=yolov8n.yaml", "name=ccp", "exist_ok=true", "device=cpu"),
        *(f"epochs={options.epochs}", f"imgsz={options.imgsz}", "batch=16", "mosaic=0.5", *runs),
    )
    detector = str(run["path"])
    return detector, fashionrec(
        "evaluate", "--weights", detector, "--data", dataset / "data.yaml", "--split", "valid", *runs
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--detector")
    parser.add_argument("--embedder")
    parser.add_argument("--out", type=Path, default=Path("runs/realdata"))
    options, _ = parser.parse_known_args([word for word in sys.argv[1:] if word != "realdata"])
    folder = os.environ.get("FASHIONREC_REALDATA")
    if not folder:
        sys.exit("FASHIONREC_REALDATA names no folder")
    real, out = Path(folder), options.out
    out.mkdir(parents=True, exist_ok=True)
    gallery, queries = tables(real / "luma", out)
    runs = ("--set", f"project.runs={out}")
    detector, detection = options.detector, None
    if detector is None:
        detector, detection = trained(real, out, options, runs)
    embedder = options.embedder
    if embedder is None:
        clip = fashionrec(
            *("train", f"data={gallery}", "name=clip", "exist_ok=true", f"--set=detector.source={detector}", *runs)
        )
        embedder = str(clip["path"])
    index = out / "catalogue"
    build = fashionrec("build-index", gallery, "--index", index, "--detector", detector, "--embedder", embedder, *runs)
    search = fashionrec("evaluate", "--index", index, "--queries", queries, *runs)
    fashionrec("caption", "--index", index, "--captioner", "local", *runs)
    ways = fashionrec("evaluate", "--index", index, "--queries", queries, "--ways", *runs)
    with queries.open(encoding="utf-8") as file:
        photo = next(csv.DictReader(file))["image"]
    fashionrec("query", photo, "--index", index, "--html", out / "answer.html", *runs)
    keys = ("map50", "map50_95", "precision", "recall")
    figures = {
        "detector": {key: round(float(str(detection[key])), 4) for key in keys} if detection else detector,
        "build": {key: build[key] for key in ("rows", "failed", "items", "products", "photos_per_second")},
        "search": {key: search[key] for key in ("crop", "whole", "crop_fallbacks")},
        "ways": ways["ways"],
        "caption_weight": ways["caption_weight"],
        "page": str(out / "answer.html"),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
