"""A model's YAML of somebody else: layers and numbers, and nothing that ultralytics
would evaluate.
"""

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
        (lambda tree: tree.update(backbone=tree["backbone"] * 1000), "backbone: expected a list of layers"),
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


# --- values at their bounds, on documents made by hand


def small(**changes: Any) -> dict[str, Any]:
    layer = [-1, 1, "Conv", [8, 3, 2]]
    return {"nc": 2, "backbone": [layer], "head": [[[-1, 0], 1, "Detect", ["nc"]]], **changes}


def layer(source: Any = -1, repeats: Any = 1, module: Any = "Conv", arguments: Any = ()) -> dict[str, Any]:
    return small(backbone=[[source, repeats, module, list(arguments)]])


def words_of(document: dict[str, Any]) -> tuple[str, str]:
    """Return why a document is refused, and the hint; empty where it is not."""
    from fashionrec.detector.training.architecture import check_architecture

    try:
        check_architecture(document, "a.yaml")
    except ModelError as error:
        return str(error).removeprefix("a.yaml is not a valid model YAML: "), error.hint
    return "", ""


@pytest.mark.parametrize(
    "document",
    [
        small(),
        *(small(**{key: 1.5}) for key in ("nc", "reg_max", "depth_multiple", "width_multiple", "ch", "channels")),
        *(small(**{key: object()}) for key in ("yaml_file", "anchors", "names", "task", "kpt_shape", "inplace")),
        *(small(end2end=value) for value in (True, False, None)),
        *(small(scale=value) for value in ("n", "", None)),
        small(nc=65536, ch=-65536),
        small(scales=None),
        small(scales={"n": [0.5, 0.25, 1024], 1: [1, 1, 1]}),
        small(activation=None),
        small(activation=" nn.ReLU() "),
        small(activation=f"nn.Hardtanh({'1, ' * 20}+1.5e-3)"),
        small(backbone=[[-1, 1, "Conv", []]] * 1000),
        layer(source=[-1, 6, 1000, -1000]),
        layer(repeats=100),
        layer(module="nn.Upsample", arguments=[None, 2, "nearest"]),
        layer(arguments=["nc", "reg_max", "None", "True", "False", "nearest-exact", "bilinear", "bicubic", True, 0.5]),
        layer(arguments=[[[[1]]], [1] * 1000]),
    ],
)
def test_what_a_yaml_may_say(document: dict[str, Any]) -> None:
    assert words_of(document) == ("", "")


LONG = "x" * 90


@pytest.mark.parametrize(
    ("document", "said", "hint"),
    [
        (small(backbon=[]), "unknown key 'backbon'", "did you mean backbone?"),
        (small(nc=65537), "nc: 65537 is not a number up to 65536", ""),
        (small(nc=True), "nc: True is not a number up to 65536", ""),
        (small(nc=None), "nc: None is not a number up to 65536", ""),
        (small(end2end=1), "end2end: 1 is not true or false", ""),
        (small(scale="nn"), "scale: 'nn' is not a letter", ""),
        (small(scale="N"), "scale: 'N' is not a letter", ""),
        (small(scale=1), "scale: 1 is not a letter", ""),
        (small(scales=[1]), "scales: [1] is not a table of sizes", ""),
        (small(scales={"nn": [1, 1, 1]}), "scales: 'nn': [1, 1, 1] is not depth, width and maximum channels", ""),
        (small(scales={"n": [1, 1]}), "scales: 'n': [1, 1] is not depth, width and maximum channels", ""),
        (small(scales={"n": 3}), "scales: 'n': 3 is not depth, width and maximum channels", ""),
        (small(scales={"n": [1, 1, "x"]}), "scales: n: 'x' is not a number up to 65536", ""),
        *((small(**{part: value}), f"{part}: expected a list of layers", "")
          for part in ("backbone", "head") for value in (None, [], "x")),
        (small(backbone=[[-1, 1, "Conv", []]] * 1001), "backbone: expected a list of layers", ""),
        (small(head=[[-1, 1, "Conv"]]), "head, layer 1: [-1, 1, 'Conv'] is not [from, repeats, module, arguments]", ""),
        (small(head=[[-1, 1, "Conv", 8]]), "head, layer 1: [-1, 1, 'Conv', 8] is not [from, repeats, module, arguments]", ""),
        (layer(source=[]), "backbone, layer 1: from: [] is not a layer number", ""),
        (layer(source=[-1, True]), "backbone, layer 1: from: [-1, True] is not a layer number", ""),
        (layer(source=1001), "backbone, layer 1: from: 1001 is not a layer number", ""),
        (layer(source=-1001), "backbone, layer 1: from: -1001 is not a layer number", ""),
        (layer(repeats=0), "backbone, layer 1: repeats: 0 is not a number from 1 to 100", ""),
        (layer(repeats=101), "backbone, layer 1: repeats: 101 is not a number from 1 to 100", ""),
        (layer(repeats=True), "backbone, layer 1: repeats: True is not a number from 1 to 100", ""),
        (layer(module="Convv"), "backbone, layer 1: module: 'Convv' is not allowed", "did you mean Conv?"),
        (layer(module=3), "backbone, layer 1: module: 3 is not allowed",
         "did you mean C3?"),
        (layer(module=LONG), f"backbone, layer 1: module: '{LONG[:76]}... is not allowed",
         "only layers of ultralytics' own detectors are allowed"),
        (layer(module="x" * 78), f"backbone, layer 1: module: '{'x' * 78}' is not allowed",
         "only layers of ultralytics' own detectors are allowed"),
        (layer(arguments=["globals"]), "backbone, layer 1 (Conv): argument 'globals' is not allowed", ""),
        (layer(arguments=[[[[[1]]]]]), "backbone, layer 1 (Conv): argument: [1] is not a number up to 65536", ""),
        (layer(arguments=[-65537]), "backbone, layer 1 (Conv): argument: -65537 is not a number up to 65536", ""),
        (small(activation="nn.Softmax()"), "activation: 'nn.Softmax()' is not allowed",
         "nn.SiLU(), nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.RReLU(), ..."),
    ],
)  # fmt: skip
def test_what_a_yaml_may_not_say(document: dict[str, Any], said: str, hint: str) -> None:
    assert words_of(document) == (said, hint)


def test_an_activation_is_short() -> None:
    text = "nn.ReLU(" + "1" * 90 + ")"
    assert len(text) == 99
    assert words_of(small(activation=text)) == ("", "")
    assert words_of(small(activation=text.replace(")", "1)")))[0].startswith("activation: 'nn.ReLU(1111")


def test_ultralytics_reads_a_copy_of_what_is_understood(tmp_path: Path) -> None:
    from fashionrec.detector.training.architecture import own_copy

    source, folder = tmp_path / "mine.yaml", tmp_path / "own"
    folder.mkdir()
    document = small(scales={"n": [1, 1, 1]}, names=["a"], yaml_file="x", inplace=True, activation="nn.ReLU()")
    source.write_text(yaml.safe_dump(document, sort_keys=False))
    assert own_copy(source, folder) == folder / "mine.yaml"
    copied = yaml.safe_load((folder / "mine.yaml").read_text())
    assert list(copied.items()) == [
        (key, value) for key, value in document.items() if key not in ("names", "yaml_file", "inplace")
    ]
    assert own_copy(source, folder, "minen.yaml") == folder / "minen.yaml"
    for content in ("nc: [", "- 1\n"):
        source.write_text(content)
        with pytest.raises(ModelError, match=r"mine\.yaml"):
            own_copy(source, folder)
