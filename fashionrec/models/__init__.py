"""Models on disk: bundles with their manifests, graphs, execution providers, and runs."""
