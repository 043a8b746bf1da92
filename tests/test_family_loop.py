"""The plain training loop on a network of three numbers: its steps, its end, what it writes, and
how it goes on.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fashionrec.config import TrainConfig, load_config
from fashionrec.dataset.prepare.prepare import write_data_yaml
from fashionrec.errors import ConfigError, FashionrecError
from fashionrec.models.runs import Run, start_run

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.train

LIMITS = load_config(env={}).config.images
SPEC = {
    "imgsz": 32,
    "pad": 114,
    "resize": "letterbox",
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
    "scale": 1 / 255,
    "head": "yolo",
    "input": "images",
    "labels": {"0": "pants", "1": "dress"},
}


class Toy(torch.nn.Module):
    """A weight, a bias, and a norm with a momentum of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, 1))
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.norm = torch.nn.BatchNorm2d(3, momentum=0.01)
        self.late = torch.nn.BatchNorm2d(3, momentum=0.5)
        self.whole = torch.nn.BatchNorm2d(3, momentum=None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four photos to train on, and one to be measured on."""
    for split, count in (("train", 4), ("valid", 1)):
        for n in range(count):
            for part in ("images", "labels"):
                (tmp_path / "data" / split / part).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (40 * n, 0, 0)).save(tmp_path / "data" / split / "images" / f"{n}.png")
            (tmp_path / "data" / split / "labels" / f"{n}.txt").write_text(f"{n % 2} .5 .5 .5 .5\n")
    write_data_yaml(tmp_path / "data", ["train", "valid"])
    return tmp_path / "data" / "data.yaml"


def settings(data: Path, *words: str) -> TrainConfig:
    own = ("epochs=10", "batch=4", "workers=0", "device=cpu", "optimizer=SGD", "lr0=0.1", "lrf=0.2", "warmup_epochs=2")
    sets = [f"train.{word}" for word in ("model=toy", *own, "momentum=0.5", "weight_decay=0", *words)]
    return load_config(sets=sets, env={}).config.train


class Training:
    """One call of the loop: what the network was shown, what it was worth each epoch, what was
    said.
    """

    def __init__(
        self, config: TrainConfig, data: Path, runs: Path, scores: Sequence[float], slope: float = 0.0
    ) -> None:
        from fashionrec.detector.training.families.loop import Learner

        self.config, self.data, self.runs, self.scores, self.slope = config, data, runs, scores, slope
        self.model = Toy()
        self.learner = Learner(self.model, torch.nn.Identity(), self.losses, SPEC, 0.003)
        self.batches: list[int] = []
        self.reds: list[list[int]] = []
        self.boxes: set[tuple[float, ...]] = set()
        self.weights: list[float] = []
        self.told: list[str] = []
        self.steps: list[tuple[int, int, dict[str, Any]]] = []

    def losses(self, images: Any, truth: list[Any]) -> Any:
        self.batches.append(len(truth))
        self.reds.append(sorted(round(float(red) * 255) for red in images[:, 0, 16, 16]))
        assert images.shape == (len(truth), 3, 32, 32)
        self.boxes |= {(int(classes), *boxes[0].tolist()) for boxes, classes in truth}
        return len(truth) + self.slope * (
            self.model.weight.sum() - self.model.weight.detach().sum() + self.model.bias.sum() * 0
        )

    def evaluate(self, detector: Any, data: Path, split: str) -> dict[str, Any]:
        assert (data, split, self.model.training) == (self.data, "valid", False)
        score = self.scores[len(self.steps)]
        self.weights.append(float(self.model.weight))
        values = {"map50": round(score + 0.01, 2), "map50_95": score, "precision": 0.7, "recall": 0.6}
        return {**values, "per_class": {"pants": {**values, "boxes": 3}}}

    def progress(self, epoch: int, epochs: int, figures: dict[str, Any]) -> None:
        self.steps.append((epoch, epochs, figures))

    def run(self, *, progress: Callable[..., None] | None = None, exist_ok: bool = False) -> Run:
        from fashionrec.detector.training.families.checkpoint import About
        from fashionrec.detector.training.families.loop import fit

        made = start_run(self.runs, "a", kind="detector", verb="train", exist_ok=exist_ok)
        about = About("toy", "toy", {0: "pants", 1: "dress"}, 32)
        fit(
            made, self.config, self.data, self.learner, about, progress or self.progress, self.told.append,
            limits=LIMITS, evaluate=self.evaluate,
        )  # fmt: skip
        return made


STILL = ("fliplr=0", "translate=0", "scale=0", "hsv_h=0", "hsv_s=0", "hsv_v=0")


def rows(run: Run) -> list[dict[str, str]]:
    with (run.path / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def saved(run: Run, name: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(run.path / "weights" / f"{name}.safetensors"))


def test_the_learning_rate_rises_and_falls(data: Path, tmp_path: Path) -> None:
    training = Training(settings(data, *STILL), data, tmp_path / "runs", [0.5] * 10)
    run = training.run()
    assert training.told == ["toy on cpu: SGD, learning rate 0.1"]
    cosine = [0.1 * (0.2 + 0.8 * (1 + math.cos(math.pi * n / 8)) / 2) for n in range(8)]
    assert [float(row["lr"]) for row in rows(run)] == pytest.approx([0.1 / 3, 0.2 / 3, *cosine], rel=1e-5)
    assert training.batches == [4] * 10
    assert training.reds == [[0, 40, 80, 120]] * 10
    assert training.boxes == {(0, 8.0, 8.0, 24.0, 24.0), (1, 8.0, 8.0, 24.0, 24.0)}
    longer = Training(settings(data, *STILL, "warmup_epochs=9"), data, tmp_path / "longer", [0.5] * 10)
    assert [row["lr"] for row in rows(longer.run())] == [row["lr"] for row in rows(run)]  # a fifth at most
    # statistics over the last steps: 20 / 10 is more than a tenth
    assert [layer.momentum for layer in (training.model.norm, training.model.late, training.model.whole)] == [
        0.1,
        0.5,
        None,
    ]


def test_the_best_weights_are_kept_and_it_ends_when_it_gets_no_better(data: Path, tmp_path: Path) -> None:
    scores = [0.2, 0.5, 0.5, 0.4, 0.9]
    training = Training(settings(data, *STILL, "patience=2"), data, tmp_path / "runs", scores, slope=1.0)
    run = training.run()
    assert training.told[-1] == "no improvement for 2 epochs: stopped at epoch 4"
    assert [(epoch, epochs, figures["map50_95"]) for epoch, epochs, figures in training.steps] == [
        (1, 10, 0.2),
        (2, 10, 0.5),
        (3, 10, 0.5),
        (4, 10, 0.4),
    ]
    assert training.steps[0][2] == {"map50": 0.21, "map50_95": 0.2, "loss": 4.0}
    assert float(saved(run, "best")["weight"]) == training.weights[2]  # the later one of two as good
    assert float(saved(run, "last")["weight"]) == training.weights[3] < training.weights[2]
    assert run.weights == {"best": "weights/best.safetensors", "last": "weights/last.safetensors"}
    values = {"map50": 0.51, "map50_95": 0.5, "precision": 0.7, "recall": 0.6}
    assert run.metrics == {**values, "per_class": {"pants": values}, "split": "valid"}
    assert (run.epochs, run.device) == (4, "cpu")
    assert sorted(path.name for path in (run.path / "weights").iterdir()) == ["best.safetensors", "last.safetensors"]
    assert [list(row.values())[:6] for row in rows(run)][1] == ["2", "4", "0.7", "0.6", "0.51", "0.5"]
    assert list(rows(run)[0]) == ["epoch", "loss", "precision", "recall", "map50", "map50_95", "lr"]


def test_nothing_found_yet_is_no_reason_to_end(data: Path, tmp_path: Path) -> None:
    training = Training(settings(data, "patience=1"), data, tmp_path / "runs", [0.0] * 10)
    assert training.run().epochs == 10
    never = Training(settings(data, "patience=0"), data, tmp_path / "never", [0.9, *[0.1] * 9])
    assert never.run().epochs == 10


def test_a_gradient_is_clipped_and_a_batch_has_no_single_photo(data: Path, tmp_path: Path) -> None:
    config = settings(data, *STILL, "epochs=1", "batch=3", "warmup_epochs=0")
    training = Training(config, data, tmp_path / "runs", [0.5], slope=1000.0)
    run = training.run()
    assert training.batches == [3, 2]  # the first once more
    assert float(rows(run)[0]["loss"]) == pytest.approx((3 * 3 + 2 * 2) / 5)
    # two steps of SGD with Nesterov's momentum m = 0.5 on a gradient of 10: lr (1 + m) 10, then lr
    # (1 + m + m²) 10
    rates = [0.1, 0.1 * (0.2 + 0.8 / 2)]
    assert training.weights == pytest.approx([1 - rates[0] * 15 - rates[1] * 17.5], rel=1e-4)
    assert float(training.model.bias) == 0


def test_weights_decay_and_biases_do_not(data: Path, tmp_path: Path) -> None:
    config = settings(data, *STILL, "epochs=1", "weight_decay=0.5", "optimizer=auto")
    training = Training(config, data, tmp_path / "runs", [0.5])
    with torch.no_grad():
        training.model.bias.fill_(1.0)
    training.run()
    assert training.told == ["toy on cpu: AdamW, learning rate 0.003 (optimizer=auto: lr0 is the family's default)"]
    assert float(training.model.weight) == pytest.approx(1 - 0.003 * 0.5, rel=1e-5)
    assert float(training.model.bias) == 1


@pytest.mark.parametrize("balance", ["none", "sample"])
def test_it_goes_on_as_if_it_had_not_been_stopped(balance: str, data: Path, tmp_path: Path) -> None:
    config = settings(data, "epochs=4", "batch=2", f"balance={balance}")
    scores = [0.1, 0.4, 0.3, 0.3]
    whole = Training(config, data, tmp_path / "whole", scores, slope=1.0)
    expected = whole.run()

    def stop(epoch: int, epochs: int, figures: dict[str, Any]) -> None:
        cut.progress(epoch, epochs, figures)
        if epoch == 2:
            raise KeyboardInterrupt

    cut = Training(config, data, tmp_path / "cut", scores, slope=1.0)
    with pytest.raises(KeyboardInterrupt):
        cut.run(progress=stop)
    resumed = Training(config, data, tmp_path / "cut", scores[2:], slope=1.0)
    run = resumed.run(exist_ok=True)
    assert resumed.told[-1] == "resuming after epoch 2 of 4"
    assert [step[0] for step in resumed.steps] == [3, 4]
    assert [*cut.reds, *resumed.reds] == whole.reds
    assert rows(run) == rows(expected)
    assert (run.epochs, run.metrics) == (4, expected.metrics)
    assert 0 < run.seconds < 300  # of both parts
    for name in ("best", "last"):
        assert all(torch.equal(value, saved(run, name)[key]) for key, value in saved(expected, name).items())


def test_a_loss_that_is_no_number_ends_it(data: Path, tmp_path: Path) -> None:
    training = Training(settings(data), data, tmp_path / "runs", [0.5] * 10, slope=math.inf)
    with pytest.raises(FashionrecError, match="the loss became nan in epoch 1"):
        training.run()


def test_devices() -> None:
    from fashionrec.detector.training.families.loop import placed

    assert str(placed("cpu")) == "cpu"
    assert placed(None) == placed("")
    for device, said in (
        (99, "device=99 is not available"),
        ([0, 1], "a single device"),
        ("0,1", "a single device"),
        ("x", "device=x is not available"),
    ):
        with pytest.raises(ConfigError, match=said):
            placed(device)
