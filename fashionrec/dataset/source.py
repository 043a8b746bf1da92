"""The output of every reader: photos and their raw labels, with nothing decoded or decided yet.

A reader converts one format to a :class:`Source`; :mod:`fashionrec.dataset.prepare.prepare` does
everything that follows, in the same way for all of them. A reader is a function
``read(where, ...) -> Source`` in :mod:`fashionrec.dataset.sources`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class RawBox(NamedTuple):
    """A box as its source has it, before any rule is applied.

    Its corners are in pixels of the picture, or (``relative``) fractions of its size. ``label`` is
    the source's own name for the class; an id without a name is ``#7``. Corners may lie outside the
    picture, be reversed, or enclose nothing: settings decide how such a box is handled.
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

    ``key`` is unique within the source and the same on every machine (a relative path with ``/``).
    ``labelled`` is False if a source with labels has none for this photo. ``group`` names photos
    that must stay in one split (a product, or the original of augmented copies). ``size`` is the
    width and height in pixels that the labels refer to, if the source states it. ``problems`` are
    the malformed lines of its label file, one text each.
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
    """All photos of one source. ``label`` names it in the dataset, without local paths.

    ``has_labels`` is False for photos alone, which go into ``unlabelled/``. ``names`` are the class
    names that the source declares, in its order. ``already`` lists what was done to the pixels
    before (``resize``, ``equalize``, ``augment``), which is then not repeated. ``products`` are
    rows of product columns by image key. ``failed`` are unavailable photos, each with ``key``,
    ``reason`` and details.
    """

    label: str
    images: tuple[SourceImage, ...]
    has_labels: bool = True
    names: tuple[str, ...] = ()
    already: Mapping[str, Any] = field(default_factory=dict)
    products: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
