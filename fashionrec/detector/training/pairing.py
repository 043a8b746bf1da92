"""Compare two outputs for one photo box by box, for heads whose boxes vary in number and order.

A two-stage detector chooses its proposals by NMS: if two runtimes round a score differently, they
return a box more or less. Common boxes must agree; a few may have no counterpart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fashionrec.detector.decode import Detections


@dataclass
class Pairs:
    """Differences of boxes with a counterpart in the other output, and how many of ``boxes`` have
    none.
    """

    score: float = 0.0
    pixels: float = 0.0
    boxes: int = 0
    alone: int = 0

    def add(self, source: Detections, ours: Detections, least: float, pixels: float, score: float) -> None:
        """Pair boxes scoring at least ``least`` in either output with their counterparts.

        A counterpart has the same class, corners within ``pixels``, and a score within ``score``.
        """
        for some, others in ((source, ours), (ours, source)):
            wanted = some.take(np.flatnonzero(some.scores > least))
            self.boxes += len(wanted)
            for box, value, number in zip(wanted.boxes, wanted.scores, wanted.class_ids, strict=True):
                same = np.flatnonzero(others.class_ids == number)
                apart = np.abs(others.boxes[same] - box).max(axis=1, initial=0.0)
                differs = np.abs(others.scores[same] - value)
                like = np.flatnonzero((apart <= pixels) & (differs <= score))
                if not len(like):
                    self.alone += 1
                    continue
                nearest = like[np.argmin(apart[like] / pixels + differs[like] / score)]
                self.pixels = max(self.pixels, float(apart[nearest]))
                self.score = max(self.score, float(differs[nearest]))
