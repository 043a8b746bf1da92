"""The detector's training plane: train, resume, finetune, export, each on a few pictures."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, keeps_its_contract
from PIL import Image

from fashionrec.config import Config, load_config
from fashionrec.dataset.prepare import write_data_yaml
from fashionrec.errors import ConfigError, DataError, ModelError, Refused
from fashionrec.runs import newest_promoted, read_run

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")

MODEL = "configs/models/yolov8-demo.yaml"
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
    from fashionrec.detector.train import train_detector

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


def test_resume_goes_on_in_the_same_run(tmp_path: Path) -> None:
    """A training is stopped by an exception after its first epoch, as a kill would stop it, then resumed."""
    from fashionrec.detector.train import train_detector

    data = dataset(tmp_path / "d", {"train": 8, "valid": 4})
    sets = [f"train.data={data}", f"train.model={MODEL}", "train.epochs=3", "train.name=r"]
    config = load_config(sets=[*sets, *(f"train.{word}" for word in FAST)], env={}).config.train

    def stop(epoch: int, epochs: int, metrics: object) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_detector(config, tmp_path / "runs", progress=stop)
    assert read_run(tmp_path / "runs" / "train" / "r").status == "failed"
    epochs: list[int] = []
    resumed = train_detector(
        config.model_copy(update={"resume": True}),
        tmp_path / "runs",
        progress=lambda n, total, metrics: epochs.append(n),
    )
    assert resumed.status == "done"
    assert epochs[-1] == 3
    assert epochs[0] >= 2  # what was finished is not trained again
    assert [p.name for p in (tmp_path / "runs" / "train").iterdir()] == ["r"]
    with pytest.raises(ConfigError, match="finished"):
        train_detector(config.model_copy(update={"resume": True}), tmp_path / "runs")


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
    from fashionrec.detector.train import train_detector

    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.pt").write_bytes(b"not a checkpoint")
    data = trained.parent.parent.parent / "old" / "data.yaml"
    config = load_config(sets=[f"train.data={data}", f"train.model={MODEL}"], env={}).config.train
    with pytest.raises(error) as caught:
        train_detector(config.model_copy(update=change), tmp_path / "runs")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def lively(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose scores move with the picture, as those of two epochs do not.

    Its batch norms are set to what varied pictures give them, and its class biases to zero.
    """
    import torch

    from fashionrec.detector.ultra import load_yolo, quiet

    yolo = load_yolo(str(trained / "weights" / "best.pt"))
    torch.manual_seed(0)
    yolo.model.train()
    for module in yolo.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    coarse = torch.nn.functional.interpolate(torch.rand(16, 3, 8, 8), size=(64, 64), mode="bilinear")
    with torch.no_grad():
        yolo.model(coarse)
    yolo.model.eval()
    for convolutions in yolo.model.model[-1].cv3:
        convolutions[-1].bias.data.zero_()
        convolutions[-1].weight.data.mul_(20)
    path = tmp_path_factory.mktemp("lively") / "lively.pt"
    with quiet(None):
        yolo.save(str(path))
    return path


def test_an_export_agrees_with_its_source_and_serves(lively: Path, tmp_path: Path, config: Config) -> None:
    from fashionrec.detector.detect import Detector
    from fashionrec.detector.export import export_detector

    bundle = export_detector(lively, tmp_path / "bundle")
    assert bundle.agreement["score_difference_max"] <= 1e-3
    assert bundle.agreement["anchors_compared"] > 0
    assert bundle.agreement["detections"] == bundle.agreement["detections_alone"]
    assert list(bundle.spec["labels"].values()) == ["dress", "pants", "skirt&pants", "skirt", "top"]
    assert str(tmp_path) not in json.dumps(bundle.source)
    detector = Detector(bundle, conf=0.05, iou=0.6, max_garments=12)
    photos = [Image.effect_noise(size, 90).convert("RGB") for size in ((90, 70), (300, 200), (64, 64))]
    together = detector.predict(photos)
    assert sum(map(len, together)) > 0
    for photo, found in zip(photos, together, strict=True):
        (alone,) = detector.predict([photo])
        assert np.allclose(alone.boxes, found.boxes, atol=1e-2)
        assert np.allclose(alone.scores, found.scores, atol=1e-5)


@pytest.mark.parametrize("fault", ["scale", "pad", "channels", "batch", "letterbox"])
def test_the_export_gate_refuses_every_planted_fault(
    fault: str, lively: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fashionrec.detector import detect, export
    from fashionrec.detector.families.ultra import reference
    from fashionrec.detector.ultra import load_yolo

    bundle = export.export_detector(lively, tmp_path / "bundle")
    photos = export._photos(())
    source = reference(load_yolo(str(lively)), bundle.spec["imgsz"])
    export.check(source, bundle, photos)
    if fault == "scale":
        bundle.spec["scale"] = 1 / 128
    elif fault == "pad":
        bundle.spec["pad"] = 0
    elif fault == "letterbox":
        monkeypatch.setattr(
            export, "letterbox", lambda photo, side, pad=114: (np.asarray(photo.resize((side, side))), None)
        )
    else:

        class Faulty(detect.Detector):
            def _run(self, values: np.ndarray) -> np.ndarray:
                if fault == "channels":
                    return super()._run(np.ascontiguousarray(values[:, ::-1]))
                outputs = super()._run(values)
                outputs[1:] = 0
                return outputs

        monkeypatch.setattr(export, "Detector", Faulty)
    with pytest.raises(Refused):
        export.check(source, bundle, photos)


def test_a_finetune_ends_in_a_decision_with_its_table(
    trained: Path, tmp_path: Path, cli: Callable[..., Result]
) -> None:
    new = dataset(tmp_path / "new", {"train": 8, "valid": 4, "test": 4}, seed=1)
    old = trained.parent.parent.parent / "old" / "data.yaml"
    done = cli("finetune", "--weights", trained, "--data", new, "--replay", old, "name=ft", "epochs=1", *FAST, "--json")
    assert done.code in (0, 3), done.err
    document = done.document
    assert document["promoted"] is (done.code == 0)
    folder = Path(document["path"])
    assert (folder / "weights" / "best_ft.pt").is_file()
    comparison = json.loads((folder / "comparison.json").read_text())
    assert {row["test_set"] for row in comparison["rows"]} == {"old", "new"}
    for row in comparison["rows"]:
        assert row["difference"] == pytest.approx(row["after"] - row["before"])
    assert "| old | map50_95 |" in (folder / "comparison.md").read_text()
    assert document["notes"]["replayed"] == 8
    assert not list((folder / "weights").glob(".mix*"))


@pytest.mark.parametrize(
    ("old", "new", "promoted"),
    [(-0.4, 1.0, True), (-0.6, 9.0, False), (1.0, -0.1, False), (0.0, 0.0, False), (None, 2.0, True)],
)
def test_promotion_needs_a_gain_and_no_loss_beyond_the_tolerance(old: float | None, new: float, promoted: bool) -> None:
    from fashionrec.detector.finetune import decide

    change = {"new": new} | ({} if old is None else {"old": old})
    comparison = {
        "before": {name: {"map50_95": 0.5} for name in change},
        "after": {name: {"map50_95": 0.5 + points / 100} for name, points in change.items()},
    }
    assert decide(comparison, 0.5)["promoted"] is promoted


def test_weights_are_mixed_by_the_factor() -> None:
    import torch

    from fashionrec.detector.finetune import interpolate

    before = {"w": torch.zeros(2), "n": torch.tensor(1)}
    after = {"w": torch.ones(2), "n": torch.tensor(7)}
    assert interpolate(before, after, 0.25)["w"].tolist() == [0.25, 0.25]
    assert interpolate(before, after, 0.25)["n"] == 7


def test_replay_is_balanced_by_class(tmp_path: Path) -> None:
    from fashionrec.detector.finetune import _balanced_sample

    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    images = []
    for n in range(40):
        kind = 0 if n < 36 else 3
        images.append(tmp_path / "images" / f"{n}.jpg")
        (tmp_path / "labels" / f"{n}.txt").write_text(f"{kind} .5 .5 .1 .1\n")
    chosen = _balanced_sample(images, 8, seed=0)
    assert len(set(chosen)) == 8
    assert sum(int(path.stem) >= 36 for path in chosen) == 4
    assert set(_balanced_sample(images, 100, seed=0)) == set(images)


@pytest.mark.parametrize("own", [None, "1"])
def test_ultralytics_takes_no_core_away_and_what_the_user_set_is_kept(own: str | None) -> None:
    script = (
        "import json, os\n"
        "from fashionrec.detector.ultra import load_ultralytics\n"
        "load_ultralytics()\n"
        "import torch\n"
        "from ultralytics.utils.torch_utils import select_device\n"
        "select_device('cpu', verbose=False)\n"
        "print(json.dumps([torch.get_num_threads(), os.environ.get('OMP_NUM_THREADS')]))\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    plain = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
    alone = subprocess.run(plain, env=env, capture_output=True, text=True, check=True)
    if own:
        env["OMP_NUM_THREADS"] = own
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [int(own or alone.stdout), own]


def test_the_json_of_an_evaluation_keeps_its_contract(cli: Callable[..., Result], trained: Path) -> None:
    data = trained.parents[2] / "old" / "data.yaml"
    done = cli("evaluate", "--weights", trained / "weights" / "best.pt", "--data", data, "--split", "test", "--json")
    assert done.code == 0, done.err
    keeps_its_contract("evaluate-weights", done.document)
