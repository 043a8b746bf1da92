"""Damages copies of a catalogue, and opens, asks and verifies each in a process that may be lost.

python tests/damage_runner.py CATALOGUE PHOTO SCRATCH [--count N] [--seed S]

One line of JSON for a trial that went wrong, and a last one with the counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import warm  # noqa: F401

from fashionrec import Catalogue
from fashionrec.catalogue.catalogue import verify_catalogue
from fashionrec.config import load_config
from fashionrec.errors import FashionrecError
from fashionrec.store import generations

CONFIG = load_config(env={}, sets=("project.threads=1",)).config
#: A trial that takes longer has run away: seconds.
LIMIT = 60


def parts(root: Path) -> list[Path]:
    """The files that a catalogue is made of, below its folder."""
    generation = generations.read_current(root)
    own = [Path(generations.POINTER), Path("generations", generation.name, generations.MANIFEST)]
    return sorted([*own, *(Path(name) for name in generation.manifest.files)])


def damage(path: Path, rng: random.Random) -> str:
    """Truncate a file, or flip some of its bits, or put noise or zeros over a part of it; returns
    what was done.
    """
    data = bytearray(path.read_bytes())
    before = bytes(data)
    what = ""
    while bytes(data) == before:
        kind = rng.choice(["truncate", "flip", "flip", "flips", "noise", "zeros", "append"])
        at = rng.randrange(len(data)) if rng.random() < 0.6 else rng.randrange(min(len(data), 200))
        what = f"{kind} at {at} of {len(before)}"
        if kind == "truncate":
            del data[at:]
        elif kind == "append":
            data += rng.randbytes(rng.randrange(1, 50))
        elif kind in ("flip", "flips"):
            for _ in range(1 if kind == "flip" else rng.randrange(2, 40)):
                spot = at if kind == "flip" else rng.randrange(len(data))
                data[spot] ^= 1 << rng.randrange(8)
        else:
            size = rng.randrange(1, 60)
            data[at : at + size] = (
                rng.randbytes(len(data[at : at + size])) if kind == "noise" else bytes(len(data[at : at + size]))
            )
    path.write_bytes(bytes(data))
    return what


def ask(root: Path, photo: Path, at_once: bool = False) -> str:
    with Catalogue.open(root, CONFIG, at_once=at_once) as catalogue:
        answers = [catalogue.search(photo, k=5), catalogue.search_text("빨간 shirt", k=5)]
        for answer in answers:
            json.dumps(answer.to_dict(), ensure_ascii=False).encode("utf-8", "replace")
            for garment in answer.garments:
                for stored in garment.stored:
                    catalogue.thumbnail(stored)
        for stored in catalogue.items.everything():
            catalogue.items.photo(stored.photo)
    return "answered"


def forked(work: Callable[[], str]) -> tuple[str, str]:
    """Return how some work ended: ``answered``, ``error`` (one of ours), ``bug`` (another) or
    ``crash``, and words about it.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            outcome = [work(), ""]
        except FashionrecError as error:
            outcome = ["error", f"{type(error).__name__}: {error}"]
        except BaseException:
            outcome = ["bug", traceback.format_exc()[-700:]]
        with os.fdopen(write, "w") as pipe:
            json.dump(outcome, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "crash", f"signal {os.WTERMSIG(status)}"
    kind, words = json.loads(text)
    return str(kind), str(words)


def verified(root: Path) -> str:
    verify_catalogue(root)
    return "answered"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    files = parts(options.catalogue)
    copy: Path = options.scratch / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(options.catalogue, copy)
    assert forked(lambda: ask(copy, options.photo))[0] == "answered", forked(lambda: ask(copy, options.photo))
    assert forked(lambda: verified(copy))[0] == "answered", forked(lambda: verified(copy))
    counts: Counter[str] = Counter()
    for _ in range(options.count):
        name = rng.choice(files)
        what = damage(copy / name, rng)
        at_once = rng.random() < 0.5
        asked = forked(partial(ask, copy, options.photo, at_once))
        found = forked(lambda: verified(copy))
        shutil.copyfile(options.catalogue / name, copy / name)
        counts["trials"] += 1
        counts[asked[0]] += 1
        counts["found" if found[0] == "error" else "missed"] += 1
        if asked[0] in ("bug", "crash") or found[0] != "error":
            wrong: dict[str, Any] = {"file": str(name), "what": what, "asked": asked, "verified": found}
            sys.stdout.write(json.dumps(wrong, ensure_ascii=False) + "\n")
            sys.stdout.flush()
    sys.stdout.write(json.dumps(dict(counts)) + "\n")
    sys.exit(1 if counts["bug"] + counts["crash"] + counts["missed"] else 0)


if __name__ == "__main__":
    main()
