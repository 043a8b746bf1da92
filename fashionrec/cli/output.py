"""The only printer: results on stdout, everything else on stderr; human, JSON or quiet is decided here."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol


class Tick(Protocol):
    """Called with what is done and what there is in all.

    A ``note`` is always shown, however soon it comes; a ``detail`` stands beside the count whenever that is shown.
    """

    def __call__(self, done: int, total: int, note: str = "", *, detail: str = "") -> None: ...


class Output:
    """How one command speaks. ``json`` puts one document on stdout; ``quiet`` silences messages and progress."""

    def __init__(self, *, json: bool = False, quiet: bool = False, debug: bool = False) -> None:
        self.json, self.quiet, self.debug = json, quiet, debug
        self._out, self._err = sys.stdout, sys.stderr  # libraries that print are redirected away; we are not

    def result(self, document: Any, human: Callable[[], None]) -> None:
        """The command's result: the document with ``--json``, else whatever ``human`` prints."""
        if self.json:
            self._out.write(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
        else:
            human()
        self._out.flush()

    def line(self, text: str = "") -> None:
        """A line of a human result, on stdout."""
        self._out.write(text + "\n")

    def say(self, text: str) -> None:
        """A message, on stderr."""
        if not self.quiet:
            self._err.write(text + "\n")
            self._err.flush()

    def warn(self, text: str) -> None:
        """A message that is shown even when quiet."""
        self._err.write(f"warning: {text}\n")
        self._err.flush()

    def next(self, *commands: str) -> None:
        """Name the next useful command."""
        if not self.json:
            for n, command in enumerate(commands):
                self.say(f"{'next: ' if n == 0 else '      '}{command}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> None:
        """A table on stdout: drawn by rich on a terminal, plain aligned columns in a pipe."""
        texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
        if self._out.isatty():
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text

            table = Table(show_edge=False, pad_edge=False, header_style="bold")
            for n, column in enumerate(columns):
                table.add_column(column, justify="right" if n in right else "left", overflow="fold")
            for row in texts:
                table.add_row(*(Text(cell) for cell in row))
            Console(file=self._out).print(table)
            return
        widths = [max(len(row[n]) for row in [list(columns), *texts]) for n in range(len(columns))]
        for row in [list(columns), *texts]:
            cells = [c.rjust(w) if n in right else c.ljust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))]
            self.line("  ".join(cells).rstrip())

    @contextmanager
    def progress(self, label: str, unit: str = "") -> Iterator[Tick]:
        """Progress on stderr, with rate and time left: a bar on a terminal, a line every few seconds in a pipe."""
        if self.quiet:
            yield _silent
        elif self._err.isatty():
            yield from self._bar(label, unit)
        else:
            yield self._lines(label, unit)

    @contextmanager
    def stages(self) -> Iterator[Callable[[str, str, int, int], None]]:
        """Progress of work in several stages: told what is being done, in what unit, how much is done, and how much there is."""
        with ExitStack() as stack:
            now: str = ""
            tick: Tick = _silent

            def tell(what: str, unit: str, done: int, total: int) -> None:
                nonlocal now, tick
                if what != now:
                    stack.close()  # the bar of the stage before
                    now, tick = what, stack.enter_context(self.progress(what, unit))
                tick(done, total)

            yield tell

    def _bar(self, label: str, unit: str) -> Iterator[Tick]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        start = time.monotonic()
        with Progress(*columns, console=Console(file=self._err)) as bar:
            task = bar.add_task(label, total=None, rate="", detail="")

            def tick(done: int, total: int, note: str = "", *, detail: str = "") -> None:
                if note:
                    bar.console.print(f"{label} {done}/{total}: {note}", markup=False, highlight=False)
                rate = done / max(1e-9, time.monotonic() - start)
                shown = f"{rate:.1f} {unit}/s" if unit else ""
                bar.update(task, completed=done, total=total, rate=shown, detail=detail)

            yield tick

    def _lines(self, label: str, unit: str) -> Tick:
        start = last = time.monotonic()

        def tick(done: int, total: int, note: str = "", *, detail: str = "") -> None:
            nonlocal last
            moment = time.monotonic()
            if not note and moment - last < 5 and done < total:
                return
            last = moment
            rate = done / max(1e-9, moment - start)
            left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
            self.say(
                f"{label} {done}/{total}"
                + (f": {note}" if note else "")
                + (f", {rate:.1f} {unit}/s" if unit else "")
                + left
                + (f", {detail}" if detail else "")
            )

        return tick


def _silent(done: int, total: int, note: str = "", *, detail: str = "") -> None:
    """Progress that nobody sees."""


def fail(message: str, hint: str = "", shown: str = "") -> None:
    """A known error: one line, what it is about where that can be shown, and a hint."""
    sys.stderr.write(f"error: {message}\n")
    if shown:
        sys.stderr.write(f"{shown}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")
    sys.stderr.flush()
