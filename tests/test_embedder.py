"""The encoder's serving plane: preprocessing, batches, texts."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fashionrec.embedder.embed import Embedder
from fashionrec.embedder.preprocess import pixel_values
from fashionrec.embedder.spec import ImageSpec
from fashionrec.errors import ModelError
from fashionrec.models.bundle import Bundle

SPEC = ImageSpec(
    input="pixel_values",
    shortest_edge=32,
    resample="bicubic",
    crop=(32, 32),
    scale=1 / 255,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.train
@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([16, 32, 40]))
def test_pixels_are_those_of_transformers_pillow_backend(width: int, height: int, crop: int) -> None:
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = clip.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": crop, "width": crop})
    photo = noise(width, height)
    expected = processor(images=[photo], return_tensors="np")["pixel_values"]
    ours = pixel_values([photo], SPEC._replace(crop=(crop, crop)))
    assert np.abs(expected - ours).max() <= 1e-5


@pytest.mark.train
@pytest.mark.parametrize(
    "fault", [{"resample": "bilinear"}, {"mean": (0.5, 0.5, 0.5)}, {"std": (0.3, 0.3, 0.3)}, {"scale": 1 / 256}]
)
def test_that_comparison_catches_a_wrong_filter_mean_std_or_scale(fault: dict[str, Any]) -> None:
    clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = clip.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    photo = noise(60, 50)
    expected = processor(images=[photo], return_tensors="np")["pixel_values"]
    assert np.abs(expected - pixel_values([photo], SPEC._replace(**fault))).max() > 1e-3


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("image", {"resample": "magic"}),
        ("image", {"resize": "fold"}),
        ("image", {"shortest_edge": None}),
        ("image", {"pooling": "max"}),
        ("text", {"inputs": []}),
        ("text", {"inputs": ["input_ids", "position_ids"]}),
        ("text", {"padding": "left"}),
        ("text", {"special_tokens": -1}),
        ("text", {"max_length": None}),
        ("", {"scores": "argmax"}),
        ("", {"logit_bias": "much"}),
        ("", {"dim": None}),
    ],
)
def test_a_spec_that_is_not_understood_is_a_model_error(part: str, change: dict[str, Any]) -> None:
    whole = Bundle.open(TINY / "embedder")
    known = {**whole.spec[part], **change} if part else {**whole.spec, **change}
    found = {key: value for key, value in known.items() if value is not None}
    with pytest.raises(ModelError, match="has an invalid spec"):
        Embedder(replace(whole, spec={**whole.spec, part: found} if part else found))


def test_vectors_are_unit_and_do_not_depend_on_the_batch() -> None:
    embedder = Embedder.open(TINY / "embedder")
    photos = [noise(20 + 7 * n, 90 - 5 * n, n) for n in range(9)]
    together = embedder.embed_images(photos, batch=4)
    alone = np.concatenate([embedder.embed_images([photo]) for photo in photos])
    assert together.shape == (9, 48)
    assert together.dtype == np.float32
    assert np.allclose(together, alone, atol=1e-6)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert embedder.embed_images([]).shape == embedder.embed_texts([]).shape == (0, 48)


def test_texts_meet_pictures_in_one_space_whatever_their_neighbours() -> None:
    embedder = Embedder.open(TINY / "embedder")
    texts = ["red", "a blue one", "green green green green green"]
    vectors = embedder.embed_texts(texts)
    pictures = embedder.embed_images([Image.new("RGB", (40, 40), name) for name in ("red", "blue", "lime")])
    assert (vectors @ pictures.T).argmax(axis=1).tolist() == [0, 1, 2]
    assert np.allclose(vectors[:1], embedder.embed_texts(texts[:1]), atol=1e-6)
    assert embedder.count_cut(["red", "red " * 6, "red " * 7, "red " * 30]) == [0, 0, 1, 24]


def test_a_photo_query_opens_neither_the_text_tower_nor_its_tokenizer(tmp_path: Path) -> None:
    bundle = Bundle.open(TINY / "embedder").copy_to(tmp_path / "b")
    for path in bundle.path.iterdir():
        if path.name.startswith(("text", "tokenizer")):
            path.unlink()
    embedder = Embedder(bundle)
    assert embedder.embed_images([noise(9, 9)]).shape == (1, embedder.dim)
    with pytest.raises(ModelError):
        embedder.embed_texts(["red"])


def test_kinds_are_not_mixed_up() -> None:
    with pytest.raises(ModelError, match="not an embedder"):
        Embedder(Bundle.open(TINY / "detector"))


@pytest.mark.parametrize(
    ("what", "instead"), [('"unk_token": "<unk>"', '"unk_token": "<unx>"'), ('"id": "<start>"', '"id": "<stast>"')]
)
def test_a_tokenizer_that_does_not_know_its_own_token_is_told(tmp_path: Path, what: str, instead: str) -> None:
    """Like production: a changed byte in its file makes it: it loads, and fails when it is asked;
    by a panic, too.
    """
    shutil.copytree(TINY / "embedder", tmp_path / "embedder")
    file = tmp_path / "embedder" / "tokenizer.json"
    file.write_text(file.read_text().replace(what, instead))
    embedder = Embedder.open(tmp_path / "embedder")
    with pytest.raises(ModelError, match="its tokenizer fails"):
        embedder.embed_texts(["never heard"])
    with pytest.raises(ModelError, match="its tokenizer fails"):
        embedder.count_cut(["never heard"])
