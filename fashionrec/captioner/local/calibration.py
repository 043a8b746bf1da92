"""Calibrated probabilities: a scale and a bias per value, fitted on labelled garments.

An encoder's similarities rank the values, but reflect neither how often each occurs nor how
confident a prediction should be: some words are similar to every image. The scale is the
temperature of Guo et al. 2017 ("On Calibration of Modern Neural Networks", section 4.2); the biases
are those of their vector scaling, with an L2 penalty. The penalty is chosen by two-fold
cross-validation over products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Least number of garments for a fit, which also needs three per value.
LEAST = 24
_MIN_SCALE, _MAX_SCALE = 0.02, 3.0
_MAX_STEPS = 25
#: L2 penalties on the biases, in garments of evidence for no bias; infinity fits the scale alone.
_PENALTIES = (0.3, 3.0, 30.0, np.inf)


@dataclass(frozen=True)
class Calibration:
    """A fit: ``probabilities = softmax(scale * logits + bias)``, from so many ``garments``.

    ``bias`` is float64 [values].
    """

    scale: float
    bias: np.ndarray
    garments: int

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities float64 [..., values] for logits of that shape."""
        return softmax(self.scale * np.asarray(logits, np.float64) + self.bias)


def fit(logits: np.ndarray, truth: np.ndarray, groups: Sequence[str]) -> Calibration | None:
    """Fit a calibration that maximises the likelihood of ``truth``; None for too few garments.

    Args:
        logits: Float [n, values].
        truth: Int [n], the index of each garment's value.
        groups: The product of each garment; products are not split in the cross-validation.
    """
    count, values = logits.shape
    folds = {name: n % 2 for n, name in enumerate(dict.fromkeys(groups))}
    if count < max(LEAST, 3 * values) or len(folds) < 4:
        return None
    logits, fold_of = np.asarray(logits, np.float64), np.array([folds[name] for name in groups])
    losses = []
    for penalty in _PENALTIES:
        parts = []
        for fold in (0, 1):
            train, test = fold_of != fold, fold_of == fold
            fitted = _fit(logits[train], truth[train], penalty)
            parts.append(test.sum() * negative_log_likelihood(fitted.scale * logits[test] + fitted.bias, truth[test]))
        losses.append(sum(parts))
    return _fit(logits, truth, _PENALTIES[int(np.argmin(losses))])


def softmax(values: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis, float64."""
    values = np.asarray(values, np.float64)
    exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def sigmoid(values: np.ndarray, bias: float) -> np.ndarray:
    """Return the probability of each value by itself, float64 of the same shape."""
    return np.asarray(1 / (1 + np.exp(-(np.asarray(values, np.float64) + bias))))


def negative_log_likelihood(values: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean negative log-likelihood of ``truth`` [n] in nats.

    ``values`` [n, values] are the logits of a softmax.
    """
    highest = values.max(axis=1)
    totals = np.log(np.exp(values - highest[:, None]).sum(axis=1)) + highest
    return float((totals - values[np.arange(len(truth)), truth]).mean())


def _fit(logits: np.ndarray, truth: np.ndarray, penalty: float) -> Calibration:
    """Minimise a convex loss by Newton's method; the parameters are the scale and the biases."""
    count, values = logits.shape
    has_bias = not np.isinf(penalty)
    ridge = np.full(values, penalty / count if has_bias else 0.0)
    one_hot = np.zeros((count, values))
    one_hot[np.arange(count), truth] = 1.0
    parameters = np.concatenate([[1.0], np.zeros(values)])

    def loss(parameters: np.ndarray) -> float:
        return (
            negative_log_likelihood(parameters[0] * logits + parameters[1:], truth)
            + float(ridge @ parameters[1:] ** 2) / 2
        )

    current = loss(parameters)
    for _ in range(_MAX_STEPS):
        probabilities = softmax(parameters[0] * logits + parameters[1:])
        errors, mean = probabilities - one_hot, (probabilities * logits).sum(axis=1)
        gradient = np.concatenate([[(errors * logits).sum() / count], errors.mean(axis=0) + ridge * parameters[1:]])
        hessian = np.empty((values + 1, values + 1))
        hessian[0, 0] = ((probabilities * logits**2).sum(axis=1) - mean**2).mean()
        hessian[0, 1:] = hessian[1:, 0] = (probabilities * (logits - mean[:, None])).mean(axis=0)
        hessian[1:, 1:] = np.diag(probabilities.mean(axis=0) + ridge) - probabilities.T @ probabilities / count
        size = 1 + values if has_bias else 1
        step = np.zeros_like(parameters)
        step[:size] = np.linalg.solve(hessian[:size, :size] + 1e-9 * np.eye(size), gradient[:size])
        step_size = 1.0
        while step_size > 1e-4:
            candidate = parameters - step_size * step
            candidate[0] = np.clip(candidate[0], _MIN_SCALE, _MAX_SCALE)
            candidate_loss = loss(candidate)
            if candidate_loss < current:
                break
            step_size /= 2
        else:
            break
        parameters, improvement, current = candidate, current - candidate_loss, candidate_loss
        if improvement < 1e-7:
            break
    return Calibration(float(parameters[0]), parameters[1:] - parameters[1:].mean(), count)
