"""The search over combination coefficients: pure `init`, `ask`, `tell`, with an explicit state.

    state = init(key, k, method='evolution')
    coefficients, state = ask(state)                     # [P, K], each row sums to 1
    state = tell(state, coefficients, scores)            # lower is better
    state.best_coefficients, state.best_score

The first candidates are the profiles (see lcsc.profiles), whatever the method; then generations of
`population` by 'evolution' (the paper's), 'cma_es' or 'random', or one iterate after another by
'gradient', which is told the derivatives of the scores too: `tell(state, coefficients, scores,
gradients)`. With G groups of weights that have coefficients of their own (see lcsc.space), a
candidate is G rows one after another, [G K], each of which sums to 1.

The state holds the archive of all candidates with their scores; whatever else a method remembers is
rebuilt from the archive. `to_plain` and `from_plain` turn it into JSON-able data and back exactly.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cm_jax.errors import UserError, build_from, check_name
from cm_jax.lcsc import cma_es, evolution, gradient, random_search
from cm_jax.lcsc.archive import Archive, best_first, ranking
from cm_jax.lcsc.identity import Identity
from cm_jax.lcsc.profiles import default_ema_rates, stacked_profiles, starting_profiles
from cm_jax.types import Key

METHODS = {
    'evolution': evolution,
    'cma_es': cma_es,
    'random': random_search,
    'gradient': gradient,
}


class SearchState(NamedTuple):
    """The archive, oldest first, and how many generations were asked for. Lower scores are better."""

    method: str
    settings: Any  # the method's Settings
    k: int
    groups: int
    seed: tuple[int, ...]
    generation: int  # generations asked for so far
    coefficients: np.ndarray  # [N, G K] float64
    scores: np.ndarray  # [N] float64; NaN and infinities are kept, and never best
    told: tuple[int, ...]  # candidates of each `tell`, N in all
    gradients: np.ndarray  # [N, G K] float64, d score / dc; NaN where none was told
    memory: Any  # what the method has made of the archive

    @property
    def wants_gradients(self) -> bool:
        """Whether the candidates asked for are to be told with the derivative of their scores."""
        return self.method == 'gradient' and bool(self.told)

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


def init(
    key: Key, k: int, *, method: str = 'evolution', groups: int = 1, **settings: Any
) -> SearchState:
    """Returns the state before the first generation, for k >= 2 checkpoints.

    `settings` are those of the method's Settings. Raises UserError on wrong ones.
    """
    check_name('search method', method, METHODS)
    checked = build_from('search', METHODS[method].Settings, settings)
    if k < 2:
        raise UserError(f'a search needs at least 2 checkpoints, got {k}')
    if groups < 1:
        raise UserError(f'a search needs at least 1 group of weights, got {groups}')
    rates = tuple(float(rate) for rate in checked.ema_rates) or default_ema_rates(k)
    checked = checked._replace(ema_rates=rates)
    seed = tuple(int(word) for word in np.asarray(jax.random.key_data(key)).ravel())
    return _empty(method, checked, k, groups, seed)


def ask(state: SearchState) -> tuple[np.ndarray, SearchState]:
    """Returns the next candidates [P, G K], and the state that has asked for them.

    The coefficients of each group of a candidate sum to 1. The first candidates are the profiles. The
    same state always asks for the same candidates. Raises ValueError if the scores of the first
    candidates were not told yet.
    """
    asked = state._replace(generation=state.generation + 1)
    if state.generation == 0:
        candidates = stacked_profiles(state.k, state.groups, state.settings.ema_rates)
    elif not state.told:
        raise ValueError('a search whose first candidates have not been told has no next ones')
    else:
        random = np.random.default_rng((*state.seed, state.generation))
        archive = _archive(state.coefficients, state.scores, state.k)
        propose = METHODS[state.method].propose
        candidates = propose(state.settings, archive, state.memory, random)
    return candidates.reshape(len(candidates), -1), asked


def tell(
    state: SearchState,
    coefficients: np.ndarray,
    scores: np.ndarray,
    gradients: np.ndarray | None = None,
) -> SearchState:
    """Returns the state with candidates [P, G K] and their scores [P] in its archive.

    `gradients` [P, G K] are the derivatives of the scores, for a method that asks for them. Raises
    ValueError on other shapes.
    """
    coefficients, scores = np.asarray(coefficients, np.float64), np.asarray(scores, np.float64)
    if coefficients.shape != (*scores.shape, state.coefficients.shape[1]) or not len(scores):
        raise ValueError(f'{scores.shape} scores for coefficients of shape {coefficients.shape}')
    if gradients is not None and gradients.shape != coefficients.shape:
        raise ValueError(f'gradients {gradients.shape} of coefficients {coefficients.shape}')
    told = np.full(coefficients.shape, np.nan) if gradients is None else gradients
    whole = state._replace(
        coefficients=np.concatenate([state.coefficients, coefficients]),
        scores=np.concatenate([state.scores, scores]),
        told=(*state.told, len(scores)),
        gradients=np.concatenate([state.gradients, told]),
    )
    archive = _archive(whole.coefficients, whole.scores, state.k)
    new = _archive(coefficients, scores, state.k)
    if gradients is not None:
        new = new._replace(gradients=gradients.reshape(new.coefficients.shape))
    learn = METHODS[state.method].learn
    return whole._replace(memory=learn(state.settings, archive, state.memory, new))


def finalists(state: SearchState, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns up to `count` candidates [M, G K] to be ranked once more, and their scores [M].

    They are those with the best scores beside the profiles, or what the method has instead, where a
    score is NaN if there is none. There are none if nothing but the profiles was told.
    """
    archive, profiles = _archive(state.coefficients, state.scores, state.k), state.told[0]
    choose = getattr(METHODS[state.method], 'finalists', best_first)
    if len(archive.scores) == profiles:
        choose = best_first
    chosen = choose(archive, profiles, count)
    return chosen.coefficients.reshape(-1, state.coefficients.shape[1]), chosen.scores


def to_plain(state: SearchState) -> dict[str, Any]:
    """Returns the state as JSON-able data; scores that are not finite become words."""
    scores = [s if np.isfinite(s) else str(s) for s in state.scores.tolist()]
    plain = {
        'method': state.method,
        'settings': {name: _listed(value) for name, value in state.settings._asdict().items()},
        'k': state.k,
        'groups': state.groups,
        'seed': list(state.seed),
        'generation': state.generation,
        'told': list(state.told),
        'coefficients': state.coefficients.tolist(),
        'scores': scores,
    }
    if state.method == 'gradient':
        rows = [row if np.isfinite(row).all() else None for row in state.gradients]
        plain['gradients'] = [row if row is None else row.tolist() for row in rows]
    return plain


def from_plain(plain: Mapping[str, Any]) -> SearchState:
    """Returns the state that `to_plain` was given: it asks for the same candidates, to the last bit."""
    settings = METHODS[plain['method']].Settings(**plain['settings'])
    settings = settings._replace(ema_rates=tuple(settings.ema_rates))
    k, groups = plain['k'], plain['groups']
    state = _empty(plain['method'], settings, k, groups, tuple(plain['seed']))
    coefficients = np.asarray(plain['coefficients'], np.float64).reshape(-1, groups * k)
    scores, first = np.array([float(s) for s in plain['scores']]), 0
    gradients = np.full(coefficients.shape, np.nan)
    for i, row in enumerate(plain.get('gradients', ())):
        if row is not None:
            gradients[i] = row
    for turn, count in enumerate(plain['told']):
        rows, first = slice(first, first + count), first + count
        slopes = gradients[rows] if plain['method'] == 'gradient' and turn else None
        state = tell(state, coefficients[rows], scores[rows], slopes)
    return state._replace(generation=plain['generation'])


def profile_identities(state: SearchState) -> list[Identity]:
    """Returns who the first candidates of a search are, in their order."""
    profiles = starting_profiles(state.k, state.settings.ema_rates)
    return [profile.identity for profile in profiles]


def _empty(method: str, settings: Any, k: int, groups: int, seed: tuple[int, ...]) -> SearchState:
    """Returns the state of a search that has asked for nothing yet."""
    return SearchState(
        method=method,
        settings=settings,
        k=k,
        groups=groups,
        seed=seed,
        generation=0,
        coefficients=np.empty((0, groups * k)),
        scores=np.empty(0),
        told=(),
        gradients=np.empty((0, groups * k)),
        memory=None,
    )


def _archive(coefficients: np.ndarray, scores: np.ndarray, k: int) -> Archive:
    return Archive(coefficients.reshape(len(scores), -1, k), scores)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
