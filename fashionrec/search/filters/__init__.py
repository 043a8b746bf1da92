"""Filters on a catalogue's columns: the expression language and the columns it reads.

``where.parse_where`` parses the text into a tree; ``columns.Columns.allowed`` turns the tree into a
mask over items and vectors, which ``ranking.rank_products`` passes to the search.
"""
