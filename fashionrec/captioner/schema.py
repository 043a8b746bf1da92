"""The typed record that a caption is, the strict JSON schema that asks for it, and one view of it for each use."""

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

#: A text tower reads at most 77 tokens; so many words of English stay below that.
EMBEDDING_WORDS = 48
#: Characters of an answer's text, and of one caption in it: ten times what a talkative model writes.
MOST_ANSWER, MOST_CAPTION = 16_384, 1_000

_HANGUL = re.compile("[가-힣]")
_LATIN = re.compile("[A-Za-z]")


class Description(BaseModel):
    """One garment in words. A field is ``""`` where it does not apply to the class or was not asked, ``unknown`` where
    the captioner says that it cannot tell, ``none`` where the garment has none of it. ``confidence`` is 0..1.
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
    """An answer that is not what was asked for. ``code`` is a short stable word: schema, too-long, language, control."""

    def __init__(self, reason: str, code: str = "schema") -> None:
        super().__init__(reason, state="invalid")
        self.code = code


class Said(NamedTuple):
    """What is said of a garment that somebody asks about: shown to a person, read by the text tower, and by field."""

    shown: str
    text: str
    attributes: dict[str, str]


def json_schema(class_name: str | None, vocabulary: Vocabulary | None = None) -> dict[str, Any]:
    """The strict JSON schema of a garment's description: an object whose keys are all required and all enumerated.

    ``class_name`` None asks for the class too, with the fields and values of every class. The bounds of ``confidence``
    are in its description and checked by :func:`parse`: not every server takes them in a schema.
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
    """The description that an answer's text holds, checked against the schema of ``class_name``.

    Repaired are words or a code fence around it and another spelling of an allowed value; what does not apply to the class
    that was answered is dropped. Raises :class:`CaptionError` with state ``invalid`` for anything else.
    """
    words = vocabulary or load_vocabulary()
    if len(raw_text) > MOST_ANSWER:
        raise InvalidAnswer(f"the answer has more than {MOST_ANSWER:,} characters", "too-long")
    answer = _json(raw_text)
    if not isinstance(answer, dict):
        raise InvalidAnswer("the answer is not a JSON object")
    asked = json_schema(class_name, words)["properties"]
    missing, extra = [key for key in asked if key not in answer], [key for key in answer if key not in asked]
    if missing or extra:
        word, keys = ("lacks", missing) if missing else ("has the unknown", extra)
        raise InvalidAnswer(f"the answer {word} {', '.join(ascii(key)[1:-1] for key in keys[:3])}")
    category = answer["category"]
    if category not in asked["category"]["enum"]:
        raise InvalidAnswer("the answer's category is not allowed")
    values = {field: _value(words, field, answer[field], class_name) for field in words.fields_of(class_name)}
    applying = {
        field: value
        for field, value in values.items()
        if (allowed := words.values(field, category)) and (value == UNKNOWN or value in allowed)
    }
    confidence = answer["confidence"]
    if isinstance(confidence, bool) or not isinstance(confidence, (int, float)) or not 0.0 <= confidence <= 1.0:
        raise InvalidAnswer("the answer's confidence is not a number between 0 and 1")
    return Description(
        category=category,
        **applying,
        caption_en=_sentence(answer["caption_en"], "caption_en", _LATIN, without=_HANGUL),
        caption_ko=_sentence(answer["caption_ko"], "caption_ko", _HANGUL),
        confidence=float(confidence),
    )


def check_texts(description: Description) -> None:
    """Raise :class:`InvalidAnswer` for texts that no answer could have brought: too long, or with control characters."""
    for field, value in vars(description).items():
        if field == "confidence":
            continue
        if len(value) > MOST_CAPTION:
            raise InvalidAnswer(f"the {field} has more than {MOST_CAPTION:,} characters", "too-long")
        if not value.isprintable():
            raise InvalidAnswer(f"the {field} has control characters", "control")


def attributes(description: Description) -> dict[str, str]:
    """For filters: the category and every field that says something (no ``unknown``, no ``none``, nothing empty)."""
    found = {"category": description.category}
    for field in FIELDS:
        value = str(getattr(description, field))
        if value not in ("", UNKNOWN, NONE):
            found[field] = value
    return found


def embedding_text(
    description: Description, vocabulary: Vocabulary | None = None, *, most: int | None = EMBEDDING_WORDS
) -> str:
    """For the text tower: the English caption and the attributes that it leaves out, with commas between them.

    At most ``most`` words; None keeps all, for who counts the tower's own tokens: see :func:`shortened`.
    """
    words = vocabulary or load_vocabulary()
    text = description.caption_en.rstrip(". ")
    for field, value in attributes(description).items():
        if field == "category":
            continue
        known = words.fields[field].values.get(value)
        if known is not None and known.silent:
            continue
        spellings = {value, *(known.text[:1] if known else ()), *(known.also if known else ())}
        if not any(_says(text, spelling) for spelling in spellings):
            text += f", {known.text[0] if known else value}"
    return " ".join(text.split()[:most]).rstrip(",")


def shortened(texts: Sequence[str], count_cut: Callable[[Sequence[str]], Sequence[int]]) -> tuple[list[str], list[int]]:
    """Texts that a text tower reads to their end, and of each how many tokens it lost for that.

    ``count_cut`` tells how many tokens of each text lie beyond what the tower reads. Attributes go first, the last one before
    the others; a caption that is too long by itself is cut where the tower stops reading.
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
        left = list(over)
        counts = count_cut([fitting[n] for n in left]) if left else []
        over = {n: count for n, count in zip(left, counts, strict=True) if count}
    return fitting, lost


def lexical_text(description: Description, vocabulary: Vocabulary | None = None) -> str:
    """For word search: both captions, and every other word, in both languages, for what they say.

    A word that a caption says already is not said again: that would count as saying it twice.
    """
    words = vocabulary or load_vocabulary()
    noun = words.classes.get(description.category)
    parts = [description.category, *(noun.text if noun else ()), *(noun.also if noun else ())]
    for field, value in attributes(description).items():
        if field == "category":
            continue
        known = words.fields[field].values.get(value)
        parts += [value, korean(words, field, value), *(known.text if known else ()), *(known.also if known else ())]
    said = f"{description.caption_en} {description.caption_ko}"
    for part in dict.fromkeys(parts):
        # a Korean word is found inside another one (셔츠 in 셔츠블라우스), an English one is not
        if part and not (part in said if _HANGUL.search(part) else _says(said, part)):
            said += f" {part}"
    return said


def _json(raw_text: str) -> Any:
    """The JSON of an answer, or, tried once, that between the first and the last brace of it."""
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
        found = words.find(field, answer, class_name)
        if found is not None:
            return found
    raise InvalidAnswer(f"the answer's {field} is not an allowed value")


def _sentence(answer: Any, key: str, needed: re.Pattern[str], without: re.Pattern[str] | None = None) -> str:
    text = " ".join(answer.split()) if isinstance(answer, str) else ""
    text = "".join(char for char in text if char.isprintable())
    if len(text) > MOST_CAPTION:
        raise InvalidAnswer(f"the answer's {key} has more than {MOST_CAPTION:,} characters", "too-long")
    if not needed.search(text) or (without is not None and without.search(text)):
        raise InvalidAnswer(f"the answer's {key} is empty or in another language", "language")
    return text


def _says(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None
