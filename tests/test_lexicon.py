"""Korean searches read by the garment lexicon:

English for the encoder, the class named, what is not known.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.captioner.lexicon import ParsedText, parse_text
from fashionrec.captioner.vocabulary import load_vocabulary


@pytest.mark.parametrize(
    ("text", "english", "classes"),
    [
        ("화이트 셔츠와 체크 패턴 스커트", "white shirt and checked skirt", ("top", "skirt")),
        ("네이비 체크스커트", "navy checked skirt", ("skirt",)),
        ("빨간색 원피스를", "red dress", ("dress",)),
        ("데님 팬츠", "jeans", ("pants",)),
        ("와이드 팬츠", "wide-leg pants", ("pants",)),
        ("와이드팬츠", "wide-leg pants", ("pants",)),
        ("반팔 티셔츠랑 반바지", "short-sleeve T-shirt and shorts", ("top", "pants")),
        ("하늘색 줄무늬 긴팔 셔츠 추천", "sky blue striped long-sleeve shirt", ("top",)),
        ("red 셔츠", "red shirt", ("top",)),
        ("바지", "pants", ("pants",)),
        ("치마바지", "culottes", ("skirt&pants",)),
        ("네이비 무지 H라인 미니 스커트", "navy plain pencil mini skirt", ("skirt",)),
        ("A라인의 원피스", "A-line dress", ("dress",)),
        ("핑크 오렌지 티셔츠", "pink and orange T-shirt", ("top",)),
        ("세로스트라이프 셔츠", "vertical-striped shirt", ("top",)),  # the lexicon writes it as two words
        ("옷", "", ()),
    ],
)
def test_korean_reaches_the_encoder_in_english(text: str, english: str, classes: tuple[str, ...]) -> None:
    found = parse_text(text)
    assert found.is_translation
    assert found.english == english
    assert found.classes == classes
    assert found.unknown == ()


@pytest.mark.parametrize(
    "word", ["점프", "루이비통", "가방", "신발을"], ids=["jump", "brand", "bag", "shoes with a particle"]
)
def test_what_is_not_known_is_told(word: str) -> None:
    found = parse_text(f"빨간 {word}")
    assert found.unknown[-1] == word.removesuffix("을")


@pytest.mark.parametrize("word", ["과", "와", "랑", "이랑", "하고", "및", "그리고"])
def test_words_that_join_two_garments(word: str) -> None:
    for text in (f"셔츠 {word} 바지", f"셔츠 {word} {word} 바지 {word}"):
        found = parse_text(text)
        assert (found.english, found.classes, found.unknown) == ("shirt and pants", ("top", "pants"), ())


@pytest.mark.parametrize(
    "word", "패턴 무늬 컬러 색 색상 스타일 느낌 디자인 제품 상품 옷 것 추천 찾아줘 보여줘 좀 의류 패션".split()
)
def test_words_that_say_nothing_of_a_garment(word: str) -> None:
    for text in (f"빨간 {word} 셔츠", f"빨간 셔츠 {word}"):
        found = parse_text(text)
        assert (found.english, found.classes, found.unknown) == ("red shirt", ("top",), ())


def test_english_stays_as_it_is_and_names_its_class() -> None:
    found = parse_text("Red striped dresses, please")
    assert (found.english, found.is_translation) == ("Red striped dresses, please", False)
    assert found.classes == ("dress",)
    assert found.attributes == {"color": ("red",), "pattern": ("stripe",)}
    assert parse_text("jeans").classes == ("pants",)
    assert parse_text("skirt&pants").classes == ("skirt&pants",)
    assert parse_text("nothing of the kind").classes == ()


def test_every_word_of_the_lexicon_is_understood_alone_and_with_particles() -> None:
    vocabulary = load_vocabulary()
    nouns = [(name, word) for name, noun in vocabulary.classes.items() for word in (noun.text[1], *noun.also)]
    assert len(nouns) >= 10
    for name, word in nouns:
        if not any("가" <= letter <= "힣" for letter in word):
            continue
        for particle in ("", "를" if (ord(word[-1]) - 0xAC00) % 28 == 0 else "을", "만", "도", "와"):
            found = parse_text(word + particle)
            assert found.classes[:1] == (name,), (word, particle, found)
            assert found.unknown == ()


@given(st.text(max_size=40))
def test_any_text_is_read(text: str) -> None:
    found = parse_text(text)
    assert found.is_translation or found.english == text


@given(
    st.lists(
        st.sampled_from(["빨간", "네이비", "체크", "셔츠", "와", "스커트를", "그리고", "xyz", "!", "바지"]), max_size=6
    )
)
def test_no_and_stands_alone(words: list[str]) -> None:
    english = parse_text(" ".join(words)).english
    assert not english.startswith("and ")
    assert not english.endswith(" and")
    assert "and and" not in english


def values(text: str) -> dict[str, tuple[str, ...]]:
    """``color=pink|orange; fit=wide``"""
    return {field: tuple(told.split("|")) for field, told in (part.split("=") for part in text.split("; ") if part)}


@pytest.mark.parametrize(
    ("text", "english", "classes", "told", "unknown"),
    [
        (
            "핑크 원피스 오렌지 티셔츠",
            "pink dress orange T-shirt",
            "dress top",
            "color=pink|orange; sub_category=t-shirt",
            "",
        ),
        ("빨간 빨강 상의", "red and red top", "top", "color=red", ""),
        ("red-striped H라인 스커트", "red-striped pencil skirt", "skirt", "fit=pencil", ""),
        ("체크무늬셔츠", "checked shirt", "top", "pattern=check; sub_category=shirt-blouse", ""),
        ("셔츠가방", "shirt", "top", "sub_category=shirt-blouse", "가방"),
        ("가방셔츠", "shirt", "top", "sub_category=shirt-blouse", "가방"),
        ("빨간색의", "red", "", "color=red", ""),
        ("반팔은", "short-sleeve", "", "sleeve=short", ""),
        ("검정은 싫어", "black", "", "color=black", "싫어"),
        ("카디건이랑 청바지", "cardigan and jeans", "top pants", "sub_category=cardigan|denim pants", ""),
        (
            "오프 숄더 맥시 원피스",
            "off-shoulder maxi dress",
            "dress",
            "neckline=off-shoulder; sub_category=maxi dress",
            "",
        ),
        ("ＮＡＶＹ 셔츠", "NAVY shirt", "top", "color=navy; sub_category=shirt-blouse", ""),
        ("빨간_셔츠", "red _ shirt", "top", "color=red; sub_category=shirt-blouse", ""),
        ("셔츠 100% 면!", "shirt 100 % cotton !", "top", "sub_category=shirt-blouse; material=cotton", ""),
        (
            "루이비통 가방을 든 빨간 셔츠",
            "red shirt",
            "top",
            "color=red; sub_category=shirt-blouse",
            "루이비통 가방 든",
        ),
        ("하이 웨이스트 와이드 팬츠", "wide-leg pants", "pants", "fit=wide", "하이 웨이스트"),
        ("sky blue 원피스", "sky blue dress", "dress", "color=sky blue", ""),
        (
            "체크 그리고 무지 셔츠",
            "checked and plain shirt",
            "top",
            "pattern=check|plain; sub_category=shirt-blouse",
            "",
        ),
        ("와이드팬츠", "wide-leg pants", "pants", "fit=wide", ""),
        ("후드 집업", "zip-up hoodie", "top", "sub_category=zip-up hoodie", ""),
        ("좀 그리고", "", "", "", ""),
        ("없는", "", "", "", "없는"),
    ],
)
def test_what_a_korean_text_says(text: str, english: str, classes: str, told: str, unknown: str) -> None:
    assert parse_text(text) == ParsedText(english, True, tuple(classes.split()), values(told), tuple(unknown.split()))


@pytest.mark.parametrize(
    ("text", "classes", "told"),
    [
        ("long sleeve tee", "top", "sleeve=long; sub_category=t-shirt"),
        ("polka dot dresses", "dress", "pattern=dot"),
        ("Polka-Dot T-Shirt", "top", "pattern=dot; sub_category=t-shirt"),
        ("Jeans and skirts", "pants skirt", "sub_category=denim pants"),
        ("hoodies", "top", "sub_category=hoodie"),
        ("skirt, dress, skirt", "skirt dress", ""),
        ("skies, classes, as", "", ""),
        ("none", "", ""),
    ],
)
def test_what_an_english_text_says(text: str, classes: str, told: str) -> None:
    assert parse_text(text) == ParsedText(text, False, tuple(classes.split()), values(told), ())
