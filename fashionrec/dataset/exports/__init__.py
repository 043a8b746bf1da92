"""Datasets in other formats, and the choice of photos for labelling."""
