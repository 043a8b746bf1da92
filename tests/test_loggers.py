"""Test where a training's curves go, and how far a training in other processes is: what is set
meanwhile and left behind.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fashionrec.errors import FashionrecError, MissingExtra

pytest.importorskip("ultralytics")
pytestmark = pytest.mark.train


def test_services_that_are_not_installed_are_named() -> None:
    from fashionrec.detector.training.loggers import need_loggers

    need_loggers(["json"])
    with pytest.raises(MissingExtra, match="no_such_service needs the package no_such_service") as caught:
        need_loggers(["json", "no_such_service"])
    assert caught.value.hint == "pip install no_such_service"


def test_only_what_was_asked_for_is_on_and_only_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.utils import SETTINGS

    from fashionrec.detector.training.loggers import SWITCHES, switched

    monkeypatch.setenv("ULTRALYTICS_API_KEY", "theirs")
    names = (*SWITCHES, "api_key", "sync")
    before = {name: dict.get(SETTINGS, name) for name in names}

    def train() -> None:
        with switched(["mlflow", "wandb"]):
            assert {name: dict.get(SETTINGS, name) for name in names} == {
                **dict.fromkeys(("clearml", "comet", "dvc", "raytune", "tensorboard", "sync"), False),
                **dict.fromkeys(("mlflow", "wandb"), True),
                "api_key": "",
            }
            assert "ULTRALYTICS_API_KEY" not in os.environ
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert {name: dict.get(SETTINGS, name) for name in names} == before
    assert os.environ["ULTRALYTICS_API_KEY"] == "theirs"
    monkeypatch.delenv("ULTRALYTICS_API_KEY")
    with switched([]):
        pass
    assert "ULTRALYTICS_API_KEY" not in os.environ


def test_services_are_told_what_the_environment_leaves_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fashionrec.detector.training.loggers import places

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://theirs.test")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "")
    stdin = sys.stdin
    with places(["mlflow", "wandb"], tmp_path):
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://theirs.test"
        assert os.environ["MLFLOW_EXPERIMENT_NAME"] == "fashionrec"
        assert sys.stdin.read() == ""  # nobody would see a question
    assert "MLFLOW_EXPERIMENT_NAME" not in os.environ
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://theirs.test"
    assert sys.stdin is stdin
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    with places(["mlflow"], tmp_path):
        assert (os.environ["MLFLOW_EXPERIMENT_NAME"], sys.stdin) == ("mine", stdin)
    assert os.environ["MLFLOW_EXPERIMENT_NAME"] == "mine"


@pytest.mark.parametrize(
    ("names", "active", "writer", "said"),
    [
        ((), False, None, None),
        (("wandb",), False, None, None),
        (("mlflow",), True, None, None),
        (("mlflow", "tensorboard"), True, object(), None),
        (("mlflow",), False, object(), "mlflow"),
        (("tensorboard",), True, None, "tensorboard"),
        (("mlflow", "tensorboard"), False, None, "tensorboard and mlflow"),
    ],
)
def test_a_service_that_did_not_begin_stops_the_training(
    names: tuple[str, ...], active: bool, writer: object, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.utils.callbacks import tensorboard

    from fashionrec.detector.training.loggers import started

    monkeypatch.setattr(tensorboard, "WRITER", writer, raising=False)
    trainer = SimpleNamespace(_mlflow_active=active)
    if said is None:
        started(trainer, names)
    else:
        with pytest.raises(FashionrecError, match=f"^cannot write to {said}$"):
            started(trainer, names)


def test_how_far_other_processes_are(tmp_path: Path) -> None:
    from fashionrec.detector.training.gpus import last_epoch, watched

    results = tmp_path / "results.csv"
    told: list[int] = []
    assert last_epoch(results) == 0
    with watched(results, told.append):
        results.write_text("epoch,time\r\n\r\n  3 ,9\r\n 12,9\r\n10,9\r\nnan,1\r\n")
    assert last_epoch(results) == 12
    assert told == [12]
    with watched(results, told.append):
        pass
    assert told == [12]  # nothing new


def test_what_the_library_says_goes_to_the_log_and_its_handlers_come_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from fashionrec.detector.training.ultra import quiet

    logger, own, theirs = logging.getLogger("ultralytics"), io.StringIO(), io.StringIO()
    handlers: list[logging.Handler] = [logging.NullHandler(), logging.StreamHandler(own)]
    log = tmp_path / "train.log"
    log.write_text("before\n")
    for handler in handlers:
        logger.addHandler(handler)
    try:
        with quiet(log):
            sys.stdout.write("printed \udc80\n")
            sys.stderr.write("to stderr\n")
            logger.warning("logged")
            late, other = logging.StreamHandler(sys.stderr), logging.StreamHandler(theirs)
            handlers += [late, other]
            logger.addHandler(late)
            logger.addHandler(other)
        assert late.stream is sys.__stderr__
        assert other.stream is theirs
        logger.removeHandler(late)
        logger.warning("after")
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["before", "printed ?", "to stderr"]
    assert [line for line in lines if "logged" in line]
    for stream in (own, theirs):
        assert (stream.getvalue().count("\n"), stream.getvalue().endswith("after\n")) == (1, True)
    assert "logged" not in "".join(capfd.readouterr())
