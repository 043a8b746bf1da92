"""Build a catalogue from photos: detect, crop, embed, and commit a new generation."""
