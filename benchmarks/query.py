"""One query from a cold start, whole process, against a bare interpreter; and its own account of its stages.

python -m benchmarks query       (needs the demo's catalogue: fashionrec demo)
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 7


def main() -> None:
    index = Path(os.environ.get("FASHIONREC_INDEX", "runs/demo/catalogue"))
    photos = sorted(Path("runs/demo/world/queries/images").glob("*.jpg"))
    if not index.is_dir() or not photos:
        sys.exit("no demo catalogue here: run `fashionrec demo` first")
    command = [sys.executable, "-m", "fashionrec", "query", str(photos[0]), "--index", str(index), "--json", "--quiet"]
    whole, stages, bare = [], [], []
    for _ in range(RUNS):
        start = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        whole.append(time.perf_counter() - start)
        stages.append(json.loads(done.stdout)["timings_ms"])
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare.append(time.perf_counter() - start)
    figures = {
        "query_ms": round(statistics.median(whole) * 1000),
        "ratio_to_python_pass": round(statistics.median(a / b for a, b in zip(whole, bare, strict=True)), 1),
        "stages_ms": {name: round(statistics.median(s[name] for s in stages), 1) for name in stages[0]},
        "runs": RUNS,
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
