"""The tokenizer of a bundle, which may be untrusted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fashionrec.common.documents import read_bytes
from fashionrec.common.folder import Folder
from fashionrec.embedder.spec import TextSpec
from fashionrec.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Bytes of a tokenizer.json: CLIP's has 4 million, the largest vocabularies in use 35 million.
MAX_BYTES = 64 << 20
_MAX_STEPS = 100  # normalizers, and tokens added to a text
_MAX_GROWTH = 1000  # factor by which normalizers may lengthen a text
_MAX_AFFIX = 100  # characters that a model adds to a piece of a word


def open_tokenizer(folder: Folder, spec: TextSpec) -> Tokenizer:
    """Open the tokenizer of a bundle's spec, which defines truncation and padding.

    Raises :class:`ModelError` if it cannot be loaded, or makes much work of short texts.
    """
    from tokenizers import Tokenizer

    try:
        with folder.open(spec.tokenizer) as opened:
            raw = read_bytes(opened, MAX_BYTES)
        with rust_errors():
            tokenizer = Tokenizer.from_buffer(raw)
            _check(tokenizer)
            tokenizer.enable_truncation(spec.max_length)
            length = spec.max_length if spec.padding == "max_length" else None
            tokenizer.enable_padding(pad_id=spec.pad_id, pad_token=spec.pad_token, length=length)
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        file = folder.root / spec.tokenizer
        raise ModelError(f"{file} cannot be loaded: {reason}", hint="export or copy it again") from None
    return tokenizer


@contextmanager
def rust_errors() -> Iterator[None]:
    """Raise any error of the package tokenizers as ValueError: bare Exception, or a panic of its
    Rust code.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, ValueError) or not (
            isinstance(error, Exception) or type(error).__name__ == "PanicException"
        ):
            raise
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0][:200]) from None


def _check(tokenizer: Tokenizer) -> None:
    growth = 1
    for steps, step in enumerate(_steps(_state(tokenizer.normalizer)), start=1):
        content = step.get("content") or step.get("prepend") or ""
        growth *= max(1, len(str(content)))
        if growth > _MAX_GROWTH or steps > _MAX_STEPS:
            raise ValueError("its normalizers make texts much longer")
    pieces = _state(tokenizer.post_processor)
    if len(json.dumps(pieces)) > 1 << 16 or len(pieces.get("single") or ()) > _MAX_STEPS:
        raise ValueError("it adds too many tokens to a text")
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if len(getattr(tokenizer.model, affix, None) or "") > _MAX_AFFIX:
            raise ValueError(f"its {affix} is too long")


def _state(part: Any) -> dict[str, Any]:
    """Return the state of a tokenizer's part, which tokenizers provides as JSON."""
    state = json.loads(part.__getstate__()) if part is not None else {}
    return state if isinstance(state, dict) else {}


def _steps(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    inner = state.get("normalizers")
    if not isinstance(inner, list):
        yield state
        return
    for each in inner:
        yield from _steps(each)
