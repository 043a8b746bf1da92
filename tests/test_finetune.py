"""Finetuning a detector: replay, distillation, mixing, and the decision that it ends in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result
from test_detector_training import FAST, MODEL, dataset

from fashionrec.config import load_config
from fashionrec.models.runs import read_run

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")

from fashionrec.detector.training.finetune import balanced_sample, best_factor, interpolate  # noqa: E402


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of one epoch, and the data it was trained on."""
    from fashionrec.detector.training.train import train_detector

    folder = tmp_path_factory.mktemp("old")
    data = dataset(folder / "data", {"train": 16, "valid": 8, "test": 8})
    sets = [f"train.data={data}", f"train.model={MODEL}", "train.epochs=1", *(f"train.{word}" for word in FAST)]
    return train_detector(load_config(sets=sets, env={}).config.train, folder / "runs").path, data


def test_a_finetune_ends_in_a_decision_with_its_reports(
    old: tuple[Path, Path], tmp_path: Path, cli: Callable[..., Result]
) -> None:
    run, data = old
    new = dataset(tmp_path / "new", {"train": 8, "valid": 4, "test": 4}, seed=1)
    words = ("name=ft", "epochs=1", "resamples=100", *FAST)
    done = cli("finetune", "--weights", run, "--data", new, "--replay", data, *words, "--json")
    assert done.code in (0, 3), done.err
    document = done.document
    assert document["promoted"] is (done.code == 0)
    folder = Path(document["path"])
    assert (folder / "weights" / "best_ft.pt").is_file()
    assert {path.suffix for path in folder.glob("comparison.*")} == {".json", ".md", ".html"}
    comparison = json.loads((folder / "comparison.json").read_text())
    assert {row["test_set"] for row in comparison["rows"]} == {"old", "new"}
    assert comparison["decision"] == document["notes"]["decision"]
    assert document["notes"]["replayed"] == 16  # as many as there are; three for each new one were asked for
    assert document["notes"]["distilled"] is True
    assert [tried["factor"] for tried in document["notes"]["interpolation"]["tried"]] == [0, 0.25, 0.5, 0.75, 1]
    assert not list((folder / "weights").glob(".mix*"))


def test_without_old_photos_the_old_weights_teach_and_nothing_is_promoted(
    old: tuple[Path, Path], tmp_path: Path, cli: Callable[..., Result]
) -> None:
    run, _ = old
    new = dataset(tmp_path / "new", {"train": 8, "valid": 4, "test": 4}, seed=1)
    words = ("epochs=2", "resamples=100", *FAST)
    done = cli("finetune", "--weights", run, "--data", new, "name=taught", *words, "--json")
    assert done.code == 3, done.err
    assert "there is no old test set" in done.err
    assert done.document["notes"]["distilled"] is True
    taught = read_run(Path(done.document["path"]))
    # what is saved is the student alone, as it is without a teacher
    from fashionrec.detector.training.ultra import load_yolo

    before, after = (
        load_yolo(str(path)).model for path in (run / "weights" / "best.pt", taught.weights_path("best_ft"))
    )
    assert list(before.state_dict()) == list(after.state_dict())
    assert "dis_loss" in (taught.path / "results.csv").read_text()


def test_the_teacher_compares_features_as_they_are(old: tuple[Path, Path]) -> None:
    """Two equal networks have nothing to learn from each other; through ultralytics' projection, random at first, they had."""
    from types import SimpleNamespace

    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.distill_model import DistillationModel

    from fashionrec.detector.training.finetune import keep_features_as_they_are
    from fashionrec.detector.training.ultra import load_yolo

    weights = old[0] / "weights" / "best.pt"
    student = load_yolo(str(weights)).model.float()
    student.args = get_cfg(overrides={"imgsz": 64, "dis": 6.0})
    wrapped = DistillationModel(load_yolo(str(weights)).model.float(), student)
    wrapped.train()
    for module in wrapped.student_model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # by its running statistics, as the teacher
    batch = {
        "img": torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
        "batch_idx": torch.zeros(1),
        "cls": torch.zeros(1, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]]),
    }
    _, projected = wrapped.loss(batch)
    keep_features_as_they_are(SimpleNamespace(model=wrapped, ema=None))
    _, compared = wrapped.loss(batch)
    assert float(projected["dis_loss"]) > 1e-3
    assert float(compared["dis_loss"]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--set", "finetune.optimizer=auto"), "would ignore lr0"),
        (("--weights", "w.safetensors"), "only detectors of ultralytics"),
    ],
)
def test_what_cannot_keep_its_promise_is_refused(
    change: tuple[str, str], words: str, old: tuple[Path, Path], tmp_path: Path, cli: Callable[..., Result]
) -> None:
    run, data = old
    (tmp_path / "w.safetensors").write_bytes(b"x")
    done = cli("finetune", "--weights", run, "--data", data, *change)
    assert done.code == 2
    assert words in done.err
    assert not (tmp_path / "runs").exists()


def test_weights_are_mixed_by_the_factor() -> None:
    import torch

    before = {"w": torch.zeros(2), "n": torch.tensor(1)}
    after = {"w": torch.ones(2), "n": torch.tensor(7)}
    assert interpolate(before, after, 0.25)["w"].tolist() == [0.25, 0.25]
    assert interpolate(before, after, 0.25)["n"] == 7


@pytest.mark.parametrize(
    ("new", "old", "factor"),
    [
        ((0.30, 0.34, 0.36), (0.500, 0.499, 0.497), 1.0),  # all within half a point: the most gained
        ((0.30, 0.34, 0.36), (0.500, 0.498, 0.480), 0.5),  # 2 points lost at the end
        ((0.30, 0.31, 0.36), (0.500, 0.450, 0.400), 0.5),  # all lose too much: the least lost for what is gained
        ((0.30, 0.39, 0.395), None, 0.5),  # nine tenths of the gain are there half-way
        ((0.30, 0.32, 0.40), None, 1.0),
        ((0.30, 0.29, 0.28), None, 0.5),  # nothing gained: nearer to what it was
    ],
)
def test_the_factor_that_is_taken(new: tuple[float, ...], old: tuple[float, ...] | None, factor: float) -> None:
    tried = [{"factor": f, "new": new[n]} | ({"old": old[n]} if old else {}) for n, f in enumerate((0.0, 0.5, 1.0))]
    assert best_factor(tried, 0.5) == factor


def test_replay_is_balanced_by_class(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    images = []
    for n in range(40):
        kind = 0 if n < 36 else 3
        images.append(tmp_path / "images" / f"{n}.jpg")
        (tmp_path / "labels" / f"{n}.txt").write_text(f"{kind} .5 .5 .1 .1\n")
    chosen = balanced_sample(images, 8, seed=0)
    assert len(set(chosen)) == 8
    assert sum(int(path.stem) >= 36 for path in chosen) == 4
    assert set(balanced_sample(images, 100, seed=0)) == set(images)
