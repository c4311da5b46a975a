"""The evolutionary search over combination coefficients: pure `init`, `ask`, `tell`.

The paper's algorithm 1 in words: an archive of (coefficients, score) starts from EMA profiles; each
epoch takes the best of it as parents, crosses two of them, mutates the child and adds it. Its authors
have not released the search; the operators here are those of their sibling code for mixtures of
experts (EEP, arXiv 2407.00945), which names the same loop, with a blend crossover beside the
entry-wise one. What is ours: a generation of children is evaluated together, the sum of the
coefficients is held at 1 exactly, and mutation is scaled to the archive (see `ask`).

Coefficients a [K] sum to one; in the differential basis the weights are
theta_1 + sum_{i>1} a_i (theta_i - theta_1), so a_2 .. a_K are free and a_1 takes up the rest.
Negative entries are legal.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cm_jax.core.ema import coefficients as ema_coefficients
from cm_jax.errors import UserError
from cm_jax.types import Key


class SearchSettings(NamedTuple):
    """Hyper-parameters of the search.

    population: children a generation, > 0. parents: the archive's best that may have children, > 1.
    crossover: probability that a child has two parents. blend: probability that two parents are
    blended a + u (b - a), u ~ U(-0.25, 1.25), rather than mixed entry by entry. mutation: probability
    that an entry is mutated. scale: its standard deviation, for K = 20; it is scaled by sqrt(20 / K).
    ema_rates: the averages that the search starts from, besides the uniform one and the last
    checkpoint; () spreads eight of them over the window.
    """

    population: int = 16
    parents: int = 10
    crossover: float = 0.7
    blend: float = 0.5
    mutation: float = 0.25
    scale: float = 0.065
    ema_rates: tuple[float, ...] = ()


class SearchState(NamedTuple):
    """The archive, oldest first, and where the random stream stands. Lower scores are better."""

    settings: SearchSettings
    seed: tuple[int, ...]
    generation: int  # generations asked for so far
    coefficients: np.ndarray  # [N, K] float64, each row sums to 1
    scores: np.ndarray  # [N] float64; NaN and infinities are kept, and never best

    @property
    def best(self) -> int:
        """The archive index of the lowest finite score. Raises ValueError if there is none."""
        if not np.isfinite(self.scores).any():
            raise ValueError('no candidate has a finite score yet')
        return int(ranking(self.scores)[0])

    @property
    def best_coefficients(self) -> np.ndarray:
        return self.coefficients[self.best]

    @property
    def best_score(self) -> float:
        return float(self.scores[self.best])


def ranking(scores: np.ndarray) -> np.ndarray:
    """Indices from the best to the worst score; what is not finite comes last."""
    return np.argsort(np.where(np.isfinite(scores), scores, np.inf), kind='stable')


def default_ema_rates(k: int) -> tuple[float, ...]:
    """Eight rates whose averages reach back over 2 to all K checkpoints, evenly in the logarithm."""
    reach = np.geomspace(2, max(k, 2), 8)
    return tuple(float(rate) for rate in 1 - 1 / reach)


def named_profiles(k: int, rates: Sequence[float]) -> dict[str, np.ndarray]:
    """The candidates that the search starts from: the last checkpoint, EMA profiles, uniform."""
    profiles = {'last': np.eye(k)[-1]}
    profiles |= {f'ema* {rate:.4g}': ema_coefficients(k, rate) for rate in rates}
    return profiles | {'uniform': np.full(k, 1 / k)}


def init(key: Key, k: int, **settings: Any) -> SearchState:
    """The state before the first generation, for k >= 2 checkpoints; see SearchSettings."""
    checked = SearchSettings(**settings)
    if k < 2:
        raise UserError(f'a search needs at least 2 checkpoints, got {k}')
    if checked.population < 1 or checked.parents < 2 or checked.scale <= 0:
        raise UserError('a search needs population >= 1, parents >= 2 and scale > 0')
    if not all(0 <= p <= 1 for p in (checked.crossover, checked.blend, checked.mutation)):
        raise UserError('crossover, blend and mutation are probabilities, in [0, 1]')
    rates = tuple(checked.ema_rates) or default_ema_rates(k)
    checked = checked._replace(ema_rates=rates)
    seed = tuple(int(word) for word in np.asarray(jax.random.key_data(key)).ravel())
    return SearchState(checked, seed, 0, np.empty((0, k)), np.empty(0))


def ask(state: SearchState) -> tuple[np.ndarray, SearchState]:
    """The next candidates [P, K], each summing to 1, and the state that has asked for them.

    The first are the named profiles; afterwards `population` children of the archive's best, with
    Gaussian mutations of the free entries. Pure: the same state asks for the same candidates.
    """
    asked = state._replace(generation=state.generation + 1)
    k = state.coefficients.shape[1]
    if state.generation == 0:
        return np.stack(list(named_profiles(k, state.settings.ema_rates).values())), asked
    random = np.random.default_rng((*state.seed, state.generation))
    order = ranking(state.scores)
    finite = order[: int(np.isfinite(state.scores).sum())]
    pool = state.coefficients[finite if len(finite) else order][: state.settings.parents]
    children = [_child(random, pool, state.settings) for _ in range(state.settings.population)]
    return np.stack(children), asked


def tell(state: SearchState, coefficients: np.ndarray, scores: np.ndarray) -> SearchState:
    """The state with candidates [P, K] and their scores [P] in the archive."""
    coefficients, scores = np.asarray(coefficients, np.float64), np.asarray(scores, np.float64)
    if coefficients.shape != (*scores.shape, state.coefficients.shape[1]):
        raise ValueError(f'{scores.shape} scores for coefficients of shape {coefficients.shape}')
    return state._replace(
        coefficients=np.concatenate([state.coefficients, coefficients]),
        scores=np.concatenate([state.scores, scores]),
    )


def _child(random: np.random.Generator, pool: np.ndarray, settings: SearchSettings) -> np.ndarray:
    """One child of a pool [M, K] of parents, best first."""
    k = pool.shape[1]
    a, b = pool[random.integers(len(pool), size=2)]
    if random.random() >= settings.crossover:
        child = a.copy()
    elif random.random() < settings.blend:
        child = a + random.uniform(-0.25, 1.25) * (b - a)
    else:
        child = np.where(random.random(k) < 0.5, a, b)
    mutated = random.random(k) < settings.mutation
    mutated[random.integers(k)] = True
    child = child + mutated * random.normal(0, settings.scale * np.sqrt(20 / k), k)
    child[0] += 1 - child.sum()
    return child
