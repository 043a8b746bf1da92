"""Test what a text query's score is made of: pictures, captions where they are asked for, and
words.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result

from fashionrec.catalogue.build.report import BuildReport

Cli = Callable[..., Result]


@pytest.fixture
def described(cli: Cli, catalogue: Path) -> Path:
    """A catalogue of which every garment has a caption."""
    assert cli("caption", "--index", catalogue, "--captioner", "local", "-q").code == 0
    return catalogue


def hits(cli: Cli, index: Path, *words: object) -> list[dict[str, Any]]:
    done = cli("query", "--text", "red", "--index", index, "--json", "--explain", *words)
    assert done.code == 0, done.err
    return list(done.document["garments"][0]["hits"])


def test_captions_count_for_a_text_only_where_they_are_asked_for(cli: Cli, described: Path) -> None:
    """By hand: of a score .3 is the words'; of the rest, captions have .3 where they are asked for,
    and the picture what is left.
    """
    for words, share in (((), None), (("--no-caption",), None), (("--caption",), 0.7 * 0.3)):
        found = hits(cli, described, *words)
        assert found[0]["product_id"] in ("red-blue.jpg", "red-white.jpg")
        for hit in found:
            assert set(hit["parts"]) - {"class"} == {"image", "words"} | ({"caption"} if share else set())
            assert hit["parts"]["image"] == pytest.approx((0.7 - (share or 0)) * hit["cosine"], abs=1e-5)
            assert hit["score"] == pytest.approx(sum(hit["parts"].values()), abs=1e-5)
        assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)
        assert max(hit["parts"]["words"] for hit in found) == pytest.approx(0.3)


def test_a_caption_pulls_up_what_it_names(cli: Cli, described: Path) -> None:
    parts = {hit["product_id"]: hit["parts"]["caption"] for hit in hits(cli, described, "--caption")}
    assert parts["red-white.jpg"] > 0.1
    assert parts["red-white.jpg"] > parts["green.jpg"]
    heavier = {
        hit["product_id"]: hit["parts"]["caption"]
        for hit in hits(cli, described, "--caption", "--set", "query.caption_weight=0.6")
    }
    assert heavier == {name: pytest.approx(2 * value, abs=1e-5) for name, value in parts.items()}


def test_words_alone_decide_where_the_encoder_cannot_be_asked(
    cli: Cli, photos: Path, build: Callable[..., BuildReport], tmp_path: Path
) -> None:
    """A brand that the lexicon does not know: the title that holds it scores 1, and there is no
    cosine.
    """
    (tmp_path / "t.csv").write_text("image,product_id,title\nphotos/grey.jpg,a,루이비통\nphotos/green.jpg,b,초록\n")
    build(tmp_path / "t.csv", tmp_path / "c")
    done = cli("query", "--text", "루이비통", "--index", "c", "--json", "--explain")
    assert done.document["notes"][-1] == "the encoder was not used: only matching words count"
    best = done.document["garments"][0]["hits"][0]
    assert (best["product_id"], best["score"], best["cosine"]) == ("a", 1.0, None)
    assert best["parts"] == {"image": 0.0, "words": 1.0}
    for least, count in (("1", 1), ("1.001", 0)):
        enough = cli("query", "--text", "루이비통", "--index", "c", "--json", "--min-score", least)
        assert len(enough.document["garments"][0]["hits"]) == count
    mixed = cli("query", "--text", "빨간 루이비통", "--index", "c", "--json", "--explain")
    assert "the encoder was not asked" not in " ".join(mixed.document["notes"])
    assert mixed.document["garments"][0]["hits"][0]["cosine"] is not None
