"""The only printer: results on stdout, everything else on stderr, as text, JSON or quiet.

All output passes :func:`fashionrec.common.text.visible`: by :class:`Output` line by line, and by
:func:`guard_streams` for anything else in the process (usage errors, tracebacks, warnings,
libraries).
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TextIO, cast

from fashionrec.common.text import encodable, json_text, visible, visible_lines

_LONGEST_CELL = 2000  # characters


class Tick(Protocol):
    """Callback with the work done and the total.

    A ``note`` is always shown at once; a ``detail`` is shown next to the count whenever that is
    shown.
    """

    def __call__(self, done: int, total: int, note: str = "", *, detail: str = "") -> None: ...


class Output:
    """The output of one command.

    ``json`` prints one document on stdout; ``quiet`` silences messages and progress.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False, debug: bool = False) -> None:
        self.json, self.quiet, self.debug = json, quiet, debug
        # libraries that print are redirected, we are not
        self._out, self._err = _unguarded(sys.stdout), _unguarded(sys.stderr)

    def result(self, document: Any, human: Callable[[], None]) -> None:
        """Print the result: the document with ``--json``, otherwise whatever ``human`` prints."""
        if self.json:
            self._json(document, indent=2)
        else:
            human()
        self._out.flush()

    def done(self, document: Any, human: Callable[[], None]) -> None:
        """Print what a command changed: like :meth:`result`, but ``--quiet`` silences the text."""
        self.result(document, _nothing if self.quiet else human)

    def json_line(self, document: Any) -> None:
        """Print a document on one line of stdout."""
        self._json(document, indent=None)

    def line(self, text: str = "") -> None:
        """Print a line of a text result on stdout."""
        _write(self._out, visible(text) + "\n")

    def block(self, text: str) -> None:
        """Print several lines of a text result on stdout."""
        _write(self._out, visible_lines(text) + "\n")

    def csv(self, write: Callable[[Callable[[str], str]], str]) -> None:
        """Print a CSV table on stdout.

        ``write`` returns the table and passes every cell through its argument. Newlines in cells
        are kept in a pipe; on a terminal they would start new lines.
        """
        _write(self._out, write(visible if self._out.isatty() else visible_lines))

    def say(self, text: str = "") -> None:
        """Print a message on stderr."""
        if not self.quiet:
            _write(self._err, visible(text) + "\n")
            self._err.flush()

    def warn(self, text: str) -> None:
        """Print a message on stderr, even with ``--quiet``."""
        _write(self._err, f"warning: {visible(text)}\n")
        self._err.flush()

    def next(self, *commands: str) -> None:
        """Suggest the next useful commands.

        Names and paths in them must have passed :func:`fashionrec.common.text.shell_word`.
        """
        if not self.json:
            for n, command in enumerate(commands):
                self.say(f"{'next: ' if n == 0 else '      '}{command}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> None:
        """Print a table on stdout: by rich on a terminal, as aligned plain columns in a pipe."""
        heads = [_cell(column) for column in columns]
        texts = [[_cell(cell) for cell in row] for row in rows]
        if self._out.isatty():
            from rich.table import Table
            from rich.text import Text

            table = Table(show_edge=False, pad_edge=False, header_style="bold")
            for n, head in enumerate(heads):
                table.add_column(Text(head), justify="right" if n in right else "left", overflow="fold")
            for row in texts:
                table.add_row(*map(Text, row))
            _console(self._out).print(table)
            return
        widths = [max(len(row[n]) for row in [heads, *texts]) for n in range(len(heads))]
        for row in [heads, *texts]:
            cells = [c.rjust(w) if n in right else c.ljust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))]
            self.line("  ".join(cells).rstrip())

    @contextmanager
    def progress(self, label: str, unit: str = "") -> Iterator[Tick]:
        """Show progress on stderr with rate and time left.

        On a terminal it is a bar, in a pipe a line every few seconds.
        """
        if self.quiet:
            yield _silent
        elif self._err.isatty():
            yield from self._bar(visible(label), unit)
        else:
            yield self._lines(label, unit)

    @contextmanager
    def stages(self) -> Iterator[Callable[[str, str, int, int], None]]:
        """Show the progress of work in several stages.

        The callback takes the stage, the unit, the work done, and the total.
        """
        with ExitStack() as stack:
            current: str = ""
            tick: Tick = _silent

            def report(stage: str, unit: str, done: int, total: int) -> None:
                nonlocal current, tick
                if stage != current:
                    stack.close()  # the bar of the previous stage
                    current, tick = stage, stack.enter_context(self.progress(stage, unit))
                tick(done, total)

            yield report

    def _json(self, document: Any, indent: int | None) -> None:
        text = json_text(document, indent=indent, ascii_only=not _is_unicode(self._out))
        self._out.write(text + "\n")

    def _bar(self, label: str, unit: str) -> Iterator[Tick]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.text import Text

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        start = time.monotonic()
        # rich prints other output above the bar, and would obey control sequences in it
        with Progress(*columns, console=_console(self._err)) as bar, guard_streams():
            task = bar.add_task(label, total=None, rate="", detail="")

            def tick(done: int, total: int, note: str = "", *, detail: str = "") -> None:
                if note:
                    bar.console.print(Text(f"{label} {done}/{total}: {visible(note)}"))
                rate = done / max(1e-9, time.monotonic() - start)
                shown = f"{rate:.1f} {unit}/s" if unit else ""
                bar.update(task, completed=done, total=total, rate=shown, detail=visible(detail))

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


def _cell(value: object) -> str:
    """Return a table cell, truncated if it is extremely long.

    All cells of a column are as wide as its longest; JSON has the full text.
    """
    text = "" if value is None else str(value)
    return visible(text if len(text) <= _LONGEST_CELL else text[:_LONGEST_CELL] + "…")


def _nothing() -> None:
    """Print nothing."""


def _silent(done: int, total: int, note: str = "", *, detail: str = "") -> None:
    """Show no progress."""


def fail(message: str, hint: str = "", shown: str = "", trace: str = "") -> None:
    """Print an error: the traceback if given, one line, its context if any, and a hint."""
    stream = _unguarded(sys.stderr)
    if trace:
        _write(stream, visible_lines(trace))
    _write(stream, f"error: {visible(message)}\n")
    if shown:
        _write(stream, f"{visible_lines(shown)}\n")
    if hint:
        _write(stream, f"hint: {visible(hint)}\n")
    stream.flush()


class GuardedStream(io.TextIOBase):
    """A standard stream that makes everything visible that other code in the process writes to it.

    It has no ``buffer``, which click would use to bypass it.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() takes text, not {type(text).__name__}")
        _write(self.stream, visible_lines(text))
        return len(text)

    def flush(self) -> None:
        if not self.stream.closed:
            self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors


@contextmanager
def guard_streams() -> Iterator[None]:
    """Guard stdout and stderr within a block, for libraries, tracebacks and usage errors."""
    before = sys.stdout, sys.stderr
    _guard()
    mine = sys.stdout, sys.stderr
    try:
        yield
    finally:
        if sys.stdout is mine[0]:
            sys.stdout = before[0]
        if sys.stderr is mine[1]:
            sys.stderr = before[1]


def guard_process() -> None:
    """Guard the standard streams for the whole process, including those that libraries keep."""
    _guard()
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc, assignment]


def _guard() -> None:
    if sys.stdout is not None and not isinstance(sys.stdout, GuardedStream):
        sys.stdout = cast(TextIO, GuardedStream(sys.stdout))
    if sys.stderr is not None and not isinstance(sys.stderr, GuardedStream):
        sys.stderr = cast(TextIO, GuardedStream(sys.stderr))


def _unguarded(stream: TextIO) -> TextIO:
    return stream.stream if isinstance(stream, GuardedStream) else stream


def _console(stream: TextIO) -> Any:
    from rich.console import Console

    return Console(file=stream, markup=False, highlight=False, emoji=False)


def _is_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().replace("-", "").startswith("utf")


def _write(stream: TextIO, text: str) -> None:
    stream.write(text if _is_unicode(stream) else encodable(text, stream.encoding))
