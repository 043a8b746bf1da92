"""Options and arguments shared by several commands."""

from typing import Annotated

import typer

CatalogueArgument = Annotated[str | None, typer.Argument(metavar="CATALOGUE", help="Catalogue folder.")]
CatalogueOption = Annotated[str | None, typer.Option("--index", metavar="FOLDER", help="Catalogue folder.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a run.")]
Why = Annotated[str, typer.Option(metavar="TEXT", help="Reason, recorded in run.json.")]

# choice of the index
IndexType = Annotated[
    str | None,
    typer.Option("--index-type", metavar="TYPE", help="auto (chosen by measurement), flat (exact), ivf or hnsw."),
]
MaxMemory = Annotated[
    int | None, typer.Option("--max-memory", min=1, metavar="MIB", help="Memory limit for searching.")
]
MaxLatency = Annotated[float | None, typer.Option("--max-latency-ms", metavar="MS", help="Time limit for a query.")]

# training and evaluation
TrainingWords = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Settings, as with `yolo`: epochs=50.")
]
Split = Annotated[str | None, typer.Option(metavar="SPLIT", help="train, valid or test.")]
Epochs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Number of epochs.")]
ImageSize = Annotated[int | None, typer.Option(min=32, metavar="PIXELS", help="Long side of the images.")]
#: The only way to load a pickle that may run code: for one command, and one file named on its line.
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Execute code in the named .pt file: only if you trust its author.")
]
