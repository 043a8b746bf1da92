"""Operations on many boxes."""

from __future__ import annotations

import numpy as np


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of every box of ``a`` [n, 4] with every box of ``b`` [m, 4], both xyxy.

    Returns float [n, m], 0 if both boxes are empty. The arithmetic is that of
    :meth:`fashionrec.types.Box.iou`. Two other versions are necessary, since each would round a box
    on a threshold differently: COCO's own steps, and those of the served NMS, in float32.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    union = area_a[:, None] + area_b[None, :] - inter
    return np.asarray(inter / np.where(union > 0, union, 1))
