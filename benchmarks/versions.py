"""This version beside an earlier one: the same commands as whole processes, in interleaved pairs.

python -m benchmarks versions [--against COMMIT ...] [--models DIR] [--queries 20] [--builds 6] [--photos 200] [--most 1.05]
[--more]

The earlier version is checked out of git into a temporary folder and runs with the same interpreter
and packages. Each catalogue is built by the earlier version, so both read the same files. For each
command it prints the median of the ratios (now / before) with the bounds of its 95 % interval, and
ends with 1 if an upper bound is above ``--most``. ``--models`` is a folder that holds the bundles
``detector`` and ``embedder``; without it the demo's are used, else the tests' small ones.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from math import comb
from pathlib import Path
from typing import NamedTuple

from benchmarks.incremental import DETECTOR, EMBEDDER, draw

HERE = Path(__file__).parent.parent
#: Asks an open catalogue a photo a hundred times; prints the seconds.
_WARM = """
import sys, time
from fashionrec import Catalogue
catalogue = Catalogue.open(sys.argv[1])
catalogue.search(sys.argv[2])
start = time.perf_counter()
for _ in range(100):
    catalogue.search(sys.argv[2])
print(time.perf_counter() - start)
"""
_TINY = HERE / "tests" / "data" / "tiny"


def median_interval(ratios: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the median and the bounds of its confidence interval, from order statistics (no
    distribution is assumed).

    https://en.wikipedia.org/wiki/Median#Confidence_intervals: the k-th smallest and k-th largest
    value, with the largest k for which the binomial tail below it is at most half of what the
    confidence leaves.
    """
    ordered, n = sorted(ratios), len(ratios)
    k, tail = 0, 0.0
    while (tail := tail + comb(n, k) / 2**n) <= (1 - confidence) / 2:
        k += 1
    if k == 0:
        raise ValueError(f"{n} pairs are too few for a {confidence:.0%} interval")
    return statistics.median(ordered), ordered[k - 1], ordered[n - k]


def check_out(commit: str, folder: Path) -> Path:
    """Put the tree of a commit into ``folder``."""
    packed = subprocess.run(["git", "-C", str(HERE), "archive", commit], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


class Run(NamedTuple):
    """A whole process: its seconds by the clock, what the system counted of it and of all that it
    started, and its output.
    """

    seconds: float
    used: resource.struct_rusage
    printed: str


def run(tree: Path, words: Sequence[object], cwd: Path | None = None, **environment: str) -> Run:
    """Run Python with a checkout. Raises ``CalledProcessError``."""
    runs = str(Path("runs").absolute())
    env = {**os.environ, "PYTHONPATH": str(tree), "FASHIONREC_PROJECT__RUNS": runs, **environment}
    command = [sys.executable, *map(str, words)]
    start = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, cwd=cwd or tempfile.gettempdir())
    assert process.stdout is not None
    with process.stdout:
        printed = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(time.perf_counter() - start, used, printed)


def seconds(tree: Path, words: Sequence[object]) -> float:
    """Run ``fashionrec`` of a checkout; returns the seconds of the whole process."""
    return run(tree, ("-m", "fashionrec", *words, "--quiet")).seconds


def peak(tree: Path, words: Sequence[object]) -> float:
    """Run ``fashionrec`` of a checkout; returns the peak memory of the process in MB."""
    return run(tree, ("-m", "fashionrec", *words, "--quiet")).used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--against", nargs="+", default=["44d9ae1"])
    parser.add_argument("--models", type=Path)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--builds", type=int, default=6, help="pairs of builds; 0 for none")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--most", type=float, default=1.05)
    parser.add_argument("--more", action="store_true", help="warm queries, captions of a catalogue and memory, too")
    options = parser.parse_args([word for word in sys.argv[1:] if word != "versions"])
    detector, embedder = _models(options.models)
    slower = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        rng = random.Random(0)
        for number in range(options.photos):
            draw(work / "photos" / f"{number:05d}.jpg", rng)
        (work / "stock.csv").write_text("product_id,price\n00007.jpg,5\n")
        models = ("--detector", detector, "--embedder", embedder)
        for commit in options.against:
            before = check_out(commit, work / commit)
            root = work / f"catalogue-{commit}"
            seconds(before, ("build-index", work / "photos", "--index", root, *models))
            photo = work / "photos" / "00003.jpg"
            commands = {
                "query a photo": ("query", photo, "--index", root, "--json"),
                "query by text": ("query", "--text", "red dress", "--index", root, "--json"),
                "verify": ("catalogue", "verify", root),
            }
            for what, words in commands.items():
                pairs = _pairs(options.queries, lambda tree, words=words: seconds(tree, words), before)
                slower += tell_ratio(f"{what}, against {commit}", pairs, options.most)

            def build(tree: Path) -> float:
                fresh = work / "fresh"
                shutil.rmtree(fresh, ignore_errors=True)
                return seconds(tree, ("build-index", work / "photos", "--index", fresh, *models))

            if options.builds:
                slower += tell_ratio(f"build, against {commit}", _pairs(options.builds, build, before), options.most)
            if options.more:
                for what, measure in _more(work, root, photo).items():
                    pairs = _pairs(max(options.builds, 6), measure, before)
                    slower += tell_ratio(f"{what}, against {commit}", pairs, options.most)
    if slower:
        sys.exit(f"slower: {', '.join(slower)}")


def _more(work: Path, root: Path, photo: Path) -> dict[str, Callable[[Path], float]]:
    """Measure more of a checkout, on a catalogue and a photo of it."""

    def caption(tree: Path) -> float:
        fresh = work / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(root, fresh)
        return seconds(tree, ("caption", "--index", fresh, "--captioner", "local"))

    def warm(tree: Path) -> float:
        return float(run(tree, ("-c", _WARM, root, photo)).printed)

    def memory(tree: Path) -> float:
        return peak(tree, ("query", photo, "--index", root, "--json"))

    return {"warm query": warm, "captions of a catalogue": caption, "memory of a query": memory}


def _models(folder: Path | None) -> tuple[Path, Path]:
    if folder is not None:
        return (folder / "detector").absolute(), (folder / "embedder").absolute()
    if DETECTOR.is_dir() and EMBEDDER.is_dir():
        return DETECTOR.absolute(), EMBEDDER.absolute()
    return _TINY / "detector", _TINY / "embedder"


def _pairs(count: int, run: object, before: Path) -> list[float]:
    """Ratios now / before of interleaved runs, each side first in every second pair; one pair is
    not counted.
    """
    assert callable(run)
    ratios = []
    for number in range(count + 1):
        order = (HERE, before) if number % 2 else (before, HERE)
        taken = {tree: run(tree) for tree in order}
        if number:
            ratios.append(taken[HERE] / taken[before])
    return ratios


def tell_ratio(what: str, ratios: list[float], most: float) -> list[str]:
    median, low, high = median_interval(ratios)
    print(f"{what:40} {median:.3f} ({low:.3f} to {high:.3f}), {len(ratios)} pairs", flush=True)
    return [what] if high > most else []


if __name__ == "__main__":
    main()
