"""Train, export and test encoders. Training plane: never imported by serving."""
