"""Things that other people put into folders: pickles, data sets and settings that would run code.
Nothing here is a test.

Whatever is planted names ``CANARY``; where it ran, a file of that name lies in the folder.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

CANARY = "CANARY_7f3a"


class Ran:
    """A pickle of it leaves a file where it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (str(self.folder / f"{CANARY}-{os.urandom(4).hex()}"), 0o777, True)


def ran(folder: Path) -> list[str]:
    """Return what of the planted code ran."""
    return [path.name for path in folder.iterdir() if path.name.startswith(CANARY)]


def object_array(folder: Path) -> bytes:
    """A ``.npy`` that numpy unpickles, as ultralytics' ``labels.cache`` is."""
    out = io.BytesIO()
    np.save(out, np.array({"labels": Ran(folder)}, dtype=object), allow_pickle=True)
    return out.getvalue()


def archive(path: Path, data: bytes) -> Path:
    """An archive of torch's form with a pickle of one's own making."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return path


def raw_pickle(path: Path, folder: Path, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(Ran(folder), protocol=protocol))
    return path


def python_code(folder: Path) -> str:
    return f"__import__('os').mkdir({str(folder / CANARY)!r})"


def planted_dataset(data_yaml: Path, folder: Path) -> None:
    """Plant in a dataset what ultralytics would run:

    ``download:``, ``labels.cache`` and ``.npy`` files beside the photos.
    """
    text = data_yaml.read_text(encoding="utf-8")
    data_yaml.write_text(f"{text}\ndownload: |\n  {python_code(folder)}\n", encoding="utf-8")
    for place in [data_yaml.parent, *data_yaml.parent.iterdir()]:
        if place.is_dir():
            for name in ("labels.cache", "images.cache"):
                (place / name).write_bytes(object_array(folder))
    for photo in [*data_yaml.parent.rglob("*.png")]:
        photo.with_suffix(".npy").write_bytes(object_array(folder))
