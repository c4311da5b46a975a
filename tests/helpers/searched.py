"""Searches as the study of LCSC reads them: rows of a Scorer with other numbers, and no weights."""

import copy
import functools
import json

import jax
import numpy as np

from cm_jax import sharding
from cm_jax.config import to_plain
from cm_jax.evaluation.scores import Scorer
from cm_jax.lcsc import ask_tell, generations
from cm_jax.lcsc.derivative import Derivative
from cm_jax.lcsc.identity import of_earlier_label
from cm_jax.settings import Budget, Evaluation
from cm_jax.wiring import open_spaces
from configs.digits_ect_lcsc import get_config
from tests.helpers.formula_model import GENERATIVE_MODEL
from tests.helpers.quadratic_search import OPTIMUM, K, fitness

SPACES = ('lenet_digits_2', 'lenet_fashion_mnist', 'pixel')
DISTANCES = ('fd_lenet', 'fd_lenet_digits_2', 'fd_lenet_fashion_mnist', 'fd_pixel')


@functools.cache
def measured(sampler):
    """A row of a report, as a search has it scored: of 40 samples on each of two noise sets."""
    evaluation = Evaluation(
        extractor='lenet_digits', samples=40, batch_size=20, seeds=(1000, 1001), second=SPACES
    )
    dataset = {'source': 'digits', 'split': 'train'}
    spaces = open_spaces(dataset, evaluation, unused_kinds=('pr',))
    scorer = Scorer(GENERATIVE_MODEL, spaces, 20, sharding.make_mesh())
    return scorer.score(np.float32(1), sampler, 40, evaluation.seeds, ema='', step=6)


def row(label, values, sampler='onestep'):
    """The row of a model whose distances, in the order of DISTANCES, are these; the spread is 0.5."""
    found = copy.deepcopy(measured(sampler))
    for name, value in zip(DISTANCES, values, strict=True):
        found[name], found[f'{name}_std'] = value, 0.5
    return of_earlier_label(label)._asdict() | found


def make_search(folder, run, models, variant='evolution', sampler='onestep', **cost):
    """What a finished search leaves that the study reads; `models` is {label: distances}."""
    folder.mkdir(parents=True)
    config = get_config(variant)
    config.budget.sampler = sampler
    rows = [row(label, values, sampler) for label, values in models.items()]
    report = {'cost': {'search': 170_000, 'selection': 36_000} | cost, 'rows': rows}
    found = {'workdir': str(run), 'steps': [2, 4, 6]}
    for name, content in (
        ('report', report),
        ('coefficients', found),
        ('search', to_plain(config)),
    ):
        (folder / f'{name}.json').write_text(json.dumps(content))
    search_quadratic(folder, config.search.method)


def slope(candidate, seed, first):
    """The derivative of `quadratic_search.fitness`."""
    score = fitness(candidate[None], seed)[0]
    return Derivative(score, 2 * (candidate[None] - OPTIMUM - 0.01 * seed))


def search_quadratic(folder, method):
    """The candidates of a short search of a quadratic function."""
    steps = {'steps': 12} if method == 'gradient' else {'population': 5}
    state = ask_tell.init(jax.random.key(0), K, method=method, **steps)
    generations.run(state, fitness, Budget(generations=12, seed=3), folder, 'search', slope)
