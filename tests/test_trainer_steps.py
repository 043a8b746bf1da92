"""Test what a run's trainer adds where a training begins and ends, on a trainer of ultralytics that
trains nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_training_parts import METRICS, metrics

from fashionrec.errors import FashionrecError

pytest.importorskip("ultralytics")
pytestmark = pytest.mark.train


class Loader:
    closed = False

    def close(self) -> None:
        self.closed = True


class Library:
    """Stands in for a trainer of ultralytics: what reaches it is written down."""

    def __init__(self, folder: Path, plots: bool = True) -> None:
        from ultralytics.utils import SETTINGS

        from fashionrec.detector.training.loggers import SWITCHES

        self.services = [name for name in SWITCHES if SETTINGS[name]]
        self.calls: list[Any] = []
        self.args = SimpleNamespace(seed=5, deterministic=False, plots=plots)
        self.wdir, self.save_dir = folder / "weights", folder
        self.last, self.best = folder / "weights" / "last.pt", folder / "weights" / "best.pt"
        self.validator = SimpleNamespace(metrics=metrics([(0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)], [0, 3]))
        self.world_size, self.train_loader, self.test_loader = 1, Loader(), Loader()

    def go(self) -> None:
        """Return what ultralytics' ``train`` ends in."""
        self._do_train()

    def set_up(self) -> None:
        self._setup_train()

    def _do_train(self) -> None:
        self.calls.append("train")

    def _setup_ddp(self) -> None:
        self.calls.append("processes")

    def _setup_train(self) -> None:
        from ultralytics.engine import trainer as engine

        self.calls.append(engine.check_amp.__name__)

    def build_dataset(self, *given: Any) -> Any:
        self.calls.append(given)

    def get_dataloader(self, *given: Any, **named: Any) -> None:
        self.calls.append((*given, named))

    def final_eval(self) -> None:
        self.calls.append("ending" if self.ending else "final")

    def plot_metrics(self) -> None:
        self.calls.append("plots")

    def run_callbacks(self, name: str) -> None:
        self.calls.append(name)


def made(folder: Path, base: type[Library] = Library, plots: bool = True, **plan: Any) -> Any:
    from fashionrec.detector.training.trainer import Plan, trainer_class

    yolo = SimpleNamespace(task="detect", task_map={"detect": {"trainer": base}})
    return trainer_class(yolo, Plan("l", **plan))(folder, plots=plots)


def rank(monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    if number is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", str(number))


@pytest.mark.parametrize(
    ("number", "done", "seeds"), [(None, 0, []), (None, 3, [8]), (0, 3, [9]), (2, 4, [12])]
)  # fmt: skip
def test_what_goes_on_is_not_as_random_as_its_first_epochs(
    number: int | None, done: int, seeds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.utils import torch_utils

    from fashionrec.detector.training.trainer import WholePath

    found: list[tuple[int, bool]] = []
    monkeypatch.setattr(torch_utils, "init_seeds", lambda seed, deterministic=True: found.append((seed, deterministic)))
    rank(monkeypatch, number)
    one = made(tmp_path, done=done, loggers=("mlflow",))
    assert found == [(seed, False) for seed in seeds]
    assert (one.services, one.ending) == (["mlflow"], False)
    for path, name in ((one.wdir, "weights"), (one.last, "weights/last.pt"), (one.best, "weights/best.pt")):
        assert (type(path), Path(path)) == (WholePath, tmp_path / name)


def test_photos_are_asked_for_as_ultralytics_does(tmp_path: Path) -> None:
    one = made(tmp_path)
    one.build_dataset("images")
    one.get_dataloader("images")
    assert one.calls == [("images", "train", None), ("images", {"batch_size": 16, "rank": 0, "mode": "train"})]


@pytest.mark.parametrize(("number", "told"), [(None, False), (0, True), (1, False)])
def test_at_the_end_checkpoints_are_stripped_whole_and_one_process_hands_over_the_metrics(
    number: int | None, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.engine import trainer as engine
    from ultralytics.utils import torch_utils

    from fashionrec.detector.training.trainer import METRICS as FILE

    weights = tmp_path / "weights"
    asked: list[Any] = []

    def strip(file: Any, target: str, updates: Any) -> str:
        asked.append((Path(file).name, updates))
        assert Path(target).parent == weights
        assert (weights / "best.pt").read_bytes() == b"trained"  # until the new one is whole
        if Path(file).name == "last.pt":
            return "nothing to strip"
        Path(target).write_bytes(b"stripped")
        return "stripped"

    class Ends(Library):
        def final_eval(self) -> None:
            super().final_eval()
            copy = str(weights / "copy.pt")
            for given in ((self.last,), (self.best, copy, {"a": 1}), (self.best,)):
                self.calls.append(vars(engine)["strip_optimizer"](*given))

    monkeypatch.setattr(torch_utils, "strip_optimizer", strip)
    before = vars(engine)["strip_optimizer"]
    rank(monkeypatch, number)
    one = made(tmp_path, Ends)
    weights.mkdir()
    for name in ("best.pt", "last.pt"):
        (weights / name).write_bytes(b"trained")
    one.final_eval()
    assert one.calls == ["ending", "nothing to strip", "stripped", "stripped"]
    assert asked == [("last.pt", None), ("best.pt", {"a": 1}), ("best.pt", None)]
    contents = {path.name: path.read_bytes() for path in weights.iterdir()}
    assert contents == {"last.pt": b"trained", "copy.pt": b"stripped", "best.pt": b"stripped"}
    assert vars(engine)["strip_optimizer"] is before
    assert (tmp_path / FILE).exists() is told
    if told:
        assert json.loads((tmp_path / FILE).read_text()) == METRICS


@pytest.mark.parametrize(
    ("world", "number", "plots", "expected"),
    [
        (1, None, True, ["check_amp_offline", "ending", "plots", "on_train_end"]),
        (1, None, False, ["check_amp_offline", "ending", "on_train_end"]),
        (2, 0, True, ["processes", "check_amp_offline", "ending", "plots", "on_train_end"]),
        (2, 1, True, ["processes", "check_amp_offline", "ending"]),
    ],
)
def test_a_training_of_which_only_the_end_is_missing(
    world: int, number: int | None, plots: bool, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.engine import trainer as engine

    before = vars(engine)["check_amp"]
    rank(monkeypatch, number)
    one = made(tmp_path, plots=plots, done=7, finish=True)
    one.world_size = world
    one.go()
    assert one.calls == expected
    assert vars(engine)["check_amp"] is before
    assert (one.epoch, one.train_loader.closed, one.test_loader.closed) == (6, True, True)
    assert one.train_time_start > 0
    whole = made(tmp_path)
    whole.go()
    assert (whole.calls, whole.train_loader.closed) == (["train"], False)


def test_a_service_that_did_not_begin_ends_the_training_in_the_process_that_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (None, 0):
        rank(monkeypatch, number)
        with pytest.raises(FashionrecError, match="cannot write to mlflow"):
            made(tmp_path, loggers=("mlflow",)).set_up()
    rank(monkeypatch, 1)
    one = made(tmp_path, loggers=("mlflow",))
    one.set_up()
    assert one.calls == ["check_amp_offline"]
