"""Test what a bare name means in a folder that has files of that name: ours first; a path is a
path.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result

from fashionrec.config import config_dir, load_config
from fashionrec.errors import ConfigError
from fashionrec.models.runs import find_run, start_run

SHIPPED = sorted(path.stem for path in config_dir().glob("*.yaml") if path.stem not in ("attributes", "default"))


@pytest.mark.parametrize("form", ["{}", "{}.yaml"])
@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("kind", ["file", "folder", "yaml", "link"])
def test_a_shipped_configuration_wins_over_what_lies_here(
    name: str, form: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = load_config([form.format(name)], env={}).values
    monkeypatch.chdir(tmp_path)
    theirs = "captioner:\n  base_url: http://elsewhere.example/v1\n"
    if kind == "folder":
        (tmp_path / form.format(name)).mkdir()
    elif kind == "link":
        (tmp_path / "theirs").write_text(theirs)
        (tmp_path / form.format(name)).symlink_to("theirs")
    else:
        (tmp_path / (f"{name}.yaml" if kind == "yaml" else name)).write_text(theirs)
    assert load_config([form.format(name)], env={}).values == right


@pytest.mark.parametrize("form", ["./demo", "./demo.yaml", "configs/demo.yaml", "../{here}/demo", "{root}/demo.yaml"])
def test_a_path_is_a_path(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for name in ("demo", "demo.yaml", "configs/demo.yaml"):
        (tmp_path / name).write_text("query:\n  k: 3\n")
    named = form.format(here=tmp_path.name, root=tmp_path)
    assert load_config([named], env={}).config.query.k == 3


def test_a_file_of_no_shipped_name_is_taken_and_a_path_that_is_not_there_is_not_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("query:\n  k: 3\n")
    assert load_config(["mine.yaml"], env={}).config.query.k == 3
    assert load_config(["configs/demo.yaml"], env={}).values == load_config(["demo"], env={}).values
    for absent in ("./demo", "./demo.yaml", "elsewhere/demo.yaml", "configs/none.yaml"):
        with pytest.raises(ConfigError, match="no such settings file:"):
            load_config([absent], env={})


def test_it_is_said_which_of_two_is_meant(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("query:\n  k: 3\n")
    done = cli("config", "show", "--config", "demo", "--json")
    assert done.code == 0, done.err
    assert done.err.count("--config demo means the shipped demo.yaml; the file in this folder is ./demo.yaml") == 1
    assert "demo" not in cli("config", "show", "--config", "./demo.yaml", "--json").err


def test_a_run_of_the_name_wins_over_a_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = start_run(Path("runs/train"), "garments", kind="detector", verb="train")
    run.status = "done"
    run.save()
    for other in ("garments", "train/garments"):
        shutil.copytree(run.path, other)
    runs = Path("runs")
    assert find_run(runs, "garments").path == Path("runs/train/garments")
    assert find_run(runs, "train/garments").path == Path("runs/train/garments")
    assert find_run(runs, "./garments").path == Path("garments")
    assert find_run(runs, str(tmp_path / "train" / "garments")).path == tmp_path / "train" / "garments"


@pytest.mark.train
def test_an_architecture_wins_over_a_file_here_and_a_checkpoint_here_over_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ultralytics")
    from fashionrec.detector.training.names import is_known, model_file, model_note
    from fashionrec.detector.training.ultra import load_yolo
    from fashionrec.errors import ModelError

    monkeypatch.chdir(tmp_path)
    for name in ("yolov8n.yaml", "yolov8-demo.yaml", "yolov8.yaml", "yolov8n.pt", "mine.pt"):
        (tmp_path / name).write_text("nothing")
    assert len(load_yolo("yolov8n.yaml").model.state_dict()) > 100
    assert len(load_yolo("yolov8-demo.yaml").model.state_dict()) > 100
    assert (
        model_note("yolov8n.yaml") == "using the architecture yolov8n.yaml; the file in this folder is ./yolov8n.yaml"
    )
    with pytest.raises(ModelError, match=r"yolov8n\.yaml"):
        load_yolo("./yolov8n.yaml")
    assert model_file("yolov8n") == "yolov8n.pt"
    for name in ("yolov8n.pt", "mine.pt"):
        assert model_note(name) == f"using {name} from the working folder"
        with pytest.raises(ModelError, match=f"{name} is not a checkpoint"):
            load_yolo(name)
    assert [is_known(name) for name in ("yolov8n.yaml", "yolov8n", "yolov8n.pt", "./yolov8n", "mine")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.train
@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("efficientdet_d0", True),
        ("fasterrcnn_resnet50_fpn", True),
        ("yolo11n.yaml", True),
        ("./efficientdet_d0", False),
        ("efficientdet_mine", False),
        ("best.safetensors", False),
    ],
)
def test_names_of_every_family_are_known(model: str, known: bool) -> None:
    pytest.importorskip("effdet")
    from fashionrec.detector.training.families import is_name

    assert is_name(model) is known
