"""Train, fine-tune, export and test detectors. Training plane: never imported by serving."""
