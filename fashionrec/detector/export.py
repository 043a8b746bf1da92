"""From a detector's checkpoint to a bundle: a raw head in ONNX at any batch size, checked against its source.

Training plane: loaded by name when something is exported. NMS is not in the graph: a graph with NMS made for one photo
finds nothing in photos 2 to n of a batch, and confidence and overlap are to stay settings of the query.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashionrec.bundle import Bundle, write_bundle
from fashionrec.config import load_config
from fashionrec.detector.detect import Detector
from fashionrec.detector.families import family_of_weights
from fashionrec.detector.preprocess import letterbox
from fashionrec.errors import ModelError, Refused
from fashionrec.files import sha256_file
from fashionrec.images import read_photo

#: What an export may differ by from its source: raw scores (0..1), and boxes in pixels of the input, where it scores.
MAX_SCORE = 1e-3
MAX_PIXELS = 0.5
_MATTERS = 0.05  # boxes of anchors below this score are noise


def export_detector(
    weights: Path,
    out: Path,
    *,
    name: str | None = None,
    imgsz: int | None = None,
    check_images: Sequence[Path] = (),
    overwrite: bool = False,
    log: Callable[[str], None] | None = None,
) -> Bundle:
    """Export a checkpoint of ultralytics to a bundle at ``out`` (a square input of ``imgsz``, default that of training).

    The agreement with the source is measured on ``check_images``, or on pictures made for the purpose, in batches of mixed
    sizes, and kept in the bundle. A ``.pt`` file is a pickle: export only what you trust. Raises :class:`ModelError` for what
    cannot be loaded, :class:`Refused` where the export differs from its source.
    """
    if not weights.is_file():
        raise ModelError(f"no checkpoint at {weights}")
    family = family_of_weights(weights)
    with tempfile.TemporaryDirectory() as folder:
        graph = family.to_graph(weights, Path(folder), imgsz)
        graphs = {"detect": graph.path.name}
        bundle = Bundle(Path(folder), "detector", "unwritten", "", graphs, graph.spec, {}, {}, {})
        figures = check(graph.reference, bundle, _photos(check_images))
        if log:
            log(
                f"agreement with the source: scores within {figures['score_difference_max']:.1e}, boxes within"
                f" {figures['box_difference_px_max']:.3f} px, on {figures['photos']} photos in one batch and alone"
            )
        return write_bundle(
            out,
            kind="detector",
            name=name or _name(weights),
            graphs=graphs,
            spec=graph.spec,
            source={"name": _name(weights), "file": weights.name, "sha256": sha256_file(weights), **graph.source},
            agreement=figures,
            files={graph.path.name: graph.path},
            overwrite=overwrite,
        )


def check(
    reference: Callable[[Image.Image], np.ndarray], bundle: Bundle, photos: Sequence[Image.Image]
) -> dict[str, Any]:
    """Compare an export with its source through the serving code; returns the figures. Raises :class:`Refused`.

    The source gets ultralytics' own letterboxed input, one photo at a time, so that a wrong scale, swapped channels, a
    wrong letterbox and a batch that loses detections all show.
    """
    detector = Detector(bundle, conf=0.25, iou=0.6, max_garments=100, device="cpu")
    together = raw_outputs(detector, photos)
    alone = np.concatenate([raw_outputs(detector, [photo]) for photo in photos])
    source = np.stack([reference(photo) for photo in photos])
    if source.shape != together.shape:
        raise Refused(f"the export answers {list(together.shape)}, its source {list(source.shape)}")
    figures: dict[str, Any] = {"photos": len(photos)}
    if bundle.spec["head"] == "yolo":
        scores, ours = source[:, 4:], together[:, 4:]
        matters = source[:, 4:].max(axis=1) > _MATTERS
        boxes = np.abs(source[:, :4] - together[:, :4]).max(axis=1)
        figures["score_difference_max"] = float(np.abs(scores - ours).max())
        figures["box_difference_px_max"] = float(boxes[matters].max(initial=0.0))
        figures["anchors_compared"] = int(matters.sum())
    else:
        figures["score_difference_max"] = float(np.abs(source[..., 4] - together[..., 4]).max())
        matters = source[..., 4] > _MATTERS
        boxes = np.abs(source - together)[..., :4].max(axis=2)
        figures["box_difference_px_max"] = float(boxes[matters].max(initial=0.0))
        figures["anchors_compared"] = int(matters.sum())
    figures["batch_difference_max"] = float(np.abs(together - alone).max())
    batched = [len(found) for found in detector.predict(photos)]
    figures["detections"] = sum(batched)
    figures["detections_alone"] = sum(len(detector.predict([photo])[0]) for photo in photos)
    wrong = [
        words
        for words, good in {
            f"scores differ by {figures['score_difference_max']:.2g}": figures["score_difference_max"] <= MAX_SCORE,
            f"boxes differ by {figures['box_difference_px_max']:.2g} pixels": figures["box_difference_px_max"]
            <= MAX_PIXELS,
            f"a batch finds {figures['detections']} garments, its photos alone {figures['detections_alone']}": figures[
                "detections"
            ]
            == figures["detections_alone"],
        }.items()
        if not good
    ]
    if wrong:
        raise Refused(f"the export does not agree with its source: {'; '.join(wrong)}", hint="please report this model")
    return figures


def raw_outputs(detector: Detector, photos: Sequence[Image.Image]) -> np.ndarray:
    """What the graph answers to a batch, through the serving plane's own preprocessing."""
    from fashionrec.detector.preprocess import batch_input

    squares = [letterbox(photo, detector.imgsz, int(detector.bundle.spec["pad"]))[0] for photo in photos]
    return detector._run(batch_input(squares, float(detector.bundle.spec["scale"])))


def _photos(paths: Sequence[Path]) -> list[Image.Image]:
    if paths:
        limits = load_config().config.images
        return [read_photo(path, limits).pixels for path in paths]
    rng = np.random.default_rng(0)
    photos = []
    for width, height in ((640, 480), (333, 777), (160, 160), (900, 301), (47, 61)):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        photos.append(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return photos


def _name(weights: Path) -> str:
    """The run's name for weights in a run, else the file's."""
    return weights.parent.parent.name if weights.parent.name == "weights" else weights.stem
