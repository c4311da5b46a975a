"""All candidates of a search with their scores."""

from typing import NamedTuple

import numpy as np


class Archive(NamedTuple):
    """Candidates, oldest first. Lower scores are better; a score that is not finite is never best."""

    coefficients: np.ndarray  # [N, G, K] float64: checkpoint by checkpoint for each group
    scores: np.ndarray  # [N] float64
    # Of the newest candidates alone, where a method asks for them: [N, G, K] float64, d score / dc.
    gradients: np.ndarray | None = None

    def pool(self, size: int) -> np.ndarray:
        """Returns the best `size` candidates with a finite score, or any without one: [M, G, K]."""
        finite = int(np.isfinite(self.scores).sum())
        return self.coefficients[ranking(self.scores)[: min(size, finite or size)]]


def best_first(archive: Archive, profiles: int, count: int) -> Archive:
    """Returns the `count` candidates with the best scores, without the first `profiles`."""
    rest = np.arange(profiles, len(archive.scores))
    chosen = rest[ranking(archive.scores[rest])][:count]
    return Archive(archive.coefficients[chosen], archive.scores[chosen])


def ranking(scores: np.ndarray) -> np.ndarray:
    """Returns the indices from the best to the worst score; scores that are not finite come last."""
    return np.argsort(np.where(np.isfinite(scores), scores, np.inf), kind='stable')
