"""The base of all commands: shared options, settings, examples, and errors.

A command is a function with a parameter ``context: Context``, mounted with ``cls=Command``, which
adds the shared options, opens ``context.session``, and prints every known error as one line with a
hint and an exit code. Modules with commands do not postpone annotations: typer would evaluate each
string four times, 20 ms of every start.
"""

import errno
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from fashionrec.cli.output import Output, fail
from fashionrec.common.reach import follow_links, following_links
from fashionrec.common.system import discard_output
from fashionrec.common.text import encodable, shell_word
from fashionrec.errors import CatalogueError, ConfigError, FashionrecError, UsageError

if TYPE_CHECKING:
    from fashionrec.config import Config, Resolved


def _shared(
    config: Annotated[
        list[str] | None, typer.Option("--config", "-c", metavar="FILE", help="YAML settings; repeatable.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; repeatable.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")] = False,
) -> None:
    """Declare the options that every command has after its own."""


@cache
def shared_options() -> tuple[Any, ...]:
    """Return the options of :func:`_shared` as typer creates them.

    The arguments of an option differ between versions of typer.
    """
    app = typer.Typer(add_completion=False)
    app.command()(_shared)
    return tuple(get_command(app).params)


class Session:
    """One call of the command line: its output and its settings."""

    def __init__(self, files: Sequence[str] = (), sets: Sequence[str] = (), out: Output | None = None) -> None:
        self.files, self.sets = list(files), list(sets)
        self.out = out or Output()
        self._resolved: Resolved | None = None
        self._shown_notes: set[str] = set()

    @property
    def resolved(self) -> "Resolved":
        if self._resolved is None:
            from fashionrec.config import config_note, load_config

            self._resolved = load_config(self.files, self.sets)
            follow_links(self._resolved.config.dataset.follow_links)
            for note in filter(None, map(config_note, dict.fromkeys(self.files))):
                if note not in self._shown_notes:
                    self._shown_notes.add(note)
                    self.out.say(note)
        return self._resolved

    @property
    def config(self) -> "Config":
        return self.resolved.config

    @property
    def runs(self) -> Path:
        return Path(self.config.project.runs)

    @property
    def data(self) -> Path:
        return Path(self.config.project.data)

    def find_catalogue(self, index: str | None) -> Path:
        """Return the catalogue to use, and print which it is unless it was named.

        It is the named one, else the setting or FASHIONREC_INDEX, else the only one in the data
        folder. Raises :class:`CatalogueError` if there is none, or more than one.
        """
        from fashionrec.store.generations import is_catalogue

        if index is not None:
            return Path(index)
        if self.config.query.index is not None:
            self.out.say(f"catalogue: {self.config.query.index} ({self.resolved.origins['query.index']})")
            return Path(self.config.query.index)
        catalogues = [path for path in sorted(self.data.glob("*")) if is_catalogue(path)]
        if not catalogues:
            raise CatalogueError(
                f"no catalogue given, and none in {self.data}",
                hint="name its folder with --index, or create one with `fashionrec build-index PHOTOS`",
            )
        if len(catalogues) > 1:
            names = ", ".join(str(path) for path in catalogues)
            raise CatalogueError(
                f"found {len(catalogues)} catalogues: {names}",
                hint=f"choose one, for example {shell_word(catalogues[0])}",
            )
        self.out.say(f"catalogue: {catalogues[0]} (the only one in {self.data})")
        return catalogues[0]

    def is_set(self, dotted: str) -> bool:
        """Return whether a setting was set explicitly, not by the defaults."""
        return dotted in self.resolved.origins

    def is_on_line(self, dotted: str) -> bool:
        """Return whether this command line sets it, not a file or the environment."""
        return self.resolved.origins.get(dotted, "").startswith("--set")

    def override(self, section: str, values: dict[str, Any]) -> None:
        """Set options of the command as settings, which override all others.

        None means that an option was not given.
        """
        import yaml

        for key, value in values.items():
            if value is not None:
                text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
                self.sets.append(f"{section}.{key}={text}")
        self._resolved = None

    def suggest(self, sets: Sequence[str]) -> None:
        """Set values that any other setting on the command line overrides."""
        self.sets[:0] = sets
        self._resolved = None

    def assign(self, section: str, words: Sequence[str]) -> list[str]:
        """Apply ``key=value`` words to a section, as `yolo` does; return the other words."""
        rest = []
        for word in words:
            key, sign, _ = word.partition("=")
            if sign and key.replace(".", "").replace("_", "").isalnum() and not Path(word).exists():
                self.sets.append(word if "." in key else f"{section}.{word}")
            else:
                rest.append(word)
        self._resolved = None
        return rest


class Context(typer.Context):
    """The object that typer passes to a command with a parameter of this type."""

    @property
    def session(self) -> Session:
        session: Session = self.obj
        return session


class Group(TyperGroup):
    """A group of commands, with examples in its help."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from fashionrec.cli.help_text import write_examples

        write_examples(ctx, formatter)


class Command(TyperCommand):
    """A command that takes the shared options, opens the session, and prints known errors."""

    context_class = Context

    def __init__(self, name: str | None, *, params: Sequence[Any] = (), **options: Any) -> None:
        super().__init__(name, params=[*params, *shared_options()], **options)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        from fashionrec.cli.help_text import usage_arguments

        return ["[OPTIONS]", *usage_arguments(self, ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from fashionrec.cli.help_text import write_parameters

        write_parameters(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from fashionrec.cli.help_text import write_examples

        write_examples(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        config, sets, *switches = (ctx.params.pop(option.name) for option in shared_options())
        json, quiet, debug = switches
        ctx.obj = Session(config or (), sets or (), Output(json=json, quiet=quiet, debug=debug))
        with _ErrorHandler(ctx.obj.out), following_links():
            return super().invoke(ctx)


#: Errors of the disk that no program can avoid.
_DISK_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG, errno.EIO}


class _ErrorHandler:
    """Print known errors as one line and a hint.

    Interrupts exit with 130; anything else is reported as a bug, with ``--debug`` for its
    traceback.
    """

    def __init__(self, out: Output) -> None:
        self.out = out

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, (typer.Exit, SystemExit)):
            return
        if isinstance(error, BrokenPipeError):  # `| head` is not an error
            discard_output(sys.stdout.fileno())
            raise typer.Exit(0) from None
        if isinstance(error, KeyboardInterrupt):
            fail("interrupted")
            raise typer.Exit(130) from None
        trace = ""
        if self.out.debug:
            import traceback

            trace = "".join(traceback.format_exception(error))
        if isinstance(error, FashionrecError):
            fail(str(error), error.hint, error.shown, trace)
            raise typer.Exit(error.exit_code) from None
        if isinstance(error, UnicodeEncodeError) and encodable(error.object) != error.object:
            fail(
                f"{error.object[:200]!r} is not UTF-8, which a library requires here",
                "rename the file or folder",
                trace=trace,
            )
            raise typer.Exit(1) from None
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS and isinstance(error.filename, str):
            fail(f"{error.filename}: {error.strerror}", "the system refused it; --debug shows where", trace=trace)
            raise typer.Exit(1) from None
        if isinstance(error, Exception) and type(error).__module__.split(".")[0] not in ("typer", "click"):
            message = " ".join(str(error).split())[:300]
            fail(f"{type(error).__name__}: {message}", "this is a bug; --debug shows where", trace=trace)
            raise typer.Exit(1) from None


def require(options: Mapping[str, object], *, hint: str) -> None:
    """Raise :class:`UsageError` if one of the options, by name, has no value."""
    if missing := [name for name, value in options.items() if not value]:
        raise UsageError(f"Missing: {' and '.join(missing)}", hint=hint)


def one_or_none(words: Sequence[str], what: str) -> str | None:
    """Return the only word left after ``key=value`` words, or None.

    Raises :class:`ConfigError` if there are more.
    """
    if len(words) > 1:
        raise ConfigError(f"unexpected argument {words[1]!r}", hint=f"expected {what}, then key=value settings")
    return words[0] if words else None
