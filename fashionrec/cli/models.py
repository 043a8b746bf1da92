"""Which model is meant: a bundle, a checkpoint or run (exported on the way), a hub id, or the newest promoted run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.common.extras import load
from fashionrec.common.files import sha256_file
from fashionrec.common.text import shell_word
from fashionrec.errors import FashionrecError, ModelError, UsageError
from fashionrec.models.bundle import Bundle, is_bundle
from fashionrec.models.runs import check_weights, is_run, newest_promoted, read_run

if TYPE_CHECKING:
    from fashionrec.cli.session import Session
    from fashionrec.detector.detect import Detector

DETECTOR_PACKAGES = ("torch", "ultralytics", "onnx")
EMBEDDER_PACKAGES = ("torch", "transformers", "onnx")


def detector_bundle(session: Session, source: str | None, *, catalogue: Path | None = None) -> Bundle | None:
    """The detector to use; None for ``none``. Says on stderr which one and why. Raises :class:`ModelError`."""
    why = ""
    if source is None:
        source = session.config.detector.source
        why = " (detector.source)"
    if source is None and catalogue is not None:
        session.out.say(f"detector: {catalogue.name} (as the catalogue was built)")
        return Bundle.open(catalogue, "detector")
    if source is None:
        refused: list[FashionrecError] = []
        run = newest_promoted(session.runs, "detector", refused)
        for error in refused:
            session.out.warn(str(error))
        if run is None:
            raise ModelError(
                f"no detector is named, and there is no promoted run under {session.runs}",
                hint="train one with `fashionrec train`, name one with --detector, or index photos whole: --detector none",
            )
        source = str(run.weights_path("best_ft" if "best_ft" in run.weights else "best"))
        why = f" (the newest promoted run, {run.path})"
    if source == "none":
        session.out.say("detector: none, every photo is one whole garment")
        return None
    session.out.say(f"detector: {source}{why}")
    return detector_from(session, Path(source))


def open_detector(session: Session, bundle: Bundle, **changes: Any) -> Detector:
    """A bundle's detector as a build runs it, but for ``changes`` of its settings (section ``detector``)."""
    from fashionrec.detector.detect import Detector

    project, settings = session.config.project, session.config.detector.model_copy(update=changes)
    return Detector.of_config(bundle, settings, threads=project.threads, device=project.device)


def evaluate_with(session: Session) -> Callable[[Detector, Path, str], dict[str, Any]]:
    """What measures a detector that is being trained: the one evaluator, with the session's settings."""
    from fashionrec.evaluation.detection.evaluator import evaluate_detector

    def evaluate(detector: Detector, data: Path, split: str) -> dict[str, Any]:
        return evaluate_detector(detector, data, split, session.config.evaluate, session.config.images).to_dict()

    return evaluate


def detector_from(session: Session, path: Path) -> Bundle:
    """A detector's bundle from a bundle, a run's folder, or a checkpoint, which is exported beside itself once."""
    path = _weights_of_run(path, ("best_ft", "best"))
    if is_bundle(path):
        return Bundle.open(path, "detector", verify=True)
    if path.is_dir():
        return Bundle.open(path, "detector")  # says what is wrong with it
    if not path.is_file():
        raise ModelError(
            f"no detector at {path}", hint="give a bundle, a run's folder, or a checkpoint such as best.pt"
        )
    target = path.with_name(f"{path.stem}.bundle")
    if is_bundle(target):
        bundle = Bundle.open(target, "detector", verify=True)
        if bundle.source.get("sha256") == sha256_file(path):
            return bundle
    session.out.say(f"exporting {path} to {target}")
    return export_detector(session, path, target)


#: The one way to load a pickle that may run code: for one command, of one file that stands on its line.
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Run what is in the .pt named here: only if you know who made it.")
]


def trusting(session: Session, trust: bool, path: Path) -> AbstractContextManager[None]:
    """With ``--trust-pickle`` the file is loaded as it is, code and all, while the command lasts. Nothing remembers it."""
    if not trust:
        return nullcontext()
    if path.suffix != ".pt" or not path.is_file():
        raise UsageError(f"--trust-pickle is for a .pt file, and {path} is none")
    session.out.warn(f"what is in {path} is run, because of --trust-pickle")
    module = load("fashionrec.detector.training.pickles", what=f"loading {path}", packages=DETECTOR_PACKAGES)
    trusted: AbstractContextManager[None] = module.trusting(path)
    return trusted


def export_detector(
    session: Session, weights: Path, out: Path, *, precision: str = "fp32", imgsz: int | None = None, **evidence: Any
) -> Bundle:
    """``evidence``: what it is made and judged by, the fields of :class:`fashionrec.detector.training.export.Evidence`."""
    if weights.parent == Path() and weights.is_file():
        session.out.say(f"{weights} is the file in this folder")
    module = load("fashionrec.detector.training.export", what="exporting a detector", packages=DETECTOR_PACKAGES)
    bundle: Bundle = module.export_detector(
        weights,
        out,
        imgsz=imgsz,
        precision=precision,
        evidence=module.Evidence(**evidence, limits=session.config.images),
        overwrite=True,
        log=session.out.say,
    )
    return bundle


def embedder_bundle(session: Session, source: str | None, *, catalogue: Path | None = None) -> Bundle:
    """The encoder to use. Says on stderr which one and why. Raises :class:`ModelError`."""
    if source is None and catalogue is not None and not session.is_set("embedder.source"):
        session.out.say(f"embedder: {catalogue.name} (as the catalogue was built)")
        return Bundle.open(catalogue, "embedder")
    why = "" if source else " (embedder.source)"
    if source is None and not session.is_set("embedder.source"):
        check_shipped_name(session.config.embedder.source)
    source = source or session.config.embedder.source
    session.out.say(f"embedder: {source}{why}")
    return embedder_from(session, source)


def check_shipped_name(name: str) -> None:
    """Refuse a folder with the name of the shipped settings' encoder, which is one on the hub: anybody may have put it here."""
    if Path(name).exists():
        raise ModelError(
            f"{name} is the encoder of the shipped settings, and a folder here, too",
            hint=f"for the folder: --set {shell_word(f'embedder.source=./{name}')}; for the encoder, rename the folder",
        )


def embedder_from(session: Session, source: str) -> Bundle:
    """An encoder's bundle from a bundle, a run's or transformers folder, or a hub id, exported once and kept."""
    path = _weights_of_run(Path(source), ("best",))
    if is_bundle(path):
        return Bundle.open(path, "embedder", verify=True)
    if path.is_dir():
        weights = path / "model.safetensors"
        target = path.with_name(f"{path.name}.bundle")
        if is_bundle(target) and weights.is_file():
            bundle = Bundle.open(target, "embedder", verify=True)
            if bundle.source.get("sha256") == sha256_file(weights):
                return bundle
        return export_embedder(session, str(path), target)
    target = session.data / "bundles" / source.replace("/", "--")
    if is_bundle(target):
        return Bundle.open(target, "embedder", verify=True)
    return export_embedder(session, source, target)


def export_embedder(session: Session, source: str, out: Path, check_images: Sequence[Path] = ()) -> Bundle:
    from fashionrec.photos.images import read_photo

    module = load("fashionrec.embedder.training.export", what="exporting an encoder", packages=EMBEDDER_PACKAGES)
    session.out.say(f"exporting {source} to {out}")
    bundle: Bundle = module.export_embedder(
        source,
        out,
        pictures=[read_photo(path, session.config.images).pixels for path in check_images],
        overwrite=True,
        log=session.out.say,
    )
    return bundle


def convert_embedder(
    session: Session, source: Bundle, out: Path, precision: str, pictures: Any, **known: Any
) -> Bundle:
    """A float32 encoder in another precision, judged on ``pictures``; ``known``: their ``products`` and ``photos``."""
    from fashionrec.embedder.training.gate import Tolerance

    module = load("fashionrec.embedder.training.precision", what=f"an encoder in {precision}", packages=("onnx",))
    config = session.config.embedder
    tolerance = Tolerance(config.max_points_lost, getattr(config.min_overlap, precision))
    bundle: Bundle = module.convert_embedder(
        source, out, precision, pictures, tolerance=tolerance, overwrite=True, log=session.out.say, **known
    )
    return bundle


def _weights_of_run(path: Path, names: Sequence[str]) -> Path:
    check_weights(path)
    if is_run(path):
        run = read_run(path)
        for name in names:
            if name in run.weights:
                return run.weights_path(name)
        raise ModelError(f"run {path} has no finished weights", hint=f"its status is {run.status}")
    return path
