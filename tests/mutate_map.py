"""Map which lines of the package each test runs: made with coverage, one file of tests at a time,
and kept between runs.

A file of tests is mapped again when it changed. When the package changed, its lines are found again
by comparing the sources; ``--fresh`` maps everything anew.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.mutate_warm import Warm, named
from tests.ram_disk import MEMORY, NEEDED, available_bytes

HERE = Path(__file__).parent


@dataclass
class Test:
    """A test as the map knows it.

    ``lines`` has those of the fixtures that it shares with others.
    """

    name: str
    seconds: float
    limit: float
    passes: bool
    lines: dict[str, frozenset[int]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return self.name.partition("::")[0]


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def tracked(root: Path) -> list[str]:
    """The files of the tree: what git knows and what it does not ignore; without git,
    every file.
    """
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True, check=False
    )
    if done.returncode:
        paths = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return sorted(path.relative_to(root).as_posix() for path in paths)
    return sorted(name for name in done.stdout.decode().split("\0") if name and (root / name).is_file())


def copy_tree(root: Path, target: Path) -> None:
    for name in tracked(root):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target / name)


@contextmanager
def copies(root: Path, count: int) -> Iterator[list[Path]]:
    """Copies of the tree for ``count`` workers, each with the plugin in a folder beside it; removed
    at the end.
    """
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        trees = []
        for n in range(count):
            tree = Path(folder, str(n), root.name)
            copy_tree(root, tree)
            plugin = Path(folder, str(n), "plugin")
            plugin.mkdir()
            for name in ("mutate_plugin.py", "sitecustomize.py"):
                shutil.copy2(HERE / "mutate_plugin.py", plugin / name)
            trees.append(tree)
        yield trees


def environment(tree: Path, package: str, **more: str) -> dict[str, str]:
    """The environment of a test run in ``tree``."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MUTATE_")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env |= {"PYTHONPATH": f"{tree}{os.pathsep}{tree.parent / 'plugin'}", "OMP_NUM_THREADS": "1"}
    env["PYTHONHASHSEED"] = "1"  # a second run orders its sets as the first did
    return env | {"MUTATE_SOURCE": str(tree / package)} | more


def pytest_arguments(*arguments: str) -> list[str]:
    return ["-q", "-p", "mutate_plugin", "-p", "no:cacheprovider", *arguments]


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for one run of pytest and its temporary files: they go with it, also where the run
    is killed.
    """
    in_memory = str(MEMORY) if available_bytes() >= NEEDED else None
    return tempfile.TemporaryDirectory(prefix="mutate-run-", dir=in_memory, ignore_cleanup_errors=True)


def map_file(tree: Path, package: str, test_file: str) -> dict[str, Any]:
    """Run one file of tests under coverage: its tests' times, outcomes and lines."""
    with scratch() as folder:
        out = Path(folder, "out.json")
        env = environment(tree, package, MUTATE_MAP=folder, MUTATE_OUT=str(out))
        arguments = pytest_arguments(f"--basetemp={folder}/base", "--timeout=1200", test_file)
        command = [sys.executable, "-m", "pytest", *arguments]
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
        if not out.exists():
            raise RuntimeError((done.stdout + done.stderr)[-2000:])
        document: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        document["lines"] = read_lines(Path(folder), tree)
    failed = [name for name, test in document["tests"].items() if not test["passes"]]
    if failed:  # perhaps only because it was watched
        with warm(tree, package) as process:
            again = run_tests(tree, package, dict.fromkeys(failed, 600.0), process, fail_fast=False)
        for name in again["passed"]:
            document["tests"][name]["passes"] = True
    return document


def read_lines(folder: Path, tree: Path) -> dict[str, dict[str, str]]:
    """Return what coverage recorded: context -> file -> its lines as a bit mask in hexadecimal."""
    masks: dict[str, dict[str, int]] = {}
    for path in sorted(folder.glob("lines.*")):
        with closing(sqlite3.connect(path)) as database:
            try:
                rows = database.execute(
                    "SELECT context, path, numbits FROM line_bits JOIN file ON file.id = file_id "
                    "JOIN context ON context.id = context_id WHERE context != ''"
                ).fetchall()
            except sqlite3.DatabaseError:  # of a child process that was killed while it wrote
                continue
        for context, name, bits in rows:
            if not Path(name).is_relative_to(tree):
                continue
            files = masks.setdefault(context, {})
            name = Path(name).relative_to(tree).as_posix()
            files[name] = files.get(name, 0) | int.from_bytes(bits, "little")
    return {context: {name: f"{mask:x}" for name, mask in files.items()} for context, files in masks.items()}


@contextmanager
def warm(tree: Path, package: str) -> Iterator[Warm]:
    """The process whose forks run the tests of ``tree``."""
    texts = [(tree / name).read_text(encoding="utf-8") for name in tracked(tree) if name.endswith(".py")]
    process = Warm(environment(tree, package), named(texts))
    try:
        yield process
    finally:
        process.close()


def run_tests(
    tree: Path,
    package: str,
    limits: dict[str, float],
    process: Warm,
    *,
    fail_fast: bool = True,
    wall: float = 1800.0,
) -> dict[str, Any]:
    """Run tests in this order: those that ``failed``, those that ``passed``, and whether the run
    had to be killed.
    """
    with scratch() as folder:
        listed, out = Path(folder, "tests.json"), Path(folder, "out.json")
        listed.write_text(json.dumps(limits), encoding="utf-8")
        env = environment(tree, package, MUTATE_RUN=str(listed), MUTATE_OUT=str(out))
        files = list(dict.fromkeys(name.partition("::")[0] for name in limits))
        arguments = pytest_arguments(f"--basetemp={folder}/base", *(["-x"] if fail_fast else []), *files)
        code, killed = process.run(arguments, tree, env, wall)
        found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"failed": [], "ran": []}
    bad = {failure["test"] for failure in found["failed"]}
    return {
        "failed": found["failed"],
        "passed": [name for name in found["ran"] if name not in bad],
        "killed": killed,
        "crashed": not killed and not found["failed"] and code not in (0, 5),
    }


def sources(root: Path, package: str) -> dict[str, str]:
    names = [name for name in tracked(root) if name.startswith(f"{package}/") and name.endswith(".py")]
    return {name: (root / name).read_text(encoding="utf-8") for name in names}


def test_files(root: Path, tests: str) -> list[str]:
    return [
        n for n in tracked(root) if n.startswith(f"{tests}/") and Path(n).name.startswith("test_") and n[-3:] == ".py"
    ]


class Map:
    """The map in its folder: one JSON document per file of tests, and the sources that it was made
    from.
    """

    def __init__(self, root: Path, folder: Path, package: str, tests: str) -> None:
        self.root, self.folder, self.package, self.tests = root, folder, package, tests
        self.now = sources(root, package)
        self.version = digest(*(f"{name}\0{text}".encode() for name, text in sorted(self.now.items())))

    def path(self, test_file: str) -> Path:
        return self.folder / f"{Path(test_file).stem}.json"

    def state(self, test_file: str) -> str:
        """``current``, ``carried`` (the package changed since), or ``missing`` (new or changed
        tests).
        """
        path = self.path(test_file)
        if not path.exists():
            return "missing"
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["tests_digest"] != digest((self.root / test_file).read_bytes()):
            return "missing"
        return "current" if document["version"] == self.version else "carried"

    def make(self, wanted: Iterable[str], workers: int, say: Callable[[str], None]) -> None:
        """Map these files of tests, and store each as soon as it is done."""
        queue = list(wanted)
        if not queue:
            return
        (self.folder / "sources").mkdir(parents=True, exist_ok=True)
        kept = self.folder / "sources" / f"{self.version}.json"
        kept.write_text(json.dumps(self.now), encoding="utf-8")
        with copies(self.root, workers) as trees, ThreadPoolExecutor(workers) as pool:
            free = list(trees)

            def work(test_file: str) -> str:
                tree = free.pop()
                try:
                    document = map_file(tree, self.package, test_file)
                    document["tests_digest"] = digest((tree / test_file).read_bytes())
                finally:
                    free.append(tree)
                self.store(test_file, document | {"version": self.version})
                seconds = sum(test["seconds"] for test in document["tests"].values())
                return f"{test_file} ({len(document['tests'])} tests, {seconds:.0f} s)"

            running = {pool.submit(work, test_file): test_file for test_file in queue}
            for n, future in enumerate(as_completed(running), 1):
                try:
                    say(f"mapped {n}/{len(queue)} {future.result()}")
                except Exception as error:  # the others go on; this one is missing in the map
                    say(f"not mapped {n}/{len(queue)} {running[future]}: {error}")

    def store(self, test_file: str, document: dict[str, Any]) -> None:
        part = self.path(test_file).with_suffix(".part")
        part.write_text(json.dumps(document), encoding="utf-8")
        part.replace(self.path(test_file))

    def load(self) -> list[Test]:
        """All tests of the map, their lines as they are numbered now."""
        found = []
        translations: dict[tuple[str, str], dict[int, int] | None] = {}
        old: dict[str, dict[str, str]] = {}

        def translated(version: str, name: str, mask: str) -> frozenset[int]:
            lines = [n for n, bit in enumerate(reversed(f"{int(mask, 16):b}")) if bit == "1"]
            if version == self.version:
                return frozenset(lines)
            if (version, name) not in translations:
                kept = self.folder / "sources" / f"{version}.json"
                if version not in old:
                    old[version] = json.loads(kept.read_text(encoding="utf-8"))
                before, after = old[version].get(name, ""), self.now.get(name, "")
                translations[version, name] = None if before == after else line_numbers(before, after)
            table = translations[version, name]
            return frozenset(lines if table is None else (table[line] for line in lines if line in table))

        for test_file in test_files(self.root, self.tests):
            if not self.path(test_file).exists():
                continue
            document = json.loads(self.path(test_file).read_text(encoding="utf-8"))
            reached = {
                context: {name: translated(document["version"], name, mask) for name, mask in files.items()}
                for context, files in document["lines"].items()
            }
            for name, test in document["tests"].items():
                if test.get("skipped"):
                    continue
                lines = dict(reached.get(name, {}))
                for fixture in test["fixtures"]:
                    for file, more in reached.get(f"{test_file}::fixture {fixture}", {}).items():
                        lines[file] = lines.get(file, frozenset()) | more
                usual = test["seconds"] + sum(document["fixtures"][fixture] for fixture in test["fixtures"])
                found.append(Test(name, test["seconds"], 3 * usual + 10, test["passes"], lines))
        return found


def line_numbers(before: str, after: str) -> dict[int, int]:
    """Old line -> new line. A changed block's old lines stand for the first of its new lines."""
    table: dict[int, int] = {}
    matcher = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False)
    for kind, old, old_end, new, new_end in matcher.get_opcodes():
        for line in range(old, old_end):
            if kind == "equal" or (kind == "replace" and line - old < new_end - new):
                table[line + 1] = line - old + new + 1
    return table
