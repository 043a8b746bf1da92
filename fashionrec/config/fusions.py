"""How signals can become one score: the names that ``query.fusion`` takes. A new one is one line here."""

#: Name to ``module:function``, from ``fashionrec.search`` where the module begins with a dot. The
#: function is a :data:`fashionrec.search.fusion.Fusion`.
FUSIONS = {
    "weighted": ".fusion:by_weights",
    "rrf": ".fusion:by_ranks",
}
