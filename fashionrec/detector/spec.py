"""The typed spec of a detector in a bundle, parsed and validated once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fashionrec.models.manifest import check_spec
from fashionrec.photos.pixels import PixelSpec

Channels = tuple[float, float, float]


class DetectorSpec(NamedTuple):
    """Rules of how photos become a graph's input, and what its output means.

    A photo is resized to ``imgsz`` pixels by ``resize`` (``letterbox``, filled with the grey
    ``pad``; or ``stretch``), multiplied by ``scale`` and normalized by ``mean`` and ``std``, after
    the pixel operations ``pixels`` of the training data. ``head`` names the decoder, ``anchors``
    are EfficientDet's. ``batch`` is the number of photos per call, 0 for any; ``rectangular`` the
    multiple for the sides of rectangular inputs, 0 for squares only.
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
        """Parse and validate the spec of a bundle. Raises KeyError for missing, ValueError for
        invalid values.
        """
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
