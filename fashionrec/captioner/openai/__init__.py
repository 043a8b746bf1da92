"""Captions by OpenAI, or by any server that speaks its API: one request after another, or in batches."""
