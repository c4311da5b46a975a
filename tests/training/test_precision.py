"""What a dtype keeps of the signal: its measure, the last gap, and the warning of training."""

import dataclasses

import numpy as np
import pytest

from cm_jax import data, objectives
from cm_jax.core.curriculum import ect_r
from cm_jax.training import precision
from cm_jax.training.setup import set_up
from cm_jax.wiring import wire
from tests.helpers import tiny
from tests.helpers.refusals import refusal
from tests.helpers.run_folders import untrained_run

DIGITS = data.open_source('digits', 'train')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run of ECT in three stages, with weights that are not near 0."""
    return untrained_run(tmp_path_factory.mktemp('run') / 'ect', tiny.get_config('ect'))


def test_measure_is_the_cosine_and_the_ratio_of_norms():
    exact = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0]])
    found = np.array([[6.0, 8.0], [0.0, 2.0], [np.nan, 1.0]])
    kept = precision.compare(found, exact)
    np.testing.assert_array_equal(kept.cosine, [1, 0, np.nan])
    np.testing.assert_array_equal(kept.ratio, [2, 2, np.nan])


def test_probe_is_at_the_last_gap_at_quantiles_of_the_law_of_training(run):
    probe = precision.make_probe(run.settings, DIGITS, 2)
    np.testing.assert_allclose(probe.r, ect_r(probe.t, 2, 2.0), rtol=1e-5)
    z = np.array([-1.645, -0.674, 0, 0.674, 1.645])  # quantiles of the normal law
    np.testing.assert_allclose(np.log(probe.t), -1.1 + 2 * z, atol=0.25)


def test_an_exact_program_keeps_all_and_16_bits_lose_more_the_fewer_they_have(run, monkeypatch):
    probe, params = precision.make_probe(run.settings, DIGITS, 2), run.params()
    choices = [(dtype, 'high') for dtype in ('float32', 'float16', 'bfloat16')]
    found = {how: probe.difference(params, (), *how) for how in (precision.EXACT, *choices)}
    kept = {how: precision.compare(found[how], found[precision.EXACT]) for how in choices}
    lost = [1 - cosine.min() for cosine, _ in kept.values()]
    assert lost[0] < 1e-9 < lost[1] < lost[2]  # high is exact on the CPU
    np.testing.assert_allclose(kept['float16', 'high'].ratio, 1, atol=0.2)

    # The table has these numbers.
    monkeypatch.setattr(precision.Probe, 'difference', lambda self, p, t, *how: found[how])
    title, _, *rows = precision.table(probe, params, (), [precision.EXACT, *choices])
    assert title.count('r/t = ') == len(probe.t) and f't = {probe.t[-1]:.3g}, r/t' in title
    assert [row.split(' | ')[:2] for row in rows[1:]] == [[f'| {d}', p] for d, p in choices]
    cosine, ratio = kept['bfloat16', 'high']
    assert rows[0].count('1.0000 (1.000)') == len(probe.t)
    assert rows[3].endswith(f'| {cosine[-1]:.4f} ({ratio[-1]:.3f}) |')


def test_methods_with_pairs_are_those_that_compare_and_others_are_refused():
    assert objectives.names_with_pairs() == ['cd', 'ct', 'ect', 'ict']
    for name in ('edm', 'catch_up'):
        config = tiny.get_config(name)
        parts = wire(tiny.settings_of(config), (8, 8, 1), 10)
        assert parts.objective.pairs is None
        said = refusal(precision.check_objective, tiny.settings_of(config))
        assert repr(name) in said and 'cd, ct, ect, ict' in said
    settings = dataclasses.replace(tiny.settings_of(tiny.get_config('ect')), steps=0)
    assert 'imported' in refusal(precision.check_objective, settings)


def test_training_is_warned_only_where_something_is_lost_and_never_stopped(run, monkeypatch):
    def setup_of(dtype, start=str(run.workdir)):
        config = tiny.get_config('ect')
        config.model.dtype = dtype
        config.objective.double_every = 1  # the last gap is 2^-12
        config.init_from.workdir = start
        return set_up(tiny.settings_of(config), run.workdir)

    params, coarse = run.params(), setup_of('bfloat16')
    said = precision.warning(coarse, params, 0)
    assert 'bfloat16' in said and 'loses' in said and f'--workdir={run.workdir}' in said
    monkeypatch.setattr(precision, 'LEAST', -1.0)
    assert not precision.warning(coarse, params, 0)

    def broken(*args):
        raise RuntimeError('out of memory')

    monkeypatch.setattr(precision, 'make_probe', broken)
    assert 'could not be measured: out of memory' in precision.warning(coarse, params, 0)
    assert not precision.warning(setup_of('float32'), params, 0)  # nothing is computed
    assert 'may lose' in precision.warning(setup_of('bfloat16', start=''), params, 0)
