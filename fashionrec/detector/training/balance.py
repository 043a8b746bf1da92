"""Class balance in training: draw photos of rare classes more often, or weight errors on rare
classes more.

``sample``: an epoch draws as many photos as there are, with replacement, in proportion to the mean
inverse frequency of the classes of a photo's boxes; photos without boxes are drawn as often as the
average. If each photo has one class, all classes are drawn equally often. This is inverse-frequency
("class-balanced") sampling of Kang et al., "Decoupling representation and classifier", arXiv
1910.09217, section 3 (q = 0), extended to photos with several boxes; the price is that the few
photos of a rare class are repeated.

``loss``: ultralytics' ``cls_pw``: the classification loss of a class is weighted by its inverse
frequency to that power, with the weights scaled to a mean of 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

#: ``cls_pw`` of ``balance=loss`` by default: the square root limits the weight of classes with few
#: boxes.
CLS_PW = 0.5


def image_weights(classes: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return the probability of drawing each photo: float64 [photos], sum 1, from the class ids of
    each photo's boxes.
    """
    boxes = np.concatenate([np.zeros(0), *(np.ravel(ids) for ids in classes)]).astype(int)
    frequency = np.bincount(boxes, minlength=count)
    inverse = 1.0 / np.maximum(frequency, 1)
    weights = np.array([inverse[np.ravel(ids).astype(int)].mean() if np.size(ids) else np.nan for ids in classes])
    if np.isnan(weights).all():
        return np.full(len(weights), 1.0 / len(weights))
    weights[np.isnan(weights)] = np.nanmean(weights)
    return np.asarray(weights / weights.sum())


class BalancedSampler(Sampler[int]):
    """Draws photos by weight, differently in each epoch and identically on every device, each of
    which takes its share.

    The draw depends only on seed and epoch, so a resumed training continues with the same draws.
    """

    def __init__(self, weights: np.ndarray, seed: int, rank: int = 0, devices: int = 1) -> None:
        self.weights = torch.from_numpy(np.ascontiguousarray(weights))
        self.seed, self.rank, self.devices = seed, rank, devices
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.weights) // self.devices)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed * 1_000_003 + self.epoch)
        self.epoch += 1
        drawn = torch.multinomial(self.weights, len(self) * self.devices, replacement=True, generator=generator)
        return iter(drawn[self.rank :: self.devices].tolist())

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch, never backwards: loaders prefetch, so the next epoch's draw may exist
        already.
        """
        self.epoch = max(self.epoch, epoch)


def balanced(loader: Any, classes: int, seed: int, rank: int, devices: int) -> Any:
    """Return a loader like ultralytics' training ``loader``, but balanced by class."""
    labels = loader.dataset.labels
    sampler = BalancedSampler(image_weights([label["cls"] for label in labels], classes), seed, rank, devices)
    loader.close()
    return type(loader)(
        dataset=loader.dataset,
        batch_size=loader.batch_size,
        sampler=sampler,
        num_workers=loader.num_workers,
        prefetch_factor=loader.prefetch_factor,
        pin_memory=loader.pin_memory,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        generator=loader.generator,
        drop_last=loader.drop_last,
    )
