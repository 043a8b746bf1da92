"""The typed record of a caption, the strict JSON schema of a request, and the record's views."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from fashionrec.captioner.vocabulary import FIELDS, NONE, UNKNOWN, Vocabulary, korean, load_vocabulary
from fashionrec.errors import CaptionError
from fashionrec.types import CLASS_NAMES

#: Words of an embedding text: English texts of this length stay below a text tower's 77 tokens.
EMBEDDING_WORDS = 48
#: Most characters of an answer's text, and of one caption: ten times those of a verbose model.
MOST_ANSWER, MOST_CAPTION = 16_384, 1_000

_HANGUL = re.compile("[가-힣]")
_LATIN = re.compile("[A-Za-z]")


class Description(BaseModel):
    """One garment in words.

    A field is ``""`` if it does not apply to the class or was not requested, ``unknown`` if the
    captioner cannot tell, ``none`` if the garment does not have the feature. ``confidence`` is
    0..1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str
    sub_category: str = ""
    color: str = ""
    second_color: str = ""
    pattern: str = ""
    pattern_scale: str = ""
    material: str = ""
    fit: str = ""
    length: str = ""
    sleeve: str = ""
    neckline: str = ""
    collar: str = ""
    closure: str = ""
    graphic: str = ""
    style: str = ""
    season: str = ""
    caption_en: str
    caption_ko: str
    confidence: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class InvalidAnswer(CaptionError):
    """An answer that does not match the request.

    ``code`` is a short stable word: schema, too-long, language, control.
    """

    def __init__(self, reason: str, code: str = "schema") -> None:
        super().__init__(reason, state="invalid")
        self.code = code


class QueryDescription(NamedTuple):
    """The description of a query's garment: to display, for the text tower, and by field."""

    shown: str
    text: str
    attributes: dict[str, str]


def json_schema(class_name: str | None, vocabulary: Vocabulary | None = None) -> dict[str, Any]:
    """Return the strict JSON schema of a description: all keys required, all values enumerated.

    With ``class_name`` None the class is requested too, with the fields and values of every class.
    The range of ``confidence`` is in its description and checked by :func:`parse`, because not
    every server supports ranges in a schema.
    """
    words = vocabulary or load_vocabulary()
    properties: dict[str, Any] = {
        "category": {"type": "string", "enum": [class_name] if class_name else list(CLASS_NAMES)}
    }
    for field in words.fields_of(class_name):
        properties[field] = {
            "type": "string",
            "description": words.fields[field].ask,
            "enum": [*words.values(field, class_name), UNKNOWN],
        }
    properties["caption_en"] = {"type": "string", "description": "one English noun phrase, at most 25 words"}
    properties["caption_ko"] = {"type": "string", "description": "the same as a Korean noun phrase, as shops write it"}
    properties["confidence"] = {"type": "number", "description": "how sure you are of all this, 0 to 1"}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def parse(raw_text: str, class_name: str | None, vocabulary: Vocabulary | None = None) -> Description:
    """Return the description in an answer's text, checked against the schema of ``class_name``.

    Repaired are words or a code fence around the JSON and other spellings of allowed values; fields
    that do not apply to the answered class are dropped. Raises :class:`CaptionError` with state
    ``invalid`` for anything else.
    """
    words = vocabulary or load_vocabulary()
    if len(raw_text) > MOST_ANSWER:
        raise InvalidAnswer(f"the answer has more than {MOST_ANSWER:,} characters", "too-long")
    answer = _json(raw_text)
    if not isinstance(answer, dict):
        raise InvalidAnswer("the answer is not a JSON object")
    requested = json_schema(class_name, words)["properties"]
    missing, extra = [key for key in requested if key not in answer], [key for key in answer if key not in requested]
    if missing or extra:
        problem, keys = ("lacks keys", missing) if missing else ("has unknown keys", extra)
        raise InvalidAnswer(f"the answer {problem}: {', '.join(ascii(key)[1:-1] for key in keys[:3])}")
    category = answer["category"]
    if category not in requested["category"]["enum"]:
        raise InvalidAnswer("the answer's category is not allowed")
    values = {field: _value(words, field, answer[field], class_name) for field in words.fields_of(class_name)}
    applicable = {
        field: value
        for field, value in values.items()
        if (allowed := words.values(field, category)) and (value == UNKNOWN or value in allowed)
    }
    confidence = answer["confidence"]
    if isinstance(confidence, bool) or not isinstance(confidence, (int, float)) or not 0.0 <= confidence <= 1.0:
        raise InvalidAnswer("the answer's confidence is not a number between 0 and 1")
    return Description(
        category=category,
        **applicable,
        caption_en=_sentence(answer["caption_en"], "caption_en", _LATIN, without=_HANGUL),
        caption_ko=_sentence(answer["caption_ko"], "caption_ko", _HANGUL),
        confidence=float(confidence),
    )


def check_texts(description: Description) -> None:
    """Raise :class:`InvalidAnswer` for texts that are too long or have control characters."""
    for field, value in vars(description).items():
        if field == "confidence":
            continue
        if len(value) > MOST_CAPTION:
            raise InvalidAnswer(f"the {field} has more than {MOST_CAPTION:,} characters", "too-long")
        if not value.isprintable():
            raise InvalidAnswer(f"the {field} has control characters", "control")


def attributes(description: Description) -> dict[str, str]:
    """Return the category and every informative field (not ``unknown``, ``none`` or empty)."""
    values = {"category": description.category}
    for field in FIELDS:
        value = str(getattr(description, field))
        if value not in ("", UNKNOWN, NONE):
            values[field] = value
    return values


def embedding_text(
    description: Description, vocabulary: Vocabulary | None = None, *, most: int | None = EMBEDDING_WORDS
) -> str:
    """Return the text for the text tower: the English caption, and the attributes missing from it.

    The text is cut to ``most`` words; None keeps all of them, for :func:`shortened`.
    """
    words = vocabulary or load_vocabulary()
    text = description.caption_en.rstrip(". ")
    for field, value in attributes(description).items():
        if field == "category":
            continue
        entry = words.fields[field].values.get(value)
        if entry is not None and entry.silent:
            continue
        spellings = {value, *(entry.text[:1] if entry else ()), *(entry.also if entry else ())}
        if not any(_contains(text, spelling) for spelling in spellings):
            text += f", {entry.text[0] if entry else value}"
    return " ".join(text.split()[:most]).rstrip(",")


def shortened(texts: Sequence[str], count_cut: Callable[[Sequence[str]], Sequence[int]]) -> tuple[list[str], list[int]]:
    """Shorten texts to the limit of a text tower; return them and the tokens that each lost.

    Attributes are dropped first, from the last one on; a caption that is too long is cut by the
    tower itself.

    Args:
        texts: Embedding texts.
        count_cut: Returns the number of tokens of each text beyond the tower's limit.
    """
    fitting, lost = list(texts), [0] * len(texts)
    over = {n: count for n, count in enumerate(count_cut(fitting)) if count} if texts else {}
    while over:
        for n, count in list(over.items()):
            lost[n] = max(lost[n], count)
            head, comma, _ = fitting[n].rpartition(", ")
            if comma:
                fitting[n] = head
            else:
                del over[n]
        remaining = list(over)
        counts = count_cut([fitting[n] for n in remaining]) if remaining else []
        over = {n: count for n, count in zip(remaining, counts, strict=True) if count}
    return fitting, lost


def lexical_text(description: Description, vocabulary: Vocabulary | None = None) -> str:
    """Return the text for word search: both captions, and the attributes in both languages.

    Words that a caption contains are not repeated, because that would raise their term frequency.
    """
    words = vocabulary or load_vocabulary()
    noun = words.classes.get(description.category)
    parts = [description.category, *(noun.text if noun else ()), *(noun.also if noun else ())]
    for field, value in attributes(description).items():
        if field == "category":
            continue
        entry = words.fields[field].values.get(value)
        parts += [value, korean(words, field, value), *(entry.text if entry else ()), *(entry.also if entry else ())]
    text = f"{description.caption_en} {description.caption_ko}"
    for part in dict.fromkeys(parts):
        # Korean words match within others (셔츠 in 셔츠블라우스), English ones do not
        if part and not (part in text if _HANGUL.search(part) else _contains(text, part)):
            text += f" {part}"
    return text


def _json(raw_text: str) -> Any:
    """Parse the JSON of an answer, or else the text from its first to its last brace."""
    with suppress(ValueError, RecursionError):
        return json.loads(raw_text)
    try:
        return json.loads(raw_text[raw_text.index("{") : raw_text.rindex("}") + 1])
    except (ValueError, RecursionError):
        raise InvalidAnswer("the answer is not JSON") from None


def _value(words: Vocabulary, field: str, answer: Any, class_name: str | None) -> str:
    if isinstance(answer, str):
        if answer.strip().casefold() == UNKNOWN:
            return UNKNOWN
        value = words.find(field, answer, class_name)
        if value is not None:
            return value
    raise InvalidAnswer(f"the answer's {field} is not an allowed value")


def _sentence(answer: Any, key: str, needed: re.Pattern[str], without: re.Pattern[str] | None = None) -> str:
    text = " ".join(answer.split()) if isinstance(answer, str) else ""
    text = "".join(char for char in text if char.isprintable())
    if len(text) > MOST_CAPTION:
        raise InvalidAnswer(f"the answer's {key} has more than {MOST_CAPTION:,} characters", "too-long")
    if not needed.search(text) or (without is not None and without.search(text)):
        raise InvalidAnswer(f"the answer's {key} is empty or in another language", "language")
    return text


def _contains(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None
