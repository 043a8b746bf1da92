"""The detector's training plane: train, finetune, each on a few pictures."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, keeps_its_contract
from PIL import Image

from fashionrec.config import load_config
from fashionrec.dataset.prepare.prepare import write_data_yaml
from fashionrec.errors import ConfigError, DataError, ModelError
from fashionrec.models.runs import newest_promoted, read_run

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")

MODEL = "configs/models/yolov8-demo.yaml"
TINY_MODEL = str(Path(__file__).parent / "data" / "yolov8-tiny.yaml")
FAST = ("imgsz=64", "batch=8", "device=cpu", "workers=0", "plots=false", "mosaic=0.0")


def dataset(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Pictures with one or two coloured rectangles: the class is the colour."""
    colours = ["crimson", "navy", "purple", "orange", "green"]
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for sub in ("images", "labels"):
            (folder / split / sub).mkdir(parents=True)
        for n in range(count):
            image = Image.new("RGB", (80, 64), "lightgray")
            lines = []
            for side in range(rng.integers(1, 3)):
                kind = int(rng.integers(0, 5))
                x, y = 4 + 40 * side, int(rng.integers(4, 20))
                w, h = int(rng.integers(20, 34)), int(rng.integers(20, 40))
                image.paste(colours[kind], (x, y, x + w, y + h))
                lines.append(f"{kind} {(x + w / 2) / 80} {(y + h / 2) / 64} {w / 80} {h / 64}\n")
            image.save(folder / split / "images" / f"{split}{seed}{n}.png")
            (folder / split / "labels" / f"{split}{seed}{n}.txt").write_text("".join(lines))
    write_data_yaml(folder, list(counts))
    return folder / "data.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, trained for two epochs through the module's own door."""
    from fashionrec.detector.training.train import train_detector

    folder = tmp_path_factory.mktemp("trained")
    data = dataset(folder / "old", {"train": 16, "valid": 8, "test": 8})
    settings = [f"train.{word}" for word in FAST]
    config = load_config(
        sets=[f"train.data={data}", f"train.model={MODEL}", "train.epochs=2", *settings], env={}
    ).config
    epochs: list[int] = []
    run = train_detector(config.train, folder / "runs", progress=lambda n, total, metrics: epochs.append(n))
    assert epochs == [1, 2]
    return run.path


def test_a_run_records_what_made_it(trained: Path) -> None:
    run = read_run(trained)
    assert (run.kind, run.verb, run.status, run.promoted) == ("detector", "train", "done", True)
    record = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    keeps_its_contract("run", {key: value for key, value in record.items() if key not in ("config", "versions")})
    assert run.config["train"]["epochs"] == 2
    assert run.config["train"]["mosaic"] == 0.0
    assert len(run.dataset["fingerprint"]) == 64
    assert {"python", "torch", "ultralytics"} <= set(run.versions)
    assert run.weights_path("best").is_file()
    assert run.weights_path("last").is_file()
    assert newest_promoted(trained.parent.parent, "detector") == run
    assert (trained / "train.log").stat().st_size > 0


def test_training_through_the_command_line_keeps_stdout_clean(cli: Callable[..., Result], tmp_path: Path) -> None:
    data = dataset(tmp_path / "d", {"train": 8, "valid": 4})
    done = cli("train", f"data={data}", f"model={MODEL}", "epochs=1", "name=x", *FAST, "--json")
    assert done.code == 0, done.err
    assert done.document["metrics"]["map50"] >= 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "runs"]
    again = cli("train", f"data={data}", f"model={MODEL}", "epochs=1", "name=x", *FAST)
    assert again.code == 2
    assert "already" in again.err


def test_the_same_settings_and_seed_learn_what_ultralytics_learns(tmp_path: Path) -> None:
    """`YOLO(...).train(...)` in this process, then ours: each tensor of best.pt and each metric,
    bit for bit.
    """
    import torch

    from fashionrec.detector.training.train import train_detector
    from fashionrec.detector.training.trainer import metrics_of
    from fashionrec.detector.training.ultra import load_yolo, quiet

    data = dataset(tmp_path / "d", {"train": 16, "valid": 8})
    named = {"epochs": 3, "imgsz": 64, "batch": 8, "device": "cpu", "workers": 0, "seed": 3, "patience": 9}
    settings: dict[str, Any] = {**named, "optimizer": "AdamW", "lr0": 0.01, "mosaic": 0.5, "mixup": 0.2, "plots": False}
    plain = load_yolo(TINY_MODEL)
    with quiet(None):
        plain.train(data=str(data), project=str(tmp_path), name="plain", **settings)
    words = [f"train.{key}={value}" for key, value in settings.items()]
    config = load_config(sets=[f"train.data={data}", f"train.model={TINY_MODEL}", *words], env={}).config.train
    run = train_detector(config, tmp_path / "runs")
    files = (run.weights_path("best"), tmp_path / "plain" / "weights" / "best.pt")
    ours, theirs = (torch.load(file, weights_only=False)["model"].state_dict() for file in files)
    assert len(theirs) > 50
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert run.metrics == metrics_of(plain.trainer.validator.metrics)
    assert (run.path / "results.csv").read_text().count("\n") == 4


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"data": "none/data.yaml"}, DataError),
        ({"model": "none/yolov8n.yaml"}, ModelError),
        ({"model": "weights.bin"}, ModelError),
        ({"model": "broken.pt"}, ModelError),
        ({"resume": True}, ConfigError),
        ({"resume": True, "name": "none"}, ConfigError),
    ],
)
def test_wrong_use_is_one_line_before_anything_starts(
    change: dict[str, object], error: type[Exception], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fashionrec.detector.training.train import train_detector

    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.pt").write_bytes(b"not a checkpoint")
    data = trained.parent.parent.parent / "old" / "data.yaml"
    config = load_config(sets=[f"train.data={data}", f"train.model={MODEL}"], env={}).config.train
    with pytest.raises(error) as caught:
        train_detector(config.model_copy(update=change), tmp_path / "runs")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


LOADS = """
import json, os, socket
from pathlib import Path

asked = []
socket.create_connection = socket.getaddrinfo = lambda *given, **named: asked.append(given)
from fashionrec.detector.training.ultra import load_ultralytics, own_folder

load_ultralytics()
import torch
from ultralytics.utils import SETTINGS, USER_CONFIG_DIR
from ultralytics.utils.torch_utils import select_device

select_device("cpu", verbose=False)
names = ("OMP_NUM_THREADS", "YOLO_OFFLINE", "YOLO_AUTOINSTALL", "YOLO_CONFIG_DIR", "ULTRALYTICS_SAFE_LOAD")
first = {name: os.environ.get(name) for name in names}
SETTINGS.update(sync=True)
os.environ["YOLO_CONFIG_DIR"] = "of others"  # who loaded it before
load_ultralytics()
found = {
    "environment": first,
    "folder": str(own_folder()),
    "config": os.environ["YOLO_CONFIG_DIR"],
    "threads": torch.get_num_threads(),
    "settings": [SETTINGS["sync"], SETTINGS["weights_dir"]],
    "fonts": sorted(path.name for path in Path(USER_CONFIG_DIR).glob("*.ttf")),
    "inside": Path(USER_CONFIG_DIR).is_relative_to(own_folder()),
    "asked": asked,
}
print(json.dumps(found))
"""


@pytest.mark.parametrize("own", [None, "1"])
def test_ultralytics_takes_no_core_away_asks_nobody_and_keeps_its_settings_to_itself(
    own: str | None, tmp_path: Path
) -> None:
    """Check that what the user set is kept."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_NUM", "YOLO_", "ULTRALYTICS_"))}
    env |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    expected = own
    if own:
        env |= {"OMP_NUM_THREADS": own, "YOLO_OFFLINE": "false", "YOLO_AUTOINSTALL": "true"}
    else:
        plain = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
        expected = subprocess.run(plain, env=env, capture_output=True, text=True, check=True).stdout
    done = subprocess.run([sys.executable, "-c", LOADS], env=env, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    folder = found.pop("folder")
    assert found == {
        "environment": {
            "OMP_NUM_THREADS": own,
            "YOLO_OFFLINE": "false" if own else None,
            "YOLO_AUTOINSTALL": "true" if own else "false",
            "YOLO_CONFIG_DIR": folder,
            "ULTRALYTICS_SAFE_LOAD": "1",
        },
        "config": "of others",
        "threads": int(expected),
        "settings": [False, str(Path(folder) / "weights")],
        "fonts": ["Arial.Unicode.ttf", "Arial.ttf"],
        "inside": True,
        "asked": [],
    }
    assert Path(folder).parent == tmp_path
    assert Path(folder).name.startswith("fashionrec-ultralytics-")
    assert not Path(folder).exists()
    assert not list(tmp_path.rglob("Ultralytics"))


def test_the_json_of_an_evaluation_keeps_its_contract(cli: Callable[..., Result], trained: Path) -> None:
    data = trained.parents[2] / "old" / "data.yaml"
    done = cli("evaluate", "--weights", trained / "weights" / "best.pt", "--data", data, "--split", "test", "--json")
    assert done.code == 0, done.err
    keeps_its_contract("evaluate-weights", done.document)
