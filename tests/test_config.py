"""Settings: layers, origins, and errors that name the nearest real key."""

from pathlib import Path

import pytest
import yaml

from fashionrec.config import REMOVED, Config, config_dir, flatten, load_config
from fashionrec.config.yolo_options import YOLO_OPTIONS
from fashionrec.errors import ConfigError


def test_layers_override_in_order_and_say_where_a_value_came_from(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("query: {k: 3, min_score: 0.5}\ntrain: {mosaic: 0.25}\n")
    env = {"FASHIONREC_QUERY__K": "4", "FASHIONREC_INDEX": "shop", "OTHER": "x"}
    resolved = load_config([file], ["query.k=5"], env=env)
    assert resolved.config.query.k == 5
    assert resolved.config.query.min_score == 0.5
    assert resolved.config.query.index == "shop"
    assert resolved.config.train.options() == {"mosaic": 0.25}
    assert resolved.origins["query.k"] == "--set query.k=5"
    assert resolved.origins["query.min_score"] == str(file)
    assert resolved.origins["query.index"] == "environment FASHIONREC_INDEX"
    assert load_config([file], env=env).config.query.k == 4


def test_a_removed_key_says_what_to_do_without_it(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("evaluate: {k: 10, worst: 3}\n")
    for files, sets, env in (
        ([file], [], {}),
        ([], ["evaluate.k=5"], {}),
        ([], [], {"FASHIONREC_EVALUATE__K": "5"}),
    ):
        with pytest.raises(ConfigError, match=r"evaluate\.k was removed") as caught:
            load_config(files, sets, env=env)
        assert caught.value.hint == REMOVED["evaluate.k"]
    assert all(len(hint) > 20 for hint in REMOVED.values())


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("query.kk=3", "query.k"),
        ("train.mosiac=1", "train.mosaic"),
        ("quer.k=3", "query"),
        ("detector.cnf=0.2", "detector.conf"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(assignment: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="unknown setting") as caught:
        load_config(sets=[assignment], env={})
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "assignment", ["query.k=many", "query.k=0", "detector.conf=2", "train=3", "project.device=tpu", "k"]
)
def test_a_wrong_value_is_one_line(assignment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(sets=[assignment], env={})
    assert "\n" not in str(caught.value)


def test_an_unknown_environment_setting_is_an_error() -> None:
    with pytest.raises(ConfigError, match="FASHIONREC_QUERY__KK"):
        load_config(env={"FASHIONREC_QUERY__KK": "1"})


def test_broken_and_missing_files_are_config_errors(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(ConfigError, match="not YAML"):
        load_config([broken], env={})
    with pytest.raises(ConfigError) as caught:
        load_config([tmp_path / "none.yaml"], env={})
    assert "demo" in caught.value.hint


@pytest.mark.parametrize("path", sorted(config_dir().glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_yaml_is_valid(path: Path) -> None:
    if path.name == "attributes.yaml":
        return  # a vocabulary, not settings; tested with the captioner
    assert isinstance(load_config([path], env={}).config, Config)


def test_default_yaml_names_every_setting_and_says_something_about_its_sections() -> None:
    text = (config_dir() / "default.yaml").read_text()
    tree = yaml.safe_load(text)
    for name, section in Config.model_fields().items():
        assert set(tree[name]) == set(section.model_fields()), name
    assert set(tree) == set(Config.model_fields())


def test_numbers_are_read_as_yolo_users_write_them() -> None:
    config = load_config(sets=["finetune.lr0=1e-4", "train.name=2024", "train.device=0,1"], env={}).config
    assert config.finetune.lr0 == 1e-4
    assert config.train.name == "2024"
    assert config.train.device == "0,1"


def test_flatten_keeps_free_tables_whole() -> None:
    keys = dict(flatten(yaml.safe_load((config_dir() / "default.yaml").read_text())))
    assert keys["query.k"] == 10
    assert "gpt-4o" in keys["captioner.models"]


@pytest.mark.train
def test_the_list_of_yolo_options_is_ultralytics_own() -> None:
    pytest.importorskip("ultralytics")
    from ultralytics.cfg import DEFAULT_CFG_DICT

    ours = {"mode", "task", "model", "data", "project", "name", "save_dir", "cfg", "tracker", "source"}
    assert set(DEFAULT_CFG_DICT) - ours - {"exist_ok", "resume"} == set(YOLO_OPTIONS)
