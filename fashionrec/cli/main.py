"""The root of the command line: it only mounts commands."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fashionrec import __version__
from fashionrec.cli.output import guarded

#: The families of commands, in the order in which `--help` names them, and the commands of each.
FAMILIES: dict[str, tuple[str, ...]] = {
    "data": ("fetch-dataset",),
    "dataset": ("dataset",),
    "training": ("train", "finetune"),
    "runs": ("runs",),
    "evaluating": ("evaluate",),
    "comparing": ("compare",),
    "exporting": ("export",),
    "index": ("build-index",),
    "catalogue": ("catalogue",),
    "captions": ("caption",),
    "query": ("query",),
    "demo": ("demo",),
    "project": ("doctor", "config"),
}


class Root(TyperGroup):
    """The command line; usage errors, which quote what was typed, are printed through the guard like everything else."""

    def main(self, *args: Any, **options: Any) -> Any:
        with guarded():
            return super().main(*args, **options)


def make_app(command: str | None = None) -> typer.Typer:
    """The command line: with ``command``, only what that one needs is imported, where there is such a command."""
    app = typer.Typer(
        name="fashionrec",
        cls=Root,
        help="Image-based fashion search: find the garments in a photo, and what in a catalogue looks like them.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    for family in [name for name, commands in FAMILIES.items() if command in commands] or FAMILIES:
        importlib.import_module(f"fashionrec.cli.{family}").mount(app)
    return app


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fashionrec {__version__}")
        raise typer.Exit()


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass
