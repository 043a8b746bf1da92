"""Measure quality: a detector on labelled photos, a search on queries with known products."""
