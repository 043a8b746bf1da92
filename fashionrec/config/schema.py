"""The settings as a JSON Schema, for editors that complete and check YAML."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fashionrec.config.layers import config_dir, read_yaml
from fashionrec.config.sections import Before, Bounds, OneOf, Section
from fashionrec.config.settings import Config

#: A line of ``default.yaml``: indentation, key, and the comment after its value.
_LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?: [^#]*)?(?:# ?(?P<comment>.*))?$")
_SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": ["string", "number"]},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}
#: Limits by kind of value: length of a list, or of a text.
_LENGTHS = {"array": ("minItems", "maxItems"), "string": ("minLength", "maxLength")}


def settings_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a settings file.

    Defaults and descriptions are those of ``default.yaml``. No key is required: a file only needs
    to name what differs from the defaults.
    """
    path = config_dir() / "default.yaml"
    schema = _section(Config)
    _annotate(schema, read_yaml(path), _comments(path.read_text(encoding="utf-8")), ())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fashionrec settings",
        **schema,
    }


def _section(section: type[Section]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _schema(annotation) for name, annotation in section.model_fields().items()},
        "additionalProperties": section.extra,
    }


def _schema(annotation: Any) -> dict[str, Any]:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _with_rules(_schema(inner[0]), inner[1:])
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(choice) for choice in inner]}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is list:
        return {"type": "array", "items": _schema(inner[0])}
    if origin is tuple and inner[-1:] == (...,):
        return {"type": "array", "items": _schema(inner[0])}
    if origin is tuple:
        count = len(inner)
        return {"type": "array", "prefixItems": [_schema(item) for item in inner], "minItems": count, "maxItems": count}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(inner[1])}
    if annotation in _SIMPLE:
        return dict(_SIMPLE[annotation])
    return _section(annotation)


def _with_rules(schema: dict[str, Any], rules: tuple[Any, ...]) -> dict[str, Any]:
    """Return a schema with bounds, choices and other spellings added."""
    for rule in rules:
        if isinstance(rule, Bounds):
            kind = schema.get("type")
            shortest, longest = _LENGTHS["array" if kind == "array" else "string"]
            limits = {
                "minimum": rule.ge,
                "exclusiveMinimum": rule.gt,
                "maximum": rule.le,
                "exclusiveMaximum": rule.lt,
                shortest: rule.min_length,
                longest: rule.max_length,
            }
            schema |= {name: limit for name, limit in limits.items() if limit is not None}
        elif isinstance(rule, OneOf):
            schema = {"enum": [*rule.words, *rule.registry]}
    extra_spellings = [rule.accepts for rule in rules if isinstance(rule, Before)]
    return {"anyOf": [schema, *extra_spellings]} if extra_spellings else schema


def _annotate(
    schema: dict[str, Any],
    defaults: Mapping[str, Any],
    comments: Mapping[tuple[str, ...], str],
    parent: tuple[str, ...],
) -> None:
    """Add defaults and descriptions to the properties of a section and of those below it."""
    for name, child in schema["properties"].items():
        path = (*parent, name)
        if path in comments:
            child["description"] = comments[path]
        if "properties" in child:
            _annotate(child, defaults[name], comments, path)
        elif name in defaults:
            child["default"] = defaults[name]


def _comments(text: str) -> dict[tuple[str, ...], str]:
    """Return the comment of each key, with the more indented comment lines that follow it."""
    comments: dict[tuple[str, ...], str] = {}
    path: tuple[str, ...] = ()
    for line in text.splitlines():
        matched = _LINE.match(line)
        if matched:
            depth = len(matched["indent"]) // 2
            path = (*path[:depth], matched["key"])
            if matched["comment"]:
                comments[path] = matched["comment"].strip()
        elif path in comments and re.match(r" {4,}#", line):
            comments[path] += " " + line.strip().lstrip("#").strip()
        else:
            path = path if line.strip() else ()
    return comments
