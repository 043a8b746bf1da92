"""The parts of a detector's training one by one, on values made by hand: nothing is trained."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from fashionrec.config import load_config
from fashionrec.dataset.prepare.prepare import write_data_yaml
from fashionrec.errors import ConfigError, FashionrecError, MissingExtra, ModelError
from fashionrec.labels.data_yaml import read_data_yaml
from fashionrec.models.runs import Run, read_run, start_run

torch = pytest.importorskip("torch")
pytest.importorskip("ultralytics")
pytestmark = pytest.mark.train


# --- whether a checkpoint is whole


def test_what_a_file_is_that_is_no_checkpoint(tmp_path: Path) -> None:
    from fashionrec.detector.training.whole import TORN, check_file, what_it_is

    path = tmp_path / "best.pt"
    with pytest.raises(ModelError) as caught:
        check_file(path)
    assert str(caught.value) == f"no such checkpoint: {path}"
    assert what_it_is(path) == "unreadable (No such file or directory)"
    page = "it is a web page, such as a server's error page"
    pointer = "it is a Git LFS pointer; download the weights with `git lfs pull`"
    for content, expected in (
        (b"", "the file is empty"),
        (bytes(600), "the file is filled with zeros"),
        (b"version https://git-lfs.github.com/spec/v1\n", pointer),
        (b" version https://git-lfs.github.com/spec/v1\n", ""),
        (b"\xef\xbb\xbf\r\n\t <!DOCTYPE html>", page),
        (b"<HTML>", page),
        (b"<?xml version='1.0'?>", page),
        (b"a <html>", ""),
        (bytes(511) + b"x", ""),
        (bytes(512) + b"x", "the file is filled with zeros"),
        (b"PK", ""),
    ):
        path.write_bytes(content)
        assert what_it_is(path) == expected, content
        if not expected:
            check_file(path)
            continue
        with pytest.raises(ModelError) as caught:
            check_file(path)
        assert str(caught.value) == f"{path} is not a checkpoint: {expected}"
    assert TORN == ("the file is empty", "the file is filled with zeros")


def test_tensors_that_are_missing_too_many_or_of_another_shape_are_named() -> None:
    from fashionrec.detector.training.whole import check_tensors

    def faults(expected: dict[str, tuple[int, ...]], found: dict[str, Any], *harmless: str) -> str:
        with pytest.raises(ModelError) as caught:
            check_tensors(Path("a.pt"), expected, found, lambda name: name in harmless)
        assert caught.value.hint == "download the file again, or use another checkpoint of that run"
        start = "a.pt is incomplete: "
        assert str(caught.value).startswith(start)
        return str(caught.value).removeprefix(start)

    one, pair = torch.zeros(()), torch.zeros(2, 3)
    check_tensors(Path("a.pt"), {"a": (2, 3), "b": ()}, {"a": pair, "b": one})
    assert faults({"a": (2, 3)}, {}) == "1 tensor is missing: a"
    assert faults(dict.fromkeys("abc", ()), {}) == "3 tensors are missing: a, b, c"
    assert faults(dict.fromkeys("abcd", ()), {}) == "4 tensors are missing: a, b, c and 1 more"
    assert faults(dict.fromkeys("abcd", ()), {}, "b", "c") == "2 tensors are missing: a, d"
    assert faults({}, dict.fromkeys("yxz", one), "z") == "2 tensors are unknown: y, x"
    assert faults({"a": (3, 2), "b": (1,)}, {"a": pair, "b": one}, "a") == (
        "2 tensors are of the wrong shape: a (2x3 instead of 3x2), b (scalar instead of 1)"
    )
    infinite = {"a": torch.tensor([0.0, float("inf")]), "b": torch.tensor(float("nan")), "n": torch.tensor(3)}
    assert faults({"a": (2,), "b": (), "n": ()}, infinite) == "2 tensors are not finite (NaN or infinite): a, b"
    assert faults({"a": (2,), "b": (), "m": ()}, infinite) == "1 tensor is missing: m; 1 tensor is unknown: n"
    with pytest.raises(ModelError, match="1 tensor is unknown"):
        check_tensors(Path("a.pt"), {}, {"a": one})  # nothing is harmless by itself


# --- balance, speed and metrics


class Loader:
    """Record of what ultralytics' loader is made with."""

    def __init__(self, **named: Any) -> None:
        self.named, self.closed = named, False
        vars(self).update(named)

    def close(self) -> None:
        self.closed = True


def loader() -> Loader:
    names = "batch_size num_workers prefetch_factor pin_memory collate_fn worker_init_fn generator drop_last"
    labels = [{"cls": np.array([[kind]], float)} for kind in (0, 0, 0, 2)]
    return Loader(dataset=SimpleNamespace(labels=labels), **{name: object() for name in names.split()})


def test_a_balanced_loader_is_like_the_one_it_replaces() -> None:
    from fashionrec.detector.training.balance import BalancedSampler, balanced

    before = loader()
    after = balanced(before, 3, seed=5, rank=1, devices=2)
    sampler = after.named.pop("sampler")
    assert (type(after), before.closed, after.closed) == (Loader, True, False)
    assert after.named == before.named
    assert (type(sampler), sampler.seed, sampler.rank, sampler.devices) == (BalancedSampler, 5, 1, 2)
    assert sampler.weights.tolist() == pytest.approx([1 / 6] * 3 + [1 / 2])
    assert [len(BalancedSampler(np.full(n, 1 / n), 0, 0, 3)) for n in (6, 7)] == [2, 3]


class Slow:
    """A detector that takes its time by a clock of its own."""

    def __init__(self, now: list[float], *seconds: float) -> None:
        self.now, self.seconds, self.asked = now, seconds, 0

    def predict(self, photos: list[Any]) -> None:
        assert len(photos) == 1
        self.now[0] += self.seconds[self.asked % len(self.seconds)]
        self.asked += 1


def test_speed_is_the_median_of_calls_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    from fashionrec.detector.training.agreement import speed

    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    first, second = Slow(now, 9.0, 0.03, 0.06, 0.04), Slow(now, 9.0, 0.01, 0.03, 0.01)
    figures = speed(first, second, Image.new("RGB", (2, 2)), seconds=0.0)  # type: ignore[arg-type]
    assert figures == {"fp32_ms": pytest.approx(40), "ms": pytest.approx(10), "ratio": pytest.approx(3)}
    assert (first.asked, second.asked) == (4, 4)
    for seconds, calls in ((0.35, 4), (0.45, 5), (1e9, 20)):
        one, other = Slow(now, 0.06), Slow(now, 0.04)
        speed(one, other, Image.new("RGB", (2, 2)), seconds=seconds)  # type: ignore[arg-type]
        assert (one.asked, other.asked) == (calls + 1, calls + 1)


def metrics(values: list[tuple[float, float, float, float]], numbers: list[int]) -> Any:
    box = SimpleNamespace(ap_class_index=numbers, class_result=values.__getitem__, map50=0.1, map=0.2, mp=0.3, mr=0.4)
    return SimpleNamespace(box=box, names={0: "dress", 3: "top", 5: "hat"})


PER_CLASS = {
    "dress": {"map50": 0.3, "map50_95": 0.4, "precision": 0.1, "recall": 0.2},
    "top": {"map50": 0.7, "map50_95": 0.8, "precision": 0.5, "recall": 0.6},
}
METRICS = {"map50": 0.1, "map50_95": 0.2, "precision": 0.3, "recall": 0.4, "per_class": PER_CLASS, "split": "valid"}


def test_the_metrics_of_a_run_are_ultralytics_by_name() -> None:
    from fashionrec.detector.training.trainer import metrics_of

    assert metrics_of(metrics([(0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)], [0, 3])) == METRICS


# --- the trainer


class Base:
    """Stands in for a trainer of ultralytics: what reaches it is written down."""

    def __init__(self) -> None:
        raise AssertionError

    def note(self, name: str, *given: Any, **named: Any) -> Any:
        self.calls.append((name, *given, named) if named else (name, *given))
        return self.answers.get(name)

    def train(self) -> None:
        self.note("train")

    def check_resume(self, overrides: dict[str, Any]) -> None:
        self.note("check_resume", overrides)

    def build_dataset(self, *given: Any) -> Any:
        return self.note("build_dataset", *given)

    def get_dataloader(self, *given: Any, **named: Any) -> Any:
        return self.note("get_dataloader", *given, **named)

    def resume_training(self, ckpt: Any) -> None:
        self.start_epoch = 2
        self.note("resume_training", ckpt)

    def save_model(self) -> Any:
        return self.note("save_model")


def trainer(plan: dict[str, Any], answers: dict[str, Any] | None = None, **values: Any) -> Any:
    from fashionrec.detector.training.trainer import Plan, trainer_class

    yolo = SimpleNamespace(task="detect", task_map={"detect": {"trainer": Base}, "pose": {"trainer": object}})
    kind = trainer_class(yolo, Plan(**{"log": "l", **plan}))
    assert kind.__name__ == "RunBase"
    made = kind.__new__(kind)
    vars(made).update(calls=[], answers=answers or {}, **values)
    return made


def test_the_loss_of_rt_detr_is_not_balanced() -> None:
    from fashionrec.detector.training.trainer import Plan, trainer_class

    kind = type("RTDETRTrainer", (), {})
    yolo = SimpleNamespace(task="detect", task_map={"detect": {"trainer": kind}})
    for balance in ("none", "sample"):
        assert issubclass(trainer_class(yolo, Plan("", balance)), kind)
    with pytest.raises(ModelError) as caught:
        trainer_class(yolo, Plan("", "loss"))
    assert str(caught.value) == "RT-DETR's loss has no class weights"
    assert caught.value.hint == "train.balance=sample draws rare classes more often"
    assert trainer({"balance": "loss"}).plan.balance == "loss"


def test_photos_are_balanced_in_training_alone() -> None:
    values = {"data": {"nc": 3}, "args": SimpleNamespace(seed=7), "world_size": 0}

    def made(mode: str, balance: str, rank: int, **other: Any) -> tuple[Any, Any]:
        before = loader()
        one = trainer({"balance": balance}, {"get_dataloader": before}, **(values | other))
        after = one.get_dataloader("p", batch_size=4, rank=rank, mode=mode)
        assert one.calls == [("get_dataloader", "p", {"batch_size": 4, "rank": rank, "mode": mode})]
        return before, after

    for mode, balance in (("val", "sample"), ("train", "none"), ("train", "loss")):
        before, after = made(mode, balance, -1)
        assert after is before
    for rank, world, expected in ((-1, 0, (0, 1)), (1, 2, (1, 2))):
        before, after = made("train", "sample", rank, world_size=world)
        assert after is not before
        assert (after.sampler.rank, after.sampler.devices, after.sampler.seed) == (*expected, 7)
        assert len(after.sampler.weights) == 4


def test_a_training_goes_on_or_only_ends() -> None:
    class Sampler:
        epoch = -1

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    ended = trainer({"finish": True, "balance": "sample"}, epochs=9, train_loader=None)
    ended.resume_training({})
    assert (ended.start_epoch, ended.calls) == (9, [])
    for balance, epoch in (("sample", 2), ("none", -1)):
        sampler = Sampler()
        goes_on = trainer({"balance": balance}, epochs=9, train_loader=SimpleNamespace(sampler=sampler))
        goes_on.resume_training({"a": 1})
        assert (goes_on.start_epoch, goes_on.calls) == (2, [("resume_training", {"a": 1})])
        assert sampler.epoch == epoch


def test_of_a_checkpoint_only_what_is_learnt_by_is_taken() -> None:
    from ultralytics.utils import DEFAULT_CFG_DICT

    theirs = {"model": "evil", "data": "theirs.yaml", "task": "pose", "mode": "val", "project": "p", "plots": "x"}
    theirs |= {"pretrained": "evil.pt", "distill_model": "evil.pt", "degrees": 5.0, "resume": "last.pt", "odd": 1}
    fresh = trainer({}, args=SimpleNamespace(**theirs), resume=False)
    fresh.check_resume({"data": "ours"})
    assert fresh.calls == [("check_resume", {"data": "ours"})]
    assert vars(fresh.args) == theirs
    resumed = trainer({}, args=SimpleNamespace(**theirs), resume=True)
    resumed.check_resume({"data": "ours", "pretrained": False})
    kept = ("degrees", "plots", "model", "resume", "task", "mode")
    assert vars(resumed.args) == {
        **{name: theirs[name] for name in kept},
        **{name: DEFAULT_CFG_DICT[name] for name in ("project", "distill_model")},
        "data": "ours",
        "pretrained": False,
        "odd": None,
    }


def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    from fashionrec.detector.training.trainer import PREVIOUS

    one = trainer({}, {"save_model": "saved"}, last=tmp_path / "last.pt")
    assert one.save_model() == "saved"
    assert list(tmp_path.iterdir()) == []
    for content in (b"first", b"second"):  # written anew, as save_model does
        (tmp_path / "last.pt").unlink(missing_ok=True)
        (tmp_path / "last.pt").write_bytes(content)
        one.save_model()
    assert (tmp_path / PREVIOUS).read_bytes() == b"second"
    assert len(one.calls) == 3


def test_pixels_are_cached_in_the_runs_folder_while_a_data_set_is_made(tmp_path: Path) -> None:
    from fashionrec.detector.training.ultra import load_ultralytics

    load_ultralytics()
    from ultralytics.data.base import BaseDataset

    class Holder(Base):
        def build_dataset(self, *given: Any) -> Any:
            dataset = BaseDataset.__new__(BaseDataset)
            dataset.npy_files = ["a/x.npy", "b/x.npy"]
            return dataset.npy_files, given

    from fashionrec.detector.training.trainer import Plan, trainer_class

    yolo = SimpleNamespace(task="detect", task_map={"detect": {"trainer": Holder}})
    for pixels, parent in ((str(tmp_path), tmp_path), (None, Path(os.devnull))):
        kind = trainer_class(yolo, Plan("l", pixels=pixels))
        files, given = kind.__new__(kind).build_dataset("images", "val", 3)
        assert given == ("images", "val", 3)
        assert [file.parent for file in files] == [parent] * 2
        assert len({file.name for file in files}) == 2
        assert {len(file.name) for file in files} == {64 + len(".npy")}


# --- several GPUs


def launched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, ddp: bool = True
) -> tuple[Any, list[Any], Path]:
    from ultralytics.utils import dist, torch_utils

    left: list[Any] = []
    seen: list[Any] = []

    def command(trainer: Any) -> tuple[list[str], Path]:
        seen.append((trainer.resume, trainer.args.rect))
        return [sys.executable, "-c", code], tmp_path / "ddp.py"

    monkeypatch.setattr(dist, "generate_ddp_command", command)
    monkeypatch.setattr(dist, "ddp_cleanup", lambda *given: left.append(given))
    monkeypatch.setattr(torch_utils, "unset_deterministic", lambda: left.append("unset"))
    run = start_run(tmp_path / "runs" / "train", "g", kind="detector", verb="train")
    log = tmp_path / "train.log"
    log.write_text("before\n")
    args = SimpleNamespace(device="0,1", rect=True)
    one = trainer({"log": str(log)}, ddp=ddp, resume="was", save_dir=str(run.path), args=args)
    try:
        one.train()
    finally:
        assert seen == [(True, False)] * ddp
        assert one.resume == "was"
    return one, left, log


def test_what_processes_of_several_gpus_are_started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN", "kept")
    code = "import os, json, sys; names = ('PYTHONSAFEPATH', 'YOLO_OFFLINE', 'OWN')\n"
    code += "print(json.dumps([os.environ.get(name) for name in names])); print('odd', file=sys.stderr)"
    one, left, log = launched(tmp_path, monkeypatch, code)
    assert left == ["unset", (one, str(tmp_path / "ddp.py"))]
    before, *lines = log.read_text().splitlines()
    assert before == "before"
    assert sorted(lines) == sorted([json.dumps(["1", "true", "kept"]), "odd"])
    assert one.calls == []
    (tmp_path / "alone").mkdir()
    assert launched(tmp_path / "alone", monkeypatch, "", ddp=False)[0].calls == [("train",)]


def test_processes_that_fail_are_cleared_away_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FashionrecError) as caught:
        launched(tmp_path, monkeypatch, "import sys; sys.exit(7)")
    assert str(caught.value) == "training on device=0,1 ended with exit code 7"


@pytest.mark.parametrize(("gpus", "words"), [(0, "no GPUs"), (1, "1 GPU"), (2, "2 GPUs")])
def test_how_many_gpus_torch_sees(gpus: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import cuda
    from ultralytics.utils import torch_utils

    from fashionrec.detector.training.gpus import check_device

    def refuse(device: str, verbose: bool) -> None:
        assert (device, verbose) == ("5", False)
        raise ValueError

    monkeypatch.setattr(torch_utils, "select_device", refuse)
    monkeypatch.setattr(cuda, "device_count", lambda: gpus)
    with pytest.raises(ConfigError) as caught:
        check_device(5)
    assert str(caught.value) == f"no such device=5: torch sees {words}"
    assert caught.value.hint == "device=cpu, or omit it"


def test_several_gpus_need_a_package_and_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.utils import torch_utils

    from fashionrec.detector.training.gpus import check_device

    monkeypatch.setattr(torch_utils, "select_device", lambda device, verbose: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cloudpickle" else object())
    assert check_device("0") == 1
    with pytest.raises(MissingExtra) as caught:
        check_device("0,1")
    assert str(caught.value) == "training on several GPUs needs cloudpickle"
    assert caught.value.hint == "pip install cloudpickle"


# --- services


class Flow(ModuleType):
    """MLflow, as far as it is asked here."""

    def __init__(self, known: set[str]) -> None:
        super().__init__("mlflow")
        self.known, self.uri, self.made = known, "", list[tuple[str, str]]()

    def set_tracking_uri(self, uri: str) -> None:
        self.uri = uri

    def get_experiment_by_name(self, name: str) -> object | None:
        return object() if name in self.known else None

    def create_experiment(self, name: str, artifact_location: str) -> None:
        self.made.append((name, artifact_location))


@pytest.mark.parametrize("named", [None, "mine"])
def test_mlflow_writes_beside_the_runs(named: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fashionrec.detector.training.loggers import places

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    if named:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", named)
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    for known in (set[str](), {named or "fashionrec"}):
        flow = Flow(known)
        monkeypatch.setitem(sys.modules, "mlflow", flow)
        with places(["mlflow"], Path("runs")):
            assert os.environ["MLFLOW_TRACKING_URI"] == flow.uri == uri
            assert os.environ["MLFLOW_EXPERIMENT_NAME"] == (named or "fashionrec")
        expected = [] if known else [(named or "fashionrec", (tmp_path / "runs" / "mlflow").as_uri())]
        assert flow.made == expected
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert os.environ.get("MLFLOW_EXPERIMENT_NAME") == named
    with places([], tmp_path):
        assert "MLFLOW_TRACKING_URI" not in os.environ


# --- one training, by a library that trains nothing


class Library:
    """A model of ultralytics whose training calls back twice and writes what it is told to."""

    task = "detect"
    task_map: dict[str, Any] = {"detect": {"trainer": Base}}  # noqa: RUF012

    def __init__(self, epochs: list[Any], fault: BaseException | None = None) -> None:
        self.epochs, self.fault = epochs, fault
        self.callbacks: dict[str, Callable[[Any], None]] = {}
        self.given: dict[str, Any] = {}
        self.listed: dict[str, Any] = {}
        validator = SimpleNamespace(metrics=metrics([(0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)], [0, 3]))
        self.trainer = SimpleNamespace(device="cpu", args=SimpleNamespace(device="0,1"), validator=validator)

    def add_callback(self, name: str, function: Callable[[Any], None]) -> None:
        self.callbacks[name] = function

    def train(self, **given: Any) -> None:
        self.given = given
        self.listed = yaml.safe_load(Path(given["data"]).read_text())
        self.photos = {key: Path(self.listed[key]).read_text().splitlines() for key in ("train", "val")}
        folder = Path(given["save_dir"])
        sys.stdout.write("chatter of the library")
        (folder / "weights" / "best.pt").write_bytes(b"x")
        (folder / "weights" / "previous.pt").write_bytes(b"x")
        (folder / ".metrics.json").write_text(json.dumps({"map50": 0.75}))
        for epoch in self.epochs:
            for function in self.callbacks.values():
                function(epoch)
        if not self.callbacks:
            (folder / "results.csv").write_text("epoch,time\n1,2\n2,3\n")
        if self.fault:
            raise self.fault


def epoch(number: int, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "ending": False,
        "epoch": number,
        "epochs": 3,
        "args": SimpleNamespace(val=True),
        "metrics": {"metrics/mAP50(B)": 0.5, "metrics/mAP50-95(B)": 0.25, "more": 9},
        "tloss": torch.tensor([1.0, 2.0, 4.0]),
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.fixture
def data(tmp_path: Path) -> Any:
    for split in ("train", "valid"):
        (tmp_path / "d" / split / "images").mkdir(parents=True)
        (tmp_path / "d" / split / "labels").mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / "d" / split / "images" / "a.png")
        (tmp_path / "d" / split / "labels" / "a.txt").write_text("0 .5 .5 .5 .5\n")
    write_data_yaml(tmp_path / "d", ["train", "valid"])
    return read_data_yaml(tmp_path / "d" / "data.yaml")


def fitted(library: Library, data: Any, runs: Path, told: list[Any], **options: Any) -> Run:
    from fashionrec.detector.training.train import fit

    run = start_run(runs / "train", "r", kind="detector", verb="train", exist_ok=True)
    run.seconds = 100.0
    options = {"devices": lambda device: {"cpu": 1}.get(device, 2), **options}
    settings = options.pop("settings", {"epochs": 3, "device": "cpu", "lr0": 0.5})
    return fit(library, run, data, settings, lambda *given: told.append(given), **options)


def test_a_training_is_recorded_as_it_goes(
    data: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]

    def clock() -> float:
        now[0] += 1
        return now[0]

    monkeypatch.setattr(time, "perf_counter", clock)
    epochs = [
        epoch(0),
        epoch(1, args=SimpleNamespace(val=False), tloss={"a": torch.tensor(3.0), "b": 5.0}),
        epoch(2, args=SimpleNamespace(val=False), metrics={"metrics/mAP50(B)": 0.75}, tloss=None),
        epoch(2, ending=True),
    ]
    library, told = Library(epochs), list[Any]()
    extra = {"train": [tmp_path / "d" / "valid" / "images" / "a.png"]}
    run = fitted(library, data, tmp_path / "runs", told, extra=extra, balance="sample")
    assert told == [
        (1, 3, {"map50": 0.5, "map50_95": 0.25, "loss": 7.0}),
        (2, 3, {"loss": 8.0}),
        (3, 3, {"map50": 0.75}),
    ]
    assert list(library.callbacks) == ["on_fit_epoch_end"]
    kind = library.given.pop("trainer")
    plan = kind.plan
    assert (plan.log, plan.balance, plan.loggers, plan.done, plan.finish, plan.pixels) == (
        *(str(run.path / "train.log"), "sample", (), 0, False),
        None,
    )
    assert not Path(library.given.pop("data")).exists()  # a file of ours, gone when it ends
    assert library.given == {
        **{"epochs": 3, "device": "cpu", "lr0": 0.5, "project": "fashionrec", "name": "r"},
        "save_dir": str(run.path.resolve()),
    }
    images = [str(tmp_path / "d" / split / "images" / "a.png") for split in ("train", "valid")]
    assert library.photos == {"train": images, "val": images[1:]}
    assert run.metrics == METRICS
    assert (run.status, run.promoted, run.device, run.epochs) == ("done", True, "cpu", 3)
    assert run.weights == {"best": "weights/best.pt"}
    assert run.seconds == 104.0  # what it had, three epochs and the end
    assert read_run(run.path) == run
    assert [path.name for path in (run.path / "weights").iterdir()] == ["best.pt"]
    assert not (run.path / ".metrics.json").exists()
    assert "chatter of the library" in (run.path / "train.log").read_text()
    assert "chatter" not in "".join(capfd.readouterr())


def test_a_training_in_other_processes_is_watched(data: Any, tmp_path: Path) -> None:
    from fashionrec.detector.training.resume import Point

    library, told = Library([]), list[Any]()
    settings = {"epochs": 3, "device": "0,1", "cache": "disk"}
    options = {"loggers": ["wandb"], "point": Point(2, True), "settings": settings}
    run = fitted(library, data, tmp_path / "runs", told, **options)
    assert told == [(2, 3, {})]
    assert library.callbacks == {}
    plan = library.given["trainer"].plan
    assert (plan.loggers, plan.done, plan.finish) == (("wandb",), 2, True)
    assert Path(plan.pixels).parent == run.path
    assert Path(plan.pixels).name.startswith(".pixels-")
    assert not Path(plan.pixels).exists()
    assert library.given["resume"] == str(run.path / "weights" / "last.pt")
    assert (run.device, run.metrics, run.epochs) == ("0,1", {"map50": 0.75}, 2)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (RuntimeError("one\n two" + "x" * 300), "training failed: one two" + "x" * 193),
        (RuntimeError(), "training failed: RuntimeError"),
        (FashionrecError("as it is"), "as it is"),
    ],
)
def test_a_training_that_fails_is_recorded(fault: Exception, words: str, data: Any, tmp_path: Path) -> None:
    library = Library([epoch(0)], fault)
    with pytest.raises(FashionrecError) as caught:
        fitted(library, data, tmp_path / "runs", [])
    assert str(caught.value) == words
    folder = tmp_path / "runs" / "train" / "r"
    log = f"details: {folder / 'train.log'}"
    assert caught.value.hint == ("" if isinstance(fault, FashionrecError) else log)
    run = read_run(folder)
    assert (run.status, run.promoted, run.epochs) == ("failed", False, 1)
    assert 100 < run.seconds < 400
    for kind in (KeyboardInterrupt,):
        with pytest.raises(kind):
            fitted(Library([], kind()), data, tmp_path / "runs", [])
        assert read_run(folder).status == "failed"


def test_families_without_a_trainer_need_to_be_told_how_to_judge(tmp_path: Path) -> None:
    from fashionrec.detector.training.train import train_detector

    pytest.importorskip("torchvision")
    config = load_config(sets=["train.model=fasterrcnn_resnet50_fpn"], env={}).config
    for given in ({}, {"limits": config.images}, {"evaluate": lambda *_: {}}):
        with pytest.raises(TypeError, match="needs limits and evaluate"):
            train_detector(config.train, tmp_path, **given)  # type: ignore[arg-type]
