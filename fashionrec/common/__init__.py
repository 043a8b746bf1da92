"""Utilities for all other packages: the layer below models, catalogues and datasets."""
