"""Encoders that are no CLIP: what serves reads the spec alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Result
from PIL import Image

from fashionrec.captioner.local.calibration import sigmoid
from fashionrec.config import load_config
from fashionrec.embedder.embed import Embedder
from fashionrec.embedder.preprocess import encoder_view
from fashionrec.embedder.spec import EmbedderSpec
from fashionrec.errors import ModelError
from fashionrec.models.bundle import Bundle


def test_a_spec_is_written_as_it_was_read_and_defaults_are_not_written() -> None:
    old = Bundle.open(TINY / "embedder").spec
    spec = EmbedderSpec.from_dict(old)
    assert spec.to_dict() == old
    assert (spec.scores, spec.image.resize, spec.text.padding, spec.text.special_tokens) == (
        "softmax",
        "crop",
        "longest",
        2,
    )
    new = spec._replace(scores="sigmoid", logit_bias=-3.0, text=spec.text._replace(inputs=("input_ids",)))
    assert EmbedderSpec.from_dict(json.loads(json.dumps(new.to_dict()))) == new
    assert set(new.to_dict()) - set(old) == {"scores", "logit_bias"}


@pytest.mark.parametrize("size", [(60, 20), (20, 60), (32, 32), (1, 7)])
def test_a_squashed_picture_is_seen_whole(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 2, 0, size[0], size[1]))
    spec = Embedder.open(TINY / "embedder").spec.image._replace(resize="squash", crop=(16, 32), resample="nearest")
    (picture,) = encoder_view([image], spec)
    assert picture.size == (32, 16)
    assert picture.getpixel((31, 0)) == (0, 0, 255)
    assert size[0] == 1 or picture.getpixel((0, 15)) == (255, 0, 0)
    assert not spec.shows_squares
    assert spec._replace(crop=(32, 32)).shows_squares


def answering(pooling: str, values: np.ndarray) -> Embedder:
    """The tiny encoder, whose towers answer vectors of tokens."""
    embedder = Embedder.open(TINY / "embedder")
    embedder.spec = embedder.spec._replace(
        dim=values.shape[-1],
        image=embedder.spec.image._replace(pooling=pooling),
        text=embedder.spec.text._replace(pooling=pooling),
    )

    class Session:
        def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [values]

    embedder.start = lambda name: Session()  # type: ignore[method-assign]
    return embedder


@pytest.mark.parametrize(("pooling", "text", "image"), [("first", 0, [0]), ("last", 2, [4]), ("mean", None, None)])
def test_vectors_of_tokens_are_pooled_without_their_padding(pooling: str, text: int | None, image: Any) -> None:
    values = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    embedder = answering(pooling, values)
    texts = ["red", "a blue one"]  # <start> red <end> and padding; five tokens
    masks = [3, 5]
    found = embedder.embed_texts(texts)
    expected = [
        row[:count].mean(axis=0) if text is None else row[0 if text == 0 else count - 1]
        for row, count in zip(values, masks, strict=True)
    ]
    assert np.allclose(found, [row / np.linalg.norm(row) for row in expected], atol=1e-6)
    pictures = embedder.embed_images([Image.new("RGB", (9, 9))] * 2)
    whole = values.mean(axis=1) if image is None else values[:, image[0]]
    assert np.allclose(pictures, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-6)


def test_a_sigmoid_tells_each_value_by_itself() -> None:
    assert sigmoid(np.array([3.0, 1.0, 3.0]), -3.0).round(3).tolist() == [0.5, 0.119, 0.5]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SigLIP of random weights, as save_pretrained writes it."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tokenizers import processors
    from transformers import SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    from fashionrec.embedder.training.train import learn_tokenizer

    torch.manual_seed(0)
    tokenizer = learn_tokenizer(["a red dress", "blue pants", "a green top"] * 3, 300)
    end = [("<|endoftext|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=end
    )
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**shared, "vocab_size": len(tokenizer), "max_position_embeddings": 12, "projection_size": 32}
    config = SiglipConfig(text_config=text, vision_config={**shared, "image_size": 32, "patch_size": 8})
    folder = tmp_path_factory.mktemp("siglip") / "siglip"
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.train
def test_another_family_is_a_file_and_a_line(
    siglip: Path, cli: Callable[..., Result], photos: Path, tmp_path: Path
) -> None:
    from fashionrec.embedder.training.export import export_embedder
    from fashionrec.embedder.training.families import MODULES
    from fashionrec.embedder.training.train import Pair, train_embedder

    pairs = [Pair(lambda: Image.new("RGB", (32, 32)), "a top", str(n)) for n in range(8)]
    refused = cli("export", siglip, "--out", tmp_path / "bundle")
    assert refused.code == 2
    assert "of type 'siglip', not CLIP" in refused.err
    families = {**MODULES, "siglip": "siglip_family"}
    with pytest.raises(ModelError, match="cannot be trained: only CLIP models can"):
        train_embedder(
            pairs, load_config(env={}).config.train_embedder, tmp_path / "runs", init=str(siglip), families=families
        )
    assert not (tmp_path / "runs").exists()
    agreement = export_embedder(str(siglip), tmp_path / "bundle", families=families).agreement
    assert agreement["token_ids_equal"] is True
    assert min(agreement["image_cosine_min"], agreement["text_cosine_min"]) > 0.9999
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["format_version"] == 2
    built = cli(
        "build-index", photos, "--index", tmp_path / "c", "--embedder", tmp_path / "bundle", "--detector", "none"
    )
    assert built.code == 0, built.err
    for words in ((next(photos.iterdir()),), ("--text", "a red dress")):
        answer = cli("query", *words, "--index", tmp_path / "c", "--json")
        assert answer.code == 0, answer.err
    assert cli("caption", "--index", tmp_path / "c", "--captioner", "local").code == 0


def test_a_bundle_of_an_old_reader_is_of_format_1(tmp_path: Path) -> None:
    assert json.loads((TINY / "embedder" / "bundle.json").read_text())["format_version"] == 1
    copy = Bundle.open(TINY / "embedder").copy_to(tmp_path / "copy")
    document = json.loads((copy.path / "bundle.json").read_text())
    assert document["format_version"] == 1
    (copy.path / "bundle.json").write_text(json.dumps({**document, "format_version": 3}))
    with pytest.raises(ModelError, match="of format 3; this fashionrec reads 2"):
        Bundle.open(copy.path)
