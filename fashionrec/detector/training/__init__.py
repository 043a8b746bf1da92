"""Train, finetune, export and judge detectors. Training plane: nothing that serves imports it."""
