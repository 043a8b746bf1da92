"""Preparing photos at 640 against a loop of Pillow in one process that does the same work; and
memory by number of photos.

python -m benchmarks prepare [--images 600] [--size 1280]

Both read each file, hash it, turn it upright, letterbox it to 640, write a JPEG of quality 95 and
the label. In pairs, in turn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageOps

PAIRS = 3
SIDE = 640


def pillow_loop(source: Path, out: Path, part: int = 0, parts: int = 1) -> None:
    """Do what one would write by hand; every ``parts``-th photo, from ``part`` on."""
    for path in sorted(source.rglob("images/*.jpg"))[part::parts]:
        target = out / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        hashlib.sha256(data).hexdigest()
        with Image.open(path) as opened:
            photo = ImageOps.exif_transpose(opened).convert("RGB")
        scale = min(SIDE / photo.width, SIDE / photo.height)
        small = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
        square = Image.new("RGB", (SIDE, SIDE), (114,) * 3)
        left, top = (SIDE - small.width) // 2, (SIDE - small.height) // 2
        square.paste(small, (left, top))
        square.save(target, "JPEG", quality=95)
        hashlib.sha256(target.read_bytes()).hexdigest()
        lines = []
        for line in Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt").read_text().splitlines():
            number, x, y, w, h = line.split()
            x = (float(x) * small.width + left) / SIDE
            y = (float(y) * small.height + top) / SIDE
            lines.append(
                f"{number} {x:.6f} {y:.6f} {float(w) * small.width / SIDE:.6f} {float(h) * small.height / SIDE:.6f}\n"
            )
        label = Path(str(target).replace("/images/", "/labels/")).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("".join(lines))


def two_loops(source: Path, out: Path) -> None:
    """The same loop in two processes, each with half of the photos: what two cores can give here at
    best.
    """
    loops = [multiprocessing.Process(target=pillow_loop, args=(source, out, part, 2)) for part in range(2)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()


def ours(source: Path, out: Path) -> int:
    """The command itself, start of the interpreter and all; returns its peak memory in MiB (the
    parent process's).
    """
    command = [sys.executable, "-m", "fashionrec", "fetch-dataset", f"yolo:{source}", "--out", str(out), "-q"]
    for setting in ("dataset.resize=letterbox", f"dataset.imgsz={SIDE}"):
        command += ["--set", setting]
    script = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
    script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)"
    return int(subprocess.run([sys.executable, "-c", script, *command], check=True, capture_output=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks prepare", description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--size", type=int, default=1280, help="long side of the photos, pixels")
    options = parser.parse_args([word for word in sys.argv[1:] if word != "prepare"])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw(root / "world", options.images, options.size)
        draw(root / "few", max(3, options.images // 6), options.size)
        times: dict[str, list[float]] = {"ours": [], "loop": [], "two loops": []}
        memory = []
        for n in range(PAIRS):
            start = time.perf_counter()
            memory.append(ours(root / "world", root / f"ours{n}"))
            times["ours"].append(time.perf_counter() - start)
            start = time.perf_counter()
            pillow_loop(root / "world", root / f"loop{n}")
            times["loop"].append(time.perf_counter() - start)
            start = time.perf_counter()
            two_loops(root / "world", root / f"two{n}")
            times["two loops"].append(time.perf_counter() - start)
        start = time.perf_counter()
        few = ours(root / "few", root / "few-out")
        fixed = time.perf_counter() - start
    rates = {name: options.images / statistics.median(values) for name, values in times.items()}
    more = options.images - max(3, options.images // 6)
    rates["running"] = more / (statistics.median(times["ours"]) - fixed)
    figures = {
        "images": options.images,
        "size": options.size,
        "images_per_second": round(rates["ours"], 1),
        "images_per_second_once_running": round(rates["running"], 1),
        "pillow_loop_images_per_second": round(rates["loop"], 1),
        "ratio": round(statistics.median(b / a for a, b in zip(times["ours"], times["loop"], strict=True)), 2),
        "ratio_once_running": round(rates["running"] / rates["loop"], 2),
        "ratio_of_the_loop_in_two_processes": round(
            statistics.median(b / a for a, b in zip(times["two loops"], times["loop"], strict=True)), 2
        ),
        "peak_mib": statistics.median(memory),
        "peak_mib_of_a_sixth": few,
        "pairs": PAIRS,
    }
    print(json.dumps(figures, indent=2))


def draw(out: Path, images: int, size: int) -> None:
    command = [sys.executable, "-m", "fashionrec", "fetch-dataset", "synthetic", "--out", str(out), "-q"]
    sets = (f"synthetic.images={images}", "synthetic.products=0", "synthetic.outfits=0", f"synthetic.size={size}")
    for setting in sets:
        command += ["--set", setting]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
