"""Encoder families that can be exported: one small module each, behind one interface. Training
plane.

To add one, write its module next to :mod:`clip` (``NAME``, and ``load(folder)``, which returns an
:class:`EmbedderFamily`) and add a line for its ``model_type`` to :data:`MODULES`. Serving only
reads the spec.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fashionrec.embedder.spec import EmbedderSpec
from fashionrec.embedder.training.checkpoint import check_folder, download, read_config
from fashionrec.errors import ModelError
from fashionrec.models.manifest import shown

if TYPE_CHECKING:
    import torch
    from PIL import Image

#: Maps ``model_type`` of a checkpoint's config.json to the module of its family.
MODULES = {"clip": "fashionrec.embedder.training.families.clip"}
_HINT = "give a Hugging Face id, or a folder that save_pretrained wrote"


class EmbedderFamily(Protocol):
    """A loaded checkpoint of one family: the source of an export and its test."""

    model: Any  # in evaluation mode, float32
    tokenizer: Any  # of transformers, fast

    def spec(self) -> EmbedderSpec:
        """Return the spec for serving. Raises :class:`ModelError` for unsupported preprocessing."""

    def image_tower(self) -> torch.nn.Module:
        """Return a module from pixels float32 [n, 3, height, width] to the input of the spec's
        pooling.
        """

    def text_tower(self) -> torch.nn.Module:
        """Return a module from the spec's inputs, in that order, int64 [n, tokens]."""

    def example_tokens(self) -> tuple[torch.Tensor, ...]:
        """Return example inputs of the text tower for tracing, int64 [2, tokens]."""

    def tokens(self, texts: Sequence[str]) -> Mapping[str, torch.Tensor]:
        """Return the text tower's inputs as made by the family's own library."""

    def pixels(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return the image tower's input as made by the family's own library with Pillow."""

    def pixels_by_torchvision(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return the same by its library's torchvision backend."""


def load_checkpoint(source: str, modules: Mapping[str, str] = MODULES) -> EmbedderFamily:
    """Load a Hugging Face id or a folder in the transformers format with its family.

    Raises :class:`ModelError` if it cannot be loaded, is of an unknown family, or is incomplete.
    """
    local = Path(source).exists()
    try:
        folder = Path(source) if local else download(source)
        check_folder(folder)
        loaded: EmbedderFamily = family_of(folder, modules).load(folder)
    except ModelError:
        raise
    except Exception as error:  # hub, network, file and format errors of several libraries
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        hint = _HINT if local else f"{_HINT}; without network, use a local copy"
        raise ModelError(f"{source} cannot be loaded: {reason}", hint=hint) from None
    return loaded


def family_of(folder: Path, modules: Mapping[str, str] = MODULES) -> Any:
    """Return the family's module for a checkpoint folder. Raises :class:`ModelError`."""
    kind = read_config(folder).get("model_type")
    if not isinstance(kind, str) or kind not in modules:
        names = " or ".join(importlib.import_module(name).NAME for name in dict.fromkeys(modules.values()))
        raise ModelError(
            f"{folder} is a model of type {shown(kind)}, not {names}", hint=f"only {names} models are supported"
        )
    return importlib.import_module(modules[kind])
