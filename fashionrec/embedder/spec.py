"""The typed spec of an encoder in a bundle: all that serving needs to know of its family.

Fields with a default are only written if they differ, so that bundles of versions without the field
have the same fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from fashionrec.models.manifest import check_spec

_Part = TypeVar("_Part", "ImageSpec", "TextSpec", "EmbedderSpec")


class ImageSpec(NamedTuple):
    """The image tower: how an image becomes its input, float32 [n, 3, height, width], and its
    output.

    ``resize`` is ``crop`` (the short side to ``shortest_edge``, then centre-crop) or ``squash``
    (directly to the input's size). ``crop`` is that size: height, width. ``pooling``: see
    :class:`TextSpec`.
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
        """True if the tower sees all of a square image, undistorted."""
        height, width = self.crop
        return height == width if self.resize == "squash" else self.shortest_edge <= min(height, width)


class TextSpec(NamedTuple):
    """The text tower: its tokenizer, its inputs (of ``input_ids``, ``attention_mask``,
    ``token_type_ids``), and its output.

    ``padding`` is ``longest`` (of the batch) or ``max_length``; ``special_tokens`` is how many the
    tokenizer adds to a text. ``pooling`` is ``none`` if the graph returns vectors [n, dim]; of
    token vectors [n, tokens, dim] it takes the ``first``, the ``last`` or the ``mean``, without
    padding.
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
    """An encoder. By ``scores``, a text's probability is a ``softmax`` over texts of
    ``logit_scale`` times the cosine, or the ``sigmoid`` of that plus ``logit_bias``.
    """

    dim: int
    logit_scale: float
    image: ImageSpec
    text: TextSpec
    precision: str = "fp32"
    scores: str = "softmax"
    logit_bias: float = 0.0

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> EmbedderSpec:
        """Parse and validate the spec of a bundle. Raises KeyError for missing, ValueError for
        invalid values.
        """
        check_spec("embedder", document)
        image, text = _read(ImageSpec, document["image"]), _read(TextSpec, document["text"])
        if image.resize == "crop":
            document["image"]["shortest_edge"]
        return _read(cls, {**document, "image": image, "text": text})

    def to_dict(self) -> dict[str, Any]:
        """Return the document of the spec: the inverse of :meth:`from_dict`."""
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
