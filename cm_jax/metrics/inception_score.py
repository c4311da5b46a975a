"""The inception score: how sure a classifier is of each image, and how varied it finds them.

    IS = exp mean_i KL(p(y | x_i) || p(y)),  p(y) = mean_i p(y | x_i)

Salimans et al. 2016, "Improved Techniques for Training GANs" (arXiv 1606.03498), section 4. From 1
(all images alike) to the number of classes; their code takes the logits without the bias, and the
mean over 10 splits of the samples in their order.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np


class InceptionScore(NamedTuple):
    """Mean and standard deviation over splits (the population's, as in their code)."""

    mean: float
    std: float


def inception_score(logits: np.ndarray, splits: int = 10) -> InceptionScore:
    """The score of logits [n, classes], in float64.

    Split i is the samples from i n / splits, rounded down. NaN if a logit is not finite. Raises
    ValueError unless 1 <= splits <= n.
    """
    if logits.ndim != 2:
        raise ValueError(f'logits have shape {logits.shape}, not [n, classes]')
    count = len(logits)
    if not 1 <= splits <= count:
        raise ValueError(f'{splits} splits of {count} samples; legal: 1 to {count}')
    if not np.isfinite(logits).all():
        return InceptionScore(float('nan'), float('nan'))
    log_p = log_softmax(logits)
    edges = [i * count // splits for i in range(splits + 1)]
    scores = [_one(log_p[first:last]) for first, last in pairwise(edges)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities, [n, classes] float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _one(log_p: np.ndarray) -> float:
    """KL is over the classes that have a probability: 0 log 0 is 0, also where it underflows."""
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    log_marginal = np.log(marginal, out=np.zeros_like(marginal), where=marginal > 0)
    return float(np.exp(np.mean(np.sum(p * (log_p - log_marginal[None]), axis=1))))
