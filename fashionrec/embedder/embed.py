"""Serve an encoder: images and texts to unit vectors. Each tower is opened when it is
first used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.embedder.preprocess import encoder_view, normalized
from fashionrec.embedder.spec import EmbedderSpec
from fashionrec.embedder.tokens import open_tokenizer, rust_errors
from fashionrec.errors import ModelError
from fashionrec.models.bundle import Bundle

if TYPE_CHECKING:
    from PIL import Image
    from tokenizers import Tokenizer


class Embedder:
    """The encoder of one bundle. Thread-safe; results do not depend on the batch size (up to
    rounding).
    """

    def __init__(self, bundle: Bundle, *, threads: int = 0, device: str = "auto") -> None:
        if bundle.kind != "embedder":
            raise ModelError(f"{bundle.path} holds a {bundle.kind}, not an embedder")
        try:
            self.spec = EmbedderSpec.from_dict(bundle.spec)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"bundle {bundle.path} has an invalid spec ({error!r})", hint="export it again") from None
        self.bundle = bundle
        self._threads, self._device = threads, device
        self._lock = threading.Lock()
        self._sessions: dict[str, Any] = {}
        self._opening = {tower: threading.Lock() for tower in ("image", "text")}

    @classmethod
    def open(cls, path: str | Path, *, threads: int = 0, device: str = "auto") -> Embedder:
        """Open the encoder of a bundle folder. Raises :class:`ModelError`."""
        return cls(Bundle.open(path, "embedder"), threads=threads, device=device)

    @property
    def dim(self) -> int:
        return self.spec.dim

    @property
    def side(self) -> int:
        """Pixels of the longer side of the image tower's input."""
        return max(self.spec.image.crop)

    @property
    def fingerprint(self) -> str:
        return self.bundle.fingerprint

    @property
    def logit_scale(self) -> float:
        """Factor of cosines before a softmax over texts, or a sigmoid (the learned temperature)."""
        return float(self.spec.logit_scale)

    @property
    def logit_bias(self) -> float | None:
        """Bias added before a sigmoid; None if texts are compared by a softmax."""
        return float(self.spec.logit_bias) if self.spec.scores == "sigmoid" else None

    def embed_images(self, images: Sequence[Image.Image], batch: int = 16) -> np.ndarray:
        """Embed RGB images of any size: float32 [n, dim], unit length."""
        return self._batches(images, batch, lambda part: self.embed_view(self.encoder_view(part)))

    def encoder_view(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """Resize RGB images of any size to the image tower's input, and centre-crop those that are
        not square.
        """
        return encoder_view(images, self.spec.image)

    def embed_view(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Embed the result of :meth:`encoder_view` in one batch: float32 [n, dim], unit length."""
        return self.answer(normalized(pictures, self.spec.image))

    @property
    def cuts_off(self) -> bool:
        """True if the tower sees less than the whole of a square, or distorts it."""
        return not self.spec.image.shows_squares

    def answer(self, values: np.ndarray) -> np.ndarray:
        """Embed prepared images (float32 [n, 3, height, width]) to unit vectors."""
        return self._run("image", {self.spec.image.input: values}, self.spec.image.pooling)

    def embed_texts(self, texts: Sequence[str], batch: int = 64) -> np.ndarray:
        """Embed texts: float32 [n, dim], unit length. Texts beyond the tower's limit are truncated:
        see :meth:`count_cut`.
        """

        def run(part: Sequence[Any]) -> np.ndarray:
            encoded = self._encoded(part)
            values = {
                "input_ids": np.array([e.ids for e in encoded], np.int64),
                "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
                "token_type_ids": np.array([e.type_ids for e in encoded], np.int64),
            }
            inputs = {name: values[name] for name in self.spec.text.inputs}
            return self._run("text", inputs, self.spec.text.pooling, values["attention_mask"])

        return self._batches(texts, batch, run)

    def count_cut(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text exceed the tower's limit."""
        encoded = self._encoded(texts)
        around = self.spec.text.special_tokens
        return [sum(sum(rest.attention_mask) - around for rest in e.overflowing) for e in encoded]

    def _encoded(self, texts: Sequence[str]) -> list[Any]:
        with self._lock:
            tokenizer = self.tokenizer
            try:
                with rust_errors():
                    return list(tokenizer.encode_batch(list(texts)))
            except ValueError as error:  # a missing token, a pattern that does not end
                raise ModelError(
                    f"{self.bundle.path}: its tokenizer fails: {error}", hint="export or copy it again"
                ) from None

    def _batches(self, values: Sequence[Any], batch: int, run: Callable[[Sequence[Any]], np.ndarray]) -> np.ndarray:
        parts = [run(values[start : start + batch]) for start in range(0, len(values), batch)]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)

    def start(self, tower: str) -> Any:
        """Return the session of a tower (``image`` or ``text``), opening it if necessary."""
        with self._opening[tower]:
            if tower not in self._sessions:
                self._sessions[tower] = self.bundle.session(tower, threads=self._threads, device=self._device)
            return self._sessions[tower]

    def _run(
        self, graph: str, inputs: dict[str, np.ndarray], pooling: str, mask: np.ndarray | None = None
    ) -> np.ndarray:
        session = self.start(graph)
        try:
            vectors = _pool(np.asarray(session.run(None, inputs)[0], np.float32), pooling, mask)
        except Exception as error:  # onnxruntime raises its own classes
            raise ModelError(f"{self.bundle.path} cannot be run: {str(error).splitlines()[0][:200]}") from None
        count = len(next(iter(inputs.values())))
        if vectors.shape != (count, self.dim) or not np.isfinite(vectors).all():
            raise ModelError(
                f"{self.bundle.path} is damaged: its {graph} tower returns {vectors.shape}, or values that are not finite"
            )
        result: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return result

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return open_tokenizer(self.bundle.folder, self.spec.text)


def _pool(values: np.ndarray, pooling: str, mask: np.ndarray | None) -> np.ndarray:
    """Pool a tower's output to float32 [n, dim]; tokens [n, tokens, dim] count if ``mask`` [n,
    tokens] is 1.
    """
    if pooling == "none" or values.ndim != 3:
        return values
    if pooling == "first":
        return values[:, 0]
    counted = np.ones(values.shape[:2], np.int64) if mask is None else mask
    if pooling == "last":
        result: np.ndarray = values[np.arange(len(values)), counted.sum(axis=1) - 1]
        return result
    return np.asarray((values * counted[..., None]).sum(axis=1) / counted.sum(axis=1)[:, None], np.float32)
