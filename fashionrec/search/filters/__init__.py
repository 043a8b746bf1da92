"""Filters over a catalogue's columns: the expression language and the columns it reads.

``where.parse_where`` makes the text a tree; ``columns.Columns.allowed`` makes the tree a mask over items and vectors, which
``ranking.rank_products`` hands to the search.
"""
