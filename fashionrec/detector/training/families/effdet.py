"""EfficientDet by effdet: ``efficientdet_d0`` to ``d7``, ``tf_efficientdet_d0`` to ``d7x`` and its
other variants.

Tan et al., arXiv 1911.09070; https://github.com/rwightman/efficientdet-pytorch. Raw heads are
exported: anchors and decoding are :mod:`fashionrec.detector.efficientdet`, which is compared with
effdet's own at every export.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fashionrec.common.extras import need
from fashionrec.config import TrainConfig, nearest
from fashionrec.detector.efficientdet import MOST
from fashionrec.detector.training.families import Graph
from fashionrec.detector.training.families.checkpoint import About, load_weights, model_of
from fashionrec.detector.training.families.loop import Learner, Truth
from fashionrec.detector.training.families.plain import exported, spec_of
from fashionrec.errors import ConfigError, ModelError

NAME = "effdet"
PACKAGES = ("torch", "effdet", "timm")
_LR0 = 0.0005
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def check(config: TrainConfig) -> None:
    """Raise for a model that effdet lacks, and a size that its levels do not divide."""
    _fits(_settings(model_of(config)), config.imgsz)


def to_graph(weights: Path, work: Path, imgsz: int | None = None) -> Graph:
    """Export a checkpoint for a square input of ``imgsz``, default that of its training. Raises
    :class:`ModelError`.
    """
    need(*PACKAGES, what=f"exporting {weights.name}")
    about = About.of(weights)
    if imgsz:
        _fits(_settings(about.model), imgsz)
        about = replace(about, imgsz=imgsz)
    learner = build(about)
    load_weights(weights, learner.model)
    return exported(learner, about, work, _normalize(learner.model), _by_effdet(learner.model))


def build(about: About) -> Learner:
    """Create a new network for the classes and the size of a checkpoint."""
    effdet = _effdet()
    config = _settings(about.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = effdet.create_model(
            about.model,
            num_classes=len(about.names),
            pretrained=False,
            pretrained_backbone=False,
            image_size=(about.imgsz, about.imgsz),
        )
        bench = effdet.DetBenchTrain(model, create_labeler=True)
    anchors = {
        "min_level": int(config.min_level),
        "max_level": int(config.max_level),
        "num_scales": int(config.num_scales),
        "aspect_ratios": [list(a) if not isinstance(a, (int, float)) else a for a in config.aspect_ratios],
        "anchor_scale": float(config.anchor_scale),
    }
    mean, std = tuple(config.get("mean") or _IMAGENET[0]), tuple(config.get("std") or _IMAGENET[1])
    spec = spec_of(about, head="efficientdet", mean=mean, std=std, anchors=anchors)

    def losses(images: torch.Tensor, truth: list[Truth]) -> torch.Tensor:
        bench.to(images.device)  # the anchors
        most = max(1, max(len(classes) for _, classes in truth))
        boxes = images.new_zeros(len(truth), most, 4)
        classes = images.new_full((len(truth), most), -1)
        for n, (found, ids) in enumerate(truth):
            boxes[n, : len(ids)] = found[:, [1, 0, 3, 2]]  # effdet's order: y first
            classes[n, : len(ids)] = ids + 1  # its classes begin at 1
        total: torch.Tensor = bench(images, {"bbox": boxes, "cls": classes})["loss"]
        return total

    bench.train()
    return Learner(model, _RawHeads(model), losses, spec, _LR0)


def pretrained(learner: Learner, about: About) -> str:
    """Load published weights into the network: all except COCO's class layer, or those of the
    backbone only.
    """
    url = _settings(about.model).get("url")
    if url:
        state = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
        own = learner.model.state_dict()
        left = [name for name in own if name not in state or own[name].shape != state[name].shape]
        if any(not name.startswith("class_net.predict") for name in left):
            raise ModelError(f"{url} does not fit {about.model}")
        learner.model.load_state_dict(own | {name: value for name, value in state.items() if name not in left})
        return "weights trained on COCO"
    import timm
    from timm.models import get_pretrained_cfg

    backbone = _settings(about.model).backbone_name
    source = get_pretrained_cfg(backbone, allow_unregistered=True)
    published = str(source.url) if source is not None and source.url else ""
    if not published:
        raise LookupError(f"no weights are published for {about.model}, nor for its backbone {backbone}")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / Path(published).name
    if not file.exists():
        torch.hub.download_url_to_file(published, str(file), hash_prefix=file.stem.rsplit("-", 1)[-1], progress=False)
    network: Any = learner.model
    trained = timm.create_model(
        backbone, features_only=True, out_indices=(2, 3, 4), pretrained=True, pretrained_cfg_overlay={"file": str(file)}
    )
    network.backbone.load_state_dict(trained.state_dict())
    return f"a backbone trained on ImageNet ({backbone}); no COCO weights of {about.model} are published"


class _RawHeads(nn.Module):
    """Raw heads: float32 [n, anchors, 4 + classes], the shift and scale of each anchor, and its
    scores.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        classes, boxes = self.model(images)
        count = int(self.model.config.num_classes)
        scores = [_rows(level, count) for level in classes]
        return torch.cat([torch.cat([_rows(b, 4), s.sigmoid()], 2) for b, s in zip(boxes, scores, strict=True)], 1)


def _rows(level: torch.Tensor, size: int) -> torch.Tensor:
    """Reshape [n, anchors per cell x size, height, width] to [n, anchors, size]."""
    _, channels, height, width = (int(value) for value in level.shape)
    return level.permute(0, 2, 3, 1).reshape(-1, height * width * channels // size, size)


def _normalize(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Normalize images [3, side, side] of 0 to 1 as effdet's own loader does."""
    from effdet.data import resolve_input_config

    found = resolve_input_config({}, model.config)
    mean, std = (torch.tensor(found[key])[:, None, None] for key in ("mean", "std"))
    return lambda picture: (picture - mean) / std


def _by_effdet(model: Any) -> Callable[[torch.Tensor], np.ndarray]:
    """Return a checkpoint's answer by effdet's own anchors and decoding: float32 [4 + classes,
    anchors], as YOLO's.
    """
    from effdet.anchors import Anchors, decode_box_outputs

    anchors = Anchors.from_config(model.config).boxes

    def answer(picture: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            classes, boxes = model(picture[None])
            count = int(model.config.num_classes)
            codes = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, 4) for level in boxes])
            codes[:, 2:] = codes[:, 2:].clamp(max=MOST)  # beyond that, only rounding would be compared
            scores = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, count) for level in classes]).sigmoid()
            x1, y1, x2, y2 = decode_box_outputs(codes, anchors, output_xyxy=True).unbind(1)
        placed = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
        return np.asarray(torch.cat([placed, scores.T]).numpy())

    return answer


def is_known(model: str) -> bool:
    """Return whether effdet has a model of this name."""
    try:
        return bool(_settings(model))
    except ModelError:
        return False


def _settings(model: str) -> Any:
    """effdet's settings of a model. Raises :class:`ModelError` with the nearest name."""
    need(*PACKAGES, what=model)
    _effdet()
    from effdet.config import get_efficientdet_config
    from effdet.config.model_config import efficientdet_model_param_dict

    name = Path(model).name.lower()
    known = [known for known in efficientdet_model_param_dict if "efficientdet" in known]
    if name not in known:
        raise ModelError(f"effdet has no model {model}", hint=nearest(name, known) or "for example efficientdet_d3")
    return get_efficientdet_config(name)


def _fits(config: Any, side: int) -> None:
    step = 2 ** int(config.max_level)
    if side % step:
        below, above = side // step * step, (side // step + 1) * step
        raise ConfigError(
            f"{config.name} needs an image size that is a multiple of {step}, not {side}",
            hint=f"imgsz={above}" + (f", or {below}" if below else ""),
        )


def _effdet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it compiles a function when it is imported, which torch calls outdated
        import effdet
    return effdet
