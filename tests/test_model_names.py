"""Test what a name of a model is answered where there is no such file: each mistake has words and a
hint of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fashionrec.detector.training.names import is_known, model_file, model_note
from fashionrec.errors import ModelError

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("model", "words", "hint"),
    [
        ("weights/mine.pt", "no such checkpoint: weights/mine.pt", ""),
        ("mine.pt", "unknown model mine.pt", ""),
        ("yolov8l-seg.pt", "yolov8l-seg.pt is not a detector of ultralytics", "yolov8l"),
        ("yolov8xl.yaml", "unknown architecture yolov8xl.yaml", "yolov8"),
        ("configs/models/none.yaml", "no such model: configs/models/none.yaml", "a path"),
        ("yolov8ll", "unknown model yolov8ll", "yolov8l.pt"),
        ("yolov6n.pt", "no weights of yolov6n are published", "train it from scratch: yolov6n.yaml"),
    ],
)
def test_a_name_that_leads_nowhere(model: str, words: str, hint: str) -> None:
    with pytest.raises(ModelError) as caught:
        model_file(model)
    assert words in str(caught.value)
    assert hint in caught.value.hint


def test_a_file_that_is_no_model_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModelError, match=r"notes\.txt is neither a checkpoint \(\.pt\) nor a model YAML"):
        model_file("notes.txt")


def test_files_and_known_names_are_what_they_are(tmp_path: Path) -> None:
    for name in ("mine.pt", "mine.yaml", "yolov8s.pt", "yolov8n.yaml"):
        (tmp_path / name).write_text("x")
    assert model_file("mine.pt") == "mine.pt"
    assert model_file("./yolov8n.yaml") == "./yolov8n.yaml"
    assert model_file("yolov8m") == "yolov8m.pt"
    assert model_file("elsewhere/yolov8m.pt") == "elsewhere/yolov8m.pt"  # where the package is to put it
    assert model_file("https://host/a.pt") == "https://host/a.pt"
    assert [is_known(name) for name in ("yolov8m", "yolov8m.yaml", "yolov8m.pt", "mine", "./yolov8m")] == [
        *(True, True),
        *(False, False, False),
    ]
    assert "yolov8s.pt from the working folder" in model_note("yolov8s")
    assert "mine.pt from the working folder" in model_note("mine.pt")
    assert "the file in this folder is ./yolov8n.yaml" in model_note("yolov8n.yaml")
    assert [model_note(name) for name in ("yolov8m", "./yolov8s.pt", "mine", "mine.yaml")] == ["", "", "", ""]
