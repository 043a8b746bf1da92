"""What a bundle says of its encoder, typed: all that serving needs to know of a family.

A field that has a default is written only where it differs, so that a bundle of a version that did not know
the field says, and has the fingerprint of, the same model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from fashionrec.models.manifest import check_spec

_Part = TypeVar("_Part", "ImageSpec", "TextSpec", "EmbedderSpec")


class ImageSpec(NamedTuple):
    """The image tower: how a picture becomes its input, float32 [n, 3, height, width], and what it answers.

    ``resize`` is ``crop`` (the short side to ``shortest_edge``, then the middle cut out) or ``squash`` (straight
    to the input's size). ``crop`` is that size: height, width. ``pooling``: see :class:`TextSpec`.
    """

    input: str
    resample: str
    crop: tuple[int, int]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "crop"
    shortest_edge: int = 0
    pooling: str = "none"

    @property
    def shows_squares(self) -> bool:
        """Whether the tower sees the whole of a square picture, in its proportions."""
        height, width = self.crop
        return height == width if self.resize == "squash" else self.shortest_edge <= min(height, width)


class TextSpec(NamedTuple):
    """The text tower: its tokenizer, the inputs that it takes (of ``input_ids``, ``attention_mask``, ``token_type_ids``), and
    what it answers.

    ``padding`` is ``longest`` (of the batch) or ``max_length``; ``special_tokens`` is how many the tokenizer puts
    around a text. ``pooling`` is ``none`` where the graph answers vectors [n, dim]; of vectors of tokens
    [n, tokens, dim] it takes the ``first``, the ``last`` or the ``mean``, padding left out.
    """

    tokenizer: str
    max_length: int
    pad_id: int
    pad_token: str
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    padding: str = "longest"
    special_tokens: int = 2
    pooling: str = "none"


class EmbedderSpec(NamedTuple):
    """An encoder. A text's probability is by ``scores`` a ``softmax`` over texts of ``logit_scale`` times the cosine, or the
    ``sigmoid`` of that plus ``logit_bias``."""

    dim: int
    logit_scale: float
    image: ImageSpec
    text: TextSpec
    precision: str = "fp32"
    scores: str = "softmax"
    logit_bias: float = 0.0

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> EmbedderSpec:
        """Read and check what a bundle says. Raises KeyError for what is missing, ValueError for what is wrong."""
        check_spec("embedder", document)
        image, text = _read(ImageSpec, document["image"]), _read(TextSpec, document["text"])
        if image.resize == "crop":
            document["image"]["shortest_edge"]
        return _read(cls, {**document, "image": image, "text": text})

    def to_dict(self) -> dict[str, Any]:
        """Return what a bundle says: the inverse of :meth:`from_dict`."""
        return {**_written(self), "image": _written(self.image), "text": _written(self.text)}


def _read(kind: type[_Part], values: Mapping[str, Any]) -> _Part:
    known: dict[str, Any] = {}
    for name in kind._fields:
        if name in values or name not in kind._field_defaults:
            value = values[name]
            known[name] = tuple(value) if isinstance(value, list) else value
    return kind(**known)


def _written(part: ImageSpec | TextSpec | EmbedderSpec) -> dict[str, Any]:
    defaults = part._field_defaults
    values = {name: value for name, value in part._asdict().items() if name not in defaults or value != defaults[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
