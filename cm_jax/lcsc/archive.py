"""All candidates of a search with their scores."""

from typing import NamedTuple

import numpy as np


class Archive(NamedTuple):
    """Candidates, oldest first. Lower scores are better; a score that is not finite is never best."""

    coefficients: np.ndarray  # [N, G, K] float64: checkpoint by checkpoint for each group
    scores: np.ndarray  # [N] float64

    def pool(self, size: int) -> np.ndarray:
        """Returns the best `size` candidates with a finite score, or any without one: [M, G, K]."""
        finite = int(np.isfinite(self.scores).sum())
        return self.coefficients[ranking(self.scores)[: min(size, finite or size)]]


def ranking(scores: np.ndarray) -> np.ndarray:
    """Returns the indices from the best to the worst score; scores that are not finite come last."""
    return np.argsort(np.where(np.isfinite(scores), scores, np.inf), kind='stable')
