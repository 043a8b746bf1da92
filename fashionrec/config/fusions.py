"""The registry of fusion formulas: the choices of ``query.fusion``. To add one, add a line."""

#: Name to ``module:function``; a leading dot means ``fashionrec.search``. The function is a
#: :data:`fashionrec.search.fusion.Fusion`.
FUSIONS = {
    "weighted": ".fusion:by_weights",
    "rrf": ".fusion:by_ranks",
}
