"""Readers: each turns one format into a :class:`~fashionrec.dataset.source.Source`. This file says which there are."""

from __future__ import annotations

import importlib
from pathlib import Path

from fashionrec.common.text import shell_word
from fashionrec.dataset.source import Source
from fashionrec.errors import DataError

#: Every kind of source, as it stands before the colon in ``kind:PATH``.
KINDS = ("synthetic", "yolo", "coco", "voc", "folder", "feed", "roboflow")
#: Those that lie in a folder or an archive of the user's own.
LOCAL = ("yolo", "coco", "voc", "folder")

_EXAMPLES = "synthetic, yolo:PATH, coco:PATH, voc:PATH, folder:PATH, feed:FILE, or roboflow:WORKSPACE/PROJECT/VERSION"


def split_spec(spec: str) -> tuple[str, str]:
    """``coco:PATH`` as (``coco``, ``PATH``); ``synthetic`` has nothing after it. Raises :class:`DataError`."""
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        found = looks_like(Path(spec)) if spec and Path(spec).exists() else None
        raise DataError(f"no source is called {spec!r}", hint=shell_word(f"{found}:{spec}") if found else _EXAMPLES)
    if (kind == "synthetic") == bool(rest):
        raise DataError(
            f"{spec!r} names no source", hint=f"{kind}:..." if kind != "synthetic" else "synthetic has nothing after it"
        )
    return kind, rest


def read_local(kind: str, where: Path, label: str, *, follow_links: bool | None = None) -> Source:
    """Read a source of one of the kinds of :data:`LOCAL`. ``label`` is what the dataset will say of its origin.

    ``follow_links`` says whether links in it, and names that lead out of it, are followed: False for what was unpacked; None
    is as the running command has it.

    ``where`` is a folder (or the one file that describes it: a data.yaml, an instances JSON). Raises :class:`DataError`, with
    the format that it looks like where it is another.
    """
    if not where.exists():
        raise DataError(f"there is nothing at {where}", hint="check the path")
    reader = importlib.import_module(f"fashionrec.dataset.sources.{kind}")
    try:
        options = {} if follow_links is None else {"follow_links": follow_links}
        source: Source = reader.read(where, label, **options)
    except DataError as error:
        found = looks_like(where)
        if found in (None, kind, "folder"):
            raise
        raise DataError(str(error), hint=f"this looks like {found.upper()}: {shell_word(f'{found}:{where}')}") from None
    return source


def looks_like(where: Path) -> str | None:
    """The format that a folder or file seems to have, by a short look: ``yolo``, ``coco``, ``voc``, ``folder`` or None."""
    from fashionrec.dataset.sources.layout import guess

    return guess(where)
