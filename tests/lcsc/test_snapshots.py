"""The snapshots of a search over several runs: their order, and whether they can be combined."""

import types

import numpy as np
import pytest

from cm_jax.core import ema
from cm_jax.errors import UserError
from cm_jax.lcsc import snapshots
from cm_jax.settings import Basis
from tests.helpers import tiny
from tests.helpers.refusals import refusal
from tests.helpers.run_folders import DIGITS, untrained_run


def a_run(name, steps):
    settings, card = tiny.settings_of(tiny.get_config()), {'image_shape': [8, 8, 1]}
    return types.SimpleNamespace(workdir=name, steps=lambda: steps, settings=settings, card=card)


def names(found):
    return [str(snapshot) for snapshot in found]


def test_folders_are_separated_by_commas_and_named_once():
    assert snapshots.folders('runs/a') == ['runs/a']
    assert snapshots.folders('runs/b, runs/a') == ['runs/b', 'runs/a']
    assert 'names a run twice: runs/a, runs/a' in refusal(snapshots.folders, 'runs/a,runs/a')


def test_snapshots_are_ordered_by_step_and_then_as_the_runs_are_named():
    runs = [a_run('b', [0, 2, 4]), a_run('a', [0, 1, 2, 3, 4])]
    found = snapshots.ordered(runs, Basis(start=1))
    assert names(found) == ['1 of a', '2 of b', '2 of a', '3 of a', '4 of b', '4 of a']
    found = snapshots.ordered(runs, Basis(every=3))
    assert names(found) == ['1 of a', '4 of b', '4 of a']
    assert names(snapshots.ordered(runs[:1], Basis())) == ['0 of b', '2 of b', '4 of b']


def test_several_runs_can_give_their_last_snapshots_alone_and_one_run_cannot():
    runs = [a_run('b', [0, 4]), a_run('a', [0, 4])]
    assert names(snapshots.ordered(runs, Basis(start=4))) == ['4 of b', '4 of a']
    assert 'needs at least 2' in refusal(snapshots.ordered, runs[:1], Basis(start=4))
    assert 'needs at least 1' in refusal(snapshots.ordered, runs, Basis(start=5))


@pytest.mark.parametrize('rate', [0.0, 0.5, 0.9])
def test_an_average_over_two_runs_is_the_mean_of_their_averages(rate):
    """Of two snapshots a step, the rate per snapshot is the root of that per step."""
    of_steps = ema.coefficients(14, rate).reshape(7, 2).sum(1)
    np.testing.assert_allclose(of_steps, ema.coefficients(7, rate**2), atol=1e-12)


def test_runs_of_another_network_or_other_data_are_refused_by_what_differs(tmp_path):
    def wider():
        config = tiny.get_config()
        config.model.channels = 8
        return config

    run = untrained_run(tmp_path / 'run', tiny.get_config('edm'))
    other_seed = untrained_run(tmp_path / 'alike', tiny.get_config('ect'), steps=(3, 4))
    snapshots.check_alike([run, other_seed])
    other = untrained_run(tmp_path / 'wider', wider())
    with pytest.raises(
        UserError, match=r'/run \(there\) .*/wider .*model.channels: 4 there, 8 here'
    ):
        snapshots.check_alike([run, other_seed, other])
    data = untrained_run(tmp_path / 'data', tiny.get_config(), card=DIGITS | {'split': 'test'})
    with pytest.raises(UserError, match=r"data\.split: 'train' there, 'test' here"):
        snapshots.check_alike([run, data])
