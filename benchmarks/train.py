"""`fashionrec train` beside `YOLO(...).train(...)`: the same mAP, and what a run of ours costs
more.

Both train one small YOLOv8 on drawn garments with the same settings and seed, alternately, each in
a process of its own, from its start to its end. ultralytics takes one of two cores where nobody
says how many, ours all: so that both learn the same, bit for bit, they are given one thread.

python -m benchmarks train [--images 300] [--epochs 10] [--imgsz 128] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METRICS = ("map50", "map50_95")
PLAIN = """
import json, sys
from ultralytics import YOLO

model, data, folder, settings = sys.argv[1:]
yolo = YOLO(model)
yolo.train(data=data, project=folder, name="plain", exist_ok=True, **json.loads(settings))
box = yolo.trainer.validator.metrics.box
print(json.dumps({"map50": float(box.map50), "map50_95": float(box.map)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks train")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(sys.argv[sys.argv.index("train") + 1 :])
    with tempfile.TemporaryDirectory() as folder:
        document = measure(Path(folder), options)
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        show(document)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    model = str(Path(__file__).parents[1] / "configs" / "models" / "yolov8-demo.yaml")
    sets = (f"synthetic.images={options.images}", "synthetic.products=0", "synthetic.outfits=0", "synthetic.size=256")
    draw = [sys.executable, "-m", "fashionrec", "fetch-dataset", "synthetic", "--out", "data", "-q"]
    draw += [part for setting in sets for part in ("--set", setting)]
    subprocess.run(draw, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    data = str(folder / "data" / "data.yaml")
    settings = {"epochs": options.epochs, "imgsz": options.imgsz, "batch": 16, "device": "cpu", "workers": 0, "seed": 0}
    settings |= {"patience": 100, "plots": False, "optimizer": "AdamW", "lr0": 0.003, "warmup_epochs": 1, "nbs": 16}
    settings |= {"mosaic": 0.0, "scale": 0.2}
    about = json.loads((folder / "data" / "dataset.json").read_text(encoding="utf-8")).get("augment") or {}
    # the flips that a dataset of ours asks for, which our training takes up by itself
    flips = {name: about[name] for name in ("fliplr", "flipud", "degrees") if about.get("mode") == "fly"}
    rounds = []
    for number in range(options.rounds):
        shutil.rmtree(folder / "plain", ignore_errors=True)
        plain = timed([sys.executable, "-c", PLAIN, model, data, str(folder), json.dumps(settings | flips)], folder)
        given = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()]
        train = ["train", f"data={data}", f"model={model}", f"name=ours{number}", *given, "--json", "--quiet"]
        ours = timed([sys.executable, "-m", "fashionrec", *train], folder)
        rounds.append({"plain": plain, "ours": ours})
    found: dict[str, Any] = {"rounds": rounds}
    for which in ("plain", "ours"):
        found[which] = {name: statistics.median(one[which][name] for one in rounds) for name in ("seconds", "cpu")}
    found["overhead_seconds"] = found["ours"]["seconds"] - found["plain"]["seconds"]
    found["overhead_cpu"] = found["ours"]["cpu"] - found["plain"]["cpu"]
    pairs = [(one["plain"]["metrics"][name], one["ours"]["metrics"][name]) for one in rounds for name in METRICS]
    found["difference"] = max(abs(a - b) for a, b in pairs)
    return found


def timed(command: list[str], folder: Path) -> dict[str, Any]:
    """Seconds, CPU seconds and metrics of a training; its JSON is the last thing on its stdout."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "YOLO_CONFIG_DIR": str(folder), "YOLO_AUTOINSTALL": "false"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    whole = done.stdout.startswith(
        "{"
    )  # ours says nothing else; ultralytics prints on stdout, the last line is its metrics
    document = json.loads(done.stdout if whole else done.stdout.splitlines()[-1])
    metrics = document.get("metrics", document)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "metrics": {name: metrics[name] for name in METRICS}}


def show(document: dict[str, Any]) -> None:
    print(f"{'':26} {'YOLO.train':>11} {'fashionrec':>11}")
    for number, one in enumerate(document["rounds"], 1):
        for name in METRICS:
            figures = (one[which]["metrics"][name] for which in ("plain", "ours"))
            print(f"{f'round {number}, {name}':26} {next(figures):11.6f} {next(figures):11.6f}")
    for name, words in (("seconds", "seconds, median"), ("cpu", "CPU seconds, median")):
        print(f"{words:26} {document['plain'][name]:11.2f} {document['ours'][name]:11.2f}")
    print(f"greatest difference of mAP {document['difference']:.1e}")
    print(f"overhead {document['overhead_seconds']:.2f} s, {document['overhead_cpu']:.2f} CPU s for each run")


if __name__ == "__main__":
    main()
