"""Typed sections of settings, validated on construction.

Every command reads the settings first, so reading them must cost next to nothing: a section
validates its fields itself, by their annotations, and reports errors in one line.

::

    class QueryConfig(Section):
        k: Annotated[int, Bounds(ge=1)]
        garment: str
        where: str | None
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

Self = TypeVar("Self", bound="Section")


class Invalid(ValueError):
    """An invalid value: ``path`` leads to the field, ``value`` is what was given."""

    def __init__(self, message: str, value: Any, path: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message, self.value, self.path = message, value, path

    def under(self, name: str) -> Invalid:
        return Invalid(self.message, self.value, (name, *self.path))


class Bounds:
    """Limits of a number, or of the length of a list or text."""

    def __init__(
        self,
        ge: float | None = None,
        gt: float | None = None,
        le: float | None = None,
        lt: float | None = None,
        min_length: int | None = None,
        max_length: int | None = None,
    ) -> None:
        self.ge, self.gt, self.le, self.lt = ge, gt, le, lt
        self.min_length, self.max_length = min_length, max_length

    def check(self, value: Any) -> None:
        checks: tuple[tuple[float | None, Callable[[Any], bool], str], ...] = (
            (self.ge, lambda limit: value >= limit, "at least"),
            (self.gt, lambda limit: value > limit, "more than"),
            (self.le, lambda limit: value <= limit, "at most"),
            (self.lt, lambda limit: value < limit, "less than"),
            (self.min_length, lambda limit: len(value) >= limit, "at least this long:"),
            (self.max_length, lambda limit: len(value) <= limit, "at most this long:"),
        )
        for limit, is_satisfied, phrase in checks:
            if limit is not None and not is_satisfied(limit):  # NaN fails every comparison
                raise Invalid(f"should be {phrase} {limit:g}", value)


class OneOf:
    """One of some words, or a name in a registry at the time of the check."""

    def __init__(self, words: Sequence[str], registry: Iterable[str]) -> None:
        self.words, self.registry = words, registry

    def check(self, value: str) -> None:
        choices = [*self.words, *self.registry]
        if value not in choices:
            raise Invalid(f"should be {' or '.join(choices)}", value)


class Before:
    """A conversion of a value before validation.

    ``accepts`` is the JSON Schema of the additional spellings.
    """

    def __init__(self, change: Callable[[Any], Any], accepts: dict[str, Any]) -> None:
        self.change, self.accepts = change, accepts


class Section:
    """A validated, immutable section.

    Its fields are its annotations, required unless the class has a value. ``extra`` allows other
    keys too.
    """

    extra: ClassVar[bool] = False

    @classmethod
    def model_fields(cls) -> dict[str, Any]:
        """Return name and annotation of every field, in the order of definition."""
        fields = cls.__dict__.get("_fields")
        if fields is None:
            fields = {}
            for base in reversed(cls.__mro__):
                scope = vars(sys.modules[base.__module__])
                for name, declared in inspect.get_annotations(base).items():
                    annotation = _evaluate_annotation(declared, scope)
                    if get_origin(annotation) is not ClassVar and not name.startswith("_"):
                        fields[name] = annotation
            cls._fields = fields  # type: ignore[attr-defined]
        return dict(fields)

    @classmethod
    def model_validate(cls: type[Self], values: Any) -> Self:
        """Create a section from a mapping.

        Raises :class:`Invalid` for the first value that is invalid, missing or unknown.
        """
        if isinstance(values, cls):
            return values
        if not isinstance(values, Mapping):
            raise Invalid("should be a mapping", values)
        known = cls.model_fields()
        fields: dict[str, Any] = {}
        for name, annotation in known.items():
            if name not in values:
                if not hasattr(cls, name):
                    raise Invalid("is missing", dict(values), (name,))
                fields[name] = getattr(cls, name)
                continue
            try:
                fields[name] = checked(annotation, values[name])
            except Invalid as error:
                raise error.under(name) from None
        others = {str(name): value for name, value in values.items() if name not in known}
        if others and not cls.extra:
            name, value = next(iter(others.items()))
            raise Invalid("is unknown", value, (name,))
        section = cls.__new__(cls)
        section.__dict__.update(fields)
        if cls.extra:
            section.__dict__.update(others)
        return section

    def model_copy(self: Self, *, update: Mapping[str, Any] | None = None) -> Self:
        """Return a copy with some values changed, which are not validated."""
        section = type(self).__new__(type(self))
        section.__dict__.update(self.__dict__, **dict(update or {}))
        return section

    def model_dump(self, *, exclude: Container[str] = ()) -> dict[str, Any]:
        """Return its values as plain dictionaries and lists."""
        return {name: _plain(value) for name, value in self.__dict__.items() if name not in exclude}

    @property
    def others(self) -> dict[str, Any]:
        """Keys that are not fields, if ``extra`` allows them."""
        known = self.model_fields()
        return {name: value for name, value in self.__dict__.items() if name not in known}

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only: make a copy")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def checked(annotation: Any, value: Any) -> Any:
    """Return a value validated and converted for an annotation.

    3.0 is accepted for ``int``, a number for ``str``. Raises :class:`Invalid`.
    """
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        inner, *rules = get_args(annotation)
        for rule in rules:
            if isinstance(rule, Before):
                value = rule.change(value)
        value = checked(inner, value)
        for rule in rules:
            if isinstance(rule, Bounds | OneOf):
                rule.check(value)
        return value
    if origin in (Union, types.UnionType):
        return _check_union(get_args(annotation), value)
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in get_args(annotation)):
            raise Invalid(f"should be {' or '.join(str(choice) for choice in get_args(annotation))}", value)
        return value
    if origin is list:
        return _check_list(annotation, value)
    if origin is tuple:
        return _check_tuple(annotation, value)
    if origin is dict:
        return _check_table(annotation, value)
    if annotation is Any:
        return value
    if annotation is None or annotation is type(None):
        if value is not None:
            raise Invalid("should be null", value)
        return None
    if issubclass(annotation, Section):
        return annotation.model_validate(value)
    return _SIMPLE[annotation](value)


def _check_union(choices: tuple[Any, ...], value: Any) -> Any:
    """Convert to the first type that the value already has, else to the first that accepts it."""
    for choice in choices:
        bare = get_args(choice)[0] if get_origin(choice) is typing.Annotated else choice
        if type(value) is (get_origin(bare) or bare) or (value is None and bare is type(None)):
            return checked(choice, value)
    first_error: Invalid | None = None
    for choice in choices:
        try:
            return checked(choice, value)
        except Invalid as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def _check_list(annotation: Any, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise Invalid("should be a list", value)
    (inner,) = get_args(annotation)
    return _check_items([inner] * len(value), value)


def _check_tuple(annotation: Any, value: Any) -> tuple[Any, ...]:
    """Convert to ``tuple[str, ...]`` of any length, or ``tuple[str, str]`` of two."""
    if not isinstance(value, (list, tuple)):
        raise Invalid("should be a list", value)
    inner = get_args(annotation)
    if inner[-1:] == (...,):
        inner = (inner[0],) * len(value)
    if len(inner) != len(value):
        raise Invalid(f"should be {len(inner)} values", value)
    return tuple(_check_items(inner, value))


def _check_items(annotations: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    items = []
    for n, (inner, item) in enumerate(zip(annotations, values, strict=True)):
        try:
            items.append(checked(inner, item))
        except Invalid as error:
            raise error.under(str(n)) from None
    return items


def _check_table(annotation: Any, value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise Invalid("should be a mapping", value)
    key_type, value_type = get_args(annotation)
    table = {}
    for key, item in value.items():
        try:
            table[checked(key_type, key)] = checked(value_type, item)
        except Invalid as error:
            raise error.under(str(key)) from None
    return table


def _text(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise Invalid("should be text", value)
    return value


def _integer(value: Any) -> int:
    number = _number(value, "should be an integer")
    if number != number or number in (float("inf"), float("-inf")) or number != int(number):
        raise Invalid("should be an integer", value)
    return int(value) if isinstance(value, (int, float)) else int(number)


def _decimal(value: Any) -> float:
    return float(_number(value, "should be a number"))


def _number(value: Any, message: str) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    raise Invalid(message, value)


def _boolean(value: Any) -> bool:
    known = {1: True, 0: False, "true": True, "false": False, "yes": True, "no": False}  # True equals 1, and False 0
    try:
        return known[value.lower() if isinstance(value, str) else value]
    except (KeyError, TypeError):
        raise Invalid("should be true or false", value) from None


_SIMPLE: dict[Any, Callable[[Any], Any]] = {str: _text, int: _integer, float: _decimal, bool: _boolean}


def _evaluate_annotation(written: Any, scope: dict[str, Any]) -> Any:
    return eval(written, scope) if isinstance(written, str) else written


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.model_dump()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
