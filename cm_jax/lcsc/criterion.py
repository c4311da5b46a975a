"""What a search minimises: a metric of metrics.named by its name, or a weighted sum of several.

    score = sum_m w_m s_m value_m / u_m,   s_m = -1 where higher is better, else 1

Legal names are those of the numbers: Fréchet ('fid', 'fd_lenet') and kernel distance ('kid',
'kd_lenet'), and, negated as higher is better, the inception score ('is', 'is_lenet'), precision,
recall, density and coverage ('precision', 'precision_lenet', ...), of any of the feature spaces at
hand. Two metrics have two units: {'fd_lenet': 1.0, 'kd_lenet': 100.0} brings a kernel distance to about
the size of the other. With relative weights the unit u_m is the best value that one of the profiles
which a search starts from has on search noise, and else 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cm_jax.errors import UserError, check_name
from cm_jax.evaluation.scores import FeatureSpace
from cm_jax.metrics import frechet, moments, named
from cm_jax.metrics.moments import Moments

HIGHER_IS_BETTER = ('is', *named.PARTS)


class Part(NamedTuple):
    """The metrics of one feature space in a weighted sum; `weights` include the signs s_m."""

    space: FeatureSpace
    weights: Mapping[str, float]
    frechet: frechet.Frechets  # the distance to the reference, and its derivative

    @property
    def needs_features(self) -> bool:
        """Whether a metric needs the features; a Fréchet distance needs their moments alone."""
        return bool(named.beyond(self.space.extractor, sources(self.weights)))

    def of_moments(self, total: Moments) -> list[float]:
        """Returns the values of the metrics, from the moments of the features of samples.

        They are NaN if a moment is not finite.
        """
        return [self.frechet.distance(total) for _ in self.weights]

    def of_features(self, extracted: np.ndarray) -> list[float]:
        """Returns the values of the metrics, from the features [n, dim] of samples.

        They are NaN if a feature is not finite.
        """
        if not np.isfinite(extracted).all():
            return [float('nan')] * len(self.weights)
        extractor, metrics = self.space.extractor, sources(self.weights)
        values = named.measure(extractor, metrics, self.space.reference.kept_features(), extracted)
        if extractor.score in self.weights:
            values[extractor.score] = self.frechet.distance(moments.of(extracted))
        return [values[name] for name in self.weights]


class Criterion(NamedTuple):
    """A weighted sum of metrics in one or several feature spaces."""

    parts: tuple[Part, ...]

    @property
    def names(self) -> list[str]:
        """The names of the M metrics, part by part."""
        return [name for part in self.parts for name in part.weights]

    def score(self, values: np.ndarray, units: np.ndarray) -> np.ndarray:
        """Returns the scores [...] of values [..., M] of the metrics, with the units u_m [M]."""
        weights = np.array([weight for part in self.parts for weight in part.weights.values()])
        return (values * (weights / units)).sum(axis=-1)

    def units(self, values: np.ndarray) -> np.ndarray:
        """Returns the best size [M] of each metric among the values [P, M] of candidates.

        Raises UserError if there is none, or if it is 0.
        """
        signs = np.array([_sign(name) for name in self.names])
        finite = np.where(np.isfinite(values), values * signs, np.inf)
        best = np.abs(finite.min(axis=0))
        for name, unit in zip(self.names, best):
            if not 0 < unit < np.inf:
                raise UserError(
                    f'relative weights: no profile has a finite {name} other than 0; give weights'
                )
        return best


def build(spaces: Sequence[FeatureSpace], metric: Mapping[str, float], samples: int) -> Criterion:
    """Returns the criterion of the metrics with their weights > 0.

    Raises UserError on an unknown name, on a weight that is not above 0 and on too few samples, and
    ValueError if a metric needs the features of the reference and it was opened without.
    """
    legal = {name: space for space in spaces for name in legal_names(space)}
    for name, weight in metric.items():
        extractors = ', '.join(space.extractor.name for space in spaces)
        check_name(f'metric of a search with the extractors {extractors}', name, legal)
        if not (0 < weight < float('inf')):
            raise UserError(
                f'the weight of the metric {name} of a search must be > 0, got {weight}'
            )
    if not metric:
        raise UserError(f'a search has no metric; legal: {", ".join(sorted(legal))}')
    parts = []
    for space in spaces:
        own = {
            name: _sign(name) * float(weight)
            for name, weight in metric.items()
            if name in legal_names(space)
        }
        if own:
            parts.append(_part(space, own, samples))
    return Criterion(tuple(parts))


def _part(space: FeatureSpace, weights: Mapping[str, float], samples: int) -> Part:
    """Returns the metrics of one feature space. Raises as `build` does."""
    metrics = sources(weights)
    named.check(space.extractor, metrics, samples, space.reference.moments.count)
    built = Part(space, weights, frechet.distances_to(space.reference.moments))
    if built.needs_features and space.reference.features is None:
        raise ValueError(f'{", ".join(weights)} need the features of the reference: keep=True')
    return built


def legal_names(space: FeatureSpace) -> list[str]:
    """Returns the names of the numbers that a search can minimise in a feature space."""
    extractor = space.extractor
    return [extractor.score, *named.keys(extractor, named.names(extractor))]


def sources(metric: Iterable[str]) -> list[str]:
    """Returns the names of metrics.named that give these numbers: 'pr_lenet' for 'recall_lenet'."""
    names = list(metric)
    kinds = [name.split('_')[0] for name in names]
    metrics = [
        f'pr{name.removeprefix(kind)}' if kind in named.PARTS else name
        for name, kind in zip(names, kinds)
    ]
    return list(dict.fromkeys(metrics))


def _sign(name: str) -> float:
    """Returns s_m of a metric."""
    return -1.0 if name.split('_')[0] in HIGHER_IS_BETTER else 1.0
