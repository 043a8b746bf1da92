"""The precision of a build's models: see :mod:`fashionrec.models.precision`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fashionrec.cli.models import convert_embedder
from fashionrec.common.extras import DETECTOR_PACKAGES, load

if TYPE_CHECKING:
    from fashionrec.catalogue.build.sample import Sample
    from fashionrec.cli.session import Session
    from fashionrec.models.bundle import Bundle
    from fashionrec.products.tables import ProductRow
    from fashionrec.store.generations import Generation


def serving_precision(
    session: Session,
    detector: Bundle | None,
    embedder: Bundle,
    rows: Sequence[ProductRow],
    *,
    current: Generation | None = None,
) -> tuple[Bundle | None, Bundle]:
    """Return the bundles to build with, in the configured precision.

    Conversions are tested on a sample of the photos of ``rows``. ``current`` is the generation
    that the build is based on, if any.
    """
    from fashionrec.catalogue.build.sample import Sample
    from fashionrec.models.precision import choose_precision

    sample = Sample(rows, detector, embedder, session.config)
    converters = {"detector": _convert_detector, "embedder": _convert_embedder}

    def serving(source: Bundle) -> Bundle:
        return choose_precision(
            source,
            partial(converters[source.kind], session, sample),
            session.config,
            photos=len(rows),
            current=current.bundle_path(source.kind) if current else None,
            say=session.out.say,
            warn=session.out.warn,
        )

    return detector and serving(detector), serving(embedder)


def _convert_embedder(session: Session, sample: Sample, source: Bundle, target: Path, precision: str) -> Bundle:
    """Convert an encoder to another precision, and test it on the sample's garments.

    Raises :class:`Refused`.
    """
    crops = sample.crops
    return convert_embedder(
        session, source, target, precision, crops.pictures, products=crops.products, photos=crops.photos
    )


def _convert_detector(session: Session, sample: Sample, source: Bundle, target: Path, precision: str) -> Bundle:
    """Convert a detector to another precision: calibrate and test it on halves of the sample.

    Raises :class:`Refused`.
    """
    module = load("fashionrec.detector.training.export", what=f"a detector in {precision}", packages=DETECTOR_PACKAGES)
    paths = sample.paths()
    evidence = module.Evidence(
        photos=paths[::2] or paths, calibration=paths[1::2] or paths, limits=session.config.images
    )
    bundle: Bundle = module.convert_detector(source, target, precision, evidence, overwrite=True, log=session.out.say)
    return bundle
