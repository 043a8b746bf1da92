"""Captions by the catalogue's own encoder: zero-shot attributes, calibrated; no server.

``provider.py`` has the registered captioner; it uses ``captioner.py``, which works on vectors
alone.
"""
