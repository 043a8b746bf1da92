"""The command ``export``: a bundle of a checkpoint, in the requested precision."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fashionrec.cli import models
from fashionrec.cli.options import TrustPickle
from fashionrec.cli.session import Command, Context, Session
from fashionrec.common.text import shell_word
from fashionrec.errors import DataError, ImageError, ModelError, UsageError
from fashionrec.models.bundle import Bundle, is_bundle
from fashionrec.models.choice import check_encoder_name

if TYPE_CHECKING:
    from fashionrec.detector.detect import Detector
    from fashionrec.detector.training.evidence import Evidence
    from fashionrec.detector.training.gate import Measure


def mount(app: typer.Typer) -> None:
    app.command("export", cls=Command, help="Export a checkpoint or encoder to a bundle.")(export)


def export(
    context: Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="best.pt, a run, a transformers folder, a Hugging Face id, or an encoder's bundle."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the bundle.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Settings of the section export.")
    ] = None,
    precision: Annotated[str | None, typer.Option(metavar="PRECISION", help="fp32, fp16 or int8.")] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of your photos, to test the export and calibrate int8."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="data.yaml of labelled photos: like --images, and measures the loss of mAP."),
    ] = None,
    format_: Annotated[str, typer.Option("--format", metavar="FORMAT", help="bundle, the only format.")] = "bundle",
    trust_pickle: TrustPickle = False,
) -> None:
    session = context.session
    words = session.assign("export", settings or [])
    if words:
        raise UsageError(f"unexpected argument {words[0]!r}", hint="settings are key=value, as in imgsz=640")
    session.override("export", {"precision": precision})
    _check_format(format_)
    if out.exists() and not is_bundle(out):
        raise ModelError(f"{out} exists and is not a bundle", hint="choose another --out, or remove the folder")
    path = _checkpoint(session, source)
    if path.suffix in (".pt", ".safetensors"):
        evidence = _evidence(session, images, data)
        config = session.config.export
        with models.trusting(session, trust_pickle, path):
            bundle = models.export_detector(
                session, path, out, precision=config.precision, imgsz=config.imgsz, evidence=evidence
            )
    else:
        bundle = _export_embedder(session, str(path) if path.exists() else source, out, images, data)
    document = {
        "path": str(bundle.path),
        "kind": bundle.kind,
        "name": bundle.name,
        "fingerprint": bundle.fingerprint,
        "agreement": bundle.agreement,
        "bytes": sum(entry["size"] for entry in bundle.files.values()),
    }

    def human() -> None:
        size = document["bytes"] / (1 << 20)
        session.out.line(f"{bundle.kind} {bundle.name} ({bundle.fingerprint[:16]}), {size:.1f} MiB: {out}")
        _print_figures(session, bundle.agreement)

    session.out.result(document, human)
    _warn_if_slower(session, bundle)
    session.out.next(f"fashionrec build-index PHOTOS --{shell_word(bundle.kind)} {shell_word(out)}")


def _check_format(name: str) -> None:
    if name == "engine":
        raise UsageError(
            "TensorRT engine files are no longer written: no command serves them",
            hint="export a bundle and set project.device=tensorrt where it is served: ONNX Runtime builds the engine there",
        )
    if name != "bundle":
        raise UsageError(f"unknown format {name!r}", hint="the only format is bundle")


def _checkpoint(session: Session, source: str) -> Path:
    from fashionrec.models.runs import check_weights, is_run, read_run

    path = Path(source)
    if path.suffix not in (".pt", ".safetensors") and not path.exists():
        check_encoder_name(source, session.config.project)
    check_weights(path)
    if is_run(path):
        return read_run(path).best
    return path


def _evidence(session: Session, images: Path | None, data: Path | None) -> "Evidence":
    from fashionrec.detector.training.evidence import choose_evidence
    from fashionrec.evaluation.detection.evaluator import measure_map

    config = session.config

    def measuring(data: Path, split: str) -> "Measure":
        def measure(detector: "Detector") -> Mapping[str, Any]:
            with session.out.progress("measuring", "photos") as tick:
                return measure_map(detector, data, split, config.evaluate, config.images, progress=tick)

        return measure

    return choose_evidence(images, data, config.export, config.images, measuring)


def _export_embedder(session: Session, source: str, out: Path, images: Path | None, data: Path | None) -> Bundle:
    """Export an encoder; ``source`` may be a float32 bundle to convert to another precision."""
    from fashionrec.photos.decoding import decode_all, spread
    from fashionrec.photos.images import find_photos

    precision = session.config.export.precision
    if data:
        raise UsageError("--data is only for detectors", hint="encoders are tested on the photos of --images")
    photos = list(find_photos(images)) if images else []
    if images and not photos:
        raise DataError(f"no photos in {images}")
    if precision == "fp32":
        return models.export_embedder(session, source, out, photos[:16])
    if not photos:
        raise DataError(f"{precision} must be tested on your photos", hint="--images FOLDER")
    build = session.config.build
    chosen = spread(photos, build.convert_photos)  # as many as a build would use
    decoded = decode_all(
        ((path, path) for path in chosen), session.config.images, timeout=build.photo_timeout, workers=build.workers
    )
    pictures = [photo.pixels for _, photo in decoded if not isinstance(photo, ImageError)]
    if is_bundle(source):
        return models.convert_embedder(session, Bundle.open(source, "embedder", verify=True), out, precision, pictures)
    with tempfile.TemporaryDirectory() as folder:
        exported = models.export_embedder(session, source, Path(folder) / Path(source).name, photos[:16])
        return models.convert_embedder(session, exported, out, precision, pictures)


def _print_figures(session: Session, figures: Mapping[str, Any], indent: str = "  ") -> None:
    for key, value in figures.items():
        if isinstance(value, Mapping):
            session.out.line(f"{indent}{key}:")
            _print_figures(session, value, f"{indent}  ")
        else:
            session.out.line(f"{indent}{key}: {value:.4g}" if isinstance(value, float) else f"{indent}{key}: {value}")


def _warn_if_slower(session: Session, bundle: Bundle) -> None:
    speed = bundle.agreement.get("speed")
    if not speed:
        return
    precision = bundle.spec["precision"]
    session.out.say(
        f"{precision} takes {speed['ms']:.0f} ms per photo here, fp32 {speed['fp32_ms']:.0f} ms:"
        f" {speed['ratio']:.2f} times as fast"
    )
    if speed["ratio"] < 1:
        session.out.warn(
            f"{precision} is slower than fp32 on this machine"
            + (": half precision helps on GPUs, and makes smaller files" if precision == "fp16" else "")
        )
