"""The encoder: crops and texts to vectors in one space. Serving: `embed`, `preprocess`. Training:
`export`, `train`.
"""
