"""The multistep sampler: on the exact consistency function, and with fresh noise at each level."""

import jax
import jax.numpy as jnp
import numpy as np

from cm_jax import samplers
from tests.helpers.gaussian import DATA, MEAN, PROCESSES, STD, each_process, points


@each_process
def test_multistep_of_the_exact_consistency_function_reproduces_the_data(p):
    """Whatever the levels: each ends with N(m, s^2), up to what noise at t_max still shows of m."""
    n, shape = 40_000, (2, 2, 1)
    levels = '80,0.8' if p.name == 've' else '1,0.6,0.2'
    sample = samplers.build(f'multistep@{levels}', p).sample
    key_x, key_z = jax.random.split(jax.random.key(0))
    x = p.prior_std * jax.random.normal(key_x, (n, *shape))
    sample = jax.jit(sample, static_argnums=0)
    x0 = sample(lambda x, t: DATA.consistency(p, x, t), x, jax.random.split(key_z, n))
    x0 = np.asarray(x0, np.float64).reshape(-1)
    bias = STD * MEAN / p.t_max * STD if p.name == 've' else 0
    assert abs(x0.mean() - MEAN) < bias + 4 * STD / np.sqrt(x0.size)
    assert abs(x0.std() - STD) < 4 * STD / np.sqrt(2 * x0.size)
    assert abs(np.mean((x0 - x0.mean()) ** 3)) < 4 * STD**3 * np.sqrt(6 / x0.size)


@each_process
def test_multistep_noise_is_fresh_at_each_level_and_differs_between_examples(p):
    """With D = 0 the network is shown the noise alone."""
    levels = (p.t_max, 0.8, 0.6)
    sampler = samplers.build('multistep@' + ','.join(map(str, levels)), p)
    seen = []

    def denoise(x, t):
        seen.append(x)
        return jnp.zeros_like(x)

    x = jnp.ones((50, 4, 4, 1))
    with jax.disable_jit():
        sampler.sample(denoise, x, jax.random.split(jax.random.key(0), 50))
    np.testing.assert_array_equal(seen[0], x)
    noise = np.array([seen[1] / 0.8, seen[2] / 0.6]).reshape(100, 16)  # of 2 levels x 50 examples
    np.testing.assert_allclose(noise.std(), 1, atol=0.1)
    correlation = np.abs(np.corrcoef(noise) - np.eye(100))
    assert correlation.max() < 0.95


def test_clip_clips_every_x0_and_nothing_else():
    """Levels and noise are those without it; an x0 inside [-1, 1] is left as it is."""
    x, keys = jnp.full((50, 4, 4, 1), 3.0), jax.random.split(jax.random.key(0), 50)

    def shown(spec, scale):
        """What the network, D = scale x, is shown, and the result."""
        seen = []
        denoise = lambda x, t: seen.append(x) or scale * x  # noqa: E731
        end = samplers.build(spec, PROCESSES['ve']).sample(denoise, x, keys, unroll=True)
        return np.array([*seen, end])

    plain, clipped = 'multistep@80,0.8,0.6', 'multistep@80,0.8,0.6,clip'
    np.testing.assert_array_equal(shown(plain, 0.1), shown(clipped, 0.1))
    first, second, third, end = shown(clipped, 1.0)
    noise = [shown(plain, 0.0)[i] for i in (1, 2)]
    np.testing.assert_allclose(second, np.clip(first, -1, 1) + noise[0], atol=1e-6)
    np.testing.assert_allclose(third, np.clip(second, -1, 1) + noise[1], atol=1e-6)
    np.testing.assert_allclose(end, np.clip(third, -1, 1))
    assert np.abs(third).max() > 1.5


@each_process
def test_multistep_with_one_level_is_onestep(p):
    x = points(p, p.t_max)
    keys = jax.random.split(jax.random.key(0), len(x))
    denoise = lambda x, t: DATA.consistency(p, x, t)  # noqa: E731
    one = samplers.build('onestep', p)
    other = samplers.build(f'multistep@{p.t_max:g}', p)
    np.testing.assert_array_equal(one.sample(denoise, x, keys), other.sample(denoise, x, keys))
    np.testing.assert_array_equal(one.sample(denoise, x, keys), denoise(x, jnp.full(64, p.t_max)))
    assert one.levels == other.levels and one.evaluations == other.evaluations == 1
