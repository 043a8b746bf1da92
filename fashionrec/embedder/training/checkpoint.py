"""Load a complete checkpoint in the transformers format, and nothing but numbers and text.

A checkpoint may be untrusted or damaged. transformers initializes missing weights at random and
only logs it, follows links, and obeys the configuration (custom code, kernels from the hub, paths).
So it only gets what is made here: a configuration of known values within bounds, and copies of the
tokenizer's files. The loaded weights must be exactly those of the model.

Training plane: imports torch and transformers; imported by name when something is exported or
trained.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fashionrec.common.documents import read_json
from fashionrec.common.folder import Folder
from fashionrec.embedder.tokens import MAX_BYTES as MAX_TOKENIZER
from fashionrec.embedder.tokens import rust_errors
from fashionrec.errors import ModelError
from fashionrec.models.manifest import is_plain_name, shown

WEIGHTS = (("model.safetensors", "model.safetensors.index.json"), ("pytorch_model.bin", "pytorch_model.bin.index.json"))
_WORDS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
_PICTURES = ("preprocessor_config.json", "processor_config.json")
_POINTER = b"version https://git-lfs.github.com/spec/"
#: Tokenizer settings that would read other files or run code.
_NOT_TAKEN = ("auto_map", "chat_template", "init_inputs", "name_or_path", "vocab", "merges", "tokenizer_object")
HINT = "give a Hugging Face id, or a folder that save_pretrained wrote"
WHOLE = "get a complete copy"

#: Upper bounds of configuration values, far above real models.
_MOST = {
    "vocab_size": 1 << 21,
    "hidden_size": 1 << 14,
    "intermediate_size": 1 << 16,
    "projection_dim": 1 << 14,
    "num_hidden_layers": 256,
    "num_attention_heads": 256,
    "max_position_embeddings": 1 << 16,
    "num_channels": 3,
    "image_size": 1024,
    "patch_size": 1024,
}
_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
_NUMBERS = ("layer_norm_eps", "attention_dropout", "initializer_range", "initializer_factor", "logit_scale_init_value")


def check_folder(folder: Path) -> None:
    """Refuse a folder with a link out of it (in a hub cache: out of that model's cache), a special
    file, or a Git LFS pointer.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is a file; a checkpoint in the transformers format is a folder", hint=HINT)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a transformers model: config.json is missing", hint=HINT)
    root = folder.resolve()
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        root = root.parent.parent
    inside = Folder(folder, "checkpoint", ModelError)
    for entry in inside.walk():
        path = folder / entry.name
        if entry.kind == "link":
            target = path.resolve()
            if not (target.is_file() and target.is_relative_to(root)):
                raise inside.refusal(entry.name)
        elif entry.kind == "special":
            raise inside.refusal(entry.name)
        if entry.kind != "folder" and path.stat().st_size < 1024:
            with path.open("rb") as file:
                if file.read(len(_POINTER)) == _POINTER:
                    raise ModelError(
                        f"{path} is a Git LFS pointer, not the file itself",
                        hint="run `git lfs pull` in its clone",
                    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a complete model without custom code. Raises :class:`ModelError`."""
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"{folder} is an adapter, not a complete model", hint="merge it into its model and save that")
    for name in ("config.json", "tokenizer_config.json", *_PICTURES):
        if (folder / name).exists() and "auto_map" in _read(folder, name):
            raise ModelError(
                f"{folder / name} needs custom code (auto_map), which is never executed",
                hint="only models built into transformers are supported",
            )
    raw = _read(folder, "config.json")
    if raw.get("quantization_config") is not None:
        raise ModelError(f"{folder} is quantized", hint="use the model in float32 or half precision")
    return raw


def make_config(folder: Path, kind: Any, raw: Mapping[str, Any], own: Iterable[str]) -> Any:
    """Create a configuration of two towers (``kind`` of transformers) from known values within
    bounds only.

    ``own`` are the names of the values besides the towers. Raises :class:`ModelError`.
    """
    try:
        known = _known(raw, own)
        for part in ("text_config", "vision_config", "text_config_dict", "vision_config_dict"):
            if raw.get(part) is not None:
                known[part] = _known(raw[part], (*_MOST, *_IDS, *_NUMBERS, "hidden_act"))
        return kind(**known)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder / 'config.json'} is invalid: {reason}", hint=HINT) from None


def weight_files(folder: Path) -> list[str]:
    """Return the names of a checkpoint's weight files, all present and complete. Raises
    :class:`ModelError`.
    """
    for single, index in WEIGHTS:
        names: list[str] = [single] if (folder / single).exists() else []
        if not names and (folder / index).exists():
            names = _shards(folder, index)
        if names:
            for name in names:
                _check_file(folder / name, len(names))
            return names
    raise ModelError(f"{folder} has no weights (model.safetensors)", hint=WHOLE)


def check_numbers(folder: Path, model: Any) -> None:
    """Refuse a model with tensors of NaN or infinity, or matrices of zeros: files that were never
    filled.
    """
    wrong, empty = [], []
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            wrong.append(name)
        elif tensor.ndim > 1 and not tensor.any():
            empty.append(name)
    for names, what in ((wrong, "hold NaN or infinity"), (empty, "are all zeros")):
        if names:
            raise ModelError(f"{folder} is damaged: {_named(names)} {what}", hint=WHOLE)


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = read_json(folder / name)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / name} cannot be read: {error}", hint=HINT) from None
    if not isinstance(value, dict):
        raise ModelError(f"{folder / name} is not a configuration", hint=HINT)
    return value


def _known(raw: Any, names: Iterable[str]) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise ValueError(f"a part of it is {shown(raw)}")
    known = {name: raw[name] for name in names if raw.get(name) is not None}
    for name, value in known.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if name in _MOST and not (whole and 0 < value <= _MOST[name]):
            raise ValueError(f"{name} is {shown(value)}, not an integer from 1 to {_MOST[name]}")
        if name in _IDS and not (whole and 0 <= value < _MOST["vocab_size"]):
            raise ValueError(f"{name} is {shown(value)}, not a token id")
        if name in _NUMBERS and not (whole or isinstance(value, float)):
            raise ValueError(f"{name} is {shown(value)}, not a number")
        if name == "hidden_act" and not (isinstance(value, str) and value.isidentifier()):
            raise ValueError(f"{name} is {shown(value)}")
    return known


def _shards(folder: Path, index: str) -> list[str]:
    found = _read(folder, index).get("weight_map")
    names = set(found.values()) if isinstance(found, dict) and all(map(is_plain_name, found.values())) else set()
    suffix = Path(index).name.split(".")[1]
    if not names or not all(name.endswith(f".{suffix}") for name in names):
        raise ModelError(f"{folder / index} does not list the weight files", hint=WHOLE)
    return sorted(names)


def _check_file(path: Path, count: int) -> None:
    if not path.is_file():
        part = f", one of {count} weight files" if count > 1 else ""
        raise ModelError(f"{path.parent} is incomplete: {path.name} is missing{part}", hint=WHOLE)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ModelError(f"{path} is truncated or damaged: {reason}", hint=WHOLE) from None


def load_model(folder: Path, kind: Any, config: Any, *, name: str, harmless: Sequence[str] = ()) -> Any:
    """Load a model (``kind`` of transformers) in evaluation mode and float32, with all tensors of
    its configuration, all finite.

    ``name`` is used in messages; tensors named ``harmless`` may be present too. Raises
    :class:`ModelError`.
    """
    files = weight_files(folder)
    safe = files[0].endswith(".safetensors")
    if safe:
        _check_names(folder, kind, config, files, name, harmless)
    try:
        loaded: Any = kind.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            use_safetensors=safe,
            weights_only=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # so that all of them are reported
        )
    except Exception as error:
        text = " ".join(str(error).split())
        if "Weights only load failed" in text or "weights_only" in text:
            raise ModelError(
                f"{folder / files[0]} is a pickle with more than weights, which is never executed",
                hint="ask for model.safetensors",
            ) from None
        raise ModelError(f"{folder}: weights cannot be loaded: {text[:200]}", hint=WHOLE) from None
    model, info = loaded
    differences = {key: info.get(key) or () for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    differences["unexpected_keys"] = [key for key in differences["unexpected_keys"] if key not in harmless]
    _refuse_differences(folder, name, differences)
    if info.get("error_msgs"):
        raise ModelError(f"{folder} is incomplete: {' '.join(map(str, info['error_msgs']))[:200]}", hint=WHOLE)
    check_numbers(folder, model)
    return model.eval()


def _check_names(
    folder: Path, kind: Any, config: Any, files: Sequence[str], name: str, harmless: Sequence[str]
) -> None:
    """Refuse a configuration much larger than the weight files before it is allocated."""
    with torch.device("meta"):
        expected = {key: tensor.numel() for key, tensor in kind(config).state_dict().items()}
    if sum(expected.values()) <= sum((folder / file).stat().st_size for file in files):
        return
    names: set[str] = set()
    for shard in files:
        with safe_open(folder / shard, framework="pt") as file:
            names |= set(file.keys())
    differences = {"missing_keys": expected.keys() - names, "unexpected_keys": names - expected.keys() - {*harmless}}
    _refuse_differences(folder, name, differences)
    raise ModelError(f"{folder} is incomplete: its configuration has more weights than its files", hint=WHOLE)


def _refuse_differences(folder: Path, name: str, found: Mapping[str, Iterable[Any]]) -> None:
    parts = []
    for key, what in (
        ("missing_keys", "missing"),
        ("mismatched_keys", "with another shape"),
        ("unexpected_keys", "unexpected"),
    ):
        names = sorted(str(each[0] if isinstance(each, (tuple, list)) else each) for each in found.get(key, ()))
        if names:
            parts.append(f"{len(names)} {what} ({_named(names, count=False)})")
    if parts:
        raise ModelError(f"{folder} is not a complete {name}: tensors {'; '.join(parts)}", hint=WHOLE)


def _named(names: Sequence[str], *, count: bool = True) -> str:
    shortened = ", ".join(name[:100] for name in names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} tensors ({shortened})" if count else shortened


def load_processors(folder: Path, config: Any, pictures: Any) -> tuple[Any, Any]:
    """Load the image processor (``pictures`` of transformers) and the tokenizer.

    They are read from copies of their files without anything that would read or run something else.
    """
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as temporary:
        copies = Path(temporary)
        for name in (*_WORDS, *_PICTURES):
            path = folder / name
            if path.exists():
                if path.stat().st_size > MAX_TOKENIZER:
                    raise ModelError(f"{path} is larger than {MAX_TOKENIZER >> 20} MiB", hint=HINT)
                shutil.copyfile(path, copies / name)
        _clean_settings(copies / "tokenizer_config.json")
        processor = pictures.from_pretrained(copies, local_files_only=True)
        with rust_errors():
            tokenizer = AutoTokenizer.from_pretrained(
                copies, config=config, trust_remote_code=False, local_files_only=True
            )
    if not tokenizer.is_fast:
        raise ModelError("the tokenizer cannot be saved as tokenizer.json", hint="only fast tokenizers are supported")
    return processor, tokenizer


def _clean_settings(path: Path) -> None:
    from fashionrec.common.files import dump_json

    if path.exists():
        settings = _read(path.parent, path.name)
        kept = {key: value for key, value in settings.items() if key not in _NOT_TAKEN and not key.endswith("_file")}
        path.write_text(dump_json(kept), encoding="utf-8")


def download(source: str) -> Path:
    """Return the snapshot of a Hugging Face id in the hub's cache: settings and weights, preferably
    safetensors.
    """
    from huggingface_hub import snapshot_download

    words = ["config.json", *_WORDS, *_PICTURES]
    folder = Path(snapshot_download(source, allow_patterns=[*words, "model.safetensors*", "model-*-of-*.safetensors"]))
    if not any((folder / name).exists() for name in WEIGHTS[0]):
        folder = Path(snapshot_download(source, allow_patterns=[*words, "pytorch_model*.bin", WEIGHTS[1][1]]))
    return folder
