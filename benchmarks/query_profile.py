"""Show where the time of a cold query goes: what is imported, and what each step takes, one after
the other.

python -m benchmarks query --parts profile    (writes profile.md into the benchmark's folder)

Imports: the least that each module took by itself in several processes (`python -X importtime`), by
package. Steps: medians of processes that do them in turn; a query does some of them side by side
(sessions are opened while FAISS is imported and the photo is read), so that they add up to more
than it takes.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

STEPS = """
import time
laps, last = [], time.perf_counter()
def lap(name):
    global last
    now = time.perf_counter()
    laps.append((name, (now - last) * 1000))
    last = now
import json, sys
from fashionrec.cli.main import make_app
make_app("query")
lap("the command line (typer)")
from fashionrec.config import load_config
config = load_config(env={}, sets=["detector.conf=" + sys.argv[3]]).config
lap("settings")
import numpy
lap("import numpy")
from fashionrec import Catalogue
import fashionrec.search.photo
lap("import the search (Pillow, SQLite)")
opened = Catalogue.open(sys.argv[1], config, at_once=True)
lap("open the catalogue")
import onnxruntime
lap("import onnxruntime")
import faiss
lap("import faiss")
opened.images
lap("map the vectors")
opened.finder.read(sys.argv[2])
lap("read the photo")
opened.finder.detector.provider
lap("open the detector")
opened.embedder.start("image")
lap("open the image tower")
answer = opened.search(sys.argv[2])
for stage in ("detect", "embed", "search"):
    laps.append((stage, answer.timings_ms[stage]))
print(json.dumps(laps))
"""
_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")


def profile(model: str, root: Path, photo: Path, conf: float, runs: int = 5) -> str:
    """Both tables, as Markdown."""
    steps: dict[str, list[float]] = {}
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", STEPS, str(root), str(photo), str(conf)],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name, ms in json.loads(done.stdout):
            steps.setdefault(name, []).append(ms)
    lines = [f"| step ({model}) | ms |", "| --- | ---: |"]
    lines += [f"| {name} | {statistics.median(values):.1f} |" for name, values in steps.items()]
    lines += ["", "| imported | modules | ms |", "| --- | ---: | ---: |"]
    packages: dict[str, list[float]] = {}
    for module, ms in imports(root, photo, conf, runs).items():
        packages.setdefault(_package(module), []).append(ms)
    for name, own in sorted(packages.items(), key=lambda pair: -sum(pair[1])):
        if sum(own) >= 1:
            lines.append(f"| {name} | {len(own)} | {sum(own):.1f} |")
    lines.append(f"| all | {sum(map(len, packages.values()))} | {sum(map(sum, packages.values())):.1f} |")
    return "\n".join(lines) + "\n"


def imports(root: Path, photo: Path, conf: float, runs: int) -> dict[str, float]:
    """Module to the least milliseconds that it took by itself."""
    least: dict[str, float] = {}
    command = [sys.executable, "-X", "importtime", "-m", "fashionrec", "query", str(photo), "--index", str(root)]
    for _ in range(runs):
        done = subprocess.run(
            [*command, "--json", "--quiet", "--set", f"detector.conf={conf}"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in done.stderr.splitlines():
            if found := _LINE.match(line):
                module, ms = found[4], int(found[1]) / 1000
                least[module] = min(least.get(module, ms), ms)
    return least


def _package(module: str) -> str:
    top = module.split(".")[0]
    return "Python's own" if top in sys.stdlib_module_names else top
