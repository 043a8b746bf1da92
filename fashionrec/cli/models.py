"""Choose, open, export and convert models with the settings and messages of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.extras import DETECTOR_PACKAGES, EMBEDDER_PACKAGES, load
from fashionrec.errors import UsageError
from fashionrec.models.choice import ModelChoice

if TYPE_CHECKING:
    from fashionrec.cli.output import Tick
    from fashionrec.cli.session import Session
    from fashionrec.config import TrainConfig
    from fashionrec.detector.detect import Detector
    from fashionrec.detector.training.evidence import Evidence
    from fashionrec.models.bundle import Bundle
    from fashionrec.models.runs import Run


def model_choice(session: Session) -> ModelChoice:
    """Return the chooser that finds models by name or settings, and exports them if needed."""
    exports = partial(export_detector, session), partial(export_embedder, session)
    return ModelChoice(session.resolved, *exports, session.out.say, session.out.warn)


def open_detector(session: Session, bundle: Bundle, **changes: Any) -> Detector:
    """Open a bundle's detector as a build uses it, with ``changes`` to the section ``detector``."""
    from fashionrec.detector.detect import Detector

    project, settings = session.config.project, session.config.detector.model_copy(update=changes)
    return Detector.of_config(bundle, settings, threads=project.threads, device=project.device)


def train_detector(session: Session, config: TrainConfig) -> Run:
    """Train a detector by a section ``train``, and evaluate it with the session's settings."""
    from fashionrec.evaluation.detection.evaluator import evaluate_detector

    def evaluate(detector: Detector, data: Path, split: str) -> dict[str, Any]:
        return evaluate_detector(detector, data, split, session.config.evaluate, session.config.images).to_dict()

    module = load("fashionrec.detector.training.train", what="training a detector", packages=DETECTOR_PACKAGES)
    with session.out.progress("epoch") as tick:
        run: Run = module.train_detector(
            config,
            session.runs,
            log=session.out.say,
            progress=epoch_progress(tick),
            limits=session.config.images,
            evaluate=evaluate,
        )
    return run


def epoch_progress(tick: Tick) -> Callable[[int, int, dict[str, Any]], None]:
    """Report the progress of a training, with the metrics of each epoch."""

    def progress(epoch: int, epochs: int, metrics: dict[str, Any]) -> None:
        figures = ", ".join(f"{key} {value:.3f}" for key, value in metrics.items() if isinstance(value, float))
        tick(epoch, epochs, figures)

    return progress


def trusting(session: Session, trust: bool, path: Path) -> AbstractContextManager[None]:
    """Allow code in a .pt file to run within the block, if ``--trust-pickle`` is given."""
    if not trust:
        return nullcontext()
    if path.suffix != ".pt" or not path.is_file():
        raise UsageError(f"--trust-pickle needs an existing .pt file, not {path}")
    session.out.warn(f"executing code in {path}, because of --trust-pickle")
    module = load("fashionrec.detector.training.pickles", what=f"loading {path}", packages=DETECTOR_PACKAGES)
    trusted: AbstractContextManager[None] = module.trusting(path)
    return trusted


def export_detector(
    session: Session,
    weights: Path,
    out: Path,
    *,
    precision: str = "fp32",
    imgsz: int | None = None,
    evidence: Evidence | None = None,
) -> Bundle:
    if weights.parent == Path() and weights.is_file():
        session.out.say(f"using {weights} from the working folder")
    module = load("fashionrec.detector.training.export", what="exporting a detector", packages=DETECTOR_PACKAGES)
    bundle: Bundle = module.export_detector(
        weights,
        out,
        imgsz=imgsz,
        precision=precision,
        evidence=evidence or module.Evidence(),
        overwrite=True,
        log=session.out.say,
    )
    return bundle


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
    """Convert a float32 encoder to another precision, and test it on ``pictures``.

    ``known``: the ``products`` and ``photos`` of the pictures.
    """
    from fashionrec.embedder.training.gate import Tolerance

    module = load("fashionrec.embedder.training.precision", what=f"an encoder in {precision}", packages=("onnx",))
    config = session.config.embedder
    tolerance = Tolerance(config.max_points_lost, getattr(config.min_overlap, precision))
    bundle: Bundle = module.convert_embedder(
        source, out, precision, pictures, tolerance=tolerance, overwrite=True, log=session.out.say, **known
    )
    return bundle
