"""`python -m benchmarks [NAME ...]`: run the benchmarks named, or all that need no data of one's own."""

from __future__ import annotations

import importlib
import sys

ALL = {
    "startup": "milliseconds of `fashionrec --help`, as a ratio to `python -c pass`",
    "query": "one query from a cold start, and its stages",
    "realdata": "train, build and query on real photos (needs FASHIONREC_REALDATA)",
}


def main() -> None:
    names = sys.argv[1:]
    if not names:
        for name, words in ALL.items():
            print(f"{name:10} {words}")
        names = ["startup"]
    for name in names:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
