"""`fashionrec --help` and `fashionrec query --help` against a bare interpreter, in turn, medians.

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
    times: dict[str, list[float]] = {"help": [], "query_help": [], "python_pass": []}
    seconds("-m", "fashionrec", "--help")
    for _ in range(PAIRS):
        times["help"].append(seconds("-m", "fashionrec", "--help"))
        times["query_help"].append(seconds("-m", "fashionrec", "query", "--help"))
        times["python_pass"].append(seconds("-c", "pass"))
    figures: dict[str, float] = {f"{name}_ms": round(statistics.median(all_) * 1000, 1) for name, all_ in times.items()}
    for name, ratio in (("help", "ratio"), ("query_help", "query_ratio")):
        pairs = zip(times[name], times["python_pass"], strict=True)
        figures[ratio] = round(statistics.median(ours / bare for ours, bare in pairs), 2)
    print(json.dumps({**figures, "pairs": PAIRS}, indent=2))


if __name__ == "__main__":
    main()
