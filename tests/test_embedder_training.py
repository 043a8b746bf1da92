"""The encoder's training plane: a small CLIP from scratch, finetuning, and exports checked against
transformers.
"""

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result
from PIL import Image, ImageDraw

from fashionrec.cli.output import Output
from fashionrec.cli.session import Session
from fashionrec.cli.training import run_train
from fashionrec.config import TrainEmbedderConfig, load_config
from fashionrec.errors import DataError, ModelError, Refused

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

COLOURS = ["red", "green", "blue", "yellow", "black", "purple", "orange", "gray", "brown", "pink"]


def settings(**changes: object) -> TrainEmbedderConfig:
    small = {
        "image_size": 32,
        "patch_size": 8,
        "width": 64,
        "layers": 2,
        "heads": 2,
        "text_width": 32,
        "text_layers": 1,
    }
    small |= {"dim": 32, "vocab_size": 400, "epochs": 8, "batch": 20}
    return load_config(env={}).config.train_embedder.model_copy(update=small | changes)


def picture(colour: str, shape: str, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (48, 48), "white")
    x, y = (int(v) for v in rng.integers(2, 10, 2))
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "round" else draw.rectangle)((x, y, x + 32, y + 32), fill=colour)
    return image


def pairs() -> list[Any]:
    from fashionrec.embedder.training.train import Pair

    found = []
    for n, colour in enumerate(COLOURS):
        for m, shape in enumerate(("round", "square")):
            for view in range(3):
                image = picture(colour, shape, 100 * n + 10 * m + view)
                found.append(
                    Pair(load=lambda image=image: image, caption=f"a {colour} {shape} top", product_id=f"{n}-{m}")
                )
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP trained from scratch; its run's folder."""
    from fashionrec.embedder.training.train import train_embedder

    epochs: list[int] = []
    run = train_embedder(
        pairs(),
        settings(),
        tmp_path_factory.mktemp("clip"),
        dataset={"path": "p.csv"},
        progress=lambda n, t, m: epochs.append(n),
    )
    assert epochs == list(range(1, 9))
    return run.path


def test_a_small_clip_learns_and_records_what_made_it(small: Path) -> None:
    from fashionrec.models.runs import read_run

    run = read_run(small)
    assert (run.kind, run.status, run.promoted) == ("embedder", "done", True)
    history = run.metrics["history"]
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= {
        p.name for p in run.weights_path("best").iterdir()
    }


def test_its_export_agrees_and_serves_the_same_space(small: Path, tmp_path: Path) -> None:
    from fashionrec.embedder.embed import Embedder
    from fashionrec.embedder.training.export import export_embedder

    bundle = export_embedder(str(small / "weights" / "best"), tmp_path / "bundle")
    figures = bundle.agreement
    assert figures["image_cosine_min"] >= 0.9999
    assert figures["text_cosine_min"] >= 0.9999
    assert figures["pixel_difference_max"] <= 1e-5
    assert figures["torchvision_grey_levels_max"] <= 3
    assert figures["token_ids_equal"] is True
    assert str(tmp_path) not in json.dumps(bundle.source)
    embedder = Embedder(bundle)
    texts = embedder.embed_texts([f"a {colour} round top" for colour in COLOURS[:4]])
    images = embedder.embed_images([picture(colour, "round", 7) for colour in COLOURS[:4]])
    assert (np.diag(texts @ images.T).mean()) > (texts @ images.T).mean()


class Swapped:
    """A source whose channels are in another order than the export's."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, **given: Any) -> dict[str, Any]:
        return {"pixel_values": self.processor(**given)["pixel_values"][:, ::-1].copy()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)


@pytest.mark.parametrize("fault", ["mean", "std", "filter", "channels", "truncation", "lost"])
def test_the_export_gate_refuses_every_planted_fault(fault: str, small: Path, tmp_path: Path) -> None:
    from fashionrec.embedder.training import export
    from fashionrec.embedder.training.families import load_checkpoint

    clip: Any = load_checkpoint(str(small / "weights" / "best"))
    spec = clip.spec()
    with export.quiet():
        export.export_graphs(clip, spec, tmp_path)
    pictures = export.made_up_pictures()
    export.check(clip, spec, tmp_path, pictures)
    if fault == "mean":
        spec = spec._replace(image=spec.image._replace(mean=(0.5, 0.5, 0.5)))
    elif fault == "std":
        spec = spec._replace(image=spec.image._replace(std=(0.25, 0.25, 0.25)))
    elif fault == "filter":
        spec = spec._replace(image=spec.image._replace(resample="bilinear"))
    elif fault == "channels":
        clip.processor = Swapped(clip.processor)
    elif fault == "truncation":
        spec = spec._replace(text=spec.text._replace(max_length=9))
    else:
        with torch.no_grad():
            clip.model.visual_projection.weight.mul_(-1)
    with pytest.raises(Refused):
        export.check(clip, spec, tmp_path, pictures)


@pytest.mark.parametrize(
    "change", [{"do_resize": False}, {"size": {"height": 9, "width": 9}}, {"do_pad": True}, {"do_center_crop": False}]
)
def test_preprocessing_that_is_not_supported_is_refused_not_ignored(change: dict[str, object], small: Path) -> None:
    from fashionrec.embedder.training.families.clip import image_spec

    processor = json.loads((small / "weights" / "best" / "preprocessor_config.json").read_text())
    with pytest.raises(ModelError):
        image_spec({**processor, "crop_size": {"height": 32, "width": 32}, **change})


def test_sources_that_are_no_clip_are_one_line(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fashionrec.embedder.training.export import export_embedder

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    shutil.copytree(small / "weights" / "best", tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no")
    for source in (tmp_path / "empty", tmp_path / "bert", tmp_path / "broken", "nobody/has-this-model"):
        with pytest.raises(ModelError) as caught:
            export_embedder(str(source), tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_finetune_starts_from_its_checkpoint_and_is_judged(small: Path, tmp_path: Path) -> None:
    from fashionrec.embedder.training.train import train_embedder

    init = str(small / "weights" / "best")
    run = train_embedder(pairs(), settings(epochs=1, lr=1e-5), tmp_path, init=init)
    assert run.verb == "finetune"
    assert run.notes["decision"]["promoted"] is run.promoted
    assert run.metrics["loss"] < 0.9 * json.loads((small / "run.json").read_text())["metrics"]["history"][0]["loss"]


def test_too_few_products_are_refused(tmp_path: Path) -> None:
    from fashionrec.embedder.training.train import train_embedder

    with pytest.raises(DataError, match="at least 8"):
        train_embedder(pairs()[:9], settings(), tmp_path)


def test_training_from_a_table_through_the_command_line(cli: Callable[..., Result], tmp_path: Path) -> None:
    rows = ["image,product_id,caption_en"]
    for n, pair in enumerate(pairs()):
        pair.load().save(tmp_path / f"{n}.png")
        rows.append(f"{n}.png,{pair.product_id},{pair.caption}")
    (tmp_path / "p.csv").write_text("\n".join(rows))
    sets = [
        f"--set=train_embedder.{key}={value}"
        for key, value in settings(epochs=1).model_dump().items()
        if value is not None
    ]
    done = cli("train", "data=p.csv", "name=clip", "--set=build.detect=false", *sets, "--json")
    assert done.code == 0, done.err
    assert done.document["kind"] == "embedder"
    assert done.document["dataset"]["pairs"] == 60
    exported = cli("export", "runs/train/clip", "--out", "bundle", "--json")
    assert exported.code == 0, exported.err
    assert exported.document["kind"] == "embedder"
    built = cli("build-index", "p.csv", "--index", "c", "--embedder", "bundle", "--detector", "none", "--json")
    assert built.code == 0, built.err
    assert built.document["products"] == 20
    still = "--set=train_embedder.lr=1e-12"  # nothing that was found before is lost
    tuned = cli("finetune", "runs/train/clip", "data=p.csv", "name=tuned", "--set=build.detect=false", *sets, still)
    assert tuned.code == 0, tuned.err
    assert tuned.err.splitlines()[-1] == "next: fashionrec build-index PHOTOS --embedder runs/finetune/tuned"
    assert "training runs/train/clip/weights/best on 60 garments of p.csv" in tuned.err.splitlines()
    assert re.fullmatch(r"run: runs/finetune/tuned \(done, \d+ s\)", tuned.out.splitlines()[-1])


@pytest.mark.realdata
def test_a_terminal_shows_which_detector_crops_before_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    picture("red", "round", 1).save(tmp_path / "a.png")
    (tmp_path / "products.csv").write_text("image,product_id,caption\na.png,1,a red top\n")
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    session = Session([], [f"train.data={tmp_path / 'products.csv'}", "detector.source=nowhere"], Output())
    with pytest.raises(ModelError, match="no such detector: nowhere"):
        run_train(session)
    assert shown.getvalue() == "detector: nowhere (detector.source)\n"


def test_a_clip_of_fashionclips_exact_shape(tmp_path: Path) -> None:
    """ViT-B/32, 151 million parameters, random weights, CLIP's own tokenizer, from vocabulary and
    merges alone.
    """
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    from fashionrec.embedder.embed import Embedder
    from fashionrec.embedder.training.export import export_embedder

    folder = os.environ.get("FASHIONREC_REALDATA")
    if not folder:
        pytest.skip("FASHIONREC_REALDATA names no folder")
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig())
    assert sum(p.numel() for p in model.parameters()) > 151_000_000
    source = tmp_path / "clip"
    model.save_pretrained(source)
    CLIPImageProcessorPil().save_pretrained(source)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(Path(folder) / "clip-tokenizer" / name, source)
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}')
    bundle = export_embedder(str(source), tmp_path / "bundle")
    assert bundle.agreement["image_cosine_min"] >= 0.9999
    assert bundle.agreement["text_cosine_min"] >= 0.9999
    assert bundle.agreement["pixel_difference_max"] <= 1e-5
    assert bundle.agreement["token_ids_equal"] is True
    embedder = Embedder(bundle)
    assert embedder.dim == 512
    ids = embedder.tokenizer.encode("a photo of a red dress").ids
    assert ids == [49406, 320, 1125, 539, 320, 736, 2595, 49407]
