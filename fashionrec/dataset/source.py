"""What every source of data gives: photos, and what their source says of them. Nothing is decoded or decided here.

A reader turns one format into a :class:`Source`; :mod:`fashionrec.dataset.prepare.prepare` does everything that follows, the same
for all of them. A reader is a function ``read(where, ...) -> Source`` in :mod:`fashionrec.dataset.sources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class RawBox(NamedTuple):
    """A box as its source has it, before any rule: corners in pixels of the picture, or (``relative``) in shares of it.

    ``label`` is the source's own name for the class; an id without a name is ``#7``. Corners may lie outside the picture,
    be reversed, or enclose nothing: what becomes of such a box is a setting.
    """

    label: str
    x1: float
    y1: float
    x2: float
    y2: float
    relative: bool = False


@dataclass(frozen=True)
class SourceImage:
    """One photo of a source.

    ``key`` is unique within the source and the same on every machine (a relative path with ``/``). ``labelled`` is False where
    the source, though it has labels, has none for this photo. ``group`` names what must stay in one split (a product, or
    the photo that augmented copies were made from). ``size`` is the width and height in pixels that the source says its
    labels are for, where it says so. ``problems`` are lines of its label file that are no box, one text each.
    """

    key: str
    path: Path
    boxes: tuple[RawBox, ...] = ()
    labelled: bool = True
    split: str | None = None  # train | valid | test
    group: str | None = None
    size: tuple[int, int] | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """All that one source holds. ``label`` is what a dataset says of where it came from, without any machine's paths.

    ``has_labels`` is False for photos alone: they go into ``unlabelled/``. ``names`` are the class names that the source
    declares, in its order. ``already`` says what was done to the pixels before they came here (``resize``, ``equalize``,
    ``augment``), which is then not done again. ``products`` are rows of product columns by image key. ``failed`` are the
    photos that could not be had, each with ``key`` and ``reason`` and whatever else is known.
    """

    label: str
    images: tuple[SourceImage, ...]
    has_labels: bool = True
    names: tuple[str, ...] = ()
    already: Mapping[str, Any] = field(default_factory=dict)
    products: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
