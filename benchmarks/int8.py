"""Measure what int8 and fp16 gain in speed and lose in mAP: through the bundle at 640, beside
`YOLO.predict` in the same run.

python -m benchmarks int8 [--models yolov8n.yaml yolov8l.yaml] [--rounds N] [--threads 1 0] [--variants]
                          [--weights best.pt --data data.yaml] [--out DIR]

Speed needs no training: the models are built from their YAML. Each round asks every variant about
one photo in turn, so that other work on the machine hits all alike; ratios are medians over the
rounds, and those of the least times. CPU time is told beside the clock: with one thread it hardly
depends on what else runs. --variants measures the ways of quantizing that were not taken, too.

mAP is measured on a trained detector (--weights and --data; else the demo's; else one is trained
here), by `fashionrec export` itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DEMO = (Path("runs/demo/train/detector/weights/best.pt"), Path("runs/demo/world/data.yaml"))


def fashionrec(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "fashionrec", *map(str, arguments), "--json"]
    print("+ fashionrec", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 3:
        return {"refused": True}
    if done.returncode:
        sys.exit(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def machine() -> str:
    """The processor, and which of the instructions that int8 lives by it has."""
    words = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    told = dict(line.split(":", 1) for line in words if ":" in line)
    told = {key.strip(): value.strip() for key, value in told.items()}
    flags = told.get("flags", "").split()
    has = [f"{name} {'yes' if name in flags else 'no'}" for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni")]
    return f"{told.get('model name', platform.processor())}, {', '.join(has)}"


def photos(data: Path | None, out: Path) -> list[Path]:
    """Photos to ask about and to calibrate on."""
    if data is None:
        fashionrec(
            "fetch-dataset",
            "synthetic",
            "--out",
            out / "photos",
            "--set",
            "synthetic.images=40",
            "--set",
            "synthetic.products=2",
        )
        data = out / "photos" / "data.yaml"
    from fashionrec.labels.data_yaml import read_data_yaml

    return read_data_yaml(data).images("train")[:16]


def variants(graph: Path, out: Path, batches: Callable[[], list[np.ndarray]], more: bool) -> dict[str, Path]:
    """The graph as it is, as exports make it, and (``more``) as they might."""
    from onnxruntime.quantization import QuantType

    from fashionrec.detector.training.precision import to_fp16, to_int8

    files = {"fp32": graph, "fp16": out / "fp16.onnx", "int8": out / "int8.onnx"}
    to_fp16(graph, files["fp16"])
    to_int8(graph, files["int8"], batches)
    if not more:
        return files
    ways: dict[str, dict[str, Any]] = {
        "8-bit weights": {"reduce_range": False},
        "one scale a tensor": {"per_channel": False},
        "unsigned weights": {"weight_type": QuantType.QUInt8, "reduce_range": False},
        "signed activations": {"activation_type": QuantType.QInt8, "reduce_range": False},
        "convolutions alone": {"op_types_to_quantize": ["Conv"]},
        "everything": {"kept": lambda model: set(), "op_types_to_quantize": None},
    }
    for name, changes in ways.items():
        files[name] = out / f"{name.replace(' ', '-')}.onnx"
        to_int8(graph, files[name], batches, **changes)
    return files


def speeds(model: str, side: int, options: argparse.Namespace, files: list[Path], threads: int) -> list[dict[str, Any]]:
    """A row for each variant and for `YOLO.predict`: milliseconds of one photo, and
    ratios to fp32.
    """
    import torch

    from fashionrec.config import load_config
    from fashionrec.detector.detect import Detector
    from fashionrec.detector.training.families.ultra import to_graph
    from fashionrec.detector.training.ultra import load_yolo, quiet
    from fashionrec.models.bundle import Bundle
    from fashionrec.photos.images import read_photo

    limits = load_config().config.images
    pictures = [read_photo(path, limits).pixels for path in files]
    torch.manual_seed(0)
    torch.set_num_threads(threads or options.cores)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        yolo = load_yolo(model)
        with quiet(None):
            yolo.save(str(work / "built.pt"))
        graph = to_graph(work / "built.pt", work, side)

        def opened(file: Path) -> Detector:
            bundle = Bundle(file.parent, "detector", model, "", {"detect": file.name}, graph.spec, {}, {}, {})
            return Detector(bundle, conf=0.35, iou=0.6, max_garments=12, threads=threads, device="cpu")

        def batches() -> list[np.ndarray]:
            return [opened(graph.path).inputs([picture]) for picture in pictures[:8]]

        made = variants(graph.path, work, batches, options.variants)
        asked: dict[str, Callable[[Any], object]] = {name: _asker(opened(file)) for name, file in made.items()}

        def predict(picture: Any) -> object:
            return yolo.predict(picture, imgsz=side, rect=False, device="cpu", verbose=False)

        asked["YOLO.predict"] = predict
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
        with quiet(None):
            for ask in asked.values():
                ask(pictures[0])
            for n in range(options.rounds):
                for name, ask in asked.items():
                    time.sleep(0.02)  # threads of the one before may still spin
                    clock, cpu = time.perf_counter(), time.process_time()
                    ask(pictures[n % len(pictures)])
                    times[name].append((time.perf_counter() - clock, time.process_time() - cpu))
        size = {name: file.stat().st_size for name, file in made.items()}
    return [_row(model, threads, name, size.get(name), times) for name in asked]


def _asker(detector: Any) -> Callable[[Any], object]:
    return lambda picture: detector.predict([picture])


def _row(
    model: str, threads: int, name: str, size: int | None, times: dict[str, list[tuple[float, float]]]
) -> dict[str, Any]:
    mine = times[name]

    def against(other: str, which: int) -> float:
        return round(statistics.median(a[which] / b[which] for a, b in zip(times[other], mine, strict=True)), 2)

    least = min(clock for clock, _ in mine)
    return {
        "model": Path(model).stem,
        "threads": threads or "all",
        "variant": name,
        "MB": round(size / 1e6, 1) if size else None,
        "ms": round(statistics.median(clock for clock, _ in mine) * 1000, 1),
        "ms_least": round(least * 1000, 1),
        "ms_cpu": round(statistics.median(cpu for _, cpu in mine) * 1000, 1),
        "over_fp32": against("fp32", 0),
        "over_fp32_least": round(min(clock for clock, _ in times["fp32"]) / least, 2),
        "over_fp32_cpu": against("fp32", 1),
        "over_yolo_predict": against("YOLO.predict", 0),
        "over_yolo_predict_cpu": against("YOLO.predict", 1),
    }


def kept(weights: Path | None, data: Path | None, out: Path) -> list[dict[str, Any]]:
    """mAP of each precision, as `fashionrec export` measures and judges it."""
    if weights is None or data is None:
        weights, data = DEMO
    if not weights.exists() or not data.exists():
        data = out / "world" / "data.yaml"
        if not data.exists():
            fashionrec(
                "fetch-dataset",
                "synthetic",
                "--out",
                data.parent,
                "--set",
                "synthetic.images=900",
                "--set",
                "synthetic.products=2",
            )
        run = fashionrec(
            *("train", "--config", "demo", f"data={data}", "name=int8", "exist_ok=true", "epochs=20"),
            *("--set", f"project.runs={out}"),
        )
        weights = Path(run["weights"]["best"])
    rows = []
    for precision in ("fp32", "fp16", "int8"):
        target = out / f"{precision}.bundle"
        done = fashionrec("export", weights, "--out", target, "--precision", precision, "--data", data)
        figures = done.get("agreement", {})
        keys = (
            "photos_labelled",
            "map50_95_source",
            "map50_95",
            "map50_source",
            "map50",
            "points_lost",
            "found_by_both",
        )
        rows.append(
            {"precision": precision, "refused": done.get("refused", False), **{key: figures.get(key) for key in keys}}
        )
    return rows


def table(rows: list[dict[str, Any]]) -> None:
    print("| " + " | ".join(rows[0]) + " |")
    print("| " + " | ".join("---" if n < 3 else "---:" for n in range(len(rows[0]))) + " |")
    for row in rows:
        cells = (
            f"{value:.4g}" if isinstance(value, float) else str(value) if value is not None else ""
            for value in row.values()
        )
        print("| " + " | ".join(cells) + " |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="*", default=["yolov8n.yaml", "yolov8l.yaml"])
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 0])
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--no-map", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/int8"))
    options, _ = parser.parse_known_args([word for word in sys.argv[1:] if word != "int8"])
    options.out.mkdir(parents=True, exist_ok=True)
    options.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{machine()}\n")
    rows: list[dict[str, Any]] = []
    if options.models:
        files = photos(options.data or (DEMO[1] if DEMO[1].exists() else None), options.out)
        for model in options.models:
            for threads in options.threads:
                mine = speeds(model, options.imgsz, options, files, threads)
                table(mine)
                rows += mine
    losses = [] if options.no_map else kept(options.weights, options.data, options.out)
    if losses:
        table(losses)
    (options.out / "int8.json").write_text(json.dumps({"machine": machine(), "speed": rows, "map": losses}, indent=2))


if __name__ == "__main__":
    main()
