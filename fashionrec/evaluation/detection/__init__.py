"""Evaluate and compare detectors on labelled photos, and decide which one is served."""
