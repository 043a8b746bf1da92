"""The vocabulary, the record and its views, and sentences from attributes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.captioner.phrases import caption_en, caption_ko, with_article
from fashionrec.captioner.schema import (
    EMBEDDING_WORDS,
    Description,
    InvalidAnswer,
    attributes,
    check_texts,
    embedding_text,
    json_schema,
    lexical_text,
    parse,
    shortened,
)
from fashionrec.captioner.vocabulary import FIELDS, load_vocabulary
from fashionrec.config import config_dir
from fashionrec.errors import CaptionError, ConfigError
from fashionrec.types import CLASS_NAMES

WORDS = load_vocabulary()
HANGUL = range(ord("가"), ord("힣") + 1)

#: What the synthetic world draws (fashionrec/dataset/synthetic/attributes.py): each must be
#: sayable.
DRAWN = {
    "color": "black white gray navy blue sky_blue red burgundy pink orange yellow beige brown green khaki purple",
    "pattern": "plain stripe vertical_stripe check dot floral argyle camo leopard color_block",
    "pattern_scale": "fine bold",
    "graphic": "none star heart bolt moon flower cat",
    "neckline": "round v collar turtleneck hoodie",
    "sleeve": "sleeveless short long",
    "closure": "none buttons zip",
}
DRAWN_BY_CLASS = {
    "dress": {"length": "mini midi maxi", "fit": "fitted a-line"},
    "pants": {"length": "shorts cropped full", "fit": "slim straight wide"},
    "skirt&pants": {"length": "mini midi", "fit": "a-line pleated"},
    "skirt": {"length": "mini midi maxi", "fit": "pencil a-line pleated"},
    "top": {"length": "cropped regular long", "fit": "slim regular oversized"},
}


def has_hangul(text: str) -> bool:
    return any(ord(char) in HANGUL for char in text)


def answer(class_name: str | None = "top", **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        key: spec["enum"][0] for key, spec in json_schema(class_name)["properties"].items() if "enum" in spec
    }
    return found | {"caption_en": "A black T-shirt", "caption_ko": "블랙 티셔츠", "confidence": 0.8} | changes


def description(**fields: Any) -> Description:
    said = {"category": "top", "caption_en": "A navy top", "caption_ko": "네이비 상의", "confidence": 0.5}
    return Description(**(said | fields))


# -- the vocabulary


def test_every_value_has_a_korean_word_and_an_english_name() -> None:
    assert set(WORDS.fields) == set(FIELDS)
    for field, spec in WORDS.fields.items():
        for name, value in spec.values.items():
            assert has_hangul(value.ko), (field, name)
            assert has_hangul(value.text[1]), (field, name)
            assert name.isascii(), (field, name)
            assert value.text[0].isascii(), (field, name)


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_every_class_has_sub_categories_and_words_that_mean_one_thing(class_name: str) -> None:
    assert WORDS.values("sub_category", class_name)
    for field in WORDS.fields_of(class_name):
        seen: dict[str, str] = {}
        for name, value in WORDS.values(field, class_name).items():
            for word in {name, value.ko, *value.also}:
                assert seen.setdefault(word.casefold(), name) == name, f"{class_name} {field}: {word} means two values"
                assert WORDS.find(field, word, class_name) == name


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("top", "후드티 맨투맨 셔츠블라우스 니트스웨터 티셔츠"),
        ("pants", "데님팬츠 슬랙스 조거팬츠 반바지"),
        ("skirt", "미니스커트 미디스커트 롱스커트"),
        ("dress", "미니원피스 미디원피스 맥시원피스"),
        ("skirt&pants", "퀼로트 치마바지"),
    ],
)
def test_a_korean_shop_finds_its_sub_categories(class_name: str, expected: str) -> None:
    assert set(expected.split()) <= {value.ko for value in WORDS.values("sub_category", class_name).values()}


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_what_the_synthetic_world_draws_can_be_said(class_name: str) -> None:
    for field, words in {**DRAWN, **DRAWN_BY_CLASS[class_name]}.items():
        if class_name not in ("dress", "top") and field in ("sleeve", "neckline"):
            assert not WORDS.values(field, class_name)
            continue
        for word in words.split():
            assert WORDS.find(field, word, class_name) is not None, (field, word)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree["fields"]["color"]["values"].update({"teal": None}), "teal"),
        (
            lambda tree: tree["fields"]["color"]["values"].update({"teal": {"ko": "틸", "class": ["top"]}}),
            "is unknown",
        ),
        (lambda tree: tree["fields"]["color"]["values"].update({"unknown": "모름"}), "do not list unknown"),
        (lambda tree: tree["fields"].update({"colour": tree["fields"]["color"]}), "did you mean color"),
        (lambda tree: tree["fields"].pop("sleeve"), "sleeve is missing"),
        (lambda tree: tree["classes"].pop("dress"), "classes must be"),
        (lambda tree: tree["fields"]["sleeve"].update({"classes": ["shoes"]}), "unknown class shoes"),
        (
            lambda tree: tree["fields"]["sleeve"]["values"].update({"x": {"ko": "엑스", "classes": ["pants"]}}),
            "no class in common",
        ),
        (
            lambda tree: tree["fields"]["sub_category"]["values"].update(
                {"x": {"ko": "엑스", "implies": {"fit": "odd"}}}
            ),
            "fit: odd",
        ),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_a_config_error(tmp_path: Path, change: Any, message: str) -> None:
    tree = yaml.safe_load((config_dir() / "attributes.yaml").read_text(encoding="utf-8"))
    change(tree)
    path = tmp_path / "attributes.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_vocabulary(path)


def test_a_vocabulary_that_is_not_there_or_no_yaml_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_vocabulary(tmp_path / "none.yaml")
    for number, text in enumerate(("a: [1", "- 1", "")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_vocabulary(path)
        assert (caught.value.hint == "see configs/attributes.yaml for an example") is (text == "- 1")


# -- the schema


@pytest.mark.parametrize("class_name", [*CLASS_NAMES, None])
def test_the_schema_is_strict_and_within_the_limits_of_the_api(class_name: str | None) -> None:
    schema = json_schema(class_name)
    assert schema["additionalProperties"] is False
    assert schema["required"] == list(schema["properties"])
    assert set(schema["properties"]) <= set(Description.model_fields)
    enums = {key: spec["enum"] for key, spec in schema["properties"].items() if "enum" in spec}
    assert all("unknown" in values for key, values in enums.items() if key != "category")
    assert all(len(values) == len(set(values)) for values in enums.values())
    assert sum(map(len, enums.values())) <= 1000  # OpenAI: 1,000 enum values and 5,000 properties in all
    assert json.loads(json.dumps(schema)) == schema


def test_the_fields_and_values_depend_on_the_class() -> None:
    pants, top = json_schema("pants")["properties"], json_schema("top")["properties"]
    assert "sleeve" in top
    assert "sleeve" not in pants
    assert pants["length"]["enum"] == ["shorts", "cropped", "full", "unknown"]
    assert top["length"]["enum"] == ["cropped", "regular", "long", "unknown"]
    assert pants["category"]["enum"] == ["pants"]


# -- reading answers


@given(st.data(), st.sampled_from(CLASS_NAMES))
def test_every_answer_that_fits_the_schema_is_read_back_whole(data: st.DataObject, class_name: str) -> None:
    said: dict[str, Any] = {
        key: data.draw(st.sampled_from(spec["enum"])) for key, spec in json_schema(class_name)["properties"].items()
        if "enum" in spec
    }  # fmt: skip
    said |= {"caption_en": "A garment", "caption_ko": "옷", "confidence": data.draw(st.floats(0, 1))}
    found = parse(json.dumps(said, ensure_ascii=data.draw(st.booleans())), class_name)
    assert {key: value for key, value in found.model_dump().items() if value != ""} == said
    assert Description.model_validate_json(found.model_dump_json()) == found
    assert not {"unknown", "none", ""} & set(attributes(found).values())
    embedded = embedding_text(found)
    assert embedded.isascii()
    assert len(embedded.split()) <= EMBEDDING_WORDS
    assert has_hangul(lexical_text(found))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.text() | JSON.map(json.dumps))
def test_any_other_text_is_invalid_and_nothing_worse(text: str) -> None:
    with pytest.raises(CaptionError) as caught:
        parse(text, "top")
    assert caught.value.state == "invalid"
    assert not caught.value.retryable


@given(st.sampled_from(sorted(answer())), JSON)
def test_one_wrong_value_is_invalid_or_read_as_an_allowed_one(key: str, value: Any) -> None:
    try:
        found = parse(json.dumps(answer(**{key: value})), "top")
    except CaptionError:
        return
    assert Description.model_validate(found.model_dump()) == found
    json.dumps(found.model_dump(), allow_nan=False).encode()


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", "NaN", "[" * 100_000, "1" * 5000,
        json.dumps(answer(confidence=1.01)), json.dumps(answer(confidence=True)), json.dumps(answer(confidence="0.5")),
        json.dumps(answer()).replace("0.8", "NaN"), json.dumps(answer()).replace("0.8", "1e999"),
        json.dumps(answer(color="")), json.dumps(answer(color=None)), json.dumps(answer(color=["black"])),
        json.dumps(answer(category="dress")), json.dumps(answer(extra="x")),
        json.dumps(answer(caption_en="")), json.dumps(answer(caption_en="네이비")), json.dumps(answer(caption_ko="a top")),
        json.dumps(answer(length="maxi")),
    ],
)  # fmt: skip
def test_answers_that_are_not_what_was_asked_for(text: str) -> None:
    with pytest.raises(CaptionError) as caught:
        parse(text, "top")
    assert caught.value.state == "invalid"


def test_small_slips_are_repaired() -> None:
    found = parse(
        f"```json\n{json.dumps(answer(color='Light-Blue', pattern='Polka dot', sleeve='UNKNOWN'))}\n```", "top"
    )
    assert (found.color, found.pattern, found.sleeve) == ("sky blue", "dot", "unknown")
    assert parse(f"Sure! Here it is:\n{json.dumps(answer())}\nIs that all?", "top").color == answer()["color"]
    odd = parse(json.dumps(answer(caption_en=" A\u200b navy \n top\ud800 ")), "top")
    assert odd.caption_en == "A navy top"


def test_without_a_class_what_does_not_apply_to_the_answered_one_is_dropped() -> None:
    said = answer(None, category="pants", sub_category="hoodie", sleeve="long", length="full", fit="wide")
    found = parse(json.dumps(said), None)
    assert (found.category, found.sub_category, found.sleeve) == ("pants", "", "")
    assert (found.length, found.fit) == ("full", "wide")


@pytest.mark.parametrize(
    ("text", "reason", "code"),
    [
        ("", "the answer is not JSON", "schema"),
        ("} {", "the answer is not JSON", "schema"),
        ("[]", "the answer is not a JSON object", "schema"),
        ("null", "the answer is not a JSON object", "schema"),
        ("x" * 16_385, "the answer has more than 16,384 characters", "too-long"),
        ("x" * 16_384, "the answer is not JSON", "schema"),
        ('{"category": "top"}', "the answer lacks keys: sub_category, color, second_color", "schema"),
        (
            json.dumps({**answer(), "é": 1, "b": 2, "c": 3, "d": 4}),
            r"the answer has unknown keys: \xe9, b, c",
            "schema",
        ),
        (json.dumps(answer(category="dress")), "the answer's category is not allowed", "schema"),
        (json.dumps(answer(category=None)), "the answer's category is not allowed", "schema"),
        (json.dumps(answer(color="ultraviolet")), "the answer's color is not an allowed value", "schema"),
        (json.dumps(answer(sleeve=3)), "the answer's sleeve is not an allowed value", "schema"),
        *(
            (json.dumps(answer(confidence=wrong)), "the answer's confidence is not a number between 0 and 1", "schema")
            for wrong in (True, "1", -0.01, 1.01, None)
        ),
        (json.dumps(answer(caption_en="")), "the answer's caption_en is empty or in another language", "language"),
        (
            json.dumps(answer(caption_en="a top 상의")),
            "the answer's caption_en is empty or in another language",
            "language",
        ),
        (json.dumps(answer(caption_ko="a top")), "the answer's caption_ko is empty or in another language", "language"),
        (json.dumps(answer(caption_ko=5)), "the answer's caption_ko is empty or in another language", "language"),
        (
            json.dumps(answer(caption_en="x" * 1001)),
            "the answer's caption_en has more than 1,000 characters",
            "too-long",
        ),
    ],
)
def test_why_an_answer_is_refused(text: str, reason: str, code: str) -> None:
    with pytest.raises(InvalidAnswer) as caught:
        parse(text, "top")
    assert (str(caught.value), caught.value.code, caught.value.state) == (reason, code, "invalid")


def test_what_is_taken_to_its_limits() -> None:
    found = parse(json.dumps(answer(caption_en=" x" * 1 + "y" * 999, caption_ko="top 상의", confidence=1)), "top")
    assert (len(found.caption_en), found.caption_ko, found.confidence) == (1000, "top 상의", 1.0)
    assert parse(json.dumps(answer(confidence=0)), "top").confidence == 0.0
    assert parse(json.dumps(answer(sleeve=" Unknown ")), "top").sleeve == "unknown"


def test_a_description_that_no_answer_brought_is_refused_by_field() -> None:
    check_texts(description(caption_en="x" * 1000, color="a" * 1000))
    for fields, reason, code in (
        ({"caption_en": "x" * 1001}, "the caption_en has more than 1,000 characters", "too-long"),
        ({"color": "a\x1b[2J"}, "the color has control characters", "control"),
        ({"caption_ko": "상의\n"}, "the caption_ko has control characters", "control"),
    ):
        with pytest.raises(InvalidAnswer) as caught:
            check_texts(description(**fields))
        assert (str(caught.value), caught.value.code) == (reason, code)


def test_the_whole_schema_of_a_class() -> None:
    def field(ask: str, *values: str) -> dict[str, Any]:
        return {"type": "string", "description": ask, "enum": [*values, "unknown"]}

    found = json_schema("skirt&pants")
    properties = found.pop("properties")
    assert found == {"type": "object", "required": list(properties), "additionalProperties": False}
    assert list(properties) == ["category", *WORDS.fields_of("skirt&pants"), "caption_en", "caption_ko", "confidence"]
    assert properties["category"] == {"type": "string", "enum": ["skirt&pants"]}
    assert properties["sub_category"] == field("what a Korean shop would file it under", "culottes", "skort")
    assert properties["caption_en"] == {"type": "string", "description": "one English noun phrase, at most 25 words"}
    assert properties["caption_ko"] == {
        "type": "string",
        "description": "the same as a Korean noun phrase, as shops write it",
    }
    assert properties["confidence"] == {"type": "number", "description": "how sure you are of all this, 0 to 1"}
    for name in WORDS.fields_of("skirt&pants"):
        assert properties[name] == field(WORDS.fields[name].ask, *WORDS.values(name, "skirt&pants"))
    whole = json_schema(None)["properties"]
    assert whole["category"]["enum"] == list(CLASS_NAMES)
    assert whole["sub_category"]["enum"] == [*WORDS.fields["sub_category"].values, "unknown"]


# -- views


@pytest.mark.parametrize(
    ("fields", "embedded", "searched"),
    [
        ({}, "A navy top", "A navy top 네이비 상의 탑"),
        (
            {"color": "navy", "pattern": "stripe", "sleeve": "long", "caption_en": "A navy top. "},
            "A navy top, striped, long-sleeve",
            None,
        ),
        ({"pattern": "plain", "season": "none", "style": "unknown"}, "A navy top, plain", None),
        ({"sub_category": "shirt-blouse", "caption_en": "A navy blouse"}, "A navy blouse", None),
        ({"sub_category": "shirt-blouse"}, "A navy top, shirt", None),
        ({"color": "made-up"}, "A navy top, made-up", "A navy top 네이비 상의 탑 made-up"),
        ({"category": "dress", "caption_en": "A dress", "caption_ko": "옷"}, "A dress", "A dress 옷 원피스 드레스"),
        (
            {"category": "pants", "sub_category": "denim pants", "caption_en": "Jeans", "caption_ko": "청바지"},
            "Jeans",
            "Jeans 청바지 pants 팬츠 trousers denim pants 데님팬츠 데님 팬츠",
        ),
    ],
)
def test_what_a_description_says_to_the_encoder_and_to_word_search(
    fields: dict[str, Any], embedded: str, searched: str | None
) -> None:
    assert embedding_text(description(**fields)) == embedded
    if searched is not None:
        assert lexical_text(description(**fields)) == searched


def test_a_text_for_the_encoder_has_as_many_words_as_are_asked() -> None:
    found = description(caption_en=" ".join(f"w{n}" for n in range(60)), color="navy")
    assert embedding_text(found) == " ".join(f"w{n}" for n in range(48))
    assert embedding_text(found, most=3) == "w0 w1 w2"
    assert embedding_text(found, most=None) == found.caption_en + ", navy"
    assert embedding_text(description(color="red"), most=3) == "A navy top"  # no comma at its end


def test_a_text_that_the_tower_does_not_read_to_its_end_loses_attributes_from_the_last() -> None:
    """By hand: a tower that reads four words; what it does not read is told by the first look."""
    asked: list[list[str]] = []

    def count_cut(texts: Sequence[str]) -> list[int]:
        asked.append(list(texts))
        return [max(0, len(text.split()) - 4) for text in texts]

    texts = ["a top", "a red top, one, two", "a very long red top indeed, one", "a b c d, e"]
    assert shortened(texts, count_cut) == (
        ["a top", "a red top, one", "a very long red top indeed", "a b c d"],
        [0, 1, 3, 1],
    )
    assert asked == [
        texts,
        ["a red top, one", "a very long red top indeed", "a b c d"],
    ]
    assert shortened([], count_cut) == ([], [])
    assert len(asked) == 2


def test_attributes_say_only_what_is_known() -> None:
    found = description(color="navy", pattern="unknown", graphic="none", sleeve="")
    assert attributes(found) == {"category": "top", "color": "navy"}


def test_the_text_for_embedding_adds_what_the_caption_leaves_out() -> None:
    found = description(color="navy", pattern="stripe", sleeve="long", fit="regular", caption_en="A navy striped top.")
    assert embedding_text(found) == "A navy striped top, long-sleeve"
    long = description(caption_en=" ".join(["word"] * 100))
    assert len(embedding_text(long).split()) == EMBEDDING_WORDS


def test_the_text_for_word_search_has_both_languages_and_other_words() -> None:
    text = lexical_text(description(pattern="stripe", sub_category="shirt-blouse", color="unknown"))
    for word in (
        "A navy top",
        "네이비 상의",
        "stripe",
        "스트라이프",
        "줄무늬",
        "셔츠블라우스",
        "블라우스",
        "shirt",
        "상의",
    ):
        assert word in text
    assert "unknown" not in text


def test_what_a_caption_says_is_not_said_again_for_word_search() -> None:
    said = description(
        pattern="stripe", color="red", caption_en="A red layered striped top", caption_ko="레드 줄무늬 상의"
    )
    text = lexical_text(said)
    assert (text.count("red "), text.count("striped"), text.count("줄무늬"), text.count("레드")) == (2, 1, 1, 1)
    assert "스트라이프" in text
    assert "빨강" in text
    hidden = lexical_text(description(color="red", caption_en="A layered top"))
    assert " red" in hidden  # not the end of "layered"


def test_views_take_values_that_an_edited_vocabulary_no_longer_has() -> None:
    found = description(color="teal")
    assert embedding_text(found) == "A navy top, teal"
    assert "teal" in lexical_text(found)


# -- sentences


@pytest.mark.parametrize(
    ("class_name", "said", "english", "korean"),
    [
        (
            "top",
            {"color": "navy", "pattern": "stripe", "sleeve": "long", "neckline": "round", "sub_category": "t-shirt"},
            "A navy striped long-sleeve round-neck T-shirt",
            "네이비 스트라이프 긴팔 라운드넥 티셔츠",
        ),
        (
            "dress",
            {
                "color": "orange", "second_color": "white", "pattern": "dot", "pattern_scale": "bold", "length": "mini",
                "neckline": "v", "closure": "buttons",
            },
            "An orange and white bold polka-dot V-neck mini dress with buttons",
            "오렌지 화이트 굵은 도트 브이넥 버튼 미니원피스",
        ),
        ("pants", {"color": "blue", "length": "shorts", "fit": "wide"}, "Blue wide-leg shorts", "블루 와이드 반바지"),
        (
            "top",
            {"color": "black", "neckline": "hood", "closure": "zip", "sleeve": "long", "length": "regular"},
            "A black long-sleeve zip-up hoodie",
            "블랙 긴팔 후드집업",
        ),
        ("top", {"color": "white", "graphic": "star"}, "A white top with a star print", "화이트 별 프린트 상의"),
        ("top", {"pattern": "argyle", "second_color": "red"}, "An argyle top", "아가일 상의"),
        ("skirt", {"fit": "a-line", "color": "unknown"}, "An A-line skirt", "A라인 스커트"),
        ("skirt&pants", {}, "Culottes", "치마바지"),
        (
            "top",
            {
                "color": "red", "second_color": "white", "pattern_scale": "bold", "pattern": "stripe", "material": "cotton",
                "fit": "slim", "length": "cropped", "sleeve": "short", "neckline": "v", "graphic": "star", "closure": "zip",
            },
            "A red and white bold striped cotton slim cropped short-sleeve V-neck top with a zip and a star print",
            "레드 화이트 굵은 스트라이프 코튼 슬림 크롭 반팔 브이넥 별 프린트 집업 상의",
        ),
        ("top", {"second_color": "red", "sub_category": "made up", "graphic": "none"}, "A top", "상의"),
        ("pants", {"material": "denim"}, "Denim pants", "데님 팬츠"),
        ("top", {"sub_category": "zip-up hoodie", "neckline": "hood", "closure": "zip"}, "A zip-up hoodie", "후드집업"),
        ("top", {"sub_category": "zip-up hoodie", "neckline": "v"}, "A V-neck zip-up hoodie", "브이넥 후드집업"),
        ("top", {"neckline": "hood"}, "A hoodie", "후드티"),
        ("top", {"sleeve": "sleeveless"}, "A sleeveless top", "민소매티"),
    ],
)  # fmt: skip
def test_sentences(class_name: str, said: dict[str, str], english: str, korean: str) -> None:
    assert caption_en(WORDS, class_name, said) == english
    assert caption_ko(WORDS, class_name, said) == korean


@given(st.data(), st.sampled_from(CLASS_NAMES))
def test_any_attributes_make_sentences_without_gaps_or_doubled_words(data: st.DataObject, class_name: str) -> None:
    said = {
        field: data.draw(st.sampled_from([*WORDS.values(field, class_name), "unknown", ""]))
        for field in WORDS.fields_of(class_name)
    }
    for text in (caption_en(WORDS, class_name, said), caption_ko(WORDS, class_name, said)):
        assert text == " ".join(text.split())
        assert "unknown" not in text
    assert caption_en(WORDS, class_name, said)[0].isupper()


def test_articles() -> None:
    assert [with_article(text) for text in ("orange top", "navy dress", "wide-leg pants", "A-line skirt")] == [
        "an orange top", "a navy dress", "wide-leg pants", "an A-line skirt",
    ]  # fmt: skip
