"""Evaluate detectors on labelled photos, compare them, and decide which one is served."""
