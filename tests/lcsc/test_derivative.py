"""The derivative of the score: against finite differences, and the same however it is computed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import data, samplers, sharding
from cm_jax.core import process as processes
from cm_jax.errors import UserError
from cm_jax.evaluation import scores
from cm_jax.lcsc import criterion, derivative, storage
from cm_jax.lcsc import space as spaces
from cm_jax.lcsc.fitness import make_fitness, make_values
from cm_jax.metrics.features import round_straight_through, round_uint8
from cm_jax.models import lenet, pixels
from cm_jax.samplers import GenerativeModel
from cm_jax.types import Extractor
from tests.helpers import commands
from tests.helpers.small_search import COUNT, small_denoise, small_snapshots

VE = processes.variance_exploding()
MODEL = GenerativeModel(small_denoise, VE, (8, 8, 1), 10)
CANDIDATE = np.array([0.6, -0.4, 0.5, 0.1, 0.2])
SPECS = ('onestep', 'multistep@80,1', 'heun@3', 'dpm3@4', 'adams3@4')


def smooth(dim: int, seed: int) -> Extractor:
    """Features that are a smooth formula of the pixels, in the dtype of the pixels."""
    weights = np.random.default_rng(seed).normal(0, 0.2, (64, dim))

    def apply(params, x):
        return jnp.tanh(x.reshape(len(x), -1) @ params)

    return Extractor(f'smooth{dim}', f'fd_smooth{dim}', dim, apply, weights, None, 'none')


def space_of(extractor: Extractor) -> scores.FeatureSpace:
    source = data.open_source('digits', 'train')
    return scores.FeatureSpace(extractor, scores.reference(source, extractor, 500))


def made(spec, placed, metric, feature_spaces, samples=40, batch=40, **settings):
    sampler = samplers.build(spec, VE)
    built = criterion.build(feature_spaces, metric, samples)
    options = {'samples': samples, 'batch_size': batch, **settings}
    return derivative.make_derivative(MODEL, sampler, built, placed, **options)


def placed(where='device', dtype='float32') -> storage.Placed:
    networks = small_snapshots()
    stored = storage.store(lambda k: networks[k], range(COUNT), where=where, dtype=dtype)
    return storage.place(stored, sharding.make_mesh())


@pytest.fixture(scope='module')
def lenet_space():
    return space_of(lenet.extractor('lenet_digits'))


@pytest.mark.parametrize('spec', SPECS)
def test_it_is_that_of_finite_differences_in_float64(spec):
    """Two spaces, each with a weight and a unit, and two groups of weights."""
    with jax.enable_x64(True):
        networks = [jax.tree.map(np.float64, network) for network in small_snapshots()]
        stacked = jax.tree.map(lambda *x: np.stack(x) - x[-1], *networks)
        stored = storage.Stored(COUNT, networks[-1], stacked, lambda k: None, False)
        feature_spaces = [space_of(smooth(5, 0)), space_of(smooth(12, 1))]
        differentiate = made(
            spec,
            storage.place(stored, sharding.make_mesh()),
            {'fd_smooth5': 3.0, 'fd_smooth12': 1.0},
            feature_spaces,
            samples=20,
            batch=10 if spec == 'multistep@80,1' else 20,
            space=spaces.Space(('^in/', '')),
            units=np.array([2.0, 1.0]),
            rounding=jnp.asarray,
        )
        candidate = np.concatenate([CANDIDATE, CANDIDATE[::-1]])
        found = differentiate(candidate, 3, 100).gradient.ravel()
        step, random = 3e-6, np.random.default_rng(1)
        for _ in range(3):
            along = random.normal(size=2 * COUNT)
            ends = [
                differentiate(candidate + s * step * along, 3, 100).score for s in (-2, -1, 1, 2)
            ]
            slope = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * step)
            np.testing.assert_allclose(found @ along, slope, rtol=1e-6)


def test_its_score_is_that_of_fitness_and_samples_follow_one_another(lenet_space):
    """By either rule of bytes."""
    metric, sampler = {'fd_lenet': 2.0}, samplers.build('multistep@80,1', VE)
    built, found = criterion.build([lenet_space], metric, 40), []
    for rule in ('truncate', 'round'):
        rounding = functools.partial(round_uint8, rule=rule)
        settings = {'samples': 40, 'batch_size': 20, 'rounding': rounding}
        values = make_values(MODEL, sampler, built, placed(), **settings)
        expected = make_fitness(built, values)(CANDIDATE[None], 5)[0]
        through = functools.partial(round_straight_through, rule=rule)
        differentiate = made('multistep@80,1', placed(), metric, [lenet_space], rounding=through)
        np.testing.assert_allclose(differentiate(CANDIDATE, 5, 0).score, expected, rtol=1e-5)
        found.append(expected)
    assert abs(found[0] / found[1] - 1) > 1e-4
    shifted = differentiate(CANDIDATE, 5, 40).score
    assert abs(shifted / expected - 1) > 1e-3
    both = made('multistep@80,1', placed(), metric, [lenet_space], samples=80, batch=40)
    assert both(CANDIDATE, 5, 0).score < max(shifted, expected)


@pytest.mark.parametrize(
    ('settings', 'tolerance'),
    [
        ({'batch': 10}, 1e-4),
        ({'where': 'host'}, 1e-4),
        ({'where': 'disk'}, 1e-4),
        ({'dtype': 'bfloat16'}, 0.05),
    ],
)
def test_it_is_the_same_in_each_storage_and_in_batches(settings, tolerance, lenet_space):
    batch = settings.pop('batch', 40)
    metric, two = {'fd_lenet': 1.0, 'fd_pixel': 50.0}, [lenet_space, PIXELS]
    expected = made('multistep@80,1', placed(), metric, two)(CANDIDATE, 5, 0).gradient
    found = made('multistep@80,1', placed(**settings), metric, two, batch=batch)(CANDIDATE, 5, 0)
    error = np.linalg.norm(found.gradient - expected) / np.linalg.norm(expected)
    assert error < tolerance
    assert found.gradient.shape == (1, COUNT) and found.gradient[0, -1] == 0


PIXELS = space_of(pixels.extractor('pixel'))


def four_device_gradient() -> list:
    """For the test below: the derivative on all devices there are."""
    two = [space_of(lenet.extractor('lenet_digits')), PIXELS]
    differentiate = made('multistep@80,1', placed(), {'fd_lenet': 1.0, 'fd_pixel': 50.0}, two)
    return differentiate(CANDIDATE, 5, 0).gradient.tolist()


@pytest.mark.devices
def test_four_devices_find_the_derivative_of_one():
    found = np.array(commands.on_devices(4, 'four_device_gradient()', __name__))
    expected = np.array(four_device_gradient())
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)


def test_a_broken_candidate_has_no_score_and_no_derivative(lenet_space):
    differentiate = made('onestep', placed(), {'fd_lenet': 1.0}, [lenet_space])
    found = differentiate(np.array([np.nan, 0, 0, 0, 1]), 5, 0)
    assert np.isnan(found.score) and np.isnan(found.gradient).any()


def test_network_passes_are_counted():
    """Forward 1, back 2, and what is computed a second time."""
    for spec, samples, batch, passes in (
        ('onestep', 40, 40, 40 * 3),
        ('onestep', 40, 20, 40 * 4),
        ('dpm3@9', 40, 40, 40 * (27 + 8)),
        ('dpm3@9', 40, 20, 40 * (27 + 9)),
        ('dpm3@9+cfg2', 40, 40, 40 * (2 * 27 + 17)),
    ):
        found = derivative.network_passes(samplers.build(spec, VE), samples, batch)
        assert found == passes, spec


def test_the_network_is_called_as_often_as_that(lenet_space):
    calls = []

    def counted(params, x, t, label):
        jax.debug.callback(lambda _: calls.append(1), t[0])
        return small_denoise(params, x, t, label)

    built = criterion.build([lenet_space], {'fd_lenet': 1.0}, 40)
    for spec, batch, forward in (('dpm3@4', 40, 4 + 3), ('dpm3@4', 20, 2 * (4 + 4))):
        differentiate = derivative.make_derivative(
            MODEL._replace(denoise=counted),
            samplers.build(spec, VE),
            built,
            placed(),
            samples=40,
            batch_size=batch,
        )
        calls.clear()
        differentiate(CANDIDATE, 5, 0)
        jax.effects_barrier()
        assert len(calls) == forward, (spec, batch)


def test_metrics_without_a_derivative_are_refused():
    derivative.check([])
    derivative.check(['fid', 'fd_lenet', 'fd_lenet_fashion_mnist'])
    for name in ('kid', 'kd_lenet', 'precision_pixel', 'is'):
        with pytest.raises(UserError, match=f'takes Fréchet distances .* and {name} is none'):
            derivative.check(['fd_lenet', name])
