"""The serving plane in an environment of its own: installs from its lock, weighs it, and queries a
copied catalogue.

Run by `make core-test` with any Python; not a pytest file. The catalogue is built in that same
environment, from a bundle that this repository carries (`tests/data/tiny`), then copied away, its
makers hidden, and asked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
LIMIT_MB = 600
FORBIDDEN = ("torch", "ultralytics", "transformers", "pandas")


def run(*command: str | Path, **options: object) -> str:
    print("+", " ".join(str(part) for part in command), flush=True)
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    return str(done.stdout)


def size_mb(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() or path.is_symlink()) / 1e6


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fashionrec-core-") as name:
        work = Path(name)
        run(sys.executable, "-m", "venv", work / "venv")
        python = work / "venv" / "bin" / "python"
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, "-r", REPOSITORY / "requirements.lock")
        run(*pip, "--no-deps", REPOSITORY)
        weight = size_mb(work / "venv")
        print(f"core install: {weight:.0f} MB")
        assert weight < LIMIT_MB, f"the core install weighs {weight:.0f} MB, more than {LIMIT_MB}"
        for package in FORBIDDEN:
            found = subprocess.run([python, "-c", f"import {package}"], capture_output=True, check=False)
            assert found.returncode != 0, f"{package} is in the core install"

        tiny = REPOSITORY / "tests" / "data" / "tiny"
        built, copied = work / "built", work / "elsewhere" / "catalogue"
        tool = (python, "-m", "fashionrec")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FASHIONREC_")}
        options = {"cwd": work, "env": environment}
        run(
            *tool,
            "build-index",
            tiny / "photos",
            "--index",
            built,
            "--detector",
            tiny / "detector",
            "--embedder",
            tiny / "embedder",
            **options,
        )
        shutil.copytree(built, copied)
        shutil.rmtree(built)
        photo = next((tiny / "photos").glob("*.jpg"))
        answer = json.loads(run(*tool, "query", photo, "--index", copied, "--json", "-k", "3", **options))
        best = answer["garments"][0]["hits"][0]
        assert best["product_id"] == photo.name, best
        assert best["score"] > 0.999, best
        text = json.loads(run(*tool, "query", "--text", "red", "--index", copied, "--json", **options))
        assert text["garments"][0]["hits"], text
        run(*tool, "catalogue", "verify", copied, **options)
        run(*tool, "doctor", "--index", copied, **options)
        drawn = ("--set", "synthetic.images=12", "--set", "synthetic.products=0", "--set", "synthetic.size=128")
        run(*tool, "fetch-dataset", "synthetic", "--out", "world", *drawn, **options)
        counts = ("--counts", "8,2,2", "--set", "dataset.equalize=2", "--set", "dataset.resize=fit")
        run(*tool, "fetch-dataset", "yolo:world", "--out", "dataset", *counts, **options)
        audit = json.loads(run(*tool, "dataset", "audit", "dataset", "--json", **options))
        assert audit["images"] == 12, audit["images"]
        refused = subprocess.run(
            [*map(str, tool), "train", "data=x.yaml"],
            capture_output=True,
            text=True,
            check=False,
            cwd=work,
            env=environment,
        )
        assert refused.returncode == 2, refused
        assert "pip install '.[train]'" in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr, refused.stderr
        print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
