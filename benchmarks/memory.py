"""The peak memory of a build by number of photos: of the whole process tree, small drawn photos and
the tests' small models.

python -m benchmarks build --memory [--few 1000] [--many 10000]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TINY = Path("tests/data/tiny")


def draw(folder: Path, count: int) -> Path:
    """Photos of 240 x 320 of two halves, as the small detector understands them, no two alike; and
    their table.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    lines = ["image,product_id,title,price"]
    for n in range(count):
        path = folder / f"{n:05}.jpg"
        if not path.exists():
            photo = Image.new("RGB", (240, 320), (n % 40, n // 40 % 40, 255 - n // 1600))
            photo.paste((255 - n % 30, n % 50, n // 50 % 50), (0, 0, 120, 320))
            photo.save(path, quality=90)
        lines.append(f"{path.resolve()},p{n},product number {n},{1000 + n}")
    table = folder.with_name(f"{folder.name}-{count}.csv")
    table.write_text("\n".join(lines))
    return table


def build(table: Path, root: Path) -> tuple[int, float]:
    """Bytes of the most memory that the command and all its processes had at a time (proportional
    set size), and seconds.
    """
    shutil.rmtree(root, ignore_errors=True)
    command = [sys.executable, "-m", "fashionrec", "build-index", str(table), "--index", str(root), "-q"]
    command += ["--detector", str(TINY / "detector"), "--embedder", str(TINY / "embedder")]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        most = 0
        while process.poll() is None:
            most = max(most, sum(_bytes(number) for number in _family(process.pid)))
            time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{' '.join(command)} exits with {process.returncode}")
    return most, time.perf_counter() - start


def _family(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += parents.get(found[-1], [])
    return found


def _bytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def compare(few: int, many: int, out: Path) -> dict[str, Any]:
    """Peaks of two builds, and how much the larger one's vectors and items take on the disk."""
    if not hasattr(os, "fork") or not Path("/proc/self/smaps_rollup").exists():
        sys.exit("memory is read from /proc, which this system has not")
    found: dict[str, Any] = {}
    kept: dict[int, int] = {}
    for count in (few, many):
        root = out / "memory-catalogue"
        peak, seconds = build(draw(out / "drawn", count), root)
        kept[count] = sum(
            path.stat().st_size
            for path in root.rglob("*")
            if path.is_file() and path.relative_to(root).parts[0] != "bundles"
        )
        thumbnails = sum(path.stat().st_size for path in root.rglob("thumbnails*"))
        found[f"photos_{count}"] = {
            "peak_mib": round(peak / (1 << 20), 1),
            "catalogue_mib": round(kept[count] / (1 << 20), 1),
            "of_it_thumbnails_mib": round(thumbnails / (1 << 20), 1),
            "seconds": round(seconds, 1),
        }
        kept[count] -= thumbnails
    peaks = [found[f"photos_{count}"]["peak_mib"] for count in (few, many)]
    found["peak_grows_by_mib"] = round(peaks[1] - peaks[0], 1)
    found["vectors_and_items_grow_by_mib"] = round((kept[many] - kept[few]) / (1 << 20), 1)
    shutil.rmtree(out / "memory-catalogue", ignore_errors=True)
    return found


if __name__ == "__main__":
    sys.exit("python -m benchmarks build --memory")
