"""Talk to Roboflow: its API, what it did to a version's pixels, and uploads."""
