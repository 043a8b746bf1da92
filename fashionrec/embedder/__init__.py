"""The encoder: crops and words to vectors in one space. Serving: `embed`, `preprocess`. Training: `export`, `train`."""
