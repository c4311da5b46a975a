"""The inception score: high if a classifier is sure of each image, and sees many classes in all.

    IS = exp mean_i KL(p(y | x_i) || p(y)),  p(y) = mean_i p(y | x_i)

Salimans et al. 2016, "Improved Techniques for Training GANs" (arXiv 1606.03498), section 4. The score
lies between 1 (all images have the same probabilities) and the number of classes. Their code leaves
the bias out of the logits, and takes the mean of the scores of 10 splits of the samples, in order.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np


class InceptionScore(NamedTuple):
    """Mean and standard deviation over the splits; the sum of squares is divided by their number."""

    mean: float
    std: float


def inception_score(logits: np.ndarray, splits: int = 10) -> InceptionScore:
    """Returns the score of logits [n, classes], computed in float64.

    Split i starts at the sample i n / splits, rounded down. Mean and standard deviation are NaN if a
    logit is not finite. Raises ValueError on another shape, and unless 1 <= splits <= n.
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
    scores = [_score_of_split(log_p[first:last]) for first, last in pairwise(edges)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithms of the probabilities of logits [n, classes], in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _score_of_split(log_p: np.ndarray) -> float:
    """Returns the score of the log-probabilities [n, classes] of one split.

    A class whose probability is 0, also by underflow, adds nothing to KL, as 0 log 0 is taken as 0.
    """
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    log_marginal = np.log(marginal, out=np.zeros_like(marginal), where=marginal > 0)
    return float(np.exp(np.mean(np.sum(p * (log_p - log_marginal[None]), axis=1))))
