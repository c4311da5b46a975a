"""A regression of a few weights that stands for an objective, and its train step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cm_jax.core import ema, tree
from cm_jax.objectives import Objective
from cm_jax.training import optim
from cm_jax.training.optim import Optimizer
from cm_jax.training.step import init_state, make_train_step

RATES = (0.5, 0.9)
SIGMA_RELS = (0.05, 0.1)
AVERAGES = ema.averages(RATES, SIGMA_RELS)
BATCH = 12


def loss(params, refs, teacher, batch, key, step):
    """Regression that ignores its key; t is put in by the batch's label."""
    del refs, teacher, key, step
    x = batch['image']
    found = jnp.mean((x * params['scale'] + params['shift'][None, None, None] - 1) ** 2, (1, 2, 3))
    return found * batch['weight'], {'t': batch['label'].astype(jnp.float32), 'twice': 2 * found}


def objective(loss=loss):
    """`loss`, and refs that follow the weights, as a target network does."""
    return Objective(
        denoise=None,
        init=lambda params: jax.tree.map(jnp.copy, params),
        loss=loss,
        update=lambda refs, params, step: tree.lerp(refs, params, 0.1),
    )


def make_params():
    return {'scale': jnp.array(0.5), 'shift': jnp.array([0.1, -0.2])}


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    return {
        'image': jnp.asarray(rng.standard_normal((BATCH, 2, 2, 2)), jnp.float32),
        'label': jnp.asarray(rng.permutation(BATCH)),
        'weight': jnp.ones(BATCH),
    }


def sgd(rate):
    return Optimizer(*optax.sgd(rate), learning_rate=optax.constant_schedule(rate))


def start(accumulate=1, optimizer=None, objective=objective(), **settings):  # noqa: B008
    optimizer = optimizer or optim.make('adam', 1e-2)
    key = jax.random.key(0)
    step = make_train_step(objective, optimizer, AVERAGES, key, accumulate, **settings)
    return init_state(make_params(), objective, optimizer, AVERAGES), jax.jit(step)


def spoil(batch, index, value):
    return batch | {'weight': batch['weight'].at[index].set(value)}
