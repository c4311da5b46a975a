"""CT and CD: the papers' numbers, Gaussian data in closed form, guidance, LPIPS as the distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import curriculum, distance, noise, ode, precond
from cm_jax.core.process import expand, perturb
from cm_jax.errors import UserError
from cm_jax.objectives import _consistency
from cm_jax.objectives import build as build_objective
from cm_jax.types import Distance
from tests.helpers.consistency import SAME_NOISE, behind, boundary, build, pair_inputs
from tests.helpers.gaussian import DATA, PROCESSES, measured_order
from tests.helpers.objectives import BATCH, SIGMA_DATA, VE, dropped_net, make_batch, make_params

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


# On rectified flow


@pytest.mark.parametrize('solver, slope', [('euler', 2), ('heun', 3)])
def test_cd_residual_on_rectified_flow_falls_at_the_solvers_order(solver, slope):
    p = PROCESSES['rf']
    scalings = precond.at_boundary(p, 0.5)

    def net(params, x, cond, label=None, key=None):
        t = cond[:, 0]
        away = x - DATA.solve(p, x, t, jnp.full_like(t, p.t_min))
        out = expand(-scalings(t).out, x)
        return jnp.where(out < 1e-12, 0, away / jnp.where(out == 0, 1, out))

    teacher = lambda params, x, t, label=None, key=None: DATA.denoise(p, x, t)  # noqa: E731
    ns, losses = (40, 80, 160), []
    with jax.enable_x64(True):
        x0 = DATA.mean + DATA.std * jax.random.normal(jax.random.key(1), (4000, 1, 1, 1))
        batch = {'image': x0, 'label': jnp.zeros(len(x0), int)}
        for n in ns:
            settings = {'name': 'cd', 'sigma_data': 0.5, 'distance': 'l1'}
            settings |= {'levels': n, 'solver': solver}
            objective = build_objective(settings, net, p, teacher)
            loss, _ = objective.loss({}, (), {}, batch, jax.random.key(0), jnp.int32(0))
            losses.append(jnp.mean(loss))
    assert abs(measured_order(losses, ns) - slope) < 0.15
