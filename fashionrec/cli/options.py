"""Options and arguments shared by several commands."""

from typing import Annotated

import typer

CatalogueArgument = Annotated[str | None, typer.Argument(metavar="CATALOGUE", help="Catalogue folder.")]
CatalogueOption = Annotated[str | None, typer.Option("--index", help="Catalogue folder.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or its name.")]
Why = Annotated[str, typer.Option(help="Reason, recorded in run.json.")]

# choice of the index
IndexType = Annotated[
    str | None,
    typer.Option("--index-type", help="Index type: auto (chosen by measurement), flat (exact), ivf or hnsw."),
]
MaxMemory = Annotated[int | None, typer.Option("--max-memory", min=1, help="Memory limit for searching, in MiB.")]
MaxLatency = Annotated[float | None, typer.Option("--max-latency-ms", help="Time limit for a query, in milliseconds.")]

# training and evaluation
TrainingWords = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings as key=value, as with `yolo`.")
]
Split = Annotated[str | None, typer.Option(help="train, valid or test.")]
Epochs = Annotated[int | None, typer.Option(min=1)]
ImageSize = Annotated[int | None, typer.Option(min=32)]
#: The only way to load a pickle that may run code: for one command, and one file named on its line.
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Execute code in the named .pt file: only if you trust its author.")
]
