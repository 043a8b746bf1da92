"""Detectors' checkpoints that are not whole, or hold code: refused with their reason, and nothing
of them runs.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import yaml
from conftest import Result
from test_detector_training import FAST, TINY_MODEL, dataset

from fashionrec.config import load_config
from fashionrec.errors import ModelError
from fashionrec.labels.data_yaml import read_data_yaml
from fashionrec.models.bundle import Bundle
from fashionrec.models.runs import start_run

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")
pytest.importorskip("ultralytics")

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A whole checkpoint, and the data that it was trained on."""
    from fashionrec.detector.training.train import train_detector

    folder = tmp_path_factory.mktemp("trained")
    data = dataset(folder / "data", {"train": 8, "valid": 4, "test": 4})
    words = ("epochs=1", f"data={data}", f"model={TINY_MODEL}", *FAST)
    run = train_detector(load_config(sets=[f"train.{word}" for word in words], env={}).config.train, folder / "runs")
    return run.weights_path("best"), data


def changed(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    from fashionrec.detector.training.pickles import load_pickle
    from fashionrec.detector.training.ultra import load_ultralytics

    load_ultralytics()
    checkpoint = load_pickle(source)
    change(checkpoint)
    torch.save(checkpoint, target)
    return target


def members(source: Path, target: Path, keep: Callable[[str], bool], pack: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", pack) as new:
        for name in filter(keep, old.namelist()):
            new.writestr(name, old.read(name))
    return target


def _renamed(checkpoint: dict[str, Any]) -> None:
    model = checkpoint["model"]
    model.model = torch.nn.Sequential(model.model)  # as wrapped: model.0.0.conv.weight


def _without_a_layer(checkpoint: dict[str, Any]) -> None:
    checkpoint["model"].model[0].conv._parameters["weight"] = None


def _with_another(checkpoint: dict[str, Any]) -> None:
    checkpoint["model"].model[0].register_buffer("more", torch.zeros(2))


def _not_finite(value: float) -> Callable[[dict[str, Any]], None]:
    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["model"].model[1].bn.running_var[0] = value

    return change


def _of_another_width(checkpoint: dict[str, Any]) -> None:
    checkpoint["model"].yaml["backbone"][0][3][0] = 16


def _of_other_classes(checkpoint: dict[str, Any]) -> None:
    checkpoint["model"].names = {0: "dress"}


def _tensors_only(checkpoint: dict[str, Any]) -> None:
    checkpoint["model"] = {f"module.{name}": value for name, value in checkpoint["model"].state_dict().items()}


def _evaluated(checkpoint: dict[str, Any]) -> None:
    checkpoint["model"].yaml["activation"] = "__import__('os').mkdir('CANARY_7f3a')"


def _broken(kind: str, source: Path, folder: Path) -> Path:
    target, size = folder / "broken.pt", source.stat().st_size
    changes = {
        "renamed": _renamed,
        "a layer missing": _without_a_layer,
        "a tensor too many": _with_another,
        "NaN": _not_finite(float("nan")),
        "infinite": _not_finite(float("inf")),
        "wrong architecture": _of_another_width,
        "wrong classes": _of_other_classes,
        "tensors only": _tensors_only,
        "evaluated activation": _evaluated,
        "a canary": lambda checkpoint: checkpoint.update(more=hostile.Ran(folder)),
    }
    if kind in changes:
        return changed(source, target, changes[kind])
    if kind == "half its parts":
        return members(source, target, lambda name: not name.rpartition("/")[2].isdigit() or len(name) % 2 == 0)
    if kind == "packed":
        return members(source, target, lambda name: True, zipfile.ZIP_DEFLATED)
    if kind == "a plain pickle with a canary":
        return hostile.raw_pickle(target, folder)
    content = {
        "truncated": lambda: source.read_bytes()[: size // 2],
        "a pointer": POINTER.encode,
        "a web page": lambda: b"<!DOCTYPE html>\n<html><body>404</body></html>",
        "empty": lambda: b"",
        "zeros": lambda: bytes(4096),
    }
    target.write_bytes(content[kind]())
    return target


BROKEN = {
    "renamed": "tensors are missing: model.0.conv.weight",
    "a layer missing": "1 tensor is missing: model.0.conv.weight",
    "a tensor too many": "1 tensor is unknown: model.0.more",
    "NaN": "not finite (NaN or infinite): model.1.bn.running_var",
    "infinite": "not finite (NaN or infinite): model.1.bn.running_var",
    "wrong architecture": "model.0.conv.weight (8x3x3x3 instead of 16x3x3x3)",
    "wrong classes": "1 class names, but nc is 5",
    "tensors only": "no model, only tensors",
    "evaluated activation": "activation: ",
    "a canary": "loading it would call os.makedirs",
    "a plain pickle with a canary": "loading it would call os.makedirs",
    "half its parts": "a part is missing, data/",
    "packed": "it is compressed, which torch never does",
    "truncated": "it is truncated",
    "a pointer": "Git LFS pointer",
    "a web page": "a web page",
    "empty": "the file is empty",
    "zeros": "filled with zeros",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_not_whole_is_neither_exported_nor_trained_nor_evaluated(
    kind: str, trained: tuple[Path, Path], cli: Callable[..., Result], tmp_path: Path
) -> None:
    source, data = trained
    broken = _broken(kind, source, tmp_path)
    before = sorted(tmp_path.iterdir())
    commands = {
        "export": ("export", broken, "--out", tmp_path / "bundle"),
        "train": ("train", f"model={broken}", f"data={data}", "epochs=1", *FAST),
        "pretrained": ("train", f"model={TINY_MODEL}", f"pretrained={broken}", f"data={data}", "epochs=1", *FAST),
        "finetune": ("finetune", "--weights", broken, "--data", data, "epochs=1", *FAST),
        "evaluate": ("evaluate", "--weights", broken, "--data", data),
    }
    for command, words in commands.items():
        done = cli(*words)
        assert done.code == 2, f"{command}: {done.err}"
        assert BROKEN[kind] in done.err, command
        assert "broken.pt" in done.err
    assert hostile.ran(tmp_path) == []
    assert sorted(tmp_path.iterdir()) == before


def test_two_exports_of_one_checkpoint_have_one_fingerprint(
    trained: tuple[Path, Path], cli: Callable[..., Result], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        assert cli("export", trained[0], "--out", tmp_path / name).code == 0
    first, second = (Bundle.open(tmp_path / name, "detector") for name in ("a", "b"))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    "layer",
    ["ultralytics.nn.tasks DetectionModel", "ultralytics.nn.modules.block TorchVision", "torch.nn.modules.conv Conv2d"],
)
def test_a_constructor_of_a_layer_is_not_called(layer: str, tmp_path: Path) -> None:
    """ultralytics' own safe loader calls them:

    DetectionModel opens a file, TorchVision fetches weights.
    """
    from fashionrec.detector.training.ultra import load_yolo

    data = b"\x80\x02c" + layer.replace(" ", "\n").encode() + b"\nX\x06\x00\x00\x00x.yaml\x85R."
    with pytest.raises(ModelError, match=f"would call {layer.replace(' ', '.')}"):
        load_yolo(str(hostile.archive(tmp_path / "x.pt", data)))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "os.system"),
        (b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", "builtins.eval"),
        (b"\x80\x02ctorch.hub\nload\nX\x01\x00\x00\x001\x85R.", "torch.hub.load"),
        (b"\x80\x02cultralytics.utils.downloads\nsafe_download\nX\x01\x00\x00\x001\x85R.", "safe_download"),
        (b"\x80\x02cultralytics.nn.autobackend\nAutoBackend\n)R.", "AutoBackend"),
        (b"\x80\x02cbuiltins\ngetattr\n\x80\x02cos\nsystem\nX\x01\x00\x00\x001\x86R.", "os.system"),
        (b"\x80\x02ctorch.nn.modules.conv\nos\n.", "torch.nn.modules.conv.os"),
        (b"\x80\x02cultralytics.nn.tasks\nparse_model\n)R.", "parse_model"),
        (pickle.dumps(print, protocol=4), "builtins.print"),
        (pickle.dumps(io.open, protocol=5), "open"),
    ],
)
def test_globals_that_are_not_layers_are_named(data: bytes, named: str, tmp_path: Path) -> None:
    from fashionrec.detector.training.ultra import load_yolo

    for path in (hostile.archive(tmp_path / "zip.pt", data), tmp_path / "raw.pt"):
        if path.name == "raw.pt":
            path.write_bytes(data)
        with pytest.raises(ModelError, match="contains code") as caught:
            load_yolo(str(path))
        assert named in str(caught.value)
        assert "--trust-pickle" in caught.value.hint


def test_getattr_reaches_nothing_but_the_forward_of_a_layer(tmp_path: Path) -> None:
    from fashionrec.detector.training.ultra import load_yolo

    name = b"__init__"
    word = b"X" + len(name).to_bytes(4, "little") + name
    data = b"\x80\x02cbuiltins\ngetattr\nctorch.nn.modules.conv\nConv2d\n" + word + b"\x86R."
    with pytest.raises(ModelError, match="would call getattr of '__init__'"):
        load_yolo(str(hostile.archive(tmp_path / "x.pt", data)))


def test_a_foreign_pickle_runs_where_the_user_says_so_and_only_then(
    trained: tuple[Path, Path], cli: Callable[..., Result], tmp_path: Path
) -> None:
    source, data = trained
    theirs = changed(source, tmp_path / "theirs.pt", lambda found: found.update(more=hostile.Ran(tmp_path)))
    done = cli("export", theirs, "--out", tmp_path / "bundle", "--trust-pickle")
    assert done.code == 0, done.err
    assert ", because of --trust-pickle" in done.err
    known = len(hostile.ran(tmp_path))
    assert known > 0
    words = ("train", f"model={theirs}", f"data={data}", "epochs=1", "name=t", *FAST)
    assert cli(*words).code == 2
    assert cli("export", theirs, "--out", tmp_path / "again").code == 2
    assert len(hostile.ran(tmp_path)) == known
    done = cli(*words, "--trust-pickle")
    assert done.code == 0, done.err
    assert "trust" not in (tmp_path / "runs" / "train" / "t" / "run.json").read_text()
    (tmp_path / "theirs.yaml").write_text(f"train:\n  model: {theirs}\n")
    done = cli("train", "--config", tmp_path / "theirs.yaml", f"data={data}", "epochs=1", *FAST, "--trust-pickle")
    assert done.code == 2
    assert "on the same command line" in done.err


def _fused(checkpoint: dict[str, Any]) -> None:
    checkpoint["model"].float().fuse(verbose=False)


@pytest.mark.parametrize("change", [_fused, lambda checkpoint: checkpoint["model"].float()], ids=["fused", "float32"])
def test_what_is_whole_is_exported(
    change: Callable[[dict[str, Any]], None], trained: tuple[Path, Path], cli: Callable[..., Result], tmp_path: Path
) -> None:
    whole = changed(trained[0], tmp_path / "whole.pt", change)
    done = cli("export", whole, "--out", tmp_path / "bundle")
    assert done.code == 0, done.err


def test_a_checkpoint_of_other_classes_is_trained_on_from(
    trained: tuple[Path, Path], cli: Callable[..., Result], tmp_path: Path
) -> None:
    data = dataset(tmp_path / "d", {"train": 4, "valid": 4})
    document = yaml.safe_load(data.read_text())
    names = [*read_data_yaml(data).names.values(), "hat", "shoe"]
    data.write_text(yaml.safe_dump(document | {"names": names, "nc": len(names)}))
    done = cli("train", f"model={trained[0]}", f"data={data}", "epochs=1", "name=x", *FAST)
    assert done.code == 0, done.err


def test_a_training_that_goes_on_opens_no_file_that_its_checkpoint_names(
    trained: tuple[Path, Path], cli: Callable[..., Result], tmp_path: Path
) -> None:
    """ultralytics takes all settings of a resumed training from ``last.pt``: where to write, what
    to read.
    """
    data = trained[1]
    fast = (f"data={data}", f"model={TINY_MODEL}", "epochs=2", "save_period=1", "name=r", *FAST)
    assert cli("train", *fast).code == 0
    folder = tmp_path / "runs" / "train" / "r"
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(f"{data.read_text()}path: nowhere\ndownload: {hostile.python_code(tmp_path)}\n")
    evil = hostile.raw_pickle(tmp_path / "evil.pt", tmp_path)

    def elsewhere(checkpoint: dict[str, Any]) -> None:
        place = {"project": str(tmp_path / "theirs"), "name": "x", "save_dir": str(tmp_path / "theirs")}
        named = {"data": str(theirs), "pretrained": str(evil), "distill_model": str(evil), "model": str(evil)}
        checkpoint["train_args"].update(place | named | {"augmentations": [{"__class_fullname__": "os.system"}]})

    changed(folder / "weights" / "epoch0.pt", folder / "weights" / "last.pt", elsewhere)
    (folder / "weights" / "best.pt").unlink()
    record = folder / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "failed"}))
    done = cli("train", "--resume", "name=r")
    assert done.code == 0, done.err
    assert "after epoch 1" in done.err
    assert hostile.ran(tmp_path) == []
    assert not (tmp_path / "theirs").exists()


def test_a_run_of_others_does_not_say_what_is_fetched(cli: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "train" / "r"
    run = start_run(folder.parent, "r", kind="detector", verb="train")
    run.config, run.status = {"train": {"model": "https://127.0.0.1:1/x.pt", "data": "d"}}, "failed"
    run.save()
    done = cli("train", "--resume", "name=r")
    assert done.code == 2
    assert "would download model=https://127.0.0.1:1/x.pt" in done.err
