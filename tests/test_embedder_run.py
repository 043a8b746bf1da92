"""A run of the encoder's training: its model as configured, what it records, how it ends, and
whether it is promoted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashionrec.config import TrainEmbedderConfig, load_config
from fashionrec.errors import FashionrecError
from fashionrec.models.runs import Run, read_run

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

COLOURS = ("red", "lime", "blue", "yellow", "black", "purple", "orange", "gray", "brown", "pink")
SIZES: dict[str, Any] = {
    "image_size": 24, "patch_size": 8, "width": 32, "layers": 2, "heads": 4, "text_width": 64, "text_layers": 1,
    "dim": 16, "vocab_size": 320, "epochs": 6, "batch": 9, "device": None, "name": "clip",
}  # fmt: skip


def settings(**changes: object) -> TrainEmbedderConfig:
    return load_config(env={}).config.train_embedder.model_copy(update=SIZES | changes)


def pairs() -> list[Any]:
    """Ten products of two photos each, of which one is held out."""
    from fashionrec.embedder.training.train import Pair

    return [
        Pair(
            load=lambda colour=colour, view=view: Image.new("RGB", (40, 30 + 4 * view), colour),
            caption=f"a {colour} top",
            product_id=colour,
        )
        for colour in COLOURS
        for view in range(2)
    ]


def train(folder: Path, config: TrainEmbedderConfig, **given: Any) -> tuple[Run, list[tuple[int, int, dict[str, Any]]]]:
    from fashionrec.embedder.training.train import train_embedder

    told: list[tuple[int, int, dict[str, Any]]] = []
    run = train_embedder(pairs(), config, folder, progress=lambda *epoch: told.append(epoch), **given)
    return run, told


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[tuple[int, int, dict[str, Any]]]]:
    log: list[str] = []
    found = train(
        tmp_path_factory.mktemp("runs"), settings(time_limit=3600.0), dataset={"path": "p.csv"}, log=log.append
    )
    assert log == []
    return found


def test_a_run_records_its_figures_epoch_by_epoch(trained: tuple[Run, list[Any]]) -> None:
    from transformers import CLIPModel

    run, told = trained
    assert [(epoch, epochs) for epoch, epochs, _ in told] == [(n, 6) for n in range(1, 7)]
    # what is held out is looked at in every fifth epoch, and in the last
    assert ["held_out_recall_at_1" in figures for *_, figures in told] == [False] * 4 + [True] * 2
    metrics = run.metrics
    assert metrics["history"] == [{"epoch": epoch, **figures} for epoch, _, figures in told]
    assert metrics["loss"] == told[-1][2]["loss"] < told[0][2]["loss"]
    assert metrics["held_out_recall_at_1"] == told[-1][2]["held_out_recall_at_1"]
    assert metrics["held_out_photos"] == 1
    model = CLIPModel.from_pretrained(run.weights_path("best"))
    assert metrics["parameters"] == sum(one.numel() for one in model.parameters())
    read = read_run(run.path)
    assert (read.path.parent.name, read.path.name, read.kind, read.verb, read.status, read.promoted, read.device) == (
        "train", "clip", "embedder", "train", "done", True, "cpu",
    )  # fmt: skip
    assert read.config == {"train_embedder": settings(time_limit=3600.0).model_dump(), "init": None}
    assert (read.dataset, read.weights, read.notes) == ({"path": "p.csv"}, {"best": "weights/best"}, {})
    assert (read.metrics, read.seed) == (metrics, settings().seed)
    assert 0 < read.seconds < 3600


def test_the_model_is_of_the_configured_size(trained: tuple[Run, list[Any]]) -> None:
    folder = trained[0].weights_path("best")
    config = json.loads((folder / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "projection_dim")
    assert [text[name] for name in names] == [64, 256, 1, 2, 16]
    assert [vision[name] for name in names] == [32, 128, 2, 4, 16]
    assert (vision["image_size"], vision["patch_size"], config["projection_dim"]) == (24, 8, 16)
    assert (text["max_position_embeddings"], text["bos_token_id"], text["eos_token_id"], text["pad_token_id"]) == (
        32, 0, 1, 1,
    )  # fmt: skip
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert (processor["size"], processor["crop_size"]) == ({"shortest_edge": 24}, {"height": 24, "width": 24})
    assert processor["image_mean"] == [0.48145466, 0.4578275, 0.40821073]
    assert processor["image_std"] == [0.26862954, 0.26130258, 0.27577711]


def test_a_tokenizer_is_learnt_from_captions() -> None:
    from fashionrec.embedder.training.train import learn_tokenizer

    tokenizer = learn_tokenizer(["a red top", "a red dress", "a blue top"], 1000)
    ids = tokenizer(["A RED top", "a"], padding=True)
    tokens = [tokenizer.convert_ids_to_tokens(one) for one in ids["input_ids"]]
    start, end = "<|startoftext|>", "<|endoftext|>"
    longest = len(tokens[0])
    assert tokens[0][:5] == [start, "a</w>", "red</w>", "top</w>", end]
    assert tokens[1][:4] == [start, "a</w>", end, end]
    assert ids["attention_mask"][1] == [1, 1, 1] + [0] * (longest - 3)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token) == (
        start,
        end,
        end,
        end,
    )
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.model_max_length) == (0, 1, 32)
    assert tokenizer("E\u0301")["input_ids"] == tokenizer("é")["input_ids"] != tokenizer("e")["input_ids"]
    assert len(learn_tokenizer([f"item{n}" for n in range(200)], 300)) == 300


def test_a_run_ends_before_an_epoch_that_would_pass_its_limit(tmp_path: Path) -> None:
    log: list[str] = []
    run, told = train(tmp_path, settings(time_limit=1e-9), log=log.append)
    assert [(epoch, epochs) for epoch, epochs, _ in told] == [(1, 6)]
    assert log == ["stopped after epoch 1: another one would exceed train_embedder.time_limit"]
    assert (run.status, len(run.metrics["history"])) == ("done", 1)
    assert "held_out_recall_at_1" not in told[0][2]
    assert 0 <= run.metrics["held_out_recall_at_1"] <= 1


def test_a_run_that_breaks_off_is_recorded_as_failed(tmp_path: Path) -> None:
    from fashionrec.embedder.training.train import Pair, train_embedder

    def lost() -> Image.Image:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        train_embedder([*pairs(), Pair(lost, "a top", "red")], settings(), tmp_path)
    run = read_run(tmp_path / "train" / "clip")
    assert (run.status, run.weights, run.metrics) == ("failed", {}, {})


def checkpoint(source: Path, folder: Path, scale: float) -> str:
    """A copy of a CLIP with another temperature."""
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(source)
    with torch.no_grad():
        model.logit_scale.fill_(scale)
    for part in (model, CLIPImageProcessorPil.from_pretrained(source), AutoTokenizer.from_pretrained(source)):
        part.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("scale", "learnt"), [(5.0, np.log(100)), (-0.5, 0.0)])
def test_the_temperature_stays_within_its_bounds(
    scale: float, learnt: float, trained: tuple[Run, list[Any]], tmp_path: Path
) -> None:
    from transformers import CLIPModel

    init = checkpoint(trained[0].weights_path("best"), tmp_path / "init", scale)
    run, _ = train(tmp_path, settings(epochs=1, lr=1e-9), init=init)
    found = CLIPModel.from_pretrained(run.weights_path("best")).logit_scale.item()
    assert found == pytest.approx(learnt, abs=1e-5)


def test_a_finetune_that_finds_no_less_is_promoted(trained: tuple[Run, list[Any]], tmp_path: Path) -> None:
    assert trained[0].metrics["held_out_recall_at_1"] == 1.0
    run, _ = train(tmp_path, settings(epochs=1, lr=1e-9), init=str(trained[0].weights_path("best")))
    assert (run.verb, run.promoted) == ("finetune", True)
    words = "held-out recall@1 went from 1.000 to 1.000"
    assert read_run(run.path).notes["decision"] == {"promoted": True, "reasons": [words]}


def test_a_finetune_that_finds_less_is_not_promoted(trained: tuple[Run, list[Any]], tmp_path: Path) -> None:
    """One step at such a rate leaves no numbers: every photo is then nearest to the first one."""
    run, _ = train(tmp_path, settings(epochs=1, lr=1e30, batch=20), init=str(trained[0].weights_path("best")))
    assert (run.promoted, run.metrics["held_out_recall_at_1"]) == (False, 0.0)
    assert run.notes["decision"]["reasons"] == ["held-out recall@1 went from 1.000 to 0.000"]


def test_a_training_that_diverges_is_told(tmp_path: Path) -> None:
    with pytest.raises(FashionrecError, match=r"the loss became (nan|inf) in epoch \d") as caught:
        train(tmp_path, settings(lr=1e30))
    assert caught.value.hint == "lower train_embedder.lr"
    run = read_run(tmp_path / "train" / "clip")
    assert (run.status, run.weights) == ("failed", {})
