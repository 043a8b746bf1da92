"""Entry point of ``python -m fashionrec`` and the console script."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    gc.disable()  # modules that are being imported contain no garbage
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # child processes must not import from the working folder
    command = sys.argv[1] if len(sys.argv) > 1 else None
    if command == "query":  # its threads wait for shared work that a query does not have, and occupy a core
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # unless somebody asked to ignore it
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
    """End a query at once on Ctrl-C.

    As an exception it could be replaced by another one while a library imports, or get lost in a
    callback; a query has nothing to clean up.
    """
    with suppress(OSError):
        os.write(2, b"error: interrupted\n")
    os._exit(130)


def _leave(code: object) -> None:
    """End the process without freeing its models.

    Freeing them takes longer than a search; the system reclaims everything at once.
    """
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except OSError:  # whoever read it has gone
        code = code or 0
    os._exit(code if isinstance(code, int) else 1 if code else 0)


if __name__ == "__main__":
    main()
