"""Probabilities of zero-shot attributes: they hold on garments that were not fitted on."""

import numpy as np
import pytest

from fashionrec.captioner.local.calibration import LEAST, fit, negative_log_likelihood, softmax
from fashionrec.captioner.local.captioner import ZeroShotCaptioner

VALUES = 4


def world(count: int, *, sharp: float, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Logits of an encoder that is ``sharp`` times too sure and likes the first value, which is
    rare; truths; products.
    """
    rng = np.random.default_rng(seed)
    truth = rng.choice(VALUES, count, p=[0.05, 0.15, 0.3, 0.5])
    logits = rng.normal(size=(count, VALUES))
    logits[np.arange(count), truth] += 1.5
    logits[:, 0] += 2.0
    return sharp * logits, truth, [f"p{n // 3}" for n in range(count)]


def off(odds: np.ndarray, truth: np.ndarray) -> float:
    """By how much the certainty of the best differs from how often it is right."""
    return abs(float(odds.max(axis=1).mean() - (odds.argmax(axis=1) == truth).mean()))


def test_certainty_is_how_often_it_is_right() -> None:
    found = fit(*world(1500, sharp=4.0, seed=0))
    assert found is not None
    logits, truth, _ = world(3000, sharp=4.0, seed=1)
    assert off(softmax(logits), truth) > 0.3  # what it is without
    assert off(found.probabilities(logits), truth) < 0.05
    assert (found.probabilities(logits).argmax(axis=1) == truth).mean() > (logits.argmax(axis=1) == truth).mean() + 0.1
    assert found.bias[0] < min(found.bias[1:])


def test_what_is_right_already_stays() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(4000, VALUES)) * 2
    truth = np.array([rng.choice(VALUES, p=row) for row in softmax(logits)])
    found = fit(logits, truth, [str(n) for n in range(4000)])
    assert found is not None
    assert 0.8 < found.scale < 1.25
    assert np.ptp(found.bias) < 0.4


def test_labels_that_say_nothing_make_it_unsure() -> None:
    """The planted fault: truths drawn without a look at the picture."""
    logits, truth, products = world(1500, sharp=4.0, seed=3)
    found = fit(logits, np.random.default_rng(0).permutation(truth), products)
    assert found is not None
    uniform = np.bincount(truth).max() / len(truth)
    assert abs(found.probabilities(logits).max(axis=1).mean() - uniform) < 0.05


def test_few_garments_or_products_fit_nothing() -> None:
    logits, truth, products = world(LEAST - 1, sharp=1.0, seed=4)
    assert fit(logits, truth, products) is None
    logits, truth, products = world(60, sharp=1.0, seed=4)
    assert fit(logits, truth, ["one"] * 60) is None
    assert fit(logits, truth, products) is not None
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(size=(30, 10)), np.arange(30) % 10  # three garments of each value are enough
    assert fit(logits, truth, [str(n) for n in range(30)]) is not None
    assert fit(logits[:29], truth[:29], [str(n) for n in range(29)]) is None


def right_already(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, VALUES)) * 2
    return logits, np.array([rng.choice(VALUES, p=row) for row in softmax(logits)]), [str(n) for n in range(count)]


@pytest.mark.parametrize(
    ("garments", "penalty"),
    [
        (world(1500, sharp=4.0, seed=0), 0.3),
        (world(100, sharp=1.0, seed=7), 3.0),
        (right_already(6, 80), 30.0),
        (right_already(5, 40), np.inf),
    ],
)
def test_a_fit_is_where_the_penalised_likelihood_is_level(
    garments: tuple[np.ndarray, np.ndarray, list[str]], penalty: float
) -> None:
    """The derivatives by the scale and by each bias are 0: of the mean surprise, and of penalty *
    bias² / 2n.
    """
    found = fit(*garments)
    assert found is not None
    logits, truth, _ = garments
    wrong = found.probabilities(logits) - np.eye(VALUES)[truth]
    assert abs((wrong * logits).sum() / len(truth)) < 1e-5
    assert found.garments == len(truth)
    if np.isinf(penalty):
        assert not found.bias.any()
    else:
        assert np.allclose(wrong.mean(axis=0) + penalty / len(truth) * found.bias, 0, atol=1e-6)
        assert np.ptp(found.bias) > 0.01


def test_surprise_is_the_mean_negative_log_likelihood() -> None:
    values, truth = np.log(np.array([[0.5, 0.5], [0.9, 0.1]])), np.array([0, 1])
    assert np.isclose(negative_log_likelihood(values, truth), -(np.log(0.5) + np.log(0.1)) / 2)
    assert np.isfinite(negative_log_likelihood(np.array([[1e4, -1e4]]), np.array([1])))


def test_a_captioner_is_calibrated_by_class_and_field() -> None:
    """An encoder whose pictures of red and of blue garments lie as near to "red"; only the truth
    tells how often it is.
    """
    directions = {"red": [1.0, 0.0, 0.2], "blue": [0.8, 0.6, 0.2]}

    def embed(texts: list[str]) -> np.ndarray:
        rows = [next((v for word, v in directions.items() if word in text), [0.0, 0.0, 1.0]) for text in texts]
        return np.asarray(rows, np.float32)

    captioner = ZeroShotCaptioner(embed, 0.0, logit_scale=20.0, vocabulary={"color": {"red", "blue"}})
    rng = np.random.default_rng(0)
    vectors = rng.normal([1.0, 0.2, 0.0], 0.02, size=(60, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert {o.description.color for o in captioner.describe_vectors(vectors, ["top"] * 60) if o.description} == {"red"}
    known = [{"color": "blue" if n % 10 else "red"} for n in range(60)]
    fitted = captioner.calibrate(vectors, ["top"] * 60, known, [f"p{n}" for n in range(60)])
    assert set(fitted) == {("top", "color")}
    told = [o.description.color for o in captioner.describe_vectors(vectors, ["top"] * 60) if o.description]
    assert told.count("blue") > 50
    other = captioner.describe_vectors(vectors, ["skirt"] * 60)  # nothing is known of skirts: as unsure as of tops
    assert {o.description.color for o in other if o.description} == {"red"}
    before = ZeroShotCaptioner(embed, 0.0, logit_scale=20.0, vocabulary={"color": {"red", "blue"}})
    raw = before.describe_vectors(vectors, ["skirt"] * 60)
    sure = [np.mean([o.description.confidence for o in some if o.description]) for some in (raw, other)]
    assert (sure[1] < sure[0]) == (fitted["top", "color"].scale < 1)
    assert sure[0] != sure[1]
    assert captioner.calibrate(vectors, ["top"] * 60, [{}] * 60, [f"p{n}" for n in range(60)]) == {}
