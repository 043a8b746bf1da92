"""A training that is killed goes on in its folder and loses at most one epoch, whatever the kill
left behind.
"""

import csv
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from test_detector_training import FAST, TINY_MODEL, dataset

from fashionrec.config import TrainConfig, config_dir, load_config
from fashionrec.errors import Busy, ConfigError, DataError
from fashionrec.models.runs import Run, read_run

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")

EPOCHS = 4


def settings(data: Path, name: str, *more: str) -> TrainConfig:
    words = (f"data={data}", f"model={TINY_MODEL}", f"epochs={EPOCHS}", f"name={name}", *FAST, *more)
    return load_config(sets=[f"train.{word}" for word in words], env={}).config.train


def epochs_of(folder: Path) -> list[int]:
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def train(
    config: TrainConfig, runs: Path, stop_after: int | None = None, **options: Any
) -> tuple[Run | None, list[int]]:
    """Train in this process; interrupted when that epoch is told, after its checkpoint, as a kill
    would stop it there.
    """
    from fashionrec.detector.training.train import train_detector

    told: list[int] = []

    def progress(epoch: int, epochs: int, figures: object) -> None:
        told.append(epoch)
        if epoch == stop_after:
            raise KeyboardInterrupt

    try:
        return train_detector(config, runs, progress=progress, **options), told
    except KeyboardInterrupt:
        return None, told


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data") / "d", {"train": 8, "valid": 4})


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its third epoch."""
    runs = tmp_path_factory.mktemp("stopped")
    assert train(settings(data, "r"), runs, stop_after=3) == (None, [1, 2, 3])
    return runs / "train" / "r"


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run, told = train(settings(data, "u"), tmp_path_factory.mktemp("unbroken"))
    assert told == [1, 2, 3, 4]
    assert run is not None
    return run


@pytest.fixture
def broken(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run, to be broken further."""
    folder = tmp_path / "runs" / "train" / "r"
    shutil.copytree(stopped, folder)
    return folder


def checkpoint(path: Path, **changes: Any) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    if changes:
        torch.save(found | changes, path)
    return found


def recovered(folder: Path, patience: int = 15) -> Any:
    from fashionrec.detector.training.resume import recover

    return recover(read_run(folder), patience)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_torn_last_checkpoint_costs_one_epoch(broken: Path, data: Path) -> None:
    tear(broken / "weights" / "last.pt")
    before = read_run(broken).seconds
    run, told = train(settings(data, "r", "resume=true"), broken.parents[1])
    assert told == [3, 4]
    assert epochs_of(broken) == [1, 2, 3, 4]
    assert run is not None
    assert (run.status, run.epochs, run.notes["resumed"]) == ("done", 4, 1)
    assert sorted(path.name for path in (broken / "weights").iterdir()) == ["best.pt", "last.pt"]
    assert run.seconds > before


def test_a_resumed_training_does_not_see_the_first_epoch_again(
    broken: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ultralytics seeds the order of the photos, and what is done to them, from the
    setting alone.
    """
    from ultralytics.models.yolo.detect import DetectionTrainer

    seen: list[list[str]] = []
    preprocess = DetectionTrainer.preprocess_batch

    def watching(self: Any, batch: dict[str, Any]) -> Any:
        seen.append([Path(name).name for name in batch["im_file"]])
        return preprocess(self, batch)

    monkeypatch.setattr(DetectionTrainer, "preprocess_batch", watching)
    train(settings(data, "n"), tmp_path / "new", stop_after=1)
    train(settings(data, "m"), tmp_path / "new", stop_after=1)
    train(settings(data, "r", "resume=true"), broken.parents[1], stop_after=4)
    first, again, resumed = seen
    assert first == again
    assert first != resumed
    assert sorted(first) == sorted(resumed)


def test_with_every_checkpoint_torn_it_begins_anew_in_its_folder(broken: Path, data: Path) -> None:
    for path in (broken / "weights").iterdir():
        tear(path)
    created = read_run(broken).created
    run, told = train(settings(data, "r", "resume=true"), broken.parents[1])
    assert told == [1, 2, 3, 4]
    assert epochs_of(broken) == [1, 2, 3, 4]
    assert run is not None
    assert run.created == created


def test_checkpoints_of_the_run_whose_place_it_took_do_not_count(broken: Path) -> None:
    run = read_run(broken)
    run.created = "2999-01-01T00:00:00+00:00"
    run.status = "failed"
    run.save()
    assert recovered(broken) is None


def test_rows_of_epochs_that_were_not_saved_are_taken_back(broken: Path) -> None:
    results = broken / "results.csv"
    whole = results.read_text()
    last = whole.splitlines()[-1]
    results.write_text(whole + last.replace("3,", "4,", 1) + "\n" + "5,0.1,0.")
    assert recovered(broken).epochs == 3
    assert results.read_text() == whole


@pytest.mark.parametrize("fault", ["missing", "torn", "stale"])
def test_a_best_checkpoint_that_the_kill_prevented_is_made(fault: str, broken: Path) -> None:
    """last.pt is written before best.pt; a kill between them leaves the best epoch's weights in
    last.pt alone.
    """
    last, best = broken / "weights" / "last.pt", broken / "weights" / "best.pt"
    checkpoint(last, best_fitness=0.5, train_metrics={"fitness": 0.5})
    if fault == "missing":
        best.unlink()
    elif fault == "torn":
        tear(best)
    else:
        checkpoint(best, epoch=1)
    recovered(broken)
    assert checkpoint(best)["epoch"] == 2


def test_an_older_best_checkpoint_that_is_the_best_stays(broken: Path) -> None:
    last, best = broken / "weights" / "last.pt", broken / "weights" / "best.pt"
    checkpoint(last, best_fitness=0.5, train_metrics={"fitness": 0.4})
    checkpoint(best, epoch=1)
    recovered(broken)
    assert checkpoint(best)["epoch"] == 1


@pytest.mark.parametrize(("best_epoch", "finish"), [(3, False), (2, False), (1, True), (0, False)])
def test_a_training_that_had_stopped_early_only_ends(best_epoch: int, finish: bool, broken: Path) -> None:
    checkpoint(broken / "weights" / "last.pt", stopper={"best_fitness": 0.5, "best_epoch": best_epoch})
    assert recovered(broken, patience=2).finish is finish


@pytest.mark.parametrize("moment", [pytest.param("last", marks=pytest.mark.slow), "best", "validation"])
def test_killed_at_the_end_it_only_ends_with_the_same_outcome(
    moment: str, data: Path, unbroken: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while last.pt is stripped, while best.pt is, and while the best weights are
    validated.
    """
    import torch
    from ultralytics.models.yolo.detect import DetectionValidator
    from ultralytics.utils import torch_utils

    strip, validate = torch_utils.strip_optimizer, DetectionValidator.__call__

    def stripping(file: Path, *arguments: Any, **named: Any) -> Any:
        if Path(file).stem == moment:
            raise KeyboardInterrupt
        return strip(file, *arguments, **named)

    def validating(self: Any, trainer: Any = None, model: Any = None) -> Any:
        if moment == "validation" and model is not None:
            raise KeyboardInterrupt
        return validate(self, trainer, model)

    with monkeypatch.context() as patch:
        patch.setattr(torch_utils, "strip_optimizer", stripping)
        patch.setattr(DetectionValidator, "__call__", validating)
        assert train(settings(data, "r"), tmp_path)[0] is None
    run, told = train(settings(data, "r", "resume=true"), tmp_path)
    assert told == []
    assert run is not None
    assert run.epochs == EPOCHS
    assert run.metrics == unbroken.metrics
    assert epochs_of(run.path) == epochs_of(unbroken.path)
    ours, theirs = (checkpoint(path.weights_path("best"))["model"].state_dict() for path in (run, unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fashionrec.detector.training.trainer import WholePath

    path = WholePath(tmp_path / "weights") / "last.pt"
    path.parent.mkdir()
    path.write_bytes(b"first")

    def crash(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        path.write_bytes(b"second, longer than the first")
    assert path.read_bytes() == b"first"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lr0=0.5", "began with lr0=0.01 and cannot be resumed with lr0=0.5"),
        ("epochs=9", "began with epochs=4"),
        ("mosaic=0.5", "began with mosaic=0.0"),
        ("degrees=5", "began with no degrees"),
        ("model=yolov8n.yaml", "began with model="),
    ],
)
def test_other_settings_are_refused(change: str, message: str, broken: Path, data: Path) -> None:
    before = (broken / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=message):
        train(settings(data, "r", "resume=true", change), broken.parents[1])
    assert (broken / "run.json").read_bytes() == before


def test_other_data_is_refused_and_the_same_elsewhere_is_not(broken: Path, data: Path, tmp_path: Path) -> None:
    from fashionrec.detector.training.resume import same_settings, unfinished
    from fashionrec.labels.data_yaml import dataset_fingerprint

    moved = tmp_path / "moved"
    shutil.copytree(data.parent, moved)
    config = settings(moved / "data.yaml", "r", "resume=true", "batch=4", "device=0")
    run = unfinished(broken.parent, "r")
    same_settings(run, config, dataset_fingerprint(moved / "data.yaml"))
    label = next((moved / "train" / "labels").iterdir())
    label.write_text(label.read_text() + "0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match="is not the data of run"):
        train(config.model_copy(update={"device": "cpu"}), broken.parents[1])


def test_a_run_that_another_process_trains_is_left_alone(broken: Path, data: Path) -> None:
    script = (
        "import sys, time, pathlib\nfrom fashionrec.models.runs import read_run\n"
        "run = read_run(pathlib.Path(sys.argv[1]))\nrun.status = 'running'\nrun.save()\nprint('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(broken)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert read_run(broken).state == "running"
        with pytest.raises(Busy, match="another process is training"):
            train(settings(data, "r", "resume=true"), broken.parents[1], wait=0.3)
        with pytest.raises(ConfigError, match="no unfinished run"):
            train(settings(data, "r", "resume=true").model_copy(update={"name": None}), broken.parents[1])
    finally:
        other.kill()
        other.wait()
    assert read_run(broken).state == "killed"


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    """The real command line, in a process of its own and one thread, as trainings side by side
    should be.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "fashionrec", "train", *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_and_resumed_by_the_command_line(data: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    process = command(tmp_path, f"data={data}", f"model={TINY_MODEL}", "epochs=30", "name=k", "lr0=0.02", *FAST)
    folder = tmp_path / "runs" / "train" / "k"
    while process.poll() is None and not (folder / "results.csv").is_file():
        time.sleep(0.02)
    kill(process)
    before = read_run(folder)
    assert before.state == "killed"
    assert cli("runs", "list", "--json").document["runs"][0]["state"] == "killed"
    done = cli("train", "--resume", "--json")
    assert done.code == 0, done.err
    assert "resuming k" in done.err
    after = read_run(folder)
    assert (after.status, after.promoted, after.epochs) == ("done", True, 30)
    assert after.seconds > before.seconds
    assert after.config["train"]["lr0"] == 0.02
    assert epochs_of(folder) == list(range(1, 31))
    again = cli("train", "--resume")
    assert (again.code, again.out) == (2, "")
    assert "no unfinished run" in again.err


def test_an_encoder_cannot_be_resumed(tmp_path: Path, cli: Callable[..., Result]) -> None:
    (tmp_path / "products.csv").write_text("image,product_id\n")
    done = cli("train", "--resume", "data=products.csv")
    assert done.code == 2
    assert "encoder cannot be resumed" in done.err


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_killed_at_random_ten_of_ten_end_as_well_as_unbroken_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of ten trainings is killed once or twice, anywhere from its start to its end, and
    resumed.
    """
    data = dataset(tmp_path / "d", {"train": 128, "valid": 96})
    model = config_dir() / "models" / "yolov8-demo.yaml"
    learn = ("epochs=24", "optimizer=AdamW", "lr0=0.005", "warmup_epochs=1", "nbs=8", "translate=0", "scale=0.2")
    chance = random.Random(0)
    seeds = range(5)

    def words(name: str, seed: int) -> Sequence[str]:
        return (f"data={data}", f"model={model}", f"name={name}", f"seed={seed}", *learn, *FAST)

    def outcome(name: str) -> Run:
        run = read_run(tmp_path / "runs" / "train" / name)
        assert (run.status, run.epochs) == ("done", 24)
        assert epochs_of(run.path) == list(range(1, 25))
        assert sorted(path.name for path in (run.path / "weights").iterdir()) == ["best.pt", "last.pt"]
        return run

    taken, calm = [], []
    for seed in seeds:
        start = time.perf_counter()
        process = command(tmp_path, *words(f"calm{seed}", seed))
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        taken.append(time.perf_counter() - start)
        calm.append(outcome(f"calm{seed}").metrics["map50_95"])
    killed, moments = [], []
    for number in range(10):
        name, again = f"killed{number}", False
        for _ in range(chance.choice((1, 2))):
            process = command(tmp_path, *(("--resume", f"name={name}") if again else words(name, number % 5)))
            moment = chance.uniform(0.02, 1.0) * min(taken)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                kill(process)
                folder = tmp_path / "runs" / "train" / name
                again = (folder / "run.json").is_file()
                moments.append(f"{name} after {moment:.1f} s, epoch {read_run(folder).epochs if again else 'none yet'}")
            else:
                process.communicate()
                assert process.returncode == 0
                again = True
        if not again or read_run(tmp_path / "runs" / "train" / name).status != "done":
            process = command(tmp_path, *(("--resume", f"name={name}") if again else words(name, number % 5)))
            _, errors = process.communicate()
            assert process.returncode == 0, errors
        killed.append(outcome(name).metrics["map50_95"])
    spread = statistics.stdev(calm)
    difference = statistics.mean(killed) - statistics.mean(calm)
    lines = [
        f"unbroken: {', '.join(f'{value:.3f}' for value in calm)}; standard deviation {spread:.3f}",
        f"killed: {', '.join(f'{value:.3f}' for value in killed)}; mean {difference:+.3f} of the unbroken ones'",
        *moments,
    ]
    with capsys.disabled():
        sys.stdout.write("\nmAP50-95\n" + "".join(f"  {line}\n" for line in lines))
    assert len(moments) >= 10
    assert abs(difference) <= 2.2 * spread * (1 / len(calm) + 1 / len(killed)) ** 0.5
