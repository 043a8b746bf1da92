"""Findings: every kind that an audit knows, how bad it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fashionrec.config import nearest
from fashionrec.errors import ConfigError


class Kind(NamedTuple):
    """``severity``: error (training loses or misreads it), warning (probably wrong), note (worth knowing)."""

    severity: str
    title: str
    advice: str


#: What an audit can find, by how bad it is: title and advice of each kind.
_BY_SEVERITY: dict[str, dict[str, tuple[str, str]]] = {
    "error": {
        "missing-split": (
            "A split is missing",
            "Name it in data.yaml and put the folder there; train and val are needed.",
        ),
        "empty-split": ("A split has no photos", "Fill it, or prepare the dataset again with fetch-dataset."),
        "missing-image": ("A listed photo is not there", "Restore the file, or take it off the list."),
        "link": ("A link", "It is not read: copy the file here, or trust it with dataset.follow_links=true."),
        "outside-dataset": (
            "A name that leads out of the dataset",
            "It is not read: name what lies in the dataset's own folder.",
        ),
        "special-file": ("A pipe, socket or device", "Remove it: it is never read."),
        "empty-file": ("A photo's file is empty", "Fetch it again, or remove it and its labels."),
        "not-an-image": ("A file is no picture, whatever its name says", "Fetch it again, or remove it."),
        "truncated": ("A photo is damaged", "Fetch it again; what decodes of it is not what was labelled."),
        "too-large-image": ("A photo is over the limits", "Scale it down, or raise images.max_pixels/max_bytes."),
        "unreadable-image": ("A photo cannot be read", "Look at its permissions, or fetch it again."),
        "name-collision": ("Two photos share one label file", "Rename one: x.jpg and x.png both read labels/x.txt."),
        "misplaced-label": ("Labels lie where training does not look", "Move the file to the labels folder."),
        "label-encoding": ("A label file is no text", "Write it again as plain UTF-8."),
        "broken-label-line": ("A line that is no label", "Write: class x_center y_center width height."),
        "wrong-field-count": ("A line with the wrong number of fields", "A box has five, a polygon 1 + 2 n."),
        "not-a-number": ("A field that is no number", "Classes are ids, with a point for decimals."),
        "not-finite": ("A field that is nan or infinite", "Draw this box again."),
        "negative-class": ("A class below 0", "Give it one of the ids in data.yaml."),
        "fractional-class": ("A class that is no whole number", "Give it one of the ids in data.yaml."),
        "unknown-class": ("A class that data.yaml does not name", "Name it in data.yaml, or change its id."),
        "too-many-boxes": ("A label file that is far too large", "Look what it holds; none of it is read."),
        "pixel-coordinates": ("A box in pixels", "Divide by the photo's width and height."),
        "box-of-no-area": ("A box of no area", "Remove it."),
        "box-off-picture": ("A box wholly outside its photo", "Remove it, or look whether it is another photo's."),
        "same-file-across-splits": ("One file in two splits", "Splits must not share a folder or a list's line."),
        "exact-duplicate-across-splits": (
            "The same file in two splits",
            "Measured on a photo it was trained on, a detector looks better than it is.",
        ),
        "near-duplicate-across-splits": (
            "Nearly the same picture in two splits",
            "Split again with fetch-dataset, which keeps them together.",
        ),
        "copies-across-splits": (
            "Copies of one photo in two splits",
            "Split again with fetch-dataset, which keeps .rf. copies together.",
        ),
        "different-labels": ("One photo, two sets of labels", "Keep the right one."),
    },
    "warning": {
        "class-names": (
            "The classes are not ours, in our order",
            "fetch-dataset yolo:DATA --map theirs=ours renumbers them.",
        ),
        "class-count": ("nc and names disagree", "Make nc the number of names in data.yaml."),
        "few-images": ("A class has few photos", "Collect more photos of it; audit.min_images sets how many."),
        "imbalance": ("Classes are out of balance", "Collect more of the rare class first."),
        "class-not-in-split": (
            "A class is not in every split",
            "Split again, stratified: fetch-dataset with dataset.split=ratios.",
        ),
        "unread-format": ("A photo of a format that is not read", "Save it as JPEG; training passes it over."),
        "exif-turned": (
            "A photo is stored turned",
            "Say what its boxes are for with dataset.exif_boxes, and fetch it anew.",
        ),
        "tiny-picture": ("A very small picture", "Find a larger copy; audit.min_pixels sets the limit."),
        "flat-picture": ("A picture of one colour", "Remove it: there is nothing in it to learn from."),
        "listed-twice": ("A photo is listed twice", "Take one line off the list."),
        "no-label-file": (
            "A photo without a label file",
            "Label it, or give it an empty label file if it is background.",
        ),
        "orphan-label": ("A label file without a photo", "Restore the photo, or remove the label file."),
        "box-outside": ("A box reaches beyond its photo", "Clip it; fetch-dataset does (dataset.outside)."),
        "repeated-box": ("The same box twice", "Remove one; fetch-dataset does."),
        "double-box": ("Two boxes of one class on one garment", "Keep the better one."),
        "two-classes-one-box": ("One garment, two classes", "Decide which it is."),
        "tiny-box": ("A tiny box", "Look whether it slipped; audit.tiny sets the limit."),
        "whole-picture-box": ("A box around everything", "Draw it around the garment; audit.whole sets the limit."),
        "extreme-aspect": ("A very long or flat box", "Look whether it slipped; audit.max_aspect sets the limit."),
        "exact-duplicate": ("The same file twice", "Remove one."),
        "missing-label": ("The detector sees a garment that has no label", "Label it, if it is one."),
        "class-disagreement": ("The detector says another class", "Look which of the two is right."),
        "unseen-label": ("A label that the detector does not see", "Look whether there is a garment."),
    },
    "note": {
        "no-test-split": ("There is no test split", "Hold photos out to measure on that no choice was made by."),
        "wrong-suffix": ("A photo's suffix names another format", "Rename it; some tools trust the name."),
        "not-rgb": ("A photo is not 8-bit RGB", "fetch-dataset turns any mode to RGB."),
        "empty-label": ("A photo without any box", "Fine for background; label it if it shows a garment."),
        "polygon": ("A polygon instead of a box", "Its bounding box counts; fetch-dataset writes it."),
        "same-name-across-splits": ("One name in two splits", "Different photos, it seems; look once."),
        "near-duplicate": ("Nearly the same picture", "Of little use beside each other; dataset.near_duplicates."),
    },
}
KINDS = {kind: Kind(severity, *words) for severity, kinds in _BY_SEVERITY.items() for kind, words in kinds.items()}


class Mark(NamedTuple):
    """A box to draw into the ``image``-th photo of a finding, in shares of the upright photo."""

    image: int
    name: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Finding:
    """One thing that was found. ``images`` are paths relative to the dataset, ``box`` is a box's number in its photo (from 0).

    ``line`` counts lines of the label file from 1. ``numbers`` are what the text speaks of.
    """

    kind: str
    text: str
    split: str | None = None
    images: tuple[str, ...] = ()
    box: int | None = None
    line: int | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()

    @property
    def severity(self) -> str:
        return KINDS[self.kind].severity

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "severity": self.severity,
            "split": self.split,
            "images": list(self.images),
            "box": self.box,
            "line": self.line,
            "numbers": dict(self.numbers),
            "text": self.text,
        }


def check_kinds(names: Iterable[str], where: str) -> frozenset[str]:
    """The names as a set. Raises :class:`ConfigError` for one that is no kind of finding."""
    for name in names:
        if name not in KINDS:
            raise ConfigError(f"{where}: no finding is called {name!r}", hint=nearest(name, KINDS))
    return frozenset(names)
