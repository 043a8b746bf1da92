"""``python -m fashionrec`` and the console script."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    gc.disable()  # while modules are made: nothing of them is to be collected
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # processes started from here import nothing from the working folder
    command = sys.argv[1] if len(sys.argv) > 1 else None
    if command == "query":  # its threads would wait for products to share, which no query has, and take a core for that
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # or somebody wants it to be ignored
            signal.signal(signal.SIGINT, _interrupted)
    from fashionrec.cli.main import make_app
    from fashionrec.cli.output import guard_process

    guard_process()
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


def _interrupted(_number: int, _frame: object) -> None:
    """Ctrl-C ends a query wherever it is. As an exception it would be taken for another one where a library imports another, and
    be lost where it falls into a callback; nothing of a query is worth tidying up."""
    with suppress(OSError):
        os.write(2, b"error: interrupted\n")
    os._exit(130)


def _leave(code: object) -> None:
    """End the process without taking its models apart, which takes longer than a search: the system gets it all back at once.

    Nothing of a query is left to be written by now but what stands in the buffers.
    """
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except OSError:  # whoever read it has gone
        code = code or 0
    os._exit(code if isinstance(code, int) else 1 if code else 0)


if __name__ == "__main__":
    main()
