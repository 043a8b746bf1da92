"""Checkpoints of EfficientDet and Faster R-CNN that are not whole: refused with their reason, also
as a starting point.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Result
from test_checkpoints_detector import POINTER
from test_detector_training import dataset

from fashionrec.errors import ModelError

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")
pytest.importorskip("effdet")
pytest.importorskip("torchvision")

MODELS = {"effdet": ("efficientdet_d0", 128), "torchvision": ("fasterrcnn_mobilenet_v3_large_320_fpn", 64)}
NAMES = {0: "dress", 1: "pants", 2: "skirt&pants", 3: "skirt", 4: "t-shirt"}


@pytest.fixture(scope="module", params=MODELS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as a training writes it."""
    from fashionrec.detector.training.families import family_module
    from fashionrec.detector.training.families.checkpoint import About, save_weights

    model, side = MODELS[request.param]
    about = About(request.param, model, NAMES, side)
    path = tmp_path_factory.mktemp("whole") / request.param / "best.safetensors"
    path.parent.mkdir()
    save_weights(path, family_module(request.param).build(about).model, about)
    return path


Tensors = dict[str, "torch.Tensor"]


def _first(tensors: Tensors) -> str:
    return next(name for name, value in tensors.items() if value.is_floating_point() and value.ndim == 4)


def _renamed(tensors: Tensors) -> Tensors:
    return {f"module.{name}": value for name, value in tensors.items()}


def _missing(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if name != _first(tensors)}


def _half(tensors: Tensors) -> Tensors:
    return dict(list(tensors.items())[: len(tensors) // 2])


def _more(tensors: Tensors) -> Tensors:
    return tensors | {"more": torch.zeros(2)}


def _not_finite(tensors: Tensors) -> Tensors:
    name = _first(tensors)
    return tensors | {name: torch.full_like(tensors[name], float("nan"))}


def _of_another_shape(tensors: Tensors) -> Tensors:
    name = _first(tensors)
    return tensors | {name: tensors[name][:1].clone()}


CHANGES: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "renamed": (_renamed, "tensors are missing"),
    "missing": (_missing, "1 tensor is missing"),
    "half": (_half, "tensors are missing"),
    "more": (_more, "1 tensor is unknown: more"),
    "NaN": (_not_finite, "1 tensor is not finite (NaN or infinite)"),
    "shape": (_of_another_shape, "1 tensor is of the wrong shape"),
}
CONTENT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda data: data[: len(data) // 2], ""),
    "truncated in its header": (lambda data: data[:100], "is not a detector checkpoint"),
    "a pointer": (lambda data: POINTER.encode(), "Git LFS pointer"),
    "a web page": (lambda data: b"<html>404</html>", "a web page"),
    "empty": (lambda data: b"", "the file is empty"),
}


QUICK = ("renamed", "NaN", "truncated", "a pointer")


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[] if kind in QUICK else [pytest.mark.slow]) for kind in (*CHANGES, *CONTENT)],
)
def test_what_is_not_whole_is_neither_exported_nor_a_starting_point(
    kind: str, whole: Path, cli: Callable[..., Result], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from fashionrec.detector.training.families import metadata

    broken = tmp_path / "broken.safetensors"
    if kind in CHANGES:
        change, reason = CHANGES[kind]
        save_file(change(load_file(whole)), broken, metadata={"fashionrec": json.dumps(metadata(whole))})
    else:
        content, reason = CONTENT[kind]
        broken.write_bytes(content(whole.read_bytes()))
    data = dataset(tmp_path / "d", {"train": 2, "valid": 2})
    side = MODELS[whole.parent.name][1]
    fast = ("epochs=1", "batch=2", f"imgsz={side}", "device=cpu", "workers=0")
    for words in (
        ("export", broken, "--out", tmp_path / "bundle"),
        ("evaluate", "--weights", broken, "--data", data),
        ("train", f"model={broken}", f"data={data}", "name=x", *fast),
    ):
        done = cli(*words)
        assert done.code == 2, done.err
        assert "broken.safetensors" in done.err
        assert reason in done.err
    assert not (tmp_path / "bundle").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("change", [{"imgsz": 1 << 20}, {"names": {str(n): "x" for n in range(1 << 17)}}, {"model": 3}])
def test_a_header_that_asks_for_a_world_of_memory_is_refused(
    change: dict[str, object], whole: Path, tmp_path: Path
) -> None:
    from fashionrec.detector.training.families import metadata
    from fashionrec.detector.training.families.checkpoint import About

    text = json.dumps({"__metadata__": {"fashionrec": json.dumps(metadata(whole) | change)}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ModelError, match="has invalid metadata"):
        About.of(path)


def test_a_whole_one_of_other_classes_is_a_starting_point(whole: Path, tmp_path: Path) -> None:
    from fashionrec.detector.training.families import family_module
    from fashionrec.detector.training.families.checkpoint import About
    from fashionrec.detector.training.families.plain import take_weights

    earlier = About.of(whole)
    about = replace(earlier, names={0: "hat"})
    family = family_module(earlier.family)
    told: list[str] = []
    take_weights(whole, earlier, family.build(about).model, about, family, told.append)
    assert "continuing from" in told[0]
