"""Words of a search into English, by the server that captions too: only where that is asked for. The words leave the machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fashionrec.captioner.schema import MOST_ANSWER, MOST_CAPTION
from fashionrec.errors import CaptionError

_ASK = (
    "Translate each text into short English as a fashion shop would write it, for an image search."
    " Keep brand names. Answer with as many texts as there are, in the same order."
)
_SCHEMA = {
    "type": "object",
    "properties": {"english": {"type": "array", "items": {"type": "string"}}},
    "required": ["english"],
    "additionalProperties": False,
}


def translation_body(model: str, parameters: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """The request that asks for texts in English."""
    return {
        "model": model,
        **parameters,
        "messages": [
            {"role": "system", "content": _ASK},
            {"role": "user", "content": json.dumps({"texts": list(texts)}, ensure_ascii=False)},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "translation", "strict": True, "schema": _SCHEMA},
        },
    }


def read_translation(body: Any, count: int) -> list[str]:
    """The texts of an answer. Raises :class:`CaptionError` where it is none, or has not as many as were asked."""
    try:
        english = json.loads(body["choices"][0]["message"]["content"][: MOST_ANSWER * count])["english"]
        if isinstance(english, list) and len(english) == count and all(isinstance(text, str) for text in english):
            texts = [" ".join("".join(c if c.isprintable() else " " for c in text).split()) for text in english]
            if all(0 < len(text) <= MOST_CAPTION for text in texts):
                return texts
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        pass
    raise CaptionError("the server's translation is not what was asked for", hint="leave --translate out")
