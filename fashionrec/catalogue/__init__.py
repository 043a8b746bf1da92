"""Catalogues: open, build, edit, compact, reindex, export and import."""
