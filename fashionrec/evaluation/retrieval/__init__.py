"""Evaluate a catalogue's search: photos, words, outfits, and ways of asking."""
