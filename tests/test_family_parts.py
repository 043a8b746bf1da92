"""Test what the families of detectors share, piece by piece: names, headers, options, starts and
the graphs that are exported.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashionrec.config import TrainConfig, load_config
from fashionrec.dataset.prepare.prepare import write_data_yaml
from fashionrec.errors import ConfigError, DataError, FashionrecError, ModelError
from fashionrec.models.runs import read_run

torch = pytest.importorskip("torch")
pytest.importorskip("ultralytics")
pytestmark = pytest.mark.train

from fashionrec.detector.training import families  # noqa: E402
from fashionrec.detector.training.families import plain  # noqa: E402
from fashionrec.detector.training.families.checkpoint import (  # noqa: E402
    About,
    load_state,
    load_weights,
    save_state,
    save_weights,
)
from fashionrec.detector.training.families.loop import Learner  # noqa: E402
from fashionrec.detector.training.families.options import OPTIONS, settled  # noqa: E402

ABOUT = About("toy", "toy_1", {0: "dress", 1: "top"}, 64, {"equalize": True}, {"torch": "9"}, {"pretrained": True})


def refused(error: type[FashionrecError], function: Callable[..., Any], *given: Any) -> tuple[str, str]:
    with pytest.raises(error) as caught:
        function(*given)
    return str(caught.value), caught.value.hint


def header(path: Path, document: Any) -> Path:
    text = json.dumps(document).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def about_file(path: Path, **changes: Any) -> Path:
    values = json.loads(ABOUT.to_text()) | changes
    kept = {key: value for key, value in values.items() if value != "left out"}
    return header(path, {"__metadata__": {"fashionrec": json.dumps(kept)}})


# --- names and headers


def test_the_family_of_a_model_and_of_a_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("effdet")

    def name(module: Any) -> str:
        return str(module.__name__).rpartition(".")[2]

    for model, family in (
        ("EfficientDet_d0", "effdet"),
        ("tf_efficientdet_d7x", "effdet"),
        ("a/fasterrcnn_resnet50_fpn", "torchvision"),
        ("yolov8l.pt", "ultra"),
        ("my_efficientdet", "ultra"),
    ):
        assert name(families.family_of_model(model)) == family
        other = families.other_family(model)
        assert other is (None if family == "ultra" else families.family_module(family))
        assert (families.options_of(model) is None) is (family == "ultra")
    path = about_file(tmp_path / "a.safetensors", family="torchvision")
    assert name(families.family_of_model(str(path))) == name(families.family_of_weights(path)) == "torchvision"
    assert name(families.family_of_weights(tmp_path / "best.pt")) == "ultra"
    assert families.classes_of(path) == ["dress", "top"]
    assert refused(ModelError, families.family_of_weights, tmp_path / "x.bin") == (
        f"{tmp_path / 'x.bin'} is not a checkpoint of a detector",
        "expected a .pt of ultralytics, or a .safetensors of fashionrec",
    )
    other = about_file(tmp_path / "b.safetensors", family="loop")
    said, _ = refused(ModelError, families.family_of_weights, other)
    assert said == "detector family 'loop' is not supported by this version"
    assert families.options_of("efficientdet_d0") == {
        *("pretrained", "amp", "lrf", "momentum", "weight_decay", "warmup_epochs", "fliplr", "flipud", "degrees"),
        *("translate", "scale", "hsv_h", "hsv_s", "hsv_v"),
    }


def test_a_header_that_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    said, _ = refused(ModelError, families.metadata, path)
    assert said == f"no such checkpoint: {path}"
    for content in (
        b"short",
        struct.pack("<Q", 4) + b"nope",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 20) + b'{"__metadata__": {} }',
    ):
        path.write_bytes(content)
        said, _ = refused(ModelError, families.metadata, path)
        assert said.startswith(f"{path} is not a detector checkpoint of fashionrec: "), content
    path.write_bytes(struct.pack("<Q", (1 << 24) + 1) + b"{}")
    assert refused(ModelError, families.metadata, path)[0].endswith("its header is too long")
    text = json.dumps({"__metadata__": {"fashionrec": '{"family": "toy"}'}}).encode()
    path.write_bytes(struct.pack("<Q", 1 << 24) + text.ljust(1 << 24))
    assert families.metadata(path) == {"family": "toy"}


@pytest.mark.parametrize(
    ("changes", "whole"),
    [
        ({}, True),
        ({"imgsz": 1}, True),
        ({"imgsz": 8192}, True),
        ({"imgsz": "64"}, True),
        ({"names": {"0": "dress"}}, True),
        ({"names": {str(n): "x" for n in range(65536)}}, True),
        ({"pixels": "left out", "versions": "left out", "notes": "left out"}, True),
        ({"imgsz": 0}, False),
        ({"imgsz": 8193}, False),
        ({"imgsz": "x"}, False),
        ({"names": {}}, False),
        ({"names": {str(n): "x" for n in range(65537)}}, False),
        ({"names": ["dress"]}, False),
        ({"names": "left out"}, False),
        ({"model": 3}, False),
        ({"pixels": 3}, False),
        ({"notes": []}, False),
        ({"more": 1}, False),
    ],
)
def test_what_a_checkpoint_may_say_of_itself(changes: dict[str, Any], whole: bool, tmp_path: Path) -> None:
    path = about_file(tmp_path / "a.safetensors", **changes)
    if whole:
        found = About.of(path)
        own = {key: value for key, value in changes.items() if value != "left out" and key != "names"}
        assert found.imgsz == int(own.get("imgsz", 64))
        assert len(found.names) == len(changes.get("names", ABOUT.names))
        if not changes:
            assert found == ABOUT
        if "pixels" in changes:
            assert (found.pixels, found.versions, found.notes) == ({}, {}, {})
    else:
        said, hint = refused(ModelError, About.of, path)
        assert said.startswith(f"{path} has invalid metadata (")
        assert hint == "train it again"


# --- weights and states


class Small(torch.nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.body = torch.nn.Linear(3, 4)
        self.head = torch.nn.Linear(4, classes)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(v, w) for (a, v), (b, w) in pairs)


def stepped(model: torch.nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    sum(value.sum() for value in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    return optimizer


def test_weights_and_states_come_back_as_they_were(tmp_path: Path) -> None:
    one, other = Small(), Small()
    optimizer = stepped(one)
    save_weights(tmp_path / "a.safetensors", one, ABOUT)
    load_weights(tmp_path / "a.safetensors", other)
    assert same(one, other)
    assert About.of(tmp_path / "a.safetensors") == ABOUT
    third = Small()
    fresh = torch.optim.AdamW(third.parameters(), lr=0.25)
    record = {"rows": [{"loss": 0.5}], "best": 0.25, "scaler": {}}
    save_state(tmp_path / "state.safetensors", one, optimizer, ABOUT, record)
    assert load_state(tmp_path / "state.safetensors", third, fresh) == record
    assert same(one, third)
    before, after = (opt.state_dict() for opt in (optimizer, fresh))
    assert after["param_groups"][0]["lr"] == 0.25  # of the training that goes on
    assert before["state"].keys() == after["state"].keys() == {0, 1, 2, 3}
    for number, moments in before["state"].items():
        assert moments.keys() == after["state"][number].keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(value, after["state"][number][name]) for name, value in moments.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "state.safetensors"]
    assert About.of(tmp_path / "state.safetensors") == ABOUT


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, Small(3), ABOUT)
    said, _ = refused(ModelError, load_weights, path, Small())
    assert said.endswith("head.weight (3x4 instead of 2x4), head.bias (3 instead of 2)")
    model = Small()
    optimizer = torch.optim.AdamW(model.parameters())
    said, _ = refused(ModelError, load_state, path, model, optimizer)
    assert said.startswith(f"{path} cannot be resumed from: ")
    save_state(path, Small(3), stepped(Small(3)), ABOUT, {})
    with pytest.raises(ModelError, match="3x4 instead of 2x4"):
        load_state(path, model, optimizer)
    path.write_bytes(b"torn")
    said, _ = refused(ModelError, load_weights, path, model)
    assert said.startswith(f"{path} cannot be loaded: ")
    said, _ = refused(ModelError, load_state, path, model, optimizer)
    assert said.startswith(f"{path} cannot be resumed from: ")


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, Small(), ABOUT)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_state(path, Small(), stepped(Small()), ABOUT, {"odd": object()})
    broken = SimpleNamespace(state_dict=lambda: {"w": torch.zeros(2).to_sparse()})
    with pytest.raises(Exception, match=r".") as caught:
        save_weights(path, broken, ABOUT)  # type: ignore[arg-type]
    assert not isinstance(caught.value, FashionrecError)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- options


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "valid"):
        for part in ("images", "labels"):
            (tmp_path / "d" / split / part).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "d" / split / "images" / "a.png")
        (tmp_path / "d" / split / "labels" / "a.txt").write_text("1 .5 .5 .5 .5\n")
    write_data_yaml(tmp_path / "d", ["train", "valid"])
    return tmp_path / "d" / "data.yaml"


def settings(data: Path, *words: str) -> TrainConfig:
    own = (f"data={data}", "model=toy", "workers=0", "device=cpu", "imgsz=64")
    return load_config(sets=[f"train.{word}" for word in (*own, *words)], env={}).config.train


def test_options_that_were_not_set(data: Path) -> None:
    defaults = {
        **{"pretrained": True, "amp": True, "lrf": 0.01, "momentum": 0.937, "weight_decay": 0.0005},
        **{"warmup_epochs": 3.0, "fliplr": 0.5, "flipud": 0.0, "degrees": 0.0, "translate": 0.1, "scale": 0.5},
        **{"hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4},
    }
    assert settled(settings(data), data) == defaults
    asked = {"mode": "fly", "fliplr": 0.25, "flipud": 0.125, "degrees": 5}
    (data.parent / "dataset.json").write_text(json.dumps({"augment": asked}))
    theirs = {"fliplr": 0.25, "flipud": 0.125, "degrees": 5.0}
    assert settled(settings(data), data) == defaults | theirs
    assert settled(settings(data, "degrees=7", "amp=false"), data) == defaults | theirs | {"degrees": 7, "amp": False}


def test_options_that_the_loop_does_not_know(data: Path) -> None:
    hint = "allowed: balance=none|sample, optimizer=auto|AdamW|SGD, batch=1 or more, no loggers (see results.csv)"
    for word, said, advice in (
        (
            "mosaic=0.5",
            "toy does not support the option mosaic: only ultralytics' detectors do",
            "it knows pretrained, amp",
        ),
        ("scale=wide", "train.scale is 'wide', not a number", ""),
        ("balance=loss", "toy cannot be trained with balance=loss", hint),
        ("loggers=mlflow", "toy cannot be trained with loggers=mlflow", hint),
        ("optimizer=Adam", "toy cannot be trained with optimizer=Adam", hint),
        ("batch=0", "toy cannot be trained with batch=0", hint),
        ("batch=0.5", "toy cannot be trained with batch=0.5", hint),
    ):
        found, found_hint = refused(ConfigError, settled, settings(data, word), data)
        assert found == said
        assert found_hint.startswith(advice)
    for word in ("balance=sample", "optimizer=SGD", "optimizer=AUTO", "optimizer=adamw", "batch=1"):
        settled(settings(data, word), data)


def test_options_are_those_of_ultralytics_and_so_are_their_defaults() -> None:
    from ultralytics.cfg import DEFAULT_CFG_DICT

    assert {name: DEFAULT_CFG_DICT[name] for name in OPTIONS} == OPTIONS


# --- where a training starts


class Toys:
    """A family of small networks. ``fault`` is raised in place of published weights."""

    NAME, PACKAGES = "toy", ("torch",)

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.built: list[About] = []

    def check(self, config: TrainConfig) -> None:
        pass

    def build(self, about: About) -> Learner:
        self.built.append(about)
        model = Small(len(about.names))
        return Learner(model, torch.nn.Identity(), lambda images, truth: torch.zeros(()), {}, 0.5)

    def pretrained(self, learner: Learner, about: About) -> str:
        assert about is self.built[-1]
        assert socket.getdefaulttimeout() == 15.0
        if self.fault:
            raise self.fault
        with torch.no_grad():
            learner.model.head.bias.fill_(7.0)
        return "weights of the world"


PLAIN = replace(ABOUT, notes={})


def test_a_start_from_published_weights() -> None:
    told: list[str] = []
    family = Toys()
    socket.setdefaulttimeout(3.0)
    try:
        learner, about = plain.start(family, PLAIN, told.append)
        assert socket.getdefaulttimeout() == 3.0
    finally:
        socket.setdefaulttimeout(None)
    assert told == ["toy_1 starts from weights of the world"]
    assert about == ABOUT
    assert learner.model.head.bias.tolist() == [7.0, 7.0]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (OSError("no\n route"), "no route"),
        (LookupError("nothing is published"), "nothing is published"),
        (RuntimeError("invalid hash value"), "invalid hash value"),
        (OSError(), "OSError"),
        (TimeoutError("x" * 200), "x" * 160),
    ],
)
def test_without_the_network_it_starts_from_scratch(fault: Exception, reason: str) -> None:
    told: list[str] = []
    family = Toys(fault)
    learner, about = plain.start(family, PLAIN, told.append)
    assert told == [f"pretrained weights of toy_1 cannot be downloaded ({reason}): training from scratch"]
    assert about is PLAIN
    assert family.built == [ABOUT, PLAIN]
    assert 7.0 not in learner.model.head.bias.tolist()


def test_published_weights_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ModelError, match=r"^theirs$"):
        plain.start(Toys(ModelError("theirs")), PLAIN, print)
    said, hint = refused(ModelError, plain.start, Toys(RuntimeError("size\n mismatch")), PLAIN, print)
    assert said == "pretrained weights of toy_1 are unusable: size mismatch"
    assert hint == f"delete the cached files under {torch.hub.get_dir()}, or set pretrained=false"


def test_weights_of_other_classes_are_taken_but_for_the_last_layer(tmp_path: Path) -> None:
    told: list[str] = []
    source = tmp_path / "a.safetensors"
    old = Small()
    save_weights(source, old, ABOUT)
    model = Small()
    plain.take_weights(source, ABOUT, model, ABOUT, Toys(), told.append)
    assert same(model, old)
    other = replace(ABOUT, names={0: "hat", 1: "shoe", 2: "bag"})
    model, fresh = Small(3), Small(3)
    model.load_state_dict(fresh.state_dict())
    plain.take_weights(source, ABOUT, model, other, Toys(), told.append)
    assert torch.equal(model.body.weight, old.body.weight)
    assert torch.equal(model.head.weight, fresh.head.weight)
    assert told == [
        f"continuing from {source}",
        f"continuing from {source}, except its class layers, whose classes differ",
    ]


@pytest.mark.parametrize(
    ("names", "train", "valid", "said", "hint"),
    [
        ("{0: a, 2: b}", "0", "0", "classes of DATA are not numbered 0 to 1: [0, 2]", ""),
        ("[a, b]", "2", "0", "PHOTO has a box of class 2, but DATA has 2 classes", "class numbers start at 0"),
        ("[a, b]", "1", "", "the valid split of DATA has no boxes", "training uses it to choose the best epoch"),
        ("[a, b]", "", "1", "", ""),
    ],
)
def test_labels_that_cannot_be_learnt_from(
    names: str, train: str, valid: str, said: str, hint: str, data: Path, tmp_path: Path
) -> None:
    data.write_text(f"train: train/images\nval: valid/images\nnames: {names}\n")
    for split, number in (("train", train), ("valid", valid)):
        label = data.parent / split / "labels" / "a.txt"
        label.write_text(f"{number} .5 .5 .5 .5\n" if number else "")
    config = settings(data, "name=r", "epochs=1", "pretrained=false")

    def stop(*_: Any) -> Any:
        raise ConfigError("as far as the loop")

    def train_it() -> None:
        limits = load_config(env={}).config.images
        plain.train_in_run(Toys(), config, tmp_path / "runs", limits=limits, evaluate=stop, log=stop)

    if said:
        photo = data.parent / "train" / "images" / "a.png"
        expected = said.replace("DATA", str(data)).replace("PHOTO", str(photo))
        assert refused(DataError, train_it) == (expected, hint)
        assert not (tmp_path / "runs").exists()
    else:
        with pytest.raises(ConfigError, match="as far as the loop"):
            train_it()
        run = read_run(tmp_path / "runs" / "train" / "r")
        assert (run.status, run.promoted, run.seed) == ("failed", False, config.seed)
        assert run.config["train"] == config.model_dump() | {"name": "r", "resume": False}
        assert set(run.dataset) == {"path", "fingerprint", "valid"}
        assert (run.path / "train.log").read_text() == "toy from scratch\n"


def test_a_run_is_recorded_before_its_network_is_built(data: Path, tmp_path: Path) -> None:
    config = settings(data, "name=r", "pretrained=false")
    records: list[dict[str, Any]] = []

    class Watching(Toys):
        def build(self, about: About) -> Learner:
            records.append(json.loads((tmp_path / "runs" / "train" / "r" / "run.json").read_text()))
            raise ConfigError("as far as the network")

    def stop(*_: Any) -> Any:
        raise AssertionError

    limits = load_config(env={}).config.images
    with pytest.raises(ConfigError, match="as far as the network"):
        plain.train_in_run(Watching(), config, tmp_path / "runs", limits=limits, evaluate=stop, log=print)
    (record,) = records
    assert (record["status"], record["seed"]) == ("running", config.seed)
    assert record["config"]["train"] == config.model_dump() | {"name": "r", "resume": False}
    assert record["dataset"]["path"] == str(data)
    assert set(record["dataset"]) == {"path", "fingerprint", "valid"}


def test_a_training_that_failed_goes_on_with_its_settings_and_data(data: Path, tmp_path: Path) -> None:
    limits = load_config(env={}).config.images

    def stop(*_: Any) -> Any:
        raise ConfigError("as far as the loop")

    def train_it(*words: str) -> None:
        config = settings(data, "name=r", "pretrained=false", *words)
        plain.train_in_run(Toys(), config, tmp_path / "runs", limits=limits, evaluate=stop, log=stop)

    with pytest.raises(ConfigError, match="as far as the loop"):
        train_it("epochs=1")
    path = tmp_path / "runs" / "train" / "r"
    first = read_run(path)
    for _ in range(2):
        with pytest.raises(ConfigError, match="as far as the loop"):
            train_it("epochs=1", "resume=true")
    again = read_run(path)
    assert (again.created, again.status, again.notes["resumed"]) == (first.created, "failed", 2)
    assert again.config["train"] == first.config["train"]
    before = (path / "run.json").read_bytes()
    said, hint = refused(ConfigError, train_it, "epochs=2", "resume=true")
    assert said == f"run {path} began with epochs=1 and cannot be resumed with epochs=2"
    assert hint.startswith("keep that setting, or start a new run: ")
    (data.parent / "train" / "labels" / "a.txt").write_text("0 .5 .5 .5 .5\n")
    assert refused(DataError, train_it, "epochs=1", "resume=true") == (
        f"{data} is not the data of run {path}",
        "restore the data, or start a new run",
    )
    assert (path / "run.json").read_bytes() == before


def test_what_a_bundle_says_of_a_network() -> None:
    spec = plain.spec_of(ABOUT, head="yolo", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), batch=1)
    assert spec == {
        **{"imgsz": 64, "resize": "letterbox", "pad": 114, "scale": 1 / 255, "channels": "RGB", "input": "images"},
        **{"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "head": "yolo", "labels": {"0": "dress", "1": "top"}},
        **{"batch": 1, "pixels": {"equalize": True}},
    }
    assert "pixels" not in plain.spec_of(replace(ABOUT, pixels={}), head="yolo", mean=(), std=())


# --- graphs of ultralytics


def graph(path: Path, nodes: list[Any], weights: dict[str, np.ndarray], output: str, shape: list[Any]) -> Path:
    import onnx
    from onnx import helper, numpy_helper

    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", 1, shape)],
        [helper.make_tensor_value_info(output, 1, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_rt_detrs_answers_in_pixels(tmp_path: Path) -> None:
    import onnxruntime
    from onnx.helper import make_node

    from fashionrec.detector.training.families.ultra import boxes_in_pixels

    path = graph(tmp_path / "g.onnx", [make_node("Identity", ["images"], ["out"])], {}, "out", ["batch", 2, 6])
    boxes_in_pixels(path, 64)
    rows = np.array([[[0.5, 0.25, 0.25, 0.125, 0.9, 3], [0.1, 0.2, 0, 0, 0.5, 1]]], np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == ["out"]
    (found,) = session.run(None, {"images": rows})
    expected = [[24, 12, 40, 20, 0.9, 3], [6.4, 12.8, 6.4, 12.8, 0.5, 1]]
    assert found[0] == pytest.approx(np.array(expected), abs=1e-5)


@pytest.mark.parametrize(
    ("factor", "kind", "expected"),
    [
        (1.0, "tensor", True),
        (1.0, "tuple", True),
        (1.0, "list", True),
        (1.04, "tensor", True),
        (1.06, "tensor", False),
        (1.0, "flat", False),
    ],
)
def test_whether_a_graph_takes_rectangles(factor: float, kind: str, expected: bool, tmp_path: Path) -> None:
    from onnx.helper import make_node

    from fashionrec.detector.training.families.ultra import takes_rectangles

    shapes: list[tuple[int, ...]] = []

    def network(values: Any) -> Any:
        shapes.append(tuple(values.shape))
        wrapped = {"tuple": (values, None), "list": [values], "flat": values[:, 0]}
        return wrapped.get(kind, values)

    nodes = [make_node("Mul", ["images", "factor"], ["out"])]
    weights = {"factor": np.array(factor, np.float32)}
    path = graph(tmp_path / "g.onnx", nodes, weights, "out", ["n", 3, "h", "w"])
    assert takes_rectangles(network, path, 160) is expected
    if expected:
        assert shapes == [(2, 3, 160, 96), (2, 3, 96, 160), (2, 3, 32, 160)]
        square = graph(tmp_path / "s.onnx", nodes, weights, "out", ["n", 3, 160, 160])
        assert takes_rectangles(network, square, 160) is False
        shapes.clear()
        assert takes_rectangles(network, path, 32)
        assert shapes == [(2, 3, 32, 32)] * 3


def test_photos_as_ultralytics_reads_them() -> None:
    from fashionrec.detector.training.families.ultra import square_by_ultralytics

    photo = Image.new("RGB", (60, 20), (250, 100, 0))
    square = square_by_ultralytics(photo, 30)
    assert square.shape == (30, 30, 3)
    assert square[10:20].tolist() == [[[250, 100, 0]] * 30] * 10
    assert {*square[:10].ravel(), *square[20:].ravel()} == {114}
    assert (square_by_ultralytics(photo, 30, stretched=True) == [250, 100, 0]).all()
