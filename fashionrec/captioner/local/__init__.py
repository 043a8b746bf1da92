"""Captions by the catalogue's own encoder: zero-shot attributes, calibrated; no server."""
