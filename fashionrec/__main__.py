"""``python -m fashionrec`` and the console script."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    gc.disable()  # while modules are made: nothing of them is to be collected
    command = sys.argv[1] if len(sys.argv) > 1 else None
    if command == "query":  # its threads would wait for products to share, which no query has, and take a core for that
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from fashionrec.cli.main import make_app

    app = make_app(command)
    gc.freeze()
    gc.enable()
    if command != "query":
        app()
        return
    try:
        app()
    except SystemExit as leaving:
        _leave(leaving.code)


def _leave(code: object) -> None:
    """End the process without taking its models apart, which takes longer than a search: the system gets it all back at once.

    Nothing of a query is left to be written by now but what stands in the buffers.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # whoever read it has gone
        code = code or 0
    os._exit(code if isinstance(code, int) else 1 if code else 0)


if __name__ == "__main__":
    main()
