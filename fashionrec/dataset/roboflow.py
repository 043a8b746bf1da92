"""Data from Roboflow, through the roboflow package. The key comes from ROBOFLOW_API_KEY, at the moment of use."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fashionrec.errors import DataError, FashionrecError
from fashionrec.extras import load

KEY = "ROBOFLOW_API_KEY"


def parse_version(text: str) -> tuple[str, str, int]:
    """``WORKSPACE/PROJECT/VERSION`` in its parts. Raises :class:`DataError`."""
    parts = text.strip("/").split("/")
    if len(parts) != 3 or not all(parts) or not parts[2].isdigit():
        raise DataError(f"{text!r} is not WORKSPACE/PROJECT/VERSION", hint="as in roboflow:my-team/garments/3")
    return parts[0], parts[1], int(parts[2])


@contextmanager
def downloaded(version: str, near: Path) -> Iterator[Path]:
    """A version in YOLOv8 format, in a folder beside ``near`` that is gone afterwards.

    Raises :class:`DataError` for a missing or wrong key, or an unknown version; the key is in no message.
    """
    workspace, project, number = parse_version(version)
    key = os.environ.get(KEY)
    if not key:
        raise DataError(
            f"Roboflow needs a key, and {KEY} is not set", hint=f"export {KEY}=... (roboflow.com, settings, API keys)"
        )
    roboflow = load("roboflow", what="fetching from Roboflow", packages=("roboflow",))
    near.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".roboflow-", dir=near) as folder:
        target = Path(folder) / "version"
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # the package prints its progress on stdout
                client = roboflow.Roboflow(api_key=key)
                client.workspace(workspace).project(project).version(number).download("yolov8", location=str(target))
        except FashionrecError:
            raise
        except (Exception, SystemExit) as error:  # the package raises RuntimeError, its own and requests' errors
            reason = " ".join(str(error).split())[:200].replace(key, "***")
            raise DataError(
                f"Roboflow did not give {version}: {reason or type(error).__name__}",
                hint=f"check the version's name, {KEY}, and the network",
            ) from None
        if not (target / "data.yaml").is_file():
            raise DataError(f"what Roboflow gave for {version} holds no data.yaml", hint="try again")
        yield target
