"""The settings as typed sections with ranges. Defaults are only in ``configs/default.yaml``.

This module does not postpone annotations: every command would compile each of them at its start.
"""

from typing import Annotated, Any, Literal

from fashionrec.config.captioners import CAPTIONERS, TRANSLATORS
from fashionrec.config.fusions import FUSIONS
from fashionrec.config.sections import Before, Bounds, OneOf, Section

Fraction = Annotated[float, Bounds(ge=0.0, le=1.0)]
Positive = Annotated[int, Bounds(ge=1)]
NonNegative = Annotated[int, Bounds(ge=0)]
CaptionKind = Annotated[str, OneOf(["none", "auto"], CAPTIONERS)]


def auto_is_zero(value: Any) -> Any:
    """Convert ``auto`` to 0."""
    return 0 if value == "auto" else value


#: A number that is chosen by measurement if it is 0, also written ``auto``.
Chosen = Annotated[int, Bounds(ge=0), Before(auto_is_zero, {"const": "auto"})]


def as_list(value: Any) -> Any:
    """Convert ``tensorboard`` to ``[tensorboard]``."""
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
    """A section that also accepts every option of ultralytics by its own name."""

    extra = True

    def options(self) -> dict[str, Any]:
        """Return the ultralytics options, without the named fields."""
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
    loggers: Annotated[
        list[Literal["tensorboard", "mlflow", "wandb"]], Before(as_list, {"enum": ["tensorboard", "mlflow", "wandb"]})
    ]


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
    """Token count of an image: ``base``, plus ``tile`` per tile of 512 pixels at high detail."""

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
    fusion: Annotated[str, OneOf([], FUSIONS)]
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
    """All settings, resolved. Sections are attributes: ``config.train.epochs``."""

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
