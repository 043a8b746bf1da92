"""SigLIP as a family of encoders, as somebody would add it: nothing but this file and a line in the
registry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from fashionrec.embedder.spec import EmbedderSpec, ImageSpec, TextSpec
from fashionrec.embedder.training.checkpoint import load_model, load_processors, make_config, read_config

NAME = "SigLIP"


def load(folder: Path) -> "Siglip":
    config = make_config(folder, SiglipConfig, read_config(folder), ("initializer_factor",))
    model = load_model(folder, SiglipModel, config, name=NAME)
    return Siglip(model, *load_processors(folder, config, SiglipImageProcessorPil))


@dataclass
class Siglip:
    model: Any
    processor: Any
    tokenizer: Any

    def spec(self) -> EmbedderSpec:
        settings, config = self.processor.to_dict(), self.model.config
        size = settings["size"]
        return EmbedderSpec(
            dim=int(config.vision_config.hidden_size),
            logit_scale=float(self.model.logit_scale.exp()),
            logit_bias=float(self.model.logit_bias),
            scores="sigmoid",
            image=ImageSpec(
                input="pixel_values",
                resize="squash",
                resample=Image.Resampling(int(settings["resample"])).name.lower(),
                crop=(int(size["height"]), int(size["width"])),
                scale=float(settings["rescale_factor"]),
                mean=tuple(settings["image_mean"]),
                std=tuple(settings["image_std"]),
            ),
            text=TextSpec(
                tokenizer="tokenizer.json",
                max_length=int(config.text_config.max_position_embeddings),
                pad_id=int(self.tokenizer.pad_token_id),
                pad_token=str(self.tokenizer.pad_token),
                inputs=("input_ids",),
                padding="max_length",
                special_tokens=1,
            ),
        )

    def image_tower(self) -> nn.Module:
        return Tower(self.model, "image").eval()

    def text_tower(self) -> nn.Module:
        return Tower(self.model, "text").eval()

    def example_tokens(self) -> tuple[torch.Tensor, ...]:
        return (self.tokens(["a", "b c"])["input_ids"],)

    def tokens(self, texts: Sequence[str]) -> Mapping[str, torch.Tensor]:
        length = self.model.config.text_config.max_position_embeddings
        found: Mapping[str, torch.Tensor] = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return found

    def pixels(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        return np.asarray(self.processor(images=list(pictures), return_tensors="np")["pixel_values"])

    def pixels_by_torchvision(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        fast = SiglipImageProcessor(size=dict(self.processor.size), resample=self.processor.resample)
        return np.asarray(fast(images=list(pictures), return_tensors="np")["pixel_values"])


class Tower(nn.Module):
    def __init__(self, model: Any, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found = (
            self.model.get_image_features(pixel_values=values)
            if self.kind == "image"
            else self.model.get_text_features(input_ids=values)
        )
        vectors: torch.Tensor = getattr(found, "pooler_output", found)
        return vectors
