"""query beside a straight script, from a cold start; warm, by stages; and with filters: over a catalogue of 100,000 garments.

python -m benchmarks query [--models yolov8n yolov8l] [--vectors 100000] [--pairs 10] [--parts cold warm filters] [--out DIR]

The script is what one would write by hand with ultralytics, transformers and FAISS (it reads the same vectors and a JSON of the
products). Cold: whole processes in interleaved pairs, `fashionrec query PHOTO --json` and the script, same weights; the first
pair warms the disk and does not count. Memory is the peak of each process (`ru_maxrss`). The garments of the catalogue are drawn
vectors around those of real crops, so that hits mean nothing and cost what they cost. Warm: one open catalogue in one process.
Filters: over a column of random numbers, against brute force.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import weights
from benchmarks.index import world

STRAIGHT = """
import json, sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
import faiss, numpy as np, torch
from PIL import Image, ImageOps
from transformers import CLIPImageProcessor, CLIPModel
from ultralytics import YOLO
from straight import cut
photo, weights, clip, conf, index, items = sys.argv[2:]
picture = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
found = YOLO(weights).predict(picture, imgsz=640, conf=float(conf), iou=0.6, max_det=12, device="cpu", verbose=False)[0]
boxes = found.boxes.xyxy.tolist() or [[0, 0, picture.width, picture.height]]
model, processor = CLIPModel.from_pretrained(clip).eval(), CLIPImageProcessor.from_pretrained(clip)
with torch.no_grad():
    features = model.get_image_features(**processor(images=[cut(picture, box) for box in boxes], return_tensors="pt"))
features = getattr(features, "pooler_output", features)
vectors = (features / features.norm(dim=-1, keepdim=True)).numpy()
scores, rows = faiss.read_index(index).search(vectors, 10)
products = json.loads(Path(items).read_text())
print(json.dumps([[products[row] for row in found] for found in rows.tolist()]))
"""


def catalogue(root: Path, detector: Path, embedder: Path, count: int) -> None:
    """A catalogue of drawn vectors, each a product with a title, a price and numbers to filter by."""
    from PIL import Image

    from fashionrec.assemble import item_id
    from fashionrec.bundle import Bundle
    from fashionrec.config import load_config
    from fashionrec.files import dump_json, write_atomic
    from fashionrec.images import encode_jpeg
    from fashionrec.runs import installed_versions, now
    from fashionrec.store import generations
    from fashionrec.store.index import make_index
    from fashionrec.store.item_writer import ItemWriter
    from fashionrec.store.items import GarmentRow, ItemReader, PhotoRow
    from fashionrec.store.segments import VECTORS, write_vectors
    from fashionrec.types import CLASS_NAMES, Box

    config = load_config(env={}).config
    name, segment = "000001", "000001-image"
    folder = root / "generations" / name
    folder.mkdir(parents=True)
    (root / "segments" / segment).mkdir(parents=True)
    write_vectors(root / "segments" / segment / VECTORS, world(count, 512, 0), 512)
    thumbnail = encode_jpeg(Image.effect_noise((224, 224), 40).convert("RGB"), 224)
    (root / "segments" / segment / generations.THUMBNAILS).write_bytes(thumbnail)
    rng = random.Random(0)
    writer = ItemWriter(folder / generations.ITEMS)
    colours = ("red", "navy", "white", "black", "beige", "khaki")
    for n in range(count):
        kind = CLASS_NAMES[n % 5]
        garment = GarmentRow(0, kind, 0.9, Box(0, 0, 200, 300), False, segment, n, 0, len(thumbnail))
        (number,) = writer.add_photo(PhotoRow(f"{n:064x}", 200, 300, "drawn", (garment,)))
        data = {
            "title": f"{rng.choice(colours)} {kind} {n}",
            "price": rng.randrange(10, 300) * 1000,
            "currency": "KRW",
            "brand": rng.choice("ABCDEFGH"),
            "color": rng.choice(colours),
            "draw": rng.random(),
        }
        entry = writer.add_entry(f"{n}.jpg", "", f"p{n}", f"{n:064x}", data)
        writer.add_item(item_id(f"p{n}", f"{n:064x}", garment), entry, number, f"p{n}", False, data["title"])
    writer.close()
    stored = {}
    for kind, path in (("detector", detector), ("embedder", embedder)):
        bundle = Bundle.open(path)
        bundle.copy_to(root / "bundles" / kind)
        stored[kind] = {"path": f"bundles/{kind}", "name": bundle.name, "fingerprint": bundle.fingerprint}
    segments = {segment: {"kind": "image", "count": count, "dim": 512, "embedder": stored["embedder"]["fingerprint"]}}
    reader = ItemReader(folder / generations.ITEMS)
    manifest = {
        "created": now(),
        "versions": installed_versions(),
        "photos_from": "",
        "bundles": stored,
        "segments": segments,
        "counts": reader.counts(),
        "settings": {"build_key": "drawn", "crop": config.crop.model_dump(), "thumbnail": config.build.thumbnail},
        "index": make_index(root, name, segments, settings=config.index, log=lambda text: print(text, file=sys.stderr)),
    }
    write_atomic(folder / generations.REPORT, dump_json({}))
    generations.commit(root, name, manifest)


def timed(command: list[str]) -> tuple[float, float, Any]:
    """Seconds, peak MB, and what it printed, of a process."""
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode()
    if process.returncode:
        sys.exit(f"{' '.join(command[:6])} failed: {text[-500:]}")
    return seconds, usage.ru_maxrss / 1024, json.loads(text)


def cold(model: str, made: dict[str, Path], root: Path, photos: list[Path], conf: float, pairs: int, out: Path) -> Any:
    items = out / "items.json"
    items.write_text(json.dumps([f"p{n}" for n in range(_count(root))]))
    index = root / "segments" / "000001-image" / "vectors.faiss"
    script = out / "straight_query.py"
    script.write_text(STRAIGHT)
    ours, theirs, same, ratios, bare = [], [], [], [], []
    for n in range(pairs + 1):
        photo = photos[n % len(photos)]
        words = ["query", str(photo), "--index", str(root), "--json", "--quiet", "--set", f"detector.conf={conf}"]
        a = timed([sys.executable, "-m", "fashionrec", *words])
        arguments = [Path("benchmarks/straight.py").resolve(), photo, made["weights"], made["clip"], conf, index, items]
        b = timed([sys.executable, str(script), *map(str, arguments)])
        if n:
            ours.append(a)
            theirs.append(b)
            ratios.append(b[0] / a[0])
            mine = [[hit["product_id"] for hit in garment["hits"]] for garment in a[2]["garments"]]
            same += [len(set(x) & set(y)) / 10 for x, y in zip(mine, b[2], strict=False)]
            bare.append(_bare())
    return {
        "model": model,
        "pairs": pairs,
        "ours_s": round(statistics.median(one[0] for one in ours), 3),
        "straight_s": round(statistics.median(one[0] for one in theirs), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ours_mb": round(statistics.median(one[1] for one in ours)),
        "straight_mb": round(statistics.median(one[1] for one in theirs)),
        "overlap_at_10": round(statistics.mean(same), 3) if same else None,
        "over_python_pass": round(statistics.median(one[0] / b for one, b in zip(ours, bare, strict=True)), 1),
        "stages_ms": {
            stage: round(statistics.median(one[2]["timings_ms"][stage] for one in ours), 1)
            for stage in ours[0][2]["timings_ms"]
        },
    }


def _bare() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - start


def _count(root: Path) -> int:
    from fashionrec.store.generations import read_current

    return int(read_current(root).manifest["counts"]["items"])


def warm(root: Path, photos: list[Path], conf: float) -> dict[str, Any]:
    from concurrent.futures import ThreadPoolExecutor

    from fashionrec.catalogue import Catalogue
    from fashionrec.config import load_config

    config = load_config(env={}, sets=[f"detector.conf={conf}"]).config
    figures: dict[str, Any] = {}
    with Catalogue.open(root, config) as opened:
        for name, ask, questions in (
            ("photo", opened.search, [*photos[:3], *photos[:20]]),
            (
                "text",
                opened.search_text,
                ["a red dress", "네이비 체크 스커트", "white shirt", *("navy pants" for _ in range(20))],
            ),
        ):
            answers = [ask(question) for question in questions][3:]  # type: ignore[operator]
            stages: dict[str, list[float]] = {}
            for answer in answers:
                for stage, ms in [*answer.timings_ms.items(), ("all", sum(answer.timings_ms.values()))]:
                    stages.setdefault(stage, []).append(ms)
            figures[name] = {
                stage: {"p50": round(float(np.percentile(ms, 50)), 2), "p95": round(float(np.percentile(ms, 95)), 2)}
                for stage, ms in stages.items()
            }

        def hits(photo: Path) -> Any:
            return [(h.item.item_id, round(h.score, 6)) for g in opened.search(photo).garments for h in g.hits]

        alone = [hits(photo) for photo in photos[:12]]
        for threads in (2, 8):
            with ThreadPoolExecutor(threads) as pool:
                figures[f"identical_from_{threads}_threads"] = list(pool.map(hits, photos[:12])) == alone
    return figures


def filters(root: Path) -> list[dict[str, Any]]:
    from fashionrec.catalogue import Catalogue
    from fashionrec.config import load_config
    from fashionrec.search.ranking import rank
    from fashionrec.types import Box, Garment

    rng = np.random.default_rng(1)
    results = []
    with Catalogue.open(root, load_config(env={}).config) as opened:
        everything = opened.images.fetch(np.arange(len(opened.images)))
        draws = {stored.image_at: stored.item.metadata["draw"] for stored in opened.items.everything()}
        draw = np.array([draws[opened.images.locate(n)] for n in range(len(opened.images))])
        garment = Garment(0, None, None, Box(0, 0, 1, 1))
        for share in (0.5, 0.05, 0.005, 0.0005):
            times, recalls, full, first = [], [], [], 0.0
            for n in range(100):
                query = everything[rng.integers(len(everything))] + rng.normal(0, 0.02, 512).astype(np.float32)
                query = (query / np.linalg.norm(query)).astype(np.float32)
                where = f"draw < {share} and price > 0"
                settings = opened.config.query.model_copy(update={"where": where, "same_class": 0.0})
                start = time.perf_counter()
                answer = rank(opened, garment, query, settings)
                spent = (time.perf_counter() - start) * 1000
                if not n:
                    first = spent
                    continue
                times.append(spent)
                kept = np.flatnonzero(draw < share)
                truth = kept[np.argsort(-(everything[kept] @ query), kind="stable")[:10]]
                found = {hit.item.product_id for hit in answer.hits}
                recalls.append(len(found & {f"p{opened.images.locate(int(t))[1]}" for t in truth}) / min(10, len(kept)))
                full.append(len(answer.hits) == min(10, len(kept)))
            results.append(
                {
                    "selectivity": share,
                    "first_ms": round(first, 1),
                    "p50_ms": round(float(np.percentile(times, 50)), 2),
                    "p95_ms": round(float(np.percentile(times, 95)), 2),
                    "recall_at_10": round(statistics.mean(recalls), 4),
                    "always_full": all(full),
                }
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="*", default=["yolov8n", "yolov8l"])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--garments", type=float, default=1.5)
    parser.add_argument("--parts", nargs="*", default=["cold", "warm", "filters"])
    parser.add_argument("--out", type=Path, default=Path("runs/query-benchmark"))
    options, _ = parser.parse_known_args([word for word in sys.argv[1:] if word != "query"])
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    photos = weights.photos(40, out)
    document: dict[str, Any] = {}
    for model in options.models:
        made = weights.bundles(model, photos, out, options.epochs)
        conf = weights.confidence(made["detector"], photos, options.garments)
        root = out / f"catalogue-{model}-{options.vectors}"
        if not (root / "catalogue.json").exists():
            shutil.rmtree(root, ignore_errors=True)
            catalogue(root, made["detector"], made["embedder"], options.vectors)
        if "cold" in options.parts:
            figures = cold(model, made, root, photos, conf, options.pairs, out)
            document[f"cold, {model}"] = figures
            print(json.dumps(figures, indent=2), flush=True)
        if "warm" in options.parts:
            document[f"warm, {model}"] = warm(root, photos, conf)
            print(json.dumps({model: document[f"warm, {model}"]}, indent=2), flush=True)
    if "filters" in options.parts:
        document["filters"] = filters(root)
        for row in document["filters"]:
            print(json.dumps(row), flush=True)
    (out / "query.json").write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
