"""Test what `train` takes: names of models, options and their values, services that are told; the
wrong ones are one line.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from test_detector_training import FAST, TINY_MODEL, dataset

from fashionrec.config import config_dir, load_config
from fashionrec.errors import ConfigError, MissingExtra, ModelError

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data") / "d", {"train": 8, "valid": 4, "test": 4})


@pytest.mark.parametrize(
    ("model", "kind", "millions"),
    [
        ("yolov8n.yaml", "YOLO", 3.2),
        ("yolo11n.yaml", "YOLO", 2.6),
        ("yolo12n.yaml", "YOLO", 2.6),
        ("yolo26n.yaml", "YOLO", 2.6),
        ("rtdetr-l.yaml", "RTDETR", 32.8),
        ("rtdetr-resnet50.yaml", "RTDETR", 42.9),
    ],
)
def test_every_family_is_built_by_its_name(model: str, kind: str, millions: float) -> None:
    """Parameters in millions are those of ultralytics' documentation,
    https://docs.ultralytics.com/models.
    """
    from fashionrec.detector.training.ultra import load_yolo

    yolo = load_yolo(model)
    assert (type(yolo).__name__, yolo.task) == (kind, "detect")
    assert sum(weights.numel() for weights in yolo.model.parameters()) / 1e6 == pytest.approx(millions, abs=0.2)


@pytest.mark.parametrize("family", ["yolov8", "yolo11", "yolo12", "yolo26"])
def test_every_size_has_a_name_with_and_without_suffix(family: str) -> None:
    from fashionrec.detector.training.names import model_file
    from fashionrec.detector.training.ultra import load_ultralytics

    load_ultralytics()
    for size in "nsmlx":
        name = f"{family}{size}"
        assert [model_file(name), model_file(f"{name}.pt"), model_file(f"{name}.yaml")] == [
            f"{name}.pt",
            f"{name}.pt",
            f"{name}.yaml",
        ]


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        ("yolov11n", "unknown model yolov11n", "did you mean yolo11n.pt?"),
        ("yolo8n.pt", "unknown model yolo8n.pt", "did you mean yolov8n.pt?"),
        ("YOLOv8l.pt", "unknown model", "did you mean yolov8l.pt?"),
        ("rtdetr_l.pt", "unknown model", "did you mean rtdetr-l.pt?"),
        ("yolo12-n.yaml", "unknown architecture", "did you mean yolo12n.yaml?"),
        ("yolov8q.yaml", "unknown architecture", "did you mean yolov8"),
        ("rtdetr-resnet50", "no weights of rtdetr-resnet50 are published", "rtdetr-resnet50.yaml"),
        ("yolo26n-seg.pt", "not a detector", "did you mean yolo26n.pt?"),
        ("yolov8-cls.yaml", "not a detector", "did you mean yolov8.yaml?"),
        ("elsewhere/best.pt", "no such checkpoint: elsewhere/best.pt", ""),
        ("configs/models/none.yaml", "no such model", ""),
        ("zzz", "unknown model zzz", "for example yolov8l.pt"),
    ],
)
def test_a_misspelt_model_is_one_line_with_the_nearest_real_one(model: str, message: str, hint: str) -> None:
    from fashionrec.detector.training.names import model_file

    with pytest.raises(ModelError, match=message) as caught:
        model_file(model)
    assert hint in caught.value.hint


def test_what_is_here_wins_over_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fashionrec.detector.training.names import model_file

    monkeypatch.chdir(tmp_path)
    for name in ("mine.pt", "yolov8n-seg.pt", "mine.yaml", "notes.txt"):
        Path(name).write_text("")
    assert [model_file(name) for name in ("mine.pt", "mine.yaml")] == ["mine.pt", "mine.yaml"]
    with pytest.raises(ModelError, match="neither a checkpoint"):
        model_file("notes.txt")
    shipped = config_dir() / "models" / "yolov8-demo.yaml"
    assert [model_file(name) for name in ("yolov8-demo.yaml", "configs/models/yolov8-demo.yaml")] == [str(shipped)] * 2


def start(data: Path, folder: Path, *words: str) -> None:
    from fashionrec.detector.training.train import train_detector

    settings = (f"data={data}", f"model={TINY_MODEL}", *FAST, *words)
    train_detector(load_config(sets=[f"train.{word}" for word in settings], env={}).config.train, folder / "runs")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("mosaic=2", "mosaic=2"),
        ("degrees=abc", "degrees=abc"),
        ("degrees=-10", "degrees=-10 is out of range"),
        ("optimizer=foo", "optimizer=foo is not one of SGD"),
        ("epochs=0", "train.epochs"),
        ("batch=0", "batch=0 is not a number of photos"),
        ("batch=1.5", "batch=1.5 is not a number of photos"),
        ("lr0=2", "lr0=2"),
        ("cos_lr=1", "'cos_lr' must be a bool"),
        ("amp=maybe", "Valid 'amp' values"),
        ("cache=disc", "cache=disc is not one of true, false, ram, disk"),
        ("copy_paste_mode=flop", "copy_paste_mode=flop is not one of flip, mixup"),
        ("freeze=-1", "freeze=-1 is not a number"),
        ("classes=[0,x]", "classes="),
        ("pretrained=nowhere.pt", "pretrained: unknown model nowhere.pt"),
        ("distill_model=nowhere.pt", "distill_model: unknown model nowhere.pt"),
        ("time=0", "time=0 is out of range"),
        ("warmup_epochs=-1", "warmup_epochs=-1 is out of range"),
        ("mosaik=1", "unknown setting train.mosaik"),
        ("balance=both", "train.balance"),
        ("loggers=comet", "train.loggers"),
    ],
)
def test_a_wrong_value_is_one_line_before_a_run_folder_is_made(
    word: str, message: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        start(data, tmp_path, word)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {
            "optimizer": "adamw",
            "cache": "ram",
            "batch": -1,
            "freeze": ["model.0", 3],
            "classes": 2,
            "scale": [0.5, 1.5],
        },
        {"optimizer": "MuSGD", "cache": False, "batch": 0.7, "freeze": 10, "classes": [0, 2], "amp": "bf16"},
        {"auto_augment": None, "pretrained": False, "time": 0.5, "imgsz": 96, "cos_lr": True, "device": "0,1"},
    ],
)
def test_right_values_pass(settings: dict[str, Any]) -> None:
    from fashionrec.detector.training.options import check_options
    from fashionrec.detector.training.ultra import load_ultralytics

    load_ultralytics()
    check_options(settings)


@pytest.mark.parametrize(
    ("name", "right", "wrong", "hint"),
    [
        ("degrees", (0, 180), (-1, 181), "at least 0, at most 180"),
        ("shear", (0, 90), (-1, 91), "at least 0, at most 90"),
        *((name, (0, 1e6), (-0.1,), "at least 0") for name in ("box", "cls", "dfl", "warmup_epochs")),
        ("time", (0.001,), (0.0005,), "at least 0.001"),
        *((name, (0, 1000), (-1,), "at least 0") for name in ("workers", "close_mosaic")),
        ("imgsz", (1, 4096), (0, -1), "at least 1"),
        *((name, (0, 3, [0], [5, 0]), (-1, [0, -1], [0, True], True), f"{name}=10 or {name}=[0,1,2]") for name in ("classes",)),
        ("freeze", (0, 10, [0, "model.3"]), (-1, "x", True), "freeze=10 or freeze=[0,1,2]"),
        ("batch", (-1, 1, 16, 0.01, 0.99), (0, -2, 1.5, -0.5),
         "16; -1 for as many as fit on the GPU; 0.7 for that share of its memory"),
        ("cache", (True, False, "ram", "disk"), ("RAM", "disc"), "disk"),
        ("optimizer", ("SGD", "sgd", "AUTO"), ("SDG",), "SGD"),
        ("copy_paste_mode", ("flip", "mixup"), ("flop",), "flip"),
        ("auto_augment", ("randaugment", "autoaugment", "augmix", None), ("randaugmen",), "randaugment"),
        ("compile", (True, False, "default", "reduce-overhead", "max-autotune-no-cudagraphs"), ("treu",), "did you mean true?"),
        ("split", ("train", "val", "test"), ("vals",), "did you mean val?"),
        ("dis", (0, 1e6), (-0.1,), "at least 0"),
    ],
)  # fmt: skip
def test_values_at_their_bounds(name: str, right: tuple[object, ...], wrong: tuple[object, ...], hint: str) -> None:
    from fashionrec.detector.training.options import check_options
    from fashionrec.detector.training.ultra import load_ultralytics

    load_ultralytics()
    for value in right:
        check_options({name: value})
    for value in wrong:
        with pytest.raises(ConfigError) as caught:
            check_options({name: value})
        assert str(caught.value).startswith(f"{name}={value} is "), value
    assert hint in caught.value.hint


def test_flips_and_rotation_are_what_the_dataset_asks_for() -> None:
    from fashionrec.detector.training.options import augmentation

    asked = {"fliplr": 0.5, "flipud": 0.25, "degrees": 15, "copies": 3}
    assert augmentation({}) == augmentation({"augment": None}) == augmentation({"augment": {"mode": "none"}}) == {}
    assert augmentation({"augment": {"mode": "fly", **asked}}) == {"fliplr": 0.5, "flipud": 0.25, "degrees": 15.0}
    for mode in ("copies", "done"):
        assert augmentation({"augment": {"mode": mode, **asked}}) == {"fliplr": 0.0, "flipud": 0.0, "degrees": 0.0}


def test_every_optimizer_named_is_one_that_ultralytics_makes() -> None:
    from types import SimpleNamespace

    from fashionrec.detector.training.options import OPTIMIZERS
    from fashionrec.detector.training.ultra import load_yolo, quiet

    yolo = load_yolo(TINY_MODEL)
    trainer = SimpleNamespace(data={"nc": 5}, args=SimpleNamespace(lr0=0.01, warmup_bias_lr=0.1))
    make = yolo.task_map["detect"]["trainer"].build_optimizer
    with quiet(None):
        made = {name: type(make(trainer, yolo.model, name=name.lower())).__name__ for name in OPTIMIZERS}
        with pytest.raises(NotImplementedError):
            make(trainer, yolo.model, name="foo")
    assert made == {name: name for name in OPTIMIZERS} | {"RMSProp": "RMSprop", "auto": "MuSGD"}


def test_early_stop_ends_before_the_last_epoch_and_tells_no_epoch_twice(data: Path, tmp_path: Path) -> None:
    """A learning rate near zero gains nothing after the first epoch that scores."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    from fashionrec.detector.training.train import train_detector

    validate = DetectionTrainer.validate

    def falling(self: Any) -> Any:
        metrics, _ = validate(self)
        return metrics, 1.0 / (self.epoch + 1)

    epochs: list[int] = []
    words = (f"data={data}", f"model={TINY_MODEL}", "epochs=9", "patience=2", *FAST)
    config = load_config(sets=[f"train.{word}" for word in words], env={}).config.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetectionTrainer, "validate", falling)
        run = train_detector(config, tmp_path / "runs", progress=lambda epoch, of, figures: epochs.append(epoch))
    assert epochs == [1, 2, 3]
    assert (run.status, run.epochs) == ("done", 3)


def test_a_missing_service_is_named_with_its_package(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else found(name, *rest)
    )
    with pytest.raises(MissingExtra, match="needs the package wandb") as caught:
        start(data, tmp_path, "loggers=wandb")
    assert caught.value.hint == "pip install wandb"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("asked", [(), ("tensorboard",), ("mlflow", "wandb")])
def test_exactly_the_services_asked_for_are_on(asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from fashionrec.detector.training.loggers import SWITCHES, switched
    from fashionrec.detector.training.ultra import load_ultralytics

    load_ultralytics()
    from ultralytics.utils import SETTINGS

    monkeypatch.setenv("ULTRALYTICS_API_KEY", "secret")
    before = dict(SETTINGS)
    assert any(before[name] for name in SWITCHES)  # its defaults report to what is installed
    with switched(asked):
        assert {name for name in SWITCHES if SETTINGS[name]} == set(asked)
        assert SETTINGS["api_key"] == ""
        assert "ULTRALYTICS_API_KEY" not in os.environ
    assert dict(SETTINGS) == before
    assert os.environ["ULTRALYTICS_API_KEY"] == "secret"


def in_a_process(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """ultralytics tells no service of a training that it believes to be a test."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    return subprocess.run(
        [sys.executable, "-m", "fashionrec", "train", *words, "--json"],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"} | env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_tensorboard_has_the_scalars_in_the_runs_folder(data: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = in_a_process(
        tmp_path, f"data={data}", f"model={TINY_MODEL}", "epochs=2", "name=t", "loggers=tensorboard", *FAST
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    events = accumulator.EventAccumulator(str(tmp_path / "runs" / "train" / "t"))
    events.Reload()
    assert {"metrics/mAP50-95(B)", "train/box_loss", "lr/pg0"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/box_loss")] == [1, 2]
    final = events.Scalars("metrics/mAP50-95(B)")[-1].value
    assert final == pytest.approx(json.loads(done.stdout)["metrics"]["map50_95"], abs=1e-6)


def test_mlflow_has_metrics_and_files_beside_the_runs(data: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    done = in_a_process(tmp_path, f"data={data}", f"model={TINY_MODEL}", "epochs=1", "name=m", "loggers=mlflow", *FAST)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["mlflow", "mlflow.db", "train"]
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (found,) = mlflow.search_runs(experiment_names=["fashionrec"], output_format="list")
    assert (found.info.run_name, found.info.status, found.data.params["epochs"]) == ("m", "FINISHED", "1")
    assert "metrics/mAP50-95B" in found.data.metrics
    assert list((tmp_path / "runs" / "mlflow").rglob("best.pt"))


def test_wandb_writes_into_the_runs_folder_and_never_asks(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    words = (f"data={data}", f"model={TINY_MODEL}", "epochs=1", "loggers=wandb", *FAST)
    done = in_a_process(tmp_path, *words, "name=w", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "runs" / "train" / "w" / "wandb").glob("offline-run-*/run-*.wandb"))
    online = in_a_process(tmp_path, *words, "name=x", WANDB_MODE="online", HOME=str(tmp_path), WANDB_API_KEY="")
    assert (online.returncode, online.stdout) == (1, "")
    assert "No API key" in online.stderr


def test_rt_detr_is_served_as_ultralytics_predicts(data: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    """It stretches photos to a square where the others letterbox them, and answers in shares of the
    picture.
    """
    import numpy as np
    from PIL import Image

    from fashionrec.detector.detect import Detector
    from fashionrec.detector.training.ultra import load_yolo, quiet
    from fashionrec.models.bundle import Bundle

    model = Path(__file__).parent / "data" / "rtdetr-tiny.yaml"
    assert cli("train", f"data={data}", f"model={model}", "epochs=1", "name=r", *FAST).code == 0
    made = cli("export", "runs/train/r", "--out", "r.bundle", "--json")
    assert made.code == 0, made.err
    bundle = Bundle.open(Path("r.bundle"))
    assert (bundle.spec["resize"], bundle.spec["head"]) == ("stretch", "end2end")
    noise = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((90, 64), Image.Resampling.NEAREST)
    with quiet(None):
        (theirs,) = load_yolo("runs/train/r/weights/best.pt").predict(photo, imgsz=64, conf=0.0, verbose=False)
    (ours,) = Detector(bundle, conf=0.0, iou=1.0, max_garments=300).predict([photo])
    assert len(ours) == len(theirs.boxes) == 30
    assert ours.scores == pytest.approx(theirs.boxes.conf.numpy(), abs=0.005)
    assert ours.boxes == pytest.approx(theirs.boxes.xyxy.numpy(), abs=1.0)


@pytest.mark.parametrize(
    "model",
    [
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("yolov8n.yaml", "yolo11n.yaml", "yolo12n.yaml", "yolo26n.yaml")
        ),
        pytest.param("rtdetr-l.yaml", marks=pytest.mark.release(50)),
    ],
)
def test_every_family_trains_exports_and_serves(
    model: str, data: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    from PIL import Image

    from fashionrec.detector.detect import Detector
    from fashionrec.models.bundle import Bundle

    fast = [word for word in FAST if not word.startswith(("imgsz", "batch"))]
    done = cli("train", f"data={data}", f"model={model}", "epochs=1", "imgsz=160", "batch=4", "name=f", *fast, "--json")
    assert done.code == 0, done.err
    made = cli(
        "export", done.document["path"], "--out", tmp_path / "f.bundle", "--images", data.parent / "test", "--json"
    )
    assert made.code == 0, made.err
    detector = Detector(Bundle.open(tmp_path / "f.bundle"), conf=0.0001, iou=0.6, max_garments=12)
    (found,) = detector.predict([Image.open(next((data.parent / "test" / "images").iterdir())).convert("RGB")])
    assert len(found)
    assert set(found.class_ids.tolist()) <= set(range(5))
