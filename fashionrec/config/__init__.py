"""Settings: one YAML file names every one (``configs/default.yaml``); layers above it may change, never add.

Order: defaults < ``--config FILE`` < ``FASHIONREC_SECTION__KEY`` environment < ``--set section.key=value`` <
the command's own option (``-k 5``). The models here say what type each setting has; they hold no defaults, so a default is
written in one place only.
Settings are read at the edge (the command line) and passed down as these objects.

This module does not postpone annotations: every command would compile each of them as it starts.
"""

import copy
import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fashionrec.common import documents
from fashionrec.common.documents import DocumentError, parse_yaml
from fashionrec.config.captioners import CAPTIONERS, TRANSLATORS
from fashionrec.config.sections import Before, Bounds, Invalid, OneOf, Section
from fashionrec.config.yolo_options import YOLO_OPTIONS
from fashionrec.errors import ConfigError

ENV_PREFIX = "FASHIONREC_"
#: Short names in the environment for what people set most.
ENV_SHORT = {"FASHIONREC_INDEX": "query.index"}
#: In the environment for other purposes; never settings.
ENV_OTHER = frozenset({"FASHIONREC_REALDATA"})

#: Settings of versions before, and what to do without them.
REMOVED = {"evaluate.k": "take it out: it changed nothing, a search is always measured at 1, 5 and 10"}

Fraction = Annotated[float, Bounds(ge=0.0, le=1.0)]
Positive = Annotated[int, Bounds(ge=1)]
NonNegative = Annotated[int, Bounds(ge=0)]
CaptionKind = Annotated[str, OneOf(["none", "auto"], CAPTIONERS)]


def auto_is_zero(value: Any) -> Any:
    """``auto`` for 0."""
    return 0 if value == "auto" else value


#: A number that is chosen by measurement where it is 0, which is also written ``auto``.
Chosen = Annotated[int, Bounds(ge=0), Before(auto_is_zero)]


def as_list(value: Any) -> Any:
    """``tensorboard`` for ``[tensorboard]``: one word needs no brackets."""
    return [value] if isinstance(value, str) else value


class ProjectConfig(Section):
    data: str
    runs: str
    threads: Chosen
    device: Literal["auto", "cpu", "cuda", "tensorrt"]
    cache: str | None


class ImagesConfig(Section):
    max_pixels: Positive
    max_bytes: Positive
    scaled_decoding: Literal["auto", "never"]


class DatasetConfig(Section):
    seed: NonNegative
    max_ratio: Annotated[float, Bounds(ge=1)]
    max_unpacked: Positive
    max_members: Positive
    follow_links: bool
    map: dict[str, str | None]
    unlabelled: Literal["background", "drop"]
    empty: Literal["background", "drop"]
    unknown_class: Literal["drop", "drop-photo", "fail"]
    outside: Literal["clip", "drop"]
    min_side: Annotated[float, Bounds(ge=0)]
    repeated_iou: Fraction
    exif_boxes: Literal["auto", "upright", "stored"]
    resize: Literal["none", "fit", "letterbox", "stretch"]
    imgsz: Annotated[int, Bounds(ge=32)]
    equalize: Annotated[float, Bounds(ge=0)]
    equalize_tiles: Positive
    quality: Annotated[int, Bounds(ge=1, le=100)]
    workers: NonNegative
    split: Literal["auto", "keep", "ratios"]
    ratios: Annotated[list[Fraction], Bounds(min_length=3, max_length=3)]
    counts: Annotated[list[NonNegative], Bounds(min_length=3, max_length=3)] | None
    near_duplicates: Annotated[int, Bounds(ge=-1, le=128)]
    augment: Literal["fly", "copies", "none"]
    copies: Positive
    fliplr: Fraction
    flipud: Fraction
    degrees: Annotated[float, Bounds(ge=0, le=180)]


class FeedConfig(Section):
    columns: dict[str, str | list[str] | None]
    currency: str
    user_agent: str
    robots: bool
    connections: Positive
    per_host: Positive
    timeout: Annotated[float, Bounds(gt=0)]
    total_timeout: Annotated[float, Bounds(gt=0)]
    retries: NonNegative
    backoff: Annotated[float, Bounds(ge=0)]
    redirects: NonNegative
    max_bytes: Positive
    allow_private: bool
    max_failures: Fraction


class RoboflowConfig(Section):
    api_url: str | None
    batch: str | None
    limit: Positive
    timeout: Annotated[float, Bounds(gt=0)]
    retries: NonNegative
    wait: Annotated[float, Bounds(ge=0)]


class AuditConfig(Section):
    min_images: NonNegative
    max_imbalance: Annotated[float, Bounds(ge=1)]
    tiny: Fraction
    whole: Fraction
    max_aspect: Annotated[float, Bounds(ge=1)]
    same_box: Fraction
    min_pixels: NonNegative
    disagree: Fraction
    thumbnails: NonNegative
    allow: list[str]


class SyntheticConfig(Section):
    images: NonNegative
    products: NonNegative
    views: Annotated[int, Bounds(ge=2)]
    queries: NonNegative
    outfits: NonNegative
    seed: NonNegative
    size: Annotated[int, Bounds(ge=64, le=2048)]
    style: Literal["mixed", "studio", "street"]
    class_weights: Annotated[list[float], Bounds(min_length=5, max_length=5)]


class YoloSection(Section):
    """A section that also takes every option of ultralytics under its own name."""

    extra = True

    def options(self) -> dict[str, Any]:
        """The ultralytics options set beside the named fields."""
        return self.others


class TrainConfig(YoloSection):
    data: str | None
    model: str
    name: str | None
    exist_ok: bool
    epochs: Positive
    patience: NonNegative
    batch: int | float
    imgsz: Positive
    device: int | str | list[int] | None
    workers: NonNegative
    seed: NonNegative
    optimizer: str
    lr0: Annotated[float, Bounds(gt=0)]
    resume: bool
    balance: Literal["none", "sample", "loss"]
    loggers: Annotated[list[Literal["tensorboard", "mlflow", "wandb"]], Before(as_list)]


class FinetuneConfig(YoloSection):
    weights: str | None
    data: str | None
    replay: str | None
    replay_ratio: Annotated[float, Bounds(ge=0)]
    name: str | None
    exist_ok: bool
    epochs: Positive
    patience: NonNegative
    batch: int | float
    imgsz: Positive | None
    device: int | str | list[int] | None
    workers: NonNegative
    seed: NonNegative
    optimizer: str
    lr0: Annotated[float, Bounds(gt=0)]
    nbs: Positive
    warmup_epochs: Annotated[float, Bounds(ge=0)]
    warmup_bias_lr: Annotated[float, Bounds(ge=0)]
    freeze: int | list[int] | None
    interpolate: list[Fraction]
    tolerance: Annotated[float, Bounds(ge=0)]
    distill: Annotated[float, Bounds(ge=0)]
    resamples: Annotated[int, Bounds(ge=100)]
    confidence: Annotated[float, Bounds(gt=0.5, lt=1)]
    certain: bool
    disagree: Fraction


class TrainEmbedderConfig(Section):
    name: str | None
    exist_ok: bool
    epochs: Positive
    batch: Positive
    lr: Annotated[float, Bounds(gt=0)]
    weight_decay: Annotated[float, Bounds(ge=0)]
    warmup: Fraction
    product_weight: Annotated[float, Bounds(ge=0)]
    image_size: Positive
    patch_size: Positive
    width: Positive
    layers: Positive
    heads: Positive
    text_width: Positive
    text_layers: Positive
    dim: Positive
    vocab_size: Annotated[int, Bounds(ge=300)]
    flip: bool
    jitter: Fraction
    scale: Annotated[float, Bounds(ge=0, lt=1)]
    device: int | str | None
    seed: NonNegative
    time_limit: Annotated[float, Bounds(ge=0)]


class DetectorConfig(Section):
    source: str | None
    conf: Fraction
    iou: Fraction
    max_garments: Positive
    batch: Chosen
    rectangular: bool
    precision: Literal["auto", "fp32", "fp16", "int8"]


class OverlapConfig(Section):
    fp16: Fraction
    int8: Fraction


class EmbedderConfig(Section):
    source: str
    batch: Chosen
    precision: Literal["auto", "fp32", "fp16", "int8"]
    max_points_lost: Annotated[float, Bounds(ge=0)]
    min_overlap: OverlapConfig


class CropConfig(Section):
    margin: Fraction
    square: bool
    pad: Annotated[int, Bounds(ge=0, le=255)]


class ImageTokensConfig(Section):
    """How a model counts the tokens of a picture: ``base``, and ``tile`` for each tile of 512 pixels where it looks closely."""

    base: NonNegative
    tile: NonNegative


class CaptionModelConfig(Section):
    parameters: dict[str, Any]
    input_price: float | None
    output_price: float | None
    batch_price: Fraction
    image_tokens: ImageTokensConfig | None
    shutdown: str | None
    replacement: str | None


class CaptionBatchConfig(Section):
    requests: Positive
    bytes: Positive
    poll: Annotated[float, Bounds(gt=0)]
    attempts: Positive


class CaptionerConfig(Section):
    kind: Annotated[str, OneOf(["auto"], CAPTIONERS)]
    model: str
    base_url: str | None
    timeout: Annotated[float, Bounds(gt=0)]
    retries: NonNegative
    concurrency: Positive
    image_side: Annotated[int, Bounds(ge=32)]
    image_quality: Annotated[int, Bounds(ge=1, le=100)]
    image_detail: Literal["auto", "low", "high"]
    vocabulary: str | None
    cache: str | None
    max_cost: Annotated[float, Bounds(ge=0)] | None
    warn_days: NonNegative
    unknown_below: Fraction
    batch: CaptionBatchConfig
    models: dict[str, CaptionModelConfig]


class BuildConfig(Section):
    detect: bool
    whole_photo: bool
    caption: CaptionKind
    thumbnail: Annotated[int, Bounds(ge=16, le=4096)]
    category_columns: list[str]
    max_failures: Fraction
    max_delete: Fraction
    photo_timeout: Annotated[float, Bounds(gt=0)]
    workers: NonNegative
    measure_from: NonNegative
    convert_from: NonNegative
    convert_photos: Positive
    min_speedup: Annotated[float, Bounds(ge=1)]
    checkpoint: Positive
    rehash: bool
    max_segments: Positive
    max_dead: Fraction


class IndexConfig(Section):
    vectors: Literal["float32", "float16"]
    type: Literal["auto", "flat", "ivf", "hnsw"]
    exact_below: NonNegative
    recall: Fraction
    max_memory: Positive | None
    max_latency_ms: Annotated[float, Bounds(gt=0)] | None
    depth: Annotated[int, Bounds(ge=10)]
    queries: Annotated[int, Bounds(ge=10)]
    rebuild_above: Fraction
    max_beside: NonNegative
    seed: NonNegative


class GoesWithConfig(Section):
    wearers: Positive
    lookalikes: Positive
    wearer: Annotated[float, Bounds(gt=0)]
    worn: Annotated[float, Bounds(gt=0)]


class QueryConfig(Section):
    index: str | None
    k: Positive
    garment: str
    min_score: float
    same_class: Annotated[float, Bounds(ge=0)]
    caption: CaptionKind
    caption_weight: Fraction
    lexical_weight: Fraction
    fusion: Literal["weighted", "rrf"]
    translate: Annotated[str, OneOf(["none"], TRANSLATORS)]
    hide_unavailable: bool
    where: str | None
    diversity: Fraction
    words_weight: Annotated[float, Bounds(ge=0)]
    goes_with: GoesWithConfig


class EvaluateConfig(Section):
    split: Literal["train", "valid", "test"]
    conf: Fraction
    iou: Fraction
    max_det: Positive
    worst: NonNegative


class ExportToleranceConfig(Section):
    fp32: Annotated[float, Bounds(ge=0)]
    fp16: Annotated[float, Bounds(ge=0)]
    int8: Annotated[float, Bounds(ge=0)]


class ExportConfig(Section):
    precision: Literal["fp32", "fp16", "int8"]
    imgsz: Positive | None
    calibration: Positive
    tolerance: ExportToleranceConfig


class CompareConfig(Section):
    models: list[str]
    data: str | None
    epochs: Positive
    imgsz: Positive
    batch: Positive
    device: int | str | list[int] | None
    workers: NonNegative
    seed: NonNegative
    split: Literal["train", "valid", "test"]
    batches: Annotated[list[Positive], Bounds(min_length=1)]
    seconds: Annotated[float, Bounds(gt=0)]


class DemoSecondConfig(Section):
    images: Positive
    style: Literal["mixed", "studio", "street"]
    seed: NonNegative
    class_weights: Annotated[list[float], Bounds(min_length=5, max_length=5)]


class DemoConfig(Section):
    second: DemoSecondConfig
    examples: Positive


class Config(Section):
    """Every setting, resolved. Sections are attributes: ``config.train.epochs``."""

    project: ProjectConfig
    images: ImagesConfig
    dataset: DatasetConfig
    feed: FeedConfig
    roboflow: RoboflowConfig
    audit: AuditConfig
    synthetic: SyntheticConfig
    train: TrainConfig
    finetune: FinetuneConfig
    train_embedder: TrainEmbedderConfig
    detector: DetectorConfig
    embedder: EmbedderConfig
    crop: CropConfig
    captioner: CaptionerConfig
    build: BuildConfig
    index: IndexConfig
    query: QueryConfig
    evaluate: EvaluateConfig
    export: ExportConfig
    compare: CompareConfig
    demo: DemoConfig


@dataclass(frozen=True)
class Resolved:
    """A :class:`Config` and, for each dotted key, where its value came from."""

    config: Config
    values: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)


def config_dir() -> Path:
    """The folder of the shipped YAML files: inside an installed package, beside it in a checkout."""
    inside = Path(__file__).parent.parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent / "configs"


def load_config(
    files: Iterable[str | Path] = (),
    sets: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
) -> Resolved:
    """Merge the layers and check them.

    ``files`` are YAML paths, or names of shipped ones (``demo``); ``sets`` are ``section.key=value`` with YAML values.
    Raises :class:`ConfigError` for an unknown key (naming the nearest real one), a wrong type, or a broken file.
    """
    tree = copy.deepcopy(_defaults())
    origins: dict[str, str] = {}
    for file in files:
        path = _find_file(file)
        _merge(tree, read_yaml(path), str(file), origins)
    environment = os.environ if env is None else env
    for name in sorted(environment):
        if not name.startswith(ENV_PREFIX) or name in ENV_OTHER:
            continue
        dotted = ENV_SHORT.get(name) or name[len(ENV_PREFIX) :].lower().replace("__", ".")
        _merge(tree, _nest(dotted, parse_value(environment[name])), f"environment {name}", origins)
    for assignment in sets:
        dotted, value = parse_assignment(assignment)
        _merge(tree, _nest(dotted, value), f"--set {assignment}", origins)
    try:
        config = Config.model_validate(tree)
    except Invalid as wrong:
        dotted = ".".join(wrong.path)
        origin = next((origins[key] for key in _prefixes(dotted) if key in origins), "default")
        raise ConfigError(
            f"{dotted}: {wrong.message}, not {wrong.value!r} ({origin})",
            hint="`fashionrec config show` lists every setting with its value",
        ) from None
    return Resolved(config, dict(flatten(tree)), origins)


@lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    return read_yaml(config_dir() / "default.yaml")


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is read as YAML. Raises :class:`ConfigError`."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"{text!r} is not key=value", hint="for example --set query.k=20")
    return key.strip(), parse_value(value)


def parse_value(text: str) -> Any:
    """One value as YAML reads it (``1e-3`` is a number too); text that is no YAML stays text."""
    try:
        value = parse_yaml(text)
    except DocumentError:
        return text
    if isinstance(value, str) and value == text.strip():  # what is quoted stays text
        try:
            return float(value) if any(ch.isdigit() for ch in value) else value
        except ValueError:
            return value
    return value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted keys and their values, in order; tables of free keys stay whole."""
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and dotted not in _FREE:
            yield from flatten(value, f"{dotted}.")
        else:
            yield dotted, value


def nearest(word: str, choices: Iterable[str]) -> str:
    """The hint for a misspelt name: the nearest real one, or nothing."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"did you mean {found[0]}?" if found else ""


_FREE = frozenset({"captioner.models", "dataset.map", "feed.columns"})
_YOLO_SECTIONS = frozenset({"train", "finetune"})


def read_yaml(path: Path, like: str = "configs/default.yaml") -> dict[str, Any]:
    """The mapping in a YAML file; ``like`` is what the hint shows. Raises :class:`ConfigError`."""
    try:
        tree = documents.read_yaml(path, pipe=True)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except DocumentError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no sections", hint=f"it should look like {like}")
    return tree


def _find_file(name: str | Path) -> Path:
    """The file of a setting's source: a name (``demo``, ``demo.yaml``) is a shipped one where there is one; a path is a path."""
    path, shipped = Path(name), _shipped(name)
    if is_bare(str(name)) and shipped is not None:
        return shipped
    if path.exists():
        return path
    if shipped is not None and len(path.parts) == 2 and path.parts[0] == "configs":
        return shipped
    names = sorted(p.stem for p in config_dir().glob("*.yaml") if p.stem != "attributes")
    raise ConfigError(f"no config file {name}", hint=f"shipped ones: {', '.join(names)}")


def is_bare(name: str) -> bool:
    """Whether something is written as a name, not as a path: ``demo``, ``yolov8l.pt``; not ``./demo``."""
    return "/" not in name and os.sep not in name


def config_note(name: str) -> str:
    """What to tell of a shipped configuration's name that a file of the working folder has too; empty for others."""
    other = next((file for file in (Path(name), Path(f"{name}.yaml")) if file.is_file()), None)
    if not is_bare(name) or other is None or (shipped := _shipped(name)) is None:
        return ""
    return f"--config {name} is the shipped {shipped.name}; the file in this folder is ./{other}"


def _shipped(name: str | Path) -> Path | None:
    path = Path(name)
    shipped = config_dir() / (path.name if path.suffix else f"{path.name}.yaml")
    return shipped if shipped.is_file() else None


def _merge(
    tree: dict[str, Any], layer: Mapping[str, Any], origin: str, origins: dict[str, str], prefix: str = ""
) -> None:
    for key, value in layer.items():
        dotted = f"{prefix}{key}"
        section = prefix.rstrip(".")
        if dotted in REMOVED:
            raise ConfigError(f"the setting {dotted} was removed ({origin})", hint=REMOVED[dotted])
        if key not in tree and not (section in _YOLO_SECTIONS and key in YOLO_OPTIONS) and section not in _FREE:
            choices = [f"{prefix}{name}" for name in tree]
            if section in _YOLO_SECTIONS:
                choices += [f"{prefix}{name}" for name in YOLO_OPTIONS]
            elif not prefix:
                choices += [f"{name}.{sub}" for name, part in tree.items() if isinstance(part, dict) for sub in part]
            hint = nearest(dotted, choices) or "`fashionrec config show` lists every setting"
            raise ConfigError(f"unknown setting {dotted} ({origin})", hint=hint)
        if isinstance(tree.get(key), dict) and section not in _FREE:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{dotted} is a section, not a value ({origin})")
            _merge(tree[key], value, origin, origins, f"{dotted}.")
        else:
            if section == "captioner.models" and isinstance(value, Mapping):
                value = {**(tree.get(key) or tree["other"]), **value}  # what an entry leaves out stays as it is
            tree[key] = value
            origins[dotted] = origin


def _nest(dotted: str, value: Any) -> dict[str, Any]:
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


def _prefixes(dotted: str) -> Iterable[str]:
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        yield ".".join(parts[:end])
