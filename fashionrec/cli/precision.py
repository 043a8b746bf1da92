"""The precision that a catalogue's models run in: the fastest that passes its gate on the photos at hand.

A converted bundle is kept beside its source (``X.int8.bundle``) and used again as long as its source is the same. A catalogue
stays in the precision that it was built in, unless another one is asked for: to change it is to embed everything again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.documents import read_json
from fashionrec.common.extras import load, need
from fashionrec.common.files import dump_json, fingerprint, write_atomic
from fashionrec.errors import DataError, FashionrecError, ImageError, MissingExtra, ModelError, Refused
from fashionrec.models.bundle import Bundle, is_bundle

if TYPE_CHECKING:
    from PIL import Image

    from fashionrec.cli.session import Session
    from fashionrec.detector.detect import Detector
    from fashionrec.products.tables import ProductRow
    from fashionrec.store.generations import Generation

#: A model of fewer bytes than this in all gains nothing that anybody would notice.
SMALL = 4 << 20
_REFUSED = "precision.json"


def serving_precision(
    session: Session,
    detector: Bundle | None,
    embedder: Bundle,
    rows: Sequence[ProductRow],
    *,
    current: Generation | None = None,
    means: Means | None = None,
) -> tuple[Bundle | None, Bundle]:
    """The bundles to build with: those given, or in another precision by ``detector.precision`` and ``embedder.precision``.

    ``rows`` are what will be indexed: on a sample of their photos a conversion is made and judged. ``current`` is the generation
    that is built on, if any. What is not float32 already stays as it is; so does what cannot be converted or is refused by its
    gate, and one line says why. ``means`` are what it is done with (default: what is here).
    """
    sample, means = Sample(session, rows, detector), means or Means()
    found = detector and _chosen(session, detector, sample, current, means)
    return found, _chosen(session, embedder, sample, current, means)


@dataclass(frozen=True)
class _Crops:
    pictures: list[Image.Image]
    products: list[str | None]
    photos: list[str]


class Sample:
    """Photos of the rows that a conversion is judged on, decoded once: of products with several photos first, by turns."""

    def __init__(self, session: Session, rows: Sequence[ProductRow], detector: Bundle | None) -> None:
        self.session, self.rows, self.detector = session, rows, detector
        self._crops: _Crops | None = None

    def chosen(self) -> list[ProductRow]:
        wanted = self.session.config.build.convert_photos
        by_product: dict[str, list[ProductRow]] = {}
        for row in self.rows:
            by_product.setdefault(row.product_id, []).append(row)
        several = [rows[:3] for rows in by_product.values() if len(rows) > 1]
        single = [rows[:1] for rows in by_product.values() if len(rows) == 1]
        found: list[ProductRow] = []
        for group in (several, single):
            left = wanted - len(found)
            step = max(1, sum(map(len, group)) // max(1, left))
            for rows in group[::step]:
                found += rows
        return found[:wanted]

    def paths(self) -> list[Path]:
        return list(dict.fromkeys(row.path for row in self.chosen()))

    def crops(self) -> _Crops:
        """Garments of the sample, as a build cuts them. A product's photo is known to show it in its most confident garment."""
        if self._crops is None:
            self._crops = self._cut()
        return self._crops

    def _cut(self) -> _Crops:
        from fashionrec.cli.models import opened_detector
        from fashionrec.photos.decoding import decode_all
        from fashionrec.types import Box

        config = self.session.config
        finder: Detector | None = opened_detector(self.session, self.detector) if self.detector else None
        found = _Crops([], [], [])
        jobs = [(row, row.path) for row in self.chosen()]
        for row, photo in decode_all(
            jobs, config.images, timeout=config.build.photo_timeout, workers=config.build.workers
        ):
            if isinstance(photo, ImageError):
                continue
            boxes = [one.box for one in finder.detect([photo.pixels])[0]] if finder else []
            for n, box in enumerate(boxes or [Box(0, 0, photo.width, photo.height)]):
                found.pictures.append(photo.crop(box, config.crop))
                found.products.append(row.product_id if n == 0 else None)
                found.photos.append(str(row.path))
        return found


Convert = Callable[["Session", Bundle, Path, str, Sample], Bundle]


def _chosen(session: Session, source: Bundle, sample: Sample, current: Generation | None, means: Means) -> Bundle:
    wanted: str = getattr(session.config, source.kind).precision
    if wanted == "fp32" or str(source.spec.get("precision", "fp32")) != "fp32":
        return source
    automatic = wanted == "auto"
    before = _as_built(source, current)
    if before is not None and (automatic or before.spec.get("precision", "fp32") == wanted):
        if before.fingerprint != source.fingerprint:
            session.out.say(f"{source.kind}: in {before.spec['precision']}, as the catalogue was built")
        return before
    precision = means.fastest(session.config.project.device) if automatic else wanted
    if precision == "fp32" or sum(entry["size"] for entry in source.files.values()) < means.small:
        return source
    target = _beside(session, source, precision)
    if (kept := _made_of(source, target)) is not None:
        if automatic and not _pays(session, kept):
            return source
        session.out.say(f"{source.kind}: in {precision}, {target}")
        return kept
    if automatic and len(sample.rows) < session.config.build.convert_from:
        return source
    refusals = _Refusals(session, source, precision)
    if automatic and (reason := refusals.known()):
        session.out.say(f"{source.kind}: in fp32, as {precision} was refused before: {reason}")
        return source
    try:
        means.need("onnx", what=precision)
        session.out.say(f"{source.kind}: making {precision} of it, {target}")
        made = means.convert[source.kind](session, source, target, precision, sample)
    except MissingExtra as error:
        session.out.say(f"{source.kind}: in fp32; {error} ({error.hint})")
    except (Refused, DataError) as error:
        refusals.remember(str(error))
        session.out.warn(f"{source.kind}: in fp32; {error}")
    except (
        FashionrecError,
        OSError,
    ) as error:  # an OSError: there is no place beside the source, or it may not be written to
        session.out.warn(f"{source.kind}: in fp32; {error}")
    else:
        if not automatic or _pays(session, made):
            return made
        ratio = made.agreement["speed"]["ratio"]
        session.out.say(f"{source.kind}: in fp32; {precision} is {ratio:.2f} times as fast here, which does not pay")
    return source


def embedder_converted(session: Session, source: Bundle, target: Path, precision: str, sample: Sample) -> Bundle:
    """The encoder in another precision, judged on the sample's garments. Raises :class:`Refused`."""
    from fashionrec.cli.models import convert_embedder

    crops = sample.crops()
    return convert_embedder(
        session, source, target, precision, crops.pictures, products=crops.products, photos=crops.photos
    )


def detector_converted(session: Session, source: Bundle, target: Path, precision: str, sample: Sample) -> Bundle:
    """The detector in another precision, calibrated and judged on halves of the sample. Raises :class:`Refused`."""
    from fashionrec.cli.models import DETECTOR_PACKAGES

    module = load("fashionrec.detector.training.export", what=f"a detector in {precision}", packages=DETECTOR_PACKAGES)
    paths = sample.paths()
    evidence = module.Evidence(
        photos=paths[::2] or paths, calibration=paths[1::2] or paths, limits=session.config.images
    )
    bundle: Bundle = module.convert_detector(source, target, precision, evidence, overwrite=True, log=session.out.say)
    return bundle


def _as_built(source: Bundle, current: Generation | None) -> Bundle | None:
    """The catalogue's own bundle, where it is ``source`` or was made of it."""
    path = current.bundle_path(source.kind) if current else None
    if path is None:
        return None
    bundle = Bundle.open(path, source.kind)
    return bundle if source.fingerprint in (bundle.fingerprint, bundle.source.get("fingerprint")) else None


def _made_of(source: Bundle, target: Path) -> Bundle | None:
    """The bundle at ``target``, if it is whole and was made of ``source``."""
    if not is_bundle(target):
        return None
    try:
        bundle = Bundle.open(target, source.kind, verify=True)
    except ModelError:
        return None
    return bundle if bundle.source.get("fingerprint") == source.fingerprint else None


def _beside(session: Session, source: Bundle, precision: str) -> Path:
    """``X.int8.bundle`` beside ``X.bundle``; what lies in a catalogue has its own beside the other bundles of the project."""
    path = source.path
    name = f"{path.name.removesuffix('.bundle')}.{precision}.bundle"
    inside = path.parent.name == "bundles" and (path.parent.parent / "catalogue.json").exists()
    return (session.data / "bundles" if inside else path.parent) / name


def _pays(session: Session, bundle: Bundle) -> bool:
    ratio = bundle.agreement.get("speed", {}).get("ratio")
    return ratio is None or float(ratio) >= session.config.build.min_speedup


def fastest_precision(device: str) -> str:
    """What to try here: int8 on CPUs whose instructions are made for it, fp16 on GPUs."""
    import onnxruntime

    if device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return "fp16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return "fp32"
    return "int8" if {"avx512_vnni", "avx_vnni", "asimddp"} & {*flags} else "fp32"


@dataclass(frozen=True)
class Means:
    """What conversions are made with: a converter for each kind of model, the precision to try on a device, what asks for a
    package, and the bytes that a model must have."""

    convert: Mapping[str, Convert] = field(
        default_factory=lambda: {"detector": detector_converted, "embedder": embedder_converted}
    )
    fastest: Callable[[str], str] = fastest_precision
    need: Callable[..., None] = need
    small: int = SMALL


class _Refusals:
    """What was refused is not tried again by every build; asking for the precision by name tries it."""

    def __init__(self, session: Session, source: Bundle, precision: str) -> None:
        from fashionrec.catalogue.build.tuning import cache_folder

        self._file = cache_folder(session.config) / _REFUSED
        self._key = fingerprint({"source": source.fingerprint, "precision": precision})

    def known(self) -> str:
        return str(self._read().get(self._key, ""))

    def remember(self, reason: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._file, dump_json({**self._read(), self._key: reason}))
        except OSError:
            pass  # then it is tried again

    def _read(self) -> dict[str, Any]:
        try:
            found = read_json(self._file)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
