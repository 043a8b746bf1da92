"""How good it is: a detector on labelled photos, a search on photos whose product is known."""
