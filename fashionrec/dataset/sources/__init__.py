"""Dataset sources: one reader per format, each of which returns a ``dataset.source.Source``."""

from __future__ import annotations

import importlib
from pathlib import Path

from fashionrec.common.text import shell_word
from fashionrec.dataset.source import Source
from fashionrec.errors import DataError

#: All kinds of source: the word before the colon in ``kind:PATH``.
KINDS = ("synthetic", "yolo", "coco", "voc", "folder", "feed", "roboflow")
#: The kinds that are read from a local folder or archive.
LOCAL = ("yolo", "coco", "voc", "folder")

_EXAMPLES = "synthetic, yolo:PATH, coco:PATH, voc:PATH, folder:PATH, feed:FILE, or roboflow:WORKSPACE/PROJECT/VERSION"


def split_spec(spec: str) -> tuple[str, str]:
    """Split ``coco:PATH`` into (``coco``, ``PATH``); ``synthetic`` has no second part.

    Raises:
        DataError: The kind is unknown, or its second part is missing.
    """
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        guessed = looks_like(Path(spec)) if spec and Path(spec).exists() else None
        raise DataError(f"unknown source {spec!r}", hint=shell_word(f"{guessed}:{spec}") if guessed else _EXAMPLES)
    if (kind == "synthetic") == bool(rest):
        raise DataError(
            f"invalid source {spec!r}", hint=f"{kind}:..." if kind != "synthetic" else "synthetic takes no path"
        )
    return kind, rest


def read_local(kind: str, where: Path, label: str, *, follow_links: bool | None = None) -> Source:
    """Read a source of one of the kinds in :data:`LOCAL`.

    Args:
        kind: One of :data:`LOCAL`.
        where: A folder, or the file that describes it (a data.yaml, an instances JSON).
        label: The origin that is recorded in the dataset.
        follow_links: Whether to follow links, and names that point outside the source; False for
            unpacked archives, None for the setting of the running command.

    Raises:
        DataError: The source cannot be read. The hint names the format that it looks like, if that
            is a different one.
    """
    if not where.exists():
        raise DataError(f"no such file or folder: {where}", hint="check the path")
    reader = importlib.import_module(f"fashionrec.dataset.sources.{kind}")
    try:
        options = {} if follow_links is None else {"follow_links": follow_links}
        source: Source = reader.read(where, label, **options)
    except DataError as error:
        guessed = looks_like(where)
        if guessed in (None, kind, "folder"):
            raise
        raise DataError(
            str(error), hint=f"this looks like {guessed.upper()}: {shell_word(f'{guessed}:{where}')}"
        ) from None
    return source


def looks_like(where: Path) -> str | None:
    """Guess the format of a folder or file: ``yolo``, ``coco``, ``voc``, ``folder`` or None.

    Reads only the beginnings of a few files.
    """
    from fashionrec.dataset.sources.layout import guess

    return guess(where)
