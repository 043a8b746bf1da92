"""A fashion world of its own: labelled photos of drawn clothes, a catalogue, queries and outfits,
with the whole truth.

``draw_world`` is the door; it needs numpy and Pillow only, and the same seed draws the same bytes.
"""

from __future__ import annotations

from fashionrec.dataset.synthetic.world import WorldSettings, draw_world

__all__ = ["WorldSettings", "draw_world"]
