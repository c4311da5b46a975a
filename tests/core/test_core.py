"""Core: noise levels, curricula, preconditioning, weights, distances, arithmetic on trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax.core import (
    curriculum,
    distance,
    ema,
    noise,
    ode,
    precond,
    process,
    tree,
    weighting,
)
from cm_jax.errors import UserError, build_from, check_name

SIGMA_DATA = 0.5
LEVELS = np.geomspace(0.002, 80, 40)
ECT_FILES = ('objective_ect_cifar10', 'objective_ect_cifar10_1hour', 'objective_ect_imagenet64')


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


def in_float64(function, *arguments):
    """`function` of the arguments in float64, as numpy arrays."""
    with jax.enable_x64(True):
        found = function(*jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), arguments))
        return jax.tree.map(np.asarray, found)


# Errors


def test_unknown_name_lists_the_legal_ones_and_guesses():
    with pytest.raises(
        UserError, match=r"unknown fruit 'aple' \(did you mean 'apple'\?\)"
    ) as error:
        check_name('fruit', 'aple', ('pear', 'apple'))
    assert 'legal: apple, pear' in str(error.value)


def test_call_refuses_unknown_missing_and_wired_settings():
    def factory(net, size, depth=2):
        return net, size, depth

    assert build_from('model', factory, {'size': 3}, net='n') == ('n', 3, 2)
    with pytest.raises(
        UserError, match=r'config\.model\.sise.*did you mean .size.*legal: depth, size'
    ):
        build_from('model', factory, {'sise': 3}, net='n')
    with pytest.raises(UserError, match=r'config\.model\.net'):
        build_from('model', factory, {'net': 'other', 'size': 3}, net='n')
    with pytest.raises(UserError, match=r'config\.model lacks size; its keys: size, depth'):
        build_from('model', factory, {}, net='n')


# Processes


def test_process_build_refuses_names_and_levels():
    with pytest.raises(UserError, match='legal: rf, ve'):
        process.build('vp', 0.002, 80.0)
    for t_min, t_max in ((0.0, 80.0), (80.0, 0.002), (1.0, 1.0)):
        with pytest.raises(UserError, match='0 < t_min < t_max'):
            process.build('ve', t_min, t_max)
    with pytest.raises(UserError, match='t_max in'):
        process.build('rf', 1e-5, 80.0)


@pytest.mark.parametrize('name, t_max', [('ve', 80.0), ('rf', 1.0)])
def test_perturb_is_signal_times_image_plus_t_times_noise(name, t_max):
    p = process.build(name, 1e-3, t_max)
    x0, eps = normal(0, (3, 2, 2, 1)), normal(1, (3, 2, 2, 1))
    t = jnp.array([p.t_min, 0.3 * t_max, t_max])
    x_t = process.perturb(p, x0, eps, t)
    for i in range(3):
        signal = 1 - t[i] if name == 'rf' else 1.0
        np.testing.assert_allclose(x_t[i], signal * x0[i] + t[i] * eps[i], rtol=1e-6)
    np.testing.assert_allclose(
        process.perturb(p, jnp.zeros_like(x0), eps, jnp.full(3, t_max)),
        p.prior_std * eps,
        rtol=1e-6,
    )


# Noise levels


@pytest.mark.parametrize('n', [2, 3, 18, 40])
@pytest.mark.parametrize('ends', [(0.002, 80.0), (1e-5, 80.0), (1e-5, 1.0), (0.02, 10.0)])
def test_karras_levels_descend_from_end_to_end_evenly_in_the_rho_th_root(n, ends):
    low, high = ends
    levels = np.asarray(noise.karras_sigmas(n, low, high), np.float64)
    assert levels.shape == (n,)
    np.testing.assert_allclose(levels[[0, -1]], [high, low], rtol=2e-7)
    assert np.all(np.diff(levels) < 0)
    np.testing.assert_allclose(np.diff(levels ** (1 / 7), 2), 0, atol=1e-6)


def test_karras_levels_of_one_is_the_largest():
    np.testing.assert_allclose(noise.karras_sigmas(1, 0.002, 80.0), [80.0], rtol=2e-7)


def test_lognormal_has_the_moments_asked_for():
    n, mean, std = 200_000, -1.1, 2.0
    log_t = np.log(np.asarray(noise.lognormal(jax.random.key(0), n, mean, std), np.float64))
    assert log_t.shape == (n,)
    assert abs(log_t.mean() - mean) < 5 * std / np.sqrt(n)
    assert abs(log_t.std() - std) < 5 * std / np.sqrt(2 * n)


# ECT's curriculum


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


# Preconditioning and weights


def test_edm_scalings_make_input_and_target_of_unit_variance():
    c = in_float64(lambda t: precond.edm_scalings(t, SIGMA_DATA), LEVELS)
    np.testing.assert_allclose(c.in_**2 * (SIGMA_DATA**2 + LEVELS**2), 1, rtol=1e-12)
    # The network's target is (x0 - skip x_t) / out, with x_t = x0 + t eps.
    target = (SIGMA_DATA**2 * (1 - c.skip) ** 2 + c.skip**2 * LEVELS**2) / c.out**2
    np.testing.assert_allclose(target, 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(4 * c.noise), LEVELS, rtol=1e-12)


def test_edm_skip_leaves_the_least_output():
    """Of all skips, EDM's has the least `out` that keeps the target at unit variance (appendix B.6)."""
    c = in_float64(lambda t: precond.edm_scalings(t, SIGMA_DATA), LEVELS)
    for shift in (-1e-3, 1e-3):
        skip = c.skip + shift
        assert np.all(SIGMA_DATA**2 * (1 - skip) ** 2 + skip**2 * LEVELS**2 > c.out**2)


@pytest.mark.parametrize('scalings', [precond.consistency_scalings, precond.boundary_scalings])
@pytest.mark.parametrize('t_min', [0.002, 0.003, 1e-5])
def test_boundary_condition_holds_exactly(scalings, t_min):
    x = normal(0, (4, 3, 3, 2))
    net = lambda params, x, cond, label, key: 1e3 * jnp.sin(x)  # noqa: E731
    denoise = precond.precondition(net, lambda t: scalings(t, SIGMA_DATA, t_min))
    for run in (denoise, jax.jit(denoise)):
        np.testing.assert_array_equal(run({}, x, jnp.full(4, t_min)), x)


def test_boundary_scalings_become_edms_as_t_min_vanishes():
    edm = in_float64(lambda t: precond.edm_scalings(t, SIGMA_DATA), LEVELS)
    errors = []
    for t_min in (1e-3, 1e-4, 1e-5):
        c = in_float64(
            lambda t, t_min=t_min: precond.boundary_scalings(t, SIGMA_DATA, t_min), LEVELS
        )
        np.testing.assert_array_equal(c.in_, edm.in_)
        np.testing.assert_array_equal(c.noise, edm.noise)
        errors.append(max(np.abs(c.skip - edm.skip).max(), np.abs(c.out - edm.out).max()))
    assert errors[-1] < 3e-5
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 10, rtol=0.02)


def test_consistency_scalings_have_the_papers_form():
    c = precond.consistency_scalings(jnp.asarray(LEVELS, jnp.float32), SIGMA_DATA, 0.002)
    shifted = LEVELS - 0.002
    np.testing.assert_allclose(c.skip, 0.25 / (shifted**2 + 0.25), rtol=1e-5)
    np.testing.assert_allclose(
        c.out, shifted * 0.5 / np.sqrt(LEVELS**2 + 0.25), rtol=1e-4, atol=1e-8
    )
    np.testing.assert_allclose(c.noise, 250 * np.log(LEVELS), rtol=1e-5)


def test_precondition_combines_in_float32_what_the_network_computes_in_bfloat16():
    net = lambda params, x, cond, label, key: jnp.zeros(x.shape, jnp.bfloat16)  # noqa: E731
    denoise = precond.precondition(net, lambda t: precond.edm_scalings(t, SIGMA_DATA))
    x, t = normal(0, (2, 2, 2, 1)), jnp.array([0.1, 1.0])
    found = denoise({}, x, t)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, process.expand(0.25 / (t**2 + 0.25), x) * x, rtol=1e-6)


def test_edm_weight_undoes_the_output_scaling():
    t = jnp.asarray(LEVELS, jnp.float32)
    out = precond.edm_scalings(t, SIGMA_DATA).out
    np.testing.assert_allclose(weighting.get('karras')(t, t, SIGMA_DATA) * out**2, 1, rtol=1e-5)


def test_weights_by_name():
    t, r = jnp.array([1.0, 2.0]), jnp.array([0.5, 0.0])
    np.testing.assert_array_equal(weighting.get('uniform')(t, r, SIGMA_DATA), [1, 1])
    np.testing.assert_array_equal(weighting.get('inverse_gap')(t, r, SIGMA_DATA), [2, 0.5])
    legal = 'legal: inverse_gap, karras, snr, snr_plus_1, truncated_snr, uniform'
    with pytest.raises(UserError, match=legal):
        weighting.get('edm')


# Distances


def test_l1_and_l2_are_means_over_an_example():
    a, b = normal(0, (3, 4, 4, 2)), normal(1, (3, 4, 4, 2))
    difference = np.asarray(a - b).reshape(3, -1)
    np.testing.assert_allclose(distance.l1(a, b), np.abs(difference).mean(1), rtol=1e-6)
    np.testing.assert_allclose(distance.l2(a, b), (difference**2).mean(1), rtol=1e-6)


def test_pseudo_huber_without_c_is_the_euclidean_distance():
    a, b = normal(0, (3, 4, 4, 2)), normal(1, (3, 4, 4, 2))
    euclidean = np.linalg.norm(np.asarray(a - b).reshape(3, -1), axis=1)
    np.testing.assert_allclose(distance.pseudo_huber(a, b, 0.0), euclidean, rtol=1e-6)
    np.testing.assert_allclose(distance.pseudo_huber(a, b, 1e-6), euclidean, rtol=1e-6)


@pytest.mark.parametrize('c, size', [(1e4, 1.0), (1e6, 1.0), (0.03, 1e-5)])
def test_pseudo_huber_of_a_small_difference_is_its_square_over_2c(c, size):
    a = normal(0, (3, 4, 4, 2))
    square = np.sum(np.asarray(a, np.float64).reshape(3, -1) ** 2, axis=1) * size**2
    found = distance.pseudo_huber(size * a, jnp.zeros_like(a), c)
    np.testing.assert_allclose(found, square / (2 * c), rtol=1e-5)


@pytest.mark.parametrize('c', [0.0, 0.03])
def test_pseudo_huber_is_zero_with_zero_gradient_where_the_images_are_equal(c):
    a = normal(0, (3, 4, 4, 2))
    values, gradient = jax.value_and_grad(lambda b: jnp.sum(distance.pseudo_huber(a, b, c)))(a)
    assert values == 0
    np.testing.assert_array_equal(gradient, 0)


def test_pseudo_huber_gradient_is_finite_for_the_least_differences():
    gradient = jax.grad(lambda a: jnp.sum(distance.pseudo_huber(a, jnp.zeros_like(a), 0.0)))
    for size in 10.0 ** np.arange(-25, -10):
        a = jnp.full((1, 4), size)
        assert np.all(np.abs(gradient(a)) <= 0.51)  # 1/2, or 0 where the square underflows


@pytest.mark.parametrize('c', [0.0, 0.03, 2.0])
def test_pseudo_huber_gradient_is_the_difference_over_the_root(c):
    a, b = normal(0, (3, 4, 4, 2)), normal(1, (3, 4, 4, 2))
    gradient = jax.grad(lambda a: jnp.sum(distance.pseudo_huber(a, b, c)))(a)
    root = jnp.sqrt(jnp.sum((a - b) ** 2, axis=(1, 2, 3)) + c**2)
    np.testing.assert_allclose(gradient, (a - b) / process.expand(root, a), rtol=1e-5, atol=1e-7)


# Trees and averages


def snapshots(k, seed=0, spread=1.0):
    """K trees near one point, as the snapshots of one run are."""
    rng = np.random.default_rng(seed)
    shapes = {'a': {'kernel': (3, 3, 4, 8), 'bias': (8,)}, 'b': (500,)}
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    centre = jax.tree.map(rng.standard_normal, shapes, is_leaf=is_shape)
    return [
        jax.tree.map(lambda c: np.float32(c + spread * rng.standard_normal(c.shape)), centre)
        for _ in range(k)
    ]


def test_one_hot_combination_is_that_snapshot_bit_for_bit():
    trees = snapshots(7)
    stacked = tree.stack(trees)
    combine = jax.jit(tree.linear_combination)
    for k in range(7):
        found = combine(stacked, np.eye(7)[k])
        jax.tree.map(np.testing.assert_array_equal, found, trees[k])


def test_one_hot_combination_does_not_look_at_the_other_snapshots():
    rows = np.array([[1e30, np.inf, np.nan, 1.0], [-0.0, 0.0, 3e-9, -7.3], [np.inf, 3e38, 1, 1]])
    stacked = np.float32(rows)
    found = np.asarray(jax.jit(tree.linear_combination)(stacked, np.eye(3)[1]))
    np.testing.assert_array_equal(found.view(np.uint32), stacked[1].view(np.uint32))
    assert np.isnan(tree.linear_combination(stacked, np.array([1e-9, 1.0, 0.0]))[1:3]).all()
    assert np.isnan(tree.linear_combination(stacked[1:2], np.array([np.nan]))).all()


def test_combination_with_large_coefficients_of_both_signs_is_that_of_float64():
    """Each entry within 1e-6 of max(1, |entry|), also where 50 terms of 6 cancel to nothing."""
    k = 50
    rng = np.random.default_rng(1)
    signs = np.repeat([1.0, -1.0], k // 2)
    for spread in (1.0, 0.01):
        for coefficients in (6 * rng.permutation(signs), rng.uniform(-6, 6, k)):
            coefficients = np.float32(coefficients)
            stacked = tree.stack(snapshots(k, spread=spread))
            found = jax.jit(tree.linear_combination)(stacked, coefficients)
            for leaf, one in zip(jax.tree.leaves(stacked), jax.tree.leaves(found), strict=True):
                exact = np.tensordot(coefficients.astype(np.float64), leaf.astype(np.float64), 1)
                assert one.dtype == np.float32
                error = np.abs(np.asarray(one, np.float64) - exact)
                assert np.all(error < 1e-7 * np.maximum(1, np.abs(exact)))


def test_stack_count_and_lerp():
    trees = snapshots(2)
    stacked = tree.stack(trees)
    assert tree.count(stacked) == 2 * tree.count(trees[0]) == 2 * (288 + 8 + 500)
    jax.tree.map(np.testing.assert_array_equal, tree.lerp(*trees, 0.0), trees[0])
    middle = tree.lerp(*trees, 0.5)
    jax.tree.map(
        lambda a, b, m: np.testing.assert_allclose(m, (a + b) / 2, rtol=1e-5, atol=1e-6),
        *trees,
        middle,
    )


@pytest.mark.parametrize('k, rate', [(1, 0.9), (2, 0.5), (20, 0.9), (50, 0.999)])
def test_ema_coefficients_are_the_recursive_average(k, rate):
    trees = snapshots(k)
    average = trees[0]
    for params in trees[1:]:
        average = ema.update(average, params, rate)
    coefficients = ema.coefficients(k, rate)
    combined = tree.linear_combination(tree.stack(trees), coefficients)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-6), combined, average
    )


@pytest.mark.parametrize('rate', [0.0, 0.3, 0.99, 1.0])
@pytest.mark.parametrize('k', [1, 2, 30])
def test_ema_coefficients_sum_to_one(k, rate):
    np.testing.assert_allclose(ema.coefficients(k, rate).sum(), 1, rtol=1e-12)


def test_ema_coefficients_at_the_ends_of_the_rate():
    np.testing.assert_array_equal(ema.coefficients(5, 0.0), [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(ema.coefficients(5, 1.0), [1, 0, 0, 0, 0])


def test_integrate_passes_through_every_time_in_order():
    step = lambda v, x, t, s: x * 10 + process.expand(t - s, x)  # noqa: E731
    found = ode.integrate(step, None, jnp.zeros((2, 1)), np.array([6.0, 3.0, 1.0, 0.0]))
    np.testing.assert_array_equal(found, [[321.0], [321.0]])
    np.testing.assert_array_equal(ode.integrate(step, None, jnp.ones((2, 1)), np.array([6.0])), 1)
