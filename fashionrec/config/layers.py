"""Merge the layers of settings into one :class:`Config`, and record where each value came from.

Order: defaults < ``--config FILE`` < ``FASHIONREC_SECTION__KEY`` environment < ``--set
section.key=value`` < the command's own option (``-k 5``). Layers above the defaults may change
values, never add keys.
"""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from fashionrec.common import documents
from fashionrec.common.documents import DocumentError, parse_yaml
from fashionrec.config.sections import Invalid
from fashionrec.config.settings import Config
from fashionrec.config.yolo_options import YOLO_OPTIONS
from fashionrec.errors import ConfigError

ENV_PREFIX = "FASHIONREC_"
#: Short environment variables for frequent settings.
ENV_SHORT = {"FASHIONREC_INDEX": "query.index"}
#: Environment variables with other purposes; never settings.
ENV_OTHER = frozenset({"FASHIONREC_REALDATA"})

#: Settings of earlier versions, and what to do instead.
REMOVED = {"evaluate.k": "remove it: it had no effect, searches are always measured at 1, 5 and 10"}


class Resolved(NamedTuple):
    """A :class:`Config` and, for each dotted key, where its value came from."""

    config: Config
    values: dict[str, Any]
    origins: dict[str, str]


def config_dir() -> Path:
    """Return the folder of the shipped YAML files: in an installed package, or in a checkout."""
    inside = Path(__file__).parent.parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent / "configs"


def load_config(
    files: Iterable[str | Path] = (),
    sets: Iterable[str] = (),
    env: Mapping[str, str] | None = None,
) -> Resolved:
    """Merge the layers and check them.

    ``files`` are YAML paths, or names of shipped ones (``demo``); ``sets`` are
    ``section.key=value`` with YAML values. Raises :class:`ConfigError` for an unknown key (naming
    the nearest real one), a wrong type, or a broken file.
    """
    tree = copy.deepcopy(_defaults())
    origins: dict[str, str] = {}
    for file in files:
        path = _find_file(file)
        _merge(tree, read_yaml(path), str(file), origins)
    environment = os.environ if env is None else env
    for name in sorted(environment):
        if not name.startswith(ENV_PREFIX) or name in ENV_OTHER:
            continue
        dotted = ENV_SHORT.get(name) or name[len(ENV_PREFIX) :].lower().replace("__", ".")
        _merge(tree, _nest(dotted, parse_value(environment[name])), f"environment {name}", origins)
    for assignment in sets:
        dotted, value = parse_assignment(assignment)
        _merge(tree, _nest(dotted, value), f"--set {assignment}", origins)
    try:
        config = Config.model_validate(tree)
    except Invalid as error:
        dotted = ".".join(error.path)
        origin = next((origins[key] for key in _prefixes(dotted) if key in origins), "default")
        raise ConfigError(
            f"{dotted}: {error.message}, not {error.value!r} ({origin})",
            hint="`fashionrec config show` lists every setting with its value",
        ) from None
    return Resolved(config, dict(flatten(tree)), origins)


@lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    return read_yaml(config_dir() / "default.yaml")


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is read as YAML. Raises :class:`ConfigError`."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"{text!r} is not KEY=VALUE", hint="for example --set query.k=20")
    return key.strip(), parse_value(value)


def parse_value(text: str) -> Any:
    """Parse a value as YAML (``1e-3`` is a number too); invalid YAML is text."""
    try:
        value = parse_yaml(text)
    except DocumentError:
        return text
    if isinstance(value, str) and value == text.strip():  # quoted text stays text
        try:
            return float(value) if any(ch.isdigit() for ch in value) else value
        except ValueError:
            return value
    return value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield dotted keys and their values in order; tables with free keys are not split."""
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and dotted not in _FREE:
            yield from flatten(value, f"{dotted}.")
        else:
            yield dotted, value


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return a hint with the nearest name for a misspelt one, or an empty text."""
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"did you mean {matches[0]}?" if matches else ""


_FREE = frozenset({"captioner.models", "dataset.map", "feed.columns"})
_YOLO_SECTIONS = frozenset({"train", "finetune"})


def read_yaml(path: Path, like: str = "configs/default.yaml") -> dict[str, Any]:
    """Read the mapping in a YAML file; ``like`` names a valid example for the hint.

    Raises :class:`ConfigError`.
    """
    try:
        tree = documents.read_yaml(path, pipe=True)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except DocumentError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} has no sections", hint=f"see {like} for an example")
    return tree


def _find_file(name: str | Path) -> Path:
    """Return the path of a settings file.

    A bare name (``demo``, ``demo.yaml``) is a shipped file if one has that name; a path is a path.
    """
    path, shipped = Path(name), _shipped(name)
    if is_bare(str(name)) and shipped is not None:
        return shipped
    if path.exists():
        return path
    if shipped is not None and len(path.parts) == 2 and path.parts[0] == "configs":
        return shipped
    names = sorted(p.stem for p in config_dir().glob("*.yaml") if p.stem != "attributes")
    raise ConfigError(f"no such settings file: {name}", hint=f"shipped ones: {', '.join(names)}")


def is_bare(name: str) -> bool:
    """Return whether a text is a bare name (``demo``, ``yolov8l.pt``), not a path (``./demo``)."""
    return "/" not in name and os.sep not in name


def config_note(name: str) -> str:
    """Return a note if a file in the working folder has the name of a shipped one, else ""."""
    other = next((file for file in (Path(name), Path(f"{name}.yaml")) if file.is_file()), None)
    if not is_bare(name) or other is None or (shipped := _shipped(name)) is None:
        return ""
    return f"--config {name} means the shipped {shipped.name}; the file in this folder is ./{other}"


def _shipped(name: str | Path) -> Path | None:
    path = Path(name)
    shipped = config_dir() / (path.name if path.suffix else f"{path.name}.yaml")
    return shipped if shipped.is_file() else None


def _merge(
    tree: dict[str, Any], layer: Mapping[str, Any], origin: str, origins: dict[str, str], prefix: str = ""
) -> None:
    for key, value in layer.items():
        dotted = f"{prefix}{key}"
        section = prefix.rstrip(".")
        if dotted in REMOVED:
            raise ConfigError(f"the setting {dotted} was removed ({origin})", hint=REMOVED[dotted])
        if key not in tree and not (section in _YOLO_SECTIONS and key in YOLO_OPTIONS) and section not in _FREE:
            choices = [f"{prefix}{name}" for name in tree]
            if section in _YOLO_SECTIONS:
                choices += [f"{prefix}{name}" for name in YOLO_OPTIONS]
            elif not prefix:
                choices += [f"{name}.{sub}" for name, part in tree.items() if isinstance(part, dict) for sub in part]
            hint = nearest(dotted, choices) or "`fashionrec config show` lists every setting"
            raise ConfigError(f"unknown setting {dotted} ({origin})", hint=hint)
        if isinstance(tree.get(key), dict) and section not in _FREE:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{dotted} is a section, not a value ({origin})")
            _merge(tree[key], value, origin, origins, f"{dotted}.")
        else:
            if section == "captioner.models" and isinstance(value, Mapping):
                value = {**(tree.get(key) or tree["other"]), **value}  # missing fields keep their values
            tree[key] = value
            origins[dotted] = origin


def _nest(dotted: str, value: Any) -> dict[str, Any]:
    for key in reversed(dotted.split(".")):
        value = {key: value}
    result: dict[str, Any] = value
    return result


def _prefixes(dotted: str) -> Iterable[str]:
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        yield ".".join(parts[:end])
