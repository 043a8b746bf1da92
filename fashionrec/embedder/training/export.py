"""Export an encoder in the transformers format to a bundle: two ONNX towers, the tokenizer, the
whole preprocessing.

Training plane: imports torch and transformers; imported by name when something is exported.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer

from fashionrec.common.files import sha256_file
from fashionrec.embedder.embed import Embedder
from fashionrec.embedder.preprocess import pixel_values
from fashionrec.embedder.spec import EmbedderSpec
from fashionrec.embedder.training.families import MODULES, EmbedderFamily, load_checkpoint
from fashionrec.errors import ModelError, Refused
from fashionrec.models.bundle import Bundle, write_bundle
from fashionrec.models.graphs import with_optimized, write_external_data
from fashionrec.models.manifest import check_spec

#: Maximum differences between an export and its source.
MIN_COSINE = 0.9999
MAX_PIXEL = 1e-5  # from transformers' Pillow backend, in units of the normalized tensor
MAX_GREY = 3.0  # from its torchvision backend, in grey levels of 255
OPSET = 17
GRAPHS = {"image": "image.onnx", "text": "text.onnx"}

ODD_TEXTS = (
    "a photo of a red dress",
    "",
    "  two   spaces\tand a tab ",
    "ÀÉÎ straße ﬁ",
    "화이트 셔츠와 체크 패턴 스커트",
    "emoji 👗 and 'quotes' & <tags>",
    "UPPER lower MiXeD 12345 3.14",
    "don't won't it's",
    "a very long text " * 40,
)


def export_embedder(
    source: str,
    out: Path,
    *,
    name: str | None = None,
    pictures: Sequence[Image.Image] = (),
    families: Mapping[str, str] = MODULES,
    overwrite: bool = False,
    log: Callable[[str], None] | None = None,
) -> Bundle:
    """Export an encoder to a bundle at ``out``, and measure how closely it matches its source.

    ``source`` is a Hugging Face id or a folder in the transformers format. The agreement is
    measured on ``pictures``, or on generated ones, and stored in the bundle. ``families`` are the
    modules by ``model_type``.

    Raises :class:`ModelError` if the source cannot be loaded or is not supported, :class:`Refused`
    if the export does not match it.
    """
    with quiet(), tempfile.TemporaryDirectory() as folder:
        checkpoint, work = load_checkpoint(source, families), Path(folder)
        spec = checkpoint.spec()
        document = spec.to_dict()
        try:
            check_spec("embedder", document)
        except ValueError as error:
            raise ModelError(f"{source} cannot be exported: {error}") from None
        try:
            export_graphs(checkpoint, spec, work)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:  # torch's own, and those of its exporter
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{source} cannot be exported: {reason}") from None
        for tower in GRAPHS.values():
            write_external_data(work / tower)
        bundle = write_bundle(
            out,
            kind="embedder",
            name=name or _name(source),
            graphs=with_optimized(GRAPHS, work),
            spec=document,
            source=_source(source, checkpoint.model),
            agreement=check(checkpoint, spec, work, pictures or made_up_pictures(), log),
            files={file.name: file for file in sorted(work.iterdir()) if file.is_file()},
            overwrite=overwrite,
        )
    return bundle


def check(
    checkpoint: EmbedderFamily,
    spec: EmbedderSpec,
    work: Path,
    pictures: Sequence[Image.Image],
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure an export in ``work`` against its source; return the figures. Raises :class:`Refused`
    if they differ.

    Cosine alone is nearly blind (an untrained model finds any two images alike), so pixel tensors
    and token ids are compared too.
    """
    embedder = Embedder(Bundle(work, "embedder", "unwritten", "", GRAPHS, spec.to_dict(), {}, {}, {}))
    expected_pixels = checkpoint.pixels(pictures)
    pixels = pixel_values(pictures, spec.image)
    pixel_difference = float(np.abs(expected_pixels - pixels).max())
    grey = np.abs(checkpoint.pixels_by_torchvision(pictures) - pixels)
    grey_difference = float((grey * np.asarray(spec.image.std).reshape(1, 3, 1, 1) * 255).max())
    tokens = checkpoint.tokens(ODD_TEXTS)
    ours = [e.ids for e in embedder.tokenizer.encode_batch(list(ODD_TEXTS))]
    with torch.no_grad():
        images = checkpoint.image_tower()(torch.from_numpy(expected_pixels))
        texts = checkpoint.text_tower()(*(tokens[name] for name in spec.text.inputs))
    figures = {
        "image_cosine_min": _cosine(images.numpy(), embedder.embed_images(pictures)),
        "text_cosine_min": _cosine(texts.numpy(), embedder.embed_texts(ODD_TEXTS)),
        "pixel_difference_max": pixel_difference,
        "torchvision_grey_levels_max": round(grey_difference, 3),
        "token_ids_equal": tokens["input_ids"].tolist() == ours,
        "pictures": len(pictures),
        "texts": len(ODD_TEXTS),
    }
    if log:
        log(
            f"agreement with the source: image cosine {figures['image_cosine_min']:.7f}, text cosine"
            f" {figures['text_cosine_min']:.7f}, pixels {pixel_difference:.1e}, tokens"
            f" {'equal' if figures['token_ids_equal'] else 'differ'}"
        )
    wrong = [
        words
        for words, good in {
            f"image vectors differ (cosine {figures['image_cosine_min']:.6f})": figures["image_cosine_min"]
            >= MIN_COSINE,
            f"text vectors differ (cosine {figures['text_cosine_min']:.6f})": figures["text_cosine_min"] >= MIN_COSINE,
            f"pixel tensors differ by {pixel_difference:.2g}": pixel_difference <= MAX_PIXEL,
            f"pixels differ from torchvision's by {grey_difference:.1f} grey levels": grey_difference <= MAX_GREY,
            "token ids differ": figures["token_ids_equal"],
        }.items()
        if not good
    ]
    if wrong:
        raise Refused(f"the export does not match its source: {'; '.join(wrong)}", hint="please report this model")
    return figures


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers, torch's exporter and progress bars on both streams."""
    names = ("transformers", "torch.onnx", "huggingface_hub", "torch")
    before = {name: logging.getLogger(name).level for name in names}
    transformers.utils.logging.disable_progress_bar()
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def export_graphs(checkpoint: EmbedderFamily, spec: EmbedderSpec, work: Path) -> None:
    """Write both towers and the tokenizer of a checkpoint into the folder ``work``."""
    batch, sequence = {0: "batch"}, {0: "batch", 1: "sequence"}
    torch.onnx.export(
        checkpoint.image_tower(),
        (torch.zeros(2, 3, *spec.image.crop),),
        str(work / GRAPHS["image"]),
        input_names=[spec.image.input],
        output_names=["image_embeds"],
        dynamic_axes={spec.image.input: batch, "image_embeds": batch},
        opset_version=OPSET,
        dynamo=False,
    )
    torch.onnx.export(
        checkpoint.text_tower(),
        checkpoint.example_tokens(),
        str(work / GRAPHS["text"]),
        input_names=list(spec.text.inputs),
        output_names=["text_embeds"],
        dynamic_axes={**dict.fromkeys(spec.text.inputs, sequence), "text_embeds": batch},
        opset_version=OPSET,
        dynamo=False,
    )
    write_tokenizer(checkpoint.tokenizer, work / spec.text.tokenizer)


def write_tokenizer(tokenizer: Any, path: Path) -> None:
    """Write a tokenizer of transformers as one file, without truncation and padding."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        written = Path(folder) / "tokenizer.json"
        if not written.is_file():
            raise ModelError(
                "the tokenizer cannot be saved as tokenizer.json", hint="only fast tokenizers are supported"
            )
        saved = Tokenizer.from_file(str(written))
    saved.no_truncation()
    saved.no_padding()
    saved.save(str(path))


def made_up_pictures() -> list[Image.Image]:
    """Generate images of mixed sizes for comparison: noise and gradients."""
    rng = np.random.default_rng(0)
    pictures = []
    for width, height in ((224, 224), (300, 200), (97, 411), (640, 480), (31, 29), (225, 223), (1, 7)):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((width, height))
        noise = rng.integers(-20, 21, (height, width, 3))
        pictures.append(Image.fromarray(np.clip(np.asarray(coarse, np.int64) + noise, 0, 255).astype(np.uint8)))
    return pictures


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    product = (a * b).sum(axis=1)
    return float((product / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


def _name(source: str) -> str:
    path = Path(source)
    if not path.exists():
        return source
    return path.parent.parent.name if path.name in ("best", "last") and path.parent.name == "weights" else path.name


def _source(source: str, model: Any) -> dict[str, Any]:
    """Return the source of a bundle: an id or a folder's name, never a path of this machine."""
    made = {"name": _name(source), "architecture": type(model).__name__, "transformers": transformers.__version__}
    weights = Path(source) / "model.safetensors"
    if weights.is_file():
        return {**made, "sha256": sha256_file(weights)}
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + value.detach().cpu().numpy().tobytes())
    return {**made, "state_sha256": digest.hexdigest()}
