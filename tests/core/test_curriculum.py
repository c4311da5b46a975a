"""Curricula: ECT's r(t), the paper's numbers, and iCT's stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import curriculum
from tests.helpers.arrays import LEVELS, in_float64

ECT_FILES = ('objective_ect_cifar10', 'objective_ect_cifar10_1hour', 'objective_ect_imagenet64')


def test_ect_stage_counts_doublings():
    stages = [int(curriculum.ect_stage(jnp.int32(step), 25)) for step in (0, 24, 25, 49, 50)]
    assert stages == [0, 0, 1, 1, 2]


@pytest.mark.parametrize('name', ECT_FILES)
def test_ect_r_is_the_papers(recorded, name):
    arrays, config = recorded(name)
    settings = [config[letter] for letter in 'qkb']
    stages = [key for key in arrays if key.startswith('r_of_t_grid/')]
    assert stages
    for key in stages:
        stage = int(key.rsplit('stage')[-1])
        found = curriculum.ect_r(jnp.asarray(arrays['t_grid'], jnp.float32), stage, *settings)
        np.testing.assert_allclose(found, arrays[key], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('q', [2.0, 4.0, 256.0])
def test_ect_r_stays_below_t_and_rises_to_it_with_the_stage(q):
    stages = range(int(30 / np.log2(q)))
    r = np.array([in_float64(lambda t, s=s: curriculum.ect_r(t, s, q), LEVELS) for s in stages])
    assert np.all(r >= 0) and np.all(r < LEVELS)
    assert np.all(np.diff(r, axis=0) >= 0)
    np.testing.assert_allclose(r[-1], LEVELS, rtol=10 * q ** -float(stages[-1] + 1))


def test_ect_r_is_zero_exactly_where_the_gap_is_all_of_t():
    t, q, k, b = jnp.asarray(LEVELS, jnp.float32), 2.0, 8.0, 1.0
    gap = (1 + k / (1 + np.exp(b * LEVELS))) / q
    r = np.asarray(curriculum.ect_r(t, 0, q, k, b))
    assert 0 < np.sum(gap >= 1) < len(LEVELS)
    np.testing.assert_array_equal(r == 0, gap >= 1)


def test_ect_r_takes_a_traced_stage():
    t = jnp.asarray(LEVELS, jnp.float32)
    traced = jax.jit(lambda stage: curriculum.ect_r(t, stage, 2.0))
    for stage in range(8):
        np.testing.assert_allclose(
            traced(jnp.int32(stage)), curriculum.ect_r(t, stage, 2.0), rtol=1e-6
        )
    assert traced._cache_size() == 1


def test_ict_has_eight_stages_from_10_to_1280_gaps():
    total = 400_000
    gaps = [int(curriculum.ict_num_scales(k, total, 10, 1280)) - 1 for k in range(0, total, 1000)]
    values, counts = np.unique(gaps, return_counts=True)
    np.testing.assert_array_equal(values, 10 * 2 ** np.arange(8))
    assert np.all(np.diff(gaps) >= 0) and np.all(counts == 50)
    assert curriculum.ict_num_scales(total, total, 10, 1280) == 1281
