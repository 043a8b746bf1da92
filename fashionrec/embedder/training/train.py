"""Train a CLIP on garments and their captions: a small one from scratch, or from a checkpoint.

Training plane: imports torch and transformers; imported by name when something is trained.

The loss is CLIP's symmetric contrastive loss (Radford et al., arXiv 2103.00020), in which pairs of
the same product are positives too, plus ``product_weight`` times the supervised contrastive loss
between photos of one product (Khosla et al., arXiv 2004.11362): searches look for the same product
from another side, which captions alone do not teach.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from fashionrec.config import TrainEmbedderConfig
from fashionrec.embedder.training.export import quiet
from fashionrec.embedder.training.families import MODULES, load_checkpoint
from fashionrec.embedder.training.families.clip import Clip, features
from fashionrec.errors import DataError, FashionrecError, ModelError
from fashionrec.models.runs import Run, start_run

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own
STD = (0.26862954, 0.26130258, 0.27577711)
TEMPERATURE = 0.1  # of the supervised contrastive loss
MAX_LENGTH = 32  # tokens of the small CLIP's text tower; captions have about 15
HELD_OUT = 0.1  # share of products whose last photo is held out for monitoring
#: Stored images are larger than the tower's input by this factor, for random crops.
_ZOOM = 1.25


@dataclass(frozen=True)
class Pair:
    """One garment: a function that loads its image (RGB, any size), its caption, and
    its product.
    """

    load: Callable[[], Image.Image]
    caption: str
    product_id: str


#: Called after each epoch with its number, the number of epochs, and the metrics.
Progress = Callable[[int, int, dict[str, Any]], None]


def train_embedder(
    pairs: Sequence[Pair],
    config: TrainEmbedderConfig,
    runs: Path,
    *,
    init: str | None = None,
    families: Mapping[str, str] = MODULES,
    dataset: dict[str, Any] | None = None,
    log: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train, and write a run with ``weights/best`` in the transformers format.

    With ``init`` (a Hugging Face id or folder) that CLIP is fine-tuned, otherwise a small one is
    made. All images are held in memory as uint8. The last photo of some products is held out; a
    fine-tuned model is only promoted if its ``held_out_recall_at_1`` (the product's other photos
    rank first) did not fall. ``families`` are the modules by ``model_type``. Raises
    :class:`DataError` for fewer than eight products, :class:`ModelError` if ``init`` is not a CLIP,
    :class:`FashionrecError` if the loss becomes NaN.
    """
    if len({pair.product_id for pair in pairs}) < 8:
        raise DataError("training an encoder needs photos of at least 8 products")
    verb = "train" if init is None else "finetune"
    with quiet():
        # before there is a run: an incomplete checkpoint must not leave one
        start = _load_clip(init, families) if init else None
    run = start_run(runs / verb, config.name, kind="embedder", verb=verb, exist_ok=config.exist_ok)
    run.seed, run.device = config.seed, str(config.device or "cpu")
    run.config = {"train_embedder": config.model_dump(), "init": init}
    run.dataset = dict(dataset or {})
    try:
        with quiet():
            _train(pairs, config, start, run, log, progress)
    except BaseException:
        run.status = "failed"
        run.save()
        raise
    return run


def _train(
    pairs: Sequence[Pair],
    config: TrainEmbedderConfig,
    init: Clip | None,
    run: Run,
    log: Callable[[str], None] | None,
    progress: Progress | None,
) -> None:
    start = time.perf_counter()
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    device = torch.device(str(config.device) if config.device is not None else "cpu")
    clip = init or _small_clip([p.caption for p in pairs], config)
    model, processor, tokenizer = clip.model, clip.processor, clip.tokenizer
    model.to(device)
    side = int(processor.crop_size["height"])
    products = {name: n for n, name in enumerate(dict.fromkeys(pair.product_id for pair in pairs))}
    labels = np.array([products[pair.product_id] for pair in pairs])
    pictures = load_pictures(pairs, math.ceil(side * _ZOOM))
    tokens = clip.tokens([pair.caption for pair in pairs])
    normal = _Normalise(processor.image_mean, processor.image_std).to(device)
    held = held_out(labels, rng)
    train = np.setdiff1d(np.arange(len(pairs)), held)
    steps = max(1, math.ceil(len(train) / config.batch)) * config.epochs
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=config.lr, betas=(0.9, 0.98), eps=1e-6
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_schedule(step, steps, config.warmup))
    before = _held_out_recall(model, normal, pictures, labels, train, held, side) if init else 0.0
    history: list[dict[str, float]] = []
    for epoch in range(1, config.epochs + 1):
        began = time.perf_counter()
        model.train()
        losses = []
        for picks in batches(labels, train, config.batch, rng):
            index = torch.from_numpy(picks)
            images = normal(augment(pictures[index].to(device), side, config, rng))
            loss = contrastive_loss(model, images, tokens, index, torch.from_numpy(labels[picks]).to(device), config)
            if not torch.isfinite(loss):
                raise FashionrecError(f"the loss became {loss.item()} in epoch {epoch}", hint="lower train_embedder.lr")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0.0, math.log(100.0))
            losses.append(float(loss.detach()))
        figures = {"loss": float(np.mean(losses))}
        if epoch == config.epochs or epoch % 5 == 0:
            recall = _held_out_recall(model, normal, pictures, labels, train, held, side)
            figures["held_out_recall_at_1"] = recall
        history.append({"epoch": float(epoch), **figures})
        if progress:
            progress(epoch, config.epochs, figures)
        taken, last = time.perf_counter() - start, time.perf_counter() - began
        if config.time_limit and taken + last > config.time_limit:
            if log:
                log(f"stopped after epoch {epoch}: another one would exceed train_embedder.time_limit")
            break
    model.eval()
    recall = _held_out_recall(model, normal, pictures, labels, train, held, side)
    folder = run.path / "weights" / "best"
    model.to("cpu").save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    run.weights = {"best": "weights/best"}
    run.metrics = {
        "held_out_recall_at_1": recall,
        "held_out_photos": len(held),
        "loss": history[-1]["loss"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "history": history,
    }
    run.promoted = init is None or recall >= before
    if init is not None:
        words = f"held-out recall@1 went from {before:.3f} to {recall:.3f}"
        run.notes["decision"] = {"promoted": run.promoted, "reasons": [words]}
    run.seconds, run.status = time.perf_counter() - start, "done"
    run.save()


def _load_clip(source: str, families: Mapping[str, str]) -> Clip:
    loaded = load_checkpoint(source, families)
    if not isinstance(loaded, Clip):
        raise ModelError(f"{source} cannot be trained: only CLIP models can", hint="`fashionrec export` can export it")
    return loaded


def _small_clip(captions: Sequence[str], config: TrainEmbedderConfig) -> Clip:
    """Create transformers' CLIPModel in a small configuration, with a byte-pair tokenizer learned
    from the captions.
    """
    tokenizer = learn_tokenizer(captions, config.vocab_size)
    clip = CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": config.text_width,
            "intermediate_size": 4 * config.text_width,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": max(1, config.text_width // 32),
            "max_position_embeddings": MAX_LENGTH,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "projection_dim": config.dim,
        },
        vision_config={
            "hidden_size": config.width,
            "intermediate_size": 4 * config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "projection_dim": config.dim,
        },
        projection_dim=config.dim,
    )
    side = {"height": config.image_size, "width": config.image_size}
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": config.image_size}, crop_size=side, image_mean=list(MEAN), image_std=list(STD)
    )
    return Clip(CLIPModel(clip), processor, tokenizer)


def learn_tokenizer(captions: Sequence[str], vocab_size: int) -> Any:
    """Learn a CLIP-style byte-level BPE: lower case, a start and an end token around every text,
    padded with the end token.
    """
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(unk_token=end, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[start, end],
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    ids = [(token, int(tokenizer.token_to_id(token) or 0)) for token in (start, end)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        unk_token=end,
        model_max_length=MAX_LENGTH,
        padding_side="right",
    )


class _Normalise(nn.Module):
    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convert images in 0..1 to the tower's input."""
        return (images - self.mean) / self.std  # type: ignore[operator]


def load_pictures(pairs: Sequence[Pair], side: int) -> torch.Tensor:
    """Load images as uint8 [n, 3, side, side]: short side resized, then centre-cropped, as the
    processor does at its own size.
    """
    pictures = np.empty((len(pairs), 3, side, side), np.uint8)
    for n, pair in enumerate(pairs):
        image = pair.load().convert("RGB")
        short = min(image.size)
        size = (max(side, round(side * image.width / short)), max(side, round(side * image.height / short)))
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        pictures[n] = np.asarray(image.crop((left, top, left + side, top + side))).transpose(2, 0, 1)
    return torch.from_numpy(pictures)


def augment(images: torch.Tensor, side: int, config: TrainEmbedderConfig, rng: np.random.Generator) -> torch.Tensor:
    """Augment to float32 [n, 3, side, side] in 0..1: flip, rotate, crop and change the light, in
    one resampling.
    """
    count = len(images)

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, count).astype(np.float32)).to(images.device)

    zoom = 1 - draw(0, config.scale) + draw(0, 0.1)
    flip = torch.where(draw(0, 1) < 0.5, -1.0, 1.0) if config.flip else torch.ones(count, device=images.device)
    angle = draw(-0.2, 0.2)
    room = (1 - zoom).abs()
    theta = torch.zeros(count, 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 0, 1], theta[:, 0, 2] = zoom * flip * angle.cos(), -zoom * angle.sin(), room * draw(-1, 1)
    theta[:, 1, 0], theta[:, 1, 1], theta[:, 1, 2] = zoom * flip * angle.sin(), zoom * angle.cos(), room * draw(-1, 1)
    grid = F.affine_grid(theta, [count, 3, side, side], align_corners=False)
    cut = F.grid_sample(images.float() / 255, grid, mode="bilinear", padding_mode="border", align_corners=False)
    jitter = config.jitter
    gain = (1 + draw(-jitter, jitter)).view(-1, 1, 1, 1)
    white = torch.stack([1 + draw(-jitter / 2, jitter / 2) for _ in range(3)], dim=1).view(-1, 3, 1, 1)
    contrast = (1 + draw(-jitter, jitter)).view(-1, 1, 1, 1)
    mean = cut.mean(dim=(1, 2, 3), keepdim=True)
    return ((cut - mean) * contrast + mean).mul(gain * white).clamp(0, 1)


def contrastive_loss(
    model: Any,
    images: torch.Tensor,
    tokens: Any,
    index: torch.Tensor,
    labels: torch.Tensor,
    config: TrainEmbedderConfig,
) -> torch.Tensor:
    device = images.device
    image = F.normalize(features(model.get_image_features(pixel_values=images)), dim=1)
    text = F.normalize(
        features(
            model.get_text_features(
                input_ids=tokens["input_ids"][index].to(device),
                attention_mask=tokens["attention_mask"][index].to(device),
            )
        ),
        dim=1,
    )
    same = (labels[:, None] == labels[None, :]).float()
    target = same / same.sum(dim=1, keepdim=True)
    logits = model.logit_scale.exp() * image @ text.T
    clip = (
        -(target * F.log_softmax(logits, dim=1)).sum(1).mean() - (target * F.log_softmax(logits.T, dim=1)).sum(1).mean()
    )
    loss = clip / 2
    if config.product_weight:
        loss = loss + config.product_weight * supervised_contrastive(image, same)
    return loss


def supervised_contrastive(vectors: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Compute Khosla et al., equation 2: every other photo of the product is a positive; photos
    without one are skipped.
    """
    itself = torch.eye(len(vectors), device=vectors.device, dtype=torch.bool)
    logits = (vectors @ vectors.T / TEMPERATURE).masked_fill(itself, -1e9)
    positive = same.masked_fill(itself, 0.0)
    counts = positive.sum(1)
    per_photo = -(positive * F.log_softmax(logits, dim=1)).sum(1) / counts.clamp(min=1)
    return per_photo[counts > 0].mean() if bool((counts > 0).any()) else vectors.sum() * 0


def batches(labels: np.ndarray, train: np.ndarray, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Return batches with every training photo once per epoch; photos of one product share a batch
    as far as they fit.
    """
    order: list[int] = []
    by_product: dict[int, list[int]] = {}
    for index in rng.permutation(train):
        by_product.setdefault(int(labels[index]), []).append(int(index))
    for product in rng.permutation(list(by_product)):
        order += by_product[int(product)]
    for start in range(0, len(order), batch):
        part = np.array(order[start : start + batch])
        if len(part) > 1:
            yield part


def held_out(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose the last photo of some products that have others."""
    values, counts = np.unique(labels, return_counts=True)
    candidates = values[counts > 1]
    chosen = rng.permutation(candidates)[: max(1, int(len(candidates) * HELD_OUT))]
    return np.array([np.flatnonzero(labels == value)[-1] for value in chosen], dtype=np.int64)


@torch.no_grad()
def _held_out_recall(
    model: Any,
    normal: nn.Module,
    pictures: torch.Tensor,
    labels: np.ndarray,
    train: np.ndarray,
    held: np.ndarray,
    side: int,
) -> float:
    """Return the share of held-out photos whose nearest training photo is of the same product."""
    if not len(held):
        return 0.0
    model.eval()
    device = next(model.parameters()).device

    def vectors(index: np.ndarray) -> torch.Tensor:
        parts = []
        for start in range(0, len(index), 128):
            images = pictures[torch.from_numpy(index[start : start + 128])].to(device).float() / 255
            images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
            parts.append(F.normalize(features(model.get_image_features(pixel_values=normal(images))), dim=1))
        return torch.cat(parts)

    nearest = (vectors(held) @ vectors(train).T).argmax(dim=1).cpu().numpy()
    return float((labels[train][nearest] == labels[held]).mean())


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Apply weight decay to matrices only, as in CLIP."""
    decay = [p for name, p in model.named_parameters() if p.ndim > 1 and "embedding" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim <= 1 or "embedding" in name]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def cosine_schedule(step: int, steps: int, warmup: float) -> float:
    first = max(1, int(steps * warmup))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - first) / max(1, steps - first))))
