"""CT, CD, iCT, ECT and PD: the papers' numbers, their limits, and Gaussian data in closed form."""

import functools
from math import erf

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import curriculum, distance, noise, ode, precond, weighting
from cm_jax.core.process import expand, perturb
from cm_jax.errors import UserError
from cm_jax.objectives import _consistency
from cm_jax.objectives import build as build_objective
from cm_jax.types import Distance
from tests.objectives.test_all_objectives import (
    BATCH,
    SHAPE,
    SIGMA_DATA,
    STAGE,
    VE,
    dropped_net,
    make_batch,
    make_params,
)
from tests.samplers.test_ode_closed_form import DATA, measured_order

SAME_NOISE = _consistency.same_noise(VE)
DEFAULTS = {
    'edm': {},
    'ect': {'double_every': STAGE},
    'ct': {'total_steps': 800_000},
    'ict': {'total_steps': 400_000},
    'cd': {},
    'pd': {'halve_every': STAGE, 'start_steps': 16},
}


def build(name, net=dropped_net, teacher_denoise=None, **settings):
    """An objective with the paper's defaults."""
    settings = {'name': name, 'sigma_data': SIGMA_DATA} | DEFAULTS[name] | settings
    return build_objective(settings, net, VE, teacher_denoise)


def behind(denoise, scalings):
    """The network that is `denoise(x, t)` behind the scalings; 0 where they leave it no part."""

    def net(params, x, cond, label=None, key=None):
        t = jnp.exp(4 * cond[:, 0])
        c = scalings(t)
        x = x / expand(c.in_, x)
        out = expand(c.out, x)
        away = denoise(x, t) - expand(c.skip, x) * x
        return jnp.where(jnp.abs(out) < 1e-12, 0, away / jnp.where(out == 0, 1, out))

    return net


def boundary(t):
    return precond.boundary_scalings(t, SIGMA_DATA, VE.t_min)


# CT and CD: the numbers of the consistency-models code

WEIGHTINGS = {
    'uniform': 'uniform',
    'snr': 'snr',
    'snr+1': 'snr_plus_1',
    'truncated-snr': 'truncated_snr',
    'karras': 'karras',
}


def test_grid_scalings_and_schedules_are_the_papers(recorded):
    arrays, config = recorded('objective_cm')
    with jax.enable_x64(True):
        for n in (18, 40):
            wanted = arrays[f'N{n}/sigma_grid']
            np.testing.assert_allclose(noise.karras_sigmas(n, 0.002, 80.0), wanted, rtol=1e-12)
            found = noise.karras_level(jnp.arange(n), jnp.asarray(n), 0.002, 80.0)
            np.testing.assert_allclose(found, wanted, rtol=1e-12)
        scalings = precond.consistency_scalings(jnp.asarray(arrays['sigma']), 0.5, 0.002)
        for name, found in zip(('skip', 'out', 'in'), scalings, strict=False):
            np.testing.assert_allclose(found, arrays[f'boundary_c_{name}'], rtol=1e-12, atol=1e-15)
    steps = arrays['ct_schedule/step']
    ends = config['total_steps'], config['start_scales'], config['end_scales']
    scales = [curriculum.ct_num_scales(jnp.int32(k), *ends) for k in steps]
    np.testing.assert_array_equal(scales, arrays['ct_schedule/num_scales'])
    rates = [curriculum.ct_target_ema(jnp.int32(k), *ends, config['start_ema']) for k in steps]
    np.testing.assert_allclose(rates, arrays['ct_schedule/target_ema'], rtol=1e-6)


def theirs(name):
    """The networks of the fixture: of u = c_in x, with c = 250 ln t where ours is ln(t)/4."""

    def net(params, x, cond, label=None, key=None):
        c = 1000 * expand(cond[:, 0], x)
        if params is not None and params == 'target':
            return 0.5 * jnp.sin(x) + 0.01 * c
        return jnp.tanh(x) * jnp.cos(c / 250) + 0.1 * x

    def teacher(params, x, t, label=None, key=None):
        net = lambda params, u, c, *a: 0.3 * u - 0.02 * 1000 * expand(c[:, 0], u) * jnp.cos(u)  # noqa: E731
        return precond.precondition(net, lambda t: precond.edm_scalings(t, SIGMA_DATA))(
            params, x, t
        )

    return net if name == 'net' else teacher


def level_in_float32(i, n, low, high, rho):
    """s_i of the grid of n levels."""
    low, high = low ** (1 / rho), high ** (1 / rho)
    return (jnp.float32(high) + (i / (n - 1)).astype(jnp.float32) * jnp.float32(low - high)) ** rho


@pytest.mark.parametrize('n', [18, 40])
@pytest.mark.parametrize('kind', ['ct', 'cd_heun'])
def test_loss_is_the_papers(recorded, n, kind, monkeypatch):
    """The whole loss of `make`, with the paper's draws of the index and the noise put in.

    The levels are float32, as the reference's are (an index over an integer is, in torch); in
    float64 the losses differ from its by up to 4e-6.
    """
    arrays, _ = recorded('objective_cm')
    x0, eps = (arrays[f'{name}_nchw'].transpose(0, 2, 3, 1) for name in ('x0', 'noise'))
    settings = {'levels': n, 'target_ema': 0.5} if kind == 'cd_heun' else {'s0': n, 's1': n}
    with jax.enable_x64(True):
        index = jnp.asarray(arrays[f'N{n}/index'])
        grid = level_in_float32(jnp.arange(n), n, 0.002, 80.0, 7.0)
        monkeypatch.setattr(noise, 'karras_level', level_in_float32)
        monkeypatch.setattr(noise, 'karras_sigmas', lambda *a: grid)
        monkeypatch.setattr(jax.random, 'randint', lambda *a: index)
        monkeypatch.setattr(jax.random, 'normal', lambda key, shape: jnp.asarray(eps))
        batch = {'image': jnp.asarray(x0), 'label': jnp.zeros(len(x0), int)}
        for measure in ('l1', 'l2'):
            for name, weight in WEIGHTINGS.items():
                objective = build(
                    kind[:2],
                    theirs('net'),
                    theirs('teacher') if kind == 'cd_heun' else None,
                    distance=measure,
                    weight=weight,
                    **settings,
                )
                loss, _ = objective.loss('', 'target', (), batch, jax.random.key(0), jnp.int32(0))
                wanted = arrays[f'N{n}/{measure}/{name}/{kind}_loss']
                np.testing.assert_allclose(loss, wanted, rtol=1e-6, err_msg=f'{measure} {name}')


# Gaussian data, whose teacher and consistency function are known


@pytest.mark.parametrize('solver, slope', [('euler', 2), ('heun', 3)])
def test_cd_residual_of_the_exact_solution_falls_at_the_solvers_order(solver, slope):
    """One step's error is O(h^(p+1)) for a solver of order p; the l1 loss is its size."""
    exact = lambda x, t: DATA.solve(VE, x, t, jnp.full_like(t, VE.t_min))  # noqa: E731
    teacher = lambda params, x, t, label=None, key=None: DATA.denoise(VE, x, t)  # noqa: E731
    ns, losses = (40, 80, 160, 320), []
    with jax.enable_x64(True):
        x0 = DATA.mean + DATA.std * jax.random.normal(jax.random.key(1), (4000, 1, 1, 1))
        batch = {'image': x0, 'label': jnp.zeros(len(x0), int)}
        for n in ns:
            objective = build(
                'cd', behind(exact, boundary), teacher, levels=n, solver=solver, distance='l1'
            )
            loss, _ = objective.loss({}, (), {}, batch, jax.random.key(0), jnp.int32(0))
            losses.append(jnp.mean(loss))
    assert abs(measured_order(losses, ns) - slope) < 0.15


def test_ct_and_cd_losses_agree_in_the_limit():
    """With student and target apart: both reach the same limit as r -> t at order 1, and their
    difference falls at order 2 (arXiv 2303.01469, theorem 2), the expectation by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z0, z1 = (z.reshape(-1, 1) for z in np.meshgrid(nodes, nodes))
    mass = np.outer(weights, weights).ravel() / np.sum(weights) ** 2
    denoise = lambda params, x, t, label=None, key=None: jnp.sin(params * x) + 0.3 * x  # noqa: E731
    teacher = lambda params, x, t, label=None, key=None: DATA.denoise(VE, x, t)  # noqa: E731
    step = _consistency.ode_step(ode.euler, teacher)
    with jax.enable_x64(True):
        x0, eps = DATA.mean + DATA.std * jnp.asarray(z0), jnp.asarray(z1)
        t = jnp.full(len(x0), 0.8)

        def loss(reach, gap):
            student, target = _consistency.pair(
                denoise, reach, VE, 1.0, 0.6, (), x0, eps, t, t * (1 - gap)
            )
            return float(np.sum(mass * distance.l2(student, target)))

        gaps = np.array([0.1, 0.05, 0.025, 0.0125])
        ct, cd = (np.array([loss(reach, gap) for gap in gaps]) for reach in (SAME_NOISE, step))
        limit = loss(SAME_NOISE, 0.0)
    assert abs(measured_order(np.abs(ct - limit), 1 / gaps) - 1) < 0.1
    assert abs(measured_order(np.abs(cd - limit), 1 / gaps) - 1) < 0.1
    assert abs(measured_order(np.abs(ct - cd), 1 / gaps) - 2) < 0.1


def test_guidance_moves_the_teachers_step_away_from_no_label():
    x0, eps, t = pair_inputs()
    label, r = jnp.arange(BATCH) % 3, 0.9 * t
    teacher = precond.precondition(dropped_net, lambda t: precond.edm_scalings(t, SIGMA_DATA))
    draw = {'levels': 4, 'solver': 'euler', 'distance': 'l1'}
    plain, guided = (build('cd', dropped_net, teacher, **draw, guidance=w) for w in (1.0, 3.0))
    args = make_params(), (), make_params(seed=2), make_batch(), jax.random.key(0), jnp.int32(0)
    assert not np.any(plain.loss(*args)[0] == guided.loss(*args)[0])

    def reached(weight):
        reach = _consistency.ode_step(ode.euler, consistency_teacher(teacher, weight))
        return reach(make_params(seed=2), x0, eps, perturb(VE, x0, eps, t), t, r, label)

    np.testing.assert_allclose(
        reached(3.0) - reached(1.0), 2 * (reached(1.0) - reached(0.0)), atol=2e-5
    )


def consistency_teacher(teacher, weight):
    """D_w by its definition."""

    def denoise(params, x, t, label):
        without = teacher(params, x, t, None)
        return (1 - weight) * without + weight * teacher(params, x, t, label)

    return denoise


# iCT


def test_ict_has_eight_stages_from_10_to_1280_gaps():
    total = 400_000
    gaps = [int(curriculum.ict_num_scales(k, total, 10, 1280)) - 1 for k in range(0, total, 1000)]
    values, counts = np.unique(gaps, return_counts=True)
    np.testing.assert_array_equal(values, 10 * 2 ** np.arange(8))
    assert np.all(np.diff(gaps) >= 0) and np.all(counts == 50)
    assert curriculum.ict_num_scales(total, total, 10, 1280) == 1281


def test_ict_levels_follow_the_lognormal_law_over_the_grid():
    """The share of each gap in the objective's draws, against the erf differences in NumPy."""
    image = jnp.zeros((50_000, 1, 1, 1))
    batch = {'image': image, 'label': jnp.zeros(len(image), int)}
    net = behind(lambda x, t: x, boundary)
    loss = jax.jit(build('ict', net, total_steps=8).loss)
    _, metrics = loss({}, (), (), batch, jax.random.key(0), jnp.int32(0))
    sigmas = np.asarray(noise.karras_sigmas(11, 0.002, 80.0))[::-1]
    cdf = np.array([erf((np.log(s) + 1.1) / (2**0.5 * 2.0)) for s in sigmas])
    wanted = np.diff(cdf) / (cdf[-1] - cdf[0])
    np.testing.assert_allclose(noise.ict_level_probs(sigmas, -1.1, 2.0), wanted, atol=1e-6)
    t = np.asarray(metrics['t'])
    found = np.array([np.mean(np.isclose(t, s, rtol=1e-4)) for s in sigmas[1:]])
    np.testing.assert_allclose(found.sum(), 1)
    np.testing.assert_allclose(found, wanted, atol=4 * np.sqrt(0.25 / len(t)))
    r = t * (1 - np.asarray(metrics['gap']))
    below = sigmas[np.argmin(np.abs(np.log(sigmas[:, None] / t)), axis=0) - 1]
    np.testing.assert_allclose(r, below, rtol=1e-2)


def test_ict_draws_only_levels_of_its_stage():
    net = behind(lambda x, t: x, boundary)
    objective = build('ict', net, total_steps=80, s0=2, s1=16)
    batch = {'image': jnp.zeros((2000, 1, 1, 1)), 'label': jnp.zeros(2000, int)}
    loss = jax.jit(objective.loss)
    for step, gaps in ((0, 2), (20, 4), (40, 8), (79, 16)):
        _, metrics = loss({}, (), (), batch, jax.random.key(0), jnp.int32(step))
        grid = np.asarray(noise.karras_sigmas(gaps + 1, 0.002, 80.0))
        nearest = np.abs(grid[:, None] / np.asarray(metrics['t']) - 1)
        assert np.all(nearest.min(axis=0) < 1e-4)
        assert set(nearest.argmin(axis=0)) <= set(range(gaps))


def test_ict_distance_is_pseudo_huber_with_c_by_the_size_of_the_image():
    net = behind(lambda x, t: 0.3 * x, boundary)
    args = {}, (), (), make_batch(), jax.random.key(0), jnp.int32(0)
    found = build('ict', net).loss(*args)[0]
    np.testing.assert_array_equal(found, build('ict', net, c=0.00054 * np.sqrt(32)).loss(*args)[0])
    assert not np.any(found == build('ict', net, c=0.1).loss(*args)[0])


# PD


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


# LPIPS, or any network, as the distance


@pytest.mark.parametrize('name', ['ct', 'cd'])
def test_a_distance_that_is_a_network_gets_its_frozen_weights(name):
    """The l1 distance as a network of one weight, 2: twice the loss, whatever the teacher."""
    network = Distance('double', lambda w, a, b: w * distance.l1(a, b), jnp.float32(2), {})
    teacher = precond.precondition(dropped_net, lambda t: precond.edm_scalings(t, SIGMA_DATA))
    taught = teacher if name == 'cd' else None
    weights = make_params(seed=2) if name == 'cd' else ()
    rest = make_batch(), jax.random.key(0), jnp.int32(0)
    plain = build(name, teacher_denoise=taught, distance='l1')
    double = build(name, teacher_denoise=taught, distance=network)
    params = make_params()
    refs = plain.init(params)
    loss, _ = plain.loss(params, refs, weights, *rest)
    found, _ = double.loss(params, refs, (weights, network.params), *rest)
    np.testing.assert_allclose(found, 2 * loss, rtol=1e-6)


def test_lpips_without_its_files_samples_and_does_not_train():
    objective = build('ct', distance='lpips')
    x = make_batch()['image']
    assert objective.denoise(make_params(), x, jnp.ones(BATCH)).shape == x.shape
    with pytest.raises(UserError, match=r'config\.lpips names no files'):
        params = make_params()
        objective.loss(params, params, ((), ()), make_batch(), jax.random.key(0), jnp.int32(0))


# What is refused


@pytest.mark.parametrize(
    'name, settings, message',
    [
        ('ct', {'total_steps': 0}, 'total_steps >= 1'),
        ('ct', {'s0': 1}, '2 <= s0 <= s1'),
        ('ct', {'mu0': 1.0}, '0 < mu0 < 1'),
        ('ct', {'distance': 'l3'}, "unknown distance 'l3'"),
        ('ict', {'s1': 5}, '1 <= s0 <= s1'),
        ('ict', {'c': -1.0}, 'c >= 0'),
        ('cd', {'levels': 1}, 'levels >= 2'),
        ('cd', {'solver': 'rk4'}, "unknown solver 'rk4'.*legal: euler, heun"),
        ('cd', {'target_ema': 1.0}, '0 <= target_ema < 1'),
        ('pd', {'start_steps': 12}, 'a power of 2, >= 2, got .*start_steps=12'),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, message):
    with pytest.raises(UserError, match=message):
        build(name, **settings)


# ECT


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'double_every': 0}, 'double_every >= 1'),
        ({'q': 1.0}, 'q > 1'),
        ({'c': -0.1}, 'c >= 0'),
        ({'k': -1.0}, 'k >= 0'),
        ({'b': 0.0}, 'b > 0'),
        ({'weight': 'edm'}, "unknown weighting 'edm'; legal: inverse_gap, karras, snr, "),
    ],
)
def test_ect_refuses_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        build('ect', **settings)


def paper_denoise(params, x, t, label=None, key=None):
    """The 'network' of the fixtures: x/(1+t) + 0.1 tanh(x cos(t))."""
    t = expand(t, x)
    return x / (1 + t) + 0.1 * jnp.tanh(x * jnp.cos(t))


FILES = ('objective_ect_cifar10', 'objective_ect_cifar10_1hour', 'objective_ect_imagenet64')
WEIGHTS = {'1/(t-r)': 'inverse_gap', '(t^2+sd^2)/(t*sd)^2': 'karras'}


def paper_stages(recorded, name):
    """Yields (config, x0, stage, {t, x_t, r, per_example_loss}) of a file of fixtures, NHWC."""
    arrays, config = recorded(name)
    assert config['net'] == 'x/(1+t)+0.1*tanh(x*cos(t))'
    x0 = arrays['images_nchw'].transpose(0, 2, 3, 1)
    for key in arrays:
        if key.startswith('loss/') and key.endswith('/t'):
            here = {part: arrays[key[:-1] + part] for part in ('t', 'r', 'per_example_loss')}
            here['x_t'] = arrays[key[:-1] + 'x_t_nchw'].transpose(0, 2, 3, 1)
            yield config, x0, int(key.split('/')[1].removeprefix('stage')), here


def assert_papers_loss(found, paper, weight, c, norm):
    """Within 1e-5, and what float32 leaves of a small difference: the reference was computed in it."""
    rounding = np.asarray(weight) * np.finfo(np.float32).eps * (norm + c)
    error = np.abs(np.asarray(found, np.float64) - paper)
    assert np.all(error < 1e-5 * paper + rounding), error / paper
    assert np.median(error / paper) < 1e-4


@pytest.mark.parametrize('name', FILES)
def test_ect_parts_give_the_papers_loss(recorded, name):
    for config, x0, stage, paper in paper_stages(recorded, name):
        t = jnp.asarray(paper['t'])
        eps = (paper['x_t'] - x0) / expand(paper['t'], x0)
        r = curriculum.ect_r(t, stage, *(config[letter] for letter in 'qkb'))
        np.testing.assert_allclose(r, paper['r'], rtol=1e-5)
        student, target = _consistency.pair(
            paper_denoise, SAME_NOISE, VE, {}, {}, (), jnp.asarray(x0), eps, t, jnp.asarray(r)
        )
        weight = weighting.get(WEIGHTS[config['weighting']])(t, paper['r'], config['sigma_data'])
        found = weight * distance.pseudo_huber(student, target, config['c'])
        norm = np.linalg.norm(student.reshape(len(t), -1), axis=1)
        assert_papers_loss(found, paper['per_example_loss'], weight, config['c'], norm)


@pytest.mark.parametrize('name', FILES)
def test_ect_loss_at_the_papers_draws_is_theirs(recorded, name, monkeypatch):
    """The whole of `make(...).loss`, with t and eps put in, and a network that inverts the scalings."""

    def net(params, x, cond, label=None, key=None):
        t = jnp.exp(4 * cond[:, 0])
        c = precond.edm_scalings(t, SIGMA_DATA)
        x = x / expand(c.in_, x)
        return (paper_denoise({}, x, t) - expand(c.skip, x) * x) / expand(c.out, x)

    for config, x0, stage, paper in paper_stages(recorded, name):
        assert config['sigma_data'] == SIGMA_DATA
        settings = {letter: config[letter] for letter in 'qkbc'} | {
            'name': 'ect',
            'sigma_data': SIGMA_DATA,
            'double_every': 10,
            'weight': WEIGHTS[config['weighting']],
        }
        with jax.enable_x64(True), monkeypatch.context() as patch:
            x0, t, x_t = (jnp.asarray(a, jnp.float64) for a in (x0, paper['t'], paper['x_t']))
            patch.setattr(noise, 'lognormal', lambda key, n, mean, std, t=t: t)
            eps = (x_t - x0) / expand(t, x0)
            patch.setattr(jax.random, 'normal', lambda key, shape, eps=eps: eps)
            batch, key = {'image': x0, 'label': jnp.zeros(len(t), int)}, jax.random.key(0)
            step = jnp.int32(10 * stage + 9)
            loss, metrics = build_objective(settings, net, VE).loss({}, (), (), batch, key, step)
            norm = np.linalg.norm(paper_denoise({}, x_t, t).reshape(len(t), -1), axis=1)
            weight = loss / metrics['distance']
        assert_papers_loss(loss, paper['per_example_loss'], weight, 2 * config['c'], norm)


def pair_inputs():
    x0, t = make_batch()['image'], jnp.geomspace(0.01, 10, BATCH)
    return x0, jax.random.normal(jax.random.key(3), x0.shape), t


def pair(r, params=None, key=None):
    """ECT's student and target for the small network."""
    x0, eps, t = pair_inputs()
    denoise = precond.precondition(dropped_net, lambda t: precond.edm_scalings(t, SIGMA_DATA))
    params = make_params() if params is None else params
    return _consistency.pair(denoise, SAME_NOISE, VE, params, params, (), x0, eps, t, r, None, key)


def test_ect_target_is_the_image_where_r_is_zero():
    x0, _, t = pair_inputs()
    r = jnp.where(jnp.arange(BATCH) < 4, 0.0, 0.5 * t)
    student, target = pair(r)
    np.testing.assert_array_equal(target[:4], x0[:4])
    assert np.all(np.abs(target - x0).max((1, 2, 3))[4:] > 1e-3)
    assert np.all(np.abs(student - x0).max((1, 2, 3)) > 1e-3)


def test_ect_student_and_target_share_the_dropout_mask():
    _, _, t = pair_inputs()
    key, other = jax.random.split(jax.random.key(4))
    student, target = pair(t, key=key)
    np.testing.assert_array_equal(student, target)
    assert np.abs(student - pair(t, key=other)[1]).max() > 1e-2
    assert np.abs(student - pair(t)[1]).max() > 1e-2


@pytest.mark.parametrize('weight', ['karras', 'inverse_gap'])
def test_ect_loss_has_no_distance_where_r_reaches_t_under_dropout(weight):
    """At a late stage r = t in float32: any distance left would be that of two dropout masks."""
    objective = build('ect', weight=weight)
    args = (make_params(), (), (), make_batch(), jax.random.key(0))
    loss, metrics = objective.loss(*args, jnp.int32(40 * STAGE))
    np.testing.assert_array_equal(metrics['gap'], 0)
    np.testing.assert_array_equal(loss, 0)
    assert np.all(objective.loss(*args, jnp.int32(2 * STAGE))[0] > 0)


def test_ect_target_has_no_gradient():
    _, _, t = pair_inputs()
    sums = lambda params: jnp.array([jnp.sum(one) for one in pair(0.5 * t, params)])  # noqa: E731
    for leaf in jax.tree.leaves(jax.jacobian(sums)(make_params() | {'label': jnp.zeros(())})):
        if leaf.ndim > 1:
            assert np.any(leaf[0] != 0)
            np.testing.assert_array_equal(leaf[1], 0)


def test_ect_before_any_consistency_is_edm():
    """With the gap all of t, ECT's distance is the root of the squared error that EDM averages."""
    settings = {'p_mean': 0.0, 'p_std': 0.5}
    args = (make_params(), (), (), make_batch(), jax.random.key(0), jnp.int32(0))
    _, of_ect = build('ect', **settings, k=1e6).loss(*args)
    loss, of_edm = build('edm', **settings).loss(*args)
    np.testing.assert_array_equal(of_ect['t'], of_edm['t'])
    np.testing.assert_array_equal(of_ect['gap'], 1)
    weight = weighting.karras(of_edm['t'], of_edm['t'], SIGMA_DATA)
    np.testing.assert_allclose(of_ect['distance'] ** 2 / np.prod(SHAPE), loss / weight, rtol=1e-5)


def test_ect_samples_behind_the_boundary_condition():
    x = make_batch()['image']
    found = build('ect').denoise(make_params(), x, jnp.full(BATCH, VE.t_min))
    np.testing.assert_array_equal(found, x)
