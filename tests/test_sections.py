"""Sections of settings: what each kind of field takes, and how a wrong value is told."""

import pickle
from contextlib import suppress
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fashionrec.config.sections import Before, Bounds, Invalid, Section, checked


class Inner(Section):
    n: int
    words: tuple[str, ...] = ()


class Outer(Section):
    name: str
    share: Annotated[float, Bounds(ge=0, le=1)]
    inner: Inner
    table: dict[str, Inner]
    several: list[int] | None
    mode: Literal["a", "b"]


GOOD: dict[str, Any] = {
    "name": "x",
    "share": 1,
    "inner": {"n": 2},
    "table": {"t": {"n": 3, "words": ["w"]}},
    "several": None,
    "mode": "a",
}


def test_a_section_is_made_copied_and_written_out() -> None:
    made = Outer.model_validate(GOOD)
    assert (made.share, type(made.share), made.inner.n, made.table["t"].words) == (1.0, float, 2, ("w",))
    assert made.inner.words == ()
    assert made.model_dump() == {
        **GOOD,
        "inner": {"n": 2, "words": []},
        "table": {"t": {"n": 3, "words": ["w"]}},
    }
    assert Outer.model_validate(made.model_dump()) == made
    other = made.model_copy(update={"name": "y"})
    assert (other.name, made.name, other.inner) == ("y", "x", made.inner)
    assert other != made
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(AttributeError, match="is read-only"):
        made.name = "z"
    assert made.model_dump(exclude={"table", "inner"}).keys() == {"name", "share", "several", "mode"}


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"share": 1.5}, "share", "at most 1"),
        ({"share": float("nan")}, "share", "at least 0"),
        ({"inner": {"n": "two"}}, "inner.n", "integer"),
        ({"inner": {}}, "inner.n", "is missing"),
        ({"inner": 3}, "inner", "a mapping"),
        ({"table": {"t": {"n": 1, "words": [None]}}}, "table.t.words.0", "text"),
        ({"several": [1, "x"]}, "several.1", "integer"),
        ({"mode": "c"}, "mode", "a or b"),
        ({"more": 1}, "more", "unknown"),
        ({"name": True}, "name", "text"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(change: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        Outer.model_validate({**GOOD, **change})
    assert ".".join(caught.value.path) == path


@pytest.mark.parametrize(
    ("annotation", "given", "expected"),
    [
        (int, "12", 12),
        (int, 3.0, 3),
        (float, "1e-3", 0.001),
        (str, 2024, "2024"),
        (bool, "no", False),
        (bool, 1, True),
        (int | float, 0.5, 0.5),
        (int | float, 2, 2),
        (int | str | None, "0,1", "0,1"),
        (int | str | None, None, None),
        (int | str | list[int] | None, [0, 1], [0, 1]),
        (tuple[str, str], ["a", 1], ("a", "1")),
        (dict[str, str | None], {1: None}, {"1": None}),
        (Annotated[int, Before(lambda value: 0 if value == "auto" else value, {"const": "auto"})], "auto", 0),
        (Annotated[list[float], Bounds(min_length=2, max_length=2)], [1, 2], [1.0, 2.0]),
    ],
)
def test_what_each_kind_takes(annotation: Any, given: Any, expected: Any) -> None:
    found = checked(annotation, given)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        (int, True),
        (int, 1.5),
        (int, float("inf")),
        (int, None),
        (float, "x"),
        (bool, "maybe"),
        (bool, []),
        (str, None),
        (tuple[str, str], ["a"]),
        (list[int], "12"),
        (Literal["1"], 1),
        (Annotated[float, Bounds(gt=0)], 0),
        (Annotated[float, Bounds(lt=1)], 1),
    ],
)
def test_what_each_kind_refuses(annotation: Any, given: Any) -> None:
    with pytest.raises(Invalid):
        checked(annotation, given)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_any_value_is_taken_or_refused(value: Any) -> None:
    for annotation in (int, float, bool, str, list[int], int | str | None, tuple[str, ...], dict[str, int], Inner):
        with suppress(Invalid):
            checked(annotation, value)
