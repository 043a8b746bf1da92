"""The kinds of encoders that are exported, one small module each, behind one interface. Training plane.

To add a kind, write its module beside :mod:`clip` (``NAME``, and ``load(folder)``, which returns an
:class:`EmbedderFamily`) and give its ``model_type`` a line in :data:`MODULES`. What serves reads the spec alone.
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

#: The ``model_type`` of a checkpoint's config.json, and the module of its family.
MODULES = {"clip": "fashionrec.embedder.training.families.clip"}
_HINT = "give a Hugging Face id, or a folder that save_pretrained wrote"


class EmbedderFamily(Protocol):
    """A loaded checkpoint of one kind: what an export is made of, and held against."""

    model: Any  # in evaluation mode, float32
    tokenizer: Any  # of transformers, fast

    def spec(self) -> EmbedderSpec:
        """Say how it is served. Raises :class:`ModelError` for preprocessing that is not supported."""

    def image_tower(self) -> torch.nn.Module:
        """Return a module of pixels float32 [n, 3, height, width]; it answers what the spec's pooling takes."""

    def text_tower(self) -> torch.nn.Module:
        """Return a module of the inputs that the spec names, in that order, int64 [n, tokens]."""

    def example_tokens(self) -> tuple[torch.Tensor, ...]:
        """Return inputs of the text tower to trace it by, int64 [2, tokens]."""

    def tokens(self, texts: Sequence[str]) -> Mapping[str, torch.Tensor]:
        """Return the text tower's inputs as the family's own library makes them."""

    def pixels(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return the image tower's input as the family's own library makes it with Pillow."""

    def pixels_by_torchvision(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return the same by its library's torchvision backend."""


def load_checkpoint(source: str, modules: Mapping[str, str] = MODULES) -> EmbedderFamily:
    """Load a Hugging Face id or a folder in the transformers format by its family.

    Raises :class:`ModelError` where it cannot be loaded, is of no family that is known, or is not whole.
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
        hint = _HINT if local else f"{_HINT}; without a network, the folder of a copy"
        raise ModelError(f"{source} cannot be loaded: {reason}", hint=hint) from None
    return loaded


def family_of(folder: Path, modules: Mapping[str, str] = MODULES) -> Any:
    """Return the family's module for a checkpoint's folder. Raises :class:`ModelError`."""
    kind = read_config(folder).get("model_type")
    if not isinstance(kind, str) or kind not in modules:
        names = " or ".join(importlib.import_module(name).NAME for name in dict.fromkeys(modules.values()))
        raise ModelError(
            f"{folder} is a model of type {shown(kind)}, not a {names}", hint=f"only {names} models are supported"
        )
    return importlib.import_module(modules[kind])
