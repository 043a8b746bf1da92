"""From a question to an answer: detect, embed, search, filter, fuse, one hit per product."""

#: Photos that are detected and embedded together.
BATCH = 8
