"""Serve a detector: photos to garments."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.common.text import plural
from fashionrec.detector.decode import DECODERS, Detections, decoder_for, non_maximum_suppression
from fashionrec.detector.efficientdet import anchors_of, placed_on
from fashionrec.detector.preprocess import Letterbox, Stretched, batch_input, letterbox, letterboxed, stretch
from fashionrec.detector.spec import DetectorSpec
from fashionrec.errors import ModelError
from fashionrec.models.bundle import Bundle
from fashionrec.photos.pixels import placement, prepare_pixels
from fashionrec.types import Box, Garment

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.config import DetectorConfig


#: Boxes of two classes with an IoU above this are one garment of uncertain class.
SAME_GARMENT = 0.8


def one_class_each(found: Detections) -> Detections:
    """Return each garment once, as its most confident class. ``found`` is sorted best first."""
    kept: list[int] = []
    boxes = [Box(*map(float, box)) for box in found.boxes]
    for n, box in enumerate(boxes):
        if all(box.iou(boxes[other]) <= SAME_GARMENT for other in kept):
            kept.append(n)
    return found.take(np.array(kept, dtype=np.int64))


def _not_empty(found: Detections) -> Detections:
    boxes = found.boxes
    return found.take(np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])))


class Detector:
    """Detects garments with one bundle. Thread-safe; results are the same alone and in any batch.

    ``rectangular``: if the bundle's graph supports it, photos are padded to rectangles instead of
    squares, which saves a quarter of the pixels at 3:4. ``threads`` are those of one call; calls
    may come from several threads.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        conf: float,
        iou: float,
        max_garments: int,
        threads: int = 0,
        device: str = "auto",
        rectangular: bool = False,
    ) -> None:
        if bundle.kind != "detector":
            raise ModelError(f"{bundle.path} holds an {bundle.kind}, not a detector")
        try:
            self.spec = DetectorSpec.from_dict(bundle.spec)
            self._decode = decoder_for(self.spec.head)
            self._anchors = None if self.spec.anchors is None else anchors_of(self.spec.imgsz, self.spec.anchors)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"bundle {bundle.path} has an invalid spec ({error!r})", hint="export it again") from None
        self.bundle, self.labels, self.pixels = bundle, self.spec.labels, self.spec.pixels
        self._multiple = self.spec.rectangular if rectangular and not self._stretches else 0
        self.conf, self.iou, self.max_garments = conf, iou, max_garments
        self._threads, self._device = threads, device
        self._lock = threading.Lock()
        self._session: Any = None

    @classmethod
    def open(cls, path: str | Path, config: DetectorConfig, *, threads: int = 0, device: str = "auto") -> Detector:
        """Open the detector of a bundle folder like :meth:`of_config`. Raises
        :class:`ModelError`.
        """
        return cls.of_config(Bundle.open(path, "detector"), config, threads=threads, device=device)

    @classmethod
    def of_config(cls, bundle: Bundle, config: DetectorConfig, *, threads: int = 0, device: str = "auto") -> Detector:
        """Return the detector of a bundle, with thresholds and input shape from the settings."""
        return cls(
            bundle,
            conf=config.conf,
            iou=config.iou,
            max_garments=config.max_garments,
            threads=threads,
            device=device,
            rectangular=config.rectangular,
        )

    def detect(self, photos: Sequence[Image.Image]) -> list[list[Garment]]:
        """Return the garments of RGB photos of any size, most confident first and
        numbered from 0.
        """
        found = []
        for detections in map(one_class_each, self.predict(photos)):
            garments = []
            for n, (box, score, number) in enumerate(
                zip(detections.boxes, detections.scores, detections.class_ids, strict=True)
            ):
                name = self.labels.get(int(number), str(int(number)))
                # coordinates on a pixel's edge stay there, whatever else is in the batch
                place = Box(*(round(float(value), 4) for value in box))
                garments.append(Garment(n, name, float(score), place))
            found.append(garments)
        return found

    def predict(
        self,
        photos: Sequence[Image.Image],
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        multi_label: bool = False,
        prepared_already: bool = False,
    ) -> list[Detections]:
        """Return raw detections in pixels of each photo; thresholds default to the detector's own.
        Empty boxes are dropped.

        Photos get the pixel operations of the training data first, unless they are
        ``prepared_already``.
        """
        if not photos:
            return []
        if not (prepared_already or self.pixels.changes_nothing):
            treated = [prepare_pixels(photo, self.pixels) for photo in photos]
            found = self.predict(
                [picture for picture, _ in treated],
                conf=conf,
                iou=iou,
                max_det=max_det,
                multi_label=multi_label,
                prepared_already=True,
            )
            return [
                _not_empty(Detections(place.restore(one.boxes), one.scores, one.class_ids))
                for one, (_, place) in zip(found, treated, strict=True)
            ]
        prepared = [self._square(photo) for photo in photos]
        outputs = self._answers([square for square, _ in prepared])
        found = []
        for output, (_, placed) in zip(outputs, prepared, strict=True):
            decoded = self._decode(output, self.conf if conf is None else conf, multi_label)
            kept = non_maximum_suppression(
                decoded, self.iou if iou is None else iou, self.max_garments if max_det is None else max_det
            )
            found.append(_not_empty(Detections(placed.restore(kept.boxes), kept.scores, kept.class_ids)))
        return found

    def inputs(self, photos: Sequence[Image.Image]) -> np.ndarray:
        """Return the graph's input for prepared photos of one shape: float32 [n, 3,
        height, width].
        """
        return self._values([self._square(photo)[0] for photo in photos])

    def raw(self, photos: Sequence[Image.Image]) -> list[np.ndarray]:
        """Return the head's raw output for prepared photos, in pixels of the input and without
        thresholds.

        For each photo float32 [4 + classes, anchors] (centre, size, scores) or [n, 6] (xyxy, score,
        class).
        """
        return self._answers([self._square(photo)[0] for photo in photos])

    def answer(self, values: np.ndarray) -> np.ndarray:
        """Run the graph on :meth:`inputs`, with at most ``most`` photos per call."""
        return self._run(values)

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the input for a photo of that size: photos of one shape share
        a batch.
        """
        if not self._multiple:
            return self.imgsz, self.imgsz
        if not self.pixels.changes_nothing:
            _, _, (width, height) = placement(width, height, self.pixels)
        return letterboxed(width, height, self.imgsz, self._multiple)[1]

    @property
    def imgsz(self) -> int:
        """Pixels of the longer side of the input."""
        return self.spec.imgsz

    @property
    def most(self) -> int | None:
        """Maximum number of photos per call of the graph; None = any number."""
        return self.spec.batch or None

    @property
    def _stretches(self) -> bool:
        return self.spec.resize == "stretch"

    @property
    def provider(self) -> str:
        """ONNX Runtime's first provider in use (``CPUExecutionProvider``)."""
        return str(self._opened().get_providers()[0])

    def _square(self, photo: Image.Image) -> tuple[np.ndarray, Letterbox | Stretched]:
        if self._stretches:
            return stretch(photo, self.imgsz)
        return letterbox(photo, self.imgsz, self.spec.pad, self._multiple)

    def _values(self, squares: Sequence[np.ndarray]) -> np.ndarray:
        return batch_input(squares, self.spec.scale, self.spec.mean, self.spec.std)

    def _answers(self, squares: Sequence[np.ndarray]) -> list[np.ndarray]:
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for n, square in enumerate(squares):
            by_shape.setdefault(square.shape, []).append(n)
        found: dict[int, np.ndarray] = {}
        for numbers in by_shape.values():
            step = self.spec.batch or len(numbers)
            for start in range(0, len(numbers), step):
                part = numbers[start : start + step]
                outputs = self._run(self._values([squares[n] for n in part]))
                if len(outputs) != len(part):
                    raise ModelError(
                        f"{self.bundle.path} returns {plural(len(outputs), 'result')} for a batch of {len(part)}"
                    )
                found.update(zip(part, outputs, strict=True))
        answers = [found[n] for n in range(len(squares))]
        if self._anchors is not None:
            answers = [placed_on(self._anchors, answer) for answer in answers]
        return answers

    def _run(self, values: np.ndarray) -> np.ndarray:
        try:
            output = np.asarray(self._opened().run(None, {self.spec.input: values})[0])
        except ModelError:
            raise
        except Exception as error:  # onnxruntime raises its own classes
            raise ModelError(f"{self.bundle.path} cannot be run: {str(error).splitlines()[0][:200]}") from None
        fits = output.ndim == 3 and output.dtype.kind == "f" and self._rows(output.shape)
        if not fits:
            raise ModelError(f"{self.bundle.path} is damaged: its graph returns {output.dtype} {output.shape}")
        return output

    def _rows(self, shape: tuple[int, ...]) -> bool:
        """Return whether an output has the shape of its kind of head."""
        if self._anchors is not None:
            return shape[1] == len(self._anchors) and shape[2] > 4
        return shape[1] > 4 if self._decode is DECODERS["yolo"] else shape[2] >= 6

    def unload(self) -> None:
        """Free the memory of the graph. It is opened again when it is used."""
        with self._lock:
            self._session = None

    def _opened(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = self.bundle.session("detect", threads=self._threads, device=self._device)
            return self._session
