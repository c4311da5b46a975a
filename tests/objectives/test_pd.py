"""PD: steps that halve, teachers that change, and a student that matches two steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import curriculum, noise, ode, precond
from cm_jax.core.process import expand
from cm_jax.errors import UserError
from tests.helpers.consistency import behind, build
from tests.helpers.gaussian import DATA
from tests.helpers.objectives import SIGMA_DATA, VE, make_batch


def test_pd_halves_its_steps_and_takes_the_student_as_teacher():
    objective = build('pd', start_steps=8, halve_every=3)
    refs = objective.init(jnp.float32(0))
    teachers, steps = [], []
    for k in range(15):
        assert refs['n'] == curriculum.pd_num_steps(k, 3, 8)
        steps.append(int(refs['n']))
        teachers.append(float(refs['teacher']))
        refs = objective.update(refs, jnp.float32(k + 1), jnp.int32(k))
    assert steps == [4] * 3 + [2] * 3 + [1] * 9
    assert teachers == [0] * 3 + [3] * 3 + [6] * 9


def test_pd_takes_the_length_of_each_stage():
    lengths = (1, 3, 2)
    objective = build('pd', start_steps=8, halve_every=lengths)
    refs = objective.init(jnp.float32(0))
    teachers, steps = [], []
    for k in range(8):
        steps.append(int(refs['n']))
        teachers.append(float(refs['teacher']))
        refs = objective.update(refs, jnp.float32(k + 1), jnp.int32(k))
    assert steps == [4] * 1 + [2] * 3 + [1] * 4
    assert teachers == [0] * 1 + [1] * 3 + [4] * 4
    for wrong in ((1, 3), (5,), (1, 3, 2, 2)):
        with pytest.raises(UserError, match='lengths of all 3 stages'):
            build('pd', start_steps=8, halve_every=wrong)
    with pytest.raises(UserError, match=r'halve_every must be .* got \(1, 0, 2\)'):
        build('pd', start_steps=8, halve_every=(1, 0, 2))


def test_pd_changes_its_teacher_late_where_the_last_step_of_a_stage_is_passed_over():
    objective = build('pd', start_steps=8, halve_every=3)
    refs = objective.init(jnp.float32(0))
    for k in (0, 1, 3):  # step 2 was not finite
        refs = objective.update(refs, jnp.float32(k + 1), jnp.int32(k))
    assert refs == {'teacher': 4, 'n': 2}


def test_pd_loss_of_a_student_that_matches_two_steps_is_zero():
    """Of Gaussian data: the student that takes the teacher's two Euler steps in one."""
    edm = functools.partial(precond.edm_scalings, sigma_data=SIGMA_DATA)

    def two_steps(x, t):
        """x0_target from level t = s(i/4), by its definition."""
        ratio = jnp.arange(9)
        grid = jnp.append(noise.karras_level(ratio[:-1], 9, VE.t_min, VE.t_max), 0.0)
        i = jnp.argmin(jnp.abs(grid[None] - t[:, None]), axis=1)
        velocity = ode.pf_ode(lambda x, t: DATA.denoise(VE, x, t))
        m, s = grid[i + 1], grid[i + 2]
        x_s = ode.euler(velocity, ode.euler(velocity, x, t, m), m, s)
        return (x_s - expand(s / t, x) * x) / (1 - expand(s / t, x))

    def net(params, x, cond, label=None, key=None):
        student, teacher = behind(two_steps, edm), behind(lambda x, t: DATA.denoise(VE, x, t), edm)
        return (student if params else teacher)({}, x, cond)

    with jax.enable_x64(True):
        batch = make_batch(np.float64)
        loss = build('pd', net, start_steps=8).loss
        refs = {'teacher': False, 'n': jnp.int32(4)}
        found, _ = loss(True, refs, (), batch, jax.random.key(0), jnp.int32(0))
        other, _ = loss(False, refs, (), batch, jax.random.key(0), jnp.int32(0))
        np.testing.assert_allclose(found, 0, atol=1e-9)
        assert np.all(other > 1e-6)
