"""The JSON Schema of the settings: complete, typed, and with the documentation of
``default.yaml``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Result

from fashionrec.config import config_dir, flatten, read_yaml
from fashionrec.config.schema import settings_schema


def leaves(schema: dict[str, Any], parent: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the dotted key and the schema of every setting."""
    for name, child in schema["properties"].items():
        if "properties" in child:
            yield from leaves(child, f"{parent}{name}.")
        else:
            yield f"{parent}{name}", child


LEAVES = dict(leaves(settings_schema()))


def test_every_setting_is_there_with_its_default_and_nothing_else_is_allowed() -> None:
    defaults = read_yaml(config_dir() / "default.yaml")
    for key, schema in LEAVES.items():
        value: Any = defaults
        for part in key.split("."):
            value = value[part]
        assert schema["default"] == value, key
    missing = [
        key for key, _ in flatten(defaults) if not any(key == leaf or key.startswith(f"{leaf}.") for leaf in LEAVES)
    ]
    assert missing == []
    schema = settings_schema()
    assert schema["additionalProperties"] is False
    assert schema["properties"]["query"]["additionalProperties"] is False
    assert "required" not in json.dumps(list(schema["properties"]))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("project.device", {"enum": ["auto", "cpu", "cuda", "tensorrt"]}),
        ("project.threads", {"anyOf": [{"type": "integer", "minimum": 0}, {"const": "auto"}]}),
        ("project.cache", {"anyOf": [{"type": ["string", "number"]}, {"type": "null"}]}),
        ("dataset.follow_links", {"type": "boolean"}),
        ("dataset.repeated_iou", {"type": "number", "minimum": 0.0, "maximum": 1.0}),
    ],
)
def test_types_and_ranges_are_those_of_the_settings(key: str, expected: dict[str, Any]) -> None:
    schema = {name: value for name, value in LEAVES[key].items() if name not in ("default", "description")}
    assert schema == expected


def test_comments_of_the_defaults_are_the_descriptions() -> None:
    assert "split" in LEAVES["dataset.seed"]["description"]
    described = sum("description" in schema for schema in LEAVES.values())
    assert described > 0.7 * len(LEAVES)


def test_the_command_prints_it(cli: Callable[..., Result]) -> None:
    assert json.loads(cli("config", "schema").out) == json.loads(json.dumps(settings_schema()))
    assert json.loads(cli("config", "schema", "--json").out) == json.loads(json.dumps(settings_schema()))
