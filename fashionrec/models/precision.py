"""Choose the precision of a catalogue's models: the fastest that passes its test on the given
photos.

A converted bundle is stored next to its source (``X.int8.bundle``) and reused while its source is
the same. A catalogue keeps its precision unless another one is requested, which embeds everything
again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashionrec.common.documents import read_json
from fashionrec.common.extras import need
from fashionrec.common.files import dump_json, fingerprint, write_atomic
from fashionrec.common.system import user_cache
from fashionrec.errors import DataError, FashionrecError, MissingExtra, ModelError, Refused
from fashionrec.models.bundle import Bundle, is_bundle

if TYPE_CHECKING:
    from fashionrec.config import Config

#: Smaller models (bytes in all) gain nothing noticeable.
SMALL = 4 << 20
_REFUSED = "precision.json"

#: Converts a bundle to a precision in a folder, and tests it on photos. Raises :class:`Refused`,
#: :class:`DataError`.
Convert = Callable[[Bundle, Path, str], Bundle]


def fastest_precision(device: str) -> str:
    """Return the precision to try: int8 on CPUs with instructions for it, fp16 on GPUs."""
    import onnxruntime

    if device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return "fp16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return "fp32"
    return "int8" if {"avx512_vnni", "avx_vnni", "asimddp"} & {*flags} else "fp32"


def choose_precision(
    source: Bundle,
    convert: Convert,
    config: Config,
    *,
    photos: int,
    current: Path | None = None,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    fastest: Callable[[str], str] = fastest_precision,
    need: Callable[..., None] = need,
    small: int = SMALL,
) -> Bundle:
    """Return the bundle to build with: ``source``, or in another precision by
    ``detector.precision`` or ``embedder.precision``.

    Bundles that are not float32 stay as they are; so do those that cannot be converted or fail the
    test, and one line says why.

    Args:
        photos: Number of photos to index: for few, conversion does not pay off.
        current: The bundle of this kind in the previous generation, if any.
        fastest: Returns the precision to try on a device.
        need: Requires a package, as :func:`fashionrec.common.extras.need`.
        small: Minimum bytes of a model.
    """
    wanted: str = getattr(config, source.kind).precision
    if wanted == "fp32" or str(source.spec.get("precision", "fp32")) != "fp32":
        return source
    automatic = wanted == "auto"
    before = _as_built(source, current)
    if before is not None and (automatic or before.spec.get("precision", "fp32") == wanted):
        if before.fingerprint != source.fingerprint:
            say(f"{source.kind}: in {before.spec['precision']}, as the catalogue was built")
        return before
    precision = fastest(config.project.device) if automatic else wanted
    if precision == "fp32" or sum(entry["size"] for entry in source.files.values()) < small:
        return source
    target = _beside(source, precision, Path(config.project.data))
    if (kept := _made_of(source, target)) is not None:
        if automatic and not _pays(kept, config.build.min_speedup):
            return source
        say(f"{source.kind}: in {precision}, {target}")
        return kept
    if automatic and photos < config.build.convert_from:
        return source
    cache = Path(config.project.cache) if config.project.cache else user_cache()
    refusals, key = cache / _REFUSED, fingerprint({"source": source.fingerprint, "precision": precision})
    if automatic and (reason := str(_read(refusals).get(key, ""))):
        say(f"{source.kind}: in fp32, since {precision} failed before: {reason}")
        return source
    try:
        need("onnx", what=precision)
        say(f"{source.kind}: converting to {precision}: {target}")
        made = convert(source, target, precision)
    except MissingExtra as error:
        say(f"{source.kind}: in fp32; {error} ({error.hint})")
        return source
    except (FashionrecError, OSError) as error:  # no writable place next to the source
        if isinstance(error, (Refused, DataError)):
            with suppress(OSError):  # then it is tried again
                refusals.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(refusals, dump_json({**_read(refusals), key: str(error)}))
        warn(f"{source.kind}: in fp32; {error}")
        return source
    if not automatic or _pays(made, config.build.min_speedup):
        return made
    ratio = made.agreement["speed"]["ratio"]
    say(f"{source.kind}: in fp32; {precision} is only {ratio:.2f} times as fast here")
    return source


def _as_built(source: Bundle, current: Path | None) -> Bundle | None:
    """Return the catalogue's own bundle, if it is ``source`` or was made from it."""
    if current is None:
        return None
    bundle = Bundle.open(current, source.kind)
    return bundle if source.fingerprint in (bundle.fingerprint, bundle.source.get("fingerprint")) else None


def _made_of(source: Bundle, target: Path) -> Bundle | None:
    """Return the bundle at ``target``, if it is complete and was made from ``source``."""
    if not is_bundle(target):
        return None
    try:
        bundle = Bundle.open(target, source.kind, verify=True)
    except ModelError:
        return None
    return bundle if bundle.source.get("fingerprint") == source.fingerprint else None


def _beside(source: Bundle, precision: str, data: Path) -> Path:
    """Return ``X.int8.bundle`` next to ``X.bundle``; for bundles in a catalogue, a place among the
    project's other bundles.
    """
    path = source.path
    name = f"{path.name.removesuffix('.bundle')}.{precision}.bundle"
    inside = path.parent.name == "bundles" and (path.parent.parent / "catalogue.json").exists()
    return (data / "bundles" if inside else path.parent) / name


def _pays(bundle: Bundle, min_speedup: float) -> bool:
    ratio = bundle.agreement.get("speed", {}).get("ratio")
    return ratio is None or float(ratio) >= min_speedup


def _read(refusals: Path) -> dict[str, Any]:
    """Return refused conversions and their reasons: a build only tries them again if the precision
    is named explicitly.
    """
    try:
        found = read_json(refusals)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
