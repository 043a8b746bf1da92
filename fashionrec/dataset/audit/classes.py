"""Photos and boxes of each class and split, and what they say of the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fashionrec.dataset.audit.findings import Finding
from fashionrec.dataset.audit.inspect import Inspected
from fashionrec.dataset.audit.listing import Listing


def count(listing: Listing, seen: Sequence[Inspected]) -> dict[str, dict[str, Any]]:
    """For each split, and for ``all`` (a photo of two splits once): how many photos and boxes, in all and of each class."""
    own = [(entry.split, n) for n, entry in enumerate(listing.entries)]
    table = {}
    for split in (*listing.splits, "all"):
        rows = own if split == "all" else [row for row in (*own, *listing.shared) if row[0] == split]
        photos = [seen[n] for _, n in rows]
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
    """Classes with too few photos, out of balance, or absent from a split that others are in."""
    images = {name: table["all"]["classes"][name]["images"] for _, name in sorted(names.items())}
    for name, number in images.items():
        if number < min_images:
            text = f"{name}: {number} photos, {min_images - number} fewer than {min_images}"
            yield Finding("few-images", text, numbers={"class": name, "images": number, "missing": min_images - number})
    if images and max(images.values()) > max_imbalance * min(images.values()):
        most, least = max(images, key=lambda name: images[name]), min(images, key=lambda name: images[name])
        figures = {"most": most, "least": least, "images_most": images[most], "images_least": images[least]}
        ratio = (
            f"{images[most] / images[least]:.1f} times as many" if images[least] else "and there is none of the latter"
        )
        text = f"{most} is in {images[most]} photos, {least} in {images[least]}, {ratio}"
        yield Finding("imbalance", text, numbers=figures)
    for split, counts in table.items():
        if split == "all" or not counts["boxes"]:
            continue
        for name, number in images.items():
            if number and not counts["classes"][name]["images"]:
                yield Finding("class-not-in-split", f"{split} has no {name}", split, numbers={"class": name})
