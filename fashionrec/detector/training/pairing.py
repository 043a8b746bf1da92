"""Two answers to one photo, compared box by box: for heads whose boxes differ in number and order from run to run.

A two-stage detector chooses its proposals by NMS: where two runtimes round a score differently, a box more or less is answered.
What both answer must agree; a few that only one answers may be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fashionrec.detector.decode import Detections


@dataclass
class Pairs:
    """Differences of the boxes that have their like in the other answer, and how many of ``boxes`` have none."""

    score: float = 0.0
    pixels: float = 0.0
    boxes: int = 0
    alone: int = 0

    def add(self, source: Detections, ours: Detections, least: float, pixels: float, score: float) -> None:
        """Pair what scores at least ``least`` in either answer with its like in the other: of the same class, no corner further
        than ``pixels``, no score further than ``score``."""
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
