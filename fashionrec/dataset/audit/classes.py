"""Counts of photos and boxes per class and split, and the findings they lead to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fashionrec.common.text import plural
from fashionrec.dataset.audit.findings import Finding
from fashionrec.dataset.audit.inspect import Inspected
from fashionrec.dataset.audit.listing import Listing


def count(listing: Listing, inspected: Sequence[Inspected]) -> dict[str, dict[str, Any]]:
    """Return photo and box counts, in total and per class, of each split and of ``all``.

    ``all`` counts a photo of two splits once.
    """
    own_rows = [(entry.split, n) for n, entry in enumerate(listing.entries)]
    table = {}
    for split in (*listing.splits, "all"):
        rows = own_rows if split == "all" else [row for row in (*own_rows, *listing.shared) if row[0] == split]
        photos = [inspected[n] for _, n in rows]
        images: Counter[int] = Counter()
        boxes: Counter[int] = Counter()
        for photo in photos:
            images.update({box.class_id for box in photo.boxes})
            boxes.update(box.class_id for box in photo.boxes)
        table[split] = {
            "images": len(photos),
            "backgrounds": sum(1 for photo in photos if photo.size and not photo.boxes),
            "unreadable": sum(1 for photo in photos if photo.size is None),
            "boxes": sum(boxes.values()),
            "classes": {
                name: {"images": images[number], "boxes": boxes[number]}
                for number, name in sorted(listing.names.items())
            },
        }
    return table


def check_classes(
    table: Mapping[str, Mapping[str, Any]], names: Mapping[int, str], min_images: int, max_imbalance: float
) -> Iterator[Finding]:
    """Yield findings on classes with too few photos, out of balance, or missing from a split."""
    images = {name: table["all"]["classes"][name]["images"] for _, name in sorted(names.items())}
    for name, number in images.items():
        if number < min_images:
            text = f"{name}: {plural(number, 'photo')}, {min_images - number:,} fewer than {min_images:,}"
            yield Finding("few-images", text, numbers={"class": name, "images": number, "missing": min_images - number})
    if images and max(images.values()) > max_imbalance * min(images.values()):
        common, rare = max(images, key=lambda name: images[name]), min(images, key=lambda name: images[name])
        figures = {"most": common, "least": rare, "images_most": images[common], "images_least": images[rare]}
        text = f"{common} is in {plural(images[common], 'photo')}, {rare} in {images[rare]:,}"
        if images[rare]:
            text += f" (ratio {images[common] / images[rare]:.1f})"
        yield Finding("imbalance", text, numbers=figures)
    for split, counts in table.items():
        if split == "all" or not counts["boxes"]:
            continue
        for name, number in images.items():
            if number and not counts["classes"][name]["images"]:
                yield Finding("class-not-in-split", f"{split} has no {name}", split, numbers={"class": name})
