"""What a caption may say: the fields, their allowed values, and the words for them, from ``configs/attributes.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fashionrec.config import config_dir, nearest, read_yaml
from fashionrec.config.sections import Bounds, Invalid, Section
from fashionrec.errors import ConfigError
from fashionrec.types import CLASS_NAMES

if TYPE_CHECKING:
    from fashionrec.config import CaptionerConfig

UNKNOWN = "unknown"
NONE = "none"
#: The fields of a description that hold one of the allowed values, in the order in which they are asked.
FIELDS: tuple[str, ...] = (
    "sub_category", "color", "second_color", "pattern", "pattern_scale", "material", "fit", "length", "sleeve",
    "neckline", "collar", "closure", "graphic", "style", "season",
)  # fmt: skip


class Value(Section):
    """One allowed value: ``ko`` as a shop files it, ``text`` as an English and a Korean sentence say it."""

    name: str
    ko: Annotated[str, Bounds(min_length=1)]
    text: tuple[str, str]
    classes: tuple[str, ...] = CLASS_NAMES
    also: tuple[str, ...] = ()
    implies: dict[str, str] = {}  # noqa: RUF012  (a section is never changed)
    silent: bool = False


class FieldSpec(Section):
    """One field: what is asked, of which classes, and its values by name."""

    ask: Annotated[str, Bounds(min_length=1)]
    classes: tuple[str, ...] = CLASS_NAMES
    zero_shot: bool = False
    values: Annotated[dict[str, Value], Bounds(min_length=1)]


class ClassNoun(Section):
    """What a garment of a class is called where no sub-category is known."""

    text: tuple[str, str]
    also: tuple[str, ...] = ()


class Vocabulary(Section):
    """All that a caption may say. Raises :class:`ConfigError` on loading where the YAML contradicts itself."""

    classes: dict[str, ClassNoun]
    prompts: Annotated[tuple[str, ...], Bounds(min_length=1)]
    fields: dict[str, FieldSpec]

    def values(self, field: str, class_name: str | None) -> dict[str, Value]:
        """The values that a field may have for a class, by name; of all classes for None; empty where none apply."""
        spec = self.fields[field]
        if class_name is None:
            return dict(spec.values)
        if class_name not in spec.classes:
            return {}
        return {name: value for name, value in spec.values.items() if class_name in value.classes}

    def fields_of(self, class_name: str | None) -> tuple[str, ...]:
        """The fields that apply to a class (None: all), in order."""
        return tuple(field for field in FIELDS if self.values(field, class_name))

    def find(self, field: str, word: str, class_name: str | None = None) -> str | None:
        """The allowed value that a word means: its own name, its Korean word, or another word for it; else None."""
        values = self.values(field, class_name)
        wanted = _plain(word)
        for name in values:
            if _plain(name) == wanted:
                return name
        for name, value in values.items():
            if wanted in {_plain(other) for other in (value.ko, *value.text, *value.also)}:
                return name
        return None


@lru_cache(maxsize=4)
def load_vocabulary(path: Path | None = None) -> Vocabulary:
    """The vocabulary of a YAML file, by default the shipped one; read once. Raises :class:`ConfigError`."""
    path = path or config_dir() / "attributes.yaml"
    tree = read_yaml(path, like="configs/attributes.yaml")
    try:
        vocabulary = Vocabulary.model_validate(_expand(tree))
    except Invalid as wrong:
        raise ConfigError(f"{path}: {'.'.join(wrong.path)}: {wrong.message}", hint=_HINT) from None
    for problem in _contradictions(vocabulary):
        raise ConfigError(f"{path}: {problem}", hint=_HINT)
    return vocabulary


def vocabulary_of(config: CaptionerConfig) -> Vocabulary:
    """The vocabulary that ``captioner.vocabulary`` names, else the shipped one. Raises :class:`ConfigError`."""
    return load_vocabulary(Path(config.vocabulary) if config.vocabulary else None)


_HINT = "the comment at the top of configs/attributes.yaml says how a value is written"


def _plain(word: str) -> str:
    return " ".join(word.replace("-", " ").replace("_", " ").casefold().split())


def _expand(tree: Any) -> Any:
    """The short forms written out: ``black: 블랙`` becomes a value with its name and its words."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("fields"), Mapping):
        return tree
    return {**tree, "fields": {str(name): _expand_field(field) for name, field in tree["fields"].items()}}


def _expand_field(field: Any) -> Any:
    if not isinstance(field, Mapping) or not isinstance(field.get("values"), Mapping):
        return field
    values = {}
    for name, entry in field["values"].items():
        entry = dict(entry) if isinstance(entry, Mapping) else {"ko": entry}
        entry.setdefault("text", (str(name), entry.get("ko", "")))
        values[str(name)] = {**entry, "name": str(name)}
    return {**field, "values": values}


def _contradictions(vocabulary: Vocabulary) -> Iterator[str]:
    if set(vocabulary.classes) != set(CLASS_NAMES):
        yield f"classes must be {', '.join(CLASS_NAMES)}"
    for field in FIELDS:
        if field not in vocabulary.fields:
            yield f"the field {field} is missing"
    for field, spec in vocabulary.fields.items():
        if field not in FIELDS:
            yield f"there is no field {field}; {nearest(field, FIELDS) or 'fields: ' + ', '.join(FIELDS)}"
        for name, value in spec.values.items():
            where = f"{field}.{name}"
            if name == UNKNOWN:
                yield f"{where}: unknown is always allowed and never listed"
            for class_name in (*spec.classes, *value.classes):
                if class_name not in CLASS_NAMES:
                    yield f"{where}: there is no class {class_name}"
            if not set(value.classes) & set(spec.classes):
                yield f"{where} is for no class that {field} is for"
            for other, implied in value.implies.items():
                if other not in vocabulary.fields or implied not in vocabulary.fields[other].values:
                    yield f"{where} implies {other}: {implied}, which is not an allowed value"


def korean(vocabulary: Vocabulary, field: str, value: str) -> str:
    """The Korean shop word of a value; empty where the vocabulary (edited since) does not know it."""
    found = vocabulary.fields[field].values.get(value)
    return found.ko if found else ""
