"""Several GPUs, as far as a machine without one can tell: what reaches the processes that train,
and what comes back.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from test_detector_training import FAST, TINY_MODEL, dataset

from fashionrec.config import load_config
from fashionrec.models.runs import read_run

pytestmark = pytest.mark.train
pytest.importorskip("ultralytics")

#: One process as torch.distributed would start it, of a world of one, on the CPU. ultralytics
#: scales the loss by the number of GPUs, here none, so nothing is learnt.
WORKER = """
import os, runpy, sys, tempfile
os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
import torch.distributed
torch.distributed.init_process_group("gloo", init_method="file://" + tempfile.mktemp(), rank=0, world_size=1)
print("from the other process")
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_a_run_trains_in_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    pytest.importorskip("cloudpickle", "3.1.1")
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.utils import dist

    from fashionrec.detector.training.gpus import last_epoch
    from fashionrec.detector.training.train import train_detector

    monkeypatch.setattr(DetectionTrainer, "ddp", property(lambda self: True, lambda self, value: None), raising=False)

    def command(trainer: Any) -> tuple[list[str], str]:
        assert trainer.resume  # else it would remove the run's folder
        file = dist.generate_ddp_file(trainer)
        return [sys.executable, "-c", WORKER, file], file

    monkeypatch.setattr(dist, "generate_ddp_command", command)
    data = dataset(tmp_path / "d", {"train": 8, "valid": 4})
    words = (f"data={data}", f"model={TINY_MODEL}", "epochs=3", "name=g", "balance=sample", *FAST)
    config = load_config(sets=[f"train.{word}" for word in words], env={}).config.train
    epochs: list[int] = []
    run = train_detector(
        config,
        tmp_path / "runs",
        progress=lambda epoch, of, figures: epochs.append(epoch),
        devices=lambda device: 2,
    )
    assert (run.status, run.promoted, run.epochs) == ("done", True, 3)
    assert set(run.metrics) == {"map50", "map50_95", "precision", "recall", "per_class", "split"}
    assert last_epoch(run.path / "results.csv") == 3
    assert epochs[-1] == 3
    assert epochs == sorted(epochs)
    assert "from the other process" in (run.path / "train.log").read_text()
    assert "from the other process" not in "".join(capfd.readouterr())
    assert sorted(path.name for path in (run.path / "weights").iterdir()) == ["best.pt", "last.pt"]
    assert not (run.path / ".metrics.json").exists()
    assert read_run(run.path).state == "done"


def test_a_failure_in_other_processes_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from ultralytics.utils import dist

    from fashionrec.detector.training.gpus import launch
    from fashionrec.errors import FashionrecError

    monkeypatch.setattr(dist, "generate_ddp_command", lambda trainer: ([sys.executable, "-c", "1 / 0"], "none"))
    trainer = SimpleNamespace(resume=False, save_dir=tmp_path, args=SimpleNamespace(device="0,1", rect=True))
    with pytest.raises(FashionrecError, match="device=0,1 ended with exit code 1"):
        launch(trainer, tmp_path / "train.log")
    assert "ZeroDivisionError" in (tmp_path / "train.log").read_text()
    assert trainer.resume is False


@pytest.mark.parametrize("device", ["0", "0,1", "[0,1]", "abc"])
def test_a_device_that_is_not_here_is_one_line_before_anything_starts(
    device: str, tmp_path: Path, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = dataset(tmp_path / "d", {"train": 2, "valid": 2})
    done = cli("train", f"data={data}", f"model={TINY_MODEL}", f"device={device}")
    assert done.code == 2
    assert "torch sees no GPUs" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("device", "count"), [("cpu", 1), (None, 1), (0, 1), ("0", 1), ("0,1", 2), ([0, 1], 2), ("cuda:1", 1)]
)
def test_devices_are_counted_as_ultralytics_reads_them(
    device: Any, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from ultralytics.utils import torch_utils

    from fashionrec.detector.training import gpus

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch_utils, "select_device", lambda device, verbose: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert gpus.check_device(device) == count


def test_mixed_precision_is_checked_without_a_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ultralytics' own check fetches a model into the working directory; of GPUs known to fail it
    still says no.
    """
    from types import SimpleNamespace

    import torch
    import ultralytics
    from ultralytics.utils import downloads

    from fashionrec.detector.training.trainer import check_amp_offline

    def fetched(*arguments: object, **named: object) -> None:
        raise AssertionError("a download")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(downloads, "safe_download", fetched)
    model = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda", 0))]))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    kind = ultralytics.YOLO
    assert check_amp_offline(model) is True
    assert ultralytics.YOLO is kind
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce GTX 1660")
    assert check_amp_offline(model) is False
