"""Probabilities that hold: a scale, and a bias for each value, fitted on garments whose attributes are known.

An encoder's similarities tell values apart, but not how often each occurs, nor how sure it may be: some words lie near to all
pictures. The scale is Guo et al. 2017's temperature ("On Calibration of Modern Neural Networks", section 4.2); the biases make
each value as frequent as it is among the known garments (iterative scaling; Saerens et al. 2002 do so for new priors). How far
the known garments are believed is chosen on products that were left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Fewer garments than this, or than three to a value, fit nothing.
LEAST = 24
_SCALES = np.exp(np.linspace(-4.0, 1.0, 51))
_ROUNDS = 12
#: Garments of each value that are added to those seen: the more, the smaller the biases. The last leaves them out.
_PRIORS = (1.0, 5.0, 25.0, np.inf)


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
    for prior in _PRIORS:
        parts = []
        for left_out in (0, 1):
            seen, others = half != left_out, half == left_out
            found = _fit(logits[seen], truth[seen], prior)
            parts.append(others.sum() * surprise(found.scale * logits[others] + found.bias, truth[others]))
        surprises.append(sum(parts))
    return _fit(logits, truth, _PRIORS[int(np.argmin(surprises))])


def softmax(values: np.ndarray) -> np.ndarray:
    """Float64 of that shape, each row of the last axis adding up to 1."""
    values = np.asarray(values, np.float64)
    odds = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


def surprise(values: np.ndarray, truth: np.ndarray) -> float:
    """Mean negative log-likelihood of ``truth`` [n] under softmax(``values`` [n, values]), in nats."""
    highest = values.max(axis=1)
    totals = np.log(np.exp(values - highest[:, None]).sum(axis=1)) + highest
    return float((totals - values[np.arange(len(truth)), truth]).mean())


def _fit(logits: np.ndarray, truth: np.ndarray, prior: float) -> Calibration:
    """Scale and biases are improved in turn."""
    values = logits.shape[1]
    seen = np.bincount(truth, minlength=values)
    scale, bias = 1.0, np.zeros(values)
    for _ in range(_ROUNDS):
        scale = float(min(_SCALES, key=lambda one: surprise(one * logits + bias, truth)))
        if np.isinf(prior):
            break
        for _ in range(3):
            expected = softmax(scale * logits + bias).sum(axis=0)
            bias = bias + np.log((seen + prior) / (expected + prior))
        bias -= bias.mean()
    return Calibration(scale, bias, len(truth))
