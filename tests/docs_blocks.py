"""Run the code blocks of README and docs in order, word for word, in a copy of the repository after
the demo.

    python -m tests.docs_blocks [--demo FOLDER] [FILE ...]

``--demo`` takes an existing ``runs/demo`` instead of running the demo. A block is skipped only by a
comment before it that gives a reason: ``<!-- test: skip (needs a key) -->``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FENCE = re.compile(
    r"(?:^<!-- test: skip \((?P<reason>[^)]+)\) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
#: Reasons that may stand in a skip comment.
REASONS = (
    "needs a key",
    "needs the hub",
    "needs a GPU",
    "needs a server",
    "needs your own",
    "installs",
    "the same as above",
    "takes hours",
)
_TIMEOUT = 1200


@dataclass(frozen=True)
class Block:
    """A code block of a document: where it begins, its language, and why it is skipped (empty: it
    is not).
    """

    path: Path
    line: int
    language: str
    code: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}"


def documents(root: Path = ROOT) -> list[Path]:
    """Return README and the docs in the order of their table of contents."""
    contents = (root / "docs" / "README.md").read_text(encoding="utf-8")
    names = dict.fromkeys(re.findall(r"\]\((\w+\.md)", contents))
    return [root / "README.md", *(root / "docs" / name for name in names if (root / "docs" / name).is_file())]


def blocks(path: Path) -> Iterator[Block]:
    """Yield the code blocks of a Markdown file."""
    text = path.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        indent = match["indent"]
        code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start("language")) + 1
        yield Block(path, line, match["language"], code, match["reason"] or "")


def copy_repository(target: Path, root: Path = ROOT) -> None:
    """Copy the files that git tracks, or would, into a new folder."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target / name)
    activate = target / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')


def run(block: Block, folder: Path) -> str:
    """Run a block in ``folder``; return what went wrong, or an empty text."""
    words = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[block.language]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("FASHIONREC_", "OPENAI_"))}
    environment |= {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS", "2"),
    }
    try:
        done = subprocess.run(
            [*words, block.code], cwd=folder, env=environment, capture_output=True, text=True, timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {_TIMEOUT} s"
    return "" if done.returncode == 0 else f"exit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}"


def run_all(paths: Iterable[Path], folder: Path, *, skip_demo: bool) -> list[str]:
    """Run all blocks that are not marked; return a description of each that failed."""
    failures = []
    for path in paths:
        for block in blocks(path):
            if block.language not in ("bash", "python"):
                continue
            if block.reason:
                print(f"{block}: skipped ({block.reason})", flush=True)
                continue
            if skip_demo and block.code.strip() == "make demo":
                continue
            start = time.monotonic()
            problem = run(block, folder)
            print(f"{block}: {'FAILED' if problem else 'ok'} ({time.monotonic() - start:.1f} s)", flush=True)
            if problem:
                print(problem, flush=True)
                failures.append(f"{block}: {problem}\n{block.code}")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="a finished runs/demo")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="docs-") as name:
        folder = Path(name, "fashionrec")
        copy_repository(folder)
        if options.demo:
            shutil.copytree(options.demo, folder / "runs" / "demo")
        else:
            subprocess.run([sys.executable, "-m", "fashionrec", "demo"], cwd=folder, check=True)
        paths = [path.resolve() for path in options.files] or documents()
        failures = run_all(paths, folder, skip_demo=True)
    print(f"{len(failures)} failed")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
