"""A model's YAML of somebody else: layers and numbers, and nothing that ultralytics would evaluate."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import yaml
from test_detector_training import TINY_MODEL

from fashionrec.errors import ModelError

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")
pytest.importorskip("ultralytics")

TINY: dict[str, Any] = yaml.safe_load(Path(TINY_MODEL).read_text(encoding="utf-8"))


def written(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    document = copy.deepcopy(TINY)
    change(document)
    path = folder / "theirs.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    "activation",
    [
        "nn.ReLU()",
        "torch.nn.SiLU()",
        "nn.LeakyReLU(0.1)",
        "nn.Hardtanh(min_val=-1, max_val=1e0)",
        "nn.ReLU(inplace=True)",
    ],
)
def test_usual_activations_are_used(activation: str, tmp_path: Path) -> None:
    from fashionrec.detector.training.ultra import load_yolo

    model = load_yolo(str(written(tmp_path, lambda tree: tree.update(activation=activation)))).model
    kind = activation.partition("(")[0].rpartition(".")[2]
    assert type(model.model[0].act).__name__ == kind


@pytest.mark.parametrize(
    "activation",
    [
        "__import__('os').system('true')",
        "nn.SiLU() or __import__('os')",
        "nn.SiLU().__class__.__init__.__globals__",
        "nn.Module()",
        "nn.Sequential(print(1))",
        "nn.LazyLinear(3)",
        "nn.SiLU(*[1])",
        "nn.SiLU(9**9**9)",
        "nn.SiLU(\n)",
        "torch.hub.load('a', 'b')",
        "[print(1)]",
        "nn.SiLU(" + "1," * 1000 + ")",
        "nn.SiLU",
        {"a": 1},
        ["nn.SiLU()"],
        3,
    ],
)
def test_an_activation_that_is_not_on_the_list_is_refused(activation: object, tmp_path: Path) -> None:
    from fashionrec.detector.training.ultra import load_yolo

    with pytest.raises(ModelError, match="activation: ") as caught:
        load_yolo(str(written(tmp_path, lambda tree: tree.update(activation=activation))))
    assert "theirs.yaml" in str(caught.value)


def _layer(place: int, value: object) -> Callable[[dict[str, Any]], object]:
    def change(tree: dict[str, Any]) -> None:
        tree["backbone"][0][place] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_layer(2, "TorchVision"), "module: 'TorchVision'"),
        (_layer(2, "nn.LazyConv2d"), "module: 'nn.LazyConv2d'"),
        (_layer(2, "nn.modules"), "module: 'nn.modules'"),
        (_layer(2, "torchvision.ops.boxes"), "module: 'torchvision.ops.boxes'"),
        (_layer(2, "parse_model"), "module: 'parse_model'"),
        (_layer(2, "__builtins__"), "module: '__builtins__'"),
        (_layer(2, 3), "module: 3"),
        (_layer(3, ["__import__('os')"]), "argument \"__import__('os')\""),
        (_layer(3, ["globals"]), "argument 'globals'"),
        (_layer(3, [[[[[8]]]]]), "argument"),
        (_layer(3, [10**9]), "argument: 1000000000"),
        (_layer(3, [float("nan")]), "argument: nan"),
        (_layer(1, 10**6), "repeats: 1000000"),
        (_layer(0, 10**6), "from: 1000000"),
        (_layer(0, "x"), "from: 'x'"),
        (lambda tree: tree["backbone"].append([1]), "backbone, layer 6"),
        (lambda tree: tree.update(backbone=tree["backbone"] * 1000), "backbone: a list of layers"),
        (lambda tree: tree.update(nc="__import__('os')"), "nc: "),
        (lambda tree: tree.update(depth_multiple="1"), "depth_multiple: '1'"),
        (lambda tree: tree.update(scales={"n": ["a", 1, 1]}), "scales: n: 'a'"),
        (lambda tree: tree.update(download="true"), "unknown key 'download'"),
        (lambda tree: tree.update(end2end="print(1)"), "end2end: "),
    ],
)
def test_what_is_not_a_layer_or_a_number_is_named(
    change: Callable[[dict[str, Any]], object], named: str, tmp_path: Path
) -> None:
    from fashionrec.detector.training.ultra import load_yolo

    with pytest.raises(ModelError) as caught:
        load_yolo(str(written(tmp_path, change)))
    assert named in str(caught.value)
    assert hostile.ran(tmp_path) == []


def test_every_architecture_of_ultralytics_passes() -> None:
    from fashionrec.config import read_yaml
    from fashionrec.detector.training.architecture import check_architecture
    from fashionrec.detector.training.names import architectures, known_yaml
    from fashionrec.detector.training.ultra import load_ultralytics

    load_ultralytics()
    files = {known_yaml(Path(name)) for name in architectures()}
    assert len(files) > 20
    for file in files:
        assert file is not None
        check_architecture(read_yaml(file), str(file))
