"""One sentence for what is worn together, with the particle that its sound wants."""

from __future__ import annotations

import pytest

from fashionrec.captioner.outfit import outfit, with_and
from fashionrec.captioner.vocabulary import load_vocabulary

SHIRT = {"category": "top", "sub_category": "shirt-blouse", "color": "white", "pattern": "plain"}
SKIRT = {"category": "skirt", "pattern": "check"}


def test_a_shirt_and_a_skirt() -> None:
    said = outfit([SKIRT, SHIRT])  # from above, whichever was found first
    assert said is not None
    assert said.ko == "화이트 셔츠와 체크 패턴 스커트"
    assert said.en == "A white shirt and a checked skirt"


def test_three_garments_have_one_particle() -> None:
    pants = {"category": "pants", "sub_category": "denim pants", "color": "blue"}
    said = outfit([pants, SHIRT, {"category": "top", "sub_category": "cardigan", "color": "beige"}])
    assert said is not None
    assert said.ko == "화이트 셔츠, 베이지 가디건과 블루 데님 팬츠"
    assert said.en == "A white shirt, a beige cardigan and blue jeans"


def test_what_is_not_told_is_not_said() -> None:
    said = outfit([{"category": "top", "color": "unknown", "pattern": "none"}, {"category": "pants"}])
    assert said is not None
    assert (said.en, said.ko) == ("A top and pants", "상의와 팬츠")


def test_one_garment_is_no_outfit() -> None:
    assert outfit([]) is None
    assert outfit([SHIRT]) is None
    assert outfit([SHIRT, {}]) is None


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("셔츠", "셔츠와"),
        ("가디건", "가디건과"),
        ("슬랙스", "슬랙스와"),
        ("조거 팬츠", "조거 팬츠와"),
        ("니트", "니트와"),
        ("맨투맨", "맨투맨과"),
        ("재킷", "재킷과"),
        ("후드집업", "후드집업과"),
        ("티셔츠 (V)", "티셔츠 (V)와"),
        ("사이즈 XL", "사이즈 XL과"),
        ("버전 2", "버전 2와"),
        ("버전 3", "버전 3과"),
    ],
)
def test_the_particle_follows_the_last_sound(word: str, expected: str) -> None:
    assert with_and(word) == expected


def test_every_word_of_the_vocabulary_gets_the_particle_of_its_last_syllable() -> None:
    words = load_vocabulary()
    assert len(words.fields["sub_category"].values) > 10
    for value in words.fields["sub_category"].values.values():
        said = with_and(value.text[1])
        last = value.text[1][-1]
        open_ = (ord(last) - 0xAC00) % 28 == 0
        assert said.endswith("와" if open_ else "과"), said


def test_what_an_outfit_leaves_out_and_in_which_order_it_goes() -> None:
    said = outfit(
        [
            {"category": "pants", "pattern": "plain", "color": "navy"},
            {"category": "skirt&pants", "pattern": "color block"},
            {"category": "hat", "color": "red"},
            {"category": "skirt", "sub_category": "mini skirt", "pattern": "stripe"},
            {"color": "red"},
            {"category": "dress", "sub_category": "unknown", "color": "black"},
            {"category": "top", "sub_category": "hoodie", "color": "made up", "pattern": "dot"},
        ]
    )
    assert said is not None
    assert said.en == ("A polka-dot hoodie, a black dress, a striped mini skirt, color-block culottes and navy pants")
    assert said.ko == "도트 패턴 후드티, 블랙 원피스, 스트라이프 패턴 미니스커트, 배색 치마바지와 네이비 팬츠"


@pytest.mark.parametrize(
    ("last", "particle"),
    [*((letter, "과") for letter in "lmnrLMNR013678"), *((letter, "와") for letter in "abkstABKST2459")],
)
def test_letters_and_digits_are_read_as_they_are_spoken(last: str, particle: str) -> None:
    assert with_and(f"A{last}") == f"A{last}{particle}"
    assert with_and(f"“A{last}」") == f"“A{last}」{particle}"
