"""The fitness: the score of a network, on any number of devices, without compiling again."""

import logging
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cm_jax import data, samplers, sharding
from cm_jax.core import precond
from cm_jax.core import process as processes
from cm_jax.evaluation import scores
from cm_jax.lcsc import criterion, storage
from cm_jax.lcsc.fitness import make_fitness, make_values
from cm_jax.models import build, lenet
from cm_jax.samplers import GenerativeModel
from tests.helpers import commands
from tests.helpers.small_search import COEFFICIENTS, search_with, small_fitness


@pytest.fixture(scope='module')
def parts():
    """A generative_model with four random networks, and a reference."""
    process = processes.variance_exploding()
    settings = {'name': 'song_unet', 'channels': 4, 'channel_mult': (1,), 'num_blocks': 1}
    model = build(settings, (8, 8, 1), 10)
    denoise = precond.precondition(model.net, lambda t: precond.edm_scalings(t, 0.5))
    generative_model = GenerativeModel(denoise, process, (8, 8, 1), 10)
    networks = [jax.tree.map(np.asarray, model.init(jax.random.key(i))) for i in range(4)]
    extractor = lenet.extractor('lenet_digits')
    reference = scores.reference(data.open_source('digits', 'train'), extractor, 500)
    return generative_model, networks, extractor, reference


def fitness_of(parts, devices_mesh, samples=40, spec='multistep@80,1'):
    generative_model, networks, extractor, reference = parts
    space = scores.FeatureSpace(extractor, reference)
    built = criterion.build([space], {'fd_lenet': 1.0}, samples)
    values = make_values(
        generative_model,
        samplers.build(spec, generative_model.process),
        built,
        storage.place(storage.store(lambda k: networks[k], range(4)), devices_mesh),
        samples=samples,
        batch_size=20,
    )
    return make_fitness(built, values)


def test_fitness_of_a_one_hot_candidate_is_the_score_of_that_network(parts):
    spec = 'multistep@80,1+cfg3'
    generative_model, networks, extractor, reference = parts
    mesh = sharding.make_mesh()
    found = fitness_of(parts, mesh, spec=spec)(np.eye(4), 3)
    scorer = scores.Scorer(generative_model, [scores.FeatureSpace(extractor, reference)], 20, mesh)
    for network, fitness in zip(networks, found):
        row = scorer.score(network, spec, 40, (3,), ema='', step=0)
        np.testing.assert_allclose(fitness, row['fd_lenet'], rtol=1e-4)
        assert row['protocol']['sampler'] == spec and row['protocol']['evaluations'] == 4


def test_levels_share_a_program_and_each_has_its_own_score(parts):
    generative_model, _, extractor, reference = parts
    traced = []

    def denoise(params, x, t, label):
        traced.append(1)
        return params * jnp.tanh(x) / (1 + t[:, None, None, None])

    counted = generative_model._replace(denoise=denoise)
    scorer = scores.Scorer(
        counted, [scores.FeatureSpace(extractor, reference)], 20, sharding.make_mesh()
    )
    found, traces = [], []
    for level in (1, 5, 1):
        row = scorer.score(0.9, f'multistep@80,{level}', 40, (3,), ema='', step=0)
        found.append(row['fd_lenet'])
        traces.append(len(traced))
        assert row['protocol']['levels'] == [80, level]
    assert traces[0] == traces[1] == traces[2]
    assert found[0] == found[2] != found[1]


def test_fitness_depends_on_the_seed_and_a_broken_candidate_scores_nan(parts):
    fitness = fitness_of(parts, sharding.make_mesh())
    population = np.array([[1.0, 0, 0, 0], [np.nan, 0, 0, 1], [0.5, 0.5, -1, 1]])
    first, again, other = fitness(population, 0), fitness(population, 0), fitness(population, 1)
    np.testing.assert_array_equal(first, again)
    assert np.isnan(first[1]) and np.isfinite(first[[0, 2]]).all()
    assert (first[[0, 2]] != other[[0, 2]]).all()


# Devices, and compilations


@pytest.mark.devices
def test_four_devices_find_the_coefficients_and_the_scores_of_one():
    script = "[search_with(where=w) for w in ('device', 'host')]"
    four = commands.on_devices(4, script, 'tests.helpers.small_search')
    one = search_with()
    for found in four:
        # One pixel of one of the 40 samples that is rounded to the next grey level is 1e-5.
        np.testing.assert_allclose(found.pop('scores'), one['scores'], rtol=3e-5)
        np.testing.assert_array_equal(found.pop('coefficients'), one['coefficients'])
        assert found == {name: value for name, value in one.items() if name in found}


@pytest.mark.parametrize('where', ['device', 'disk'])
def test_no_size_of_population_compiles_again(where, caplog):
    fitness, _ = small_fitness(where)
    fitness(COEFFICIENTS[:1], 1)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for population in (COEFFICIENTS[1:3], COEFFICIENTS, COEFFICIENTS[:5]):
            fitness(population, 2)
        assert not [record.message for record in caplog.records if 'ompil' in record.message]
        jax.jit(lambda x: x + 1)(jnp.zeros(3)).block_until_ready()
        assert [record.message for record in caplog.records if 'ompil' in record.message]


@pytest.mark.slow
def test_the_benchmark_runs_and_finds_no_late_compilation():
    found = subprocess.run(
        [sys.executable, 'benchmarks/lcsc.py', '--quick', '--rounds=1'],
        cwd=commands.ROOT,
        env=commands.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'compilations after the first generation: 0' in found.stdout
    assert 'Combining 4 snapshots' in found.stdout and 'A generation of 3' in found.stdout
