"""Write the API reference, docs/reference.md, from the docstrings of the public names.

    python -m tests.api_reference [--write]

Without ``--write`` it prints the page. ``tests/test_docs.py`` fails if the page in ``docs/`` is not
up to date.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fashionrec

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"
_HEAD = """# API reference

The public names of the package `fashionrec`, from their docstrings. Written by `python -m tests.api_reference --write`.
"""


def page() -> str:
    """Return the whole page as Markdown."""
    parts = [_HEAD]
    for name in fashionrec.__all__:
        value = getattr(fashionrec, name)
        if inspect.isclass(value):
            parts += _class(name, value)
    return "\n".join(parts) + "\n"


def _class(name: str, value: type) -> Iterator[str]:
    yield f"## {name}\n"
    constructor = vars(value).get("__init__") or vars(value).get("__new__")
    if not issubclass(value, BaseException) and constructor and inspect.isfunction(constructor):
        yield f"```text\n{_signature(name, constructor)}\n```\n"
    yield _text(inspect.getdoc(value)) + "\n"
    for attribute, member in vars(value).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if attribute.startswith("_") or attribute in getattr(value, "__match_args__", ()):
            continue
        if inspect.isfunction(function) and function.__doc__:
            yield f"### {name}.{attribute}\n"
            yield f"```text\n{_signature(attribute, function)}\n```\n"
            yield _text(function.__doc__) + "\n"
        elif isinstance(function, property) and function.__doc__:
            yield f"### {name}.{attribute}\n"
            yield _text(function.__doc__) + "\n"


def _signature(name: str, function: Any) -> str:
    """Return the signature as the source has it, on several lines if it is long."""
    signature = inspect.signature(function)
    parameters = [
        re.sub(r": '([^']*)'", r": \1", str(parameter))
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    returned = signature.return_annotation
    arrow = "" if returned is inspect.Signature.empty or name[0].isupper() else f" -> {_annotation(returned)}"
    keyword = [parameter.kind for parameter in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in keyword and inspect.Parameter.VAR_POSITIONAL not in keyword:
        names = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        first = next(n for n, p in enumerate(names) if p.kind is inspect.Parameter.KEYWORD_ONLY)
        parameters.insert(first, "*")
    line = f"{name}({', '.join(parameters)}){arrow}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {parameter},\n" for parameter in parameters) + f"){arrow}"


def _annotation(value: Any) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", str(typing.cast(object, value)))


def _text(docstring: str | None) -> str:
    """Return a docstring as Markdown: roles and double backticks become code."""
    text = inspect.cleandoc(docstring or "")
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = re.sub(r"^    (\S[^:\n]*): ", r"- `\1`: ", text, flags=re.MULTILINE)
    return re.sub(r"^(Args|Returns|Raises|Yields):$", r"\1:\n", text, flags=re.MULTILINE)


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
