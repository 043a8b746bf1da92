"""Data sets in the formats of others, and photos chosen for labelling."""
