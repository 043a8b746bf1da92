"""CLIP: two towers with projections and a learned temperature (Radford et al., arXiv 2103.00020).
Training plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from fashionrec.common.text import plural
from fashionrec.embedder.spec import EmbedderSpec, ImageSpec, TextSpec
from fashionrec.embedder.training.checkpoint import HINT, WHOLE, load_model, load_processors, make_config, read_config
from fashionrec.errors import ModelError

NAME = "CLIP"
#: Tensors that older versions of transformers saved and newer ones compute.
_HARMLESS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")


def load(folder: Path) -> Clip:
    """Load a CLIP from a folder in the transformers format. Raises :class:`ModelError`."""
    own = ("projection_dim", "logit_scale_init_value", "initializer_factor")
    config = make_config(folder, CLIPConfig, read_config(folder), own)
    model = load_model(folder, CLIPModel, config, name=NAME, harmless=_HARMLESS)
    processor, tokenizer = load_processors(folder, config, CLIPImageProcessorPil)
    check_parts(folder, model, processor, tokenizer)
    return Clip(model, processor, tokenizer)


@dataclass
class Clip:
    """A CLIP of transformers: model, Pillow image processor and tokenizer."""

    model: Any
    processor: Any
    tokenizer: Any

    @property
    def max_length(self) -> int:
        """Maximum number of tokens of the text tower, including start and end tokens."""
        return min(int(self.tokenizer.model_max_length), int(self.model.config.text_config.max_position_embeddings))

    def spec(self) -> EmbedderSpec:
        return EmbedderSpec(
            dim=int(self.model.config.projection_dim),
            logit_scale=float(self.model.logit_scale.exp()),
            image=image_spec(self.processor.to_dict()),
            text=TextSpec(
                tokenizer="tokenizer.json",
                max_length=self.max_length,
                pad_id=int(self.tokenizer.pad_token_id),
                pad_token=str(self.tokenizer.pad_token),
            ),
        )

    def image_tower(self) -> nn.Module:
        return _ImageTower(self.model).eval()

    def text_tower(self) -> nn.Module:
        return _TextTower(self.model).eval()

    def example_tokens(self) -> tuple[torch.Tensor, ...]:
        ids = torch.full((2, 7), int(self.tokenizer.pad_token_id))
        ids[:, 3] = int(self.model.config.text_config.eos_token_id)
        return ids, torch.ones_like(ids)

    def tokens(self, texts: Sequence[str]) -> Mapping[str, torch.Tensor]:
        found: Mapping[str, torch.Tensor] = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return found

    def pixels(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        return np.asarray(self.processor(images=list(pictures), return_tensors="np")["pixel_values"])

    def pixels_by_torchvision(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        settings = self.processor.to_dict()
        for key in ("image_processor_type", "processor_class", "_processor_class", "data_format", "backend"):
            settings.pop(key, None)
        fast = CLIPImageProcessor(**settings)
        return np.asarray(fast(images=list(pictures), return_tensors="np")["pixel_values"])


def features(output: Any) -> torch.Tensor:
    """Return the vectors of a tower: transformers 5 returns an object with ``pooler_output``,
    earlier versions the tensor itself.
    """
    vectors: torch.Tensor = getattr(output, "pooler_output", output)
    return vectors


def image_spec(settings: dict[str, Any]) -> ImageSpec:
    """Convert the settings of a CLIP image processor to a spec. Raises :class:`ModelError`."""
    try:
        return _image_spec(settings)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(f"unsupported settings of the image processor ({error!r})") from None


def check_parts(folder: Path, model: Any, processor: Any, tokenizer: Any) -> None:
    """Refuse processors whose image size or vocabulary does not match the towers."""
    towers, side = model.config, model.config.vision_config.image_size
    try:
        crop = [int(processor.crop_size[key]) for key in ("height", "width")]
        limit = min(int(tokenizer.model_max_length), towers.text_config.max_position_embeddings)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ModelError(f"{folder}: unsupported preprocessing ({error!r})", hint=HINT) from None
    wrong = ""
    if crop != [side, side]:
        wrong = f"its image processor makes {crop[1]} x {crop[0]} pixels, its image tower needs {side} x {side}"
    elif len(tokenizer) > towers.text_config.vocab_size:
        wrong = f"its tokenizer has {len(tokenizer)} tokens, its text tower {towers.text_config.vocab_size}"
    elif limit < 3:
        wrong = f"its tokenizer has a limit of {plural(limit, 'token')}"
    elif tokenizer.pad_token is None:
        wrong = "its tokenizer has no padding token"
    if wrong:
        raise ModelError(f"{folder} is inconsistent: {wrong}", hint=WHOLE)


class _ImageTower(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return features(self.model.get_image_features(pixel_values=pixel_values))


class _TextTower(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return features(self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask))


def _image_spec(settings: dict[str, Any]) -> ImageSpec:
    for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        if not settings.get(step, True):
            raise ModelError(f"the image processor sets {step}=false, which is not supported")
    if settings.get("do_pad"):
        raise ModelError("the image processor pads, which is not supported")
    size, crop = settings["size"], settings["crop_size"]
    if set(size) - {k for k, v in size.items() if v is None} != {"shortest_edge"}:
        raise ModelError(f"the image processor resizes to {size}, and only shortest_edge is supported")
    return ImageSpec(
        input="pixel_values",
        shortest_edge=int(size["shortest_edge"]),
        resample=Image.Resampling(int(settings["resample"])).name.lower(),
        crop=(int(crop["height"]), int(crop["width"])),
        scale=float(settings["rescale_factor"]),
        mean=tuple(float(value) for value in settings["image_mean"]),
        std=tuple(float(value) for value in settings["image_std"]),
    )
