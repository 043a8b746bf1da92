"""Captioners by their names in the settings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fashionrec.config.captioners import CAPTIONERS, ENCODER

if TYPE_CHECKING:
    from fashionrec.captioner.base import Captioner
    from fashionrec.config import CaptionerConfig


def captioner_class(name: str) -> type[Captioner]:
    """The class of a registered captioner."""
    module, _, attribute = CAPTIONERS[name].partition(":")
    found: type[Captioner] = getattr(importlib.import_module(module, __package__), attribute)
    return found


def make_captioner(name: str, config: CaptionerConfig) -> Captioner:
    """The captioner of a name; ``auto`` is the first that is ready, else the catalogue's encoder.

    Raises :class:`ConfigError` for settings that it cannot use.
    """
    if name == "auto":
        name = next((one for one in CAPTIONERS if captioner_class(one).is_ready()), ENCODER)
    return captioner_class(name)(config)


def shared_captioners() -> list[str]:
    """The names of those whose captions hold in every catalogue (:attr:`Captioner.from_encoder`)."""
    return [name for name in CAPTIONERS if not captioner_class(name).from_encoder]


def batch_captioners() -> list[type[Captioner]]:
    """The captioners that have batches."""
    return [kind for kind in map(captioner_class, CAPTIONERS) if kind.batch_folder is not None]
