"""Settings by hand: each line that is told of a wrong one, where its value came from,
and the hint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fashionrec.config import (
    ENV_OTHER,
    Config,
    as_list,
    auto_is_zero,
    config_note,
    flatten,
    is_bare,
    load_config,
    nearest,
    parse_assignment,
    parse_value,
    read_yaml,
)
from fashionrec.config.sections import Bounds, Invalid, OneOf, Section, checked
from fashionrec.errors import ConfigError

SHOW = "`fashionrec config show` lists every setting with its value"
LIST = "`fashionrec config show` lists every setting"


def refused(sets: list[str] | None = None, env: dict[str, str] | None = None, files: list[Path] | None = None) -> Any:
    with pytest.raises(ConfigError) as caught:
        load_config(files or [], sets or [], env=env or {})
    return str(caught.value), caught.value.hint


@pytest.mark.parametrize(
    ("assignment", "message", "hint"),
    [
        ("query.k=many", "query.k: should be an integer, not 'many' (--set query.k=many)", SHOW),
        ("query.k=0", "query.k: should be at least 1, not 0 (--set query.k=0)", SHOW),
        (
            "dataset.ratios=[1, 2, 3]",
            "dataset.ratios.1: should be at most 1, not 2.0 (--set dataset.ratios=[1, 2, 3])",
            SHOW,
        ),
        (
            "embedder.min_overlap.fp16=2",
            "embedder.min_overlap.fp16: should be at most 1, not 2.0 (--set embedder.min_overlap.fp16=2)",
            SHOW,
        ),
        ("train=3", "train is a section, not a value (--set train=3)", ""),
        ("query.kk=3", "unknown setting query.kk (--set query.kk=3)", "did you mean query.k?"),
        ("train.mosiac=1", "unknown setting train.mosiac (--set train.mosiac=1)", "did you mean train.mosaic?"),
        (
            "finetune.repaly=1",
            "unknown setting finetune.repaly (--set finetune.repaly=1)",
            "did you mean finetune.replay?",
        ),
        ("min_score=1", "unknown setting min_score (--set min_score=1)", "did you mean query.min_score?"),
        ("zzzzzzzzzz=1", "unknown setting zzzzzzzzzz (--set zzzzzzzzzz=1)", LIST),
        ("export.mosaic=1", "unknown setting export.mosaic (--set export.mosaic=1)", "did you mean export.tolerance?"),
        ("query.k", "'query.k' is not KEY=VALUE", "for example --set query.k=20"),
        (" =3", "' =3' is not KEY=VALUE", "for example --set query.k=20"),
    ],
)
def test_what_is_wrong_is_told_with_its_key_value_and_source(assignment: str, message: str, hint: str) -> None:
    assert refused([assignment]) == (message, hint)


def test_the_source_of_a_wrong_value(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("query: {k: 0}\n")
    assert refused(files=[file])[0] == f"query.k: should be at least 1, not 0 ({file})"
    assert (
        refused(env={"FASHIONREC_QUERY__K": "0"})[0]
        == "query.k: should be at least 1, not 0 (environment FASHIONREC_QUERY__K)"
    )
    assert refused(env={"FASHIONREC_KK__K": "0"})[0] == "unknown setting kk (environment FASHIONREC_KK__K)"
    # a table that was given whole is the source of what is in it
    assert refused(["captioner.models={x: {batch_price: 7}}"])[0] == (
        "captioner.models.x.batch_price: should be at most 1, not 7.0 (--set captioner.models={x: {batch_price: 7}})"
    )
    # the last source counts
    assert refused(["query.k=0"], {"FASHIONREC_QUERY__K": "2"}, [file])[0].endswith("(--set query.k=0)")
    assert load_config([file], ["query.k=2"], env={"FASHIONREC_QUERY__K": "0"}).config.query.k == 2


def test_the_environment_is_read_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHIONREC_QUERY__K", "7")
    for name in ENV_OTHER:
        monkeypatch.setenv(name, "x")
    assert load_config().config.query.k == 7
    assert load_config(env={}).config.query.k != 7
    assert load_config(env={"fashionrec_query__k": "7", "XFASHIONREC_QUERY__K": "0"}).origins == {}
    resolved = load_config(env={"FASHIONREC_INDEX": "shop", "FASHIONREC_QUERY__INDEX": "other"})
    assert resolved.config.query.index == "other"  # in the order of their names
    assert resolved.origins == {"query.index": "environment FASHIONREC_QUERY__INDEX"}


def test_layers_do_not_change_what_is_loaded_next() -> None:
    before = load_config(env={})
    changed = load_config(sets=["query.goes_with.worn=0.25", "dataset.map={a: b}"], env={})
    assert changed.config.query.goes_with.worn == 0.25
    assert changed.config.dataset.map == {"a": "b"}
    assert changed.values["dataset.map"] == {"a": "b"}
    assert changed.values["query.goes_with.worn"] == 0.25
    assert load_config(env={}) == before
    assert before.origins == {}


def test_free_tables_take_any_key_and_models_keep_what_an_entry_leaves_out() -> None:
    sets = [
        "feed.columns.colour=shade",
        "captioner.models.mine.input_price=2",
        "captioner.models.mine.batch_price=0.25",
    ]
    resolved = load_config(sets=sets, env={})
    assert resolved.config.feed.columns["colour"] == "shade"
    mine, other = resolved.config.captioner.models["mine"], resolved.config.captioner.models["other"]
    assert mine == other.model_copy(update={"input_price": 2, "batch_price": 0.25})
    assert load_config(env={}).config.captioner.models["other"] == other


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("3", 3),
        ("3.5", 3.5),
        (" 1e3 ", 1000.0),
        ("'1e3'", "1e3"),
        ("nan", "nan"),  # no digit
        ("1e3x", "1e3x"),
        ("[1, 2", "[1, 2"),
        ("[1, 2]", [1, 2]),
        ("true", True),
        ("null", None),
        ("", None),
        ("a: b", {"a": "b"}),
        ("1_000", 1000),
        ("shop 7", "shop 7"),
    ],
)
def test_a_value_is_read_as_yaml(text: str, value: Any) -> None:
    found = parse_value(text)
    assert (found, type(found)) == (value, type(value))
    assert parse_assignment(f" a.b ={text}") == ("a.b", value)


def test_keys_are_flattened_in_order_and_free_tables_stay_whole() -> None:
    tree = {"query": {"k": 1, "goes_with": {"worn": 2}}, "feed": {"columns": {"a": {"b": 1}}}, "x": 3}
    assert list(flatten(tree)) == [
        ("query.k", 1),
        ("query.goes_with.worn", 2),
        ("feed.columns", {"a": {"b": 1}}),
        ("x", 3),
    ]
    assert list(flatten({"models": 1}, "captioner.")) == [("captioner.models", 1)]


def test_the_nearest_name() -> None:
    assert nearest("quer", ["query", "queries"]) == "did you mean query?"
    assert nearest("abcd", ["ab"]) == "did you mean ab?"  # two thirds alike
    assert nearest("abcdef", ["ab"]) == "did you mean ab?"  # half
    assert nearest("abcdefg", ["ab"]) == ""


def test_files_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = ", ".join(sorted(path.stem for path in load_dir().glob("*.yaml") if path.stem != "attributes"))
    assert refused(files=[Path("nothing")]) == ("no such settings file: nothing", f"shipped ones: {shipped}")
    assert refused(files=[Path("a/b/demo.yaml")])[0] == "no such settings file: a/b/demo.yaml"
    assert refused(files=[Path("other/demo.yaml")])[0] == "no such settings file: other/demo.yaml"
    assert load_config(["configs/demo.yaml"], env={}) != load_config(env={})  # as written in a checkout
    assert load_config(["demo"], env={}).config == load_config(["demo.yaml"], env={}).config
    Path("demo.yaml").write_text("query: {k: 77}")
    assert load_config(["demo"], env={}).config.query.k != 77
    assert load_config(["./demo.yaml"], env={}).config.query.k == 77
    Path("list.yaml").write_text("[1]")
    assert refused(files=[Path("list.yaml")]) == (
        "list.yaml has no sections",
        "see configs/default.yaml for an example",
    )
    Path("bad.yaml").write_text("a: [")
    assert refused(files=[Path("bad.yaml")])[0].startswith("bad.yaml is not YAML: ")
    Path("empty.yaml").write_text("")
    assert load_config(["empty.yaml"], env={}) == load_config(env={})
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "gone.yaml")
    assert str(caught.value) == f"cannot read {tmp_path / 'gone.yaml'}: No such file or directory"
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "list.yaml", "configs/attributes.yaml")
    assert caught.value.hint == "see configs/attributes.yaml for an example"


def load_dir() -> Path:
    from fashionrec.config import config_dir

    return config_dir()


def test_a_note_where_a_name_means_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_note("demo") == ""
    Path("mine.yaml").write_text("")
    assert config_note("mine") == config_note("mine.yaml") == ""
    Path("demo.yaml").write_text("")
    assert config_note("demo") == "--config demo means the shipped demo.yaml; the file in this folder is ./demo.yaml"
    assert (
        config_note("demo.yaml")
        == "--config demo.yaml means the shipped demo.yaml; the file in this folder is ./demo.yaml"
    )
    assert config_note("./demo.yaml") == ""
    Path("demo").write_text("")
    assert config_note("demo") == "--config demo means the shipped demo.yaml; the file in this folder is ./demo"
    assert is_bare("demo.yaml")
    assert not is_bare("./demo")


def test_small_readings() -> None:
    assert (auto_is_zero("auto"), auto_is_zero("none"), auto_is_zero(4)) == (0, "none", 4)
    assert (as_list("a"), as_list(["a"]), as_list(3)) == (["a"], ["a"], 3)
    assert load_config(sets=["train.loggers=wandb", "project.threads=auto"], env={}).config.train.loggers == ["wandb"]


@pytest.mark.parametrize(
    ("bounds", "right", "wrong", "message"),
    [
        (Bounds(ge=1.5), [1.5, 2], [1.4, float("nan")], "should be at least 1.5"),
        (Bounds(gt=1), [1.1], [1, 0], "should be more than 1"),
        (Bounds(le=1), [1, 0], [1.1, float("nan")], "should be at most 1"),
        (Bounds(lt=1), [0.9], [1, 2], "should be less than 1"),
        (Bounds(min_length=2), ["ab", [1, 2, 3]], ["a", []], "should be at least this long: 2"),
        (Bounds(max_length=2), ["ab", []], ["abc", [1, 2, 3]], "should be at most this long: 2"),
        (OneOf(["none"], {"a": 1, "b": 2}), ["none", "a", "b"], ["c", ""], "should be none or a or b"),
    ],
)
def test_limits(bounds: Any, right: list[Any], wrong: list[Any], message: str) -> None:
    for value in right:
        bounds.check(value)
    for value in wrong:
        with pytest.raises(Invalid) as caught:
            bounds.check(value)
        assert (caught.value.message, str(caught.value), caught.value.path) == (message, message, ())
        assert caught.value.value is value


class Inner(Section):
    n: int


class Outer(Section):
    table: dict[str, Inner]
    pair: tuple[int, str]
    several: tuple[float, ...]
    inner: Inner
    hidden = 3
    given: int = 7


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"table": {"x": {"n": "y"}}}, ("table", "x", "n"), "should be an integer"),
        ({"table": {5: {"n": None}}}, ("table", "5", "n"), "should be an integer"),
        ({"table": []}, ("table",), "should be a mapping"),
        ({"pair": [1]}, ("pair",), "should be 2 values"),
        ({"pair": [1, "a", 2]}, ("pair",), "should be 2 values"),
        ({"pair": ["x", "a"]}, ("pair", "0"), "should be an integer"),
        ({"pair": "ab"}, ("pair",), "should be a list"),
        ({"several": [1, "x"]}, ("several", "1"), "should be a number"),
        ({"inner": 3}, ("inner",), "should be a mapping"),
        ({"inner": {}}, ("inner", "n"), "is missing"),
        ({"inner": {"n": 1, "m": 2}}, ("inner", "m"), "is unknown"),
        ({"given": None}, ("given",), "should be an integer"),
        ({"hidden": 4}, ("hidden",), "is unknown"),
    ],
)
def test_the_place_of_what_is_wrong(change: dict[str, Any], path: tuple[str, ...], message: str) -> None:
    values = {"table": {"x": {"n": "4"}}, "pair": [1.0, 2], "several": [1, "2.5"], "inner": {"n": 3}}
    read = Outer.model_validate(values)
    assert read.model_dump() == {
        "table": {"x": {"n": 4}},
        "pair": [1, "2"],
        "several": [1.0, 2.5],
        "inner": {"n": 3},
        "given": 7,
    }
    assert read.model_dump(exclude={"pair", "table"}) == {"several": [1.0, 2.5], "inner": {"n": 3}, "given": 7}
    assert Outer.model_validate(read) is read
    assert (read.others, read == Outer.model_validate(values), read == values) == ({}, True, False)
    assert repr(read.inner) == "Inner(n=3)"
    with pytest.raises(Invalid) as caught:
        Outer.model_validate({**values, **change})
    assert (caught.value.path, caught.value.message) == (path, message)


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (bool, "YES", True),
        (bool, "no", False),
        (bool, 1, True),
        (bool, 0.0, False),
        (bool, "True", True),
        (bool, "FALSE", False),
        (bool, 2, "should be true or false"),
        (bool, [], "should be true or false"),
        (int, "3", 3),
        (int, 10**20, 10**20),
        (int, True, "should be an integer"),
        (int, 3.5, "should be an integer"),
        (int, float("nan"), "should be an integer"),
        (int, float("inf"), "should be an integer"),
        (int, float("-inf"), "should be an integer"),
        (float, 3, 3.0),
        (float, "x", "should be a number"),
        (float, False, "should be a number"),
        (str, 3, "3"),
        (str, 2.5, "2.5"),
        (str, True, "should be text"),
        (None, None, None),
        (None, 0, "should be null"),
        (int | str | None, "3", "3"),
        (int | str | None, None, None),
        (int | float, 2.5, 2.5),
        (int | float, 2, 2),
        (int | list[int] | None, "x", "should be an integer"),
    ],
)
def test_how_a_value_is_read(annotation: Any, value: Any, expected: Any) -> None:
    if isinstance(expected, str) and expected.startswith("should be"):
        with pytest.raises(Invalid) as caught:
            checked(annotation, value)
        assert caught.value.message == expected
        assert caught.value.value is value
    else:
        found = checked(annotation, value)
        assert (found, type(found)) == (expected, type(expected))


def test_a_setting_is_never_changed_in_place() -> None:
    config: Any = load_config(env={}).config
    with pytest.raises(AttributeError) as caught:
        config.query.k = 3
    assert str(caught.value) == "QueryConfig.k is read-only: make a copy"
    assert config.query.model_copy(update={"k": 77}).k == 77
    assert config.model_copy() == config
    assert list(Config.model_fields())[:2] == ["project", "images"]
