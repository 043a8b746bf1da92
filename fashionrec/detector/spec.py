"""What a bundle says of its detector, typed: read and checked once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fashionrec.models.manifest import check_spec
from fashionrec.photos.pixels import PixelSpec

Channels = tuple[float, float, float]


class DetectorSpec(NamedTuple):
    """How photos become a graph's input, and what its answer means.

    A photo is brought to ``imgsz`` pixels by ``resize`` (``letterbox``, the rest filled with the grey ``pad``; or ``stretch``),
    multiplied by ``scale`` and normalized by ``mean`` and ``std``, after what ``pixels`` says was done to the photos of its
    training. ``head`` names the decoder, ``anchors`` are EfficientDet's. ``batch`` is how many photos a call takes, 0 for
    any number; ``rectangular`` what the sides of an input that is no square are multiples of, 0 for squares alone.
    """

    imgsz: int
    resize: str
    pad: int
    scale: float
    head: str
    labels: dict[int, str]
    input: str
    mean: Channels | None
    std: Channels | None
    batch: int
    rectangular: int
    pixels: PixelSpec
    anchors: Mapping[str, Any] | None

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> DetectorSpec:
        """Read and check what a bundle says. Raises KeyError for what is missing, ValueError for what is wrong."""
        check_spec("detector", document)
        return cls(
            **{key: document[key] for key in ("imgsz", "resize", "pad", "head", "input")},
            scale=float(document["scale"]),
            labels={int(number): str(name) for number, name in document["labels"].items()},
            mean=_channels(document.get("mean")),
            std=_channels(document.get("std")),
            batch=document.get("batch") or 0,
            rectangular=document.get("rectangular") or 0,
            pixels=PixelSpec.from_dict(document.get("pixels")),
            anchors=document["anchors"] if document["head"] == "efficientdet" else None,
        )


def _channels(values: Any) -> Channels | None:
    if values is None:
        return None
    red, green, blue = (float(value) for value in values)
    return red, green, blue
