"""A catalogue: opened, built, edited, compacted, indexed anew, exported and imported."""
