"""The evolutionary search of LCSC: parents from the archive's best, crossover, Gaussian mutation.

The paper's algorithm 1 (arXiv 2404.02241) in words, as far as it is known: each epoch takes the best of
an archive of (coefficients, score) as parents, crosses two of them, mutates the child and adds it;
nothing leaves the archive. Its authors have not released the search, so that the archive starts from
EMA profiles, the operators and their numbers are ours. They begin at those of their sibling code for
mixtures of experts (EEP, arXiv 2407.00945), which runs the same loop. What is the same, and what not:

    parent pool   EEP 'absolute', all within a margin of the best,
                  or 'ranking', the best R of the archive: this     `parents`
    crossover     EEP p = 0.3, else a copy of one parent            `crossover`
      rows        EEP swaps whole rows, the first parent's with
                  p = 0.6; LCSC has one row, so this is a copy      ours: entries, `first`
      blend       neither                                           ours: `blend`, a + u (b - a)
    mutation      EEP each entry p = 0.25, N(0, 0.065^2)            `mutation`, `scale`
    groups        EEP each touched with p = 0.25, at least one      `touch`
    sum           EEP divides by it with p = 0.1                    ours: 1 exactly, by a_1
    generation    EEP one child at a time                           ours: `population` children

A child that is the copy of a parent would be scored a second time for nothing, so at least one entry of
each touched group is mutated. The length of a mutation is scaled by sqrt(20 / K).
"""

from typing import Annotated, NamedTuple

import numpy as np

from cm_jax.bounds import Interval, Positive, Share
from cm_jax.lcsc.archive import Archive
from cm_jax.lcsc.profiles import Population, per_entry


class Settings(NamedTuple):
    """Hyper-parameters; see the table above. All but the first two and `scale` are probabilities.

    population: children a generation. parents: the archive's best that may have children. scale: the
    standard deviation of a mutation at K = 20. ema_rates: the averages that the search starts from,
    besides the uniform one and the last checkpoint; () spreads eight of them.
    """

    population: Population = 16
    parents: Annotated[int, Interval('[2, 65536]')] = 10
    crossover: Share = 0.3
    blend: Share = 0.5
    first: Share = 0.6
    mutation: Share = 0.25
    scale: Positive = 0.065
    touch: Annotated[float, Interval('(0, 1]')] = 0.25  # with 0 no group would change
    ema_rates: tuple[Share, ...] = ()


def propose(
    settings: Settings, archive: Archive, memory: None, random: np.random.Generator
) -> np.ndarray:
    """Returns `population` children [P, G, K] of the archive's best."""
    pool = archive.pool(settings.parents)
    return np.stack([_child(settings, pool, random) for _ in range(settings.population)])


def learn(settings: Settings, archive: Archive, memory: None, told: Archive) -> None:
    """Returns None: an evolutionary search remembers nothing beside its archive."""


def _child(settings: Settings, pool: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns one child [G, K] of a pool [M, G, K] of parents."""
    groups, k = pool.shape[1:]
    touched = _touched(groups, settings.touch, random)
    a, b = pool[random.choice(len(pool), size=2, replace=len(pool) < 2)]
    child = a.copy()
    if random.random() < settings.crossover:
        child = np.where(
            random.random((groups, 1)) < settings.first, a, b
        )  # groups that stay whole
        if random.random() < settings.blend:
            mixed = a + random.uniform(-0.25, 1.25) * (b - a)
        else:
            mixed = np.where(random.random((groups, k)) < settings.first, a, b)
        child[touched] = mixed[touched]
    mutated = random.random((groups, k - 1)) < settings.mutation
    mutated[np.arange(groups), random.integers(k - 1, size=groups)] = True
    steps = random.normal(0, per_entry(settings.scale, k), (groups, k - 1))
    child[:, 1:] += mutated * steps * touched[:, None]
    child[:, 0] += 1 - child.sum(axis=1)
    return child


def _touched(groups: int, probability: float, random: np.random.Generator) -> np.ndarray:
    """Returns which groups [G] a child may change: each with `probability`, and at least one."""
    touched = np.full(groups, groups == 1)
    while not touched.any():
        touched = random.random(groups) < probability
    return touched
