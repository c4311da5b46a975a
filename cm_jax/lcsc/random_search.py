"""Random search around the profiles that every search starts from: the control of the other methods.

A candidate is one of the profiles, drawn alike, plus Gaussian steps in all directions of the
sum-to-one plane. Nobody knows the best length of a step beforehand, so it is drawn for each
candidate, log-uniform from a tenth of `scale` to ten times it. Scores do not influence the search.
"""

from typing import NamedTuple

import numpy as np

from cm_jax.bounds import Positive, Share
from cm_jax.lcsc.archive import Archive
from cm_jax.lcsc.profiles import Population, per_entry, plane, stacked_profiles


class Settings(NamedTuple):
    """Hyper-parameters: those of the same name in lcsc.evolution."""

    population: Population = 16
    scale: Positive = 0.065
    ema_rates: tuple[Share, ...] = ()


def propose(
    settings: Settings, archive: Archive, memory: None, random: np.random.Generator
) -> np.ndarray:
    """Returns `population` candidates [P, G, K]."""
    groups, k = archive.coefficients.shape[1:]
    profiles = stacked_profiles(k, groups, settings.ema_rates)
    centres = profiles[random.integers(len(profiles), size=settings.population)]
    lengths = per_entry(settings.scale, k) * 10 ** random.uniform(-1, 1, settings.population)
    steps = random.normal(size=(settings.population, groups, k - 1)) @ plane(k)
    return centres + lengths[:, None, None] * steps


def learn(settings: Settings, archive: Archive, memory: None, told: Archive) -> None:
    """Returns None: a random search learns nothing."""
