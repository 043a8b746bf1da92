"""`python -m benchmarks [NAME ...] [OPTIONS]`: run the benchmarks named; the words after the names
are their options.
"""

from __future__ import annotations

import importlib
import os
import sys
from itertools import takewhile

ALL = {
    "startup": "milliseconds of `fashionrec --help`, as a ratio to `python -c pass`",
    "query": "a query beside a straight script from a cold start, warm by stages, and filtered: 100,000 garments",
    "prepare": "images per second of fetch-dataset at 640, as a ratio to a loop of Pillow; memory",
    "train": "a training beside ultralytics' own: the same mAP, and the seconds that a run of ours costs more",
    "int8": "what int8 and fp16 gain in speed and lose in mAP, beside `YOLO.predict`",
    "compare": "all families of detectors by `fashionrec compare`, each used in one `build-index` and `query`",
    "build": "photos per second of a build beside the straight stack's, in fp32 and int8; --memory: by number of photos",
    "captions": "captions per second against a local server of 800 ms, beside what 64 connections allow",
    "embed": "pictures per second of an encoder, as a fraction of this chip's own rate of matrix products",
    "forgetting": "what a finetune loses and gains on real photos, a plain one beside ours (needs FASHIONREC_REALDATA)",
    "growth": "CPU, memory and bytes written of each operation as the catalogue grows, with its exponent",
    "nights": "two hundred nights of changes: what each costs, the disk, and whether the answers are those of a new build",
    "incremental": "what photos added, prices changed and products gone cost beside a full build",
    "index": "search over 100,000 or a million vectors: `IndexFlatIP`, exact, and the index that a build chooses",
    "versions": "this version beside earlier ones, in interleaved pairs: ends with 1 where a command became slower",
    "realdata": "train, build and query on real photos (needs FASHIONREC_REALDATA)",
}


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once, as after an installation by pip
    names = list(takewhile(ALL.__contains__, sys.argv[1:]))
    wrong = sys.argv[1 + len(names) :]
    if wrong and not (names and wrong[0].startswith("-")):
        sys.exit(f"no benchmark {wrong[0]!r}; there are: {', '.join(ALL)}")
    if not names:
        for name, words in ALL.items():
            print(f"{name:10} {words}")
        names = ["startup"]
    for name in names:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
