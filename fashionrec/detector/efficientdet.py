"""EfficientDet's anchors, and its raw output as boxes.

Tan et al., arXiv 1911.09070; effdet's ``Anchors`` and ``decode_box_outputs``. The graph returns
``[anchors, 4 + classes]`` per photo: shift and scale of each anchor (y, x, height, width), and
scores after the sigmoid. Anchors are ordered by level, row, column, octave and aspect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: Logarithm of the largest scale of an anchor: no box in a photo needs more, and no exponent
#: overflows.
MOST = 8.0


def anchors_of(side: int, about: Mapping[str, Any]) -> np.ndarray:
    """Return float32 [anchors, 4]: x and y of the centre, width and height, in pixels of an input
    of that ``side``.

    ``about`` is the bundle's spec of anchors: ``min_level``, ``max_level``, ``num_scales``
    (octaves), ``aspect_ratios`` (pairs of width and height, or width over height) and
    ``anchor_scale`` (one, or one per level). Raises KeyError, TypeError or ValueError if it is
    invalid.
    """
    first, last, octaves = int(about["min_level"]), int(about["max_level"]), int(about["num_scales"])
    scales = about["anchor_scale"]
    per_level = list(scales) if isinstance(scales, (list, tuple)) else [scales] * (last - first + 1)
    cells, found = side, []
    for level in range(1, last + 1):
        cells = (cells - 1) // 2 + 1
        if level < first:
            continue
        stride = side / cells
        shapes = [
            np.array(_pair(aspect)) * float(per_level[level - first]) * stride * 2 ** (octave / octaves)
            for octave in range(octaves)
            for aspect in about["aspect_ratios"]
        ]
        middle = np.arange(stride / 2, side, stride)
        y, x = np.meshgrid(middle, middle, indexing="ij")
        centres = np.stack([x.ravel(), y.ravel()], axis=1)
        level_anchors = np.empty((len(centres), len(shapes), 4))
        level_anchors[..., :2], level_anchors[..., 2:] = centres[:, None], np.array(shapes)[None]
        found.append(level_anchors.reshape(-1, 4))
    return np.concatenate(found).astype(np.float32)


def placed_on(anchors: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Convert one photo's raw output to YOLO's form: float32 [4 + classes, anchors], boxes as
    centre and size in input pixels.
    """
    x, y, width, height = anchors.T
    move_y, move_x, tall, wide = output[:, :4].T
    boxes = [
        move_x * width + x,
        move_y * height + y,
        np.exp(np.minimum(wide, MOST)) * width,
        np.exp(np.minimum(tall, MOST)) * height,
    ]
    return np.concatenate([np.stack(boxes), output[:, 4:].T]).astype(np.float32, copy=False)


def _pair(aspect: Any) -> tuple[float, float]:
    if isinstance(aspect, (list, tuple)):
        width, height = aspect
        return float(width), float(height)
    return float(aspect) ** 0.5, float(aspect) ** -0.5
