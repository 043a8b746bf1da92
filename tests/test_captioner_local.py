"""The local captioner with an encoder of its own making: a sum of word vectors, so that what is
planted is known.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fashionrec.captioner.local.calibration import sigmoid, softmax
from fashionrec.captioner.local.captioner import ZeroShotCaptioner
from fashionrec.captioner.outcome import Outcome
from fashionrec.captioner.phrases import caption_en
from fashionrec.captioner.schema import attributes
from fashionrec.captioner.vocabulary import load_vocabulary
from fashionrec.types import CLASS_NAMES

WORDS = load_vocabulary()
DIM = 512
COLORS, SLEEVES = (list(WORDS.fields[field].values) for field in ("color", "sleeve"))


class Encoder:
    """Text to float32 [n, 512] of unit length: each word has a fixed random direction.

    Counts what it was asked.
    """

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(len(texts))
        vectors = np.stack(
            [sum((self._word(word) for word in re.findall(r"[\w-]+", t.lower())), np.zeros(DIM)) for t in texts]
        )
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def _word(self, word: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
        weight = 0.2 if word in ("a", "an", "photo", "of", "person", "wearing") else 1.0
        return weight * np.random.default_rng(seed).standard_normal(DIM)


def describe(
    texts: Sequence[str], classes: Sequence[str | None], scale: float = 100.0, **options: object
) -> list[Outcome]:
    encoder = Encoder()
    captioner = ZeroShotCaptioner(encoder, 0.5, scale, **options)  # type: ignore[arg-type]
    return captioner.describe_vectors(encoder(texts), classes)


PLANTED = [
    ("top", {"color": "navy", "pattern": "stripe", "sleeve": "long", "neckline": "round"}),
    ("dress", {"color": "sky blue", "pattern": "dot", "length": "maxi", "sleeve": "sleeveless", "neckline": "v"}),
    ("pants", {"color": "khaki", "pattern": "camo", "length": "cropped", "fit": "wide"}),
    ("skirt", {"color": "red", "pattern": "check", "length": "midi", "fit": "pleated"}),
    ("skirt&pants", {"color": "beige", "pattern": "plain", "length": "midi", "fit": "a-line"}),
]


@pytest.mark.parametrize(("class_name", "planted"), PLANTED)
def test_planted_attributes_are_told(class_name: str, planted: dict[str, str]) -> None:
    garment = " ".join(WORDS.fields[field].values[value].text[0] for field, value in planted.items())
    noun = WORDS.classes[class_name].text[0]
    narrow = {field: list(WORDS.values(field, class_name)) for field in planted}
    outcome = describe([f"a {garment} {noun}"], [class_name], vocabulary=narrow)[0]
    assert outcome.state == "done"
    assert outcome.description is not None
    assert attributes(outcome.description) == {"category": class_name, **planted}
    assert outcome.description.caption_en == caption_en(WORDS, class_name, planted)
    assert 0.5 <= outcome.description.confidence <= 1.0


def test_it_says_what_it_is_and_costs_nothing() -> None:
    outcome = describe(["a navy top"], ["top"], model="encoder-1")[0]
    assert (outcome.captioner, outcome.model) == ("local", "encoder-1")
    assert outcome.usage == {"input_tokens": 0, "output_tokens": 0}
    assert outcome.raw is None


def test_what_is_not_seen_is_unknown_and_left_out_of_the_sentences() -> None:
    # at this scale the chance likeness of random words stays below the threshold
    outcome = describe(["a navy top"], ["top"], scale=20.0, vocabulary={"color": COLORS, "sleeve": SLEEVES})[0]
    found = outcome.description
    assert found is not None
    assert found.color == "navy"
    assert found.sleeve == "unknown"
    assert found.style == ""  # not asked
    assert attributes(found) == {"category": "top", "color": "navy"}
    assert (found.caption_en, found.caption_ko) == ("A navy top", "네이비 상의")


def test_by_default_the_fields_that_pictures_tell_best_are_asked() -> None:
    found = describe(["a navy top"], ["top"])[0].description
    assert found is not None
    asked = {field for field, value in found.model_dump().items() if value != ""}
    assert asked == {
        "category", "sub_category", "color", "pattern", "fit", "length", "sleeve", "neckline",
        "caption_en", "caption_ko", "confidence",
    }  # fmt: skip


def test_an_uncertain_choice_stays_below_the_threshold() -> None:
    encoder = Encoder()
    captioner = ZeroShotCaptioner(encoder, 0.9, 1.0)  # a flat softmax is sure of nothing
    found = captioner.describe_vectors(encoder(["a navy striped top"]), ["top"])[0].description
    assert found is not None
    assert attributes(found) == {"category": "top"}
    assert (found.caption_en, found.caption_ko, found.confidence) == ("A top", "상의", 0.0)


def test_the_class_is_told_where_none_is_given_and_never_changed_where_one_is() -> None:
    nouns = [f"a red {WORDS.classes[name].text[0]}" for name in CLASS_NAMES]
    free = describe(nouns, [None] * 5)
    assert [o.description.category for o in free if o.description] == list(CLASS_NAMES)
    given = describe(nouns, ["skirt"] * 5)
    assert [o.description.category for o in given if o.description] == ["skirt"] * 5


def test_the_vocabulary_can_be_narrowed_to_what_occurs() -> None:
    texts = ["a navy striped hooded top"]
    found = describe(
        texts, ["top"], vocabulary={"color": {"navy", "red"}, "neckline": ["hoodie", "round"], "brand": ["x"]}
    )
    assert found[0].description is not None
    assert attributes(found[0].description) == {"category": "top", "color": "navy", "neckline": "hood"}
    assert found[0].description.caption_ko == "네이비 후드티"
    wrong = describe(texts, ["top"], vocabulary={"color": ["red", "green"]})[0].description
    assert wrong is not None
    assert wrong.color in ("red", "green", "unknown")


def test_sub_category_and_attributes_do_not_contradict_each_other() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    captioner = ZeroShotCaptioner(Encoder(), 0.0, 100.0)
    told = 0
    for outcome in captioner.describe_vectors(vectors, [CLASS_NAMES[n % 5] for n in range(200)]):
        found = outcome.description
        assert found is not None
        kind = WORDS.fields["sub_category"].values.get(found.sub_category)
        for field, implied in kind.implies.items() if kind else ():
            told += 1
            assert getattr(found, field) in ("", "unknown", implied)
    assert told > 20


def test_texts_are_embedded_once_per_class_and_only_when_needed() -> None:
    encoder = Encoder()
    captioner = ZeroShotCaptioner(encoder, 0.5)
    assert encoder.calls == []
    vectors = np.eye(4, DIM, dtype=np.float32)
    captioner.describe_vectors(vectors[:2], ["top", "top"])
    captioner.describe_vectors(vectors[2:], ["top", "top"])
    assert len(encoder.calls) == 1
    captioner.describe_vectors(vectors[:1], ["dress"])
    assert len(encoder.calls) == 2
    assert captioner.describe_vectors(vectors[:0], []) == []


def test_vectors_and_classes_must_fit() -> None:
    with pytest.raises(ValueError, match="shape"):
        ZeroShotCaptioner(Encoder(), 0.5).describe_vectors(np.zeros((2, DIM), dtype=np.float32), ["top"])


class Writing(Encoder):
    """Keeps the texts that it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        return super().__call__(texts)


def test_the_sentences_that_values_are_told_apart_by() -> None:
    encoder = Writing()
    narrow = {
        "color": ["navy", "빨강", "no such colour"], "second_color": ["red", "white"],
        "sub_category": ["hoodie", "jacket", "jeans"],
        "closure": ["zip", "none"], "graphic": ["star", "none", "heart"], "sleeve": ["long"], "pattern": ["stripe", "dot"],
    }  # fmt: skip
    captioner = ZeroShotCaptioner(encoder, 0.5, vocabulary=narrow)
    captioner.describe_vectors(np.eye(1, DIM, dtype=np.float32), ["top"])
    told = [
        "a hoodie", "a jacket",
        "a navy top", "a red top",
        "a striped top", "a polka-dot top",
        "a top", "a top with a zip",
        "a top", "a top with a star print", "a top with a heart print",
    ]  # fmt: skip
    prompts = ("{}", "a photo of {}", "a person wearing {}")
    # fields of one value or none (sleeve, second_color) are not told, and values in the order of
    # the vocabulary
    assert sorted(encoder.texts) == sorted(prompt.format(text) for text in told for prompt in prompts)
    assert encoder.texts[:6] == [prompt.format(text) for text in told[:2] for prompt in prompts]
    encoder.texts.clear()
    captioner.describe_vectors(np.eye(1, DIM, dtype=np.float32), [None])
    assert encoder.texts[:15] == [
        prompt.format(noun) for noun in ("a dress", "pants", "culottes", "a skirt", "a top") for prompt in prompts
    ]


def one_field(unknown_below: float, **options: Any) -> ZeroShotCaptioner:
    """Tells red from blue: a picture's likeness with each is its coordinate."""
    axes = {"red": [1.0, 0.0], "blue": [0.0, 1.0]}

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.asarray(
            [next((v for word, v in axes.items() if word in text), [0.6, 0.8]) for text in texts], np.float32
        )

    return ZeroShotCaptioner(embed, unknown_below, 10.0, vocabulary={"color": ["red", "blue"]}, **options)


def test_a_value_is_told_where_it_is_far_enough_beyond_chance() -> None:
    """By hand: softmax of 10 x (.1, 0) is .7311 for the first; .5 beyond chance of two is .75, .4
    is .7.
    """
    vector = np.asarray([[0.1, 0.0]], np.float32)
    for below, told in ((0.5, "unknown"), (0.47, "unknown"), (0.46, "red"), (0.4, "red")):
        (outcome,) = one_field(below).describe_vectors(vector, ["top"])
        assert outcome.description is not None
        assert outcome.description.color == told, below
        assert outcome.description.confidence == pytest.approx(1 / (1 + np.exp(-1.0)) if told == "red" else 0.0)
        assert (outcome.description.caption_en, outcome.state) == ("A red top" if told == "red" else "A top", "done")


def test_the_probabilities_that_are_given_are_used() -> None:
    captioner = one_field(0.0, probabilities=lambda logits: np.asarray(logits) / 100, model="m-1")
    (outcome,) = captioner.describe_vectors(np.asarray([[1.0, 3.0]], np.float32), ["top"])
    assert outcome.description is not None
    assert (outcome.description.color, outcome.model) == ("unknown", "m-1")  # .3 is less than chance
    captioner = one_field(0.0, probabilities=lambda logits: np.asarray(logits) / 10)
    (outcome,) = captioner.describe_vectors(np.asarray([[1.0, 3.0]], np.float32), ["top"])
    assert outcome.description is not None
    assert (outcome.description.color, outcome.description.confidence) == ("blue", 1.0)  # of 3, which is none


def test_a_sigmoid_tells_each_value_by_itself() -> None:
    assert np.allclose(sigmoid(np.array([0.0, 2.0]), -2.0), [1 / (1 + np.exp(2.0)), 0.5])
    assert np.allclose(softmax(np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]])), [[0.25, 0.75], [0.5, 0.5]])


def test_the_surer_of_two_that_contradict_each_other_is_told() -> None:
    """A zip-up hoodie has a hood and a zip: of a picture that has neither said, the sub-category or
    the field goes.
    """
    narrow = {"sub_category": ["zip-up hoodie", "t-shirt"], "neckline": ["hood", "v"], "closure": ["zip", "buttons"]}
    for weights, kind, neckline in (((3.0, 1.0), "zip-up hoodie", "unknown"), ((1.0, 3.0), "unknown", "v")):
        encoder = Encoder()
        captioner = ZeroShotCaptioner(encoder, 0.0, 3.0, vocabulary=narrow)
        hood, neck = encoder(["a zip-up hoodie", "a V-neck top"]) * np.array(weights)[:, None]
        vector = (hood + neck) / np.linalg.norm(hood + neck)
        (outcome,) = captioner.describe_vectors(vector[None], ["top"])
        found = outcome.description
        assert found is not None
        assert (found.sub_category, found.neckline) == (kind, neckline), weights
