"""query beside a straight script, from a cold start; warm, by stages; and with filters: over a
catalogue of 100,000 garments.

python -m benchmarks query [--models yolov8n yolov8l] [--precisions fp32 int8] [--vectors 100000] [--pairs 10]
                           [--parts cold warm filters profile] [--out DIR]

The script is what one would write by hand with ultralytics, transformers and FAISS (it reads the
same vectors and a JSON of the products). Cold: whole processes in interleaved pairs, `fashionrec
query PHOTO --json` and the script, same weights. Each is run once before it is timed: what counts
is a cold process, not a cold disk, and some systems take the memory of files back after seconds
(what was read from the disk all the same is told). In int8 the catalogue's models and vectors are,
and the script's are not: then their hits are not compared. Memory is the peak of each process
(`ru_maxrss`). The garments of the catalogue are drawn vectors around those of real crops, so that
hits mean nothing and cost what they cost. Warm: one open catalogue in one process. Filters: over a
column of random numbers, against brute force.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import weights
from benchmarks.query_catalogue import draw
from benchmarks.query_profile import profile

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
print(json.dumps([[box, [products[row] for row in found]] for box, found in zip(boxes, rows.tolist())]))
"""


#: A process of its own, as small as can be: what a child is charged begins with the memory of its
#: parent.
MEASURE = """
import json, os, subprocess, sys, time
begin = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
text = process.stdout.read().decode()
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - begin
cpu, megabytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, cpu, megabytes, usage.ru_majflt, text]))
"""


class Run(NamedTuple):
    """Cost of a process: wall and CPU seconds, its peak of resident memory in MB, pages read from
    the disk; what it printed.
    """

    seconds: float
    cpu: float
    megabytes: float
    read: int
    document: Any


def timed(command: list[str]) -> Run:
    """One process, measured the second time that it is run."""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-S", "-c", MEASURE, *command], check=True, stdout=subprocess.PIPE, text=True
        )
        code, *figures, text = json.loads(done.stdout)
        if code:
            sys.exit(f"{' '.join(command[:8])} failed ({code}): {text[-500:]}")
    return Run(*figures, json.loads(text))


def cold(
    model: str,
    made: dict[str, Path],
    root: Path,
    straight: Path,
    photos: list[Path],
    conf: float,
    pairs: int,
    out: Path,
) -> Any:
    """``root`` is the catalogue asked;

    ``straight`` the one in float32 whose vectors the script reads.
    """
    items = out / "items.json"
    items.write_text(json.dumps([f"p{n}" for n in range(_count(straight))]))
    index = straight / "segments" / "000001-image" / "vectors.faiss"
    script = out / "straight_query.py"
    script.write_text(STRAIGHT)
    sets = (f"detector.conf={conf}", "query.same_class=0")  # the script knows no classes
    ours, theirs, same, bare = [], [], [], []
    for n in range(pairs):
        photo = photos[n % len(photos)]
        words = ["query", str(photo), "--index", str(root), "--json", "--quiet"]
        words += [word for one in sets for word in ("--set", one)]
        a = timed([sys.executable, "-m", "fashionrec", *words])
        arguments = [Path("benchmarks/straight.py").resolve(), photo, made["weights"], made["clip"], conf, index, items]
        b = timed([sys.executable, str(script), *map(str, arguments)])
        ours.append(a)
        theirs.append(b)
        if root == straight:
            same += overlaps(a.document["garments"], b.document)
        bare.append(_bare())

    def median(values: Iterable[float], digits: int = 3) -> float:
        return round(statistics.median(values), digits)

    return {
        "model": model,
        "pairs": pairs,
        "garments": sum(len(one.document["garments"]) for one in ours),
        "ours_s": median(one.seconds for one in ours),
        "straight_s": median(one.seconds for one in theirs),
        "ratio": median((b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True)), 2),
        "cpu_ratio": median((b.cpu / a.cpu for a, b in zip(ours, theirs, strict=True)), 2),
        "pages_from_disk": [max(one.read for one in ours), max(one.read for one in theirs)],
        "ours_mb": median((one.megabytes for one in ours), 0),
        "straight_mb": median((one.megabytes for one in theirs), 0),
        "same_boxes": len(same),
        "overlap_at_10": round(statistics.mean(same), 3) if same else None,
        "over_python_pass": median((one.seconds / b for one, b in zip(ours, bare, strict=True)), 1),
        "stages_ms": {
            stage: median((one.document["timings_ms"][stage] for one in ours), 1)
            for stage in ours[0].document["timings_ms"]
        },
    }


def overlaps(ours: list[dict[str, Any]], theirs: list[tuple[list[float], list[str]]]) -> list[float]:
    """Return, for each garment that both cut alike, the share of the first ten products that both
    found. (A detector that was trained for a moment sees garments twice; the script keeps both, and
    we the surer one.)
    """
    found = []
    for garment in ours:
        hits = {hit["product_id"] for hit in garment["hits"]}
        for box, products in theirs:
            if max(abs(a - b) for a, b in zip(box, garment["box"], strict=True)) < 0.1:
                found.append(len(hits & set(products)) / 10)
                break
    return found


def few_garments(bundle: Path, photos: Sequence[Path]) -> tuple[float, list[Path]]:
    """The confidence at which most photos have one to three garments, as a customer's have, and
    those photos.
    """
    from fashionrec.config import load_config
    from fashionrec.detector.detect import Detector
    from fashionrec.models.bundle import Bundle
    from fashionrec.photos.images import read_photo

    config = load_config(env={}).config
    detector = Detector(
        Bundle.open(bundle), conf=0.0, iou=config.detector.iou, max_garments=12, device="cpu", rectangular=True
    )
    scores = {}
    for path in photos:
        (found,) = detector.detect([read_photo(path, config.images).pixels])
        scores[path] = [one.confidence or 0.0 for one in found]

    def fits(conf: float) -> list[Path]:
        return [path for path, seen in scores.items() if 1 <= sum(score >= conf for score in seen) <= 3]

    tried = sorted({round(score * 0.999, 6) for seen in scores.values() for score in seen})
    conf = max(tried, key=lambda one: len(fits(one)))
    return conf, fits(conf)


def _bare() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - start


def _count(root: Path) -> int:
    from fashionrec.store.generations import read_current

    return int(read_current(root).manifest.counts["items"])


TEXTS = (
    *("a red dress", "네이비 체크 스커트", "white shirt and checked skirt", "navy pants", "베이지 와이드 팬츠를"),
    *("black leather skirt", "화이트 셔츠와 체크 패턴 스커트", "striped top", "초록 원피스", "wide-leg jeans"),
)


def warm(root: Path, photos: list[Path], conf: float) -> dict[str, Any]:
    from concurrent.futures import ThreadPoolExecutor

    from fashionrec import Catalogue
    from fashionrec.config import load_config

    config = load_config(env={}, sets=[f"detector.conf={conf}"]).config
    figures: dict[str, Any] = {}
    with Catalogue.open(root, config) as opened:
        for name, ask, questions in (
            ("photo", opened.search, [*photos[:3], *photos, *photos]),
            (
                "text",
                opened.search_text,
                [*TEXTS[:3], *TEXTS, *TEXTS],
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
    from fashionrec import Catalogue
    from fashionrec.config import load_config
    from fashionrec.search.embedded import EmbeddedQuery
    from fashionrec.search.ranking import rank_products
    from fashionrec.types import Box, Garment

    rng = np.random.default_rng(1)
    results = []
    with Catalogue.open(root, load_config(env={}).config) as opened:
        everything = opened.images.fetch(np.arange(len(opened.images)))
        draws = {stored.image_at: stored.item.metadata["draw"] for stored in opened.items.everything()}
        drawn = np.array([draws[place] for place in opened.images.locate(np.arange(len(opened.images)))])
        garment = Garment(0, None, None, Box(0, 0, 1, 1))
        for share in (0.5, 0.05, 0.005, 0.0005):
            where = f"draw < {share} and price > 0"
            settings = opened.config.query.model_copy(update={"where": where, "same_class": 0.0})
            queries = everything[rng.integers(len(everything), size=101)]
            queries = queries + rng.normal(0, 0.02, queries.shape).astype(np.float32)
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
            times, answers = [], []
            # nothing else between them: the threads that numpy multiplies with wait for more to do,
            # and take a core
            for query in queries:
                start = time.perf_counter()
                answers.append(rank_products(opened, EmbeddedQuery(garment, query), settings).with_items(opened.items))
                times.append((time.perf_counter() - start) * 1000)
            first, *times = times
            kept = np.flatnonzero(drawn < share)
            recalls, full = [], []
            for query, answer in zip(queries, answers, strict=True):
                scores = np.where(drawn < share, everything @ query, -2.0)
                least = np.sort(scores)[-min(10, len(kept))] - 1e-6  # equally near is as good
                found = [int(hit.item.product_id[1:]) for hit in answer.hits]
                recalls.append(float(np.mean(scores[found] >= least)))
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


def catalogue(root: Path, made: dict[str, Path], precision: str, photos: list[Path], vectors: int) -> Path:
    """The catalogue of drawn vectors with models of a precision, made where it is not there."""
    if not (root / "catalogue.json").exists():
        shutil.rmtree(root, ignore_errors=True)
        detector, embedder = weights.in_precision(made, precision, photos, root.parent)
        draw(root, detector, embedder, photos, vectors)
    return root


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="*", default=["yolov8n", "yolov8l"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--parts", nargs="*", default=["cold", "warm", "filters", "profile"])
    parser.add_argument("--out", type=Path, default=Path("runs/query-benchmark"))
    options, _ = parser.parse_known_args([word for word in sys.argv[1:] if word != "query"])
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    photos = weights.photos(40, out)
    document: dict[str, Any] = {}
    for model in options.models:
        made = weights.bundles(model, out, options.epochs)
        root = catalogue(out / f"catalogue-{model}-{options.vectors}", made, "fp32", photos, options.vectors)
        conf, asked = few_garments(made["detector"], photos)
        for precision in options.precisions if "cold" in options.parts else ():
            served = root
            if precision != "fp32":
                place = out / f"catalogue-{model}-{precision}-{options.vectors}"
                served = catalogue(place, made, precision, photos, options.vectors)
            figures = cold(f"{model}, {precision}", made, served, root, asked, conf, options.pairs, out)
            document[f"cold, {model}, {precision}"] = figures
            print(json.dumps(figures, indent=2), flush=True)
        if "profile" in options.parts:
            text = profile(model, root, asked[0], conf)
            (out / f"profile-{model}.md").write_text(text)
            print(text, flush=True)
        if "warm" in options.parts:
            document[f"warm, {model}"] = warm(root, asked, conf)
            print(json.dumps({model: document[f"warm, {model}"]}, indent=2), flush=True)
    if "filters" in options.parts:
        document["filters"] = filters(root)
        for row in document["filters"]:
            print(json.dumps(row), flush=True)
    (out / "query.json").write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
