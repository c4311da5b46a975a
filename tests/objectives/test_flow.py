"""Rectified flow: its loss and the law of its levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import noise
from cm_jax.errors import UserError
from cm_jax.objectives import build as build_objective
from tests.helpers.catch_up import build, run_loss
from tests.helpers.objectives import RF, dropped_net, make_batch, make_params


def test_flow_is_the_ground_truth_term_alone():
    """CUD without its catch-up term, and rectified flow: one mean loss, over many draws."""
    batch = jax.tree.map(lambda x: jnp.tile(x, (500,) + (1,) * (x.ndim - 1)), make_batch())
    plain = lambda params, x, cond, label=None, key=None: dropped_net(params, x, cond, label)  # noqa: E731
    objectives = build(1, plain, catch_up_weight=0.0), build_objective({'name': 'flow'}, plain, RF)
    means = [
        float(jnp.mean(jax.jit(o.loss)(make_params(), (), (), batch, jax.random.key(0), 0)[0]))
        for o in objectives
    ]
    np.testing.assert_allclose(*means, rtol=0.05)


def test_logit_normal_levels_have_their_law():
    u = np.asarray(noise.logit_normal(jax.random.key(0), 20_000, 0.5, 2.0))
    logit = np.log(u / (1 - u))
    np.testing.assert_allclose([logit.mean(), logit.std()], [0.5, 2.0], atol=0.05)
    objective = build_objective({'name': 'flow', 'p_mean': 8.0, 'p_std': 0.1}, dropped_net, RF)
    t = run_loss(objective)[1]['t']
    assert np.all((t > 0.99) & (t < 1))


def test_half_a_law_of_t_is_refused():
    for settings in ({'p_mean': 0.0}, {'p_std': 1.0}):
        with pytest.raises(UserError, match=r'both p_mean and p_std .*or neither'):
            build_objective({'name': 'flow'} | settings, dropped_net, RF)
