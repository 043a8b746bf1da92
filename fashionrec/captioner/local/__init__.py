"""Captions by the catalogue's own encoder: zero-shot attributes, calibrated; no server.

``provider.py`` is the captioner that the registry names; it asks ``captioner.py``, which knows vectors alone.
"""
