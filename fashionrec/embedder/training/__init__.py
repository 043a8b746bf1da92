"""Train, export and judge encoders. Training plane: nothing that serves imports it."""
