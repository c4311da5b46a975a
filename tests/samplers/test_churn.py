"""EDM's stochastic sampler: Heun's without noise, and with it the variance of algorithm 2."""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax import samplers
from tests.helpers.gaussian import DATA, MEAN, PROCESSES, STD, points

VE = PROCESSES['ve']
SHAPE = (250, 128)
N = 250 * 128


def ends(spec):
    """Samples of Gaussian data by its exact denoiser."""
    key_x, key_z = jax.random.split(jax.random.key(0))
    x = VE.t_max * jax.random.normal(key_x, SHAPE)
    sample = jax.jit(samplers.build(spec, VE).sample, static_argnums=0)
    found = sample(lambda x, t: DATA.denoise(VE, x, t), x, jax.random.split(key_z, len(x)))
    return np.asarray(found, np.float64)


def variance(ts, s_churn, s_min, s_max, s_noise):
    """Of the result, from N(0, t_max^2), by what each step of algorithm 2 does to a deviation.

    D - m = k (x - m) with k = s^2 / (s^2 + t^2), so that a velocity is (1 - k) / t times a deviation.
    """
    n, var = len(ts) - 1, ts[0] ** 2
    slope = lambda t: (1 - STD**2 / (STD**2 + t**2)) / t  # noqa: E731
    for i, t in enumerate(ts[:-1]):
        gamma = min(s_churn / n, np.sqrt(2) - 1) if s_min <= t <= s_max else 0
        t_hat = t * (1 + gamma)
        var += s_noise**2 * (t_hat**2 - t**2)
        if i == n - 1:
            return var * (STD**2 / (STD**2 + t_hat**2)) ** 2
        h = ts[i + 1] - t_hat
        euler = 1 + h * slope(t_hat)
        var *= (1 + h / 2 * (slope(t_hat) + slope(ts[i + 1]) * euler)) ** 2


def test_without_churn_it_is_heun():
    x, keys = points(VE, VE.t_max), jax.random.split(jax.random.key(0), 64)
    denoise = lambda x, t: DATA.denoise(VE, x, t)  # noqa: E731
    for n in (1, 2, 18):
        heun, churn = (samplers.build(f'{name}@{n}', VE) for name in ('heun', 'churn'))
        assert (heun.levels, heun.evaluations) == (churn.levels, churn.evaluations)
        expected = heun.sample(denoise, x, keys)
        for spec in (f'churn@{n}', f'churn@{n},S_churn=9,S_min=90', f'churn@{n},S_noise=2'):
            found = samplers.build(spec, VE).sample(denoise, x, keys)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=spec)


def test_its_variance_is_that_of_algorithm_2_and_in_the_limit_that_of_the_data():
    """Each case with its own settings; the last one is the paper's on ImageNet-64, in fewer steps."""
    for settings in (
        (20, 8.0, 0.0, np.inf, 1.0),
        (20, 8.0, 0.05, 50.0, 1.1),
        (20, 1000.0, 0.5, 10.0, 1.0),
        (8, 2.0, 0.0, np.inf, 1.3),
        (64, 40.0, 0.05, 50.0, 1.003),
    ):
        n, s_churn, s_min, s_max, s_noise = settings
        spec = f'churn@{n},S_churn={s_churn},S_min={s_min},S_max={s_max},S_noise={s_noise}'
        found, ts = ends(spec), np.array(samplers.build(spec, VE).levels)
        expected = np.sqrt(variance(ts, *settings[1:]))
        assert abs(found.std() / expected - 1) < 4 / np.sqrt(2 * N), settings
        assert abs(found.mean() - MEAN) < 0.01 + 4 * expected / np.sqrt(N), settings
    fine = samplers.build('churn@2000', VE).levels
    for s_churn in (0.0, 40.0, 400.0):
        limit = np.sqrt(variance(np.array(fine), s_churn, 0.05, 50.0, 1.0))
        assert abs(limit / STD - 1) < 1e-3, s_churn


def test_its_noise_is_fresh_at_each_step_and_of_each_example():
    """With D = x nothing but the noise moves x."""
    shown, x = [], jnp.ones((50, 4, 4, 1))
    sampler = samplers.build('churn@3,S_churn=1', VE)
    keys = jax.random.split(jax.random.key(0), 50)
    sampler.sample(lambda x, t: shown.append(x) or x, x, keys, unroll=True)
    steps = [shown[0] - x, shown[2] - shown[1], shown[4] - shown[3]]
    raised = np.sqrt((4 / 3) ** 2 - 1)
    noise = np.array([s / (raised * t) for s, t in zip(steps, sampler.levels)]).reshape(150, 16)
    np.testing.assert_allclose(noise[:100].std(), 1, atol=0.1)
    assert np.abs(np.corrcoef(noise[:100]) - np.eye(100)).max() < 0.95
