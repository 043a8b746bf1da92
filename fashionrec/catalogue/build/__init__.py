"""Fill a catalogue from photos: detect, crop, embed, and commit one new generation."""
