"""EfficientDet and Faster R-CNN before any training: their losses, published weights and sides,
held against their libraries.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from test_family_parts import about_file

from fashionrec.errors import ConfigError, ModelError

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")
effdet = pytest.importorskip("effdet")
pytest.importorskip("torchvision")

from fashionrec.detector.training.families import effdet as efficientdet  # noqa: E402
from fashionrec.detector.training.families import torchvision as faster_rcnn  # noqa: E402
from fashionrec.detector.training.families.checkpoint import About  # noqa: E402

D0, MOBILE = "efficientdet_d0", "fasterrcnn_mobilenet_v3_large_320_fpn"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = {0: "dress", 1: "top", 2: "skirt"}

#: Boxes (xyxy pixels) and classes of three pictures, the last of which shows nothing.
TRUTH = [
    ([[8.0, 16.0, 40.0, 60.0], [30.0, 5.0, 60.0, 50.0]], [2, 0]),
    ([[3.0, 30.0, 63.0, 61.0]], [1]),
    ([], []),
]


def about(family: str, model: str, side: int, classes: int = 3, **more: Any) -> About:
    return About(family, model, {n: f"c{n}" for n in range(classes)}, side, **more)


def pictures(side: int) -> Any:
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(3))


def normalized(images: Any) -> Any:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def truth() -> list[tuple[Any, Any]]:
    return [(torch.tensor(boxes).reshape(-1, 4), torch.tensor(classes).long()) for boxes, classes in TRUTH]


def test_the_loss_of_efficientdet_is_effdets() -> None:
    """effdet's boxes begin with y, its classes at 1, and what is missing is of class -1."""
    learner = efficientdet.build(about("effdet", D0, 128))
    images = normalized(pictures(128))
    bench = effdet.DetBenchTrain(learner.model, create_labeler=True).train()
    boxes = torch.tensor(
        [[[16.0, 8, 60, 40], [5, 30, 50, 60]], [[30, 3, 61, 63], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]]
    )
    target = {"bbox": boxes, "cls": torch.tensor([[3, 1], [2, -1], [-1, -1]])}
    losses = []
    for ask in (lambda: learner.losses(images, truth()), lambda: bench(images, target)["loss"]):
        torch.manual_seed(0)  # of what is dropped
        losses.append(float(ask().detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    nothing = [(torch.zeros(0, 4), torch.zeros(0).long())] * 3
    assert 0 < float(learner.losses(images, nothing).detach()) < 1e6
    assert learner.lr0 == 0.0005
    assert (learner.spec["head"], learner.spec["mean"], learner.spec["std"]) == ("efficientdet", [*MEAN], [*STD])
    assert learner.spec["anchors"] == {
        **{"min_level": 3, "max_level": 7, "num_scales": 3, "anchor_scale": 4.0},
        "aspect_ratios": [[1.0, 1.0], [1.4, 0.7], [0.7, 1.4]],
    }


def test_the_loss_of_faster_rcnn_is_torchvisions() -> None:
    """Its class 0 is the background; the network it was given normalizes its pictures itself."""
    learner = faster_rcnn.build(about("torchvision", MOBILE, 64))
    images, network = pictures(64), learner.model.train()
    targets = [{"boxes": boxes, "labels": classes + 1} for boxes, classes in truth()]
    losses = []
    for ask in (
        lambda: learner.losses(normalized(images), truth()),
        lambda: sum(network(list(images), targets).values()),
    ):
        torch.manual_seed(0)  # of the proposals that are drawn
        losses.append(float(ask().detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert learner.lr0 == 0.0002
    assert (learner.spec["head"], learner.spec["batch"]) == ("end2end", 1)
    assert (learner.spec["mean"], learner.spec["std"]) == ([*MEAN], [*STD])


@pytest.mark.parametrize(
    ("model", "frozen", "epsilon"),
    [(MOBILE, True, 1e-5), (MOBILE, False, None), ("fasterrcnn_resnet50_fpn_v2", True, None)],
)
def test_norms_are_frozen_where_the_published_weights_froze_them(
    model: str, frozen: bool, epsilon: float | None
) -> None:
    from torchvision.ops import FrozenBatchNorm2d

    learner = faster_rcnn.build(about("torchvision", model, 64, notes={"pretrained": frozen}))
    body = learner.model.backbone.body
    norms = [one for one in body.modules() if isinstance(one, FrozenBatchNorm2d)]
    learning = [one for one in body.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert (bool(norms), bool(learning)) == (epsilon is not None, epsilon is None)
    assert {one.eps for one in norms} == ({epsilon} if norms else set())


def test_published_weights_of_efficientdet_are_taken_but_for_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the published name lies where torch keeps what it has fetched."""
    from effdet.config import get_efficientdet_config

    kept = tmp_path / "hub" / "checkpoints" / Path(get_efficientdet_config(D0).url).name
    kept.parent.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    ours, theirs = (efficientdet.build(about("effdet", D0, 128, classes)) for classes in (3, 5))
    state = theirs.model.state_dict()
    torch.save(state, kept)
    before = {name: value.clone() for name, value in ours.model.state_dict().items()}
    assert efficientdet.pretrained(ours, about("effdet", D0, 128)) == "weights trained on COCO"
    for name, value in ours.model.state_dict().items():
        expected = before if name.startswith("class_net.predict") and value.shape != state[name].shape else state
        assert torch.equal(value, expected[name]), name
    del state["box_net.predict.conv_pw.bias"]
    torch.save(state, kept)
    with pytest.raises(ModelError, match=rf"^https://.*{kept.name} does not fit {D0}$"):
        efficientdet.pretrained(ours, about("effdet", D0, 128))


def test_without_weights_of_coco_the_backbone_of_imagenet_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    from torch import hub

    model, backbone = "efficientdet_lite0", "efficientnet_lite0"
    state = timm.create_model(backbone).state_dict()
    fetched: list[tuple[object, ...]] = []

    def fetch(url: str, file: str, hash_prefix: str, progress: bool) -> None:
        fetched.append((url, Path(file), hash_prefix, progress))
        torch.save(state, file)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hub, "download_url_to_file", fetch)
    url = timm.models.get_pretrained_cfg(backbone).url
    ours = efficientdet.build(about("effdet", model, 128))
    for _ in range(2):
        assert efficientdet.pretrained(ours, about("effdet", model, 128)) == (
            f"a backbone trained on ImageNet ({backbone}); no COCO weights of {model} are published"
        )
        taken = {name: value for name, value in ours.model.state_dict().items() if name.startswith("backbone.")}
        assert len(taken) > 100
        assert all(torch.equal(value, state[name.removeprefix("backbone.")]) for name, value in taken.items())
    name = url.rpartition("/")[2]
    assert fetched == [(url, tmp_path / "home" / "hub" / "checkpoints" / name, "37913777", False)]


def test_a_model_of_which_nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm.models
    from effdet.config import get_efficientdet_config
    from effdet.config.model_config import efficientdet_model_param_dict

    model = next(name for name in efficientdet_model_param_dict if not get_efficientdet_config(name).get("url"))
    backbone = get_efficientdet_config(model).backbone_name
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda name, allow_unregistered=False: None)
    with pytest.raises(LookupError) as caught:
        efficientdet.pretrained(None, about("effdet", model, 128))  # type: ignore[arg-type]
    assert str(caught.value) == f"no weights are published for {model}, nor for its backbone {backbone}"


@pytest.mark.parametrize(
    ("family", "known", "unknown"),
    [(efficientdet, ("EfficientDet_d0", "tf_efficientdet_d7x"), "efficientdet_d33"),
     (faster_rcnn, (MOBILE, "FasterRCNN_resnet50_fpn"), "fasterrcnn_resnet5_fpn")],
)  # fmt: skip
def test_models_that_are_known(family: ModuleType, known: tuple[str, ...], unknown: str) -> None:
    assert [family.is_known(name) for name in known] == [True, True]
    assert family.is_known(unknown) is False


@pytest.mark.parametrize(
    ("family", "model", "side", "step"), [(efficientdet, D0, 192, 128), (faster_rcnn, MOBILE, 80, 32)]
)
def test_an_export_of_a_side_that_does_not_fit(
    family: ModuleType, model: str, side: int, step: int, tmp_path: Path
) -> None:
    weights = about_file(tmp_path / "a.safetensors", model=model)
    with pytest.raises(ConfigError, match=rf"a multiple of {step}, not {side}$"):
        family.to_graph(weights, tmp_path, side)


def test_the_nearest_name_or_an_example() -> None:
    for family, model, hint in (
        (efficientdet, "efficientdet_d33", "did you mean efficientdet_d3?"),
        (efficientdet, "zzz", "for example efficientdet_d3"),
        (faster_rcnn, "fasterrcnn_resnet50", "did you mean fasterrcnn_resnet50_fpn?"),
        (faster_rcnn, "zzz", f"it has {', '.join(faster_rcnn.MODELS)}"),
    ):
        with pytest.raises(ModelError) as caught:
            family.build(about("x", model, 64))
        assert (f"model {model}" in str(caught.value), caught.value.hint) == (True, hint)
