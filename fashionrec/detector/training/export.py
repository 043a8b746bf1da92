"""Export a detector's checkpoint to a bundle: a raw head in ONNX for any batch size, tested against
its source.

Training plane: imported by name when something is exported. NMS is not in the graph: a graph with
NMS made for one photo finds nothing in photos 2 to n of a batch, and thresholds should stay
settings of the query. Half precision and 8 bits are made from the float32 graph once that matches
(:mod:`fashionrec.detector.training.precision`), and tested against it
(:mod:`fashionrec.detector.training.gate`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fashionrec.common.files import sha256_file
from fashionrec.common.text import plural
from fashionrec.detector.detect import Detector
from fashionrec.detector.training.agreement import compare, speed
from fashionrec.detector.training.evidence import Evidence
from fashionrec.detector.training.families import Graph, family_of_weights
from fashionrec.detector.training.gate import SourceDetector, check, judge, map_loss, open_for_test, same_input
from fashionrec.detector.training.precision import largest_activation, to_fp16, to_int8
from fashionrec.errors import DataError, ModelError
from fashionrec.models.bundle import Bundle, write_bundle
from fashionrec.models.graphs import graph_files, with_optimized, write_external_data
from fashionrec.photos.pixels import PixelSpec, prepare_pixels

__all__ = ["Evidence", "check", "convert_detector", "export_detector", "same_input"]

_CHECKED = 16  # maximum number of photos whose raw outputs are compared


def export_detector(
    weights: Path,
    out: Path,
    *,
    name: str | None = None,
    imgsz: int | None = None,
    precision: str = "fp32",
    evidence: Evidence = Evidence(),
    overwrite: bool = False,
    log: Callable[[str], None] | None = None,
) -> Bundle:
    """Export a checkpoint to a bundle at ``out`` (a square input of ``imgsz``, default that of
    training) in a ``precision``: fp32, fp16 or int8.

    The agreement with the source is measured on the photos of ``evidence`` (for fp32 also on
    generated images), in batches of mixed sizes, and stored in the bundle. Raises
    :class:`ModelError` if it cannot be loaded, :class:`DataError` if photos are needed but missing,
    :class:`Refused` if the export differs from its source; then nothing is written.
    """
    say = log or (lambda text: None)
    if not weights.is_file():
        raise ModelError(f"no such checkpoint: {weights}")
    if precision != "fp32" and not evidence.photos:
        raise DataError(
            f"{precision} must be tested on your photos, and int8 calibrated on them",
            hint="--images FOLDER, or --data data.yaml, which also measures the loss of mAP",
        )
    family = family_of_weights(weights)
    with tempfile.TemporaryDirectory() as folder:
        graph = family.to_graph(weights, Path(folder), imgsz)
        write_external_data(graph.path)
        bundle = _unwritten(graph.path, graph.spec)
        few = evidence.photos[:: max(1, len(evidence.photos) // _CHECKED)][:_CHECKED]
        photos = _treated(evidence.read(few, say), bundle, evidence.prepared) if few else _made_up()
        figures = check(graph.reference, bundle, photos, graph.pixels)
        say(
            f"agreement with the source: scores within {figures['score_difference_max']:.1e}, boxes within"
            f" {figures['box_difference_px_max']:.3f} px, on {plural(figures['photos'], 'photo')} in one batch and alone"
        )
        made: dict[str, Any] = {}
        agreement, largest = None, 0.0
        source: Detector = SourceDetector(bundle, graph.reference)
        if precision != "fp32":
            source = open_for_test(bundle)
            bundle, made, largest = _converted(graph, precision, Path(folder) / precision, evidence, say)
            agreement = _compared(source, open_for_test(bundle), evidence, say)
            figures = {"float32": figures, **agreement}
        exported, loss = open_for_test(bundle), None
        if evidence.measure:
            say(
                f"measuring the mAP of {'the checkpoint' if precision == 'fp32' else 'the float32 graph'} and of the export"
            )
            loss = map_loss(source, exported, evidence.measure)
            figures |= loss
        judge(precision, agreement, loss, evidence.tolerance, largest)
        if precision != "fp32":
            figures["speed"] = speed(source, exported, photos[0])
        origin = {"name": _name(weights), "file": weights.name, "sha256": sha256_file(weights), **graph.source}
        origin |= {"conversion": made} if made else {}
        name = name or _name(weights) + ("" if precision == "fp32" else f"-{precision}")
        return _written(bundle, out, name, origin, figures, overwrite)


def convert_detector(
    source: Bundle,
    out: Path,
    precision: str,
    evidence: Evidence,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] | None = None,
) -> Bundle:
    """Convert a float32 bundle to ``precision`` (fp16 or int8), and write it to ``out`` if it
    detects the same in ``evidence``.

    The figures and a measured speed are stored in the bundle's ``agreement``, the source's
    fingerprint in its ``source``. Raises :class:`DataError` if none of the photos can be read,
    :class:`Refused` if it does not match.
    """
    say = log or (lambda text: None)
    with tempfile.TemporaryDirectory() as folder:
        graph = Graph(source.graph_path("detect"), source.spec, {}, _none)
        bundle, made, largest = _converted(graph, precision, Path(folder) / precision, evidence, say)
        first, second = open_for_test(source), open_for_test(bundle)
        figures = _compared(first, second, evidence, say)
        judge(precision, figures, None, 0.0, largest)
        (photo,) = evidence.read(evidence.photos[:1], say)
        origin = {**source.source, "fingerprint": source.fingerprint, "conversion": made}
        agreement = {"float32": source.agreement, **figures, "speed": speed(first, second, photo)}
        return _written(bundle, out, f"{source.name}-{precision}", origin, agreement, overwrite)


def _written(
    made: Bundle, out: Path, name: str, source: dict[str, Any], agreement: dict[str, Any], overwrite: bool
) -> Bundle:
    graphs = with_optimized(made.graphs, made.path)
    files = graph_files(made.path / made.graphs["detect"])
    about: dict[str, Any] = {"spec": made.spec, "source": source, "agreement": agreement}
    return write_bundle(out, kind="detector", name=name, graphs=graphs, files=files, overwrite=overwrite, **about)


def _none(_photo: Image.Image) -> np.ndarray:
    raise AssertionError("a bundle has no checkpoint to compare with")


def _converted(
    graph: Graph, precision: str, folder: Path, evidence: Evidence, say: Callable[[str], None]
) -> tuple[Bundle, dict[str, Any], float]:
    """Return the graph in another precision, how it was made, and the largest
    activation for fp16.
    """
    folder.mkdir()
    source, file = open_for_test(_unwritten(graph.path, graph.spec)), folder / graph.path.name
    chosen = list(evidence.calibration or evidence.photos)

    def inputs(paths: Sequence[Path]) -> Iterator[np.ndarray]:
        for photo in evidence.read(paths, say):
            yield source.inputs(_treated([photo], source.bundle, evidence.prepared))

    if precision == "int8":
        say(f"calibrating on {plural(len(chosen), 'photo')}")
        made, largest = to_int8(graph.path, file, lambda: inputs(chosen)), 0.0
    else:
        made = to_fp16(graph.path, file)
        largest = largest_activation(graph.path, lambda: inputs(chosen[:_CHECKED]))
    write_external_data(file)
    return _unwritten(file, {**graph.spec, "precision": precision}), made, largest


def _compared(source: Detector, exported: Detector, evidence: Evidence, say: Callable[[str], None]) -> dict[str, Any]:
    photos = list(evidence.read(evidence.photos, lambda text: None))
    figures = compare(source, exported, photos, prepared=evidence.prepared)
    say(
        f"of {plural(figures['detections_source'], 'garment')} in {plural(figures['photos_compared'], 'photo')} both find"
        f" {figures['found_by_both']:.1%}: mean IoU {figures['iou_mean']:.3f}, scores differ by"
        f" {figures['score_difference_mean']:.4f}"
    )
    return figures


def _unwritten(file: Path, spec: dict[str, Any]) -> Bundle:
    return Bundle(file.parent, "detector", "unwritten", "", {"detect": file.name}, spec, {}, {}, {})


def _treated(photos: Iterable[Image.Image], bundle: Bundle, prepared: bool) -> list[Image.Image]:
    """Apply the pixel operations of the detector's training data to photos, unless they had them
    already.
    """
    spec = PixelSpec.from_dict(bundle.spec.get("pixels"))
    return [photo if prepared else prepare_pixels(photo, spec)[0] for photo in photos]


def _made_up() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    photos = []
    for width, height in ((640, 480), (333, 777), (160, 160), (900, 301), (47, 61)):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        photos.append(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return photos


def _name(weights: Path) -> str:
    """Return the run's name for weights in a run, otherwise the file's."""
    return weights.parent.parent.name if weights.parent.name == "weights" else weights.stem
