"""The free baselines of a search: averages that need no search, of which a few are tried.

They are scanned on selection noise, each kind for itself, and the best of a kind stands in the report.
They are no candidates of the search. The kinds, by lcsc.identity:

window    The plain average of successive snapshots (PMA, arXiv 2505.12082; WSM, arXiv 2507.17634: which
          of them are merged matters more than how). The grid is ours (`windows`).
bema      BEMA (arXiv 2508.00180; core.ema), with the paper's kappa, rho and gamma. The paper's eta is
          0.2, and we scan a few. Its t counts the steps of training. Here only snapshots are averaged,
          and the result depends on what t counts, so we try both: the snapshots since the first
          ('bema 0.2 by snapshot') and the training steps since the first ('bema 0.2 by step').
posthoc   A power-function average (EDM2, arXiv 2312.02696), made of those that the run stored.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cm_jax.core.ema import POWER, bema_coefficients
from cm_jax.errors import UserError
from cm_jax.lcsc.archive import ranking
from cm_jax.lcsc.fitness import Fitness
from cm_jax.lcsc.identity import BEMA, POSTHOC, WINDOW, Identity
from cm_jax.run import Run
from cm_jax.run.averages import POSTHOC as POSTHOC_PREFIX


class Baseline(NamedTuple):
    """An average that is scanned.

    `coefficients` are those of the K snapshots, for every group of weights the same; there are none,
    [0], if the run makes the average by its label. `selection_score` is the mean over selection noise;
    None until it is scanned, and where an earlier version did not store it.
    """

    identity: Identity
    coefficients: np.ndarray = np.empty(0)
    selection_score: float | None = None


def window(k: int, length: int, end: int) -> np.ndarray:
    """Returns the coefficients [K] of the plain average of the `length` snapshots before number `end`.

    1 <= length <= end <= k. The window of length 1 at the end k is the last snapshot.
    """
    coefficients = np.zeros(k)
    coefficients[end - length : end] = 1 / length
    return coefficients


def windows(steps: Sequence[int], count: int) -> list[Baseline]:
    """Returns a grid of windows over K snapshots, by their training steps; [] for a count of 0.

    `count` lengths are spaced evenly in the logarithm from 2 to K, and the windows of a length end at
    `count` snapshots that are spaced evenly from the last back to the first where they can end. What
    rounding makes equal is there once, and the window of all snapshots is left out: it is the uniform
    average, which every search starts from.
    """
    k, found = len(steps), []
    lengths = np.unique(np.rint(np.geomspace(2, k, count)).astype(int))
    for length in lengths[lengths < k]:
        for end in np.unique(np.rint(np.linspace(k, length, count)).astype(int)):
            label = f'{WINDOW} {steps[end - length]}-{steps[end - 1]}'
            found.append(Baseline(Identity(WINDOW, label), window(k, length, end)))
    return found


def bemas(steps: Sequence[int], powers: Sequence[float]) -> list[Baseline]:
    """Returns BEMA over snapshots, by their training steps, at each eta with both meanings of t."""
    times = {'by snapshot': range(len(steps)), 'by step': [step - steps[0] for step in steps]}
    return [
        Baseline(Identity(BEMA, f'{BEMA} {eta:g} {unit}'), bema_coefficients(t, eta))
        for eta in powers
        for unit, t in times.items()
    ]


def posthocs(run: Run, step: int, sigma_rels: Sequence[float]) -> list[Baseline]:
    """Returns those of the post-hoc averages that the run's stored ones can make at `step`.

    Says on the terminal what is left out; [] where the run stored none.
    """
    is_stored = any(name.startswith(POWER) for name in run.emas(step))
    if sigma_rels and not is_stored:
        print(f'  left out: post-hoc averages; the run stored none to make them of at step {step}')
    found = []
    for sigma_rel in sigma_rels if is_stored else ():
        name = f'{POSTHOC_PREFIX}{sigma_rel}'
        try:
            run.posthoc(step, name)
        except UserError as error:
            print(f'  left out: {error}')
        else:
            found.append(Baseline(Identity(POSTHOC, name)))
    return found


def best(
    scanned: Sequence[Baseline], candidates: np.ndarray, fitness: Fitness, seeds: Sequence[int]
) -> dict[str, Baseline]:
    """Returns the best baseline of each kind, by its mean score over the seeds of selection noise.

    `candidates` [N, M] are the N baselines as `fitness` takes them. A kind without a finite score is
    left out.
    """
    means = np.mean([fitness(candidates, seed) for seed in seeds], axis=0)
    found = {}
    for kind in dict.fromkeys(one.identity.kind for one in scanned):
        among = np.array([i for i, one in enumerate(scanned) if one.identity.kind == kind])
        i = among[ranking(means[among])[0]]
        if np.isfinite(means[i]):
            found[kind] = scanned[i]._replace(selection_score=float(means[i]))
    return found
