"""A comparison of detectors step by step: what is trained, taken and taken again, what is measured,
and what is said.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, two_halves

from fashionrec.config import Resolved, TrainConfig, load_config
from fashionrec.dataset.prepare.prepare import write_data_yaml
from fashionrec.errors import ConfigError, FashionrecError
from fashionrec.evaluation.detection.compare import Comparison, report_folder
from fashionrec.evaluation.detection.complexity import complexity
from fashionrec.evaluation.detection.speed import memory
from fashionrec.labels.data_yaml import dataset_fingerprint
from fashionrec.models.bundle import Bundle
from fashionrec.models.choice import ModelChoice
from fashionrec.models.runs import Run, read_run, start_run

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")

CLASSES = ["dress", "pants", "skirt&pants", "skirt", "top"]
FIGURES = {
    "map50_95": 0.5,
    "map50": 0.75,
    "precision": 0.25,
    "recall": 0.125,
    "f1": 0.2,
    "per_class": {"top": {"ap": 1}},
}
ENOUGH = "enough was seen"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "valid", "test"):
        (tmp_path / "d" / split / "labels").mkdir(parents=True)
        for n in range(3 if split == "test" else 1):
            two_halves(tmp_path / "d" / split / "images" / f"{n}.png", "red", "blue", (64 + n, 64))
            (tmp_path / "d" / split / "labels" / f"{n}.txt").write_text("4 0.25 0.5 0.5 1\n")
    write_data_yaml(tmp_path / "d", ["train", "valid", "test"])
    return tmp_path / "d" / "data.yaml"


@dataclass
class Bench:
    """A comparison whose trainings are only recorded, and whose evaluation says what it
    is told to.
    """

    data: Path
    sets: tuple[str, ...] = ()
    fault: Exception | None = None
    trained: list[TrainConfig] = field(default_factory=list)
    exported: list[tuple[Path, Path]] = field(default_factory=list)
    asked: list[tuple[str, Path, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def resolved(self, models: tuple[object, ...]) -> Resolved:
        own = {"models": json.dumps([str(model) for model in models]), "data": self.data.parent, "seconds": 0.001}
        own |= {"batches": "[1,2]", "epochs": 3, "imgsz": 96, "batch": 5, "device": "cpu", "workers": 0, "seed": 7}
        words = [f"compare.{key}={value}" for key, value in own.items()]
        return load_config(sets=[*words, "project.threads=3", "project.device=cpu", *self.sets], env={})

    def train(self, config: TrainConfig) -> Run:
        self.trained.append(config)
        run = start_run(Path("runs/train"), config.name, kind="detector", verb="train", exist_ok=config.exist_ok)
        shutil.copytree(TINY / "detector", run.path / "weights" / "best.bundle", dirs_exist_ok=True)
        run.weights = {"best": "weights/best.bundle"}
        run.config = {"train": config.model_dump() | {"resume": False, "exist_ok": False}}
        run.dataset = {"fingerprint": dataset_fingerprint(self.data)}
        run.status, run.promoted, run.epochs, run.seconds = "done", True, 3, 12.5
        run.save()
        return run

    def evaluate(self, bundle: str, data: Path, split: str) -> Mapping[str, Any]:
        self.asked.append((bundle, data, split))
        if self.fault:
            raise self.fault
        return FIGURES | {"more": 1}

    def export(self, weights: Path, target: Path) -> Bundle:
        self.exported.append((weights, target))
        return Bundle.open(TINY / "detector")

    def run(self, *models: object, folder: Path = Path("report")) -> dict[str, Any]:
        self.said, self.warned, self.trained, self.asked = [], [], [], []

        def no_encoder(source: str, target: Path) -> Bundle:
            raise AssertionError

        choice = ModelChoice(self.resolved(models), self.export, no_encoder, self.said.append, self.warned.append)
        return Comparison(choice, self.train, self.evaluate).run(folder)


def stopped(data: Path, *sets: str) -> Bench:
    """A bench that measures no model: which was trained and what was said is all."""
    return Bench(data, sets, FashionrecError(ENOUGH))


def answering(out: str, code: int, commands: list[list[str]], err: str = "") -> Callable[..., Any]:
    def run(command: list[str], **named: Any) -> Any:
        assert named == {"capture_output": True, "text": True, "check": False}
        commands.append(command)
        return subprocess.CompletedProcess(command, code, out, err)

    return run


def test_all_that_is_measured_of_one_model(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", answering("noise\n123456\n", 0, commands))
    bench = Bench(data)
    document = bench.run(TINY / "detector", folder=Path("new/report"))
    bundle = Bundle.open(TINY / "detector")
    (row,) = document["models"]
    fps = row.pop("fps")
    assert {kind: list(rates) for kind, rates in fps.items()} in (
        {"end_to_end": sizes, "network": others} for sizes in (["1"], ["1", "2"]) for others in (["1"], ["1", "2"])
    )
    assert row == {
        "model": str(TINY / "detector"),
        "how": "taken",
        "run": None,
        "epochs": None,
        "train_seconds": None,
        "bundle": str(bundle.path),
        "bundle_fingerprint": bundle.fingerprint,
        "imgsz": 64,
        **FIGURES,
        "parameters": 20,
        "gflops": 4e-8,
        "file_bytes": (bundle.path / "detect.onnx").stat().st_size,
        "memory_bytes": 123456,
    }
    assert bench.asked == [(str(bundle.path), data, "test")]
    assert bench.said == [f"model 1 of 1: {TINY / 'detector'}", "measuring speed and memory"]
    del document["models"]
    assert document == {
        "data": str(data),
        "fingerprint": dataset_fingerprint(data),
        "split": "test",
        "photos": 3,
        "machine": {
            "provider": "CPUExecutionProvider",
            "onnxruntime": onnxruntime.__version__,
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "settings": {
            "epochs": 3,
            "imgsz": 96,
            "batch": 5,
            "device": "cpu",
            "workers": 0,
            "seed": 7,
            "split": "test",
            "batches": [1, 2],
            "seconds": 0.001,
        },
    }
    (command,) = commands
    assert command[4:6] == [str(bundle.path), str(data.parent / "test" / "images" / "0.png")]
    assert command[7:] == ["3", "cpu"]
    config = bench.resolved(()).config
    squares = config.detector.model_dump() | {"rectangular": False}  # as the speeds are of
    assert config.detector.rectangular
    assert json.loads(command[6]) == [squares, config.images.model_dump()]
    assert sorted(path.name for path in Path("new/report").iterdir()) == [
        "comparison.html",
        "comparison.json",
        "comparison.md",
    ]
    assert Path("new/report/comparison.md").read_text().startswith("# Comparison of 1 detector\n")
    assert "Detectors compared" in Path("new/report/comparison.html").read_text()


def test_memory_that_is_not_told_and_a_process_that_fails(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(env={}).config

    def asked() -> int | None:
        return memory(Path("b"), Path("p.png"), config.detector, config.images, threads=1, device="cpu")

    monkeypatch.setattr(subprocess, "run", answering("0\n", 0, []))
    assert asked() is None
    monkeypatch.setattr(subprocess, "run", answering("7\n", 3, [], f"Traceback\n{'x' * 170}\n"))
    with pytest.raises(FashionrecError) as caught:
        asked()
    assert str(caught.value) == f"a separate process cannot serve b: {'x' * 160}"
    monkeypatch.setattr(subprocess, "run", answering("", 1, []))
    with pytest.raises(FashionrecError, match=r"cannot serve b:$"):
        asked()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (FashionrecError("it is broken", hint="mend it"), "it is broken (mend it)"),
        (FashionrecError("it is broken"), "it is broken"),
        (RuntimeError("one\n  two"), "RuntimeError: one two"),
        (OSError("x" * 300), f"OSError: {'x' * 200}"),
    ],
)
def test_a_model_that_fails_has_its_reason_and_the_next_one_is_tried(fault: Exception, reason: str, data: Path) -> None:
    bench = Bench(data, fault=fault)
    model = str(TINY / "detector")
    document = bench.run(model, model)
    assert document["models"] == [{"model": model, "failed": reason}] * 2
    assert document["machine"] == {}
    assert bench.warned == [f"{model}: {reason}"] * 2
    assert bench.said == [f"model {n} of 2: {model}" for n in (1, 2)]
    assert [path.name for path in Path("report").iterdir()] == ["comparison.json"]
    assert json.loads(Path("report/comparison.json").read_text()) == document


def test_a_model_is_trained_by_both_sections_and_taken_again(data: Path) -> None:
    sets = ("train.patience=4", "train.lr0=0.5", "train.mosaic=0.25", "train.epochs=99", "train.name=mine")
    bench = stopped(data, *sets)
    Path("yolov8n.yaml").write_text("nothing")
    bench.run("yolov8n.yaml")
    (config,) = bench.trained
    own = {"epochs": 3, "imgsz": 96, "batch": 5, "device": "cpu", "workers": 0, "seed": 7}
    named = {"model": "yolov8n.yaml", "data": str(data), "name": "compare-yolov8n", "resume": False, "exist_ok": False}
    assert config.model_dump() == bench.resolved(()).config.train.model_dump() | own | named
    assert config.options() == {"mosaic": 0.25}
    place = Path("runs/train/compare-yolov8n")
    assert bench.said == [
        "model 1 of 1: yolov8n.yaml",
        "yolov8n.yaml means the model of that name; the file in this folder is ./yolov8n.yaml",
        f"training {place}",
    ]
    assert bench.asked[0][0] == str(place / "weights" / "best.bundle")
    assert read_run(place).promoted is False

    bench.sets += ("compare.workers=1", "compare.device=0", "train.exist_ok=true")  # nothing is learnt of these
    bench.run("yolov8n.yaml")
    assert bench.trained == []
    assert bench.said[-1] == f"reusing {place}, trained with the same settings and data"
    bench.sets += ("compare.seed=8",)
    bench.run("yolov8n.yaml")
    assert [config.name for config in bench.trained] == ["compare-yolov8n2"]
    label = data.parent / "valid" / "labels" / "0.txt"
    label.write_text(label.read_text() * 2)
    bench.run("yolov8n.yaml")
    assert [config.name for config in bench.trained] == ["compare-yolov8n3"]


def test_a_training_that_was_stopped_is_gone_on_with_and_one_that_goes_on_is_left(data: Path) -> None:
    bench = stopped(data)
    bench.run("yolov8n.yaml")
    run = read_run(Path("runs/train/compare-yolov8n"))
    run.status = "failed"
    run.save()
    bench.run("yolov8n.yaml")
    (config,) = bench.trained
    assert (config.name, config.resume, config.exist_ok) == ("compare-yolov8n", True, True)
    assert bench.said[-1] == "resuming runs/train/compare-yolov8n"
    run.status = "running"
    run.save()  # which holds it
    bench.run("yolov8n.yaml")
    (config,) = bench.trained
    assert (config.name, config.resume, config.exist_ok) == ("compare-yolov8n2", False, False)
    run.status = "done"
    run.save()


def test_a_run_and_how_it_was_made_are_told(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", answering("5\n", 0, []))
    bench = Bench(data)
    (row,) = bench.run("my model (1).yaml")["models"]
    place = "runs/train/compare-my-model-1-"
    assert [row[key] for key in ("how", "run", "epochs", "train_seconds", "bundle")] == [
        *("trained", place, 3, 12.5),
        f"{place}/weights/best.bundle",
    ]
    (row,) = bench.run("my model (1).yaml")["models"]
    assert (row["how"], row["run"]) == ("reused", place)
    (row,) = bench.run(place)["models"]
    assert [row[key] for key in ("how", "run", "epochs", "train_seconds")] == ["taken", place, 3, 12.5]
    assert bench.trained == []


def checkpoint(path: Path, classes: list[str]) -> Path:
    """The header of a checkpoint of ours."""
    about = {"family": "effdet", "model": "efficientdet_d0", "names": dict(enumerate(classes)), "imgsz": 128}
    text = json.dumps({"__metadata__": {"fashionrec": json.dumps(about)}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def test_a_checkpoint_is_taken_if_it_knows_the_classes(data: Path) -> None:
    bench = stopped(data)
    mine = checkpoint(Path("mine.safetensors"), CLASSES[::-1])
    bench.run(mine)
    assert (bench.trained, bench.exported) == ([], [(mine, Path("mine.bundle"))])
    pytest.importorskip("effdet")
    other = checkpoint(Path("other.safetensors"), CLASSES[:4])
    bench.run(other)
    assert [config.model for config in bench.trained] == ["other.safetensors"]
    assert len(bench.exported) == 1


def test_options_that_a_family_does_not_know_are_left_out_and_named(data: Path) -> None:
    pytest.importorskip("effdet")
    bench = stopped(data, "train.mosaic=0.5", "train.copy_paste=0.25", "train.fliplr=0.125")
    bench.run("efficientdet_d0")
    assert bench.trained[0].options() == {"fliplr": 0.125}
    assert bench.said[1] == (
        "efficientdet_d0 is trained without copy_paste, mosaic, which only ultralytics' detectors support"
    )


def test_the_folder_of_a_report(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert report_folder(runs, None) == runs / "compare" / "compare"
    assert report_folder(runs, "mine") == runs / "compare" / "mine"
    (runs / "compare" / "compare").mkdir(parents=True)
    assert report_folder(runs, None) == runs / "compare" / "compare2"
    (runs / "compare" / "compare2").symlink_to("nowhere")
    assert report_folder(runs, None) == runs / "compare" / "compare3"
    assert report_folder(runs, "compare") == runs / "compare" / "compare"
    for name in ("a/b", "", ".", ".."):
        with pytest.raises(ConfigError) as caught:
            report_folder(runs, name)
        assert str(caught.value) == f"invalid folder name {name!r}"
        assert caught.value.hint == "give paths with --out"
    with pytest.raises(FashionrecError, match="compare2"):
        report_folder(runs, "compare2")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "compare").symlink_to(runs / "compare")
    with pytest.raises(FashionrecError, match="compare"):
        report_folder(tmp_path / "other", "mine")


def network(path: Path, nodes: list[Any], weights: dict[str, Any], output: list[object] | None) -> Path:
    import onnx

    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("images", 1, ["batch", 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", 1, output)],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_operations_and_parameters_of_each_kind_of_layer(tmp_path: Path) -> None:
    import numpy as np
    from onnx.helper import make_node

    def zeros(*shape: int) -> Any:
        return np.zeros(shape, np.float32)

    picture = zeros(1, 3, 8, 8)
    groups = network(
        tmp_path / "groups.onnx",
        [
            make_node("Conv", ["images", "w", "b"], ["c"], strides=[2, 2], pads=[0, 0, 1, 1], group=3),
            make_node("BatchNormalization", ["c", "s", "o", "m", "v"], ["n"]),
            make_node("PRelu", ["n", "slope"], ["p"]),
            make_node("Add", ["p", "shift"], ["a"]),  # a learnt number of no layer is not counted
            make_node("ConvTranspose", ["a", "t"], ["y"], strides=[2, 2]),
        ],
        {
            "w": zeros(6, 1, 3, 3), "b": zeros(6), "s": zeros(6), "o": zeros(6), "m": zeros(6), "v": zeros(6),
            "slope": zeros(6, 1, 1), "shift": zeros(6, 1, 1), "t": zeros(6, 2, 2, 2),
        },
        ["batch", 2, 8, 8],
    )  # fmt: skip
    found = complexity(groups, picture)
    # 6 channels of 4 x 4, each by one 3 x 3; each of 6 x 4 x 4 values is spread over 2 channels of
    # 2 x 2
    assert found.operations == 2 * (6 * 4 * 4 * 9 + 6 * 4 * 4 * 2 * 4)
    assert found.parameters == 54 + 6 + 4 * 6 + 6 + 6 * 2 * 2 * 2
    assert found.gflops == found.operations / 1e9

    turned = network(
        tmp_path / "turned.onnx",
        [
            make_node("Reshape", ["images", "shape"], ["rows"]),  # [4, 48]
            make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),  # [4, 5]
            make_node("Identity", ["wt"], ["same"]),
            make_node("Gemm", ["rows", "same", "b"], ["z"], transA=1),  # [48, 5]
            make_node("MatMul", ["u", "z"], ["zz"]),  # [7, 48] x [48, 5]
            make_node("Relu", ["zz"], ["y"]),
        ],
        {"shape": np.array([4, 48]), "w": zeros(5, 4), "b": zeros(5), "u": zeros(7, 48)},
        [7, 5],
    )
    found = complexity(turned, picture)
    assert found.operations == 2 * (48 * 5 * 4 + 7 * 5 * 48)
    assert found.parameters == 20 + 5 + 7 * 48
