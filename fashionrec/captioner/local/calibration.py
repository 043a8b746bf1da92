"""Probabilities that hold: a scale, and a bias for each value, fitted on garments whose attributes are known.

An encoder's similarities tell values apart, but not how often each occurs, nor how sure it may be: some words lie near to all
pictures. The scale is the temperature of Guo et al. 2017 ("On Calibration of Modern Neural Networks", section 4.2); the biases
are those of their vector scaling, held to zero by a penalty. How strong that is is chosen on products that were left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Fewer garments than this, or than three to a value, fit nothing.
LEAST = 24
_LEAST_SCALE, _MOST_SCALE = 0.02, 3.0
_STEPS = 25
#: Penalties on the squares of the biases, as if so many garments spoke for none. The last leaves them out.
_PENALTIES = (0.3, 3.0, 30.0, np.inf)


@dataclass(frozen=True)
class Calibration:
    """``probabilities = softmax(scale * logits + bias)``; ``bias`` float64 [values]; ``garments`` it was fitted on."""

    scale: float
    bias: np.ndarray
    garments: int

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Float64 [..., values] of logits of that shape."""
        return softmax(self.scale * np.asarray(logits, np.float64) + self.bias)


def fit(logits: np.ndarray, truth: np.ndarray, groups: Sequence[str]) -> Calibration | None:
    """The calibration under which ``truth`` (int [n], numbers of values) is likeliest, given logits [n, values].

    Garments of one of ``groups`` (their product) are left out together. None where there are too few garments to fit one.
    """
    count, values = logits.shape
    names = {name: n % 2 for n, name in enumerate(dict.fromkeys(groups))}
    if count < max(LEAST, 3 * values) or len(names) < 4:
        return None
    logits, half = np.asarray(logits, np.float64), np.array([names[name] for name in groups])
    surprises = []
    for penalty in _PENALTIES:
        parts = []
        for left_out in (0, 1):
            seen, others = half != left_out, half == left_out
            found = _fit(logits[seen], truth[seen], penalty)
            parts.append(others.sum() * surprise(found.scale * logits[others] + found.bias, truth[others]))
        surprises.append(sum(parts))
    return _fit(logits, truth, _PENALTIES[int(np.argmin(surprises))])


def softmax(values: np.ndarray) -> np.ndarray:
    """Float64 of that shape, each row of the last axis adding up to 1."""
    values = np.asarray(values, np.float64)
    odds = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


def sigmoid(values: np.ndarray, bias: float) -> np.ndarray:
    """Float64 of that shape: the probability of each value by itself."""
    return np.asarray(1 / (1 + np.exp(-(np.asarray(values, np.float64) + bias))))


def surprise(values: np.ndarray, truth: np.ndarray) -> float:
    """Mean negative log-likelihood of ``truth`` [n] under softmax(``values`` [n, values]), in nats."""
    highest = values.max(axis=1)
    totals = np.log(np.exp(values - highest[:, None]).sum(axis=1)) + highest
    return float((totals - values[np.arange(len(truth)), truth]).mean())


def _fit(logits: np.ndarray, truth: np.ndarray, penalty: float) -> Calibration:
    """Newton's method on a convex function of few numbers: the scale first, then the bias of each value."""
    count, values = logits.shape
    biased = not np.isinf(penalty)
    ridge = np.full(values, penalty / count if biased else 0.0)
    occurs = np.zeros((count, values))
    occurs[np.arange(count), truth] = 1.0
    at = np.concatenate([[1.0], np.zeros(values)])

    def loss(place: np.ndarray) -> float:
        return surprise(place[0] * logits + place[1:], truth) + float(ridge @ place[1:] ** 2) / 2

    now = loss(at)
    for _ in range(_STEPS):
        odds = softmax(at[0] * logits + at[1:])
        wrong, mean = odds - occurs, (odds * logits).sum(axis=1)
        slope = np.concatenate([[(wrong * logits).sum() / count], wrong.mean(axis=0) + ridge * at[1:]])
        bend = np.empty((values + 1, values + 1))
        bend[0, 0] = ((odds * logits**2).sum(axis=1) - mean**2).mean()
        bend[0, 1:] = bend[1:, 0] = (odds * (logits - mean[:, None])).mean(axis=0)
        bend[1:, 1:] = np.diag(odds.mean(axis=0) + ridge) - odds.T @ odds / count
        size = 1 + values if biased else 1
        step = np.zeros_like(at)
        step[:size] = np.linalg.solve(bend[:size, :size] + 1e-9 * np.eye(size), slope[:size])
        part = 1.0
        while part > 1e-4:
            new = at - part * step
            new[0] = np.clip(new[0], _LEAST_SCALE, _MOST_SCALE)
            reached = loss(new)
            if reached < now:
                break
            part /= 2
        else:
            break
        at, gained, now = new, now - reached, reached
        if gained < 1e-7:
            break
    return Calibration(float(at[0]), at[1:] - at[1:].mean(), count)
