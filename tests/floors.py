"""The lowest versions that pyproject.toml allows, in an environment of their own (`.venv-floors`),
and the core's suite on them.

Run by `make test-floors`; not a pytest file. It needs the lowest Python too. What needs torch is
left out (6 GB) unless ``--train`` is given; words after ``--`` go to pytest. What the lowest
versions need themselves, pip chooses.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
HOME = REPOSITORY / ".venv-floors"
#: Packages that bring torch, or are torch.
NEED_TORCH = ("torch", "torchvision", "ultralytics", "effdet", "transformers")
#: They judge the source, not the installation: `make lint` runs the locked versions.
LINTERS = ("ruff", "mypy", "types-PyYAML")
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)>=([0-9][0-9A-Za-z.]*)(,[<!][0-9A-Za-z.,<!=]*)?$")


def project() -> dict[str, object]:
    """The table ``project`` of pyproject.toml."""
    return dict(tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def read_floors(requirements: list[str]) -> dict[str, str]:
    """Package to its lower bound. Raises ``ValueError`` for a requirement without one."""
    floors = {}
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement.replace(" ", ""))
        if match is None:
            raise ValueError(f"pyproject.toml: {requirement!r} has no lower bound (NAME>=VERSION)")
        floors[match[1]] = match[2]
    return floors


def all_floors() -> dict[str, str]:
    """The lower bounds of the core and of every extra."""
    table = project()
    requirements = list(table["dependencies"])  # type: ignore[call-overload]
    for extra in table["optional-dependencies"].values():  # type: ignore[attr-defined]
        requirements += extra
    return read_floors(requirements)


def lowest_python() -> str:
    """The interpreter of the lowest supported Python."""
    wanted = str(project()["requires-python"]).removeprefix(">=")
    if ".".join(map(str, sys.version_info[:2])) == wanted:
        return sys.executable
    found = shutil.which(f"python{wanted}")
    if found is None:
        sys.exit(f"the lowest versions are tested on Python {wanted}: give its path, make PYTHON=... test-floors")
    return found


def run(*command: str | Path, **options: object) -> int:
    print("+", " ".join(str(part) for part in command), flush=True)
    return subprocess.run([str(part) for part in command], cwd=REPOSITORY, check=False, **options).returncode  # type: ignore[call-overload,no-any-return]


def install(train: bool) -> Path:
    """Make the environment, unless it stands as it must be; returns its interpreter."""
    left_out = LINTERS if train else LINTERS + NEED_TORCH
    pins = "".join(f"{name}=={floor}\n" for name, floor in all_floors().items() if name not in left_out)
    python, record = HOME / "bin" / "python", HOME / "floors.txt"
    if python.exists() and record.exists() and record.read_text(encoding="utf-8") == pins:
        return python
    shutil.rmtree(HOME, ignore_errors=True)
    if run(lowest_python(), "-m", "venv", HOME) != 0:
        sys.exit(1)
    pending = HOME / "pending.txt"
    pending.write_text(pins, encoding="utf-8")
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if run(*pip, "--only-binary", ":all:", "-r", pending) or run(*pip, "--no-build-isolation", "--no-deps", "-e", "."):
        sys.exit("the lowest versions cannot be installed together")
    pending.rename(record)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", action="store_true", help="with torch and what needs it, and the tests of both")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    start = time.monotonic()
    python = install(options.train)
    print(f"installed the lowest versions in {time.monotonic() - start:.0f} s", flush=True)
    markers = "not slow and not soak and not release" + ("" if options.train else " and not train")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    tests = (python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", "-m", markers)
    sys.exit(run(*tests, *options.pytest, env=environment))


if __name__ == "__main__":
    main()
