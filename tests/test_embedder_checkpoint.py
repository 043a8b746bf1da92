"""Test what a checkpoint's folder and configuration may hold, value by value, before any model is
made.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fashionrec.errors import ModelError

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")

HINT = "give a Hugging Face id, or a folder that save_pretrained wrote"
WHOLE = "get a complete copy"
MOST = {
    "vocab_size": 1 << 21, "hidden_size": 1 << 14, "intermediate_size": 1 << 16, "projection_dim": 1 << 14,
    "num_hidden_layers": 256, "num_attention_heads": 256, "max_position_embeddings": 1 << 16, "num_channels": 3,
    "image_size": 1024, "patch_size": 1024,
}  # fmt: skip


def made(raw: dict[str, Any], own: tuple[str, ...] = ("projection_dim", "logit_scale_init_value")) -> dict[str, Any]:
    from fashionrec.embedder.training.checkpoint import make_config

    found: dict[str, Any] = make_config(Path("f"), dict, raw, own)
    return found


def refused(action: Any) -> tuple[str, str]:
    with pytest.raises(ModelError) as caught:
        action()
    return str(caught.value), caught.value.hint


def test_only_what_is_known_of_a_configuration_is_taken() -> None:
    raw = {
        "projection_dim": 8, "logit_scale_init_value": 2.5, "model_type": "clip", "auto_map": {"a": "b"}, "vision_config": None,
        "text_config": {"hidden_size": 4, "hidden_act": "quick_gelu", "eos_token_id": 0, "attention_dropout": 0, "path": "x"},
    }  # fmt: skip
    assert made(raw) == {
        "projection_dim": 8, "logit_scale_init_value": 2.5,
        "text_config": {"hidden_size": 4, "hidden_act": "quick_gelu", "eos_token_id": 0, "attention_dropout": 0},
    }  # fmt: skip


@pytest.mark.parametrize("name", MOST)
def test_each_value_up_to_its_bound(name: str) -> None:
    for value in (1, MOST[name]):
        assert made({"text_config": {name: value}}) == {"text_config": {name: value}}
    for value in (0, -1, MOST[name] + 1, 1.0, "8", True):
        told = f"f/config.json is invalid: {name} is {value!r}, not an integer from 1 to {MOST[name]}"
        assert refused(lambda value=value: made({"vision_config": {name: value}})) == (told, HINT)


@pytest.mark.parametrize(
    ("name", "good", "bad", "what"),
    [
        ("pad_token_id", [0, (1 << 21) - 1], [-1, 1 << 21, 1.0, True], ", not a token id"),
        ("eos_token_id", [5], ["5"], ", not a token id"),
        ("layer_norm_eps", [1e-5, 1, 0], ["1", True, [1]], ", not a number"),
        ("initializer_factor", [1.0], [{}], ", not a number"),
        ("hidden_act", ["gelu"], ["a b", 3, "a.b"], ""),
    ],
)
def test_ids_and_numbers_and_names(name: str, good: list[Any], bad: list[Any], what: str) -> None:
    for value in good:
        assert made({"text_config_dict": {name: value}}) == {"text_config_dict": {name: value}}
    for value in bad:
        told, hint = refused(lambda value=value: made({"text_config": {name: value}}))
        assert told.startswith(f"f/config.json is invalid: {name} is ")
        assert told.endswith(what)
        assert hint == HINT


def test_what_is_told_of_a_folder_that_is_none(tmp_path: Path) -> None:
    from fashionrec.embedder.training.checkpoint import check_folder, read_config, weight_files

    file, folder = tmp_path / "file", tmp_path / "m"
    file.write_text("x")
    folder.mkdir()
    assert refused(lambda: check_folder(file)) == (
        f"{file} is a file; a checkpoint in the transformers format is a folder",
        HINT,
    )
    assert refused(lambda: check_folder(folder)) == (
        f"{folder} is not a transformers model: config.json is missing",
        HINT,
    )
    (folder / "config.json").write_text('{"model_type": "clip"}')
    check_folder(folder)
    assert read_config(folder) == {"model_type": "clip"}
    assert refused(lambda: weight_files(folder)) == (f"{folder} has no weights (model.safetensors)", WHOLE)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert weight_files(folder) == ["pytorch_model.bin"]
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "b.bin"}}))
    told = f"{folder / 'model.safetensors.index.json'} does not list the weight files"
    assert refused(lambda: weight_files(folder)) == (told, WHOLE)
    shards = {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert refused(lambda: weight_files(folder)) == (
        f"{folder} is incomplete: m-1.safetensors is missing, one of 2 weight files",
        WHOLE,
    )
    (folder / "vocab.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert refused(lambda: check_folder(folder)) == (
        f"{folder / 'vocab.json'} is a Git LFS pointer, not the file itself",
        "run `git lfs pull` in its clone",
    )
    (folder / "config.json").write_text('{"quantization_config": {}}')
    assert refused(lambda: read_config(folder)) == (
        f"{folder} is quantized",
        "use the model in float32 or half precision",
    )
    (folder / "processor_config.json").write_text('{"auto_map": 1}')
    assert refused(lambda: read_config(folder)) == (
        f"{folder / 'processor_config.json'} needs custom code (auto_map), which is never executed",
        "only models built into transformers are supported",
    )
    (folder / "processor_config.json").write_text("[]")
    told = f"{folder / 'processor_config.json'} is not a configuration"
    assert refused(lambda: read_config(folder)) == (told, HINT)
    (folder / "adapter_config.json").write_text("{}")
    assert refused(lambda: read_config(folder)) == (
        f"{folder} is an adapter, not a complete model",
        "merge it into its model and save that",
    )


def test_tensors_that_were_not_filled_are_named() -> None:
    from fashionrec.embedder.training.checkpoint import check_numbers

    def check(**tensors: Any) -> None:
        check_numbers(Path("f"), SimpleNamespace(state_dict=lambda: tensors))

    good, zeros = torch.ones(2, 2), torch.zeros(2, 2)
    check(a=good, bias=torch.zeros(3), scale=torch.tensor(0.0))
    assert refused(lambda: check(a=good, b=zeros)) == ("f is damaged: 1 tensors (b) are all zeros", WHOLE)
    bad = {name: torch.tensor([1.0, float("nan")]) for name in "dcba"}
    told = "f is damaged: 4 tensors (d, c, b, …) hold NaN or infinity"
    assert refused(lambda: check(**bad, z=zeros)) == (told, WHOLE)


def test_the_settings_of_an_image_processor() -> None:
    pytest.importorskip("transformers")
    from fashionrec.embedder.spec import ImageSpec
    from fashionrec.embedder.training.families.clip import image_spec

    settings: dict[str, Any] = {
        "do_resize": True, "do_pad": False, "size": {"shortest_edge": 224, "longest_edge": None}, "resample": 3,
        "crop_size": {"height": 200, "width": 224}, "rescale_factor": 1 / 255, "image_mean": [0.5, 0.4, 0.3],
        "image_std": [1, 2, 3],
    }  # fmt: skip
    assert image_spec(settings) == ImageSpec(
        input="pixel_values", resample="bicubic", crop=(200, 224), scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(1.0, 2.0, 3.0),
        resize="crop", shortest_edge=224,
    )  # fmt: skip
    for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        told = f"the image processor sets {step}=false, which is not supported"
        assert refused(lambda step=step: image_spec({**settings, step: False}))[0] == told
    assert refused(lambda: image_spec({**settings, "do_pad": True}))[0] == (
        "the image processor pads, which is not supported"
    )
    size = {"height": 5, "width": 5}
    assert refused(lambda: image_spec({**settings, "size": size}))[0] == (
        f"the image processor resizes to {size}, and only shortest_edge is supported"
    )
    assert refused(lambda: image_spec({**settings, "resample": 99}))[0].startswith(
        "unsupported settings of the image processor (ValueError("
    )


class Words:
    """A tokenizer of nine tokens."""

    pad_token: str | None = "<end>"
    model_max_length: Any = 3

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def __len__(self) -> int:
        return 9

    def save_pretrained(self, folder: str) -> None:
        """Behave as a tokenizer without a fast kind does: it writes no tokenizer.json."""


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, None),
        ({"width": 24}, "its image processor makes 24 x 32 pixels, its image tower needs 32 x 32"),
        ({"height": 24}, "its image processor makes 32 x 24 pixels, its image tower needs 32 x 32"),
        ({"known": 8}, "its tokenizer has 9 tokens, its text tower 8"),
        ({"most": 2}, "its tokenizer has a limit of 2 tokens"),
        ({"model_max_length": 2}, "its tokenizer has a limit of 2 tokens"),
        ({"pad_token": None}, "its tokenizer has no padding token"),
        ({"model_max_length": None}, "unsupported preprocessing (TypeError("),
    ],
)
def test_the_parts_of_a_clip_fit_together(changes: dict[str, Any], wrong: str | None) -> None:
    pytest.importorskip("transformers")
    from fashionrec.embedder.training.families.clip import check_parts

    given = {"height": 32, "width": 32, "known": 9, "most": 3} | changes
    text = SimpleNamespace(vocab_size=given["known"], max_position_embeddings=given["most"])
    model = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(image_size=32), text_config=text))
    processor = SimpleNamespace(crop_size={key: given[key] for key in ("height", "width")})
    words = Words(**{key: value for key, value in changes.items() if hasattr(Words, key)})
    if wrong is None:
        check_parts(Path("f"), model, processor, words)
    elif wrong.endswith("("):
        told, hint = refused(lambda: check_parts(Path("f"), model, processor, words))
        assert told.startswith(f"f: {wrong}")
        assert hint == HINT
    else:
        told = f"f is inconsistent: {wrong}"
        assert refused(lambda: check_parts(Path("f"), model, processor, words)) == (told, WHOLE)


def test_tokenizers_that_are_too_large_or_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from fashionrec.embedder.training.checkpoint import MAX_TOKENIZER, load_processors
    from fashionrec.embedder.training.export import write_tokenizer

    (tmp_path / "vocab.json").touch()
    os.truncate(tmp_path / "vocab.json", MAX_TOKENIZER + 1)
    told = f"{tmp_path / 'vocab.json'} is larger than 64 MiB"
    assert refused(lambda: load_processors(tmp_path, None, None)) == (told, HINT)
    assert refused(lambda: write_tokenizer(Words(), tmp_path / "tokenizer.json")) == (
        "the tokenizer cannot be saved as tokenizer.json",
        "only fast tokenizers are supported",
    )
    assert not (tmp_path / "tokenizer.json").exists()
