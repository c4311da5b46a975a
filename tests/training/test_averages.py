"""Averages and target weights in the train step, and weights that are projected."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import models
from cm_jax.core import ema, process, tree
from cm_jax.objectives import build as build_objective
from cm_jax.training import optim
from cm_jax.training.step import init_state, make_train_step
from tests.helpers.regression import RATES, SIGMA_RELS, make_batch, make_params, sgd, spoil, start


def combination(history, coefficients):
    """sum_k c_k theta_k of the weights theta_k in `history`: summed in float64, returned in float32."""
    return jax.tree.map(
        lambda *leaves: np.float32(np.tensordot(coefficients, np.float64(leaves), 1)), *history
    )


def test_averages_follow_their_recursion_and_their_coefficients():
    state, step = start()
    history = [state.params]
    averages = {rate: state.params for rate in RATES}
    for i in range(6):
        state, _ = step(state, make_batch(i), ())
        history.append(state.params)
        averages = {
            rate: jax.tree.map(
                lambda a, p, rate=rate: rate * a + (1 - rate) * p, average, state.params
            )
            for rate, average in averages.items()
        }
    for rate in RATES:
        coefficients = ema.coefficients(len(history), rate)
        combined = combination(history, coefficients)
        chex.assert_trees_all_close(state.emas[str(rate)], averages[rate], rtol=1e-5)
        chex.assert_trees_all_close(state.emas[str(rate)], combined, rtol=1e-5)


def test_power_averages_are_their_coefficients_from_the_first_step_on():
    state, step = start()
    history = []
    for i in range(7):
        state, _ = step(state, make_batch(i), ())
        history.append(state.params)
        for sigma_rel in SIGMA_RELS:
            coefficients = ema.power_coefficients(range(1, i + 2), sigma_rel)
            combined = combination(history, coefficients)
            chex.assert_trees_all_close(state.emas[f'power{sigma_rel}'], combined, rtol=1e-5)


def test_averages_count_a_skipped_step():
    """The profile is over the steps of the trajectory, whose number is all that a snapshot says."""
    state, step = start()
    state, _ = step(state, make_batch(), ())
    first = state.params
    state, _ = step(state, spoil(make_batch(), 0, np.nan), ())
    state, _ = step(state, make_batch(1), ())
    share = 1 - (2 / 3) ** (ema.sigma_rel_to_gamma(0.1) + 1)
    expected = tree.lerp(first, state.params, share)
    chex.assert_trees_all_close(state.emas['power0.1'], expected, rtol=1e-5)


def test_refs_are_updated_from_the_new_weights():
    state, step = start()
    after, _ = step(state, make_batch(), ())
    chex.assert_trees_all_close(after.refs, tree.lerp(state.refs, after.params, 0.1), rtol=1e-6)


# Projection


def test_averages_and_refs_take_the_projected_weights():
    project = lambda params: params | {'scale': jnp.float32(7.0)}  # noqa: E731
    state, step = start(optimizer=sgd(0.1), project=project)
    _, plain = start(optimizer=sgd(0.1))
    after, unprojected = step(state, make_batch(), ())[0], plain(state, make_batch(), ())[0]
    chex.assert_trees_all_equal(after.params, project(unprojected.params))
    chex.assert_trees_all_close(after.emas['power0.1'], after.params, rtol=1e-6)
    chex.assert_trees_all_close(after.emas['0.5']['scale'], (0.5 + 7) / 2, rtol=1e-6)
    chex.assert_trees_all_close(after.refs, tree.lerp(state.refs, after.params, 0.1), rtol=1e-6)


def row_sizes(params):
    """{path: root mean square of each output's weights} of an EDM2 network."""
    return {
        path: np.sqrt(np.mean(np.square(leaf), axis=tuple(range(leaf.ndim - 1))))
        for path, leaf in tree.flatten(params).items()
        if path[-1] == 'kernel'
    }


def test_edm2_trains_with_weights_of_unit_size_and_averages_of_those():
    settings = {'name': 'edm2_unet', 'channels': 8, 'channel_mult': (1,), 'num_blocks': 1}
    model = models.build(settings | {'attn_resolutions': ()}, (4, 4, 1), 0)
    edm = build_objective(
        {'name': 'edm', 'sigma_data': 0.5}, model.net, process.variance_exploding()
    )
    optimizer, averages = optim.make('adam', 0.1), ema.averages((0.5,), (0.1,))
    first = jax.jit(model.init)(jax.random.key(0))
    state = init_state(model.project(first), edm, optimizer, averages)
    key = jax.random.key(1)
    batch = {'image': jax.random.normal(key, (8, 4, 4, 1)), 'label': jnp.full(8, -1)}
    step = jax.jit(make_train_step(edm, optimizer, averages, key, project=model.project))
    expected = state.params
    for i in range(4):
        state, _ = step(state, batch, ())
        expected = tree.lerp(expected, state.params, 0.5)
        if i == 0:
            chex.assert_trees_all_close(state.emas['power0.1'], state.params, rtol=1e-5, atol=1e-6)
    for (path, sizes), before in zip(row_sizes(state.params).items(), row_sizes(first).values()):
        np.testing.assert_allclose(sizes, 1, atol=3e-4, err_msg=str(path))
        assert np.abs(before - 1).max() > 0.01
    chex.assert_trees_all_close(state.emas['0.5'], expected, rtol=1e-5, atol=1e-6)
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), state.params, model.project(first))
    assert sum(float(m) > 0.01 for m in jax.tree.leaves(moved)) >= len(row_sizes(first)) - 1


@pytest.mark.parametrize('name', ['song_unet', 'adm_unet'])
def test_other_networks_leave_their_weights(name):
    assert models.build({'name': name}, (32, 32, 3), 0).project(params := make_params()) is params
