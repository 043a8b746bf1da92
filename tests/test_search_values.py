"""Test what a search is made of, by values made by hand: questions, words, prices, merged lists,
pairs, tables, choices.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashionrec.config import load_config
from fashionrec.errors import UsageError
from fashionrec.search.answer import Answer
from fashionrec.search.fusion import by_weights, reciprocal
from fashionrec.search.merging import merge_results, merge_settings
from fashionrec.search.photo import choose_garments
from fashionrec.search.query import Query, resolve_garment
from fashionrec.search.ranking import is_unavailable
from fashionrec.search.render.page import draw_boxes, price, safe_url
from fashionrec.search.render.side_by_side import comparison, paired, pairs
from fashionrec.search.render.tables import COLUMNS, rows_of, write_csv
from fashionrec.search.result import GarmentAnswer, QueryResult
from fashionrec.search.text import named_classes
from fashionrec.search.words import Words, add_translation_notes, parse_words, shift_vector, text_vector
from fashionrec.store.items import StoredItem
from fashionrec.types import Box, Garment, Hit, Item

SETTINGS = load_config(env={}).config.query
BOX = Box(1, 2, 3.456, 4)


def found(
    name: str | None, *products: str, box: Box = BOX, index: int = 0, scores: Sequence[float] | None = None
) -> GarmentAnswer:
    """A garment with products as its hits, scores .9, .8 ..."""
    hits, stored = [], []
    for n, product in enumerate(products, start=1):
        score = scores[n - 1] if scores else 1 - n / 10
        item = Item(f"i-{product}", product, f"{product}.jpg", name, box)
        hits.append(Hit(n, score, item, {"image": score}, score, 50 + n))
        stored.append(StoredItem(item, n, False, n, "f" * 64, "", ("s", n), None, ("t", 0, 0), False, {}))
    return GarmentAnswer(Garment(index, name, None, box), tuple(hits), tuple(stored))


def result(name: str, *garments: GarmentAnswer, **given: Any) -> QueryResult:
    return QueryResult(f"photos/{name}", 10, 20, list(garments), **given)


# -- questions


@pytest.mark.parametrize(
    ("given", "told", "hint"),
    [
        ({}, "give a photo, `text` or `like`", 'fashionrec query photo.jpg, or `text` "a red dress"'),
        ({"photos": ()}, "give a photo, `text` or `like`", 'fashionrec query photo.jpg, or `text` "a red dress"'),
        ({"photos": 3}, "a photo is int", "give a path, bytes, a PIL image or an array"),
        ({"photos": ["a.jpg", 3]}, "a photo is int", "give a path, bytes, a PIL image or an array"),
        ({"photos": "a.jpg", "like": "p"}, "`like` and `unlike` cannot be combined with a photo", ""),
        ({"photos": "a.jpg", "unlike": "p"}, "`like` and `unlike` cannot be combined with a photo", ""),
        ({"unlike": "p"}, "`unlike` needs `like`", ""),
        ({"text": "red", "box": (0, 0, 1, 1)}, "`box` needs a photo", ""),
        (
            {"photos": "a.jpg", "text": ["red", "blue:-1"], "merge": True},
            "`merge` needs at least one positive list",
            "without `merge`, negative texts push a photo away",
        ),
        ({"text": "red:-1"}, "give at least one positive text or photo", 'add `text` "..."'),
        ({"text": ["red:-1", "blue:-0.1"]}, "give at least one positive text or photo", 'add `text` "..."'),
        ({"photos": "a.jpg", "merge": True, "goes_with": True}, "`goes_with` needs single garments, not `merge`", ""),
        ({"text": "red", "goes_with": True}, "`goes_with` needs a photo or `like`", "outfits are known for garments"),
        ({"text": 3}, "`text` should be words, not 3", ""),
        ({"text": ["red", None]}, "`text` should be words, not None", ""),
        ({"like": Words("red", 1.0)}, "`like` should be the id of an item or a product, not Words(text='red', weight=1.0,"
         " english=None, by='the garment lexicon')", ""),
        ({"like": "a", "unlike": 3}, "`unlike` should be the id of an item or a product, not 3", ""),
        ({"text": " "}, "empty text", 'for example --text "a red striped dress"'),
        ({"text": "red:0"}, "weight 0 of 'red' is 0 or outside -10..10", ""),
        ({"text": "red:10.5"}, "weight 10.5 of 'red' is 0 or outside -10..10", ""),
        ({"text": "red", "k": 0}, "`k` should be at least 1, not 0", ""),
        ({"text": "red", "min_score": float("nan")}, "`min_score` should be a number, not nan", ""),
        *(
            ({"photos": "a.jpg", "box": box}, f"`box` needs 4 numbers: X1,Y1,X2,Y2; got {box!r}",
             "pixels of the upright photo, as in 40,60,310,480")
            for box in ("1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,3,1e9", (1, 2, 3), (1, 2, 3, None), 5)
        ),
        *(
            ({"photos": "a.jpg", "garment": garment}, f"unknown garment {garment!r}",
             "one of dress, pants, skirt&pants, skirt, top, a number, or all")
            for garment in ("hat", "²", "9" * 5000)
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(given: dict[str, Any], told: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Query(**given)
    assert (str(caught.value), caught.value.hint) == (told, hint)


def test_what_can_be_asked() -> None:
    assert Query("a.jpg", box=" 1, 2,3.5 ,-4").box == Box(1.0, 2.0, 3.5, -4.0)
    assert Query("a.jpg", box=[0, 0, 999_999_999, 1]).box == Box(0, 0, 999_999_999, 1)
    assert Query("a.jpg", text="red:-1", like=()).text == ("red:-1",)
    assert Query(like="a", text="red:-1").like == ("a",)
    assert Query(text=["red", "blue:-1"]).text == ("red", "blue:-1")
    assert Query(like=["a"], goes_with=True).goes_with
    assert Query(b"bytes").sources == (b"bytes",)
    assert Query(np.zeros((2, 2, 3), np.uint8)).is_single
    assert [Query(photos).is_single for photos in ("a.jpg", ["a.jpg"], ("a.jpg", "b.jpg"))] == [True, False, False]
    assert Query(["a.jpg"], merge=True).is_single
    assert Query(text="a").sources == ()


@pytest.mark.parametrize(
    ("which", "meant"), [("all", None), ("0", 0), ("12", 12), ("top", "top"), ("skirt&pants", "skirt&pants")]
)
def test_which_garment_is_meant(which: str, meant: Any) -> None:
    assert resolve_garment(which) == meant


def test_the_weight_of_words_is_their_own_before_that_of_the_question() -> None:
    def weights(**given: Any) -> list[float]:
        return [one.weight for one in Query(text=["red", "blue:2", Words("x", 0.25)], **given).words]

    assert weights(words_weight=0.5) == [1.0, 2.0, 0.25]  # alone, words have no other weight
    assert weights(photos="a.jpg") == [1.0, 2.0, 0.25]
    assert weights(photos="a.jpg", words_weight=0.5) == [0.5, 2.0, 0.25]
    assert weights(like="a", words_weight=0.5) == [0.5, 2.0, 0.25]
    assert weights(photos="a.jpg", words_weight=0.5, merge=True) == [1.0, 2.0, 0.25]


def test_the_settings_of_a_question_are_its_own_then_those_of_the_catalogue() -> None:
    query = Query("a.jpg", k=3, where="a = 1")
    assert query.settings(SETTINGS) == SETTINGS.model_copy(update={"k": 3, "where": "a = 1"})
    assert Query("a.jpg", caption_weight=0.0).settings(SETTINGS).caption_weight == 0.0
    whole = Query("a.jpg", text="red", words_weight=0.5).complete(
        SETTINGS.model_copy(update={"k": 7, "words_weight": 0.25})
    )
    assert (whole.k, whole.fusion, whole.garment, whole.hide_unavailable) == (7, "weighted", "all", True)
    assert whole.text == (Words("red", 0.25),)


# -- words


@pytest.mark.parametrize(
    ("text", "words", "weight"),
    [
        ("red", "red", 1.5), (" red ", "red", 1.5), ("red:2", "red", 2.0), ("red : -.5", "red", -0.5), ("red:+10", "red", 10.0),
        ("a: b:0.25 ", "a: b", 0.25), ("red:1e3", "red:1e3", 1.5), ("red:", "red:", 1.5), (":2", ":2", 1.5),
        ("red:2.", "red", 2.0),
    ],
)  # fmt: skip
def test_a_text_may_end_in_its_weight(text: str, words: str, weight: float) -> None:
    assert parse_words(text, 1.5) == Words(words, weight)
    assert parse_words("red").weight == 1.0


class Texts:
    """Each word has an axis of its own."""

    axes = ("a photo of clothes", "red", "blue", "dress")

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[[self.axes.index(text) for text in texts]]


def test_words_move_a_vector_by_hand() -> None:
    embedder: Any = Texts()
    picture = np.array([0, 0, 0, 1], np.float32)
    assert shift_vector(picture, [Words("!", 1.0, english="")], embedder) is picture
    told = shift_vector(picture, [Words("red", 2.0), Words("파랑", -1.0, english="blue")], embedder)
    by_hand = np.array([-1.0, 2.0, -1.0, 1.0])  # of the neutral text 2 are taken off and 1 given back
    assert told == pytest.approx(by_hand / np.sqrt(7.0))
    assert told.dtype == np.float32
    assert text_vector([Words("red", -1.0), Words("x", 1.0, english="")], embedder) is None
    alone = text_vector([Words("red", 3.0), Words("dress", 4.0)], embedder)
    assert alone == pytest.approx([0.0, 0.6, 0.0, 0.8])
    away = text_vector([Words("red", 1.0), Words("blue", -1.0)], embedder)
    assert away == pytest.approx(np.array([1.0, 1.0, -1.0, 0.0]) / np.sqrt(3.0))


def test_the_way_that_korean_texts_went_is_told() -> None:
    answer = QueryResult(None, None, None, text="x")
    add_translation_notes(
        answer,
        [
            Words("red", 1.0),
            Words("빨간 가방", 1.0),
            Words("가방", 1.0),
            Words("바지", -1.0, english="pants", by="m-1"),
        ],
    )
    assert answer.notes == [
        "“빨간 가방” was translated to “red” by the garment lexicon",
        "words unknown to the lexicon: 가방; searched by full text only",
        "words unknown to the lexicon: 가방; searched by full text only",
        "“바지” was translated to “pants” by m-1",
    ]
    assert named_classes([Words("red top", 1.0), Words("skirt", -1.0), Words("pants top", 0.5)]) == ("top", "pants")


# -- what stands on pages


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"price": 39000, "currency": "krw"}, "₩39,000"),
        ({"price": 12.5, "currency": "USD"}, "$12.50"),
        ({"price": 12.0, "currency": "EUR"}, "€12"),
        ({"price": 1234.567, "currency": "GBP"}, "£1,234.57"),
        ({"price": 5, "currency": "JPY"}, "¥5"),
        ({"price": 5, "currency": "chf"}, "5 CHF"),
        ({"price": 5}, "5"),
        ({"price": 0}, "0"),
        ({"price": "ask us"}, "ask us"),
        ({"price": True}, ""),
        ({"price": None, "currency": "USD"}, ""),
        ({}, ""),
    ],
)
def test_a_price_as_a_shopper_reads_it(metadata: dict[str, Any], text: str) -> None:
    assert price(metadata) == text


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("https://a.test/x?y=1", "https://a.test/x?y=1"), (" HTTP://a.test ", "HTTP://a.test"), ("ftp://a.test", None),
        ("javascript:alert(1)", None), ("https://a.test/\u202egnp", None), ("", None), (None, None), (5, None),
        ("//a.test", None),
    ],
)  # fmt: skip
def test_a_link_that_may_be_followed(url: object, link: str | None) -> None:
    assert safe_url(url) == link


def test_a_frame_is_as_wide_as_its_picture_is_large() -> None:
    """By hand: of 2,200 pixels 900 are shown: 900 / 220 is a line of four; 770 / 220 is one of
    four, too; of 400 it is the least, two.
    """
    for size, line, box in (
        ((2200, 1100), 4, Box(1100, 550, 2200, 1100)),
        ((770, 386), 4, Box(385, 193, 770, 386)),
        ((400, 200), 2, Box(200, 100, 400, 200)),
    ):
        drawn = draw_boxes(Image.new("RGB", size, "white"), [Garment(0, "top", 0.5, box)])
        teal = [x for x in range(drawn.width) if drawn.getpixel((x, drawn.height * 9 // 10)) == (0x0F, 0x76, 0x6E)]
        half = drawn.width // 2
        assert teal == [*range(half, half + line), *range(drawn.width - line, drawn.width)]
    plain = Image.new("RGB", (50, 50), "white")
    whole = draw_boxes(plain, [Garment(0, None, None, Box(0, 0, 50, 50), whole_photo=True)])
    assert whole.getcolors() == [(2500, (255, 255, 255))]
    assert whole is not plain


# -- merged lists


def test_lists_are_merged_by_hand() -> None:
    first = result("a.jpg", found("top", "x", "y"), source="photos/a.jpg", notes=["n"])
    second = result("b.jpg", found("top", "y", "z", scores=[0.95, 0.1]), found(None, "x"), source="b", notes=["n", "m"])
    words = QueryResult(None, None, None, [found(None, "w")], text="red")
    answer = merge_results([first, second, words], SETTINGS.model_copy(update={"k": 3}))
    (garment,) = answer.garments
    assert (answer.photo, answer.width, answer.height, answer.text) == (None, None, None, "a.jpg; b.jpg; red")
    assert garment.garment == Garment(0, None, None, Box(0, 0, 0, 0))
    assert answer.notes == ["n", "m"]
    one, two = 1 / 4, 61 / 62 / 4
    expected = [
        ("x", one + one, {"1: a.jpg, top": one, "3: b.jpg": one}, 0.9),
        ("y", one + two, {"1: a.jpg, top": two, "2: b.jpg, top": one}, 0.95),
        ("w", one, {"4: red": one}, 0.9),
    ]
    for rank, (hit, (product, score, parts, cosine)) in enumerate(zip(garment.hits, expected, strict=True), start=1):
        assert (hit.rank, hit.item.product_id, hit.match, hit.cosine) == (rank, product, None, cosine)
        assert hit.score == pytest.approx(score)
        assert hit.parts == pytest.approx(parts)
    assert [stored.item.product_id for stored in garment.stored] == ["x", "y", "w"]


def test_one_class_of_all_is_that_of_the_merged_garment() -> None:
    same = merge_results([result("a.jpg", found("top", "x")), result("b.jpg", found("top", "x"))], SETTINGS)
    assert same.garments[0].garment == Garment(0, "top", None, Box(0, 0, 0, 0))


@pytest.mark.parametrize(("k", "deep"), [(1, 20), (10, 20), (11, 22), (50, 100)])
def test_how_deep_each_list_is_searched(k: int, deep: int) -> None:
    assert merge_settings(SETTINGS.model_copy(update={"k": k})).k == deep


def test_what_a_rank_is_worth() -> None:
    assert [reciprocal(1), reciprocal(2), reciprocal(61, 0.5)] == [1.0, 61 / 62, 0.5 * 61 / 121]
    assert by_weights({1: 0.5}, 1.0, {}, {1}, 0.25) == {1: {"image": 0.5, "class": -0.25}}


# -- documents and tables


def test_the_document_of_a_result() -> None:
    garment = found("top", "x")
    hit = replace(garment.hits[0], score=0.12345678, cosine=None, parts={"image": 0.1234567}, match=None)
    item = replace(hit.item, caption="a", attributes={"color": "red"}, metadata={"title": "T"})
    whole = GarmentAnswer(Garment(2, "top", 0.98765, BOX, caption="A top"), (replace(hit, item=item),), garment.stored)
    answer = result("a.jpg", whole, notes=["n"], outfit={"en": "A", "ko": "B"}, goes_with=[found(None)], text="t")
    answer.timings_ms["embed"] = 1.23456
    told = {
        "index": 2, "class_name": "top", "confidence": 0.9877, "box": [1.0, 2.0, 3.46, 4.0], "whole_photo": False,
        "caption": "A top",
        "hits": [{
            "rank": 1, "score": 0.123457, "cosine": None, "match": None, "item_id": "i-x", "product_id": "x", "image": "x.jpg",
            "class_name": "top", "box": [1.0, 2.0, 3.46, 4.0], "caption": "a", "attributes": {"color": "red"},
            "metadata": {"title": "T"},
        }],
    }  # fmt: skip
    empty = {
        "index": 0, "class_name": None, "confidence": None, "box": [1.0, 2.0, 3.46, 4.0], "whole_photo": False, "caption": None,
        "hits": [],
    }  # fmt: skip
    document = {
        "photo": "photos/a.jpg", "width": 10, "height": 20, "garments": [told],
        "timings_ms": {"load": 0.0, "detect": 0.0, "caption": 0.0, "embed": 1.23, "search": 0.0},
        "text": "t", "outfit": {"en": "A", "ko": "B"}, "goes_with": [empty],
    }  # fmt: skip
    assert answer.to_dict() == document
    told["hits"][0]["parts"] = {"image": 0.123457}  # type: ignore[index]
    assert answer.to_dict(explain=True) == document | {"notes": ["n"]}
    short = QueryResult(None, None, None)
    assert set(short.to_dict()) == {"photo", "width", "height", "garments", "timings_ms"}
    assert [one.title for one in (answer, short, QueryResult(None, None, None, text="red"))] == [
        "a.jpg",
        "the photo",
        "red",
    ]


def test_the_time_of_a_block_is_added_to_its_stage() -> None:
    answer = QueryResult(None, None, None)
    answer.timings_ms["embed"] = 5.0
    with pytest.raises(RuntimeError), answer.timed("embed"):
        raise RuntimeError
    assert 5.0 < answer.timings_ms["embed"] < 1000.0


def test_rows_of_hits() -> None:
    garment = found("top", "x", index=1)
    metadata = {"title": "=T", "brand": "B", "price": 5, "currency": "USD", "url": "https://a.test"}
    item = replace(garment.hits[0].item, caption="c", metadata=metadata)
    full = GarmentAnswer(garment.garment, (replace(garment.hits[0], item=item, score=0.12345678),), garment.stored)
    words = QueryResult(None, None, None, [found(None, "y")], text="red")
    rows = [row for row, _ in rows_of([result("a.jpg", full), words])]
    assert rows == [
        dict(zip(COLUMNS, (
            "photos/a.jpg", 1, "top", 1, 0.123457, "x", "i-x", "top", "=T", "B", 5, "c", "https://a.test", "x.jpg", 51, "USD",
        ), strict=True)),
        dict(zip(COLUMNS, ("red", 0, "", 1, 0.9, "y", "i-y", "", "", "", "", "", "", "y.jpg", 51, ""), strict=True)),
    ]  # fmt: skip
    text = write_csv([result("a.jpg", full)], lambda cell: cell.upper())
    table = list(csv.reader(io.StringIO(text, newline="")))
    assert table[0] == list(COLUMNS)
    assert table[1] == [
        "PHOTOS/A.JPG", "1", "TOP", "1", "0.123457", "X", "I-X", "TOP", "'=T", "B", "5", "C", "HTTPS://A.TEST", "X.JPG", "51",
        "USD",
    ]  # fmt: skip
    assert text.endswith("\r\n")


# -- two catalogues side by side


def test_garments_are_paired_where_their_boxes_overlap_most() -> None:
    low, high, none = Box(0, 50, 100, 100), Box(0, 0, 100, 50), Box(0, 0, 0, 0)
    nearly = Box(0, 35, 100, 100)  # 50 of 65 is shared with the lower, 15 of 100 with the upper
    first = result("a", found("top", "x", "y", box=high), found("pants", "z", box=low))
    second = result("a", found("skirt", "z", "w", box=nearly), found("dress", "v", box=Box(500, 500, 600, 600)))
    told = [pair.to_dict() for pair in pairs(first, second)]
    assert told == [
        {"garment": "top", "overlap_at_10": 0.0, "ranks": {"x": [1, None], "y": [2, None]}},
        {"garment": "pants", "overlap_at_10": 0.5, "ranks": {"z": [1, 1], "w": [None, 2]}},
        {"garment": "dress", "overlap_at_10": 0.0, "ranks": {"v": [None, 1]}},
    ]
    words = [result("a", found(None, *products, box=none)) for products in ("abc", "cab")]
    (pair,) = pairs(*words)
    assert pair.to_dict() == {
        "garment": "words",
        "overlap_at_10": 1.0,
        "ranks": {"a": [1, 2], "b": [2, 3], "c": [3, 1]},
    }
    (nothing,) = pairs(result("a", found("top")), result("a", found("top")))
    assert nothing.overlap == 1.0
    (one,) = pairs(result("a", found("top", "x", "y", "z")), result("a", found("top", "z", "w", "v")))
    assert one.to_dict()["overlap_at_10"] == 0.3333
    (alone,) = pairs(result("a", found("top", "x")), result("a"))
    assert (alone.garment, alone.overlap, alone.moves) == ("top", 0.0, {"x": (1, None)})
    ten = Box(0, 0, 10, 10)  # of which three are not enough
    assert len(pairs(result("a", found("top", box=Box(0, 0, 10, 3))), result("a", found("top", box=ten)))) == 2
    assert len(pairs(result("a", found("top", box=Box(0, 0, 10, 4))), result("a", found("top", box=ten)))) == 1
    long = [f"p{n}" for n in range(12)]
    (deep,) = pairs(result("a", found("top", *long)), result("a", found("top", *long[9:], *long[:9])))
    assert deep.overlap == 0.8  # of the first ten of each, eight
    document = comparison([Path("one"), Path("two")], [(words[0], words[1])])
    assert document == {
        "catalogues": ["one", "two"],
        "questions": [{"answers": [one.to_dict() for one in words], "garments": [pair.to_dict()]}],
    }


def test_a_photo_that_one_of_two_catalogues_cannot_answer_is_a_failure() -> None:
    catalogue: Any = None
    first, second = (Answer(Query(["a", "b", "c"]), catalogue) for _ in range(2))
    both = result("a", found("top", "x")), result("a", found("top", "y"))
    first.outcomes += [both[0], bad := UsageError("bad"), result("c")]
    second.outcomes += [both[1], result("b"), worse := UsageError("worse")]
    assert paired(first, second) == ([both], [bad, worse])


def test_photos_that_one_catalogue_has_no_garment_of_are_no_part_of_what_is_merged() -> None:
    """By hand: of merged photos there is one result, whichever of them each catalogue
    is without.
    """
    catalogue: Any = None
    query = Query(["a.jpg", "b.jpg"], merge=True)
    answers = [Answer(query, catalogue) for _ in range(2)]
    unreadable, one, other = (
        UsageError("a.jpg is damaged"),
        result("a; b", found("top", "x")),
        result("a", found("top")),
    )
    answers[0].outcomes += [UsageError("a.jpg is damaged"), one]
    answers[1].outcomes += [unreadable, UsageError("no top found in the photo"), other]
    both, failures = paired(*answers)
    assert both == [(one, other)]
    assert [str(error) for error in failures] == ["a.jpg is damaged", "no top found in the photo"]


# -- choices


def test_a_garment_that_is_not_there_is_told_with_those_that_are() -> None:
    garments = [Garment(0, "top", 0.5, BOX), Garment(1, "pants", None, BOX)]
    assert choose_garments(garments, "1") == [garments[1]]
    for which, told in (("skirt", "skirt"), ("2", "garment 2")):
        with pytest.raises(UsageError) as caught:
            choose_garments(garments, which)
        assert str(caught.value) == f"no {told} found in the photo"
        assert caught.value.hint == "it has 0: top, 1: pants"


@pytest.mark.parametrize(
    ("metadata", "hidden"),
    [
        *(({"availability": word}, True) for word in (
            "out_of_stock", "Out of Stock", "outofstock", "sold_out", "sold out", " DISCONTINUED ", "품절",
        )),
        ({"availability": "in stock"}, False),
        ({}, False),
        *(({column: "2026-05-02"}, True) for column in ("availability_date", "release_date", "available_from")),
        ({"release_date": "2026-05-01"}, False),  # today
        ({"release_date": "2026-05-02T00:00"}, True),
        ({"release_date": "2026/05/02"}, False),
        ({"release_date": "2026-5-022"}, False),
        ({"availability_date": "2020-01-01", "available_from": "2027-01-01"}, True),
    ],
)  # fmt: skip
def test_what_cannot_be_bought_on_a_day(metadata: dict[str, Any], hidden: bool) -> None:
    (stored,) = found("top", "x").stored
    assert is_unavailable(stored._replace(item=replace(stored.item, metadata=metadata)), "2026-05-01") is hidden


def test_what_an_answer_had_of_itself_is_told_to_be_elsewhere() -> None:
    catalogue: Any = None
    answer = Answer(Query("a.jpg"), catalogue)
    answer.outcomes += [result("a.jpg", found("top", "x")), UsageError("no")]
    for name in ("photo", "width", "height", "text", "seen", "classes", "source", "vectors", "outfit"):
        with pytest.warns(DeprecationWarning, match=rf"^use answer\.results\[0\]\.{name}$"):
            assert getattr(answer, name) == getattr(answer.results[0], name)
    with pytest.raises(AttributeError, match="'Answer' object has no attribute 'colour'"):
        _ = answer.colour
    assert repr(answer) == "<Answer: 1 result, 1 garment, 1 hit, 1 failure>"
    assert answer.to_dict() == answer.results[0].to_dict() | {"failures": [{"error": "no", "reason": "usage"}]}
    several = Answer(Query(["a.jpg", "b.jpg"]), catalogue)
    several.outcomes += [*answer.outcomes, result("b.jpg", notes=["n"])]
    assert several.to_dict() == {
        "answers": [one.to_dict() for one in several.results],
        "failures": [{"error": "no", "reason": "usage"}],
    }
    assert (len(several), len(list(several)), several.notes) == (2, 2, ["n"])
    with pytest.raises(AttributeError):
        _ = several.width
    several.results[0].timings_ms["load"] = 1.5
    several.results[1].timings_ms["load"] = 2.0
    assert several.timings_ms == {"load": 3.5, "detect": 0.0, "caption": 0.0, "embed": 0.0, "search": 0.0}
