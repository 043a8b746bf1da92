"""The tokens of a caption before any was measured: of the picture by the model's rule, of the texts by their length.

The rule of a picture is the tiles of OpenAI's guide "Images and vision".
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from fashionrec.captioner.cost import Tokens
from fashionrec.captioner.openai.wire import request_body
from fashionrec.captioner.schema import json_schema

if TYPE_CHECKING:
    from fashionrec.captioner.vocabulary import Vocabulary
    from fashionrec.config import CaptionerConfig, CaptionModelConfig, ImageTokensConfig

_CHARACTERS = 4.0  # of English in one token, about
_ANSWER_CHARACTERS = 3.0  # of an answer, which is a third Korean
_UNKNOWN_PICTURE = 1000  # tokens of a picture where the model's rule is not known


def image_tokens(rule: ImageTokensConfig, width: int, height: int, detail: str = "high") -> int:
    """Tokens of a picture of that size: it is fitted into 2048 x 2048, its short side to at most 768, and cut into tiles of 512.

    A picture looked at in ``low`` detail is ``base`` tokens, whatever its size.
    """
    if detail == "low":
        return rule.base
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    tiles = math.ceil(width * scale / 512) * math.ceil(height * scale / 512)
    return rule.base + rule.tile * tiles


def estimate(config: CaptionerConfig, entry: CaptionModelConfig, vocabulary: Vocabulary) -> Tokens:
    """The tokens of one caption before any was measured: of the largest crop, and of a top, whose fields are the most."""
    body = request_body(config.model, {}, b"", "top", vocabulary)
    schema = json_schema("top", vocabulary)["properties"]
    values = [max((str(value) for value in spec.get("enum", [" " * 60])), key=len) for spec in schema.values()]
    answer = json.dumps(dict(zip(schema, values, strict=True)))
    rule = entry.image_tokens
    side = config.image_side
    picture = _UNKNOWN_PICTURE if rule is None else image_tokens(rule, side, side, config.image_detail)
    return Tokens(picture + len(json.dumps(body)) / _CHARACTERS, len(answer) / _ANSWER_CHARACTERS)
