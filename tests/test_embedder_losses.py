"""Test what the encoder's training computes, by hand: losses, batches, what is held out, the
schedule, and pictures.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashionrec.config import TrainEmbedderConfig, load_config

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def settings(**changes: object) -> TrainEmbedderConfig:
    return load_config(env={}).config.train_embedder.model_copy(update=changes)


def log_softmax(values: np.ndarray) -> np.ndarray:
    return np.asarray(values - np.log(np.exp(values).sum(axis=1, keepdims=True)))


ANGLES = np.radians([0.0, 30.0, 100.0, 160.0])
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
SAME = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float)


def test_photos_of_a_product_attract_each_other_and_those_without_another_are_left_out() -> None:
    from fashionrec.embedder.training.train import TEMPERATURE, supervised_contrastive

    logits = VECTORS @ VECTORS.T / TEMPERATURE
    np.fill_diagonal(logits, -1e9)
    expected = -(log_softmax(logits)[0, 1] + log_softmax(logits)[1, 0]) / 2
    found = supervised_contrastive(torch.tensor(VECTORS), torch.tensor(SAME))
    assert float(found) == pytest.approx(expected)
    assert float(supervised_contrastive(torch.tensor(VECTORS), torch.eye(4, dtype=torch.float64))) == 0.0
    three = np.ones((3, 3))
    logits = VECTORS[:3] @ VECTORS[:3].T / TEMPERATURE
    np.fill_diagonal(logits, -1e9)
    told = log_softmax(logits)
    expected = -np.mean([(told[n].sum() - told[n, n]) / 2 for n in range(3)])
    assert float(supervised_contrastive(torch.tensor(VECTORS[:3]), torch.tensor(three))) == pytest.approx(expected)


class Towers:
    """A model whose vectors are given: longer than they should be."""

    def __init__(self) -> None:
        self.logit_scale = torch.tensor(1.5, dtype=torch.float64)

    def get_image_features(self, pixel_values: Any) -> Any:
        return SimpleNamespace(pooler_output=2 * pixel_values)

    def get_text_features(self, input_ids: Any, attention_mask: Any) -> Any:
        return 3 * input_ids * attention_mask


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_pictures_and_texts_of_a_product_are_targets_of_each_other_both_ways(weight: float) -> None:
    from fashionrec.embedder.training.train import contrastive_loss, supervised_contrastive

    angles = np.radians([10.0, 80.0, 200.0, 250.0])
    texts = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    tokens = {"input_ids": torch.tensor(np.concatenate([texts[::-1], texts])), "attention_mask": torch.ones(8, 2)}
    index, labels = torch.arange(4, 8), torch.tensor([7, 7, 2, 9])
    found = contrastive_loss(Towers(), torch.tensor(VECTORS), tokens, index, labels, settings(product_weight=weight))
    logits = np.exp(1.5) * VECTORS @ texts.T
    target = SAME / SAME.sum(axis=1, keepdims=True)
    there = -(target * log_softmax(logits)).sum(axis=1).mean()
    back = -(target * log_softmax(logits.T)).sum(axis=1).mean()
    assert abs(there - back) > 0.01
    extra = weight * float(supervised_contrastive(torch.tensor(VECTORS), torch.tensor(SAME)))
    assert float(found) == pytest.approx((there + back) / 2 + extra, rel=1e-5)


def test_an_epoch_holds_every_photo_once_products_together() -> None:
    from fashionrec.embedder.training.train import batches

    labels = np.repeat(np.arange(6), [3, 2, 4, 1, 2, 3])  # fifteen photos, of which fourteen are for training
    train = np.arange(14)
    parts = list(batches(labels, train, 4, np.random.default_rng(3)))
    assert [len(part) for part in parts] == [4, 4, 4, 2]
    order = [int(n) for part in parts for n in part]
    assert sorted(order) == list(range(14))
    runs = [label for n, label in enumerate(labels[order]) if n == 0 or label != labels[order][n - 1]]
    assert len(runs) == 6
    assert order != list(range(14))
    assert [len(part) for part in batches(labels, train[:13], 4, np.random.default_rng(3))] == [
        4,
        4,
        4,
    ]  # one is no batch


def test_the_last_photo_of_some_products_is_held_out() -> None:
    from fashionrec.embedder.training.train import HELD_OUT, held_out

    labels = np.array([0, 1, 1, 2, 2, 2, 0, *np.repeat(np.arange(3, 43), 2), 99])
    found = held_out(labels, np.random.default_rng(1))
    assert len(found) == int(43 * HELD_OUT)
    assert all((labels == labels[n]).sum() > 1 for n in found)
    assert all(n == np.flatnonzero(labels == labels[n])[-1] for n in found)
    assert len(set(found.tolist())) == len(found)
    assert held_out(np.array([5, 6, 6, 7]), np.random.default_rng(0)).tolist() == [2]
    assert len(held_out(np.arange(9), np.random.default_rng(0))) == 0


def test_the_rate_rises_and_falls_as_a_cosine() -> None:
    from fashionrec.embedder.training.train import cosine_schedule

    rates = [cosine_schedule(step, 20, 0.2) for step in range(21)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx(1.0)
    assert rates[12] == pytest.approx(0.5)
    assert rates[8] == pytest.approx(0.5 * (1 + np.cos(np.pi / 4)))
    assert rates[20] == pytest.approx(0.0)
    assert cosine_schedule(30, 20, 0.2) == pytest.approx(0.0)
    assert cosine_schedule(0, 20, 0.0) == 1.0


def test_weights_decay_in_matrices_only() -> None:
    from fashionrec.embedder.training.train import parameter_groups

    model = torch.nn.ModuleDict(
        {"linear": torch.nn.Linear(3, 2), "token_embedding": torch.nn.Embedding(4, 2), "norm": torch.nn.LayerNorm(2)}
    )
    decay, rest = parameter_groups(model, 0.1)
    assert [tuple(one.shape) for one in decay["params"]] == [(2, 3)]
    assert sorted(tuple(one.shape) for one in rest["params"]) == [(2,), (2,), (2,), (4, 2)]
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)


def test_of_pictures_that_are_not_square_the_middle_is_learnt_from() -> None:
    from fashionrec.embedder.training.train import Pair, load_pictures

    wide, high = Image.new("RGB", (120, 60), "red"), Image.new("RGB", (60, 180), "red")
    wide.paste("lime", (30, 0, 60, 60))
    wide.paste("blue", (60, 0, 90, 60))
    high.paste("lime", (0, 60, 60, 90))
    high.paste("blue", (0, 90, 60, 120))
    pairs = [Pair(load=lambda image=image: image, caption="", product_id="") for image in (wide, high)]  # type: ignore[misc]
    found = load_pictures(pairs, 20)
    assert found.shape == (2, 3, 20, 20)
    assert found.dtype == torch.uint8
    assert found[0, :, 10, 4].tolist() == [0, 255, 0]
    assert found[0, :, 10, 15].tolist() == [0, 0, 255]
    assert found[1, :, 4, 10].tolist() == [0, 255, 0]
    assert found[1, :, 15, 10].tolist() == [0, 0, 255]


def corners(image: Any) -> list[list[float]]:
    return [[round(float(v), 1) for v in image[:, y, x]] for y, x in ((4, 4), (4, -5), (-5, 4), (-5, -5))]


def test_what_augmentation_does_is_held_by_its_settings() -> None:
    from fashionrec.embedder.training.train import augment

    still = settings(flip=False, jitter=0.0, scale=0.0)
    image = torch.zeros(64, 3, 40, 40, dtype=torch.uint8)
    image[:, 0, :, :20] = 255  # red on the left, blue on the right
    image[:, 2, :, 20:] = 255
    turned = augment(image, 40, still, np.random.default_rng(0))
    assert turned.shape == (64, 3, 40, 40)
    assert (float(turned.min()), float(turned.max())) == (0.0, 1.0)
    # turned by at most .2 and moved by at most a tenth: left stays left
    assert all(corners(one) == [[1, 0, 0], [0, 0, 1]] * 2 for one in turned)
    assert len({tuple(one.flatten().tolist()) for one in turned}) == 64
    flipped = augment(image, 40, still.model_copy(update={"flip": True}), np.random.default_rng(0))
    left = [corners(one)[0] for one in flipped]
    assert 20 < left.count([0, 0, 1]) < 44
    assert left.count([0, 0, 1]) + left.count([1, 0, 0]) == 64
    plain = torch.full((64, 3, 40, 40), 128, dtype=torch.uint8)
    lit = augment(plain, 40, settings(flip=False, jitter=0.4, scale=0.0), np.random.default_rng(0))
    levels = lit[:, :, 20, 20] / (128 / 255)
    assert 0.6 * 0.8 <= float(levels.min()) < 0.75
    assert 1.25 < float(levels.max()) <= 1.4 * 1.2
    assert float((levels.max(dim=1).values - levels.min(dim=1).values).max()) > 0.2  # each channel by itself
    assert (augment(plain, 40, still, np.random.default_rng(0)) - 128 / 255).abs().max() < 1e-5
    zoomed = augment(image, 40, settings(flip=False, jitter=0.0, scale=0.9), np.random.default_rng(0))
    # parts down to a tenth: often all of one colour
    assert sum(len({tuple(c) for c in corners(one)}) == 1 for one in zoomed) > 10


class Dice:
    """A generator whose draws are named, each from 0 (the least) to 1 (the most), and the same for
    all pictures.
    """

    def __init__(self, *draws: float) -> None:
        self.draws = list(draws)

    def uniform(self, low: float, high: float, count: int) -> np.ndarray:
        return np.full(count, low + (high - low) * self.draws.pop(0))


def test_a_picture_is_zoomed_flipped_turned_and_shifted() -> None:
    from fashionrec.embedder.training.train import augment

    side = 64
    places = (torch.arange(side) + 0.5) / side  # red is how far to the right a pixel is, green how far down
    right, down = places.expand(side, side), places[:, None].expand(side, side)
    picture = (torch.stack([right, down, right * 0]) * 255).round().to(torch.uint8)[None]
    moving = settings(flip=True, scale=0.4, jitter=0.0)
    # 1 - 0.4 + 0.05 of the picture; flipped; by 0.2; half of the room to the right, half of it up;
    # and no other light
    dice = Dice(1, 0.5, 0.4, 1, 0.75, 0.25, *[0.5] * 5)
    (found,) = augment(picture, side, moving, dice)  # type: ignore[arg-type]
    u, v = 2 * right - 1, 2 * down - 1
    cos, sin, shift = 0.65 * np.cos(0.2), 0.65 * np.sin(0.2), 0.35 / 2
    assert torch.allclose(found[0], ((-cos * u - sin * v + shift) + 1) / 2, atol=0.01)
    assert torch.allclose(found[1], ((-sin * u + cos * v - shift) + 1) / 2, atol=0.01)
    assert dice.draws == []
    still = settings(flip=False, scale=0.0, jitter=0.0)
    (same,) = augment(picture, side, still, Dice(1, 0, 0.5, 0.5, 0.5, *[0.5] * 5))  # type: ignore[arg-type]
    assert torch.allclose(same, picture[0] / 255, atol=0.01)


def test_light_colour_and_contrast() -> None:
    from fashionrec.embedder.training.train import augment

    picture = torch.tensor([51, 153], dtype=torch.uint8).repeat(1, 3, 2, 1)  # 0.2 and 0.6
    lit = settings(flip=False, scale=0.0, jitter=0.4)
    (found,) = augment(picture, 2, lit, Dice(0, 0, 0.5, 0.5, 0.5, 1, 0, 0.5, 1, 0))  # type: ignore[arg-type]
    # 0.6 of the contrast around the mean of 0.4, 1.4 of the light, 0.8, 1 and 1.2 of the three
    # colours
    expected = [[0.28 * 1.4 * share, 0.52 * 1.4 * share] for share in (0.8, 1.0, 1.2)]
    assert torch.allclose(found[:, 0], torch.tensor(expected), atol=1e-5)
    (bright,) = augment(picture, 2, lit, Dice(0, 0, 0.5, 0.5, 0.5, 1, 1, 1, 1, 1))  # type: ignore[arg-type]
    assert float(bright.max()) == 1
