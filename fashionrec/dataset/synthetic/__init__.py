"""Synthetic fashion data: labelled photos of drawn clothes, a catalogue, queries and outfits, with
complete ground truth.

``draw_world`` is the entry point; it only needs numpy and Pillow, and the same seed gives the same
bytes.
"""

from __future__ import annotations

from fashionrec.dataset.synthetic.world import WorldSettings, draw_world

__all__ = ["WorldSettings", "draw_world"]
