"""The root of the command line: only mounts commands."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer

from fashionrec import __version__
from fashionrec.cli.output import guard_streams
from fashionrec.cli.session import Group

#: Families of commands in the order of `--help`, with the commands of each.
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


class Root(Group):
    """The root command; prints usage errors through the guard, because they quote user input."""

    def main(self, *args: Any, **options: Any) -> Any:
        with guard_streams():
            return super().main(*args, **options)


def make_app(command: str | None = None) -> typer.Typer:
    """Create the command line; with a known ``command``, import only what it needs."""
    app = typer.Typer(
        name="fashionrec",
        cls=Root,
        help="Image-based fashion search: detect garments in photos and find similar products.",
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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
