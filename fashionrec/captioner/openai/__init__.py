"""Captions by OpenAI or any server with its API, request by request or in batches."""
