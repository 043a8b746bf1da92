"""Finetuning a detector: replay, distillation, mixing, and the decision that it ends in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result
from test_detector_training import FAST, MODEL, TINY_MODEL, dataset

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
    tried = document["notes"]["interpolation"]["tried"]
    assert [(set(one), one["factor"]) for one in tried] == [({"factor", "new", "old"}, n / 4) for n in range(5)]
    assert not list((folder / "weights").glob(".mix*"))


def test_without_old_photos_the_old_weights_teach_and_nothing_is_promoted(
    old: tuple[Path, Path], tmp_path: Path, cli: Callable[..., Result]
) -> None:
    run, _ = old
    new = dataset(tmp_path / "new", {"train": 8, "valid": 4, "test": 4}, seed=1)
    words = ("epochs=2", "resamples=100", *FAST)
    done = cli("finetune", "--weights", run, "--data", new, "name=taught", *words, "--json")
    assert done.code == 3, done.err
    assert "without an old test set" in done.err
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
    """Two equal networks have nothing to learn from each other; through ultralytics' projection,
    random at first, they had.
    """
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


# --- what is refused before anything is trained, on a checkpoint that never was


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint that was never trained, and data of its classes."""
    from fashionrec.detector.training.ultra import load_yolo, quiet
    from fashionrec.labels.data_yaml import read_data_yaml

    folder = tmp_path_factory.mktemp("fresh")
    data = dataset(folder / "d", {"train": 1, "valid": 1})
    yolo = load_yolo(TINY_MODEL)
    yolo.model.names = dict(read_data_yaml(data).names)
    with quiet(None):
        yolo.save(str(folder / "fresh.pt"))
    return folder / "fresh.pt", data


def test_every_refusal_has_its_words_and_a_hint(fresh: tuple[Path, Path], tmp_path: Path) -> None:
    from fashionrec.detector.training.finetune import finetune_detector
    from fashionrec.errors import ConfigError, DataError, FashionrecError, ModelError

    weights, data = fresh

    def refused(error: type[FashionrecError], *words: str) -> tuple[str, str]:
        sets = [f"finetune.{word}" for word in (f"weights={weights}", f"data={data}", *words)]

        def judge(*_: object) -> dict[str, object]:
            raise AssertionError

        with pytest.raises(error) as caught:
            finetune_detector(load_config(sets=sets, env={}).config.finetune, tmp_path / "runs", judge)
        assert not (tmp_path / "runs").exists()
        return str(caught.value), caught.value.hint

    assert refused(ModelError, "weights=none.pt") == (
        "no such weights: none.pt",
        "--weights runs/train/NAME/weights/best.pt",
    )
    (tmp_path / "w x.safetensors").write_bytes(b"x")
    other = tmp_path / "w x.safetensors"
    assert refused(ModelError, f"weights={other}") == (
        f"{other} cannot be fine-tuned: only detectors of ultralytics can",
        f"train on from it, without a decision: fashionrec train 'model={other}' data={data}",
    )
    for optimizer in ("auto", "AUTO"):
        assert refused(ConfigError, f"optimizer={optimizer}") == (
            "finetune.optimizer=auto would ignore lr0",
            "name one: AdamW, SGD",
        )
    renamed = dataset(tmp_path / "renamed", {"train": 1, "valid": 1})
    renamed.write_text(renamed.read_text().replace("dress", "gown"))
    names = ("dress, pants, skirt&pants, skirt, top", "gown, pants, skirt&pants, skirt, top")
    for words in ((f"data={renamed}",), (f"replay={renamed}",)):
        said, hint = refused(DataError, *words)
        assert said == f"{renamed} has the classes {names[1]}; the weights have {names[0]}"
        assert hint == "`fashionrec fetch-dataset yolo:PATH` renumbers a dataset's classes by name"
    prepared = dataset(tmp_path / "prepared", {"train": 1, "valid": 1})
    (prepared.parent / "dataset.json").write_text(json.dumps({"pixels": {"equalize": 2.0}}))
    for words in ((f"data={prepared}",), (f"replay={prepared}",)):
        said, hint = refused(DataError, *words)
        assert said == (
            f"the photos of {prepared} were prepared with {{'equalize': 2.0}}, those the weights were trained on with nothing"
        )
        assert hint == ("use `fashionrec fetch-dataset` with the same dataset.resize, imgsz and equalize")


def test_the_rarest_class_is_replayed_first_and_no_photo_twice(tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    images = []
    for name, numbers in {"a": "00", "b": "0", "c": "0", "d": "13", "e": "", "f": "01"}.items():
        images.append(tmp_path / "images" / f"{name}.jpg")
        (tmp_path / "labels" / f"{name}.txt").write_text("".join(f"{n} .5 .5 .1 .1\n" for n in numbers))

    def chosen(count: int, seed: int = 0) -> str:
        return "".join(path.stem for path in balanced_sample(images, count, seed))

    # class 3 and no class are in a photo each, class 1 in two, class 0 in four
    assert [chosen(n) for n in range(4)] == ["", "d", "de", "def"]
    assert {chosen(4, seed) for seed in range(20)} == {"defa", "defb", "defc"}
    assert {"".join(sorted(chosen(n))) for n in (6, 7)} == {"abcdef"}
    assert len({chosen(6, seed) for seed in range(20)}) > 3
    assert chosen(6, 3) == chosen(6, 3)


def test_weights_of_half_precision_are_mixed_in_single() -> None:
    import torch

    before = {"w": torch.tensor([2.0, 4.0], dtype=torch.float16)}
    after = {"w": torch.tensor([4.0, 0.0], dtype=torch.float16), "n": torch.tensor(3)}
    for factor, expected in ((0.0, [2, 4]), (0.75, [3.5, 1]), (1.0, [4, 0])):
        mixed = interpolate(before, after, factor)
        assert (mixed["w"].tolist(), mixed["w"].dtype, int(mixed["n"])) == (expected, torch.float32, 3)


def test_a_factor_at_the_tolerance_and_the_least_of_those_that_gain_as_much() -> None:
    def taken(new: tuple[float, ...], old: tuple[float, ...] | None, tolerance: float = 0.5) -> float:
        factors = (0.0, 0.25, 1.0)
        tried = [{"factor": f, "new": new[n]} | ({"old": old[n]} if old else {}) for n, f in enumerate(factors)]
        return best_factor(tried[::-1], tolerance)

    assert taken((0.25, 0.5, 0.75), (0.5, 0.5, 0.25), 25) == 1.0
    assert taken((0.25, 0.5, 0.75), (0.5, 0.5, 0.25), 24.9) == 0.25
    assert taken((0.25, 0.5, 0.5), (0.5, 0.5, 0.5)) == 0.25  # the first of two as good
    assert taken((0.0, 0.9, 1.0), None) == 0.25  # nine tenths of what was gained
    assert taken((0.0, 0.89, 1.0), None) == 1.0
    assert taken((1.0, 0.0, 0.0), None) == 0.25
