"""Faster R-CNN by torchvision: the models of ``MODELS`` (Ren et al., arXiv 1506.01497).

The export takes one image per call and returns each proposal once per class, without threshold and
NMS, so that both stay settings of the query. torchvision's class 0 is the background; ours starts
with the first class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.boxes import clip_boxes_to_image

from fashionrec.config import TrainConfig, nearest
from fashionrec.detector.training.families import Graph
from fashionrec.detector.training.families.checkpoint import About, load_weights, model_of
from fashionrec.detector.training.families.loop import Learner, Truth
from fashionrec.detector.training.families.plain import exported, spec_of
from fashionrec.errors import ConfigError, ModelError

NAME = "torchvision"
PACKAGES = ("torch", "torchvision")
#: Models, their COCO weights, and the epsilon of norms frozen in those (None: none are frozen).
MODELS: dict[str, tuple[Any, float | None]] = {
    "fasterrcnn_resnet50_fpn": (detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1, 0.0),
    "fasterrcnn_resnet50_fpn_v2": (detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1, None),
    "fasterrcnn_mobilenet_v3_large_fpn": (detection.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1, 1e-5),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1, 1e-5),
}
_LR0 = 0.0002
_STRIDE = 32
_ALL = 1_000_000


def check(config: TrainConfig) -> None:
    """Raise for a model that torchvision lacks, and a size that its levels do not divide."""
    _known(model_of(config))
    _fits(config.imgsz)


def to_graph(weights: Path, work: Path, imgsz: int | None = None) -> Graph:
    """Export a checkpoint for a square input of ``imgsz``, default that of its training. Raises
    :class:`ModelError`.
    """
    about = About.of(weights)
    if imgsz:
        _fits(imgsz)
        about = replace(about, imgsz=imgsz)
    learner = build(about)
    load_weights(weights, learner.model)
    network: Any = learner.model
    return exported(learner, about, work, network.transform.normalize, _by_torchvision(network))


def build(about: About) -> Learner:
    """Create a new network for the classes and the size of a checkpoint; norms are frozen if it
    started from COCO weights.
    """
    model: Any = getattr(detection, _known(about.model))(
        weights=None,
        weights_backbone=None,
        num_classes=len(about.names) + 1,
        min_size=about.imgsz,
        max_size=about.imgsz,
    )
    epsilon = MODELS[about.model][1]
    if about.notes.get("pretrained") and epsilon is not None:
        _freeze_norms(model.backbone.body, epsilon)
    mean, std = tuple(model.transform.image_mean), tuple(model.transform.image_std)
    spec = spec_of(about, head="end2end", mean=mean, std=std, batch=1)

    def losses(images: torch.Tensor, truth: list[Truth]) -> torch.Tensor:
        targets = [{"boxes": boxes, "labels": classes + 1} for boxes, classes in truth]
        listed = ImageList(images, [(about.imgsz, about.imgsz)] * len(images))
        features = model.backbone(images)
        proposals, of_proposals = model.rpn(listed, features, targets)
        _, of_boxes = model.roi_heads(features, proposals, listed.image_sizes, targets)
        total: torch.Tensor = sum({**of_proposals, **of_boxes}.values(), images.new_zeros(()))
        return total

    return Learner(model, _Proposals(model, about.imgsz), losses, spec, _LR0)


def pretrained(learner: Learner, about: About) -> str:
    """Load torchvision's COCO weights into the network, except its last layer."""
    weights, epsilon = MODELS[about.model]
    state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    model: Any = learner.model
    own = model.roi_heads.box_predictor
    inputs = own.cls_score.in_features
    model.roi_heads.box_predictor = FastRCNNPredictor(inputs, len(weights.meta["categories"]))
    try:
        model.load_state_dict(state)
    finally:
        model.roi_heads.box_predictor = own
    frozen = "" if epsilon is None else ", with frozen norms in its backbone as in those"
    return f"weights trained on COCO{frozen}"


class _Proposals(nn.Module):
    """Proposals of one image: float32 [1, proposals x classes, 6]: xyxy pixels of the input, score,
    class.
    """

    def __init__(self, model: Any, side: int) -> None:
        super().__init__()
        self.model, self.size = model, (side, side)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        heads = self.model.roi_heads
        features = self.model.backbone(images)
        found, _ = self.model.rpn(ImageList(images, [self.size]), features)
        whole = images.new_tensor([[0.0, 0.0, float(self.size[1]), float(self.size[0])]])
        proposals = [torch.cat([found[0], whole])]  # ONNX Runtime cannot reshape an empty tensor here
        pooled = heads.box_head(heads.box_roi_pool(features, proposals, [self.size]))
        logits, codes = heads.box_predictor(pooled)
        boxes = clip_boxes_to_image(heads.box_coder.decode(codes, proposals), self.size)[:, 1:]
        scores = logits.softmax(-1)[:, 1:, None]
        classes = torch.arange(logits.shape[1] - 1, device=logits.device).to(logits.dtype)
        rows = torch.cat([boxes, scores, classes[None, :, None].expand_as(scores)], 2)
        return rows.reshape(1, -1, 6)[:, : -classes.shape[0]]


def _by_torchvision(model: Any) -> Callable[[torch.Tensor], np.ndarray]:
    """Return a checkpoint's answer by torchvision's own code: float32 [n, 6], classes from 0."""
    heads = model.roi_heads
    mean, std = (torch.tensor(v)[:, None, None] for v in (model.transform.image_mean, model.transform.image_std))

    def answer(picture: torch.Tensor) -> np.ndarray:
        heads.score_thresh, heads.nms_thresh, heads.detections_per_img = -1.0, 2.0, _ALL
        with torch.no_grad():
            found = model([picture * std + mean])[0]  # which normalizes it itself
        rows = torch.cat([found["boxes"], found["scores"][:, None], found["labels"][:, None] - 1.0], 1)
        return np.asarray(rows.numpy())

    return answer


def _freeze_norms(module: nn.Module, epsilon: float) -> None:
    """Replace each norm of a backbone by a frozen one, as in torchvision's trained models."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=epsilon))
        else:
            _freeze_norms(child, epsilon)


def is_known(model: str) -> bool:
    """Return whether torchvision has a model of this name."""
    return model.lower() in MODELS


def _known(model: str) -> str:
    name = Path(model).name.lower()
    if name not in MODELS:
        raise ModelError(
            f"unknown torchvision model {model}", hint=nearest(name, MODELS) or f"it has {', '.join(MODELS)}"
        )
    return name


def _fits(side: int) -> None:
    if side % _STRIDE:
        raise ConfigError(
            f"Faster R-CNN needs an image size that is a multiple of {_STRIDE}, not {side}",
            hint=f"imgsz={max(1, round(side / _STRIDE)) * _STRIDE}",
        )
