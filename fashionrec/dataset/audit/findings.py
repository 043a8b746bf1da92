"""Findings: every kind that an audit knows, its severity, and advice on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fashionrec.config import nearest
from fashionrec.errors import ConfigError


class Kind(NamedTuple):
    """A kind of finding.

    ``severity``: error (training misreads it), warning (probably wrong), note.
    """

    severity: str
    title: str
    advice: str


#: The kinds of findings by severity: title and advice of each.
_BY_SEVERITY: dict[str, dict[str, tuple[str, str]]] = {
    "error": {
        "missing-split": (
            "A split is missing",
            "Add it to data.yaml and create its folder; train and val are required.",
        ),
        "empty-split": ("A split has no photos", "Fill it, or prepare the dataset again with fetch-dataset."),
        "missing-image": ("A listed photo is missing", "Restore the file, or remove it from the list."),
        "link": ("A symbolic link", "It is not followed: copy the file here, or set dataset.follow_links=true."),
        "outside-dataset": (
            "A path that leads out of the dataset",
            "It is not read: use paths inside the dataset's folder.",
        ),
        "special-file": ("A pipe, socket or device", "Remove it: it is never read."),
        "empty-file": ("A photo's file is empty", "Download it again, or remove it and its labels."),
        "not-an-image": ("A file is not an image, despite its name", "Download it again, or remove it."),
        "truncated": ("A photo is damaged", "Download it again; the part that decodes is not what was labelled."),
        "too-large-image": ("A photo exceeds the limits", "Scale it down, or raise images.max_pixels/max_bytes."),
        "unreadable-image": ("A photo cannot be read", "Check its permissions, or download it again."),
        "name-collision": ("Two photos share one label file", "Rename one: x.jpg and x.png both read labels/x.txt."),
        "misplaced-label": (
            "Labels are in a folder that training does not read",
            "Move the file to the labels folder.",
        ),
        "label-encoding": ("A label file is not text", "Save it as plain UTF-8."),
        "broken-label-line": ("A malformed label line", "Write: class x_center y_center width height."),
        "wrong-field-count": ("A line with the wrong number of fields", "A box has five, a polygon 1 + 2 n."),
        "not-a-number": ("A field that is not a number", "Classes are ids, with a point for decimals."),
        "not-finite": ("A field that is nan or infinite", "Draw this box again."),
        "negative-class": ("A class below 0", "Use one of the ids in data.yaml."),
        "fractional-class": ("A class that is not a whole number", "Use one of the ids in data.yaml."),
        "unknown-class": ("A class that data.yaml does not name", "Name it in data.yaml, or change its id."),
        "too-many-boxes": ("A label file that is far too large", "Check its content; none of it is read."),
        "pixel-coordinates": ("A box in pixels", "Divide by the photo's width and height."),
        "box-of-no-area": ("A box without area", "Remove it."),
        "box-off-picture": ("A box entirely outside its photo", "Remove it, or check if it belongs to another photo."),
        "same-file-across-splits": ("One file in two splits", "Splits must not share a folder or a listed file."),
        "exact-duplicate-across-splits": (
            "The same file in two splits",
            "A detector that is measured on its training photos looks better than it is.",
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
            "The classes differ from ours, or are in another order",
            "fetch-dataset yolo:DATA --map theirs=ours renumbers them.",
        ),
        "class-count": ("nc and names disagree", "Make nc the number of names in data.yaml."),
        "few-images": ("A class has few photos", "Collect more photos of it; audit.min_images sets the minimum."),
        "imbalance": ("Classes are out of balance", "Collect more of the rare class first."),
        "class-not-in-split": (
            "A class is not in every split",
            "Split again, stratified: fetch-dataset with dataset.split=ratios.",
        ),
        "unread-format": ("A photo in an unsupported format", "Save it as JPEG; training skips it."),
        "exif-turned": (
            "A photo is stored rotated",
            "Set dataset.exif_boxes to the orientation of its boxes, and fetch it again.",
        ),
        "tiny-picture": ("A very small picture", "Find a larger copy; audit.min_pixels sets the limit."),
        "flat-picture": ("A picture of one colour", "Remove it: there is nothing in it to learn from."),
        "listed-twice": ("A photo is listed twice", "Remove one line from the list."),
        "no-label-file": (
            "A photo without a label file",
            "Label it, or give it an empty label file if it is background.",
        ),
        "orphan-label": ("A label file without a photo", "Restore the photo, or remove the label file."),
        "box-outside": ("A box extends beyond its photo", "Clip it; fetch-dataset does (dataset.outside)."),
        "repeated-box": ("The same box twice", "Remove one; fetch-dataset does."),
        "double-box": ("Two boxes of one class on one garment", "Keep the better one."),
        "two-classes-one-box": ("One garment, two classes", "Decide which it is."),
        "tiny-box": ("A tiny box", "Check if it was drawn by accident; audit.tiny sets the limit."),
        "whole-picture-box": (
            "A box around the whole photo",
            "Draw it around the garment; audit.whole sets the limit.",
        ),
        "extreme-aspect": (
            "A very long or flat box",
            "Check if it was drawn by accident; audit.max_aspect sets the limit.",
        ),
        "exact-duplicate": ("The same file twice", "Remove one."),
        "missing-label": ("The detector finds a garment without a label", "Label it if it is a garment."),
        "class-disagreement": ("The detector predicts another class", "Check which of the two is right."),
        "unseen-label": ("A label that the detector does not find", "Check if there is a garment."),
    },
    "note": {
        "no-test-split": (
            "There is no test split",
            "Hold out photos for a final measurement that no decision is based on.",
        ),
        "wrong-suffix": ("A photo's suffix names another format", "Rename it; some tools trust the name."),
        "not-rgb": ("A photo is not 8-bit RGB", "fetch-dataset converts any mode to RGB."),
        "empty-label": ("A photo without any box", "Fine for background; label it if it shows a garment."),
        "polygon": ("A polygon instead of a box", "Its bounding box counts; fetch-dataset writes it."),
        "same-name-across-splits": ("One name in two splits", "The photos seem to differ; check once."),
        "near-duplicate": (
            "Nearly the same picture",
            "The second adds little; dataset.near_duplicates sets the limit.",
        ),
    },
}
KINDS = {kind: Kind(severity, *words) for severity, kinds in _BY_SEVERITY.items() for kind, words in kinds.items()}


class Mark(NamedTuple):
    """A box to draw into the ``image``-th photo of a finding, as fractions of the upright photo."""

    image: int
    name: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Finding:
    """A finding.

    ``images`` are paths relative to the dataset, ``box`` is a box's number in its photo (from 0).

    ``line`` counts lines of the label file from 1. ``numbers`` are the figures in the text.
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
    """Return the names as a set. Raises :class:`ConfigError` for an unknown kind of finding."""
    for name in names:
        if name not in KINDS:
            raise ConfigError(f"{where}: unknown kind of finding {name!r}", hint=nearest(name, KINDS))
    return frozenset(names)
