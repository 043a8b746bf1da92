"""Evaluate a catalogue's search: photos, texts, outfits, and ways to query."""
