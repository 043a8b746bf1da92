"""Would the tests notice? A seeded sample of small faults, each planted in a copy of the tree.

    python -m tests.mutate --sample 60 --seed 1
    python -m tests.mutate --folder fashionrec/search --folder fashionrec/store

Each folder gets its share of the sample (`tests/mutate_places.py` says what is mutated). For each
mutant, the tests that run its line (`tests/mutate_map.py`) are run, those of a similar name first,
then the quickest, until one fails. What the nearest of them do not notice is shown to ruff and
mypy, since `make test` runs `make lint` first. What nothing notices is printed as a one-line diff.
Exit 1: a smaller share than ``--least`` was noticed.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from tests.mutate_candidates import Candidates, batch
from tests.mutate_map import Map, Test, copies, run_tests, sources, test_files, warm
from tests.mutate_places import Mutant, Places
from tests.mutate_warm import Warm

#: Folders of which nothing is drawn, and why.
LEFT_OUT = {"fashionrec/dataset/synthetic": "draws the demo's pictures: other pixels are not a fault"}
DECLARED = "mutants_that_change_nothing.txt"
FIRST_SECONDS, FIRST_FILES, NEXT_SECONDS, NEXT_FILES = 20.0, 4, 90.0, 16
VERDICTS = ("noticed", "timed out", "lint", "survived", "not finished", "not reached", "changes nothing")


@dataclass
class Verdict:
    """Record of what became of a mutant: the tests that are left to run, and which one
    noticed it.
    """

    mutant: Mutant
    waiting: list[Test]
    ran: int = 0
    result: str = ""
    test: str = ""

    def __str__(self) -> str:
        told = {
            "noticed": f"noticed by {self.test}",
            "timed out": f"{self.test} ran out of time",
            "lint": f"noticed by lint: {self.test}",
            "survived": f"survived, {self.ran} tests",
            "not finished": f"survived so far, {self.ran} tests; {len(self.waiting)} were not run",
        }
        return f"{self.mutant}  ({told.get(self.result, self.result)})"


@dataclass
class Draw:
    """Record of what the command was asked."""

    root: Path
    package: str = "fashionrec"
    tests: str = "tests"
    sample: int = 60
    seed: int = 0
    folders: list[str] = field(default_factory=list)
    minutes: float = 20.0
    workers: int = 2
    cache: Path | None = None  # mypy's; without it, lint is not asked


def folder_of(file: str) -> str:
    return file.rpartition("/")[0]


def draw(request: Draw) -> list[Mutant]:
    """The sample: each folder's share by its mutable places, places at random, one of the
    alternatives of each.
    """
    by_folder: dict[str, list[tuple[Places, int]]] = {}
    for file, text in sorted(sources(request.root, request.package).items()):
        folder = folder_of(file)
        if request.folders:
            if not any(file == chosen or file.startswith(f"{chosen}/") for chosen in request.folders):
                continue
        elif folder in LEFT_OUT:
            continue
        found = Places(file, text)
        by_folder.setdefault(folder, []).extend((found, n) for n in range(len(found)))
    total = sum(map(len, by_folder.values()))
    exact = {folder: request.sample * len(found) / total for folder, found in by_folder.items()} if total else {}
    shares = {folder: int(share) for folder, share in exact.items()}
    by_rest = sorted(exact, key=lambda folder: (shares[folder] - exact[folder], folder))
    for folder in by_rest[: request.sample - sum(shares.values())]:
        shares[folder] += 1
    drawn = []
    for folder, count in shares.items():
        chance = random.Random(f"{request.seed}/{folder}")
        chance.shuffle(by_folder[folder])
        alternatives = filter(None, (found.alternatives(place) for found, place in by_folder[folder]))
        drawn += [chance.choice(mutants) for mutants in itertools.islice(alternatives, count)]
    return sorted(drawn, key=lambda mutant: (mutant.file, mutant.line, mutant.after))


def declared(root: Path, tests: str) -> set[tuple[str, str]]:
    """The mutants that are known to change nothing:

    ``FILE: BEFORE -> AFTER | REASON``, each on a line.
    """
    path = root / tests / DECLARED
    found = set()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        entry, separator, reason = line.rpartition(" | ")
        if line.startswith("#") or not line.strip():
            continue
        if not separator or not reason.strip() or ": " not in entry:
            raise SystemExit(f"{path}: no reason, or no file, in: {line}")
        file, _, diff = entry.partition(": ")
        found.add((file, diff.strip()))
    return found


class Workshop:
    """Plants mutants in copies of the tree and runs tests on them."""

    def __init__(self, request: Draw, trees: Iterable[tuple[Path, Warm]]) -> None:
        self.request = request
        self.trees: SimpleQueue[tuple[Path, Warm]] = SimpleQueue()
        for tree in trees:
            self.trees.put(tree)
        self.sound: set[str] = set()
        self.failing: set[str] = set()
        self.begun = time.time_ns()
        self.edits = 0

    def write(self, tree: Path, file: str, text: str) -> None:
        """Change a file so that no compiled copy of what it was is taken for it."""
        path = tree / file
        path.write_text(text, encoding="utf-8")
        self.edits += 1
        stamp = self.begun - self.edits * 2_000_000_000  # mypy compares whole seconds
        os.utime(path, ns=(stamp, stamp))
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()

    def run(self, verdict: Verdict, tests: list[Test], wall: float = 1800.0) -> None:
        """Run these tests on the mutant.

        A test that fails without it too is left out from then on.
        """
        tree, process = self.trees.get()
        mutant, package = verdict.mutant, self.request.package
        original = original_text(self.request.root, mutant)
        tests = [test for test in tests if test.name not in self.failing]
        try:
            while tests:
                self.write(tree, mutant.file, mutant.source)
                longest = min(wall, 3 * sum(test.seconds for test in tests) + 120)
                limits = {test.name: test.limit for test in tests}
                done = run_tests(tree, package, limits, process, wall=longest)
                self.write(tree, mutant.file, original)
                if done["killed"] and longest >= wall:
                    verdict.result = "not finished"
                elif done["killed"] or done["crashed"]:
                    verdict.result, verdict.test = (
                        ("timed out", "the run") if done["killed"] else ("noticed", "a crash")
                    )
                elif done["failed"]:
                    first = done["failed"][0]
                    if not first.get("collecting") and not self.is_confirmed(
                        tree, process, mutant, first["test"], limits
                    ):
                        tests = [test for test in tests if test.name != first["test"]]
                        continue
                    verdict.result, verdict.test = ("timed out" if first["timeout"] else "noticed"), first["test"]
                verdict.ran += len(done["passed"]) if any("::" not in name for name in limits) else len(tests)
                return
        finally:
            self.write(tree, mutant.file, original)
            self.trees.put((tree, process))

    def is_confirmed(self, tree: Path, process: Warm, mutant: Mutant, test: str, limits: dict[str, float]) -> bool:
        """Does the test pass without the mutant (asked once of each test), and fail with it a
        second time?

        On a busy machine tests fail by chance, and most often those that watch the clock.
        """
        limit = {test: 2 * (limits.get(test) or max(limits.values()))}
        if test not in self.sound and run_tests(tree, self.request.package, limit, process)["failed"]:
            self.failing.add(test)
            return False
        self.sound.add(test)
        self.write(tree, mutant.file, mutant.source)
        again = run_tests(tree, self.request.package, limit, process)
        self.write(tree, mutant.file, original_text(self.request.root, mutant))
        if again["failed"] or again["crashed"] or again["killed"]:
            return True
        self.failing.add(test)
        return False


def original_text(root: Path, mutant: Mutant) -> str:
    return (root / mutant.file).read_text(encoding="utf-8")


class Lint:
    """ruff and mypy, as `make lint` runs them, on a mutant; mypy keeps what it knows in
    ``cache``.
    """

    def __init__(self, tree: Path, cache: Path) -> None:
        self.tree = tree
        self.mypy = [sys.executable, "-m", "mypy", "--cache-dir", str(cache)]
        if self.complaint([[sys.executable, "-m", "ruff", "check", "."], self.mypy]):
            raise SystemExit("make lint complains without a mutant")

    def complaint(self, commands: list[list[str]]) -> str:
        for command in commands:
            done = subprocess.run(command, cwd=self.tree, capture_output=True, text=True, check=False)
            if done.returncode:
                return (done.stdout + done.stderr).strip().partition("\n")[0]
        return ""

    def judge(self, verdict: Verdict, workshop: Workshop) -> None:
        mutant = verdict.mutant
        workshop.write(self.tree, mutant.file, mutant.source)
        found = self.complaint(
            [[sys.executable, "-m", "ruff", "check", "--output-format=concise", mutant.file], self.mypy]
        )
        workshop.write(self.tree, mutant.file, original_text(workshop.request.root, mutant))
        if found:
            verdict.result, verdict.test = "lint", found


def judge(request: Draw, tests: list[Test], unmapped: list[str]) -> tuple[list[Verdict], set[str]]:
    """Run the sample: the nearest and quickest tests of all mutants first, then the rest of them
    while time is left.
    """
    end = time.monotonic() + request.minutes * 60
    candidates = Candidates(request.root, request.package, tests, unmapped)
    known = declared(request.root, request.tests)
    verdicts = []
    for mutant in draw(request):
        waiting = candidates.of(mutant)
        verdict = Verdict(mutant, waiting)
        if (mutant.file, mutant.diff) in known:
            verdict.result = "changes nothing"
        elif not waiting:
            verdict.result = "not reached"
        verdicts.append(verdict)
    with ExitStack() as stack:
        trees = stack.enter_context(copies(request.root, request.workers))
        pool = stack.enter_context(ThreadPoolExecutor(request.workers))
        workshop = Workshop(request, [(tree, stack.enter_context(warm(tree, request.package))) for tree in trees])

        def work(verdict: Verdict) -> Verdict:
            seconds, files = (NEXT_SECONDS, NEXT_FILES) if verdict.ran else (FIRST_SECONDS, FIRST_FILES)
            if time.monotonic() < end:
                tests = batch(verdict.waiting, seconds, files)
                names = {test.name for test in tests}
                verdict.waiting = [test for test in verdict.waiting if test.name not in names]
                workshop.run(verdict, tests, max(30.0, end + 60 - time.monotonic()))
            if not verdict.result and not verdict.waiting:
                verdict.result = "survived"
            return verdict

        linted = request.cache is None
        while time.monotonic() < end and any(not verdict.result for verdict in verdicts):
            turn = sorted((v for v in verdicts if not v.result), key=lambda v: sum(t.seconds for t in v.waiting))
            for verdict in pool.map(work, turn):
                if verdict.result:
                    say(str(verdict), sys.stderr)
            if request.cache is not None and not linted:
                lint, linted = Lint(trees[0], request.cache), True
                for verdict in verdicts:
                    if verdict.result in ("", "survived", "not reached"):
                        lint.judge(verdict, workshop)
                        if verdict.result == "lint":
                            say(str(verdict), sys.stderr)
    for verdict in verdicts:
        verdict.result = verdict.result or "not finished"
    return verdicts, workshop.failing


def say(text: str, stream: object = None) -> None:
    print(text, file=stream or sys.stdout, flush=True)  # type: ignore[arg-type]


def table(verdicts: list[Verdict]) -> list[str]:
    """Counts by folder, and the share of those that change anything which was noticed."""
    width = max(len(folder_of(verdict.mutant.file)) for verdict in verdicts)
    lines = [f"{'':{width}} {'  '.join(VERDICTS)}  share"]
    folders = sorted({folder_of(verdict.mutant.file) for verdict in verdicts})
    for folder in (*folders, "all"):
        of = [verdict for verdict in verdicts if folder in ("all", folder_of(verdict.mutant.file))]
        counts = collections.Counter(verdict.result for verdict in of)
        cells = "  ".join(f"{counts[name]:{len(name)}}" for name in VERDICTS)
        lines.append(f"{folder:{width}} {cells}  {share(of):5.0%}")
    return lines


def share(verdicts: list[Verdict]) -> float:
    counted = [verdict for verdict in verdicts if verdict.result != "changes nothing"]
    return sum(v.result in ("noticed", "timed out", "lint") for v in counted) / len(counted) if counted else 1.0


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, default=60, help="how many mutants (60)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same mutants (0)")
    parser.add_argument("--folder", action="append", default=[], help="only these folders or files of the package")
    parser.add_argument("--minutes", type=float, default=20.0, help="stop after this long, the map not counted (20)")
    parser.add_argument("--workers", type=int, default=2, help="mutants at a time (2)")
    parser.add_argument("--least", type=float, default=0.92, help="the share that must be noticed (0.92)")
    parser.add_argument("--list", action="store_true", help="print the sample and run nothing")
    parser.add_argument("--map", type=Path, help="the map's folder (.mutate)")
    parser.add_argument("--fresh", action="store_true", help="make the whole map anew")
    parser.add_argument(
        "--as-is", action="store_true", help="use the map as it is, though files of tests are missing in it"
    )
    parser.add_argument("--map-only", action="store_true", help="make what is missing in the map, and stop")
    parser.add_argument("--no-lint", dest="lint", action="store_false", help="do not ask ruff and mypy")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help=argparse.SUPPRESS)
    parser.add_argument("--package", default="fashionrec", help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = options().parse_args(arguments)
    root = given.root.resolve()
    folders = [folder.rstrip("/") for folder in given.folder]
    request = Draw(
        root, given.package, "tests", given.sample, given.seed, folders, given.minutes, max(1, given.workers)
    )
    if given.list:
        for mutant in draw(request):
            say(str(mutant))
        return 0
    made = Map(root, (given.map or root / ".mutate").resolve(), request.package, request.tests)
    files = test_files(root, request.tests)
    states = {file: "missing" if given.fresh else made.state(file) for file in files}
    missing = [file for file in files if states[file] == "missing"]
    if missing and not given.as_is:
        made.make(missing, request.workers, lambda text: say(text, sys.stderr))
        missing = []
    if given.map_only:
        return 0
    if missing:
        say(
            f"map: {len(missing)} files of tests are not in it; they run where they bear or name the module", sys.stderr
        )
    carried = sum(state == "carried" for state in states.values())
    if carried:
        say(f"map: {carried} files of tests were mapped on an earlier version of the package", sys.stderr)
    if (root / "pyproject.toml").exists() and given.lint:
        request.cache = made.folder / "mypy"
    tests = made.load()
    begun = time.monotonic()
    verdicts, failing = judge(request, tests, missing)
    failing |= {test.name for test in tests if not test.passes}
    if not verdicts:
        say("nothing to mutate")
        return 1
    for title in ("survived", "not finished", "not reached"):
        of = [verdict for verdict in verdicts if verdict.result == title]
        if of:
            say(f"\n{title}:")
        for verdict in of:
            say(f"  {verdict}" if title == "not finished" else f"  {verdict.mutant}")
    for test in sorted(failing):
        say(f"left out, fails without a mutant or by chance: {test}")
    say("")
    for line in table(verdicts):
        say(line)
    noticed = share(verdicts)
    say(
        f"\nseed {request.seed}: {noticed:.1%} of those that change anything noticed in {time.monotonic() - begun:.0f} s"
    )
    return 0 if noticed >= given.least else 1


if __name__ == "__main__":
    sys.exit(main())
