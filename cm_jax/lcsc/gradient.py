"""Adam on the coefficients, down the derivative of the score, in the plane where they sum to one.

It is not in the paper, whose search asks for scores alone (arXiv 2404.02241): every step from the
coefficients to a Fréchet distance can be differentiated (lcsc.derivative). Each step is scored on new
noise, so that no set of noise is learnt by heart:

    c_0   = the best of the profiles that every search starts from, by search noise
    g     = P d score / dc,   P g = g - mean(g)          within the plane, group by group
    c    <- c - P Adam(g),    Adam's rate = learning_rate / K, falling to 0 as a cosine

The rate is divided by K because neighbouring snapshots are alike: of twice as many in the same window,
each takes half the step for the same step of the weights. Measured on the digits: a run of
configs/digits_ect.py with --config.trajectory.every=4, of which every 20th, 5th or each snapshot from
step 200 on is taken; 60 steps of 1,000 samples on fd_lenet; `fd_lenet_5k` of the mean of the last
quarter, on one seed of other noise; 2 cores of an AMD EPYC:

    learning_rate   0.3    1      3      10
    K = 11          7.86   7.90   7.90   8.45
    K = 41          6.03   5.49   5.45   5.77
    K = 201                3.98   3.72

In the end several iterates stand for election on selection noise, beside the profiles: the means of the
last quarter and of the last half of them, the last one, and others evenly from the second half. A step
whose score or derivative is not finite changes nothing.
"""

from typing import Any, NamedTuple

import numpy as np
import optax

from cm_jax.bounds import Count, Positive, Rate, Share
from cm_jax.lcsc.archive import Archive


class Settings(NamedTuple):
    """Hyper-parameters.

    steps: of Adam in all. learning_rate: of Adam, times K. b1, b2: Adam's. ema_rates: as in
    lcsc.evolution.
    """

    steps: Count = 100
    learning_rate: Positive = 2.0
    b1: Rate = 0.9
    b2: Rate = 0.99
    ema_rates: tuple[Share, ...] = ()


class Memory(NamedTuple):
    """Where the descent is: the coefficients of the next step, and Adam's state."""

    iterate: np.ndarray  # [G, K] float64
    adam: Any


def propose(
    settings: Settings, archive: Archive, memory: Memory, random: np.random.Generator
) -> np.ndarray:
    """Returns the iterate [1, G, K] whose score and derivative come next."""
    del settings, archive, random
    return memory.iterate[None]


def learn(settings: Settings, archive: Archive, memory: Memory | None, told: Archive) -> Memory:
    """Returns where the descent is after the candidates `told`.

    The first of them are the profiles: it begins at the best. Raises ValueError if a later one came
    without its derivative.
    """
    if memory is None:
        (best,) = archive.pool(1)
        return Memory(best, _adam(settings, best.shape[1]).init(best))
    if told.gradients is None:
        raise ValueError('a step of the search method gradient was told without its derivative')
    ((gradient,), (score,)) = told.gradients, told.scores
    if not (np.isfinite(score) and np.isfinite(gradient).all()):
        return memory
    adam = _adam(settings, gradient.shape[1])
    updates, state = adam.update(_within_plane(gradient), memory.adam)
    return Memory(memory.iterate + _within_plane(np.asarray(updates, np.float64)), state)


def finalists(archive: Archive, profiles: int, count: int) -> Archive:
    """Returns up to `count` candidates for the election; the first `profiles` are not among them.

    They are the means of the last quarter and of the last half of the iterates, which have no score
    (NaN), the last iterate, and others evenly from the second half, whose scores are each of its own
    noise.
    """
    iterates, scores = archive.coefficients[profiles:], archive.scores[profiles:]
    n = len(iterates)
    means = [iterates[n - max(1, n // part) :].mean(axis=0) for part in (4, 2)]
    spread = np.unique(np.linspace(n - 1, n // 2, max(count - len(means), 1)).astype(int))[::-1]
    return Archive(
        np.stack([*means, *iterates[spread]])[:count],
        np.array([*np.full(len(means), np.nan), *scores[spread]])[:count],
    )


def _adam(settings: Settings, k: int) -> optax.GradientTransformation:
    """Returns Adam with its rates, for K coefficients a group."""
    rate = optax.cosine_decay_schedule(settings.learning_rate / k, settings.steps)
    return optax.adam(rate, settings.b1, settings.b2, eps=1e-12)


def _within_plane(x: np.ndarray) -> np.ndarray:
    """Returns the part of x [G, K] along the plane in which each group's coefficients sum to one."""
    return x - x.mean(axis=1, keepdims=True)
