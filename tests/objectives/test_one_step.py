"""The one-step stage of Catch-Up Distillation: which estimate is learnt when, and what holds it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import ode, process
from cm_jax.core.process import expand
from cm_jax.errors import UserError
from cm_jax.files import read_json_lines
from cm_jax.objectives import build as build_objective
from cm_jax.objectives import one_step
from cm_jax.run import open_run
from tests.helpers import commands

RF = process.build('rf', 1e-5, 1.0)
SHAPE = (4, 3, 2, 1)
BATCH = {'image': jnp.zeros(SHAPE), 'label': jnp.arange(4) % 3}
TOTAL = 30


def velocity(x, t):
    return jnp.sin(2 * x) * (1 - expand(t, x) / 2) + 0.3 * x * expand(t, x) + 0.1


def teacher_denoise(params, x, t, label=None, key=None):
    """Moves with its parameter and label; with a key, which no objective may give it, not finite."""
    assert key is None
    shift = 0 if label is None else label[:, None, None, None]
    return x - expand(t, x) * (params * velocity(x, t) + 0.2 * shift)


def estimates_of(z, params, label, n=16):
    """x0_hat_j for j = 0 .. n - 1, [n, ...], by a loop in NumPy as the paper's code writes it."""
    x, found = np.asarray(z), []
    for i in range(n):
        t = jnp.full(len(x), 1 - i / n)
        v = (x - np.asarray(teacher_denoise(params, x, t, label))) / (1 - i / n)
        found.append(x - (1 - i / n) * v)
        x = x - v / n
    return np.stack(found)


def constant_net(params, x, cond, label=None, key=None):
    """A network whose velocity is its parameters, whatever the input."""
    return jnp.broadcast_to(params, x.shape)


def build(net=constant_net, p=RF, teacher=teacher_denoise, **settings):
    return build_objective({'name': 'one_step', 'total_steps': TOTAL} | settings, net, p, teacher)


def seen_noise(key):
    """The noise z that the student is shown at a step's key."""
    seen = []

    def net(params, x, cond, label=None, key=None):
        seen.append(x)
        np.testing.assert_array_equal(cond, jnp.ones((SHAPE[0], 1)))
        return jnp.zeros_like(x)

    build(net).loss((), (), 1.0, BATCH, key, jnp.int32(0))
    return np.asarray(seen[0])


@pytest.mark.parametrize('j', [0, 1, 8, 11, 14, 15])
def test_an_estimate_is_where_the_path_seems_to_end_after_j_steps(j):
    z = jax.random.normal(jax.random.key(0), SHAPE)
    denoise = lambda x, t: teacher_denoise(1.0, x, t, BATCH['label'])  # noqa: E731
    walk = jax.jit(lambda j: one_step.estimate(ode.pf_ode(denoise), z, j, 16, 1.0))
    expected = estimates_of(z, 1.0, BATCH['label'])[j]
    np.testing.assert_allclose(walk(j), expected, rtol=1e-5, atol=1e-5)


def test_the_first_estimate_is_one_step_and_the_last_is_the_sample():
    z, n = jax.random.normal(jax.random.key(0), SHAPE), 8
    first, last = (one_step.estimate(velocity, z, j, n, 1.0) for j in (0, n - 1))
    np.testing.assert_allclose(first, z - velocity(z, jnp.ones(4)), rtol=1e-6)
    sample = ode.integrate(ode.euler, velocity, z, jnp.linspace(1, 0, n + 1))
    np.testing.assert_allclose(last, sample, rtol=1e-5, atol=1e-6)


def test_an_estimate_costs_as_many_evaluations_as_it_needs():
    calls = []

    def counted(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return velocity(x, t)

    walk = jax.jit(lambda j: one_step.estimate(counted, jnp.ones(SHAPE), j, 16, 1.0))
    for j in (0, 8, 14):
        calls.clear()
        jax.block_until_ready(walk(j))
        jax.effects_barrier()
        assert len(calls) == j + 1


def test_phases_take_the_estimates_one_after_the_other():
    found = [int(one_step.phase_estimate(k, (8, 11, 14), TOTAL)) for k in range(TOTAL + 5)]
    assert found == 10 * [8] + 10 * [11] + 15 * [14]
    uneven = [int(one_step.phase_estimate(k, (3, 5), 7)) for k in range(8)]
    assert uneven == 4 * [3] + 4 * [5]


@pytest.mark.parametrize('step, j', [(0, 8), (9, 8), (10, 11), (20, 14), (31, 14)])
def test_the_loss_is_the_distance_to_the_estimate_of_the_phase(step, j):
    """And to what the average says, by itself: of constant velocities, their squared difference."""
    params, average, objective, key = jnp.float32(0.3), jnp.float32(0.7), build(), jax.random.key(3)
    loss, metrics = objective.loss(params, average, 1.0, BATCH, key, jnp.int32(step))
    z = seen_noise(key)
    away = z - 0.3 - estimates_of(z, 1.0, BATCH['label'])[j]
    expected = np.mean(away**2, axis=(1, 2, 3))
    np.testing.assert_allclose(metrics['distance'], expected, rtol=1e-4)
    np.testing.assert_allclose(metrics['drift'], 0.4**2, rtol=1e-4)
    np.testing.assert_allclose(loss, expected + 0.1 * 0.4**2, rtol=1e-4)
    np.testing.assert_array_equal(metrics['estimate'], j)


def test_a_network_that_maps_noise_to_the_estimate_has_no_loss():
    """The student knows the teacher's path; its average is itself."""

    def net(params, x, cond, label=None, key=None):
        walk = ode.pf_ode(lambda x, t: teacher_denoise(1.0, x, t, label))
        return x - one_step.estimate(walk, x, params, 16, 1.0)

    for step, j in ((0, 8), (10, 11), (25, 14)):
        objective = build(net)
        refs = objective.init(jnp.int32(j))
        loss, _ = objective.loss(jnp.int32(j), refs, 1.0, BATCH, jax.random.key(0), jnp.int32(step))
        assert np.all(loss < 1e-10)
        other, _ = objective.loss(j, j, 1.0, BATCH, jax.random.key(0), jnp.int32((step + 10) % 30))
        assert np.all(other > 1e-6)


def test_the_gradient_comes_by_the_student_alone():
    """Of constant velocities: 2 mean(away) d away/d params + 0.1 * 2 (v - v_ema), nothing of target."""
    objective, key = build(), jax.random.key(3)

    def mean(params, average, teacher):
        return jnp.mean(objective.loss(params, average, teacher, BATCH, key, jnp.int32(0))[0])

    found = jax.jit(jax.grad(mean, argnums=(0, 1, 2)))(jnp.float32(0.3), jnp.float32(0.7), 1.0)
    z = seen_noise(key)
    away = z - 0.3 - estimates_of(z, 1.0, BATCH['label'])[8]
    np.testing.assert_allclose(found[0], -2 * away.mean() + 0.2 * (0.3 - 0.7), rtol=1e-4)
    assert found[1:] == (0, 0)


def test_the_average_follows_the_weights():
    objective = build(ema_rate=0.9)
    refs = objective.init({'w': jnp.ones(2)})
    for k in range(3):
        refs = objective.update(refs, {'w': jnp.zeros(2)}, jnp.int32(k))
    np.testing.assert_allclose(refs['w'], 0.9**3, rtol=1e-6)


def test_without_its_weight_no_average_is_kept():
    objective = build(ema_weight=0.0)
    assert objective.init(jnp.ones(2)) == () == objective.update((), jnp.ones(2), jnp.int32(0))
    key, params = jax.random.key(3), jnp.float32(0.3)
    loss, metrics = objective.loss(params, (), 1.0, BATCH, key, jnp.int32(0))
    with_average = build().loss(params, params, 1.0, BATCH, key, jnp.int32(0))[0]
    np.testing.assert_allclose(loss, with_average, rtol=1e-6)
    assert 'drift' not in metrics


def test_shorter_processes_start_from_t_max():
    """The teacher's D is 1/4, which a student reaches in one step of length t_max; then v is not
    that of its average, by 1/2."""
    p = process.build('rf', 1e-5, 0.8)
    to_quarter = lambda params, x, *rest: (x - 0.25) / 0.8 + params  # noqa: E731
    objective = build(to_quarter, p, lambda params, x, t, label: jnp.full_like(x, 0.25))
    for step in (0, 15, 29):
        loss, _ = objective.loss(0.0, 0.5, (), BATCH, jax.random.key(0), jnp.int32(step))
        np.testing.assert_allclose(loss, 0.1 * 0.5**2, rtol=1e-5)


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'estimates': (8, 16)}, r'estimates must be numbers from 0 to .* = 15, got \(8, 16\)'),
        ({'estimates': ()}, r'got \(\)'),
        ({'teacher_steps': 8}, r'= 7, got \(8, 11, 14\)'),
    ],
)
def test_estimates_that_the_teacher_has_not_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


@pytest.mark.slow
def test_a_run_with_a_learned_prior_is_followed_by_the_one_step_stage(tmp_path):
    """As commands; then scores, and the straightness of both."""
    flow, student = tmp_path / 'flow', tmp_path / 'one_step'
    commands.run('train', '--config=tests/helpers/tiny_one_step.py:flow', f'--workdir={flow}')
    sources = [f'--config.{name}.workdir={flow}' for name in ('init_from', 'teacher')]
    train = ['--config=tests/helpers/tiny_one_step.py:one_step', f'--workdir={student}', *sources]
    commands.run('train', *train)
    run, teacher = open_run(student), open_run(flow)
    start, theirs = run.params(0), teacher.params(ema='0.9')
    jax.tree.map(np.testing.assert_array_equal, start, theirs['net'])
    assert [row['estimate'] for row in run.metrics()] == 4 * [1] + 4 * [2] + 4 * [3]
    commands.run('evaluate', f'--workdir={student}', '--ema=0.9')
    assert [row['protocol']['evaluations'] for row in run.scores()] == [1, 3]
    for folder in (flow, student):
        measure = ['--ema=0.9', '--straightness=4', '--samples=6', '--seeds=1,2']
        unscored = [
            '--config=configs/cifar10_flow.py'
        ]  # straightness needs no file of an extractor
        lines = [
            commands.run('evaluate', f'--workdir={folder}', *measure, *more)
            for more in ([], unscored)
        ]
        assert lines[0] == lines[1] and 'straightness over 4 Euler steps' in lines[0]
        (row,) = read_json_lines(folder / 'straightness.jsonl')
        assert row['straightness'] > 0 and row['protocol']['ema'] == '0.9'
    line = commands.error('evaluate', f'--workdir={flow}', '--straightness=0')
    assert 'a whole number in [1,' in line
