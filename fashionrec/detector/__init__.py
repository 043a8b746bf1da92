"""The detector: photos to garments. Serving: `detect`, `decode`, `preprocess`. Training: `train`,
`finetune`, `export`.
"""
