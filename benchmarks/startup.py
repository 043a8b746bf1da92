"""`fashionrec --help` against a bare interpreter, in turn, medians of pairs.

python -m benchmarks startup
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

PAIRS = 15


def seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    ours, bare = [], []
    seconds("-m", "fashionrec", "--help")
    for _ in range(PAIRS):
        ours.append(seconds("-m", "fashionrec", "--help"))
        bare.append(seconds("-c", "pass"))
    figures = {
        "help_ms": round(statistics.median(ours) * 1000, 1),
        "python_pass_ms": round(statistics.median(bare) * 1000, 1),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 2),
        "pairs": PAIRS,
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
