"""The caption vocabulary (``configs/attributes.yaml``): fields, allowed values and words."""

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
#: The fields of a description with an allowed value each, in the order of the schema.
FIELDS: tuple[str, ...] = (
    "sub_category", "color", "second_color", "pattern", "pattern_scale", "material", "fit", "length", "sleeve",
    "neckline", "collar", "closure", "graphic", "style", "season",
)  # fmt: skip


class Value(Section):
    """An allowed value: ``ko`` as shops file it, ``text`` as in English and Korean sentences."""

    name: str
    ko: Annotated[str, Bounds(min_length=1)]
    text: tuple[str, str]
    classes: tuple[str, ...] = CLASS_NAMES
    also: tuple[str, ...] = ()
    implies: dict[str, str] = {}  # noqa: RUF012  (sections are immutable)
    silent: bool = False


class FieldSpec(Section):
    """A field: its description for the model, its classes, and its values by name."""

    ask: Annotated[str, Bounds(min_length=1)]
    classes: tuple[str, ...] = CLASS_NAMES
    zero_shot: bool = False
    values: Annotated[dict[str, Value], Bounds(min_length=1)]


class ClassNoun(Section):
    """The noun of a class, for garments without a known sub-category."""

    text: tuple[str, str]
    also: tuple[str, ...] = ()


class Vocabulary(Section):
    """All allowed values. Raises :class:`ConfigError` on loading for a contradictory YAML file."""

    classes: dict[str, ClassNoun]
    prompts: Annotated[tuple[str, ...], Bounds(min_length=1)]
    fields: dict[str, FieldSpec]

    def values(self, field: str, class_name: str | None) -> dict[str, Value]:
        """Return the values of a field for a class by name, or of all classes for None."""
        spec = self.fields[field]
        if class_name is None:
            return dict(spec.values)
        if class_name not in spec.classes:
            return {}
        return {name: value for name, value in spec.values.items() if class_name in value.classes}

    def fields_of(self, class_name: str | None) -> tuple[str, ...]:
        """Return the fields that apply to a class (None: all), in order."""
        return tuple(field for field in FIELDS if self.values(field, class_name))

    def find(self, field: str, word: str, class_name: str | None = None) -> str | None:
        """Return the allowed value of a word: its name, its Korean word or a synonym; else None."""
        values = self.values(field, class_name)
        wanted = _normalized(word)
        for name in values:
            if _normalized(name) == wanted:
                return name
        for name, value in values.items():
            if wanted in {_normalized(synonym) for synonym in (value.ko, *value.text, *value.also)}:
                return name
        return None


@lru_cache(maxsize=4)
def load_vocabulary(path: Path | None = None) -> Vocabulary:
    """Load the vocabulary of a YAML file, by default the shipped one; cached.

    Raises :class:`ConfigError`.
    """
    path = path or config_dir() / "attributes.yaml"
    tree = read_yaml(path, like="configs/attributes.yaml")
    try:
        vocabulary = Vocabulary.model_validate(_expand(tree))
    except Invalid as error:
        raise ConfigError(f"{path}: {'.'.join(error.path)}: {error.message}", hint=_HINT) from None
    for problem in _contradictions(vocabulary):
        raise ConfigError(f"{path}: {problem}", hint=_HINT)
    return vocabulary


def vocabulary_of(config: CaptionerConfig) -> Vocabulary:
    """Load the vocabulary of ``captioner.vocabulary``, or the shipped one.

    Raises :class:`ConfigError`.
    """
    return load_vocabulary(Path(config.vocabulary) if config.vocabulary else None)


_HINT = "the format is described at the top of configs/attributes.yaml"


def _normalized(word: str) -> str:
    return " ".join(word.replace("-", " ").replace("_", " ").casefold().split())


def _expand(tree: Any) -> Any:
    """Expand the short forms: ``black: 블랙`` becomes a value with its name and its words."""
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
            yield f"unknown field {field}; {nearest(field, FIELDS) or 'fields: ' + ', '.join(FIELDS)}"
        for name, value in spec.values.items():
            where = f"{field}.{name}"
            if name == UNKNOWN:
                yield f"{where}: do not list {UNKNOWN}, it is always allowed"
            for class_name in (*spec.classes, *value.classes):
                if class_name not in CLASS_NAMES:
                    yield f"{where}: unknown class {class_name}"
            if not set(value.classes) & set(spec.classes):
                yield f"{where} and {field} have no class in common"
            for implied_field, implied in value.implies.items():
                if implied_field not in vocabulary.fields or implied not in vocabulary.fields[implied_field].values:
                    yield f"{where} implies {implied_field}: {implied}, which is not an allowed value"


def korean(vocabulary: Vocabulary, field: str, value: str) -> str:
    """Return the Korean word of a value; empty for a value that the vocabulary no longer has."""
    entry = vocabulary.fields[field].values.get(value)
    return entry.ko if entry else ""
