"""Power averages, from training to the commands that make others of them."""

import jax
import numpy as np
import pytest

from cm_jax.core import ema, tree
from cm_jax.run import open_run
from tests.helpers import commands


@pytest.mark.slow
@pytest.mark.devices
def test_training_keeps_power_averages_and_the_commands_make_others(tmp_path):
    folder = f'--workdir={tmp_path}/run'
    kept = ['--config.ema_sigma_rels=(0.05, 0.1)', '--config.sampling.ema=power0.1']
    every = ['--config.trajectory.every=1', '--config.trajectory.emas=True']
    commands.run('train', '--config=tests/helpers/tiny.py:edm', folder, *kept, *every)
    run = open_run(tmp_path / 'run')
    assert run.emas(3) == ['0.5', '0.9', 'power0.05', 'power0.1']
    assert all(row['learning_rate'] > 0 for row in run.metrics())
    weights = [run.params(step) for step in range(1, 13)]
    for name, sigma_rel, tolerance in (('power0.1', 0.1, 1e-5), ('posthoc0.07', 0.07, 1e-2)):
        expected = tree.weighted_sum(ema.power_coefficients(range(1, 13), sigma_rel), weights)
        apart = tree.flatten(
            jax.tree.map(lambda a, b: np.abs(a - b).max(), run.params(12, name), expected)
        )
        moved = tree.flatten(
            jax.tree.map(lambda a, b: np.abs(a - b).max(), weights[0], weights[-1])
        )
        assert all(apart[path] <= tolerance * moved[path] + 1e-6 for path in apart)
    commands.run('sample', folder, '--ema=posthoc0.07', '--sampler=onestep')
    assert (tmp_path / 'run/samples/onestep_step12_emaposthoc0.07_seed0.png').exists()
    commands.run('evaluate', folder, '--ema=posthoc0.07', '--sampler=onestep')
    assert [row['protocol']['ema'] for row in run.scores()] == ['posthoc0.07']
    line = commands.error('evaluate', folder, '--ema=posthoc0.001')
    assert 'out of the range of the 24 averages' in line
