"""Measure what a finetune forgets: a plain one beside ours, on real photos, and a new set with
wrong labels that must be refused.

FASHIONREC_REALDATA=FOLDER python -m benchmarks forgetting [--start WEIGHTS] [--epochs N] [--seeds 0
1] [--out DIR]

FOLDER holds `ccp-yolo` (a YOLO dataset). Its photos are dealt into an old set, mostly pants and
tops, and a small new one, mostly dresses and skirts; each has a train, a valid and a test split,
and no photo is in two. A detector is trained on the old set (from --start, or from scratch). For
each seed it is finetuned plainly, `YOLO(best.pt).train(data=new)` with ultralytics' own defaults,
and by `fashionrec finetune` with replay, with distillation instead of the old photos, and on the
new set with its classes permuted. One evaluator measures all on both test sets.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

#: Of each kind of photo (by its rarest garment), the share that belongs to the new set, and the
#: shares of its splits.
NEW_SHARE = {"dress": 0.75, "skirt": 0.25, "pants": 0.03, "top": 0.03}
SPLITS = {"old": (0.5, 0.15, 0.35), "new": (0.5, 0.15, 0.35)}
NAMES = ["dress", "pants", "skirt&pants", "skirt", "top"]
_PLAIN = """
import sys
from ultralytics import YOLO
weights, data, epochs, seed, project = sys.argv[1:6]
model = YOLO(weights)
model.train(data=data, epochs=int(epochs), seed=int(seed), device="cpu", workers=0, imgsz=int(sys.argv[6]), batch=16,
            project=project, name="plain", exist_ok=True, plots=False, amp=False)
"""


def fashionrec(*arguments: object, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    command = [sys.executable, "-m", "fashionrec", *map(str, arguments), "--json"]
    print("+ fashionrec", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in codes:
        sys.exit(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout)
    return result | {"exit": done.returncode}


def deal(source: Path, out: Path) -> dict[str, dict[str, int]]:
    """Lists of photos and a data.yaml for `old`, `new` and `wrong` (the new photos, their classes
    permuted).
    """
    rng = random.Random(0)
    photos = sorted(path for path in (source / "images").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    sets: dict[str, list[tuple[Path, Path]]] = {"old": [], "new": []}
    kinds: dict[str, list[tuple[Path, Path]]] = {}
    for photo in photos:
        labels = Path(str(photo.parent).replace("/images/", "/labels/")) / f"{photo.stem}.txt"
        found = {NAMES[int(line.split()[0])] for line in labels.read_text().splitlines() if line.strip()}
        kind = next((name for name in NEW_SHARE if name in found), None)
        if kind:
            kinds.setdefault(kind, []).append((photo, labels))
    for kind, members in kinds.items():
        rng.shuffle(members)
        cut = round(NEW_SHARE[kind] * len(members))
        sets["new"] += members[:cut]
        sets["old"] += members[cut:]
    counts: dict[str, dict[str, int]] = {}
    for name, members in sets.items():
        rng.shuffle(members)
        train, valid, _ = SPLITS[name]
        ends = [0, round(train * len(members)), round((train + valid) * len(members)), len(members)]
        for written in (name, "wrong") if name == "new" else (name,):
            counts[written] = {}
            for number, split in enumerate(("train", "valid", "test")):
                part = members[ends[number] : ends[number + 1]]
                counts[written][split] = len(part)
                for photo, labels in part:
                    text = labels.read_text()
                    if written == "wrong":
                        text = "".join(f"{_permuted(line)}\n" for line in text.splitlines() if line.strip())
                    for folder, content in (("images", photo.read_bytes()), ("labels", text.encode())):
                        target = out / written / split / folder / (photo.name if folder == "images" else labels.name)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(content)
            document = {"train": "train/images", "val": "valid/images", "test": "test/images", "names": NAMES}
            (out / written / "data.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return counts


def _permuted(line: str) -> str:
    number, rest = line.split(maxsplit=1)
    return f"{(int(number) + 2) % len(NAMES)} {rest}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--start", default="yolov8n.yaml")
    parser.add_argument("--epochs", type=int, default=60, help="of the first training")
    parser.add_argument("--tune-epochs", type=int, default=20)
    parser.add_argument("--imgsz", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("runs/forgetting"))
    options, _ = parser.parse_known_args([word for word in sys.argv[1:] if word != "forgetting"])
    folder = os.environ.get("FASHIONREC_REALDATA")
    if not folder:
        sys.exit("FASHIONREC_REALDATA names no folder")
    out = options.out.resolve()
    counts = deal(Path(folder) / "ccp-yolo", out)
    print(json.dumps(counts), file=sys.stderr)
    data = {name: out / name / "data.yaml" for name in counts}
    runs = ("--set", f"project.runs={out / 'runs'}")
    base = out / "runs/train/old/weights/best.pt"
    if not base.is_file():
        fashionrec(
            *("train", f"data={data['old']}", f"model={options.start}", "name=old", "exist_ok=true", "device=cpu"),
            *(f"epochs={options.epochs}", f"imgsz={options.imgsz}", "batch=16", "optimizer=AdamW", "lr0=0.002"),
            *("patience=40", "workers=0", "plots=false", "cache=ram", "close_mosaic=15", *runs),
        )

    def measured(weights: object) -> dict[str, float]:
        return {
            name: fashionrec("evaluate", "--weights", weights, "--data", data[name], "--split", "test", *runs)[
                "map50_95"
            ]
            * 100
            for name in ("old", "new")
        }

    before = measured(base)
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in options.seeds:
        place = out / f"plain{seed}"
        plain = place / "plain/weights/best.pt"
        if not plain.is_file():
            subprocess.run(
                [
                    sys.executable,
                    "-c",
                    _PLAIN,
                    base,
                    data["new"],
                    *map(str, (options.tune_epochs, seed, place, options.imgsz)),
                ],
                check=True,
                stdout=sys.stderr,
            )
        rows.setdefault("plain", []).append(measured(plain))
        for name, words in {
            "ours, replay": ("--data", data["new"], "--replay", data["old"]),
            "ours, distillation": ("--data", data["new"]),
            "wrong labels": ("--data", data["wrong"], "--replay", data["old"]),
        }.items():
            done = fashionrec(
                *("finetune", "--weights", base, *words, f"name={name.split()[-1]}{seed}", "exist_ok=true"),
                *(f"seed={seed}", f"epochs={options.tune_epochs}", "device=cpu", "workers=0", "plots=false", *runs),
                codes=(0, 3),
            )
            figures = measured(done["weights"]["best_ft"])
            rows.setdefault(name, []).append({**figures, "exit": done["exit"], "promoted": done["promoted"]})
    report(before, rows)
    (out / "forgetting.json").write_text(json.dumps({"counts": counts, "before": before, "after": rows}, indent=2))


def report(before: dict[str, float], rows: dict[str, list[dict[str, Any]]]) -> None:
    print(f"before: old {before['old']:.2f}, new {before['new']:.2f} points of mAP50-95 on the test splits")
    print("| finetune | old, each seed | old, mean | new, each seed | new, mean | promoted |")
    print("| --- | --- | ---: | --- | ---: | --- |")
    for name, found in rows.items():
        cells = []
        for test in ("old", "new"):
            changes = [figures[test] - before[test] for figures in found]
            cells += [", ".join(f"{change:+.2f}" for change in changes), f"{sum(changes) / len(changes):+.2f}"]
        told = ", ".join(str(figures.get("promoted", "-")) for figures in found)
        print(f"| {name} | {' | '.join(cells)} | {told} |")


if __name__ == "__main__":
    main()
