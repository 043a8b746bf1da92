"""An encoder, ready to serve: pictures and words to unit vectors. Each tower is opened when it is first asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashionrec.embedder.preprocess import normalized, seen
from fashionrec.embedder.spec import EmbedderSpec
from fashionrec.embedder.tokens import open_tokenizer, rust_errors
from fashionrec.errors import ModelError
from fashionrec.models.bundle import Bundle

if TYPE_CHECKING:
    from PIL import Image
    from tokenizers import Tokenizer


class Embedder:
    """Vectors of one bundle. Thread-safe; what it returns does not depend on the batch size (up to rounding)."""

    def __init__(self, bundle: Bundle, *, threads: int = 0, device: str = "auto") -> None:
        if bundle.kind != "embedder":
            raise ModelError(f"{bundle.path} holds a {bundle.kind}, not an embedder")
        try:
            self.spec = EmbedderSpec.from_dict(bundle.spec)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"bundle {bundle.path} is not understood ({error!r})", hint="export it again") from None
        self.bundle = bundle
        self._threads, self._device = threads, device
        self._lock = threading.Lock()
        self._sessions: dict[str, Any] = {}
        self._opening = {tower: threading.Lock() for tower in ("image", "text")}

    @classmethod
    def open(cls, path: str | Path, *, threads: int = 0, device: str = "auto") -> Embedder:
        """The encoder of a bundle folder. Raises :class:`ModelError`."""
        return cls(Bundle.open(path, "embedder"), threads=threads, device=device)

    @property
    def dim(self) -> int:
        return self.spec.dim

    @property
    def side(self) -> int:
        """Pixels of the longer side of what the image tower sees."""
        return max(self.spec.image.crop)

    @property
    def fingerprint(self) -> str:
        return self.bundle.fingerprint

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by before a softmax over texts, or a sigmoid (the learnt temperature)."""
        return float(self.spec.logit_scale)

    @property
    def logit_bias(self) -> float | None:
        """What is added to that before a sigmoid; None where texts are told apart by a softmax."""
        return float(self.spec.logit_bias) if self.spec.scores == "sigmoid" else None

    def embed_images(self, images: Sequence[Image.Image], batch: int = 16) -> np.ndarray:
        """float32 [n, dim], unit length, of RGB pictures of any size."""
        return self._batches(images, batch, lambda part: self.embed_seen(self.seen(part)))

    def seen(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """What the image tower sees of RGB pictures of any size: resized, and the middle cut out where they are no squares."""
        return seen(images, self.spec.image)

    def embed_seen(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """float32 [n, dim], unit length, of what :meth:`seen` gave, in one batch."""
        return self.answer(normalized(pictures, self.spec.image))

    @property
    def cuts_off(self) -> bool:
        """Whether the tower sees less than the whole of a square, or sees it distorted."""
        return not self.spec.image.shows_squares

    def answer(self, values: np.ndarray) -> np.ndarray:
        """Unit vectors of prepared pictures (float32 [n, 3, height, width])."""
        return self._run("image", {self.spec.image.input: values}, self.spec.image.pooling)

    def embed_texts(self, texts: Sequence[str], batch: int = 64) -> np.ndarray:
        """float32 [n, dim], unit length. What is longer than the tower reads is cut: see :meth:`count_cut`."""

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
        """How many tokens of each text lie beyond what the tower reads."""
        encoded = self._encoded(texts)
        around = self.spec.text.special_tokens
        return [sum(sum(rest.attention_mask) - around for rest in e.overflowing) for e in encoded]

    def _encoded(self, texts: Sequence[str]) -> list[Any]:
        with self._lock:
            tokenizer = self.tokenizer
            try:
                with rust_errors():
                    return list(tokenizer.encode_batch(list(texts)))
            except ValueError as error:  # a token that it should know, a pattern that does not end
                raise ModelError(
                    f"{self.bundle.path}: its tokenizer does not work: {error}", hint="export or copy it again"
                ) from None

    def _batches(self, values: Sequence[Any], batch: int, run: Callable[[Sequence[Any]], np.ndarray]) -> np.ndarray:
        parts = [run(values[start : start + batch]) for start in range(0, len(values), batch)]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)

    def start(self, tower: str) -> Any:
        """The session of a tower (``image`` or ``text``), opened if it is not open yet."""
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
            raise ModelError(f"{self.bundle.path} is damaged: its {graph} tower gives {vectors.shape}, or no numbers")
        result: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return result

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return open_tokenizer(self.bundle.folder, self.spec.text)


def _pool(values: np.ndarray, pooling: str, mask: np.ndarray | None) -> np.ndarray:
    """float32 [n, dim] of what a tower answers; of tokens [n, tokens, dim] those count where ``mask`` [n, tokens] is 1."""
    if pooling == "none" or values.ndim != 3:
        return values
    if pooling == "first":
        return values[:, 0]
    counted = np.ones(values.shape[:2], np.int64) if mask is None else mask
    if pooling == "last":
        result: np.ndarray = values[np.arange(len(values)), counted.sum(axis=1) - 1]
        return result
    return np.asarray((values * counted[..., None]).sum(axis=1) / counted.sum(axis=1)[:, None], np.float32)
