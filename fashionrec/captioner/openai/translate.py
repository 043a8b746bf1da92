"""Translation of search texts into English by the captioning server, only at the user's request.

The texts are sent to that server.
"""

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
    """Return the request body that asks for a translation."""
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
    """Return the translated texts of an answer.

    Raises :class:`CaptionError` if it is invalid, or has another number of texts.
    """
    try:
        english = json.loads(body["choices"][0]["message"]["content"][: MOST_ANSWER * count])["english"]
        if isinstance(english, list) and len(english) == count and all(isinstance(text, str) for text in english):
            texts = [" ".join("".join(c if c.isprintable() else " " for c in text).split()) for text in english]
            if all(0 < len(text) <= MOST_CAPTION for text in texts):
                return texts
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        pass
    raise CaptionError("the server's translation is invalid", hint="omit --translate")
