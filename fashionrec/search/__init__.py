"""Answer queries: detect, embed, search, filter, fuse, one hit per product."""

#: Photos per batch of detection and embedding.
BATCH = 8
