"""evaluate --ways: what is measured of each weight is what a search with it answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Result, two_halves

from fashionrec import Catalogue
from fashionrec.evaluation.retrieval.retrieval import mean_reciprocal_rank, rank_of

MODELS = ("--detector", TINY / "detector", "--embedder", TINY / "embedder")
#: The left half is what the detector takes for a top.
PRODUCTS = {"red": "#ff0000", "pale": "#ff9090", "blue": "#0000ff", "sky": "#9090ff", "violet": "#a000c0"}
#: Colours that a query shows, and the product that it asks for: not always the nearest one.
QUERIES = [("#f01010", "red"), ("#e01818", "pale"), ("#2010f0", "sky"), ("#9000b0", "violet"), ("#c03060", "red")]


@pytest.fixture
def shop(cli: Callable[..., Result], tmp_path: Path) -> Path:
    rows = ["image,product_id,category"]
    for name, colour in PRODUCTS.items():
        two_halves(tmp_path / "p" / f"{name}.png", colour, "white")
        rows.append(f"p/{name}.png,{name},top")
    (tmp_path / "p.csv").write_text("\n".join(rows))
    asked = ["image,product_id"]
    for n, (colour, product) in enumerate(QUERIES):
        two_halves(tmp_path / "q" / f"{n}.png", colour, "white")
        asked.append(f"q/{n}.png,{product}")
    (tmp_path / "q.csv").write_text("\n".join(asked))
    assert cli("build-index", "p.csv", "--index", "c", *MODELS, "--quiet").code == 0
    assert cli("caption", "--index", "c", "--captioner", "local", "--quiet").code == 0
    return tmp_path / "c"


def test_each_weight_is_measured_as_a_search_with_it_answers(
    cli: Callable[..., Result], shop: Path, tmp_path: Path
) -> None:
    found = cli("evaluate", "--ways", "--index", "c", "--queries", "q.csv", "--json").document
    ranks: dict[tuple[int, float | None], int | None] = {}
    with Catalogue.open(shop) as catalogue:
        for n, (_, product) in enumerate(QUERIES):
            for weight in (None, *map(float, found["weights"])):
                options = {} if weight is None else {"caption": "local", "caption_weight": weight}
                answer = catalogue.search(tmp_path / "q" / f"{n}.png", k=100, garment=0, min_score=-1.0, **options)
                (garment,) = answer.garments
                ranks[n, weight] = rank_of(product, [{hit.item.product_id: hit.score for hit in garment.hits}])

    def mrr(numbers: range, weight: float | None) -> float:
        return mean_reciprocal_rank([ranks[n, weight] for n in numbers])

    everything, tuning, judging = range(5), range(0, 5, 2), range(1, 5, 2)
    best = found["caption_weight"]
    assert found["weights"] == {str(weight): mrr(tuning, weight) for weight in map(float, found["weights"])}
    assert found["ways"]["crop, picture"]["mrr"] == mrr(everything, None)
    assert found["ways"]["crop, picture (judged half)"]["mrr"] == mrr(judging, None)
    assert found["ways"]["crop, both (judged half)"]["mrr"] == mrr(judging, best)
    assert len({*found["weights"].values()}) > 1, "weights that change nothing show nothing"
