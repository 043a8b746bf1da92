"""The root of the command line: it only mounts commands."""

from __future__ import annotations

from typing import Annotated

import typer

from fashionrec import __version__
from fashionrec.cli import (
    captions,
    catalogue,
    comparing,
    data,
    dataset,
    demo,
    evaluating,
    exporting,
    index,
    project,
    query,
    runs,
    training,
)

app = typer.Typer(
    name="fashionrec",
    help="Image-based fashion search: find the garments in a photo, and what in a catalogue looks like them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fashionrec {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


for family in (
    data,
    dataset,
    training,
    runs,
    evaluating,
    comparing,
    exporting,
    index,
    catalogue,
    captions,
    query,
    demo,
    project,
):
    family.mount(app)
