"""Checkpoints of a CLIP that are not whole, or hold more than numbers: refused by name, neither
exported nor trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from PIL import Image

from fashionrec.errors import ModelError

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from safetensors.torch import load_file, save_file  # noqa: E402

Break = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP of random weights, as save_pretrained writes it."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    from fashionrec.embedder.training.train import learn_tokenizer

    torch.manual_seed(0)
    tokenizer = learn_tokenizer(["a red dress", "blue pants", "a green top"] * 3, 300)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **shared,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 32,
            "projection_dim": 16,
            **ids,
        },
        vision_config={**shared, "image_size": 32, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
    )
    folder = tmp_path_factory.mktemp("whole") / "clip"
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def clip(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "clip")
    return tmp_path / "clip"


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def weights(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Break:
    """Saves the tensors changed."""

    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        changed = {name: value.clone() for name, value in change(tensors).items()}
        save_file(changed, folder / "model.safetensors", {"format": "pt"})

    return apply


def settings(change: Callable[[dict[str, Any]], object], name: str = "config.json") -> Break:
    def apply(folder: Path) -> None:
        path = folder / name
        document = json.loads(path.read_text()) if path.exists() else {}
        change(document)
        path.write_text(json.dumps(document))

    return apply


def without(*parts: str) -> Break:
    return weights(lambda found: {k: v for k, v in found.items() if not any(part in k for part in parts)})


def sharded(folder: Path) -> None:
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2


def half_the_shards(folder: Path) -> None:
    sharded(folder)
    for path in sorted(folder.glob("model-*.safetensors"))[1::2]:
        path.unlink()


def truncated_shard(folder: Path) -> None:
    sharded(folder)
    path = sorted(folder.glob("model-*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-1000])


def shard_elsewhere(folder: Path) -> None:
    sharded(folder)
    shutil.move(sorted(folder.glob("model-*.safetensors"))[0], folder.parent / "secret.safetensors")
    index = folder / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    document["weight_map"] = {key: "../secret.safetensors" for key in document["weight_map"]}
    index.write_text(json.dumps(document))


def pointer(name: str) -> Break:
    def apply(folder: Path) -> None:
        (folder / name).write_text(
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 605247071\n"
        )

    return apply


def pickled(extra: bool, whole: bool = True) -> Break:
    """``pytorch_model.bin`` in the place of safetensors."""

    def apply(folder: Path) -> None:
        tensors: dict[str, Any] = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        if extra:
            tensors["canary"] = Canary(str(folder.parent / "ran"))
        if not whole:
            del tensors["text_projection.weight"]
        torch.save(tensors, folder / "pytorch_model.bin")

    return apply


def old_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(str(folder.parent / "ran"))))


def poisoned(value: float, name: str) -> Break:
    def change(found: dict[str, Any]) -> dict[str, Any]:
        found[name] = found[name].clone()
        found[name].view(-1)[-1:] = value
        return found

    return weights(change)


def zeroed(folder: Path) -> None:
    weights(lambda found: {k: v * 0 if k == "text_projection.weight" else v for k, v in found.items()})(folder)


def huge(folder: Path) -> None:
    settings(lambda document: document["text_config"].update(vocab_size=1 << 21, hidden_size=1 << 14))(folder)


def long_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60))


def linked(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "model.safetensors").symlink_to("../outside.safetensors")


def piped(folder: Path) -> None:
    os.mkfifo(folder / "vocab.json")


BROKEN: dict[str, tuple[Break, str]] = {
    "renamed": (
        weights(lambda found: {f"module.{k}": v for k, v in found.items()}),
        r"missing \(.*unexpected \(module\.",
    ),
    "renamed otherwise": (weights(lambda found: {f"model.{k}": v for k, v in found.items()}), "unexpected"),
    "no text projection": (without("text_projection"), r"1 missing \(text_projection.weight\)"),
    "no visual projection": (without("visual_projection"), r"1 missing \(visual_projection.weight\)"),
    "no temperature": (without("logit_scale"), r"1 missing \(logit_scale\)"),
    "text tower only": (without("vision_model", "visual_projection"), r"\d+ missing \(vision_model"),
    "vision tower only": (without("text_"), r"\d+ missing \(text_model"),
    "one layer less": (without("text_model.encoder.layers.1."), r"16 missing \(text_model.encoder.layers.1"),
    "one tensor more": (
        weights(lambda found: found | {"classifier.weight": torch.ones(2, 2)}),
        "unexpected .classifier",
    ),
    "nan": (poisoned(float("nan"), "vision_model.post_layernorm.bias"), "1 tensors .*post_layernorm.bias.*NaN"),
    "infinity": (poisoned(float("inf"), "text_projection.weight"), "infinity"),
    "zeros": (zeroed, "text_projection.weight.*zeros"),
    "truncated": (
        lambda folder: os.truncate(folder / "model.safetensors", 5000),
        "model.safetensors is truncated or damaged",
    ),
    "truncated shard": (truncated_shard, "is truncated or damaged"),
    "half the shards": (half_the_shards, r"model-00002-of-\d+.safetensors is missing"),
    "shard elsewhere": (shard_elsewhere, "does not list the weight files"),
    "header too long": (
        lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60)) and None,
        "is truncated or damaged",
    ),
    "pointer": (pointer("model.safetensors"), "model.safetensors is a Git LFS pointer"),
    "pointer of words": (pointer("tokenizer.json"), "tokenizer.json is a Git LFS pointer"),
    "wrong width": (settings(lambda d: d["text_config"].update(hidden_size=48)), "with another shape"),
    "wrong depth": (settings(lambda d: d["vision_config"].update(num_hidden_layers=1)), "unexpected"),
    "wrong projection": (settings(lambda d: d.update(projection_dim=8)), "with another shape"),
    "wrong patches": (settings(lambda d: d["vision_config"].update(patch_size=16)), "with another shape"),
    "huge": (huge, "missing|another shape|more weights"),
    "monstrous": (settings(lambda d: d["text_config"].update(num_hidden_layers=10**9)), "num_hidden_layers"),
    "odd": (settings(lambda d: d["vision_config"].update(hidden_size="32")), "hidden_size"),
    "odd parts": (settings(lambda d: d.update(text_config=[1])), "config.json is invalid"),
    "deep": (lambda folder: (folder / "config.json").write_text("[" * 100_000) and None, "config.json cannot be read"),
    "another kind": (settings(lambda d: d.update(model_type="siglip")), "of type 'siglip', not CLIP"),
    "quantized": (settings(lambda d: d.update(quantization_config={"quant_method": "awq"})), "quantized"),
    "adapter": (settings(lambda d: d.update(base_model_name_or_path="a/b"), "adapter_config.json"), "adapter"),
    "pickle with a canary": (pickled(extra=True), "pickle with more than weights"),
    "old pickle": (old_pickle, "pickle with more than weights"),
    "pickle that is not whole": (pickled(extra=False, whole=False), r"1 missing \(text_projection.weight\)"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    "link": (linked, r"model.safetensors is a link \(to"),
    "pipe": (piped, "vocab.json is neither a file nor a folder"),
    "code in config": (settings(lambda d: d.update(auto_map={"AutoModel": "evil.Evil"})), "needs custom code"),
    "code in words": (
        settings(lambda d: d.update(auto_map={"AutoTokenizer": ["evil.Evil", None]}), "tokenizer_config.json"),
        "needs custom code",
    ),
    "monstrous pictures": (
        settings(lambda d: d.update(size={"shortest_edge": 10**9}), "preprocessor_config.json"),
        "shortest_edge",
    ),
    "no deviation": (settings(lambda d: d.update(image_std=[0, 0, 0]), "preprocessor_config.json"), "std"),
    "pictures of another size": (
        settings(lambda d: d.update(crop_size={"height": 24, "width": 24}), "preprocessor_config.json"),
        "makes 24 x 24 pixels, its image tower needs 32 x 32",
    ),
    "words of another model": (
        settings(
            lambda d: d["added_tokens"].append({**d["added_tokens"][0], "id": 9999, "content": "more"}),
            "tokenizer.json",
        ),
        "tokens, its text tower",
    ),
    "tokenizer that panics": (
        settings(
            lambda d: d.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "tokenizer.json"
        ),
        "cannot be loaded",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_checkpoint_that_is_not_whole_is_not_exported(
    case: str, clip: Path, cli: Callable[..., Result], tmp_path: Path
) -> None:
    from fashionrec.embedder.training.export import export_embedder

    break_it, reason = BROKEN[case]
    (clip / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n\nclass Evil: pass\n")
    break_it(clip)
    before = sorted(path.name for path in tmp_path.iterdir())
    done = cli("export", clip, "--out", tmp_path / "out")
    assert done.code == 2, done.err
    with pytest.raises(ModelError, match=reason) as caught:
        export_embedder(str(clip), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "something ran, or was written"


@pytest.mark.parametrize(
    "case", ["renamed", "no text projection", "nan", "half the shards", "pickle with a canary", "pointer"]
)
def test_nor_trained_on(case: str, clip: Path, tmp_path: Path) -> None:
    from fashionrec.config import load_config
    from fashionrec.embedder.training.train import Pair, train_embedder

    break_it, reason = BROKEN[case]
    break_it(clip)
    pairs = [Pair(lambda: Image.new("RGB", (32, 32)), "a red dress", str(n % 9)) for n in range(18)]
    with pytest.raises(ModelError, match=reason):
        train_embedder(pairs, load_config(env={}).config.train_embedder, tmp_path / "runs", init=str(clip))
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "runs").exists(), "a run was begun"


def test_two_exports_of_one_whole_source_are_one_model(clip: Path, tmp_path: Path) -> None:
    from fashionrec.embedder.training.export import export_embedder

    first = export_embedder(str(clip), tmp_path / "a")
    assert export_embedder(str(clip), tmp_path / "b").fingerprint == first.fingerprint
    assert first.agreement["image_cosine_min"] > 0.9999
    made = {"name": clip.name, "architecture": "CLIPModel", "transformers": transformers.__version__}
    weights = (clip / "model.safetensors").read_bytes()
    assert (first.name, first.source) == (clip.name, {**made, "sha256": hashlib.sha256(weights).hexdigest()})
    # of weights in several files it is the tensors in the order of their names that are told
    tensors = sorted(load_file(clip / "model.safetensors").items())
    state = b"".join(key.encode() + value.numpy().tobytes() for key, value in tensors)
    sharded(clip)
    several = export_embedder(str(clip), tmp_path / "several", name="mine", pictures=[Image.new("RGB", (40, 30))])
    assert (several.name, several.source) == ("mine", {**made, "state_sha256": hashlib.sha256(state).hexdigest()})
    assert (several.agreement["pictures"], first.agreement["pictures"]) == (1, 7)


@pytest.mark.parametrize(
    "form", ["shards", "pickle", "half", "position ids", "words without tokenizer.json", "leftovers"]
)
def test_whole_checkpoints_of_every_form_load(form: str, clip: Path, whole: Path) -> None:
    from fashionrec.embedder.training.families import load_checkpoint

    expected = load_file(whole / "model.safetensors")
    if form == "shards":
        sharded(clip)
    elif form == "pickle":
        pickled(extra=False)(clip)
    elif form == "half":
        weights(lambda found: {k: v.half() for k, v in found.items()})(clip)
        expected = {k: v.half().float() for k, v in expected.items()}
    elif form == "position ids":
        ids = torch.arange(32)[None]
        weights(lambda found: found | {"text_model.embeddings.position_ids": ids})(clip)
    elif form == "leftovers":  # what training leaves behind, and what older versions wrote into settings
        (clip / "training_args.bin").write_bytes(pickle.dumps(Canary(str(clip.parent / "ran"))))
        old = {"tokenizer_file": "/home/x/.cache/x", "special_tokens_map_file": "/etc/passwd", "name_or_path": "/x"}
        settings(lambda d: d.update(old), "tokenizer_config.json")(clip)
        settings(lambda d: d.update(_name_or_path="/x", torch_dtype="float32", architectures=["CLIPModel"]))(clip)
    else:
        vocabulary = json.loads((clip / "tokenizer.json").read_text())["model"]
        (clip / "vocab.json").write_text(json.dumps(vocabulary["vocab"]))
        (clip / "merges.txt").write_text("\n".join(" ".join(pair) for pair in vocabulary["merges"]))
        (clip / "tokenizer.json").unlink()
        (clip / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer", "model_max_length": 32}')
    loaded = load_checkpoint(str(clip))
    model, tokenizer = loaded.model, loaded.tokenizer
    state = model.state_dict()
    assert {name for name in state if "position_ids" not in name} == set(expected)
    for name, value in expected.items():
        assert torch.equal(state[name], value), name
    assert len(tokenizer(["a red dress"])["input_ids"][0]) > 2
    assert not (clip.parent / "ran").exists()


def test_links_within_a_hub_cache_are_followed(clip: Path, tmp_path: Path) -> None:
    from fashionrec.embedder.training.families import load_checkpoint

    cache = tmp_path / "hub" / "models--a--b"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for path in clip.iterdir():
        path.rename(cache / "blobs" / f"blob-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/blob-{path.name}")
    assert load_checkpoint(str(snapshot)).model is not None
    (tmp_path / "secret.txt").write_text("secret")
    (snapshot / "merges.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ModelError, match=r"merges.txt is a link \(to"):
        load_checkpoint(str(snapshot))


def test_a_hub_id_is_loaded_from_its_snapshot(
    clip: Path, tmp_path: Path, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, by the command line: what lies in the cache."""
    cache = tmp_path / "hub" / "models--some--clip"
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for folder in ("blobs", "refs"):
        (cache / folder).mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    for path in clip.iterdir():
        path.rename(cache / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "fashionrec", "export", "some/clip", "--out", "out", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "some/clip"
    without("text_projection")(snapshot)
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))  # what it read from env there
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = cli("export", "some/clip", "--out", "out", "--json")
    assert (again.code, (tmp_path / "out").exists()) == (2, False)
    assert "1 missing (text_projection.weight)" in again.out + again.err


def test_a_configuration_brings_nothing_but_what_is_known(clip: Path) -> None:
    from fashionrec.embedder.training.families import load_checkpoint

    extra = {
        "attn_implementation": "evil/kernel",
        "_attn_implementation": "evil/kernel",
        "transformers_weights": "../x",
    }
    settings(lambda d: d.update(extra, text_config={**d["text_config"], **extra}))(clip)
    model = load_checkpoint(str(clip)).model
    assert model.config._attn_implementation in ("sdpa", "eager")
    assert not hasattr(model.config, "transformers_weights")
