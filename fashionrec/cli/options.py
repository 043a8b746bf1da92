"""Options and arguments that several commands have; those of one command stand above it."""

from typing import Annotated

import typer

CatalogueArgument = Annotated[str | None, typer.Argument(metavar="CATALOGUE", help="The catalogue's folder.")]
CatalogueOption = Annotated[str | None, typer.Option("--index", help="The catalogue's folder.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name.")]
Why = Annotated[str, typer.Option(help="The reason, kept in run.json.")]

# which index a catalogue gets
IndexType = Annotated[
    str | None, typer.Option("--index-type", help="auto (what the limits allow), flat (exact), ivf or hnsw.")
]
MaxMemory = Annotated[int | None, typer.Option("--max-memory", min=1, help="MiB that searching may keep in memory.")]
MaxLatency = Annotated[float | None, typer.Option("--max-latency-ms", help="Milliseconds that a query may take.")]

# trainings and evaluations
TrainingWords = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, as with `yolo`.")]
Split = Annotated[str | None, typer.Option(help="train, valid or test.")]
Epochs = Annotated[int | None, typer.Option(min=1)]
ImageSize = Annotated[int | None, typer.Option(min=32)]
#: The one way to load a pickle that may run code: for one command, of one file that stands on its line.
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Run what is in the .pt named here: only if you know who made it.")
]
