"""The free baselines: what is scanned, and which of them is the best on selection noise."""

import types

import numpy as np
import pytest

from cm_jax.core import ema
from cm_jax.errors import UserError
from cm_jax.lcsc import baselines
from cm_jax.lcsc.baselines import Baseline
from cm_jax.lcsc.identity import Identity
from tests.helpers.quadratic_search import K, fitness

STEPS = range(200, 1001, 20)


def test_a_window_is_a_plain_average_and_of_length_one_a_snapshot():
    np.testing.assert_array_equal(baselines.window(5, 1, 5), [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(baselines.window(5, 2, 4), [0, 0, 0.5, 0.5, 0])
    np.testing.assert_allclose(baselines.window(5, 5, 5), np.full(5, 1 / 5))


@pytest.mark.parametrize('count', [1, 3, 5, 60])
@pytest.mark.parametrize('steps', [STEPS, [10, 20], [0, 5, 6]])
def test_windows_are_distinct_average_what_their_labels_say_and_leave_out_the_uniform(steps, count):
    found = baselines.windows(steps, count)
    labels = [one.identity.label for one in found]
    assert len(set(labels)) == len(found) <= count**2
    for one in found:
        first, last = one.identity.label.removeprefix('window ').split('-')
        inside = [int(first) <= step <= int(last) for step in steps]
        np.testing.assert_allclose(one.coefficients, np.divide(inside, sum(inside)))
        np.testing.assert_allclose(one.coefficients.sum(), 1)
    assert (f'window {steps[-2]}-{steps[-1]}' in labels) == (len(steps) > 2)
    assert f'window {steps[0]}-{steps[-1]}' not in labels


def test_a_count_of_none_scans_none():
    assert baselines.windows(STEPS, 0) == [] and baselines.bemas(STEPS, ()) == []


def test_bema_is_scanned_with_both_meanings_of_t():
    found = baselines.bemas(STEPS, (0.2, 0.4))
    assert [(*one.identity,) for one in found] == [
        ('bema', f'bema {eta} {unit}') for eta in (0.2, 0.4) for unit in ('by snapshot', 'by step')
    ]
    np.testing.assert_array_equal(found[0].coefficients, ema.bema_coefficients(range(41), 0.2))
    times = range(0, 801, 20)
    np.testing.assert_array_equal(found[3].coefficients, ema.bema_coefficients(times, 0.4))
    np.testing.assert_allclose([one.coefficients.sum() for one in found], 1)


def test_the_best_of_each_kind_is_that_of_the_mean_over_selection_noise():
    scanned = [*baselines.windows(range(K), 3), *baselines.bemas(range(K), (0.1, 0.4))]
    candidates = np.array([one.coefficients for one in scanned])
    means = np.mean([fitness(candidates, seed) for seed in (20, 21)], axis=0)
    assert np.isnan(means).any()
    found = baselines.best(scanned, candidates, fitness, (20, 21))
    assert list(found) == ['window', 'bema']
    for kind, one in found.items():
        of_kind = [m for s, m in zip(scanned, means) if s.identity.kind == kind]
        assert one.selection_score == np.nanmin(of_kind) and one.identity.kind == kind
        (same,) = [s for s in scanned if s.identity == one.identity]
        np.testing.assert_array_equal(one.coefficients, same.coefficients)


def test_a_kind_without_a_finite_score_has_no_best():
    def spoilt(candidates, seed):
        return np.where(candidates[:, 0] < 0, np.inf, fitness(candidates, seed))

    scanned = [Baseline(Identity('bema', 'b')), Baseline(Identity('window', 'w'))]
    candidates = np.array([[-1, 0, 0, 0, 0, 2], [0, 0, 0, 0, 0, 1.0]])
    assert list(baselines.best(scanned, candidates, spoilt, (20,))) == ['window']


def a_run(emas, makes=()):
    """A run that stored these averages, of which what `makes` are post-hoc ones."""

    def posthoc(step, name):
        if name not in makes:
            raise UserError(f'{name} is out of the range')

    return types.SimpleNamespace(emas=lambda step: emas, posthoc=posthoc)


def test_post_hoc_averages_are_those_that_the_run_can_make(capsys):
    run = a_run(['0.9', 'power0.1'], makes=('posthoc0.1',))
    (found,) = baselines.posthocs(run, 6, (0.1, 0.2))
    assert found.identity == ('posthoc', 'posthoc0.1') and not len(found.coefficients)
    assert 'posthoc0.2 is out of the range' in capsys.readouterr().out
    assert baselines.posthocs(a_run(['0.9']), 6, (0.1, 0.2)) == []
    assert 'the run stored none to make them of at step 6' in capsys.readouterr().out
