"""The inception score: at its ends, in closed form, and by splits."""

import math

import numpy as np
import pytest

from cm_jax.metrics.inception_score import inception_score


def normal(n, d, seed=0, mean=0.0, std=1.0):
    return mean + std * np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize('classes', [2, 10])
def test_inception_score_at_its_ends(classes):
    sure = 1000 * np.tile(np.eye(classes), (20, 1))
    np.testing.assert_allclose(inception_score(sure, splits=4), (classes, 0), rtol=1e-12, atol=1e-9)
    alike = np.tile(normal(1, classes), (50, 1))
    np.testing.assert_allclose(inception_score(alike), (1, 0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(inception_score(1000 * alike), (1, 0), rtol=1e-12, atol=1e-9)


def test_inception_score_of_two_kinds_in_closed_form():
    """Probabilities (q, 1-q) and (1-q, q): exp(log 2 - entropy of q)."""
    q = 0.8
    logits = np.tile(np.log([[q, 1 - q], [1 - q, q]]), (10, 1))
    expected = 2 * math.exp(q * math.log(q) + (1 - q) * math.log(1 - q))
    np.testing.assert_allclose(inception_score(logits, splits=2)[0], expected, rtol=1e-12)


def test_inception_score_splits_in_order_and_ignores_a_shift():
    logits = normal(23, 6, std=2)
    parts = [inception_score(p, 1)[0] for p in (logits[:7], logits[7:15], logits[15:])]
    np.testing.assert_allclose(inception_score(logits, 3), (np.mean(parts), np.std(parts)))
    shifted = logits + normal(23, 1, seed=1)
    np.testing.assert_allclose(inception_score(shifted, 3), inception_score(logits, 3))


def test_inception_score_refuses_and_tells_nan():
    assert np.isnan(inception_score(np.array([[0, np.nan], [0, 1]]), 1)).all()
    with pytest.raises(ValueError, match='10 splits of 4 samples; legal: 1 to 4'):
        inception_score(normal(4, 3))
    with pytest.raises(ValueError, match=r'shape \(4,\)'):
        inception_score(np.zeros(4), 1)
