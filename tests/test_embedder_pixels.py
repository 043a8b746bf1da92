"""Test what an encoder sees and reads, by hand: which pixels, which numbers, which tokens; and what
its spec says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fashionrec.common.folder import Folder
from fashionrec.embedder.embed import Embedder
from fashionrec.embedder.preprocess import encoder_view, normalized, pixel_values
from fashionrec.embedder.spec import EmbedderSpec, ImageSpec, TextSpec
from fashionrec.embedder.tokens import open_tokenizer
from fashionrec.errors import ModelError

SPEC = ImageSpec("pixels", "nearest", (4, 4), 1 / 255, (0.0, 0.5, 0.25), (1.0, 0.5, 0.25), shortest_edge=4)


def numbered(width: int, height: int) -> Image.Image:
    """Red tells the column from 1, green the row from 1; black is none of it."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(1, width + 1), np.arange(1, height + 1)[:, None]
    return Image.fromarray(pixels)


def told(image: Image.Image) -> tuple[list[int], list[int]]:
    """The columns and rows that are seen."""
    pixels = np.asarray(image)
    assert (pixels[..., 0] == pixels[:1, :, 0]).all() or 0 in pixels
    return pixels[pixels.shape[0] // 2, :, 0].tolist(), pixels[:, pixels.shape[1] // 2, 1].tolist()


@pytest.mark.parametrize(
    ("size", "edge", "columns", "rows"),
    [
        ((4, 4), 4, [1, 2, 3, 4], [1, 2, 3, 4]),
        ((8, 4), 4, [3, 4, 5, 6], [1, 2, 3, 4]),
        ((4, 8), 4, [1, 2, 3, 4], [3, 4, 5, 6]),
        ((9, 4), 4, [3, 4, 5, 6], [1, 2, 3, 4]),  # of an odd rest the left is smaller
        ((7, 4), 4, [2, 3, 4, 5], [1, 2, 3, 4]),
        ((8, 8), 4, [2, 4, 6, 8], [2, 4, 6, 8]),  # each second one
        ((8, 16), 8, [3, 4, 5, 6], [7, 8, 9, 10]),  # at an edge of 8 the middle 4 are seen
        ((2, 3), 2, [0, 1, 2, 0], [0, 1, 2, 3]),  # smaller than the tower's input: on black, an odd rest before it
        ((3, 2), 2, [0, 1, 2, 3], [0, 1, 2, 0]),
        ((1, 9), 1, [0, 0, 1, 0], [3, 4, 5, 6]),
    ],
)
def test_the_middle_of_a_picture_is_seen(size: tuple[int, int], edge: int, columns: list[int], rows: list[int]) -> None:
    (found,) = encoder_view([numbered(*size)], SPEC._replace(shortest_edge=edge))
    assert found.size == (4, 4)
    assert told(found) == (columns, rows)


def test_the_longer_side_is_cut_to_a_whole_number() -> None:
    """3 x 5 at an edge of 4 is 4 x 6.67: 6 rows, of which the middle four are seen."""
    (found,) = encoder_view([numbered(3, 5)], SPEC)
    expected = numbered(3, 5).resize((4, 6), Image.Resampling.NEAREST).crop((0, 1, 4, 5))
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_a_picture_is_squashed_to_height_and_width() -> None:
    spec = SPEC._replace(resize="squash", crop=(2, 4), shortest_edge=0)
    (found,) = encoder_view([numbered(8, 8)], spec)
    assert found.size == (4, 2)
    assert told(found) == ([2, 4, 6, 8], [3, 7])
    same = numbered(4, 2)
    assert encoder_view([same], spec)[0] is same


@pytest.mark.parametrize("size", [(2, 60_000), (60_001, 2)])
def test_the_middle_of_a_very_long_picture_is_what_is_seen_of_it_whole(size: tuple[int, int]) -> None:
    spec, length = SPEC._replace(resample="bilinear", shortest_edge=64, crop=(64, 64)), max(size)
    long = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    (found,) = encoder_view([long], spec)
    assert found.size == (64, 64)
    middle = long.crop((0, 29_900, 2, length - 29_900) if size[0] == 2 else (29_900, 0, length - 29_900, 2))
    (expected,) = encoder_view([middle], spec)
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_the_numbers_of_a_pixel() -> None:
    """By hand, of 51, 204 and 255: .2, .8 and 1 of 255, less the mean, over the deviation."""
    values = normalized([Image.new("RGB", (4, 4), (51, 204, 255))] * 2, SPEC)
    assert (values.shape, values.dtype) == ((2, 3, 4, 4), np.float32)
    for channel, expected in enumerate((0.2, 0.6, 3.0)):
        assert values[:, channel] == pytest.approx(expected)
    wide = normalized([Image.new("RGB", (4, 2))], SPEC._replace(crop=(2, 4)))
    assert wide.shape == (1, 3, 2, 4)
    assert np.array_equal(pixel_values([numbered(8, 4)], SPEC), normalized(encoder_view([numbered(8, 4)], SPEC), SPEC))


@pytest.mark.parametrize(
    ("changes", "squares"),
    [
        ({}, True),
        ({"shortest_edge": 5}, False),
        ({"shortest_edge": 3}, True),
        ({"crop": (4, 6)}, True),
        ({"crop": (3, 6)}, False),
        ({"resize": "squash"}, True),
        ({"resize": "squash", "crop": (4, 6)}, False),
    ],
)
def test_whether_all_of_a_square_is_seen(changes: dict[str, Any], squares: bool) -> None:
    assert SPEC._replace(**changes).shows_squares is squares


def test_a_spec_is_written_without_what_is_usual_and_read_back() -> None:
    text = TextSpec("tokenizer.json", 7, 1, "<end>")
    spec = EmbedderSpec(48, 100.0, SPEC._replace(mean=(0.5, 0.5, 0.5)), text)
    document = spec.to_dict()
    assert document == {
        "dim": 48,
        "logit_scale": 100.0,
        "image": {
            "input": "pixels", "resample": "nearest", "crop": [4, 4], "scale": 1 / 255, "mean": [0.5, 0.5, 0.5],
            "std": [1.0, 0.5, 0.25], "shortest_edge": 4,
        },
        "text": {"tokenizer": "tokenizer.json", "max_length": 7, "pad_id": 1, "pad_token": "<end>"},
    }  # fmt: skip
    assert EmbedderSpec.from_dict(document) == spec
    assert EmbedderSpec.from_dict({**document, "unheard": 1}) == spec
    odd = spec._replace(
        scores="sigmoid",
        logit_bias=-3.0,
        precision="fp16",
        image=spec.image._replace(resize="squash", shortest_edge=0, pooling="first"),
        text=text._replace(inputs=("input_ids",), padding="max_length", special_tokens=1, pooling="last"),
    )
    assert EmbedderSpec.from_dict(odd.to_dict()) == odd
    assert odd.to_dict()["text"]["inputs"] == ["input_ids"]
    with pytest.raises(KeyError, match="shortest_edge"):
        EmbedderSpec.from_dict(
            {**document, "image": {k: v for k, v in document["image"].items() if k != "shortest_edge"}}
        )


def test_what_an_encoder_says_of_itself() -> None:
    embedder = Embedder.open(TINY / "embedder")
    image = embedder.spec.image
    assert (embedder.dim, embedder.side) == (embedder.spec.dim, max(image.crop))
    assert (embedder.logit_scale, embedder.logit_bias) == (float(embedder.spec.logit_scale), None)
    assert embedder.cuts_off is not image.shows_squares
    assert embedder.fingerprint == embedder.bundle.fingerprint
    embedder.spec = embedder.spec._replace(scores="sigmoid", logit_bias=-3, image=image._replace(crop=(4, 6)))
    assert (embedder.logit_bias, embedder.side) == (-3.0, 6)


def test_an_encoder_that_answers_no_vectors_is_damaged() -> None:
    embedder = Embedder.open(TINY / "embedder")
    dim = embedder.dim
    with pytest.raises(ModelError) as caught:
        embedder.answer(np.full((2, 3, *embedder.spec.image.crop), np.nan, np.float32))
    assert (
        str(caught.value)
        == f"{embedder.bundle.path} is damaged: its image tower returns (2, {dim}), or values that are not finite"
    )
    embedder.spec = embedder.spec._replace(dim=dim + 1)
    with pytest.raises(ModelError, match=rf"its text tower returns \(1, {dim}\), or values that are not finite"):
        embedder.embed_texts(["red"])
    with pytest.raises(ModelError, match="cannot be run"):
        embedder.answer(np.zeros((1, 2, 3, 3), np.float32))
    with pytest.raises(ModelError) as caught:
        Embedder.open(TINY / "embedder").__class__(replace(embedder.bundle, kind="detector"))
    assert str(caught.value) == f"{embedder.bundle.path} holds a detector, not an embedder"


# -- tokenizers


def words(**parts: Any) -> Tokenizer:
    vocabulary = {"<start>": 0, "<end>": 1, "<unk>": 2, "red": 3, "blue": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


TEXT = TextSpec("t.json", 5, 1, "<end>")


def opened(tokenizer: Tokenizer, folder: Path, spec: TextSpec = TEXT) -> Tokenizer:
    tokenizer.save(str(folder / "t.json"))
    return open_tokenizer(Folder(folder, "bundle", ModelError), spec)


def test_a_text_is_cut_and_padded_as_the_spec_says(tmp_path: Path) -> None:
    short, long = opened(words(), tmp_path).encode_batch(["red", "red blue red blue red"])
    assert (short.ids, long.ids) == ([0, 3, 1, 1, 1], [0, 3, 4, 3, 1])
    assert (short.attention_mask, long.attention_mask) == ([1, 1, 1, 0, 0], [1] * 5)
    (alone,) = opened(words(), tmp_path).encode_batch(["red"])
    assert alone.ids == [0, 3, 1]
    padded = opened(words(), tmp_path, TEXT._replace(padding="max_length", pad_id=2, pad_token="<unk>"))
    assert padded.encode_batch(["red"])[0].ids == [0, 3, 1, 2, 2]


def prepends(*lengths: int) -> Any:
    return normalizers.Sequence([normalizers.Prepend("x" * length) for length in lengths])


def replaces(length: int) -> Any:
    return normalizers.Replace("r", "x" * length)


def around(count: int) -> Any:
    return processors.TemplateProcessing(single="<start> " * (count - 1) + "$A", special_tokens=[("<start>", 0)])


GROWS = "its normalizers make texts much longer"
AROUND = "it adds too many tokens to a text"


@pytest.mark.parametrize(
    ("part", "value", "told"),
    [
        ("normalizer", lambda: prepends(1000), None),
        ("normalizer", lambda: prepends(1001), GROWS),
        ("normalizer", lambda: prepends(10, 100), None),
        ("normalizer", lambda: prepends(10, 101), GROWS),
        ("normalizer", lambda: replaces(1000), None),
        ("normalizer", lambda: replaces(1001), GROWS),
        ("normalizer", lambda: normalizers.Sequence([normalizers.Lowercase()] * 100), None),
        ("normalizer", lambda: normalizers.Sequence([normalizers.Lowercase()] * 101), GROWS),
        ("normalizer", lambda: normalizers.Sequence([prepends(100), prepends(11)]), GROWS),
        ("post_processor", lambda: around(100), None),
        ("post_processor", lambda: around(101), AROUND),
        ("model", lambda: models.WordPiece({"<unk>": 0}, unk_token="<unk>", continuing_subword_prefix="#" * 100), None),
        (
            "model",
            lambda: models.WordPiece({"<unk>": 0}, unk_token="<unk>", continuing_subword_prefix="#" * 101),
            "its continuing_subword_prefix is too long",
        ),
        ("model", lambda: models.BPE(end_of_word_suffix="#" * 101), "its end_of_word_suffix is too long"),
    ],
)
def test_a_tokenizer_that_makes_much_of_a_short_text_is_refused(
    part: str, value: Callable[[], Any], told: str | None, tmp_path: Path
) -> None:
    if told is None:
        opened(words(**{part: value()}), tmp_path)
        return
    with pytest.raises(ModelError) as caught:
        opened(words(**{part: value()}), tmp_path)
    assert str(caught.value) == f"{tmp_path / 't.json'} cannot be loaded: {told}"
    assert caught.value.hint == "export or copy it again"
