"""CMA-ES in the sum-to-one plane: a Gaussian whose mean, length and shape follow the scores.

Hansen 2016, "The CMA Evolution Strategy: A Tutorial" (arXiv 1604.00772), by the library `cmaes`
(CyberAgent; numpy alone). Between it and `cma` the choice is the state: here the Gaussian is a
function of the candidates told and nothing else, because the samples' stream can be set anew each
generation (`reseed_rng`), so that a search is rebuilt from its archive to the last bit; `cma` draws
from numpy's global stream by default and keeps logs and options beside its numbers.

The search begins at the best of the profiles. The coordinates are an orthonormal basis of the plane
for each group: [G (K-1)]. A Gaussian that has run to its end (no change in scores, no length, an
ill-conditioned shape: `should_stop`) is begun again at the best.
"""

import copy
from typing import Annotated, NamedTuple

import numpy as np
from cmaes import CMA

from cm_jax.bounds import Interval, Positive, Share
from cm_jax.lcsc.archive import Archive
from cm_jax.lcsc.profiles import per_entry, plane


class Settings(NamedTuple):
    """Hyper-parameters: those of the same name in lcsc.evolution."""

    population: Annotated[int, Interval('[4, 65536]')] = 16
    scale: Positive = 0.065
    ema_rates: tuple[Share, ...] = ()


def propose(
    settings: Settings, archive: Archive, memory: CMA, random: np.random.Generator
) -> np.ndarray:
    """Returns `population` draws [P, G, K] of the Gaussian."""
    groups, k = archive.coefficients.shape[1:]
    gaussian = copy.deepcopy(memory)
    gaussian.reseed_rng(int(random.integers(2**32)))
    points = np.stack([gaussian.ask() for _ in range(settings.population)])
    return 1 / k + points.reshape(-1, groups, k - 1) @ plane(k)


def learn(settings: Settings, archive: Archive, memory: CMA | None, told: Archive) -> CMA:
    """Returns the Gaussian after the candidates `told`; `archive` holds all candidates, these too.

    The first candidates are the profiles, whatever their number: the best of them is the mean of the
    first Gaussian. Raises ValueError if a later generation has not `population` candidates.
    """
    if memory is None:
        return _begin(settings, archive)
    if len(told.scores) != settings.population:
        raise ValueError(
            f'{len(told.scores)} scores for CMA-ES with a population of {settings.population}'
        )
    finite = told.scores[np.isfinite(told.scores)]
    worst = finite.max() + 1 if len(finite) else 0.0  # only the order counts
    scores = np.where(np.isfinite(told.scores), told.scores, worst)
    gaussian = copy.deepcopy(memory)
    gaussian.tell(list(zip(_points(told.coefficients), scores.tolist())))
    return _begin(settings, archive) if gaussian.should_stop() else gaussian


def _begin(settings: Settings, archive: Archive) -> CMA:
    """Returns a new Gaussian around the best candidate of the archive."""
    (mean,) = _points(archive.pool(1))
    sigma = per_entry(settings.scale, archive.coefficients.shape[2])
    return CMA(mean, sigma, population_size=settings.population, seed=0)


def _points(coefficients: np.ndarray) -> np.ndarray:
    """Returns the coordinates [P, G (K-1)] of candidates [P, G, K]; the uniform average has 0."""
    count, _, k = coefficients.shape
    return (coefficients @ plane(k).T).reshape(count, -1)
