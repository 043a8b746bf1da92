"""Test what `evaluate` measures, value by value: a detector that errs, a search that misses, texts,
outfits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result
from golden import Golden, words_of
from golden_world import DETECTOR, make_dataset, photo

Cli = Callable[..., Result]

#: Photos of products from another side: some found, some not, one of no product of ours, one that
#: is not there.
QUERIES = """\
image,product_id,category
asked/look.bmp,T2,top
asked/look.bmp,P1,pants
asked/look.bmp,S1,skirt
asked/portrait.bmp,D1,dress
asked/portrait.bmp,T3,
asked/sky.bmp,P2,pants
asked/plain.bmp,D2,dress
photos/rose.bmp,T4,top
photos/mustard.bmp,S2,skirt
photos/jeans.bmp,P3,pants
photos/red-back.bmp,T1,top
photos/outfit.bmp,P1,pants
photos/green.bmp,D1,dress
asked/sky.bmp,NONE,pants
asked/gone.bmp,T1,top
"""
TEXTS = """\
image,product_id,text,caption_ko
-,T1,red linen shirt,빨간 셔츠
-,T2,"Brick shirt, short",빨간 반팔
-,P3,blue pants,파란 바지
-,D1,green dress,초록 원피스
-,P1,navy slacks,네이비 슬랙스
-,X1,an unknown thing,알 수 없는 것
-,S1,=2+3 skirt,
-,NONE,white,
"""
LOOKS = """\
image,product_id,category
looks/a.bmp,T1,top
looks/a.bmp,P1,pants
looks/b.bmp,T4,top
looks/b.bmp,P3,pants
looks/c.bmp,T2,top
looks/c.bmp,S1,skirt
looks/d.bmp,T3,top
looks/d.bmp,P2,pants
"""


def test_a_detector(cli: Cli, tmp_path: Path, golden: Golden) -> None:
    make_dataset(tmp_path / "ours")
    asked = ("evaluate", "--weights", "detector", "--data", "ours/data.yaml", "--split", "test", "--quiet")
    (tmp_path / "detector").symlink_to(DETECTOR)
    done = cli(*asked, "--json", "--html", "page.html")
    assert done.code == 0, done.err
    document = done.document
    assert {len(curve) for curve in document["curves"].values()} == {101}
    document["curves"] = {name: curve[::10] for name, curve in document["curves"].items()}
    golden.document("evaluate-detector", document)
    golden.text("evaluate-detector-page", words_of(tmp_path / "page.html"))
    golden.text("evaluate-detector", cli(*asked).out)


def test_a_search_and_what_a_match_is_worth_afterwards(cli: Cli, own_world: Path, golden: Golden) -> None:
    (own_world / "queries.csv").write_text(QUERIES, encoding="utf-8")
    asked = ("evaluate", "--index", "catalogue", "--queries", "queries.csv", "--quiet")
    done = cli(*asked, "--json")
    assert done.code == 0, done.err
    golden.document("evaluate-search", done.document)
    golden.text("evaluate-search", cli(*asked).out)
    question = ("query", "asked/look.bmp", "--index", "catalogue", "-k", 4, "--garment", "top", "--quiet")
    golden.document("query-match", cli(*question, "--json").document)
    masks = {r"\b\d+ ms \([a-z\d, ]*\)": "<milliseconds>"}
    golden.text("query-match", cli(*question).out, masks)


@pytest.mark.parametrize("what", ["texts", "outfits"])
def test_texts_and_outfits(what: str, cli: Cli, own_world: Path, golden: Golden) -> None:
    (own_world / "texts.csv").write_text(TEXTS, encoding="utf-8")
    (own_world / "outfits.csv").write_text(LOOKS, encoding="utf-8")
    photo(own_world / "looks" / "a.bmp", {"a": "red/rose", "d": "navy/blue"})
    photo(own_world / "looks" / "b.bmp", {"b": "rose", "d": "blue/sky"}, (120, 160))
    photo(own_world / "looks" / "c.bmp", {"a": "brick", "c": "yellow"})
    photo(own_world / "looks" / "d.bmp", {"b": "rose/brick"})
    asked = ("evaluate", f"--{what}", f"{what}.csv", "--index", "catalogue", "--quiet")
    done = cli(*asked, "--json")
    assert done.code == 0, done.err
    golden.document(f"evaluate-{what}", done.document)
    golden.text(f"evaluate-{what}", cli(*asked).out)
