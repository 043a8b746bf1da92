"""Roboflow: its API, the preprocessing of its versions, and uploads."""
