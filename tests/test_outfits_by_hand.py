"""`evaluate --outfits`: what is popular and what is worn with it, by hand; looks that cannot be
asked are counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, two_halves

from fashionrec.catalogue.build.report import BuildReport
from fashionrec.evaluation.retrieval.outfits import Look, looks_from

RED, BLUE, LIGHT = ("#d00000", "#0000c0"), ("red", "blue"), ("#ff3030", "#3030ff")


def rows(photo: str, **products: str) -> list[dict[str, str]]:
    return [{"image": photo, "product_id": product, "category": name} for product, name in products.items()]


@pytest.fixture
def document(cli: Callable[..., Result], tmp_path: Path, build: Callable[..., BuildReport]) -> Any:
    """Light pants are in three photos with a top, blue ones in two; dark tops are worn with the
    blue ones.
    """
    (tmp_path / "p").mkdir()
    table, looks = [], []
    for n in range(2):
        two_halves(tmp_path / f"p/dark{n}.png", *RED, (60 + n, 40))
        table += rows(f"p/dark{n}.png", blue="pants")
    for n in range(3):
        two_halves(tmp_path / f"p/light{n}.png", *LIGHT, (60 + n, 40))
        table += rows(f"p/light{n}.png", light="pants")
    two_halves(tmp_path / "p/top.png", RED[0], "white", (60, 40))
    table += rows("p/top.png", red="top")
    for n in range(3):
        two_halves(tmp_path / f"q{n}.png", *RED, (70 + n, 50))
        looks += rows(f"q{n}.png", red="top", blue="pants")
    two_halves(tmp_path / "q3.png", "white", "white", (70, 50))  # neither is seen
    looks += rows("q3.png", red="top", blue="pants")
    two_halves(tmp_path / "q4.png", *RED, (75, 50))  # nobody knows what it is worn with
    looks += rows("q4.png", red="top", unheard="pants")
    two_halves(tmp_path / "q5.png", *RED, (76, 50))
    looks += rows("q5.png", red="top", blue="pants", light="dress")  # the catalogue has it as pants
    looks += rows("q0.png", red="hat") + rows("q9.png", blue="pants")  # no look: a class that is none, one product
    for name, content in (("t", table), ("looks", looks)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    assert build(tmp_path / "t.jsonl", tmp_path / "c").failures == []
    limits = ("--set", "query.k=1", "--set", "query.goes_with.worn=0.5", "--set", "query.goes_with.wearer=100")
    done = cli("evaluate", "--index", "c", "--outfits", "looks.jsonl", "--json", *limits)
    assert done.code == 0, done.err
    return done.document


def figures(scores: Any) -> tuple[int, float, float]:
    return scores["queries"], scores["recall_at_1"], scores["mrr"]


def test_every_second_look_judges_and_what_is_popular_is_beaten(document: Any) -> None:
    assert (document["looks"], document["not_seen"]) == (6, 3)
    # looks 1, 3 and 5 judge, of which 3 and the dress are not seen: the top asks for pants and the
    # pants for a top light before blue, and in look 5, which shows light as no answer, blue alone;
    # the only top
    assert figures(document["popularity"]) == (4, 0.75, 0.875)
    assert figures(document["goes_with"]) == (4, 1.0, 1.0)
    # as set here, all wearers count alike and all pants look alike: light before blue
    assert figures(document["as_set"]) == (4, 0.5, 0.75)
    assert document["chosen"] == {"wearer": 0.1, "worn": 0.003}


def test_looks_are_photos_of_several_products_of_known_classes() -> None:
    class Row:
        def __init__(self, image: str, product_id: str, **metadata: str) -> None:
            self.path, self.product_id, self.metadata = Path(image), product_id, metadata

    found = looks_from(
        [
            Row("a.jpg", "1", kind="top"),
            Row("b.jpg", "2", kind="dress"),
            Row("a.jpg", "3", category="pants"),
            Row("a.jpg", "4", kind="hat"),
            Row("c.jpg", "5", kind="top"),
            Row("c.jpg", "5", kind="top"),
            Row("d.jpg", "6", other="top"),
            Row("d.jpg", "7", kind="skirt"),
        ],
        ["kind", "category"],
    )
    assert found == [Look(Path("a.jpg"), {"1": "top", "3": "pants"})]
