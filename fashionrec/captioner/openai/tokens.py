"""Estimated tokens of a caption: the image by the model's rule, the texts by their length.

The image rule is the tiling of OpenAI's guide "Images and vision".
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

_CHARACTERS = 4.0  # of English per token, about
_ANSWER_CHARACTERS = 3.0  # per token of an answer, a third of which is Korean
_DEFAULT_IMAGE_TOKENS = 1000  # for a model without a rule


def image_tokens(rule: ImageTokensConfig, width: int, height: int, detail: str = "high") -> int:
    """Return the tokens of an image.

    The image is scaled to fit 2048 x 2048, then to a short side of at most 768, and cut into tiles
    of 512. In ``low`` detail it costs ``base`` tokens at any size.
    """
    if detail == "low":
        return rule.base
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    tiles = math.ceil(width * scale / 512) * math.ceil(height * scale / 512)
    return rule.base + rule.tile * tiles


def estimate(config: CaptionerConfig, entry: CaptionModelConfig, vocabulary: Vocabulary) -> Tokens:
    """Estimate the tokens of one caption: of the largest crop, and a top, with most fields."""
    body = request_body(config.model, {}, b"", "top", vocabulary)
    schema = json_schema("top", vocabulary)["properties"]
    values = [max((str(value) for value in spec.get("enum", [" " * 60])), key=len) for spec in schema.values()]
    answer = json.dumps(dict(zip(schema, values, strict=True)))
    rule = entry.image_tokens
    side = config.image_side
    picture = _DEFAULT_IMAGE_TOKENS if rule is None else image_tokens(rule, side, side, config.image_detail)
    return Tokens(picture + len(json.dumps(body)) / _CHARACTERS, len(answer) / _ANSWER_CHARACTERS)
