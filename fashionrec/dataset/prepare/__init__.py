"""Prepare a data set: label rules, pixels, groups, splits, and the folder that `train` reads."""
