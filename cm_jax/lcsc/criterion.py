"""What a search minimises: a metric of metrics.named by its name, or a weighted sum of several.

    score = sum_m w_m s_m value_m,   s_m = -1 where higher is better, else 1

Legal names are those of the numbers: Fréchet ('fid', 'fd_lenet') and kernel distance ('kid',
'kd_lenet'), and, negated as higher is better, the inception score ('is', 'is_lenet'), precision,
recall, density and coverage ('precision', 'precision_lenet', ...). Two metrics have two units:
{'fd_lenet': 1.0, 'kd_lenet': 100.0} brings a kernel distance to about the size of the other.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from cm_jax.errors import UserError, check_name
from cm_jax.evaluation.scores import Reference
from cm_jax.metrics import frechet, moments, named
from cm_jax.metrics.moments import Moments
from cm_jax.types import Extractor

HIGHER_IS_BETTER = ('is', *named.PARTS)


class Criterion(NamedTuple):
    """A weighted sum of metrics against a reference; `weights` include the signs s_m."""

    extractor: Extractor
    reference: Reference
    weights: Mapping[str, float]
    distance: Callable[[Moments], float]  # Fréchet, to the reference

    @property
    def needs_features(self) -> bool:
        """Whether a metric needs the features; a Fréchet distance needs their moments alone."""
        return bool(named.beyond(self.extractor, sources(self.weights)))

    def of_moments(self, total: Moments) -> float:
        """Returns the score of samples from the moments of their features; NaN if one is not finite."""
        return self.weights[self.extractor.score] * self.distance(total)

    def of_features(self, extracted: np.ndarray) -> float:
        """Returns the score of samples from their features [n, dim]; NaN if one is not finite."""
        if not np.isfinite(extracted).all():
            return float('nan')
        names, real = sources(self.weights), self.reference.kept_features()
        values = named.measure(self.extractor, names, real, extracted)
        if self.extractor.score in self.weights:
            values[self.extractor.score] = self.distance(moments.of(extracted))
        return sum(weight * values[name] for name, weight in self.weights.items())


def build(
    extractor: Extractor, reference: Reference, metric: str | Mapping[str, float], samples: int
) -> Criterion:
    """Returns the criterion of the metric named `metric`, or of several with their weights > 0.

    Raises UserError on an unknown name, on a weight that is not above 0 and on too few samples, and
    ValueError if a metric needs the features of the reference and it was opened without.
    """
    weights = {metric: 1.0} if isinstance(metric, str) else dict(metric)
    legal = [extractor.score, *named.keys(extractor, named.names(extractor))]
    for name, weight in weights.items():
        check_name(f'metric of a search with the extractor {extractor.name}', name, legal)
        if not (0 < weight < float('inf')):
            raise UserError(
                f'the weight of the metric {name} of a search must be > 0, got {weight}'
            )
    if not weights:
        raise UserError(f'a search has no metric; legal: {", ".join(sorted(legal))}')
    named.check(extractor, sources(weights), samples, reference.moments.count)
    signed = {name: _sign(name) * float(weight) for name, weight in weights.items()}
    built = Criterion(
        extractor=extractor,
        reference=reference,
        weights=signed,
        distance=frechet.distance_to(reference.moments),
    )
    if built.needs_features and reference.features is None:
        raise ValueError(f'{", ".join(weights)} need the features of the reference: keep=True')
    return built


def sources(metric: str | Iterable[str]) -> list[str]:
    """Returns the names of metrics.named that give these numbers: 'pr_lenet' for 'recall_lenet'."""
    names = [metric] if isinstance(metric, str) else list(metric)
    kinds = [name.split('_')[0] for name in names]
    metrics = [
        f'pr{name.removeprefix(kind)}' if kind in named.PARTS else name
        for name, kind in zip(names, kinds)
    ]
    return list(dict.fromkeys(metrics))


def _sign(name: str) -> float:
    """Returns s_m of a metric."""
    return -1.0 if name.split('_')[0] in HIGHER_IS_BETTER else 1.0
