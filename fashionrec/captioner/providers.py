"""Captioners by their names in the settings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fashionrec.config.captioners import CAPTIONERS, ENCODER

if TYPE_CHECKING:
    from fashionrec.captioner.base import Captioner
    from fashionrec.config import CaptionerConfig


def captioner_class(name: str) -> type[Captioner]:
    """Return the class of a registered captioner."""
    module, _, attribute = CAPTIONERS[name].partition(":")
    cls: type[Captioner] = getattr(importlib.import_module(module, __package__), attribute)
    return cls


def make_captioner(name: str, config: CaptionerConfig) -> Captioner:
    """Make the captioner of a name; ``auto`` is the first one ready, else the encoder's.

    Raises :class:`ConfigError` for settings that it cannot use.
    """
    if name == "auto":
        name = next((candidate for candidate in CAPTIONERS if captioner_class(candidate).is_ready()), ENCODER)
    return captioner_class(name)(config)


def shared_captioners() -> list[str]:
    """Return the names of the captioners whose captions are valid in every catalogue.

    These are the ones without :attr:`Captioner.from_encoder`.
    """
    return [name for name in CAPTIONERS if not captioner_class(name).from_encoder]


def batch_captioners() -> list[type[Captioner]]:
    """Return the captioners that have batches."""
    return [kind for kind in map(captioner_class, CAPTIONERS) if kind.batch_folder is not None]
