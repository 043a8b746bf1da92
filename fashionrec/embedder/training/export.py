"""From a CLIP in the transformers format to a bundle: two ONNX towers, the tokenizer, the whole preprocessing.

Training plane: imports torch and transformers; loaded by name when something is exported.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer
from torch import nn

from fashionrec.common.files import sha256_file
from fashionrec.embedder.embed import Embedder
from fashionrec.embedder.preprocess import RESAMPLING, pixel_values
from fashionrec.embedder.training.checkpoint import load_clip
from fashionrec.errors import ModelError, Refused
from fashionrec.models.bundle import Bundle, write_bundle
from fashionrec.models.graphs import keep_weights_beside, with_ready
from fashionrec.models.manifest import check_spec

#: What an export may differ by from its source.
MIN_COSINE = 0.9999
MAX_PIXEL = 1e-5  # against transformers' Pillow backend, in units of the normalised tensor
MAX_GREY = 3.0  # against its torchvision backend, in grey levels of 255
OPSET = 17

ODD_TEXTS = (
    "a photo of a red dress",
    "",
    "  two   spaces\tand a tab ",
    "ÀÉÎ straße ﬁ",
    "화이트 셔츠와 체크 패턴 스커트",
    "emoji 👗 and 'quotes' & <tags>",
    "UPPER lower MiXeD 12345 3.14",
    "don't won't it's",
    "a very long text " * 40,
)


class _ImageTower(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return _features(self.model.get_image_features(pixel_values=pixel_values))


class _TextTower(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return _features(self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask))


def export_embedder(
    source: str,
    out: Path,
    *,
    name: str | None = None,
    pictures: Sequence[Image.Image] = (),
    overwrite: bool = False,
    log: Callable[[str], None] | None = None,
) -> Bundle:
    """Export a CLIP to a bundle at ``out`` and measure how well it agrees with its source.

    ``source`` is a Hugging Face id or a local folder in the transformers format. The agreement is measured on
    ``pictures`` (photos), or on some made for the purpose, and kept in the bundle. Vectors are brought to unit
    length when served. Raises :class:`ModelError` where the source cannot be loaded, is no CLIP, or preprocesses in a way
    that is not supported; :class:`Refused` where the export does not agree with it.
    """
    with quiet():
        model, processor, tokenizer = load_clip(source)
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            spec = {
                "dim": int(model.config.projection_dim),
                "logit_scale": float(model.logit_scale.exp()),
                "image": {"input": "pixel_values", **image_spec(processor.to_dict())},
                "text": write_tokenizer(model, tokenizer, work),
            }
            try:
                check_spec("embedder", spec)
            except ValueError as error:
                raise ModelError(f"{source} cannot be exported: {error}") from None
            try:
                export_towers(model, spec, work)
            except (RuntimeError, ValueError, TypeError, IndexError) as error:  # torch's own, and those of its exporter
                reason = " ".join(str(error).split())[:200]
                raise ModelError(f"{source} cannot be exported: {reason}") from None
            for tower in ("image.onnx", "text.onnx"):
                keep_weights_beside(work / tower)
            bundle = write_bundle(
                out,
                kind="embedder",
                name=name or _name(source),
                graphs=with_ready({"image": "image.onnx", "text": "text.onnx"}, work),
                spec=spec,
                source=_source(source, model),
                agreement=check(model, processor, tokenizer, spec, work, pictures or made_up_pictures(), log),
                files={file.name: file for file in sorted(work.iterdir()) if file.is_file()},
                overwrite=overwrite,
            )
    return bundle


def image_spec(settings: dict[str, Any]) -> dict[str, Any]:
    """The serving plane's preprocessing from a CLIP image processor's settings. Raises :class:`ModelError`."""
    try:
        return _image_spec(settings)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(f"the image processor's settings are not understood ({error!r})") from None


def _image_spec(settings: dict[str, Any]) -> dict[str, Any]:
    for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        if not settings.get(step, True):
            raise ModelError(f"the image processor sets {step}=false, which is not supported")
    if settings.get("do_pad"):
        raise ModelError("the image processor pads, which is not supported")
    size, crop = settings["size"], settings["crop_size"]
    if set(size) - {k for k, v in size.items() if v is None} != {"shortest_edge"}:
        raise ModelError(f"the image processor resizes to {size}, and only shortest_edge is supported")
    names = {int(value): name for name, value in RESAMPLING.items()}
    return {
        "shortest_edge": int(size["shortest_edge"]),
        "resample": names[int(settings["resample"])],
        "crop": [int(crop["height"]), int(crop["width"])],
        "scale": float(settings["rescale_factor"]),
        "mean": [float(value) for value in settings["image_mean"]],
        "std": [float(value) for value in settings["image_std"]],
    }


def check(
    model: Any,
    processor: Any,
    tokenizer: Any,
    spec: dict[str, Any],
    work: Path,
    pictures: Sequence[Image.Image],
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure an export in ``work`` against its source; returns the figures. Raises :class:`Refused` where they differ.

    Cosine alone is nearly blind (any two pictures are much alike to an untrained model), so the pixel tensor and the token
    ids are compared too.
    """
    embedder = Embedder(_unwritten(spec, work))
    expected_pixels = processor(images=list(pictures), return_tensors="np")["pixel_values"]
    pixels = pixel_values(pictures, spec["image"])
    pixel_difference = float(np.abs(expected_pixels - pixels).max())
    fast = transformers.CLIPImageProcessor(**_fast_settings(processor))
    grey = np.abs(fast(images=list(pictures), return_tensors="np")["pixel_values"] - pixels)
    grey_difference = float((grey * np.asarray(spec["image"]["std"]).reshape(1, 3, 1, 1) * 255).max())
    tokens = tokenizer(
        list(ODD_TEXTS), padding=True, truncation=True, max_length=_text_limit(model, tokenizer), return_tensors="pt"
    )
    ours = [e.ids for e in embedder.tokenizer.encode_batch(list(ODD_TEXTS))]
    with torch.no_grad():
        images = _features(model.get_image_features(pixel_values=torch.from_numpy(expected_pixels)))
        texts = _features(
            model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        )
    figures = {
        "image_cosine_min": _cosine(images.numpy(), embedder.embed_images(pictures)),
        "text_cosine_min": _cosine(texts.numpy(), embedder.embed_texts(ODD_TEXTS)),
        "pixel_difference_max": pixel_difference,
        "torchvision_grey_levels_max": round(grey_difference, 3),
        "token_ids_equal": tokens["input_ids"].tolist() == ours,
        "pictures": len(pictures),
        "texts": len(ODD_TEXTS),
    }
    if log:
        log(
            f"agreement with the source: image cosine {figures['image_cosine_min']:.7f}, text cosine"
            f" {figures['text_cosine_min']:.7f}, pixels {pixel_difference:.1e}, tokens"
            f" {'equal' if figures['token_ids_equal'] else 'differ'}"
        )
    wrong = [
        words
        for words, good in {
            f"image vectors differ (cosine {figures['image_cosine_min']:.6f})": figures["image_cosine_min"]
            >= MIN_COSINE,
            f"text vectors differ (cosine {figures['text_cosine_min']:.6f})": figures["text_cosine_min"] >= MIN_COSINE,
            f"the pixel tensor differs by {pixel_difference:.2g}": pixel_difference <= MAX_PIXEL,
            f"it differs from torchvision's by {grey_difference:.1f} grey levels": grey_difference <= MAX_GREY,
            "token ids differ": figures["token_ids_equal"],
        }.items()
        if not good
    ]
    if wrong:
        raise Refused(f"the export does not agree with its source: {'; '.join(wrong)}", hint="please report this model")
    return figures


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers, torch's exporter and progress bars off both streams."""
    names = ("transformers", "torch.onnx", "huggingface_hub", "torch")
    before = {name: logging.getLogger(name).level for name in names}
    transformers.utils.logging.disable_progress_bar()
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def export_towers(model: Any, spec: dict[str, Any], work: Path) -> None:
    height, width = spec["image"]["crop"]
    batch = {0: "batch"}
    torch.onnx.export(
        _ImageTower(model).eval(),
        (torch.zeros(2, 3, height, width),),
        str(work / "image.onnx"),
        input_names=["pixel_values"],
        output_names=["image_embeds"],
        dynamic_axes={"pixel_values": batch, "image_embeds": batch},
        opset_version=OPSET,
        dynamo=False,
    )
    ids = torch.full((2, 7), int(spec["text"]["pad_id"]))
    ids[:, 3] = int(model.config.text_config.eos_token_id)
    sequence = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        _TextTower(model).eval(),
        (ids, torch.ones_like(ids)),
        str(work / "text.onnx"),
        input_names=["input_ids", "attention_mask"],
        output_names=["text_embeds"],
        dynamic_axes={"input_ids": sequence, "attention_mask": sequence, "text_embeds": batch},
        opset_version=OPSET,
        dynamo=False,
    )


def write_tokenizer(model: Any, tokenizer: Any, work: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                "the tokenizer cannot be written as tokenizer.json", hint="only fast tokenizers are supported"
            )
        saved = Tokenizer.from_file(str(path))
    saved.no_truncation()
    saved.no_padding()
    saved.save(str(work / "tokenizer.json"))
    if tokenizer.pad_token is None:
        raise ModelError("the tokenizer has no padding token")
    return {
        "tokenizer": "tokenizer.json",
        "max_length": _text_limit(model, tokenizer),
        "pad_id": int(tokenizer.pad_token_id),
        "pad_token": str(tokenizer.pad_token),
    }


def _text_limit(model: Any, tokenizer: Any) -> int:
    """Tokens that the text tower reads, the start and end tokens among them."""
    return min(int(tokenizer.model_max_length), int(model.config.text_config.max_position_embeddings))


def made_up_pictures() -> list[Image.Image]:
    """Make pictures of mixed sizes to compare on: noise and gradients."""
    rng = np.random.default_rng(0)
    pictures = []
    for width, height in ((224, 224), (300, 200), (97, 411), (640, 480), (31, 29), (225, 223), (1, 7)):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((width, height))
        noise = rng.integers(-20, 21, (height, width, 3))
        pictures.append(Image.fromarray(np.clip(np.asarray(coarse, np.int64) + noise, 0, 255).astype(np.uint8)))
    return pictures


def _features(output: Any) -> torch.Tensor:
    """transformers 5 returns an object with ``pooler_output``, earlier ones the tensor itself."""
    features: torch.Tensor = getattr(output, "pooler_output", output)
    return features


def _fast_settings(processor: Any) -> dict[str, Any]:
    settings = processor.to_dict()
    for key in ("image_processor_type", "processor_class", "_processor_class", "data_format", "backend"):
        settings.pop(key, None)
    return settings


def _unwritten(spec: dict[str, Any], work: Path) -> Bundle:
    graphs = {"image": "image.onnx", "text": "text.onnx"}
    return Bundle(work, "embedder", "unwritten", "", graphs, spec, {}, {}, {})


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    product = (a * b).sum(axis=1)
    return float((product / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


def _name(source: str) -> str:
    path = Path(source)
    if not path.exists():
        return source
    return path.parent.parent.name if path.name in ("best", "last") and path.parent.name == "weights" else path.name


def _source(source: str, model: Any) -> dict[str, Any]:
    """What the bundle was made from: an id or a folder's name, never a path of this machine."""
    made = {"name": _name(source), "architecture": type(model).__name__, "transformers": transformers.__version__}
    weights = Path(source) / "model.safetensors"
    if weights.is_file():
        return {**made, "sha256": sha256_file(weights)}
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + value.detach().cpu().numpy().tobytes())
    return {**made, "state_sha256": digest.hexdigest()}
